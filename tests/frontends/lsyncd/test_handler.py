"""The handler by itself, with a clock of the test's: bounds, what it says while it ends, and what is kept running."""

from __future__ import annotations

import itertools
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from instep.frontends.lsyncd import handler as module
from instep.frontends.lsyncd.handler import SyncHandler
from instep.frontends.lsyncd.load import Loader
from instep.frontends.lsyncd.log import Log
from instep.frontends.lsyncd.queue import Kind
from instep.frontends.lsyncd.words import read as words
from instep.linux.inotify import IN_ATTRIB, IN_CLOSE_WRITE, IN_CREATE
from instep.model import EventReport, Interrupt, Program, ProgramEnd
from instep.paths import RelPath, Scope

pytest.importorskip("lupa")


class Lines(Log):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def say(self, category: str, text: bytes) -> None:
        self.lines.append(f"{category}: {text.decode()}")

    def count(self, text: str) -> int:
        return sum(text in line for line in self.lines)


def serving(top: Path, text: str, clock: Callable[[], float] = lambda: 0.0) -> tuple[SyncHandler, Lines]:
    (top / "s").mkdir()
    log = Lines()
    loader = Loader(words(["c.lua"]), log, clock=clock)
    loader.read(text.replace("@", str(top)).encode())
    loader.serve()
    loader.handler.started(0.0)
    return loader.handler, log


def event(path: str, mask: int = IN_CLOSE_WRITE) -> EventReport:
    report = EventReport(RelPath(path.encode()), Scope.ENTRY, is_dir=False)
    report.mask = mask
    return report


def programs(handler: SyncHandler, now_s: float) -> dict[int, tuple[bytes, ...]]:
    due = handler.due(now_s, drained=True)
    return {number: work.argv for number, work in due if isinstance(work, Program)}


def test_a_queue_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ENTRIES_MAX", 10)
    handler, log = serving(tmp_path, 'sync{ source="@/s", delay=5, init=false, onModify="true" }')
    assert programs(handler, 0.0) == {}
    for number in range(11):
        handler.note(0, event(f"f{number}"), 1.0)
    assert [entry.kind for entry in handler.syncs[0].queue] == [Kind.INIT]
    assert log.count("Warn: more than 10 events wait: beginning anew") == 1


def test_events_of_built_in_kinds_take_one_entry_a_path(tmp_path: Path) -> None:
    text = 'sync{ default.rsync, source="@/s", target="@/t", delay=5, init=false, rsync={ update=true } }'
    handler, _ = serving(tmp_path, text)
    programs(handler, 0.0)
    for number, mask in itertools.product(range(10), (IN_CREATE, IN_CLOSE_WRITE, IN_CLOSE_WRITE)):
        handler.note(0, event(f"f{number}", mask), 1.0)
    assert len(handler.syncs[0].queue) == 10
    ((_, argv),) = programs(handler, 9.0).items()
    assert argv[0] == b"rsync"
    handler.note(0, event("f3"), 9.5)
    assert len(handler.syncs[0].queue) == 11, "what is under way does not take in what comes after"


class Beside:
    """A mirror with these paths not in step."""

    def __init__(self) -> None:
        self.paths = {b""}

    def unsettled(self) -> tuple[set[bytes], set[bytes]]:
        return set(self.paths), set()


def test_the_status_file_tells_of_mirrors_when_they_have_changed(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    text = 'settings{ statusFile="@/st", statusInterval=2 } sync{ default.rsync, source="@/s", target="@/t" }'
    loader = Loader(words(["c.lua"]), Lines(), clock=lambda: 0.0)
    loader.read(text.replace("@", str(tmp_path)).encode())
    assert len(loader.serve()) == 1
    handler, mirror, written = loader.handler, Beside(), list[bytes]()
    handler.status_write = written.append
    assert handler.beside([mirror])
    handler.started(0.0)
    handler.due(0.0, drained=True)
    assert b"Sync1 source=%b/s/\nThere are 1 delays\nactive Init \n" % bytes(tmp_path) in written[-1]
    assert handler.wake_s() == 2.0
    mirror.paths = {b"f"}
    handler.due(1.0, drained=True)
    assert len(written) == 1, "too early"
    handler.due(2.0, drained=True)
    assert b"There are 1 delays\nwait   Modify /f\n" in written[-1]
    handler.due(4.0, drained=True)
    assert len(written) == 2, "nothing has changed"


def test_what_direct_leaves_out_is_said(tmp_path: Path) -> None:
    text = 'sync{ default.direct, source="@/s", target="@/t", delay=0, init=false }'
    handler, log = serving(tmp_path, text)
    programs(handler, 0.0)
    handler.note(0, event("f", IN_ATTRIB), 1.0)
    assert programs(handler, 2.0) == {}
    assert log.count('Warn: ignored an event of type "Attrib"') == 1


def test_wrong_words_for_programs_are_refused_where_they_are(tmp_path: Path) -> None:
    for number, given in enumerate(("5", '"true", true', '"true", "a\\0b"', '"true", { {} }', '"true", "<", true')):
        (tmp_path / str(number)).mkdir()
        text = f'\nsync{{ source="@/s", init=function(event)\n spawn(event, {given}) end }}'
        handler, log = serving(tmp_path / str(number), text)
        assert programs(handler, 0.0) == {}
        assert handler.exit_status == 255
        assert log.count("Error: in Lua: c.lua:3: ") == 1, (given, log.lines)


def test_a_list_that_is_done_holds_nothing_even_if_it_is_kept(tmp_path: Path) -> None:
    text = """
        local kept
        sync{ source="@/s", delay=0, init=false, action=function(inlet)
            if kept then log("Normal", "kept ", #kept.getPaths(), " ", kept.size(), " ", kept.status) end
            kept = inlet.getEvents()
            log("Normal", "fresh ", #kept.getPaths(), " ", kept.size(), " ", kept.status)
            spawn(kept, "true")
        end }"""
    handler, log = serving(tmp_path, text)
    programs(handler, 0.0)
    for now_s in (1.0, 2.0):
        handler.note(0, event("f"), now_s)
        handler.note(0, event("g"), now_s)
        ((number, _),) = programs(handler, now_s).items()
        handler.finished(number, ProgramEnd(0), now_s)
    assert [line for line in log.lines if "kept" in line] == ["Normal: kept 0 0 (nil)"]
    assert [line for line in log.lines if "fresh" in line] == ["Normal: fresh 2 2 wait"] * 2


def test_large_files_go_by_themselves(tmp_path: Path) -> None:
    """Each once, and nothing is lost: with lsyncd 2.3 removing an entry from the middle breaks the queue."""
    handler, _ = serving(
        tmp_path,
        """sync{ default.rsync, source="@/s", target="@/t", delay=0, init=false, batchSizeLimit=100, maxProcesses=2 }""",
    )
    programs(handler, 0.0)
    for name in ("big1", "small1", "big2", "small2", "big3"):
        (tmp_path / "s" / name).write_bytes(b"x" * (1000 if name.startswith("big") else 10))
        for mask in (IN_CREATE, IN_CLOSE_WRITE):
            handler.note(0, event(name, mask), 1.0)
    sent: list[bytes] = []
    for now_s in (1.0, 2.0):
        due = handler.due(now_s, drained=True)
        assert len(due) == 2
        sent += [work.stdin or b"" for _, work in due if isinstance(work, Program)]
        for number, _ in due:
            handler.finished(number, ProgramEnd(0), now_s)
    assert sent == [b"/small1\0/\0/small2", b"/big1\0/", b"/big2\0/", b"/big3\0/"]
    assert handler.due(3.0, drained=True) == []
    assert len(handler.syncs[0].queue) == 0


def test_a_list_that_fails_is_tried_ever_more_rarely(tmp_path: Path) -> None:
    text = 'sync{ default.rsync, source="@/s", target="@/t", delay=0, init=false, rsync={ update=true } }'
    handler, _ = serving(tmp_path, text)
    programs(handler, 0.0)
    handler.note(0, event("f"), 0.0)
    now_s, pauses = 0.0, []
    for _ in range(11):
        ((number, _),) = programs(handler, now_s).items()
        handler.finished(number, ProgramEnd(12), now_s)
        assert programs(handler, now_s) == {}
        wake_s = handler.wake_s()
        assert wake_s is not None
        pauses.append(wake_s - now_s)
        now_s = wake_s
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


class Clock:
    """The time, as the handler and its configuration are told."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def at(self, now_s: float) -> float:
        self.now_s = now_s
        return now_s


def run_all(handler: SyncHandler, now_s: float) -> list[int]:
    """Run for real what is due; how that ended."""
    codes = []
    for number, work in handler.due(now_s, drained=True):
        assert isinstance(work, Program)
        code = subprocess.run(work.argv, input=work.stdin or b"", check=False, capture_output=True).returncode
        handler.finished(number, ProgramEnd(code), now_s)
        codes.append(code)
    return codes


def test_what_an_initial_sync_could_not_bring_over_is_brought_over_later(tmp_path: Path) -> None:
    text = 'sync{ default.rsync, source="@/s", target="@/t", delay=0, rsync={ copy_links=true } }'
    clock = Clock()
    handler, log = serving(tmp_path, text, clock)
    (tmp_path / "s/a").write_text("a")
    (tmp_path / "s/link").symlink_to(tmp_path / "there")
    assert run_all(handler, 0.0) == [23]
    assert log.count("finished.") == 1
    (tmp_path / "s/b").write_text("b")
    handler.note(0, event("b", IN_CREATE), 1.0)
    assert run_all(handler, clock.at(1.0)) == [0], "events are not held up"
    assert {path.name for path in (tmp_path / "t").iterdir()} == {"a", "b"}
    assert (run_all(handler, clock.at(59.9)), run_all(handler, clock.at(60.0))) == ([], [23])
    (tmp_path / "there").write_text("c")
    assert (run_all(handler, clock.at(179.9)), run_all(handler, clock.at(180.0))) == ([], [0])
    assert (tmp_path / "t/link").read_text() == "c"
    assert handler.wake_s() is None
    assert log.count("Warn: ") == 1
    assert [log.count(text) for text in ("Some of ", "All of it is tried again", "could be transferred now")] == [1] * 3


@pytest.mark.parametrize("kind", ["rsync", "rsyncssh", "direct"])
def test_all_of_a_source_is_tried_ever_more_rarely(tmp_path: Path, kind: str) -> None:
    way = 'host="h", targetdir="/t"' if kind == "rsyncssh" else 'target="@/t"'
    text = f'sync{{ default.{kind}, source="@/s", {way}, rsync={{ update=true, rsh="ssh" }} }}'
    clock = Clock()
    handler, log = serving(tmp_path, text, clock)
    now_s, pauses = 0.0, []
    for _ in range(9):
        (number,) = (number for number, argv in programs(handler, now_s).items() if argv[0] == b"rsync")
        handler.finished(number, ProgramEnd(23), now_s)
        wake_s = handler.wake_s()
        assert wake_s is not None
        pauses.append(wake_s - now_s)
        now_s = clock.at(wake_s)
    assert pauses == [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]
    handler.lost(0, now_s - 1.0)
    (number,) = programs(handler, now_s - 1.0)
    handler.finished(number, ProgramEnd(0), now_s - 1.0)
    assert programs(handler, now_s) == {}, "it went over anew meanwhile"
    assert (log.count("Some of "), log.count("could be transferred now")) == (1, 1)


def test_what_vanishes_is_looked_at_once_more(tmp_path: Path) -> None:
    clock, text = Clock(), 'sync{ default.rsync, source="@/s", target="@/t", rsync={ update=true } }'
    handler, log = serving(tmp_path, text, clock)
    for now_s in (0.0, 60.0):
        ((number, _),) = programs(handler, clock.at(now_s)).items()
        handler.finished(number, ProgramEnd(24), now_s)
    assert (handler.wake_s(), log.count("exitcode 24")) == (None, 1)


def test_who_waits_for_programs_says_so_each_minute(tmp_path: Path) -> None:
    handler, log = serving(tmp_path, 'sync{ source="@/s", onStartup="sleep 1000" }')
    ((number, _),) = programs(handler, 0.0).items()
    handler.stop()
    for now_s, times in ((0.1, 1), (30.0, 1), (60.2, 2), (100.0, 2), (121.0, 3)):
        assert handler.due(now_s, drained=True) == []
        assert log.count("waiting for 1 more child processes.") == times, now_s
    assert handler.wake_s() == pytest.approx(181.0)
    handler.finished(number, ProgramEnd(0), 130.0)
    assert handler.due(130.0, drained=True) == []
    assert handler.wake_s() is None


def test_a_tunnel_stays_until_nothing_goes_through_it(tmp_path: Path) -> None:
    handler, _ = serving(
        tmp_path,
        """sync{ default.rsync, source="@/s", target="r://^localport/",
            tunnel=tunnel{ command="ssh ^localport", readyDelay=5 } }""",
    )
    ((tunnel, words_of_it),) = programs(handler, 0.0).items()
    assert words_of_it[0] == b"ssh"
    assert (programs(handler, 4.9), handler.wake_s()) == ({}, 5.0)
    ((initial, argv),) = programs(handler, 5.0).items()
    assert argv[-1] == b"r://" + words_of_it[1] + b"/"
    handler.stop()
    assert handler.due(6.0, drained=True) == []
    handler.finished(initial, ProgramEnd(0), 7.0)
    assert handler.due(7.0, drained=True) == [(tunnel, Interrupt(tunnel, signal.SIGKILL))]
    assert handler.wake_s() is not None, "it may have been too soon for that"
    handler.finished(tunnel, ProgramEnd(137, signal=9), 7.1)
    assert (handler.due(7.1, drained=True), handler.wake_s()) == ([], None)
