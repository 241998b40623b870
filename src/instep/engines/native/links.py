"""Hard links: which names in the source are one file.

Only files with more than one name are known here, so memory grows with those alone. What is known is a memory of what
was once seen: every name is looked at again before it is used.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
from collections.abc import Iterable

from instep.engines.native.entry import failed, put_in_place
from instep.engines.native.session import Session, join
from instep.engines.native.stretch import Stretch
from instep.engines.native.tally import Tally
from instep.linux.openat import open_directory
from instep.model import Change
from instep.paths import ROOT, Scope, is_below

Inode = tuple[int, int]


class Links:
    """The names of each multiply linked inode of the source, as far as seen. The loop and one thread share it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._names: dict[Inode, set[bytes]] = {}
        self.paths: dict[bytes, Inode] = {}
        """The known names."""
        self._parted: set[Inode] = set()  # lost a name, through which they may have been written just before
        self._outside: dict[Inode, int] = {}  # looked for all over the source in vain, when it had so many names
        self.joining = threading.Lock()
        """Held while names are made one file: two at work would each join them to what the other replaces."""
        self.moves = 0
        """How many renames were noted: a search that one of them crossed may have missed a name."""

    def __len__(self) -> int:
        return len(self.paths)

    def note(self, path: bytes, inode: Inode) -> None:
        """This name is one of this inode's."""
        with self._lock:
            known = self.paths.get(path)
            if known == inode:
                return
            if known is not None:
                self.forget(path)
            self.paths[path] = inode
            self._names.setdefault(inode, set()).add(path)

    def forget(self, path: bytes) -> None:
        """This name is none of this file's any more; the others have to be compared (``take_parted``)."""
        with self._lock:
            inode = self._drop(path)
            if inode is not None and inode in self._names:
                self._parted.add(inode)

    def review(self, source: int, changes: Iterable[Change]) -> None:
        """Look again at the known names that these changes are about, and forget those that are gone, or another file.

        What is written through a name is reported under that alone, and when the name goes at once, nothing is left
        of the report but that it is gone. A comparison of the whole tree finds such a file by itself.
        """
        tops = {change.path for change in changes if change.scope is not Scope.ENTRY}
        if ROOT in tops:
            return
        with self._lock:
            names = {change.path for change in changes if change.path in self.paths}
            doubtful = [(path, inode) for path, inode in self.paths.items() if path in names or is_below(path, tops)]
        for path, inode in doubtful:
            if not _is(source, path, inode):
                self.forget(path)

    def part(self, inodes: Iterable[Inode]) -> None:
        """What was taken was not done."""
        with self._lock:
            self._parted.update(inodes)

    def take_parted(self) -> set[Inode]:
        """The files that lost a name since this was last asked: their content is in doubt."""
        with self._lock:
            parted, self._parted = self._parted, set()
        return parted

    @property
    def has_parted(self) -> bool:
        """Whether ``take_parted`` has any."""
        return bool(self._parted)

    def drop_stale(self, source: int, inode: Inode) -> None:
        """Look at each of its names again, and forget those that are something else, or gone."""
        for path in self.names(inode):
            if not _is(source, path, inode):
                self.forget(path)

    def lacks(self, inode: Inode, count: int) -> bool:
        """Whether it has names that were neither seen nor looked for."""
        return len(self._names.get(inode, ())) < count and self._outside.get(inode) != count

    def sought(self, inode: Inode, count: int) -> None:
        """The whole source was searched; names still unknown are outside of it."""
        if len(self._names.get(inode, ())) < count:
            self._outside[inode] = count

    @property
    def misses_some(self) -> bool:
        """Whether a name was looked for in vain: it is outside, or in a directory that was moved meanwhile."""
        return bool(self._outside)

    def names(self, inode: Inode) -> list[bytes]:
        """The names seen so far, in a stable order."""
        with self._lock:
            return sorted(self._names.get(inode, ()))

    def moved(self, old: bytes, new: bytes) -> None:
        """A name or directory was renamed in the source."""
        below = old + b"/"
        with self._lock:
            self.moves += 1
            moved = [item for item in self.paths.items() if item[0] == old or item[0].startswith(below)]
            for path, inode in moved:
                self._drop(path)
                self.note(new + path[len(old) :], inode)

    def _drop(self, path: bytes) -> Inode | None:
        inode = self.paths.pop(path, None)
        if inode is not None:
            names = self._names[inode]
            names.discard(path)
            self._outside.pop(inode, None)  # By now it may be another file's number.
            if not names:
                del self._names[inode]
        return inode


def seek(session: Session, wanted: set[Inode]) -> list[tuple[bytes, Inode]]:
    """All names of these inodes below the source that the filter lets through.

    Reads every directory (8 us each), so it belongs in a thread. A file that gets a second name is reported under the
    new one only; the first, never written since, is found here.
    """
    numbers = {inode for _, inode in wanted}
    found: list[tuple[bytes, Inode]] = []
    todo = [b""]
    while todo:
        path = todo.pop()
        try:
            fd = open_directory(session.source, path)
        except OSError:
            continue  # Gone or unreadable: what is there cannot be brought over anyway.
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        if session.filters_nothing or not session.excludes(path, os.fsencode(entry.name), is_dir=True):
                            todo.append(join(path, entry.name))
                    elif entry.inode() in numbers:
                        if session.excludes(path, os.fsencode(entry.name), is_dir=False):
                            continue
                        with contextlib.suppress(FileNotFoundError):
                            info = entry.stat(follow_symlinks=False)
                            if (info.st_dev, info.st_ino) in wanted:
                                found.append((join(path, entry.name), (info.st_dev, info.st_ino)))
        finally:
            os.close(fd)
    return found


def bring_linked(session: Session, links: Links, inode: Inode, *, content: bool) -> Tally:
    """Make all known names of one inode one file at the target too, with the right content.

    Args:
        session: Both roots.
        links: What is known. Stale names are dropped from it: while others were looked for, some may have gone.
        inode: Device and inode in the source.
        content: Whether the content may have been touched.
    """
    stretch = Stretch(session)
    try:
        links.drop_stale(session.source, inode)
        names = links.names(inode)
        if not names:
            return stretch.finish()
        leader, others = _lead(stretch, names, content=content)
        if leader is None:
            return stretch.finish()
        leading = _look(stretch, leader)
        if leading is None and not session.settings.dry_run:
            if not stretch.tally.levels:  # It went just now; else its directory comes whole, and its name with it.
                stretch.tally.racy += [leader, *others]
            return stretch.finish()
        for path in others:
            _link(session, stretch, leader, path, leading)
            if not _is(session.source, path, inode):
                # Gone since it was looked at; whoever works on that report may have been here before us.
                stretch.tally.racy.append(path)
        if not _is(session.source, leader, inode):
            # So has the name that they were linked to, perhaps at the target before all of them were.
            stretch.tally.racy += others
        return stretch.finish()
    finally:
        stretch.directories.close()


def _lead(stretch: Stretch, names: list[bytes], *, content: bool) -> tuple[bytes | None, list[bytes]]:
    """Bring one of these names over, to which the others can be linked; it (None: none can be had), and the others."""
    tally = stretch.tally
    # First those that the target already has, so that as little as possible is written.
    todo = sorted(names, key=lambda path: not _is_file(_look(stretch, path)))
    while todo and not tally.full:  # Without room for one there is none for any.
        leader = todo.pop(0)
        failures = len(tally.failures)
        stretch.bring(leader, Scope.ENTRY, content=content, leave=False)
        if len(tally.failures) == failures:
            return leader, todo
    return None, []


def _is(source: int, path: bytes, inode: Inode) -> bool:
    """Whether this name of the source is one of this inode's now."""
    parent, _, name = path.rpartition(b"/")
    try:
        fd = open_directory(source, parent) if parent else source
        try:
            info = os.stat(name, dir_fd=fd, follow_symlinks=False)
        finally:
            if parent:
                os.close(fd)
    except OSError:
        return False
    return (info.st_dev, info.st_ino) == inode and not (stat.S_ISDIR(info.st_mode) or stat.S_ISLNK(info.st_mode))


def _look(stretch: Stretch, path: bytes) -> os.stat_result | None:
    parent, _, name = path.rpartition(b"/")
    try:
        return os.stat(name, dir_fd=stretch.directories.target(parent), follow_symlinks=False)
    except OSError:
        return None


def _is_file(info: os.stat_result | None) -> bool:
    """Whether there is something that others can be linked to."""
    return info is not None and not stat.S_ISDIR(info.st_mode)


def _link(session: Session, stretch: Stretch, leader: bytes, path: bytes, leading: os.stat_result | None) -> None:
    there = _look(stretch, path)
    if there is not None and leading is not None and (there.st_dev, there.st_ino) == (leading.st_dev, leading.st_ino):
        return
    tally = stretch.tally
    if session.settings.dry_run:
        tally.planned.append(f"link {os.fsdecode(path)} to {os.fsdecode(leader)}")
        return
    parent, _, name = path.rpartition(b"/")
    leader_parent, _, leader_name = leader.rpartition(b"/")
    temporary = session.temporary()
    try:
        target = stretch.directories.target(parent)
        stretch.open_up(parent, target)
        stretch.touch(parent)  # Also if it fails below.
        os.link(
            leader_name,
            temporary,
            src_dir_fd=stretch.directories.target(leader_parent),
            dst_dir_fd=target,
            follow_symlinks=False,
        )
        try:
            put_in_place(session, target, path, temporary, name, tally)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=target)
            raise
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            # The directory is not at the target yet; when it comes, so does this name.
            stretch.bring(path, Scope.ENTRY, content=True, leave=False)
            return
        if error.errno is not None and _cannot_link(error.errno):
            stretch.bring(path, Scope.ENTRY, content=True, leave=False)
            return
        failed(tally, path, error, "cannot link")
        return
    tally.entries += 1


def _cannot_link(number: int) -> bool:
    """Different file systems at the target, a full inode, or a file system without links: two files then."""
    return number in (errno.EXDEV, errno.EMLINK, errno.EPERM, errno.EOPNOTSUPP)
