"""Hard links of the source: which names are one file.

A write through one name changes the others, and no monitor but polling reports those. rsync joins and writes only the
names that one run lists, and leaves two files behind where one name alone is listed. So all names go together.

Only files with more than one name are known here. What is known is a memory: rsync looks at every name again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Collection, Iterable, Iterator, Sequence

from instep.core.filters import Filter
from instep.engines.rsync.source import Kind, Look, Seen
from instep.linux.openat import open_directory
from instep.paths import ROOT, RelPath, Scope, is_below

Inode = tuple[int, int]


class Links:
    """The names of the multiply linked files of the source, as far as seen; used by one thread."""

    def __init__(self) -> None:
        self._names: dict[Inode, set[bytes]] = {}
        self._inodes: dict[bytes, Inode] = {}
        self._sought: dict[Inode, int] = {}

    def note(self, path: bytes, inode: Inode) -> None:
        """This name is one of this file's."""
        if self._inodes.get(path) != inode:
            self.forget(path)
            self._inodes[path] = inode
            self._names.setdefault(inode, set()).add(path)

    def forget(self, path: bytes) -> Inode | None:
        """This name is none of a multiply linked file any more; the file that it was."""
        inode = self._inodes.pop(path, None)
        if inode is not None:
            names = self._names[inode]
            names.discard(path)
            if not names:
                del self._names[inode]
                self._sought.pop(inode, None)
        return inode

    def below(self, tops: Collection[bytes]) -> set[Inode]:
        """The files with a name below one of these directories."""
        return {inode for path, inode in self._inodes.items() if is_below(path, tops)}

    def names(self, root: int, inode: Inode) -> list[bytes]:
        """The other names seen that still are this file's."""
        for path in list(self._names.get(inode, ())):
            if _inode(root, path) != inode:
                self.forget(path)
        return sorted(self._names.get(inode, ()))

    def lacks(self, inode: Inode, count: int) -> bool:
        """Whether it has names that were neither seen nor looked for."""
        return len(self._names.get(inode, ())) < count and self._sought.get(inode) != count

    def sought(self, inode: Inode, count: int) -> None:
        """The whole source was searched while it had so many names; those still unknown are outside."""
        if inode in self._names:
            self._sought[inode] = count

    def __bool__(self) -> bool:
        return bool(self._inodes)


async def other_names(links: Links, root: int, filters: Filter, looked: Look) -> list[Seen]:
    """The other names of the files of a batch: what is written through one name is reported under that alone.

    Where a file has names that were never seen, the whole source is searched for them once, in a thread.
    """
    if not links and not looked.linked:
        return []
    wanted: dict[Inode, Seen] = {}
    for one in looked.seen:
        # What was here before may have been written through this name just before it went.
        if (before := links.forget(one.path)) is not None:
            wanted.setdefault(before, one)
    # The same of all that was below a directory that went or was replaced.
    tops = {one.path: one for one in looked.seen if one.change.is_dir and one.change.scope is Scope.TREE and one.path}
    if tops:
        first = next(iter(tops.values()))
        for inode in links.below(tops):
            wanted.setdefault(inode, first)
    for seen, inode, _ in looked.linked:
        links.note(seen.path, inode)
        if inode not in wanted or seen.change.content:
            wanted[inode] = seen
    known = {inode: links.names(root, inode) for inode in wanted}
    lacking = {inode: count for _, inode, count in looked.linked if links.lacks(inode, count)}
    if lacking:
        # A file that gets another name is reported under the new one only.
        await learn(links, root, filters, [ROOT])
        for inode, count in lacking.items():
            links.sought(inode, count)
            known[inode] = links.names(root, inode)
    there = {one.path for one in looked.seen}
    return [
        Seen(wanted[inode].change, name, Kind.FILE, wanted[inode].size)
        for inode, names in known.items()
        for name in names
        if name not in there
    ]


async def learn(links: Links, root: int, filters: Filter, tops: Sequence[bytes]) -> None:
    """Find the hard links at and below these, which rsync walks by itself; the loop is free meanwhile."""
    for path, inode in await asyncio.to_thread(linked_below, root, filters, tops):
        links.note(path, inode)


def _inode(root: int, path: bytes) -> Inode | None:
    parent, _, name = path.rpartition(b"/")
    try:
        fd = open_directory(root, parent)
    except OSError:
        return None
    try:
        info = os.stat(name, dir_fd=fd, follow_symlinks=False)
    except OSError:
        return None
    finally:
        os.close(fd)
    return (info.st_dev, info.st_ino)


def linked_below(root: int, filters: Filter, tops: Iterable[bytes]) -> list[tuple[bytes, Inode]]:
    """Every name of a multiply linked file at or below these that is not excluded.

    About 3 us for each entry, so it belongs in a thread.
    """
    return list(_linked_below(root, filters, tops))


def _linked_below(root: int, filters: Filter, tops: Iterable[bytes]) -> Iterator[tuple[bytes, Inode]]:
    todo = list(tops)
    while todo:
        path = todo.pop()
        try:
            fd = open_directory(root, path)
        except OSError:
            continue  # No directory, gone or unreadable: what is there is no file that could be written below it.
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    is_dir = entry.is_dir(follow_symlinks=False)
                    if not filters.is_trivial and filters.excludes_entry(
                        RelPath(path), os.fsencode(entry.name), is_dir
                    ):
                        continue
                    if is_dir:
                        todo.append(_join(path, entry.name))
                    else:
                        with contextlib.suppress(OSError):
                            info = entry.stat(follow_symlinks=False)
                            if info.st_nlink > 1:
                                yield _join(path, entry.name), (info.st_dev, info.st_ino)
        except OSError:
            continue
        finally:
            os.close(fd)


def _join(directory: bytes, name: str) -> bytes:
    return directory + b"/" + os.fsencode(name) if directory else os.fsencode(name)
