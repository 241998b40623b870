"""What whoever waits for a start in the background gets to know, and in which order."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from instep.frontends.clsync.main import Task, serve
from instep.frontends.clsync.output import Say
from instep.frontends.clsync.settings import Mode, Settings


@pytest.fixture(autouse=True)
def pipe_signal() -> Iterator[None]:
    before = signal.getsignal(signal.SIGPIPE)
    yield
    signal.signal(signal.SIGPIPE, before)


@pytest.mark.parametrize(("pid_file", "status", "said"), [("no/pid", 2, "the pid file"), ("pid", 3, "")])
def test_the_reason_comes_before_the_verdict(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    pid_file: str,
    status: int,
    said: str,
) -> None:
    """The parent ends with the verdict: what is said later may never be seen."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w").mkdir()
    settings = Settings(
        bytes(tmp_path / "w"), Mode.SHELL, b"/bin/true", (), None, default_arguments=True,
        background=True, pid_file=bytes(tmp_path / pid_file), given={},
    )  # fmt: skip
    verdicts: list[tuple[int, str]] = []

    def run(_: Task) -> int:
        return 3

    def detach(untold: int) -> Callable[[int], None]:
        assert untold == 1
        return lambda verdict: verdicts.append((verdict, capsys.readouterr().err))

    assert serve(settings, Say(), run=run, detach=detach) == status
    ((verdict, seen),) = verdicts
    assert verdict == status
    assert (said in seen) if said else not seen
    assert os.listdir(tmp_path) == ["w"]
