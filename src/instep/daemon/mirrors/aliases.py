"""Files that are written through names which the filter leaves out: their other names change with them.

No report tells of those, so they are noted here. Where they are not known the source is searched, at most a tenth of
the time; what was found stays known, and is looked at again before it is believed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from instep.core.filters import Filter
from instep.engines.hardlinks import Inode, Name, Pause, lstat_named, search
from instep.model import Report
from instep.paths import RelPath

REMEMBERED_MAX = 10_000
"""So many excluded names, and so many files, are remembered; then it begins anew."""


class Aliases:
    """Lives in the mirror's loop; searches in a thread."""

    def __init__(
        self,
        source: int,
        filters: Filter,
        *,
        note: Callable[[Report], None],
        settled: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin.

        Args:
            source: A descriptor of the source's root, which stays the caller's.
            filters: What is left out.
            note: Takes what a search found.
            settled: Called after each search, when all of that is noted.
            clock: Seconds.
        """
        self._source = source
        self._filters = filters
        self._note = note
        self._settled = settled
        self._inodes: dict[bytes, Inode] = {}  # of the excluded names that were reported
        self._names: dict[Inode, list[Name]] = {}  # as the last search found them
        self._wanted: set[Inode] = set()
        self._sought: set[Inode] = set()  # by the search under way
        self._moves = 0
        self._task: asyncio.Task[None] | None = None
        self._reading: asyncio.Future[dict[Inode, list[Name]]] | None = None
        self._pause = Pause(clock)
        self._closing = False

    @property
    def busy(self) -> bool:
        """What has to be noted is not known yet."""
        return self._task is not None

    def moved(self) -> None:
        """A directory was renamed: a search that it crosses may miss what is in there."""
        self._moves += 1

    def touched(self, path: RelPath, inode: Inode) -> Sequence[Report]:
        """An excluded name of a file that has others was reported; what is to be noted at once. Some 5 us a name."""
        if len(self._inodes) >= REMEMBERED_MAX:
            self._inodes.clear()
        self._inodes[path] = inode
        return self._doubt(inode)

    def gone(self, path: RelPath) -> Sequence[Report]:
        """An excluded name is no such file's, or not any more: it may have been written through it just before."""
        inode = self._inodes.pop(path, None)
        return () if inode is None else self._doubt(inode)

    async def close(self) -> None:
        """Stop searching; returns when nobody reads the source any more."""
        self._closing = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))
        if self._reading is not None:
            await asyncio.wait((self._reading,))

    def _doubt(self, inode: Inode) -> Sequence[Report]:
        there, count = self._look(inode, self._names.get(inode, ()))
        if there and len(there) == count:
            return [_report(name) for name in there if not name.is_excluded]
        if inode not in self._sought:  # What that finds is noted later than this.
            self._wanted.add(inode)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())
        return ()

    def _look(self, inode: Inode, names: Sequence[Name]) -> tuple[list[Name], int]:
        """Those of these names that still are this inode's, and how many it has."""
        looks = [(name, lstat_named(self._source, name.path, inode)) for name in names]
        counts = [info.st_nlink for _, info in looks if info is not None]
        return [name for name, info in looks if info is not None], max(counts, default=0)

    async def _run(self) -> None:
        try:
            while self._wanted:
                await self._find()
        finally:
            self._task = None
        self._settled()

    async def _find(self) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self._pause.left_s)
        wanted = self._sought = self._wanted
        self._wanted = set()
        moves = self._moves
        with self._pause.after():
            self._reading = loop.run_in_executor(None, self._search, wanted)
            found = await asyncio.shield(self._reading)
        if len(self._names) >= REMEMBERED_MAX:
            self._names.clear()
        self._sought = set()
        for inode in wanted:
            names = found.get(inode, [])
            # A rename after this look is reported after what is noted now, and takes it along.
            there, count = self._look(inode, names)
            self._names[inode] = there
            for name in there:
                if not name.is_excluded:
                    self._note(_report(name))
            if len(there) < len(names) or (moves != self._moves and (len(there) < count or not there)):
                self._wanted.add(inode)

    def _search(self, wanted: set[Inode]) -> dict[Inode, list[Name]]:
        found: dict[Inode, list[Name]] = {}
        for names in search(self._source, self._filters, wanted=wanted):
            for name in names:
                found.setdefault(name.inode, []).append(name)
            if self._closing:
                break
        return found


def _report(name: Name) -> Report:
    return Report(name.path)
