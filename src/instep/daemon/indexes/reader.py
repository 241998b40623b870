"""Reading the source for the indexes: a little in a thread, much in worker processes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence

from instep.core.filters import Filter
from instep.index.scan import Findings, Level, Scanner
from instep.index.store import BrokenIndex
from instep.index.worker import COMPARE, SURVEY, greeting
from instep.model import Change
from instep.paths import ROOT, Learned, RelPath, Scope, is_below
from instep.records import UNKNOWN, parse, path_of
from instep.serving import Values
from instep.spec import MirrorSpec
from instep.workers import Pool, WorkerDied

WORKERS = 2
"""One process reads 300,000 entries a second; two on two processors nearly twice that (measured)."""
A_LITTLE = 30_000
"""So many entries are read in a thread: two processes take as long to start (measured: 0.1 s of a processor each)."""
JOB_ENTRIES = 4000
JOB_LEVELS = 256
RECENT_MAX = 100_000
"""If more names than this have changed lately, all are taken to have."""

Directories = Sequence[tuple[bytes, int, bytes]]


class Reader:
    """Reads one source under one mirror's filter."""

    def __init__(self, spec: MirrorSpec, source: int, *, margin_ns: int = 0) -> None:
        """``margin_ns``: see ``Scanner``."""
        told = greeting(spec.rules, one_file_system=spec.one_file_system, margin_ns=margin_ns)
        self.scanner = Scanner(source, Filter(spec.rules), one_file_system=spec.one_file_system, margin_ns=margin_ns)
        self._pool = Pool("instep.index.worker", (source,), told, WORKERS)
        self._comparisons = 0
        self._warming: asyncio.Task[None] | None = None

    def warm(self) -> None:
        """A comparison is coming: start the processes meanwhile. Returns at once."""
        self._warming = asyncio.get_running_loop().create_task(self._pool.warm())

    async def compare(self, stores: Sequence[bytes]) -> AsyncIterator[Findings]:
        """What differs between the source and what these indexes say, piece by piece.

        Raises:
            BrokenIndex: one cannot be read.
            WorkerDied: a process of ours was killed.
        """
        self._comparisons += 1
        what = (self._comparisons, *stores)
        async for answer in self._spread(COMPARE, what, [b""]):
            if len(answer) == 1:
                raise BrokenIndex(answer[0])
            yield Findings(*answer)

    async def survey(
        self, trees: Mapping[bytes, int], known: Mapping[bytes, Learned]
    ) -> AsyncGenerator[Directories, None]:
        """The texts of these directories and of all below them, piece by piece; what is ``known`` is not read again.

        Args:
            trees: When the batch of each began; of two, one in the other, the inner one began later.
            known: What is to be claimed of some directories.

        Raises:
            WorkerDied: a process of ours was killed.
        """
        inner = tuple(path for path in trees if is_below(path, trees))
        apart = known.keys() | inner
        levels = [(path, began_ns) for path, began_ns in trees.items() if path not in known]
        if known:
            yield [(path, began_ns, text) for path, began_ns, text, _ in known.values()]
            for _, began_ns, _, below in known.values():
                levels += [(path, began_ns) for path in below if path not in apart]
        first = await asyncio.to_thread(self.scanner.survey, levels, entries_max=A_LITTLE, apart=apart)
        yield first.directories
        async for directories, _, _ in self._spread(SURVEY, inner, first.levels):
            yield directories

    async def changed_since(self, since_ns: int) -> list[Change]:
        """What has changed by its ctime since then, each to be compared by content; the whole tree if that is much."""
        everything = [Change(ROOT, Scope.TREE, is_dir=True)]
        recent: list[Change] = []
        try:
            async with contextlib.aclosing(self.survey({ROOT: since_ns}, {})) as found:
                async for directories in found:
                    recent += [
                        Change(RelPath(path_of(path, name)))
                        for path, _, text in directories
                        for name, one in parse(text).items()
                        if name and one == UNKNOWN
                    ]
                    if len(recent) > RECENT_MAX:
                        return everything
        except WorkerDied:
            return everything
        return recent

    async def close(self) -> None:
        """End the processes."""
        if self._warming is not None:
            await asyncio.gather(self._warming, return_exceptions=True)
        await self._pool.close()

    async def _spread(self, kind: int, what: Values, levels: list[Level] | list[bytes]) -> AsyncIterator[Values]:
        """Hand out directories as they are found to whoever is free; the last value of an answer is its leftovers."""
        if self._warming is not None:
            await asyncio.wait((self._warming,))  # Else others would be started beside those that are being started.
        todo: list[Level | bytes] = [*levels]
        running: set[asyncio.Task[Values]] = set()
        try:
            while todo or running:
                while todo and len(running) < self._pool.size:
                    # While there is little to share out, hand it out in small pieces.
                    share = max(1, min(JOB_LEVELS, len(todo) // self._pool.size))
                    most = JOB_ENTRIES if len(todo) > 8 else 256
                    running.add(asyncio.create_task(self._pool.run((kind, what, todo[-share:], most))))
                    del todo[-share:]
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    answer = task.result()
                    todo += answer[-1]
                    yield answer
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
