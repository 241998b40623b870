"""When the source is compared through the index, and what becomes of what is found."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest

from instep.daemon.indexes.indexes import Compared, Indexes
from instep.daemon.indexes.rescan import CALM_S, PAUSE_MAX_S, Rescan
from instep.daemon.targets.target import Target
from instep.index.store import BrokenIndex
from instep.model import Change, Report
from instep.paths import RelPath, Scope
from instep.spec import MaxDelete
from instep.workers import WorkerDied
from tests.daemon.rig import jump

GONE = Report(RelPath(b"gone"), Scope.TREE)


class PaperTarget:
    def __init__(self) -> None:
        self.compared = 0
        self.looked_at: list[Change] = []

    def compare_all(self) -> None:
        self.compared += 1

    def look_again(self, changes: Sequence[Change]) -> None:
        self.looked_at += changes


class PaperIndexes:
    """Each comparison takes a second, and comes to this."""

    def __init__(self, comes_to: Compared | Exception | None = None, *, usable: bool = True) -> None:
        self.target = PaperTarget()
        self.usable = [self.target] if usable else []
        self.comes_to = Compared(entries=11) if comes_to is None else comes_to
        self.began_s: list[float] = []
        self.since_ns: list[int] = []

    async def compare(self, _: Callable[[Report], None]) -> Compared:
        self.began_s.append(asyncio.get_running_loop().time())
        await asyncio.sleep(1)
        if isinstance(self.comes_to, Exception):
            raise self.comes_to
        return self.comes_to

    async def changed_since(self, since_ns: int) -> list[Change]:
        self.since_ns.append(since_ns)
        await asyncio.sleep(1)
        if since_ns < 0:
            raise OSError
        return [Change(RelPath(b"%d" % since_ns))]


class Desk:
    def __init__(self, indexes: PaperIndexes) -> None:
        self.loop = asyncio.get_running_loop()
        self.indexes = indexes
        self.noted: list[Report] = []
        self.settled = 0
        self.over = asyncio.Event()
        self.rescan = Rescan(
            cast("Indexes", indexes),
            [cast("Target", indexes.target)],
            note=self.noted.append,
            settled=self._settle,
            max_delete=MaxDelete(),
            clock=self.loop.time,
        )

    def _settle(self) -> None:
        self.settled += 1
        self.over.set()

    async def rest(self) -> None:
        await self.over.wait()
        self.over.clear()


def test_losing_events_again_and_again_makes_the_pauses_grow() -> None:
    @jump
    async def _test() -> None:
        desk = Desk(PaperIndexes())
        waits = []
        for _ in range(8):
            lost_s = desk.loop.time()
            desk.rescan.lost(0)
            await desk.rest()
            waits.append(desk.indexes.began_s[-1] - lost_s)
        assert waits[0] == 0
        assert all(later > earlier or later > 0.9 * PAUSE_MAX_S for earlier, later in itertools.pairwise(waits))
        assert max(waits) <= PAUSE_MAX_S
        await asyncio.sleep(CALM_S)
        lost_s = desk.loop.time()
        desk.rescan.lost(0)
        await desk.rest()
        assert desk.indexes.began_s[-1] == lost_s


def test_what_is_lost_while_it_compares_is_compared_once_more() -> None:
    @jump
    async def _test() -> None:
        desk = Desk(PaperIndexes())
        desk.rescan.start()
        await asyncio.sleep(0.5)
        for _ in range(3):
            desk.rescan.start()
        await desk.rest()
        assert len(desk.indexes.began_s) == 2
        assert (desk.settled, desk.indexes.target.compared) == (1, 0)


@pytest.mark.parametrize(
    ("comes_to", "believed"),
    [
        (Compared(entries=2, gone=[GONE], gone_entries=1000), True),
        (Compared(entries=2, gone=[GONE], gone_entries=1001), False),
        (Compared(entries=1, gone=[GONE], gone_entries=1), False),  # The source is empty.
        (BrokenIndex("torn"), False),
        (WorkerDied("killed"), False),
        (ValueError("a defect"), False),
    ],
)
def test_what_is_found_is_noted_or_else_the_targets_are_compared(comes_to: Any, believed: bool) -> None:
    @jump
    async def _test() -> None:
        desk = Desk(PaperIndexes(comes_to))
        desk.rescan.start()
        await desk.rest()
        assert desk.noted == ([GONE] if believed else [])
        assert desk.indexes.target.compared == (not believed)


def test_without_an_index_what_changed_while_nobody_saw_it_is_compared_by_content() -> None:
    """It may have its size and time from before."""

    @jump
    async def _test() -> None:
        desk = Desk(PaperIndexes(usable=False))
        target = desk.indexes.target
        desk.rescan.lost(7)
        assert target.compared == 1
        assert desk.rescan.busy
        await asyncio.sleep(0.5)
        desk.rescan.lost(9)
        desk.rescan.lost(8)
        assert target.compared == 3
        await desk.rest()
        assert desk.settled == 1
        assert desk.indexes.since_ns == [7, 8]
        assert [change.path for change in target.looked_at] == [b"7", b"8"]
        assert all(change.content for change in target.looked_at)
        desk.rescan.missed(9)
        await desk.rest()
        assert target.compared == 3
        assert len(target.looked_at) == 3


def test_when_that_cannot_be_found_out_everything_is_compared_by_content() -> None:
    @jump
    async def _test() -> None:
        desk = Desk(PaperIndexes(usable=False))
        desk.rescan.lost(-1)
        await desk.rest()
        (change,) = desk.indexes.target.looked_at
        assert not change.path
        assert change.scope is Scope.TREE
        assert change.content
        assert not desk.rescan.busy


def test_with_an_index_that_is_not_asked_for() -> None:
    @jump
    async def _test() -> None:
        desk = Desk(PaperIndexes())
        desk.rescan.lost(7)
        await desk.rest()
        desk.rescan.missed(7)
        assert not desk.rescan.busy
        assert not desk.indexes.since_ns


def test_without_an_index_the_target_is_compared() -> None:
    @jump
    async def _test() -> None:
        desk = Desk(PaperIndexes(usable=False))
        desk.rescan.start()
        assert not desk.rescan.busy
        assert desk.indexes.target.compared == 1
