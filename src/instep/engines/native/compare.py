"""Comparing two trees on this machine without changing anything, a stretch at a time.

Depth first, one pair of directories at a time: memory holds the names of one directory, the directories still to be
looked into, and files with several names of which not all were seen yet.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator, Sequence

from instep.engines.native.judge import Judge, leave_no_trace
from instep.engines.native.session import Session, join, reason_of
from instep.linux.look import above_changed_ns, difference, extra_words, look, missing_words
from instep.linux.openat import open_directory
from instep.model import Aspect, Difference
from instep.paths import RelPath, is_temporary

Inode = tuple[int, int]

_NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})


class Comparison:
    """One pass over two trees. The descriptors of the session stay the caller's."""

    def __init__(self, session: Session, *, checksum: bool) -> None:
        self.entries = 0
        """Names compared so far."""
        self._session = session
        self._judge = Judge(session, checksum=checksum)
        self.done = False
        """All was looked at."""
        self._names = _Names()
        self._way = self._walk()

    def step(self, entries_max: int, span_s: float) -> list[Difference]:
        """Go on for about so many names, or so long; the differences met."""
        found: list[Difference] = []
        limit = self.entries + entries_max
        until_s = time.monotonic() + span_s
        for one in self._way:
            if one is not None:
                found.append(one)
            if self.entries >= limit or time.monotonic() >= until_s:
                return found
        self.done = True
        return found

    def again(self, suspects: Sequence[tuple[bytes, bytes | None]]) -> list[Difference]:
        """Those of these names that differ now; with each the other name of a hard link, if that was in question."""
        found = []
        for path, other in suspects:
            one = self._name(path)
            if other is not None and (one is None or one.source):
                one = self._link_again(path, other, one)
            if one is not None:
                found.append(one)
        return found

    # -- a directory ----------------------------------------------------------------------------------------------

    def _walk(self) -> Iterator[Difference | None]:
        """Everything; None wherever one may also stop for a while."""
        todo = [b""]
        while todo:
            yield from self._directory(todo.pop(), todo)

    def _directory(self, path: bytes, todo: list[bytes]) -> Iterator[Difference | None]:
        session = self._session
        try:
            source = open_directory(session.source, path)
        except OSError as error:
            if error.errno not in _NOT_THERE:
                yield self._unreadable(path, error, "cannot read the source directory")
            return  # Vanished meanwhile: then the directory above has changed, and so will have its target.
        target = -1
        try:
            info = os.fstat(source)
            leave_no_trace(source)
            if not path:
                root = self._judge.compare(source, session.target, path, ".", info, os.fstat(session.target))
                if root is not None:
                    yield root
            if session.settings.one_file_system and info.st_dev != session.device:
                return
            try:
                target = open_directory(session.target, path)
            except OSError as error:
                if error.errno in _NOT_THERE:
                    yield difference(path, Aspect.MISSING, missing_words(info.st_mode), info)
                else:
                    yield self._unreadable(path, error, "cannot read the target directory")
                return
            leave_no_trace(target)
            yield from self._pair(source, target, path, todo)
        except OSError as error:
            yield self._unreadable(path, error, "cannot compare the directory")
        finally:
            os.close(source)
            if target >= 0:
                os.close(target)

    def _pair(self, source: int, target: int, path: bytes, todo: list[bytes]) -> Iterator[Difference | None]:
        """The names of a directory that is there on both sides; its subdirectories come next."""
        session, settings = self._session, self._session.settings
        protects = not settings.delete_excluded
        below = []
        with os.scandir(target) as entries:
            present = {entry.name: entry for entry in entries}
        with os.scandir(source) as entries:
            for entry in entries:
                name = entry.name
                try:
                    ours = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                is_dir = stat.S_ISDIR(ours.st_mode)
                if session.excludes(path, os.fsencode(name), is_dir=is_dir):
                    if protects:
                        present.pop(name, None)
                    continue
                self.entries += 1
                there = present.pop(name, None)
                if self._is_left_out(ours):
                    continue
                whole = join(path, name)
                try:
                    theirs = None if there is None else there.stat(follow_symlinks=False)
                except FileNotFoundError:
                    theirs = None
                if theirs is None:
                    yield difference(whole, Aspect.MISSING, missing_words(ours.st_mode), ours)
                    continue
                one = self._judge.compare(source, target, whole, name, ours, theirs)
                if is_dir:
                    if stat.S_ISDIR(theirs.st_mode):
                        below.append(whole)
                elif (
                    (ours.st_nlink > 1 or theirs.st_nlink > 1)
                    and settings.preserve.hard_links
                    and not stat.S_ISLNK(ours.st_mode)  # Those are not joined: nobody could write through one name.
                ):
                    one = self._linked(whole, ours, theirs, one)
                yield one
        if settings.delete:
            changed_ns = os.fstat(source).st_ctime_ns
            for name, there in present.items():
                is_dir = there.is_dir(follow_symlinks=False)
                yield from self._extra(path, name, is_dir=is_dir, changed_ns=changed_ns)
        todo += below

    def _extra(self, path: bytes, name: str, *, is_dir: bool, changed_ns: int) -> list[Difference]:
        """A name that only the target has; of a directory that holds something excluded only what may go."""
        session = self._session
        encoded = os.fsencode(name)
        if is_temporary(encoded):
            return []
        protects = not session.filters_nothing and not session.settings.delete_excluded
        if protects and session.excludes(path, encoded, is_dir=is_dir):
            return []
        whole = join(path, encoded)
        paths = self._what_may_go(whole) if is_dir and protects else [(whole, is_dir)]
        self.entries += len(paths)
        return [
            difference(each, Aspect.EXTRA, extra_words(is_dir=is_dir), None, above_ns=changed_ns)
            for each, is_dir in paths
        ]

    def _what_may_go(self, top: bytes) -> list[tuple[bytes, bool]]:
        """The topmost names at and below a directory that hold nothing excluded."""
        session = self._session
        stays: set[bytes] = set()
        may_go: list[tuple[bytes, bool]] = []
        todo = [top]
        while todo:
            here = todo.pop()
            try:
                fd = open_directory(session.target, here)
            except OSError:
                continue
            try:
                with os.scandir(fd) as entries:
                    for entry in entries:
                        whole = join(here, entry.name)
                        is_dir = entry.is_dir(follow_symlinks=False)
                        if session.excludes(here, os.fsencode(entry.name), is_dir=is_dir):
                            above = here
                            while len(above) >= len(top) and above not in stays:
                                stays.add(above)
                                above = above.rpartition(b"/")[0]
                            continue
                        may_go.append((whole, is_dir))
                        if is_dir:
                            todo.append(whole)
            finally:
                os.close(fd)
        if top not in stays:
            return [(top, True)]
        return [(path, is_dir) for path, is_dir in may_go if path not in stays and path.rpartition(b"/")[0] in stays]

    def _is_left_out(self, ours: os.stat_result) -> bool:
        """Devices, fifos and sockets that are not to be made, or not by this user."""
        mode = ours.st_mode
        if stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode):
            return False
        if not self._session.settings.preserve.devices:
            return True
        return not self._session.attributes.is_root and (stat.S_ISCHR(mode) or stat.S_ISBLK(mode))

    def _unreadable(self, path: bytes, error: OSError, what: str) -> Difference:
        return difference(path, Aspect.UNREADABLE, reason_of(error, what), look(self._session.source, path))

    # -- hard links -----------------------------------------------------------------------------------------------

    def _linked(
        self, path: bytes, ours: os.stat_result, theirs: os.stat_result, one: Difference | None
    ) -> Difference | None:
        met = self._names.note(path, ours, theirs)
        return one if met is None else _with_link(path, *met, ours, one)

    def _link_again(self, path: bytes, other: bytes, one: Difference | None) -> Difference | None:
        session = self._session
        ours, ours_other = look(session.source, path), look(session.source, other)
        theirs, theirs_other = look(session.target, path), look(session.target, other)
        if ours is None or ours_other is None or theirs is None or theirs_other is None:
            return one
        joined = _inode(ours) == _inode(ours_other)
        if joined == (_inode(theirs) == _inode(theirs_other)):
            return one
        return _with_link(path, other, joined, ours, one)

    # -- one name -------------------------------------------------------------------------------------------------

    def _name(self, path: bytes) -> Difference | None:
        """One name by its path, looked at afresh."""
        session, settings = self._session, self._session.settings
        ours, theirs = look(session.source, path), look(session.target, path)
        if ours is not None and session.filter.excludes(RelPath(path), stat.S_ISDIR(ours.st_mode)):
            ours = None
        if ours is None:
            if theirs is None or not settings.delete:
                return None
            is_dir = stat.S_ISDIR(theirs.st_mode)
            changed_ns = above_changed_ns(session.source, path)
            return difference(path, Aspect.EXTRA, extra_words(is_dir=is_dir), None, above_ns=changed_ns)
        if theirs is None:
            return difference(path, Aspect.MISSING, missing_words(ours.st_mode), ours)
        parent, _, name = path.rpartition(b"/")
        source = target = -1
        try:
            source = open_directory(session.source, parent)
            target = open_directory(session.target, parent)
            found = self._judge.compare(source, target, path, name or b".", ours, theirs)
            if found is None and stat.S_ISDIR(ours.st_mode):
                for root in (session.source, session.target):
                    os.close(open_directory(root, path))  # Whether it may be read was in question.
        except OSError as error:
            return self._unreadable(path, error, "cannot be compared")
        finally:
            for fd in (source, target):
                if fd >= 0:
                    os.close(fd)
        return found


class _Names:
    """Files with several names, from the first of them to the last: who shares an inode with whom on which side."""

    def __init__(self) -> None:
        self._ours: dict[Inode, tuple[bytes, Inode, int]] = {}
        self._theirs: dict[Inode, tuple[bytes, Inode, int]] = {}

    def note(self, path: bytes, ours: os.stat_result, theirs: os.stat_result) -> tuple[bytes, bool] | None:
        """The name seen before that shares its file on one side only, and whether that is the source's."""
        apart = _note(self._ours, path, ours, theirs)
        joined = _note(self._theirs, path, theirs, ours)
        if apart is not None:
            return apart, True
        return None if joined is None else (joined, False)


def _note(known: dict[Inode, tuple[bytes, Inode, int]], path: bytes, this: os.stat_result, that: os.stat_result) -> (
    bytes | None
):  # fmt: skip
    """The first name of this file, if what stands for it on the other side is another file than for this name."""
    if this.st_nlink < 2:
        return None
    inode = _inode(this)
    first, across, left = known.get(inode, (path, _inode(that), this.st_nlink))
    if left > 1:
        known[inode] = (first, across, left - 1)
    else:
        known.pop(inode, None)  # All its names have been seen.
    return first if across != _inode(that) else None


def _with_link(path: bytes, other: bytes, joined: bool, ours: os.stat_result, one: Difference | None) -> Difference:  # noqa: FBT001
    shown = os.fsdecode(other)
    words = f"the same file as {shown}, " + ("but not at the target" if joined else "but only at the target")
    if one is None:
        return difference(path, Aspect.HARD_LINK, words, ours, other=other)
    return one._replace(what=one.what | Aspect.HARD_LINK, text=f"{one.text}; {words}", other=RelPath(other))


def _inode(info: os.stat_result) -> Inode:
    return (info.st_dev, info.st_ino)
