"""Driving a handler: what it is told, what it has run, and what never reaches it."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from instep.daemon.handlers.handled import Handled
from instep.daemon.handlers.workshop import Workshop
from instep.linux.inotify import IN_CREATE, IN_DELETE, IN_MOVED_FROM, IN_MOVED_TO
from instep.model import Call, EventReport, Program, ProgramEnd
from instep.monitors.inotify_events import InotifyEvents
from instep.paths import RelPath
from instep.ports import Place

DEADLINE_S = 60.0
WORDS = {
    IN_CREATE: "create",
    IN_DELETE: "delete",
    IN_MOVED_FROM | IN_MOVED_TO: "move",
    IN_MOVED_TO: "to",
    IN_MOVED_FROM: "from",
}


class Telling:
    """A handler that notes what it is told, and runs what the test says."""

    def __init__(self, root: Path) -> None:
        self.exit_status: int | None = None
        self.root = root
        self.told: list[str] = []
        self.programs: list[tuple[int, Program | Call]] = []
        self.ends: dict[int, ProgramEnd] = {}
        self.at_s: float | None = None
        self.woken = 0
        self.breaks = False

    @property
    def places(self) -> Sequence[Place]:
        return [Place(os.fsencode(self.root), lambda path, _: path.startswith(b"ignored"))]

    def started(self, now_s: float) -> None:
        self.told.append("started")

    def note(self, place: int, report: EventReport, now_s: float) -> bool:
        word = WORDS.get(report.mask)
        if word is not None:
            self.told.append(f"{word} {os.fsdecode(report.path)}" + ("/" if report.is_dir else ""))
        return report.is_dir and word == "move"

    def lost(self, place: int, now_s: float) -> None:
        self.told.append("lost")

    def appeared(self, place: int, path: RelPath, now_s: float) -> bool:
        return True

    def due(self, now_s: float, *, drained: bool) -> Sequence[tuple[int, Program | Call]]:
        if self.at_s is not None and now_s >= self.at_s:
            self.at_s = None
            self.woken += 1
        programs, self.programs = self.programs, []
        return programs

    def finished(self, number: int, end: ProgramEnd, now_s: float) -> None:
        self.ends[number] = end
        if self.breaks:
            raise ValueError("a defect")

    def wake_s(self) -> float | None:
        return self.at_s

    def stop(self) -> None:
        self.told.append("stop")

    def reload(self) -> None:
        self.told.append("reload")

    def log_status(self) -> None:
        self.told.append("status")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "r").mkdir()
    return tmp_path / "r"


async def until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not done():  # noqa: ASYNC110  # what is waited for happens in other processes
            await asyncio.sleep(0.005)


def drive(root: Path, work: Callable[[Telling, Handled], Awaitable[None]]) -> tuple[Telling, int]:
    async def run() -> tuple[Telling, int]:
        handler = Telling(root)
        handled = Handled(handler, Workshop(umask=0o022))
        running = asyncio.create_task(handled.run())
        await until(lambda: "started" in handler.told)
        await work(handler, handled)
        async with asyncio.timeout(DEADLINE_S):
            return handler, await running

    return asyncio.run(run())


def test_events_come_in_and_programs_go_out(root: Path) -> None:
    async def work(handler: Telling, handled: Handled) -> None:
        handler.programs = [(7, Program((b"/bin/sh", b"-c", b"exit 3")))]
        (root / "f").write_text("")
        await until(lambda: 7 in handler.ends)
        handled.stop()

    handler, status = drive(root, work)
    assert handler.told == ["started", "create f", "stop"]
    assert (handler.ends[7].status, status) == (3, 0)


def test_what_was_in_a_directory_before_it_was_watched_is_told(root: Path) -> None:
    (root.parent / "came/in").mkdir(parents=True)
    (root.parent / "came/in/z").write_text("")

    async def work(handler: Telling, handled: Handled) -> None:
        (root.parent / "came").rename(root / "came")
        await until(lambda: "create came/in/z" in handler.told)
        (root / "came").rename(root / "gone")
        await until(lambda: "create gone/in/z" in handler.told)
        handled.stop()

    handler, _ = drive(root, work)
    assert handler.told == [
        "started", "to came/", "create came/in/", "create came/in/z", "move gone/", "create gone/in/",
        "create gone/in/z", "stop",
    ]  # fmt: skip


def test_what_another_instep_writes_under_is_never_told(root: Path) -> None:
    """Not a file, not what is in a directory, not the name that something is renamed from or to."""
    (root.parent / "came").mkdir()
    (root.parent / "came/.instep-1-1.tmp").write_text("")

    async def work(handler: Telling, handled: Handled) -> None:
        hidden = root / ".instep-1-2.tmp"
        hidden.mkdir()
        (hidden / "f").write_text("")
        hidden.rename(root / "d")
        await until(lambda: "create d/f" in handler.told)
        (root / ".instep-1-3.tmp").write_text("")
        (root / ".instep-1-3.tmp").rename(root / "file")
        (root / "file").rename(root / ".instep-1-4.tmp")
        (root.parent / "came").rename(root / "came")
        (root / "last").write_text("")
        await until(lambda: "create last" in handler.told)
        handled.stop()

    handler, _ = drive(root, work)
    assert handler.told == ["started", "to d/", "create d/f", "to file", "from file", "to came/", "create last", "stop"]


def test_a_handler_is_woken_when_it_wants(root: Path) -> None:
    async def work(handler: Telling, handled: Handled) -> None:
        handler.at_s = asyncio.get_running_loop().time() + 0.05
        (root / "f").write_text("")  # it is asked for its time after each event
        await until(lambda: handler.woken == 1)
        handler.exit_status = 9
        (root / "g").write_text("")

    assert drive(root, work)[1] == 9


def test_lost_events_are_told(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(InotifyEvents, "backoff_s", (0.0,))
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())

    async def work(handler: Telling, handled: Handled) -> None:
        (root / "a").write_text("")
        (root / "b").write_text("")
        for _ in range(limit // 2 + 10):
            os.utime(root / "a")
            os.utime(root / "b")
        await until(lambda: "lost" in handler.told)
        (root / "after").write_text("")
        await until(lambda: "create after" in handler.told)
        handled.stop()

    drive(root, work)


def test_a_source_that_is_another_now_is_left_alone(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An unmounted source is an empty directory: whoever took that for its state would empty every target."""

    async def work(handler: Telling, handled: Handled) -> None:
        os.rename(root, root.parent / "away")
        os.mkdir(root)
        await until(lambda: "source-away" in caplog.text)
        handled.stop()

    with caplog.at_level(logging.ERROR):
        handler, _ = drive(root, work)
    assert "lost" not in handler.told


def test_a_stop_waits_for_what_runs(root: Path) -> None:
    async def work(handler: Telling, handled: Handled) -> None:
        script = f"while [ ! -e {root.parent}/go ]; do sleep 0.01; done"
        handler.programs = [(1, Program((b"/bin/sh", b"-c", script.encode())))]
        (root / "f").write_text("")
        await until(lambda: not handler.programs)
        handled.stop()
        handled.end()
        (root.parent / "go").touch()

    handler, _ = drive(root, work)
    assert handler.ends[1].status == 0


def test_a_defect_of_the_handler_ends_it(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def work(handler: Telling, handled: Handled) -> None:
        handler.breaks = True
        handler.programs = [(1, Program((b"/bin/true",)))]
        (root / "f").write_text("")

    assert drive(root, work)[1] == 1
    assert "handler-crashed" in caplog.text


def test_a_defect_in_doing_the_work_ends_it(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody would ever hear of the end of that work; what waits for it would wait for ever."""

    async def work(handler: Telling, handled: Handled) -> None:
        handler.programs = [(1, Call())]
        (root / "f").write_text("")

    assert drive(root, work)[1] == 1
    assert "handler-crashed" in caplog.text


def test_a_crash_elsewhere_counts_as_lost(root: Path) -> None:
    async def work(handler: Telling, handled: Handled) -> None:
        handled.crashed()
        handled.log_status()
        handled.reload()
        handled.resync()
        handled.stop()

    handler, _ = drive(root, work)
    assert handler.told == ["started", "lost", "status", "reload", "lost", "stop"]
