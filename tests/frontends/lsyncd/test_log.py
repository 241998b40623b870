"""lsyncd's log lines and status file."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

import pytest

from instep.frontends.lsyncd import events
from instep.frontends.lsyncd.log import EventLines, Log, facility_of
from instep.frontends.lsyncd.queue import Kind, Queue
from instep.frontends.lsyncd.selection import Selection
from instep.frontends.lsyncd.status import Facts, of_mirror, of_steps, report
from instep.frontends.lsyncd.syncs import Sync
from instep.logs import fields


def test_before_the_start_lines_have_no_time(capsys: pytest.CaptureFixture[str]) -> None:
    log = Log()
    log.say("Error", b"Nothing to watch!")
    log.say("Info", b"unseen")
    assert capsys.readouterr() == ("", "Error: Nothing to watch!\n")


def test_the_console_and_a_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    log = Log()
    log.enable(["scarce", "Exec"])
    umask = os.umask(0)
    try:
        log.start(console=True, path=str(tmp_path / "log"), ident="x", facility=8)
        (tmp_path / "log").unlink()  # rotated
        for category in ("Normal", "Warn", "Error", "Exec", "Debug"):
            log.say(category, b"said \x1b[1m \xff\n/next")
    finally:
        os.umask(umask)
    out, err = capsys.readouterr()
    assert re.fullmatch(r"(\d\d:\d\d:\d\d (Warn|Exec): said \\x1b\[1m \\xff\n/next\n){2}", out)
    assert re.fullmatch(r"\d\d:\d\d:\d\d Error: said .*\n/next\n", err)
    assert len((tmp_path / "log").read_text().splitlines()) == 6
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o644


def test_what_instep_says_itself(capsys: pytest.CaptureFixture[str]) -> None:
    log = Log()
    lines = EventLines(log, startups={"/t": b"Startup of /s/ -> /t/ finished."})
    for level, message, more in (
        (logging.INFO, "in-step", fields(target="/t")),
        (logging.INFO, "in-step", fields(target="/other")),
        (logging.WARNING, "path-failing", fields(path=b"\x1b", reason="why")),
    ):
        record = logging.getLogger("x").makeRecord("x", level, "", 0, message, (), None, extra=more)
        lines.emit(record)
    assert capsys.readouterr().err == (
        'Normal: Startup of /s/ -> /t/ finished.\nWarn: warning path-failing path="\\x1b": why\n'
    )


@pytest.mark.parametrize(
    ("given", "facility"), [(b"daemon", 24), (b"Local7", 184), (16, 16), (b"zz", None), ([], None)]
)
def test_facilities(given: object, facility: int | None) -> None:
    assert facility_of(given) == facility


def test_the_status_file() -> None:
    queue = Queue(collapse=False)
    queue.note(Kind.MOVE, b"/a", b"/b", due_s=0)
    queue.note(Kind.ATTRIB, b"/b", due_s=0)
    selection = Selection()
    selection.append(b"- *.x")
    selection.exclude(b"*.o")
    facts = Facts(at_s=0, children=[(1, 0.0)], tunnels=[(b"way", True), (b"other", False)])
    sync = Sync(number=1, config=None, source=b"/s/", selection=selection, name=b"Sync1")
    sync.queue = queue
    lines = report([of_steps(sync)], facts).decode().split("\n")
    assert lines[0].startswith("Lsyncd status report at ")
    assert lines[1:] == [
        "", "Sync1 source=/s/", "There are 2 delays", "wait   Move /a -> /b", "block  Attrib /b", "Filtering:", "  - *.x",
        "Excluding:", "  *.o", "", "Tunnel: name=way status=UP", "Tunnel: name=other status=DOWN",
        "Running processes: 1", "  sync=1 started=" + lines[0].removeprefix("Lsyncd status report at "), "",
    ]  # fmt: skip
    about = of_mirror(sync, {b"b", b"", b"a"}, {b"", b"b"})
    assert (about.waiting, about.lines) == (3, [b"active Init ", b"wait   Modify /a", b"wait   Modify /b/"])
    about = of_mirror(sync, {b"%d" % number for number in range(5000)}, set())
    assert (about.waiting, len(about.lines)) == (5000, 1000)


@pytest.mark.parametrize(
    ("path", "values"),
    [
        (b"/d/f", [False, b"f", b"f", b"d/f", b"d/f", b"d/", b"/d/f", b"/d/f", b"/d/"]),
        (b"/k/", [True, b"k/", b"k", b"k/", b"k", b"", b"/k/", b"/k", b"/"]),
        (b"/d/k/", [True, b"k/", b"k", b"d/k/", b"d/k", b"d/", b"/d/k/", b"/d/k", b"/d/"]),
        (b"", [False, None, None, b"", b"", b"", b"", b"", b""]),
    ],
)
def test_fields_of_events(path: bytes, values: list[object]) -> None:
    names = (
        b"isdir", b"name", b"basename", b"path", b"pathname", b"pathdir", b"below_path", b"below_pathname", b"below_dir",
    )  # fmt: skip
    (entry,) = Queue(collapse=False).note(Kind.CREATE, path, due_s=0)
    assert [events.value(entry, name, destination=False) for name in names] == values
    (move,) = Queue(collapse=False).note(Kind.MOVE, b"/x", path, due_s=0)
    assert [events.value(move, name, destination=True) for name in names] == values
    assert events.value(move, b"path", destination=False) == b"x"
