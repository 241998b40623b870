"""``clsyncctl``."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from instep.commands import clsyncctl
from instep.frontends.clsync.control import Session
from instep.frontends.clsync.ctl import DONE, NO_ANSWER, NO_DAEMON, REFUSED, USAGE, VARIABLE
from tests.frontends.clsync.served import served
from tests.frontends.clsync.test_control import Daemon
from tests.original_clsync import listening, needs_clsync


@pytest.fixture(autouse=True)
def no_socket_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


def test_each_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    daemon = Daemon()
    path = str(tmp_path / "sock")
    with served(tmp_path / "sock", lambda: Session(daemon)):
        for words, said in (
            (["version"], "version: 0.5-release\n"),
            (["info"], f"block: default\nlabel: lab\npid: {os.getpid()}\n"),
            (["dump", "/d"], "dump: /d\n"),
            (["set", "label", "a\tb"], "option: label\nvalue: a\\tb\n"),
            (["set", "--", "--", "-a %INCLUDE-LIST%"], "option: --\nvalue: -a %INCLUDE-LIST%\n"),
            (["die"], ""),
        ):
            assert clsyncctl(["-s", path, *words]) == DONE
            assert capsys.readouterr() == (said, "")
        assert daemon.options == {"label": b"a\tb", "--": b"-a %INCLUDE-LIST%"}
        assert daemon.dying == 1
        monkeypatch.setenv(VARIABLE, path)
        assert clsyncctl(["version"]) == DONE


def test_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "sock")
    with served(tmp_path / "sock", lambda: Session(Daemon())):
        for words, status, answer in (
            (["info"], DONE, {"ok": True, "block": "default", "label": "lab", "pid": os.getpid()}),
            (["version"], DONE, {"ok": True, "version": "0.5-release"}),
            (["set", "label", "x"], DONE, {"ok": True, "option": "label", "value": "x"}),
            (["dump", "/nonexistent/x"], REFUSED, {"ok": False, "error": "No such file or directory", "errno": 2}),
            (["die"], DONE, {"ok": True}),
        ):
            assert clsyncctl(["-j", "-s", path, *words]) == status
            out, err = capsys.readouterr()
            assert (json.loads(out), err) == (answer, "")
    assert clsyncctl(["--json", "--socket", path, "info"]) == NO_DAEMON
    assert json.loads(capsys.readouterr().out)["error"].startswith(f"no daemon answers at '{path}': No such file")


def test_what_goes_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "sock")
    with served(tmp_path / "sock", lambda: Session(Daemon())):
        assert clsyncctl(["-s", path, "set", "nosuch", "1"]) == REFUSED
        assert capsys.readouterr().err == "clsyncctl: there is no option 'nosuch'; see --help\n"
    assert clsyncctl(["-s", path, "info"]) == NO_DAEMON
    assert capsys.readouterr().err == (
        f"clsyncctl: no daemon answers at '{path}': No such file or directory; "
        "fix: see that clsync runs with --socket, and that you may write to the socket\n"
    )
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(path)
        silent.listen()
        assert clsyncctl(["-s", path, "-t", "0.1", "info"]) == NO_ANSWER
    assert capsys.readouterr().err.startswith(f"clsyncctl: the daemon at '{path}' does not answer; fix: ")


@pytest.mark.parametrize(
    "words", [["info"], ["-s", "x"], ["-s", "x", "none"], ["-s", "x", "set", "a"], ["-s", "x", "-t", "0", "info"],
              ["-s", "x", "-t", "nan", "info"], ["-s", "x", "dump"]],
    ids=" ".join,
)  # fmt: skip
def test_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert clsyncctl(words) == USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("clsyncctl")
    assert "fix: " in err
    assert err.count("\n") == 1


def test_usage_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["-j", "-s", "x", "none"], ["--json"], ["-s", "x", "-jt0", "info"], ["-j", "-s", "x", "set", "a"]):
        assert clsyncctl(words) == USAGE
        out, err = capsys.readouterr()
        answer = json.loads(out)
        assert (answer["ok"], answer["errno"], err) == (False, 0, "")
        assert "fix: " in answer["error"]


def test_a_time_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert clsyncctl(["-s", "x", "-t", "0", "info"]) == USAGE
    assert "'0' is no number of seconds, from above 0 to 86400" in capsys.readouterr().err


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert clsyncctl(["--help"]) == DONE
    said = capsys.readouterr().out
    for word in ("info", "dump", "set", "die", "version", "--json", VARIABLE, "exit status"):
        assert word in said


def test_as_a_program(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from instep.commands import clsyncctl; sys.exit(clsyncctl())", "-s", tmp_path / "no\nne", "die"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == NO_DAEMON
    assert "no\\nne" in done.stderr


@needs_clsync
def test_clsync_itself(capsys: pytest.CaptureFixture[str]) -> None:
    with listening() as (path, process):
        assert clsyncctl(["-s", str(path), "--json", "info"]) == DONE
        assert json.loads(capsys.readouterr().out) == {
            "ok": True,
            "block": "default",
            "label": "lab",
            "pid": process.pid,
        }
        assert clsyncctl(["-s", str(path), "die"]) == DONE
        assert process.wait(60) == 0
