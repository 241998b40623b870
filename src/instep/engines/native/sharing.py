"""Bulk work shared out among worker processes: paths in runs of neighbours, directories as they are found."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from instep.engines.mounted import Mounted
from instep.engines.native.tally import Tally
from instep.engines.native.worker import BRING, WALK
from instep.model import Change
from instep.paths import LEARNED_BYTES_MAX, Scope
from instep.serving import Values
from instep.workers import Pool

JOB_PATHS = 512
JOB_ENTRIES = 2000


class Sharing:
    """What an engine gives its workers to do."""

    def __init__(self, pool: Pool, mounted: Mounted, heard: Callable[[Tally], None]) -> None:
        """``heard`` is called with the tally of each job, before it is added to others."""
        self.pool = pool
        self._mounted = mounted
        self._heard = heard

    async def bring(self, changes: Sequence[Change], total: Tally, *, holds: bool, more: Sequence[Values] = ()) -> None:
        """Hand these out, and the directories that the tally has and that are found, to whoever is free.

        Args:
            changes: What is to be brought in step.
            total: What was done is added to it.
            holds: Names that the source lacks are noted, not deleted.
            more: Jobs that go along.

        Raises:
            WorkerDied: Its job may be done in part.
        """
        pool = self.pool
        levels, total.levels = total.levels, []
        jobs = [*more, *_jobs(changes, pool.size, holds=holds)]
        learned_bytes = 0
        running: set[asyncio.Task[Values]] = set()
        done: set[asyncio.Task[Values]] = set()
        try:
            while jobs or levels or running:
                while len(running) < pool.size and (jobs or levels):
                    job = jobs.pop() if jobs else _take(levels, pool.size, holds=holds)
                    running.add(asyncio.create_task(pool.run((*job, self._mounted.mounts))))
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    tally = Tally.of(task.result())
                    levels += tally.levels
                    tally.levels = []
                    self._heard(tally)
                    learned_bytes += sum(len(text) for _, _, text, _ in tally.learned)
                    if learned_bytes > LEARNED_BYTES_MAX:
                        tally.learned = []
                    total.add(tally)  # Full or not, on it goes: a deletion further on makes room.
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, *done, return_exceptions=True)


def _jobs(changes: Sequence[Change], workers: int, *, holds: bool) -> list[Values]:
    items: list[tuple[bytes, int, bool]] = sorted(
        (change.path, int(change.scope), change.content) for change in changes
    )
    if len(items) == 1 and items[0][1] == Scope.TREE and not items[0][0]:
        return [(WALK, [(b"", items[0][2], False)], 64, holds)]
    share = max(16, min(JOB_PATHS, -(-len(items) // workers)))
    return [(BRING, items[at : at + share], JOB_ENTRIES, holds) for at in range(0, len(items), share)]


def _take(levels: list[tuple[bytes, bool, bool]], workers: int, *, holds: bool) -> Values:
    """Some directories to be walked; while there is little to share out, it goes out in small pieces."""
    share = max(1, min(256, len(levels) // workers))
    most = JOB_ENTRIES if len(levels) > 8 else 256
    taken = [(path, int(content), fresh) for path, content, fresh in levels[-share:]]
    del levels[-share:]
    return (WALK, taken, most, holds)
