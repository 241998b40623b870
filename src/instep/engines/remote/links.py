"""Hard links of the source: which names are one file, fifo, socket or device.

Only those with more than one name are known here. What is known is a memory of what was once seen: every name is looked
at again before it is used. In the loop's thread, but for ``seek``.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable

from instep.engines.remote import agent
from instep.engines.remote.session import Session, join
from instep.linux.openat import open_directory
from instep.model import Change
from instep.paths import ROOT, Scope, is_below

Inode = tuple[int, int]


class Links:
    """The names of each multiply linked inode of the source, as far as seen."""

    def __init__(self) -> None:
        self._names: dict[Inode, set[bytes]] = {}
        self._inodes: dict[bytes, Inode] = {}
        self._outside: dict[Inode, int] = {}  # looked for all over the source in vain, when it had so many names
        self._parted: set[Inode] = set()

    def note(self, path: bytes, inode: Inode) -> None:
        """This name is one of this inode's."""
        if self._inodes.get(path) != inode:
            self._forget(path)
            self._inodes[path] = inode
            self._names.setdefault(inode, set()).add(path)

    def review(self, source: int, changes: Iterable[Change]) -> None:
        """Look again at the known names that these changes are about, and forget those that are gone, or another file.

        What is written through a name is reported under that alone, and when the name goes at once, nothing is left
        of the report but that it is gone. A comparison of the whole tree finds such a file by itself.
        """
        if not self._inodes:
            return
        tops = {change.path for change in changes if change.scope is not Scope.ENTRY}
        if ROOT in tops:
            return
        doubtful: set[bytes] = {change.path for change in changes if change.path in self._inodes}
        if tops:
            doubtful.update(path for path in self._inodes if is_below(path, tops))
        for path in doubtful:
            if _inode(source, path) != self._inodes[path]:
                self._forget(path)

    def take_parted(self) -> set[Inode]:
        """The files that lost a name since this was last asked: their content is in doubt."""
        parted, self._parted = self._parted, set()
        return parted

    def part(self, inodes: Iterable[Inode]) -> None:
        """What was taken was not done."""
        self._parted.update(inodes)

    def names(self, source: int, inode: Inode) -> list[bytes]:
        """The names that still are this inode's, in a stable order; what is something else by now is forgotten."""
        for path in list(self._names.get(inode, ())):
            if _inode(source, path) != inode:
                self._forget(path)
        return sorted(self._names.get(inode, ()))

    def lacks(self, source: int, inode: Inode, count: int) -> bool:
        """Whether it has names that were neither seen nor looked for."""
        return len(self.names(source, inode)) < count and self._outside.get(inode) != count

    def sought(self, inode: Inode, count: int) -> None:
        """The whole source was searched; names still unknown are outside of it."""
        if len(self._names.get(inode, ())) < count:
            self._outside[inode] = count

    def _forget(self, path: bytes) -> None:
        inode = self._inodes.pop(path, None)
        if inode is not None:
            names = self._names[inode]
            names.discard(path)
            if names:
                self._parted.add(inode)
            else:
                del self._names[inode]
                self._outside.pop(inode, None)
                self._parted.discard(inode)


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
            fd = session.open(path)
        except OSError:
            continue  # Gone or unreadable: what is there cannot be brought over anyway.
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        name = os.fsencode(entry.name)
                        if session.filters_nothing or not session.excludes(path, name, is_dir=True):
                            todo.append(join(path, name))
                    elif entry.inode() in numbers:
                        if session.excludes(path, os.fsencode(entry.name), is_dir=False):
                            continue
                        with contextlib.suppress(FileNotFoundError):
                            info = entry.stat(follow_symlinks=False)
                            if (info.st_dev, info.st_ino) in wanted:
                                found.append((join(path, os.fsencode(entry.name)), (info.st_dev, info.st_ino)))
        finally:
            os.close(fd)
    return found


def _inode(source: int, path: bytes) -> Inode | None:
    """What this name of the source is one of, if that may have several."""
    parent, _, name = path.rpartition(b"/")
    try:
        fd = open_directory(source, parent)
        try:
            info = os.stat(name, dir_fd=fd, follow_symlinks=False)
        finally:
            os.close(fd)
    except OSError:
        return None
    return (info.st_dev, info.st_ino) if agent.may_be_joined(info.st_mode) else None
