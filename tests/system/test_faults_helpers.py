"""The processes that a daemon starts are killed or stopped: that is a failure, never a success, and it is tried again."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import pytest

from tests.system.conftest import Start
from tests.system.daemon_process import wait_until
from tests.system.faults import caught, gone, leftovers, named, rests, signalled, started, status, written


@pytest.mark.parametrize("which", ["all", "first", "last"])
def test_a_killed_rsync_is_a_failure(start: Start, source: Path, target: Path, which: str) -> None:
    """lsyncd takes it for a success."""
    written(source / "file", "old")
    daemon = start(source, target, "--engine=rsync")
    daemon.wait_following()
    stopped = caught(lambda: named(daemon, "rsync"), lambda: written(source / "file", "new", 8 << 20))
    pids = sorted(pid for pid in stopped if not gone(pid))
    signalled(pids if which == "all" else [pids[0 if which == "first" else -1]], signal.SIGKILL)
    signalled(stopped, signal.SIGCONT)
    wait_until(lambda: bool({e["event"] for e in daemon.events()} & {"target-away", "path-failing"}), "it says so")
    daemon.wait_equal(source, target)
    wait_until(lambda: bool({e["event"] for e in daemon.events()} & {"target-back", "path-well-again"}), "it healed")
    assert not [name for name in os.listdir(target) if name != "file"]
    assert daemon.stop() == 0


def test_a_stopped_rsync_holds_up_no_other_target(start: Start, source: Path, shm: Path) -> None:
    here, there = shm / "here", shm / "there"
    daemon = start(source, here, there, "--engine=rsync")
    daemon.wait_following()

    def at(place: Path) -> list[int]:
        """The rsyncs that write to this target."""
        found = []
        for pid in named(daemon, "rsync"):
            with contextlib.suppress(OSError, ValueError):  # It has ended meanwhile: no file, or no words in it.
                # A descriptor of it is the last word.
                *_, word, _ = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
                if Path(word.replace("self", str(pid), 1)).resolve() == place:
                    found.append(pid)
        return found

    stopped = caught(lambda: at(there), lambda: written(source / "file", "first", 8 << 20))
    try:
        for number in range(3):
            written(source / f"f{number}", "while one is stopped")
            daemon.wait_equal(source, here)
        rests(daemon, here)
        assert status(daemon, there)["pending"]
    finally:
        signalled(stopped, signal.SIGCONT)
    daemon.wait_equal(source, there)
    assert daemon.stop() == 0


def test_a_stopped_rsync_holds_up_no_other_path(start: Start, source: Path, target: Path) -> None:
    (source / "a").mkdir()
    (source / "b").mkdir()
    daemon = start(source, target, "--engine=rsync")
    daemon.wait_following()
    stopped = caught(lambda: named(daemon, "rsync"), lambda: written(source / "a" / "file", "first", 8 << 20))
    try:
        for number in range(3):
            path = source / "b" / f"f{number}"
            written(path, "while one is stopped")
            wait_until((target / "b" / path.name).exists, f"{path} past the stopped one")
    finally:
        signalled(stopped, signal.SIGCONT)
    daemon.wait_equal(source, target)
    assert daemon.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_worker_is_killed_or_stopped(start: Start, source: Path, target: Path, number: signal.Signals) -> None:
    for each in range(30):
        written(source / f"f{each}", "old", 200_000)
    # For twenty seconds, and so for as long as they are looked for here.
    daemon = start(source, target, "--engine=native", "--bwlimit=300K")
    wait_until(lambda: target.exists() and bool(os.listdir(target)), "the first copy has begun")
    workers = started(daemon, "python")  # By now those that copy are among them.
    signalled(workers, number)
    if number is signal.SIGSTOP:
        written(source / "late", "while the worker is stopped")
        signalled(workers, signal.SIGCONT)
    else:
        daemon.wait_event("worker-died")
        daemon.wait_event("path-failing")
    for each in range(30):
        written(source / "short", "newer", 3000)
        (source / "short").rename(source / f"f{each}")
    if number is signal.SIGKILL:
        daemon.wait_event("path-well-again")
    daemon.wait_following()
    daemon.wait_equal(source, target)
    assert not leftovers(target)
    assert daemon.stop() == 0
