"""The lines that clsync says."""

from __future__ import annotations

import io
import logging
import os
import re
import sys
import syslog
import threading
from dataclasses import replace

import pytest

from instep.frontends.clsync.complaints import Complaint, Note, Refused, refused
from instep.frontends.clsync.output import Say, take_over
from instep.frontends.clsync.settings import Mode, Output, Settings
from instep.logs import fields

SETTINGS = Settings(
    watch_dir=b"/w", mode=Mode.SHELL, sync_handler=b"/h", arguments=(), initial_arguments=None, default_arguments=True
)


def say_all(say: Say) -> None:
    say.error("e", 2)
    say.warning("w")
    say.info("i")
    say.debug(1, "one")
    say.debug(3, "three")


def test_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    say_all(Say())
    assert capsys.readouterr() == ("", "Error: e (2: No such file or directory)\nWarning: w\nInfo: i\n")


@pytest.mark.parametrize(
    ("verbose", "shown"), [(0, ""), (1, "E"), (2, "EW"), (3, "EWI"), (9, "EWI")], ids=["0", "1", "2", "3", "9"]
)
def test_verbose(verbose: int, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    say = Say()
    say.configure(replace(SETTINGS, verbose=verbose))
    say_all(say)
    assert "".join(line[0] for line in capsys.readouterr().err.splitlines()) == shown


def test_debugging_lines_are_shown_whatever_verbose_is(capsys: pytest.CaptureFixture[str]) -> None:
    say = Say()
    say.configure(replace(SETTINGS, verbose=0, debug=1))
    say_all(say)
    thread = f"{threading.get_ident():#x}"
    assert capsys.readouterr().err == f"Debug1 (pid: {os.getpid()}; thread: {thread}): main(): one\n"
    say.configure(replace(SETTINGS, verbose=1, debug=3))
    say.error("e", where="chdir")
    assert capsys.readouterr().err == f"Error (pid: {os.getpid()}; thread: {thread}): chdir(): e\n"


def test_quiet_hides_everything_and_can_be_taken_back(capsys: pytest.CaptureFixture[str]) -> None:
    say = Say()
    say.configure(replace(SETTINGS, quiet=True, debug=8))
    say_all(say)
    assert capsys.readouterr() == ("", "")
    say.configure(replace(SETTINGS, output=Output.STDOUT))
    say.info("back")
    assert capsys.readouterr() == ("Info: back\n", "")


def test_nobody_can_forge_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    say = Say()
    say.info(b"a\nError: b\t\x1b[1m\xff \xc2\x9b " + "ä".encode())
    say.info("a\udcff\u2028\r")
    assert capsys.readouterr().err == ("Info: a\\nError: b\t\\x1b[1m\\xff \\x9b ä\n" + "Info: a\\xff\\u2028\\x0d\n")


def test_nobody_needs_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    say = Say()
    stream = os.fdopen(writer, "w", encoding="ascii", buffering=1)
    monkeypatch.setattr(sys, "stderr", stream)
    say.error("ä")
    with pytest.raises(BrokenPipeError):
        stream.close()
    say.error("closed")


def test_a_terminal_without_umlauts(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    say = Say()
    say.direct(Output.STDOUT)
    say.warning("ä")
    assert raw.getvalue() == b"Warning: \\xe4\n"


def test_syslog(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    opened: list[object] = []
    lines: list[tuple[int, str]] = []
    monkeypatch.setattr(syslog, "openlog", lambda *words: opened.append(words))
    monkeypatch.setattr(syslog, "syslog", lambda priority, line: lines.append((priority, line)))
    say = Say()
    say.direct(Output.SYSLOG, debug=0)
    say.direct(Output.SYSLOG)
    say_all(say)
    assert opened == [("clsync", syslog.LOG_PID | syslog.LOG_CONS | syslog.LOG_NDELAY, syslog.LOG_DAEMON)]
    assert lines == [
        (syslog.LOG_ERR, "Error: e (2: No such file or directory)"),
        (syslog.LOG_WARNING, "Warning: w"),
        (syslog.LOG_INFO, "Info: i"),
    ]
    say.direct(Output.SYSLOG, debug=1)
    say.debug(1, "d")
    assert lines[-1][0] == syslog.LOG_DEBUG
    assert capsys.readouterr() == ("", "")


def test_what_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    complaints = [Complaint("no mode", "give --mode", 22), Complaint("no place", "", 2)]
    Say().refused(Refused(complaints, notes=[Note("odd"), Note("fine", is_warning=False)]))
    assert capsys.readouterr().err == (
        "Warning: odd\nInfo: fine\n"
        "Error: no mode; give --mode (22: Invalid argument)\nError: no place (2: No such file or directory)\n"
    )


def test_a_status_that_is_no_errno_gets_no_words_of_one(capsys: pytest.CaptureFixture[str]) -> None:
    Say().refused(refused("no file", "name one", status=255))
    Say().refused(refused("no expression", "mend it", status=8, is_errno=False))
    assert capsys.readouterr().err == "Error: no file; name one\nError: no expression; mend it\n"


def test_what_instep_says_itself(capsys: pytest.CaptureFixture[str]) -> None:
    say = Say()
    take_over(say)
    take_over(say)
    say.configure(SETTINGS)
    log = logging.getLogger("instep.anything")
    log.error("source-away", extra=fields(source=b"/a\n", now="waits"))
    log.warning("odd")
    log.info("in-step", extra=fields(target="/t"))
    log.debug("event")
    assert capsys.readouterr().err == (
        'Error: source-away source="/a\\n"; now: waits\nWarning: odd\nInfo: in-step target=/t\n'
    )
    say.configure(replace(SETTINGS, debug=3, verbose=1))
    log.debug("event")
    log.info("unseen")
    assert re.fullmatch(
        r"Debug3 \(pid: \d+; thread: 0x[0-9a-f]+\): test_what_instep_says_itself\(\): event\n", capsys.readouterr().err
    )


def test_what_is_not_shown_is_not_made() -> None:
    say = Say()
    log = logging.getLogger("instep.anything")
    for verbose, debug, quiet, level in (
        (3, 0, False, logging.INFO),
        (2, 0, False, logging.WARNING),
        (1, 1, False, logging.ERROR),
        (0, 0, False, logging.CRITICAL + 1),
        (3, 9, True, logging.CRITICAL + 1),
        (0, 3, False, logging.DEBUG),
    ):
        say.direct(Output.STDERR, verbose=verbose, debug=debug, quiet=quiet)
        assert log.getEffectiveLevel() == level


def test_a_traceback_is_a_line_for_each_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    take_over(Say())
    log = logging.getLogger("instep.anything")
    try:
        int("x")
    except ValueError:
        log.exception("internal-error")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Error: internal-error"
    assert lines[-1] == "Error: ValueError: invalid literal for int() with base 10: 'x'"
    assert all(line.startswith("Error: ") for line in lines)


def test_the_words_of_a_module(capsys: pytest.CaptureFixture[str]) -> None:
    say = Say()
    take_over(say)
    say.configure(replace(SETTINGS, debug=2))
    log = logging.getLogger("instep.anything")
    log.error("module-says", extra=fields(text="e", function="f", errno=2, debug=None))
    log.warning("module-says", extra=fields(text="w", function="f", errno=0, debug=None))
    log.info("module-says", extra=fields(text="i", function="f", errno=0, debug=None))
    log.info("module-says", extra=fields(text="d", function="f", errno=0, debug=2))
    log.info("module-says", extra=fields(text="unseen", function="f", errno=0, debug=3))
    lines = [re.sub(r"\(pid: .*\): f", "f", line) for line in capsys.readouterr().err.splitlines()]
    assert lines == ["Error f(): e (2: No such file or directory)", "Warning f(): w", "Info f(): i", "Debug2 f(): d"]
