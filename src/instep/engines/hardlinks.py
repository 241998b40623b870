"""The hard links of a source: which names are one file, fifo, socket or device.

What is written through one name changes the others, and no monitor but polling reports those. So the engines remember
the names of what has several, and of that alone. It is a memory of what was once seen: a name is looked at again before
it is used. Names that no report told of are found by reading every directory; nothing else tells them all.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from instep.core.filters import Filter
from instep.linux.openat import open_directory
from instep.model import Change
from instep.paths import ROOT, RelPath, Scope, is_below

Inode = tuple[int, int]
"""Device and number."""
PAUSE = 10.0
"""A search of the whole source is followed by a pause of so many times its own length."""
AGAIN_S = 1.0
"""Who comes in the pause is to come again after so long."""


class Pause:
    """Between two searches of the source, which cost its disk and a processor."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._until_s = 0.0

    @property
    def left_s(self) -> float:
        """How long it still lasts."""
        return max(0.0, self._until_s - self._clock())

    @contextlib.contextmanager
    def after(self) -> Iterator[None]:
        """It follows what is done within this."""
        since_s = self._clock()
        yield
        now_s = self._clock()
        self._until_s = now_s + PAUSE * (now_s - since_s)


class Links:
    """The names of each inode of the source that has several, as far as seen. Two threads may share it."""

    def __init__(self, source: int, clock: Callable[[], float] = time.monotonic) -> None:
        """``source``: a descriptor of the root, which stays the caller's."""
        self._source = source
        self._clock = clock
        self._pause = Pause(clock)
        self._lock = threading.RLock()
        self._names: dict[Inode, set[bytes]] = {}
        self.paths: dict[bytes, Inode] = {}
        """The known names."""
        self._parted: set[Inode] = set()
        self._lacking: set[Inode] = set()  # have names, last time somebody asked, that were not looked for yet
        self._lost: set[Inode] = set()
        self._put_off_s = 0.0
        self._outside: dict[Inode, int] = {}  # looked for all over the source in vain, when it had so many names
        self._moves = 0  # renames noted: a search that one of them crossed may have missed a name

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
        """This name is none of this file's any more; the others have to be compared."""
        with self._lock:
            inode = self._drop(path)
            if inode is None:
                return
            if inode in self._names:
                self._parted.add(inode)
            elif inode in self._lacking:
                self._lacking.discard(inode)
                self._lost.add(inode)

    def review(self, changes: Iterable[Change]) -> None:
        """Look again at the known names that these changes are about, and forget those that are gone, or another file.

        What is written through a name is reported under that alone, and when the name goes at once, nothing is left
        of the report but that it is gone. A comparison of the whole tree finds such a file by itself.
        """
        if not self.paths:
            return
        tops = {change.path for change in changes if change.scope is not Scope.ENTRY}
        if ROOT in tops:
            return
        with self._lock:
            doubtful: set[bytes] = {change.path for change in changes if change.path in self.paths}
            if tops:
                doubtful.update(path for path in self.paths if is_below(path, tops))
            before = [(path, self.paths[path]) for path in doubtful]
        for path, inode in before:
            if lstat_named(self._source, path, inode) is None:
                self.forget(path)

    @property
    def has_parted(self) -> bool:
        """Whether ``take_parted`` has any."""
        return bool(self._parted)

    def take_parted(self) -> set[Inode]:
        """The files that lost a name since this was last asked: they may have been written through it just before."""
        with self._lock:
            parted, self._parted = self._parted, set()
        return parted

    def part(self, inodes: Iterable[Inode]) -> None:
        """What was taken was not done; or these are in doubt for another reason."""
        with self._lock:
            self._parted.update(inodes)

    @property
    def has_lost(self) -> bool:
        """Whether there is something to ``seek`` that nobody has put off: files whose only known name went too soon."""
        return bool(self._lost) and self._clock() >= self._put_off_s

    def names(self, inode: Inode) -> list[bytes]:
        """The names seen so far that still are this inode's, in a stable order; what is not is forgotten."""
        with self._lock:
            known = sorted(self._names.get(inode, ()))
        stale = [path for path in known if lstat_named(self._source, path, inode) is None]
        for path in stale:
            self.forget(path)
        return [path for path in known if path not in stale] if stale else known

    def lacks(self, inode: Inode, count: int) -> bool:
        """Whether it has names that were neither seen nor looked for."""
        known = len(self.names(inode))
        with self._lock:
            lacks = known < count and self._outside.get(inode) != count
            (self._lacking.add if lacks else self._lacking.discard)(inode)
        return lacks

    def seek(self, wanted: Mapping[Inode, int], filters: Filter, *, walked: bool = False) -> bool:
        """Find the names of these that were not seen, and of what is lost: its only known name went before they were.

        Blocks as long as a ``search`` takes, if there is something to search for and no pause.

        Args:
            wanted: What ``lacks`` names, and how many it has.
            filters: What of the source is left out.
            walked: All names in the source were noted just now, by whoever walks all of it.

        Returns:
            Whether all that there are in the source are known now. If not, ask again in ``AGAIN_S``; what is lost is
            not told of to others until then.
        """
        since_s, moves = self._clock(), self._moves
        with self._lock:
            lost = set(self._lost) if self.has_lost else set()
        if (wanted or lost) and not walked and not self._pause.left_s:
            with self._pause.after():
                for path, inode in included(self._source, filters, wanted=wanted.keys() | lost):
                    self.note(path, inode)
            walked = moves == self._moves  # What was moved meanwhile may have been missed.
        with self._lock:
            if walked:
                for inode, count in wanted.items():
                    self._lacking.discard(inode)
                    if len(self._names.get(inode, ())) < count:
                        self._outside[inode] = count
                self._lost -= lost
                self._parted.update(inode for inode in lost if inode in self._names)
            elif lost:
                self._put_off_s = since_s + AGAIN_S
        return walked or not (wanted or lost)

    @property
    def misses_some(self) -> bool:
        """Whether a name was looked for in vain: it is outside, or in a directory that was moved meanwhile."""
        return bool(self._outside)

    def moved(self, old: bytes, new: bytes) -> None:
        """A name or directory was renamed in the source."""
        below = old + b"/"
        with self._lock:
            self._moves += 1
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


class Name(NamedTuple):
    """One name of such a file."""

    path: RelPath
    inode: Inode
    is_excluded: bool
    """By the filter; the directory that it is in is not."""


def lstat_named(source: int, path: bytes, inode: Inode) -> os.stat_result | None:
    """What is known of an inode, if this is one of its names now, and it is of a kind that is joined."""
    parent, _, name = path.rpartition(b"/")
    try:
        fd = open_directory(source, parent) if parent else source
        try:
            info = os.stat(name, dir_fd=fd, follow_symlinks=False)
        finally:
            if parent:
                os.close(fd)
    except OSError:
        return None
    return info if (info.st_dev, info.st_ino) == inode and may_be_joined(info.st_mode) else None


def may_be_joined(mode: int) -> bool:
    """Whether several names of such a thing are kept as one: directories have one, of links nobody could tell."""
    return not (stat.S_ISDIR(mode) or stat.S_ISLNK(mode))


def was_touched(before: os.stat_result, after: os.stat_result) -> bool:
    """Whether it was written, or got or lost a name, between these two looks."""
    return (before.st_ctime_ns, before.st_mtime_ns, before.st_size, before.st_nlink) != (
        after.st_ctime_ns,
        after.st_mtime_ns,
        after.st_size,
        after.st_nlink,
    )


def search(
    source: int, filters: Filter, tops: Iterable[bytes] = (ROOT,), wanted: Collection[Inode] | None = None
) -> Iterator[list[Name]]:
    """Directory by directory the names at and below these: of the inodes wanted, or of all that have several.

    8 us for a directory, and 3 us for each entry unless ``wanted`` says which, so it belongs in a thread. Excluded
    directories are not read; those that are gone, or cannot be, hold nothing that could be brought over.
    """
    numbers = None if wanted is None else {number for _, number in wanted}
    todo = list(tops)
    while todo:
        directory = RelPath(todo.pop())
        found: list[Name] = []
        try:
            fd = open_directory(source, directory)
        except OSError:
            continue
        try:
            with contextlib.suppress(OSError), os.scandir(fd) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        name = os.fsencode(entry.name)
                        if filters.is_trivial or not filters.excludes_entry(directory, name, True):
                            todo.append(_join(directory, name))
                    elif numbers is None or entry.inode() in numbers:
                        with contextlib.suppress(OSError):
                            info = entry.stat(follow_symlinks=False)
                            inode = (info.st_dev, info.st_ino)
                            if info.st_nlink > 1 if wanted is None else inode in wanted:
                                name = os.fsencode(entry.name)
                                is_excluded = filters.excludes_entry(directory, name, False)
                                found.append(Name(_join(directory, name), inode, is_excluded))
        finally:
            os.close(fd)
        yield found


def included(
    source: int, filters: Filter, tops: Iterable[bytes] = (ROOT,), wanted: Collection[Inode] | None = None
) -> list[tuple[RelPath, Inode]]:
    """What a ``search`` finds of names that are not excluded; reads as long as that does."""
    return [
        (name.path, name.inode)
        for found in search(source, filters, tops, wanted)
        for name in found
        if not name.is_excluded
    ]


def _join(directory: bytes, name: bytes) -> RelPath:
    return RelPath(directory + b"/" + name if directory else name)
