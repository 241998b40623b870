"""What holds a lock for somebody who is gone is ended; what belongs to somebody alive is left alone."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from instep.daemon import orphans
from instep.daemon.orphans import end_orphans
from instep.linux.flock import heirs, lock

TAKER = """
import fcntl, os, signal, subprocess, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
fcntl.flock(fd, fcntl.LOCK_EX)
child = subprocess.Popen(sys.argv[2:], pass_fds=[fd], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
print(child.pid, flush=True)
signal.pause()
"""
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); signal.pause()"


@contextlib.contextmanager
def taken(path: Path, *words: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process that has locked this directory, and one that it has started with the lock."""
    taker = subprocess.Popen([sys.executable, "-c", TAKER, path, *words], stdout=subprocess.PIPE, text=True)
    assert taker.stdout is not None
    child = int(taker.stdout.readline())
    try:
        yield taker, child
    finally:
        taker.kill()
        taker.wait()
        taker.stdout.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def test_of_one_who_is_alive_nothing_is_touched(tmp_path: Path, directory: int) -> None:
    with taken(tmp_path, "sleep", "300") as (taker, child):
        assert heirs(directory) == []
        assert not end_orphans(directory, b"/target")
        with pytest.raises(BlockingIOError):
            lock(directory)
        assert taker.poll() is None
        os.kill(child, 0)


@pytest.mark.parametrize("state", ["running", "stopped", "deaf"])
def test_what_was_left_behind_is_ended(
    tmp_path: Path, directory: int, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orphans, "PATIENCE_S", 0.2 if state == "deaf" else 30.0)
    words = [sys.executable, "-c", DEAF] if state == "deaf" else ["sleep", "300"]
    with taken(tmp_path, *words) as (taker, child):
        if state == "stopped":
            os.kill(child, signal.SIGSTOP)
        taker.kill()
        taker.wait()
        assert heirs(directory) == [child]
        with pytest.raises(BlockingIOError):
            lock(directory)
        end_orphans(directory, b"/target")
        assert state == "deaf" or heirs(directory) == []
        while state == "deaf" and heirs(directory):
            end_orphans(directory, b"/target")  # On a busy machine even SIGKILL takes its time.
        assert lock(directory)


def test_an_unlocked_directory_that_others_have_open_is_nobodys(tmp_path: Path, directory: int) -> None:
    with subprocess.Popen(["sleep", "300"], cwd=tmp_path, pass_fds=[directory]) as other:
        try:
            assert heirs(directory) == []
            assert lock(directory)
        finally:
            other.kill()
