"""A turn of the mirror: what is told to the change log, and when."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from instep.daemon.indexes.indexes import Indexes
from instep.daemon.mirrors.handover import Handover
from instep.daemon.mirrors.mirror import End, Mirror
from instep.daemon.mirrors.source import Source
from instep.daemon.targets.target import Target
from instep.model import MonitorStatus, Report
from instep.paths import ROOT, RelPath, Scope
from instep.spec import MirrorSpec, TargetSpec


class ToldMonitor:
    """Reports what it was given, one reading after the other; then its queue is empty."""

    name = "told"
    drained = True

    def __init__(self, *readings: Sequence[Report]) -> None:
        self._readings = list(readings)
        self.can_go_on = True
        self.is_closed = False

    def start(self) -> None:
        """Nothing is armed."""

    def fileno(self) -> int:
        return -1

    def read(self) -> Sequence[Report]:
        return self._readings.pop(0) if self._readings else ()

    def wake_s(self) -> float | None:
        return None

    def status(self) -> MonitorStatus:
        return MonitorStatus(watches=0, events=0, overflows=0)

    def renew(self, _: Callable[[RelPath, bool], bool] | None) -> bool:
        return self.can_go_on

    def close(self) -> None:
        self.is_closed = True


class TellingTarget:
    """Tells when something may start."""

    def __init__(self, told: list[str]) -> None:
        self._told = told

    def compare_all(self) -> None:
        self._told.append("compare all")

    def kick(self) -> None:
        self._told.append("kick")


def test_once_its_monitor_is_closed_nobody_asks_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the targets are being closed it may be told to stop; the descriptor's number is somebody else's by then."""
    (tmp_path / "s").mkdir()
    spec = MirrorSpec(os.fsencode(tmp_path / "s"), (TargetSpec(os.fsencode(tmp_path / "t")),))
    mirror = Mirror(spec, Source(spec.source), observer=None)
    closing = asyncio.Event()

    async def slowly(self: Target) -> None:
        closing.set()
        mirror.stop()
        mirror.log_status()
        await close(self)

    close = Target.close
    monkeypatch.setattr(Target, "close", slowly)
    reads = 0

    def read() -> Sequence[Report]:
        nonlocal reads
        reads += closing.is_set()
        return ()

    async def life() -> End:
        running = asyncio.create_task(mirror.run())
        async with asyncio.timeout(60):
            while not mirror.following:  # noqa: ASYNC110  # told to the log alone
                await asyncio.sleep(0.001)
            assert mirror._monitor is not None
            monkeypatch.setattr(mirror._monitor, "read", read)
            mirror.end(End.REBUILD)
            return await running

    assert asyncio.run(life()) is End.REBUILD
    assert closing.is_set()
    assert not reads


def test_nothing_is_begun_while_the_indexes_are_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be cut short in the middle, and no index would know of it."""
    source, target = tmp_path / "s", tmp_path / "t"
    source.mkdir()
    spec = MirrorSpec(os.fsencode(source), (TargetSpec(os.fsencode(target)),))
    mirror = Mirror(spec, Source(spec.source), observer=None)
    close = Indexes.close
    noted = -1

    async def slowly(self: Indexes, *, clean: bool, within_s: float) -> None:
        nonlocal noted
        (source / "late").touch()
        mirror._turn()
        noted = mirror.targets[0].pending()
        await close(self, clean=clean, within_s=within_s)

    monkeypatch.setattr(Indexes, "close", slowly)

    async def life() -> End:
        running = asyncio.create_task(mirror.run())
        async with asyncio.timeout(60):
            while not mirror.following:  # noqa: ASYNC110  # told to the log alone
                await asyncio.sleep(0.001)
            mirror.stop()
            return await running

    assert asyncio.run(life()) is End.STOPPED
    assert noted == 1
    assert not (target / "late").exists()


@pytest.mark.parametrize("can_go_on", [True, False])
@pytest.mark.parametrize("end", [End.REBUILD, End.STOPPED])
def test_what_was_handed_over_is_handed_on_by_who_never_came_to_watch(
    tmp_path: Path, end: End, can_go_on: bool
) -> None:
    """Rules that are read anew twice at once: the first mirror of the two ends before it has begun."""
    (tmp_path / "s").mkdir()
    spec = MirrorSpec(os.fsencode(tmp_path / "s"), (TargetSpec(os.fsencode(tmp_path / "t")),))
    monitor = ToldMonitor([])
    monitor.can_go_on = can_go_on
    before = Handover([Report(RelPath(b"f"))], {b"mount"}, monitor, "as asked")
    mirror = Mirror(spec, Source(spec.source), observer=None, before=before)

    async def life() -> End:
        running = asyncio.create_task(mirror.run())
        await asyncio.sleep(0)
        mirror.end(end)
        return await running

    assert asyncio.run(life()) is end
    after = mirror.hand_over()
    assert after.carried == before.carried
    goes_on = can_go_on and end is End.REBUILD
    assert (after.monitor is monitor) == goes_on
    assert monitor.is_closed != goes_on


def test_one_that_is_cancelled_closes_all_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when another mirror of the process cannot work as asked."""
    (tmp_path / "s").mkdir()
    spec = MirrorSpec(os.fsencode(tmp_path / "s"), (TargetSpec(os.fsencode(tmp_path / "t")),))
    monitor = ToldMonitor([Report(ROOT, Scope.TREE, content=False)])
    monkeypatch.setattr(ToldMonitor, "fileno", lambda _: os.open(os.devnull, os.O_RDONLY))
    mirror = Mirror(spec, Source(spec.source), observer=None, before=Handover(monitor=monitor))

    async def life() -> None:
        running = asyncio.create_task(mirror.run())
        monkeypatch.setattr(asyncio.get_running_loop(), "add_reader", lambda *_: None)
        async with asyncio.timeout(60):
            while not mirror.following:  # noqa: ASYNC110  # told to the log alone
                await asyncio.sleep(0.001)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(life())
    assert monitor.is_closed
    assert mirror.hand_over().monitor is None


@pytest.mark.parametrize("more", [(), (Report(RelPath(b"f")),)], ids=["nothing else", "a change"])
def test_the_queue_is_told_to_be_empty_before_anything_is_started(
    monkeypatch: pytest.MonkeyPatch, more: tuple[Report, ...]
) -> None:
    """What is synced after the reading may be newer than what was read: a move noted next must not be believed."""
    mirror = Mirror(MirrorSpec(b"/source", ()), Source(b"/"), observer=None)
    told: list[str] = []
    target = cast("Target", TellingTarget(told))
    for name, value in (
        ("_monitor", ToldMonitor([Report(ROOT, Scope.TREE, content=False), *more])),
        ("targets", [target]),
        ("_compare_whole", [target]),
    ):
        monkeypatch.setattr(mirror, name, cast("Any", value))
    monkeypatch.setattr(mirror.changelog, "drained", lambda: told.append("drained"))
    mirror._turn()
    assert told == ["compare all", "drained", "kick", "drained"]
