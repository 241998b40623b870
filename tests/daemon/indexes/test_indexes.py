"""Which indexes are believed at start, and what becomes of one whose target is away then."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import threading
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path

import pytest

from instep.core.changelog import ChangeLog
from instep.daemon.indexes import target_index
from instep.daemon.indexes.indexes import Indexes
from instep.daemon.indexes.target_index import TargetIndex
from instep.daemon.state import StateDirectory
from instep.daemon.targets.target import State, Target
from instep.errors import TargetAway, TargetError, UsageError
from instep.model import Batch, Change, Failure, Landmarks, Outcome, Progress, Report
from instep.paths import RelPath, Scope
from instep.spec import InitialSync, MirrorSpec, TargetSpec

HERE = Landmarks(b"here", frozenset({b"a", b"d"}))


class PaperEngine:
    """Everything succeeds; where the target is, the test says."""

    name = "paper"
    parallel = 1

    def __init__(self) -> None:
        self.progress = Progress()
        self.away = False
        self.known = True
        self.marks: Landmarks | None = HERE
        self.flushed = 0
        self.flush_fails: list[Exception] = []
        self.brought: list[Change] = []
        self.distrusted: list[Change] = []
        self.may_distrust = threading.Event()
        self.may_distrust.set()
        self.connected: asyncio.Event | None = None
        self.refused = False
        self.failing: set[bytes] = set()

    async def open(self) -> bool:
        if self.connected is not None:
            await self.connected.wait()
        if self.refused:
            raise TargetError("refused", "it is refused", fix="do not")
        if self.away:
            raise TargetAway("it is away")
        return self.known

    def prepare(self) -> None: ...

    def sync_now(self, batch: Batch) -> tuple[Outcome, Sequence[Change]]:
        self.brought += batch.changes
        return Outcome([Failure(each, "no") for each in batch.changes if each.path in self.failing]), ()

    async def sync(self, batch: Batch) -> Outcome:
        return Outcome()

    async def landmarks(self) -> Landmarks | None:
        return self.marks

    def flush(self) -> None:
        self.flushed += 1
        if self.flush_fails:
            raise self.flush_fails.pop(0)

    def distrust(self, changes: Sequence[Change]) -> None:
        self.distrusted += changes
        assert self.may_distrust.wait(60)

    async def close(self) -> None: ...


class Desk:
    """A source, one target and its index, over several lives."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.source = base / "source"
        (self.source / "d").mkdir(parents=True)
        (self.source / "a").write_text("a")
        (self.source / "d" / "f").write_text("f")
        self.fd = os.open(self.source, os.O_RDONLY | os.O_DIRECTORY)
        self.state = StateDirectory(os.fsencode(base / "state"))
        self.drained = True

    def new_life(self, mode: InitialSync = InitialSync.AUTO, *, away: bool = False) -> None:
        self.log = ChangeLog()
        self.engine = PaperEngine()
        self.engine.away = away
        self.target = Target("t", self.engine, self.log, spacing_s=0.0, settled=lambda: None)
        spec = MirrorSpec(os.fsencode(self.source), (TargetSpec(b"/t"),), initial_sync=mode)
        self.indexes = Indexes(spec, self.fd, [self.target], self.state, lambda: self.drained)

    async def begin(self) -> bool:
        """Whether the target has to be compared as a whole."""
        await self.target.open()
        return bool(await self.indexes.begin())

    async def bring_all(self) -> None:
        self.target.compare_all()
        self.target.kick()

    def change_a(self) -> None:
        self.change("a")

    def change(self, name: str) -> None:
        (self.source / name).write_text("changed")
        self.log.note(Report(RelPath(os.fsencode(name)), Scope.ENTRY, content=True, is_dir=False), 0.0)
        self.target.kick()

    def open_files(self) -> list[str]:
        """What this process has open in the state directory."""
        links = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
        opened = [os.readlink(link) for link in links if os.path.exists(link)]
        return [path for path in opened if path.startswith(f"{self.base}/state/")]

    def is_lossy(self) -> bool:
        return self.indexes.any_lossy

    async def differences(self) -> list[tuple[bytes, Scope]]:
        reports: list[Report] = []
        compared = await self.indexes.compare(reports.append)
        return sorted((bytes(report.path), report.scope) for report in [*reports, *compared.gone])

    async def close(self, *, clean: bool = True) -> None:
        await self.indexes.close(clean=clean, within_s=60)
        await self.target.close()


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commits follow at once."""
    monkeypatch.setattr(target_index, "COMMIT_S", 0.01)


async def until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not done():  # noqa: ASYNC110  # what is waited for happens in another thread
            await asyncio.sleep(0.01)


def run(work: Coroutine[object, object, None]) -> None:
    asyncio.run(work)


async def first_life(desk: Desk) -> None:
    desk.new_life()
    assert await desk.begin()
    await desk.bring_all()
    await desk.close()
    assert desk.engine.flushed == 1


async def in_question(desk: Desk) -> None:
    """The next life looks at it again."""
    desk.new_life()
    assert not await desk.begin()
    assert (b"a", Scope.ENTRY) in await desk.differences()
    await desk.close()


LOST = OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.mark.usefixtures("hurried")
def test_what_the_disk_lost_is_brought_again_until_it_has_arrived(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    """The kernel tells of it once, and shows what is lost as if it were there."""

    async def lives() -> None:
        desk.new_life()
        await desk.begin()
        await desk.bring_all()
        await until(lambda: desk.indexes.usable == [desk.target])
        (desk.source / "a").write_text("changed")
        engine = desk.engine
        engine.flush_fails = [LOST, LOST]
        engine.brought.clear()
        desk.log.note(Report(RelPath(b"a"), Scope.ENTRY, content=False, is_dir=False), 0.0)
        desk.target.kick()
        await until(lambda: engine.flushed == 4)
        expected = [(b"a", Scope.ENTRY, True)] * 2
        assert [(each.path, each.scope, each.content) for each in engine.distrusted] == expected
        assert [(each.path, each.scope, each.content) for each in engine.brought[1:]] == expected
        await until(lambda: not desk.is_lossy())
        await desk.close()

    with caplog.at_level(logging.INFO):
        run(lives())
    assert [record.message for record in caplog.records if "disk" in record.message] == [
        "target-disk-lost-writes",  # once, though it happened twice
        "target-disk-well-again",
    ]


def test_what_the_disk_lost_at_the_end_is_in_question_in_the_next_life(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    async def lives() -> None:
        await first_life(desk)
        desk.new_life()
        assert not await desk.begin()
        desk.engine.flush_fails = [LOST]
        desk.change_a()
        await desk.close()
        assert desk.is_lossy()
        assert [each.path for each in desk.engine.distrusted] == [b"a"]
        # Whoever was told first was told last: the kernel shows the next process what is lost as if it were there.
        for fails in ([LOST], []):
            desk.new_life()
            assert not await desk.begin()
            assert (b"a", Scope.ENTRY) in await desk.differences()
            assert (b"a", True) in [(each.path, each.content) for each in desk.engine.distrusted]
            desk.engine.flush_fails += fails
            await desk.bring_all()
            await desk.close()
        lost = [record for record in caplog.records if record.message == "target-disk-lost-writes"]
        assert [record.levelno for record in lost] == [logging.ERROR] * 2  # once in each life
        desk.new_life()
        assert not await desk.begin()
        await desk.differences()
        assert not desk.engine.distrusted
        assert not desk.is_lossy()
        await desk.close()

    run(lives())


@pytest.mark.usefixtures("hurried")
def test_what_the_disk_lost_right_before_the_end_is_in_question_too(desk: Desk) -> None:
    """The kernel has told it, and will not again: a last commit would find nothing wrong."""

    async def lives() -> None:
        await first_life(desk)
        desk.new_life()
        assert not await desk.begin()
        desk.engine.flush_fails = [LOST]
        desk.engine.may_distrust.clear()
        desk.change_a()
        await until(lambda: bool(desk.engine.distrusted))
        index = desk.target.index
        assert isinstance(index, TargetIndex)
        closing = asyncio.create_task(desk.close())
        await until(lambda: index._closing)
        desk.engine.may_distrust.set()
        await closing
        assert desk.engine.flushed == 1
        await in_question(desk)

    run(lives())


@pytest.mark.usefixtures("hurried")
def test_what_the_disk_lost_stays_lost_until_that_very_thing_has_arrived(desk: Desk) -> None:
    """Of another thing that arrived nothing follows."""

    async def lives() -> None:
        await first_life(desk)
        desk.new_life()
        assert not await desk.begin()
        engine = desk.engine
        engine.flush_fails = [LOST]
        desk.change_a()
        engine.failing = {b"a"}
        await until(lambda: len(engine.brought) > 1)  # and in vain
        desk.change("d/f")
        await until(lambda: engine.flushed == 2)
        await desk.close()
        assert desk.is_lossy()
        desk.new_life()
        assert not await desk.begin()
        await desk.differences()
        assert [each.path for each in desk.engine.distrusted] == [b"a"]
        desk.engine.failing = {b"a"}
        desk.change("d/f")
        await until(lambda: desk.engine.flushed == 1)
        await desk.close()
        assert desk.is_lossy()
        desk.new_life()
        assert not await desk.begin()
        await desk.differences()
        assert [each.path for each in desk.engine.distrusted] == [b"a"]
        desk.change_a()
        await until(lambda: not desk.is_lossy())
        await desk.close()
        desk.new_life()
        assert not await desk.begin()
        assert not desk.engine.distrusted
        await desk.close()

    run(lives())


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("why", ["asked for", "another target", "another target, away at start"])
def test_what_the_disk_lost_is_asked_of_it_when_everything_is_compared(
    desk: Desk, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An index that is not believed says no more what was lost: it may be anything."""
    monkeypatch.setattr("instep.daemon.targets.target.backoff_s", lambda *_: 0.0)

    async def lives() -> None:
        await first_life(desk)
        desk.new_life()
        assert not await desk.begin()
        desk.engine.flush_fails = [LOST]
        desk.change_a()
        await desk.close()
        desk.new_life(InitialSync.FULL if why == "asked for" else InitialSync.AUTO, away="away" in why)
        desk.engine.known = False
        if "another" in why:
            desk.engine.marks = Landmarks(b"there", HERE.names)
        assert await desk.begin() is not desk.engine.away
        desk.engine.away = False
        await until(lambda: desk.target.state is State.READY)
        assert (b"", Scope.TREE, True) in [(each.path, each.scope, each.content) for each in desk.engine.distrusted]
        assert desk.is_lossy()
        await desk.bring_all()
        assert [each for each in desk.engine.brought if not each.path and each.content]
        await until(lambda: not desk.is_lossy())
        await desk.close()

    run(lives())


@pytest.mark.usefixtures("hurried")
def test_a_target_that_is_away_when_it_should_flush_is_waited_for(desk: Desk) -> None:
    async def lives() -> None:
        desk.new_life()
        await desk.begin()
        desk.engine.flush_fails = [TargetAway("gone just now")]
        await desk.bring_all()
        await until(lambda: desk.engine.flushed == 2)
        await until(lambda: desk.indexes.usable == [desk.target])
        assert not desk.engine.distrusted
        await desk.close()

    run(lives())


@pytest.mark.usefixtures("hurried")
def test_a_defect_costs_the_index_and_nothing_else(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    async def lives() -> None:
        desk.new_life()
        await desk.begin()
        desk.engine.flush_fails = [ZeroDivisionError()]
        await desk.bring_all()
        await until(lambda: desk.target.index is None)
        await desk.close()
        desk.new_life()
        assert await desk.begin()
        await desk.close()

    run(lives())
    assert [record.message for record in caplog.records] == ["index-crashed", "index-given-up"]


def test_what_was_brought_over_is_known_in_the_next_life(desk: Desk) -> None:
    async def lives() -> None:
        await first_life(desk)
        desk.new_life()
        assert not await desk.begin()
        assert desk.indexes.usable == [desk.target]
        assert await desk.differences() == []
        (desk.source / "a").unlink()
        (desk.source / "new").touch()
        assert await desk.differences() == [(b"", Scope.ENTRY), (b"a", Scope.ENTRY), (b"new", Scope.ENTRY)]
        await desk.close()

    run(lives())


def test_what_is_pending_is_not_claimed(desk: Desk) -> None:
    async def lives() -> None:
        await first_life(desk)
        desk.new_life()
        assert not await desk.begin()
        (desk.source / "a").write_text("changed")
        desk.log.note(Report(RelPath(b"a")), 0.0)
        desk.target.kick()
        desk.target.room.failed(Change(RelPath(b"a")), "no", 0.0)
        await desk.close()
        desk.new_life()
        assert not await desk.begin()
        assert (b"a", Scope.ENTRY) in await desk.differences()
        await desk.close()

    run(lives())


def test_nothing_is_claimed_while_reports_may_be_missing(desk: Desk) -> None:
    async def lives() -> None:
        await first_life(desk)
        desk.new_life()
        assert not await desk.begin()
        (desk.source / "a").write_text("changed")
        desk.log.note(Report(RelPath(b"a")), 0.0)
        desk.target.kick()
        desk.drained = False
        await desk.close()
        desk.drained = True
        desk.new_life()
        assert not await desk.begin()
        assert (b"a", Scope.ENTRY) in await desk.differences()
        await desk.close()

    run(lives())


@pytest.mark.parametrize("found", ["the same", "another", "emptied"])
def test_a_target_that_is_away_at_start_is_recognised_when_it_is_back(
    desk: Desk, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("instep.daemon.targets.target.backoff_s", lambda *_: 0.0)

    async def lives() -> None:
        await first_life(desk)
        desk.new_life(away=True)
        desk.engine.known = False  # So says every engine of a target that it sees for the first time.
        if found == "another":
            desk.engine.marks = Landmarks(b"there", HERE.names)
        elif found == "emptied":
            desk.engine.marks = Landmarks(b"here", frozenset())
        assert not await desk.begin()
        assert desk.target.reason == "it is away"
        desk.engine.away = False
        async with asyncio.timeout(60):
            while desk.target.state is State.AWAY:  # noqa: ASYNC110  # a target tells nobody
                await asyncio.sleep(0.001)
        if found == "the same":
            assert desk.indexes.usable == [desk.target]
            assert desk.target.totals.batches == 0
            assert await desk.differences() == []
        else:
            assert desk.target.totals.batches == 1  # all of it was compared
        await desk.close()

    run(lives())


@pytest.mark.parametrize("found", ["the same", "another", "emptied"])
def test_a_target_that_takes_long_to_open_keeps_no_comparison_waiting(desk: Desk, found: str) -> None:
    async def lives() -> None:
        await first_life(desk)
        desk.new_life()
        desk.engine.connected = asyncio.Event()
        desk.engine.known = False
        if found == "another":
            desk.engine.marks = Landmarks(b"there", HERE.names)
        elif found == "emptied":
            desk.engine.marks = Landmarks(b"here", frozenset())
        opening = asyncio.ensure_future(desk.target.open())
        assert not await desk.indexes.begin({desk.target: opening})
        assert desk.indexes.usable == [desk.target]
        (desk.source / "new").touch()
        assert (b"new", Scope.ENTRY) in await desk.differences()
        desk.log.note(Report(RelPath(b"new")), 0.0)
        desk.target.kick()
        assert desk.target.totals.batches == 0
        assert not desk.target.served
        assert not desk.target.idle
        desk.engine.connected.set()
        await opening
        assert desk.target.totals.batches == 1
        assert desk.indexes.usable == ([desk.target] if found == "the same" else [])
        await desk.close()

    run(lives())


@pytest.mark.parametrize("mode", [InitialSync.AUTO, InitialSync.INDEX, InitialSync.FULL])
def test_where_nothing_is_known_or_must_be_certain_a_target_is_opened_first(desk: Desk, mode: InitialSync) -> None:
    async def lives() -> None:
        if mode is InitialSync.INDEX:
            await first_life(desk)
        desk.new_life(mode)
        desk.engine.connected = asyncio.Event()
        opening = asyncio.ensure_future(desk.target.open())
        beginning = asyncio.ensure_future(desk.indexes.begin({desk.target: opening}))
        begun, _ = await asyncio.wait({beginning}, timeout=0.05)  # long enough, if it did not wait for the target
        assert not begun
        desk.engine.connected.set()
        assert bool(await beginning) is (mode is not InitialSync.INDEX)
        assert desk.target.state is State.READY
        await desk.close()

    run(lives())


def test_a_target_that_is_refused_is_so_at_once_where_nothing_is_known(desk: Desk) -> None:
    async def life() -> None:
        desk.new_life()
        desk.engine.refused = True
        with pytest.raises(TargetError, match="refused"):
            await desk.indexes.begin({desk.target: asyncio.ensure_future(desk.target.open())})
        await desk.close(clean=False)

    run(life())


@pytest.mark.parametrize("mode", [InitialSync.FULL, InitialSync.NONE])
def test_an_index_that_was_not_asked_for_claims_nothing(desk: Desk, mode: InitialSync) -> None:
    async def lives() -> None:
        await first_life(desk)
        desk.new_life(mode)
        assert await desk.begin() is (mode is InitialSync.FULL)
        await desk.close()
        desk.new_life()
        assert await desk.begin()
        await desk.close()

    run(lives())


def test_refused_where_only_the_index_would_do(desk: Desk) -> None:
    async def life() -> None:
        desk.new_life(InitialSync.INDEX)
        with pytest.raises(UsageError, match="there was none"):
            await desk.begin()
        assert desk.open_files()
        await desk.close(clean=False)
        assert not desk.open_files()

    run(life())


def test_a_state_directory_that_fills_up_costs_the_index_alone(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    async def lives() -> None:
        await first_life(desk)
        desk.new_life()
        assert not await desk.begin()

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("instep.index.journal.Journal.note", full)
        desk.log.note(Report(RelPath(b"a")), 0.0)
        desk.target.kick()
        assert desk.target.totals.batches == 1
        assert desk.target.index is None
        assert not list((desk.base / "state").glob("*.index*"))
        await desk.close()

    run(lives())
