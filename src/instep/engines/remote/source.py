"""The source's side of whole directories: compares them, fills new ones, and makes frames of all that is to be done.

``Producer.fill`` takes work from a list and fills one frame; a directory that does not fit goes on in the next. It
runs in the loop's thread for a few names, in another for bulk, never in two at once. Nothing is followed, and whatever
is read was opened relative to a directory descriptor.
"""

from __future__ import annotations

import os
import stat
import struct
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence

from instep.core.reconcile import Step, step
from instep.engines.remote import agent
from instep.engines.remote.contents import Contents
from instep.engines.remote.learned import page
from instep.engines.remote.names import VANISHED, Found, Names
from instep.engines.remote.request import Frame, Item, Sent, Task
from instep.engines.remote.session import Session, join
from instep.linux.libc import libc
from instep.paths import Learned

FEW = 64
"""Up to so many names the source is read in the loop's thread."""
CLONE_FS = 0x200
BELOW_AT_ONCE = 64
"""Directories that one digest stands for; a small change may have to wait for them to be looked at."""
BELOW_ENTRIES = 1000
"""The same, names in them."""
DOUBT_MAX = 4
"""So often it is tried in vain to compare many at once."""


class _Private(threading.local):
    """What a thread has of its own."""

    cwd = False
    """A working directory: names in it are looked up in a third of the time that a path through /proc takes."""


_private = _Private()


def have_own_directory() -> None:
    """Begin a thread that looks at directories: its working directory is no other thread's from now on."""
    _private.cwd = libc().unshare(CLONE_FS) == 0


def survey(session: Session, fd: int, path: bytes) -> agent.Survey:
    """Look at an open directory of the source, but for what the filter excludes. OSError when it cannot be read."""

    def leave_out(name: str, info: os.stat_result) -> bool:
        return session.excludes(path, os.fsencode(name), is_dir=stat.S_ISDIR(info.st_mode))

    base = ""
    if _private.cwd:
        os.fchdir(fd)
        base = "./"
    try:
        return agent.survey(
            fd,
            session.keep,
            is_root=session.far.is_root,
            owners=session.owners,
            leave_out=leave_out,
            ask_always=not session.filters_nothing,
            base=base,
            numbers=session.numbers,
        )
    finally:
        if _private.cwd:
            os.chdir("/")


class Producer:
    """Turns work into frames."""

    def __init__(self, session: Session, contents: Contents | None) -> None:
        self.names = Names(session, contents)
        self.work: deque[Item] = deque()
        """What is to be done, from its right end."""
        self.holds = False
        """What a comparison finds to be too much is not deleted, but noted."""
        self.extra: list[tuple[bytes, bool]] = []
        """Such names, and whether they are directories."""
        self.doubt = 0
        """How often many directories did not prove equal at once, less how often they did."""
        self._running: Iterator[None] | None = None
        self._links: deque[tuple[bytes, bytes]] = deque()

    @property
    def found(self) -> Found:
        """What was met besides what went into frames."""
        return self.names.found

    @property
    def is_quick(self) -> bool:
        """A few names are all that is to be looked at."""
        work = self.work
        return self._running is None and len(work) <= FEW and all(item.task is Task.NAME for item in work)

    @property
    def is_busy(self) -> bool:
        """There is more to do than to set times of directories."""
        return bool(self.work or self._running or self._links)

    @property
    def has_work(self) -> bool:
        """Whether another frame can be filled."""
        return self.is_busy or bool(self.names.found.touched)

    def fill(self, *, times: bool) -> Frame:
        """The next frame; empty when nothing had to be sent. Reads the source, so it may take some milliseconds.

        ``times``: also attributes of the directories that were touched, once all work is done. What they are set to
        must be sent at once: somebody else may be at work in them too, and the later time has to come later.
        """
        frame = self.names.frame = Frame()
        try:
            while not frame.is_full:
                if self._links:
                    self.names.link(*self._links.popleft())
                    continue
                if self._running is None:
                    if not self.work:
                        break
                    self._running = self._do(self.work.pop())
                if next(self._running, self) is self:
                    self._running = None
            if times and not self.is_busy:
                touched = self.names.found.touched
                while touched and not frame.is_full:
                    self.names.directory(Item(Task.ATTRIBUTES, touched.popitem()[0]))
        finally:
            self.names.close_directories()
        return frame

    def link(self, leader: bytes, names: Sequence[bytes]) -> None:
        """Make these names those of what is at ``leader``, which the target has."""
        self._links.extend((leader, name) for name in names)

    def close(self) -> None:
        """Let go of what is half done."""
        self._running = None
        self.work.clear()

    # -- one item -------------------------------------------------------------------------------------------------

    def _do(self, item: Item) -> Iterator[None]:
        task = item.task
        if task is Task.FRESH:
            return self._fresh(item)
        if task in (Task.CHECK, Task.CHECK_ENTRIES):
            return self._check(item)
        if task is Task.BELOW:
            return self._below(item)
        if task in (Task.DIFFER, Task.DIFFER_ENTRIES):
            return self._differ(item)
        if task is Task.ATTRIBUTES:
            self.names.directory(item)
        elif item.path:
            self.names.name(item)
        elif task is Task.NAME:
            self.names.directory(item)
        else:
            return self._check(item._replace(task=Task.CHECK if task is Task.WHOLE else Task.CHECK_ENTRIES))
        return iter(())

    # -- directories ----------------------------------------------------------------------------------------------

    def _fresh(self, item: Item) -> Iterator[None]:
        """All that is in a directory, for one that is empty at the target."""
        session = self.names.session
        try:
            fd = session.open(item.path)
        except OSError as error:
            if error.errno in VANISHED:
                self.work.append(item._replace(task=Task.UNFILLED))  # Gone, or another thing by now.
            else:
                self.names.failed(item.path, error, "cannot read the source directory")
            return
        path = item.path
        named = Item(Task.NAME, path, item.content)
        try:
            self.names.found.directories += 1
            if not (session.settings.one_file_system and os.fstat(fd).st_dev != session.device):
                with os.scandir(fd) as entries:
                    for entry in entries:
                        self._fresh_entry(named, fd, path, entry)
                        if self.names.frame.is_full:
                            yield
            self.names.own(item._replace(task=Task.ATTRIBUTES), fd)
            self.names.found.touched.pop(path, None)
        except OSError as error:
            self.names.failed(path, error, "cannot read the source directory")
        finally:
            os.close(fd)

    def _fresh_entry(self, named: Item, fd: int, parent: bytes, entry: os.DirEntry[str]) -> None:
        name = os.fsencode(entry.name)
        is_dir = entry.is_dir(follow_symlinks=False)
        session = self.names.session
        if (not session.filters_nothing or name.startswith(agent.TEMPORARY_PREFIX)) and session.excludes(
            parent, name, is_dir=is_dir
        ):
            return
        self.names.found.compared += 1
        path = join(parent, name)
        item = Item(Task.NAME, path, named.content)
        try:
            if is_dir:
                self.work.append(item._replace(task=Task.FRESH))
                if not self.names.planned("make ", path):
                    self.names.frame.enter(parent, item)
                    sent = Sent(agent.MKDIR, path, item._replace(task=Task.FRESH))
                    self.names.frame.add(sent, name, flags=agent.HIDDEN)
                return
            if not entry.is_file(follow_symlinks=False):
                self.names.special(item, fd, parent, name, entry.stat(follow_symlinks=False))
                return
            self.names.new(item, fd, parent, name)
        except OSError as error:
            if error.errno in VANISHED:
                self.work.append(item)  # Gone, or another thing by now: looked at again by its name.
            else:
                self.names.failed(path, error, "cannot read the source")

    def _check(self, item: Item) -> Iterator[None]:
        """A digest of a directory, for the target to compare with its own."""
        session = self.names.session
        try:
            fd = session.open(item.path)
        except OSError as error:
            if error.errno not in VANISHED:
                self.names.failed(item.path, error, "cannot read the source directory")
            return
        try:
            self.names.found.directories += 1
            if session.settings.one_file_system and os.fstat(fd).st_dev != session.device:
                self.names.own(item._replace(task=Task.ATTRIBUTES), fd)
                return
            rest: tuple[bytes, ...] = ()
            below: tuple[bytes, ...] = ()
            learned: tuple[Learned, ...] = ()
            entries = 0
            if not item.content:
                began_ns = time.time_ns()
                found = self._survey(fd, item.path)
                learned = self._learned(item.path, began_ns, found)
                rest = (
                    found.digest,
                    (found.newest_ns + session.far.ahead_ns).to_bytes(8, "little", signed=True),
                )
                below = tuple(map(os.fsencode, found.below))
                entries = len(found.infos)
                if session.settings.preserve.hard_links:
                    self._note_links(item.path, found)
            sent = Sent(agent.CHECK, item.path, item, entries, below=below, learned=learned)
            self.names.frame.add(sent, item.path, *rest)
        except OSError as error:
            self.names.failed(item.path, error, "cannot read the source directory")
        finally:
            os.close(fd)
        yield

    def check_below(self, path: bytes, names: Sequence[bytes]) -> None:
        """Compare these subdirectories of a directory that is equal itself, and all below them."""
        if self.names.session.settings.one_file_system or self.doubt > DOUBT_MAX:
            self.work.extend(Item(Task.CHECK, join(path, name), content=False) for name in names)
            return
        for at in range(0, len(names), BELOW_AT_ONCE):
            some = tuple(names[at : at + BELOW_AT_ONCE])
            self.work.append(Item(Task.BELOW, path, content=False, names=some))

    def _below(self, item: Item) -> Iterator[None]:
        """One digest for many directories."""
        session = self.names.session
        digests: list[bytes] = []
        newest: list[int] = []
        paths: list[bytes] = []
        learned: list[Learned] = []
        entries = 0
        began_ns = time.time_ns()
        todo = [join(item.path, name) for name in reversed(item.names)]
        while todo and len(paths) < BELOW_AT_ONCE and entries < BELOW_ENTRIES:
            path = todo.pop()
            try:
                fd = session.open(path)
                try:
                    found = self._survey(fd, path)
                finally:
                    os.close(fd)
            except OSError:
                # Whatever it is: it is found out where each is looked at by itself.
                self.work.extend(Item(Task.CHECK, join(item.path, name), content=False) for name in item.names)
                return
            if session.settings.preserve.hard_links:
                self._note_links(path, found)
            learned += self._learned(path, began_ns, found)
            paths.append(path)
            digests.append(found.digest)
            newest.append(found.newest_ns + session.far.ahead_ns)
            entries += len(found.infos)
            todo += found.inner(path)
        self.names.found.directories += len(paths)
        names = b"\0".join(item.names)
        head = agent.BELOW_HEAD.pack(len(names), len(paths)) + names + agent.digest_of(digests)
        sent = Sent(agent.BELOW, item.path, item, entries, below=tuple(paths), rest=tuple(todo), learned=tuple(learned))
        self.names.frame.add(sent, item.path, head, struct.pack(f"<{len(newest)}q", *newest))
        self.names.frame.is_weighty = True
        yield

    def _note_links(self, path: bytes, found: agent.Survey) -> None:
        for name, info in found.infos.items():
            if info.st_nlink > 1:
                self.names.note_links(join(path, os.fsencode(name)), info, content=False)

    def _learned(self, path: bytes, began_ns: int, found: agent.Survey) -> tuple[Learned, ...]:
        settings = self.names.session.settings
        one = page(path, began_ns, found.infos, hard_links=settings.preserve.hard_links) if settings.learns else None
        return () if one is None else (one,)

    def _survey(self, fd: int, path: bytes) -> agent.Survey:
        found = survey(self.names.session, fd, path)
        self.names.found.compared += len(found.infos)
        return found

    def _differ(self, item: Item) -> Iterator[None]:
        """Bring a directory in step with what the target was found to hold in it."""
        session = self.names.session
        deep = item.task is Task.DIFFER
        theirs = dict(item.listing or {})
        theirs.pop(b"", None)
        path = item.path
        try:
            fd = session.open(path)
        except OSError as error:
            if error.errno not in VANISHED:
                self.names.failed(path, error, "cannot read the source directory")
            return
        try:
            ours = self._survey(fd, path).entries()
            # What is too much goes first: on a full target it may make room for what comes.
            gone = theirs.keys() - ours.keys()
            mounted = session.mounted
            if gone and mounted.mounts and not self.holds and not mounted.carries(path):
                self.names.found.unsure.append(path)
                gone = set()
            for name in gone:
                is_dir = stat.S_ISDIR(theirs[name].st_mode)
                if session.settings.delete and (
                    session.settings.delete_excluded or not session.excludes(path, name, is_dir=is_dir)
                ):
                    if self.holds:
                        self.extra.append((join(path, name), is_dir))
                        continue
                    whole = join(path, name)
                    if mounted.mounts and not mounted.vouches(whole):
                        self.names.found.unsure.append(whole)
                        continue
                    self.names.delete(Item(Task.NAME, whole), path, name)
                    yield
            self.names.found.kept += len(theirs.keys() & ours.keys())
            for name, entry in ours.items():
                self._differ_entry(item, fd, name, entry, theirs.get(name), deep=deep)
                yield
            self.names.own(item._replace(task=Task.ATTRIBUTES, listing=None), fd)
            self.names.found.touched.pop(path, None)
        except OSError as error:
            self.names.failed(path, error, "cannot read the source directory")
        finally:
            os.close(fd)

    def _differ_entry(
        self, item: Item, fd: int, name: bytes, ours: agent.Entry, theirs: agent.Entry | None, *, deep: bool
    ) -> None:
        path = join(item.path, name)
        named = Item(Task.NAME, path, item.content)
        kind = stat.S_IFMT(ours.st_mode)
        try:
            if kind == stat.S_IFDIR:
                if theirs is not None and stat.S_ISDIR(theirs.st_mode):
                    if deep:
                        self.work.append(named._replace(task=Task.CHECK))
                    return
                self.work.append(named._replace(task=Task.FRESH))
                if not self.names.planned("make ", path):
                    self.names.frame.enter(item.path, named)
                    sent = Sent(agent.MKDIR, path, named._replace(task=Task.FRESH))
                    self.names.frame.add(sent, name, flags=agent.HIDDEN)
                return
            info = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if stat.S_IFMT(info.st_mode) != kind:
                self.work.append(named)  # Swapped since it was listed.
                return
            what = self._step(info, ours, theirs, content=item.content)
            if what is Step.KEEP:
                self.names.note_links(path, info, content=False)
            elif kind != stat.S_IFREG:
                self.names.special(named, fd, item.path, name, info)
            elif what is Step.ATTRIBUTES and info.st_nlink == 1:
                self.names.meta(named, fd, item.path, name)
            else:
                # Whatever was believed so far, its content is looked at now.
                named = named._replace(content=True)
                self.names.file(named, fd, item.path, name, info, probably_equal=what is Step.COMPARE)
        except OSError as error:
            if error.errno in VANISHED:
                self.work.append(named)
            else:
                self.names.failed(path, error, "cannot read the source")

    def _step(self, info: os.stat_result, ours: agent.Entry, theirs: agent.Entry | None, *, content: bool) -> Step:
        if theirs is None:
            return Step.WRITE
        # As our clock would show it; an owner that an ordinary user cannot give is none that differs.
        there = theirs._replace(st_ctime_ns=theirs.st_ctime_ns - self.names.session.far.ahead_ns)
        if not self.names.session.owners:
            there = there._replace(st_uid=info.st_uid, st_gid=info.st_gid)
        elif self.names.session.numbers is not None:
            same = self.names.session.owner(info) == (there.st_uid, there.st_gid)
            there = there._replace(st_uid=info.st_uid if same else -1, st_gid=info.st_gid)
        what = step(info, there, content=content)
        if stat.S_ISLNK(info.st_mode) and what is Step.COMPARE:
            same = ours.extra == theirs.extra and (ours.st_mtime_ns, ours.st_uid, ours.st_gid) == (
                there.st_mtime_ns,
                there.st_uid,
                there.st_gid,
            )
            return Step.KEEP if same else Step.WRITE
        if what is Step.KEEP and ours.extra != theirs.extra:
            return Step.ATTRIBUTES
        return what
