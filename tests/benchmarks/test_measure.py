"""The stop watch stops at the right moment, and the CPU meter counts children."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from benchmarks.cpu import ProcessTree, cpu_meter
from benchmarks.measure import NEVER, Arrivals, Names, differences, holds, wait_equal
from benchmarks.peers import DidNotStart, run, start

_BURN = "import time\nwhile time.process_time() < 0.2: pass"
_BURN_BY_CHILD = f"import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', {_BURN!r}])"


@pytest.fixture
def pair(tmp_path: Path) -> tuple[str, str]:
    for side in ("s", "t"):
        (tmp_path / side / "d").mkdir(parents=True)
        (tmp_path / side / "d" / "f").write_bytes(b"same")
    return str(tmp_path / "s"), str(tmp_path / "t")


@pytest.mark.parametrize("groups", [True, False])
def test_cpu_of_a_child_that_has_ended_is_counted(monkeypatch: pytest.MonkeyPatch, groups: bool) -> None:
    if not groups:
        monkeypatch.setattr("benchmarks.peers.cpu_meter", ProcessTree)
    cpu_s = run([sys.executable, "-S", "-c", _BURN_BY_CHILD]).cpu_s
    assert cpu_s >= 0.19


def test_without_control_groups_too() -> None:
    meter = ProcessTree()
    program = f"{_BURN_BY_CHILD}; print('done', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-S", "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        meter.watch(process.pid)
        assert process.stdout is not None
        assert process.stdout.readline() == b"done\n"
        assert meter.usage_s() >= 0.19
        process.communicate()


def test_closing_a_meter_of_a_control_group_kills_what_is_left() -> None:
    meter = cpu_meter()
    process = start(["sleep", "60"], meter)
    if isinstance(meter, ProcessTree):
        process.kill()
    meter.close()
    assert process.wait(60) == -9


def test_a_program_that_fails_is_not_a_figure() -> None:
    with pytest.raises(DidNotStart, match="no such thing"):
        run(["sh", "-c", "echo no such thing >&2; exit 3"])


def test_a_program_past_its_bound_never_gets_there() -> None:
    assert run(["sleep", "60"], limit_s=0.1).wall_s == NEVER


def test_arrivals_wake_on_a_renamed_file(tmp_path: Path) -> None:
    with Arrivals(str(tmp_path)) as arrivals:
        (tmp_path / "new").write_bytes(b"content")
        later = threading.Timer(0.05, os.rename, (tmp_path / "new", tmp_path / "name"))
        later.start()
        assert arrivals.wait(lambda: holds(str(tmp_path / "name"), b"content"), 60) != NEVER
        later.join()
        assert arrivals.wait(lambda: False, 0.05) == NEVER


def test_names_are_complete_only_when_no_more_and_no_less(pair: tuple[str, str]) -> None:
    source, target = pair
    assert Names(source, target).complete()
    Path(target, "d", ".f.tmp").touch()
    assert not Names(source, target).complete()


@pytest.mark.parametrize("spoil", ["content", "extra", "missing", "mode", "type"])
def test_a_difference_is_seen(pair: tuple[str, str], spoil: str) -> None:
    source, target = pair
    there = Path(target, "d", "f")
    assert differences(source, target) == []
    match spoil:
        case "content":
            there.write_bytes(b"SAME")
        case "extra":
            Path(target, "more").mkdir()
        case "missing":
            there.unlink()
        case "mode":
            there.chmod(0o600 if there.stat().st_mode & 0o077 else 0o644)
        case "type":
            there.unlink()
            there.symlink_to("elsewhere")
    assert differences(source, target) != []
    assert wait_equal(source, target, 0.05) == NEVER
