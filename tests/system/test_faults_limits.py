"""Little of what the system gives: a short kernel queue, few descriptors, little memory."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system import small_queue, writers
from tests.system.conftest import Start
from tests.system.daemon_process import DaemonProcess, wait_until
from tests.system.faults import ENGINES, MEMORY_LIMITS, MONITORS, started, written


def with_short_queue(start: Start, *words: str | Path) -> DaemonProcess:
    """A daemon whose kernel queue holds sixteen events, following."""
    if os.geteuid() != 0:
        pytest.skip("shortening the queue needs root")
    environment = {"INSTEP_QUEUE": "16"}
    daemon = start(*words, "--monitor=inotify", environment=environment, program=Path(small_queue.__file__))
    daemon.wait_following()
    return daemon


@pytest.mark.root
@pytest.mark.parametrize("engine", ENGINES)
def test_a_kernel_queue_of_sixteen(start: Start, source: Path, target: Path, shm: Path, engine: str) -> None:
    """It overflows again and again: the rescans keep their distance, and the end is equal."""
    usual = small_queue.usual()
    daemon = with_short_queue(start, source, target, f"--engine={engine}")
    outside = shm / "outside"
    outside.mkdir()
    daemon.tell(signal.SIGSTOP)
    for number in range(100):
        written(source / f"f{number}", "more than the queue holds")
    daemon.tell(signal.SIGCONT)
    subprocess.run([sys.executable, writers.__file__, source, outside, "1", "2000", "0.001"], check=True)
    daemon.wait_event("inotify-overflow")
    daemon.wait_event("events-lost")
    daemon.wait_equal(source, target, links=engine == "native")
    daemon.wait_event("in-step-again")
    for here, _, _ in os.walk(source):
        (Path(here) / "probe").write_text("followed again")
    daemon.wait_equal(source, target, links=engine == "native")
    assert daemon.stop() == 0
    assert small_queue.usual() == usual


@pytest.mark.root
@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("engine", ENGINES)
def test_what_only_a_lost_event_would_have_told(
    start: Start, source: Path, target: Path, engine: str, kept: bool
) -> None:
    """Another content of the same size and time, while no index is kept, or none is whole yet: that takes seconds."""
    written(source / "d" / "f", "old", 100)
    daemon = with_short_queue(start, source, target, f"--engine={engine}", *([] if kept else ["--state-dir=none"]))
    for turn in range(2):
        daemon.tell(signal.SIGSTOP)
        for number in range(100):
            written(source / f"f{turn}{number}", "more than the queue holds")
        info = (source / "d" / "f").stat()
        (source / "d" / "f").write_bytes(os.urandom(info.st_size))
        os.utime(source / "d" / "f", ns=(info.st_atime_ns, info.st_mtime_ns))
        daemon.tell(signal.SIGCONT)
        daemon.wait_event("events-lost", count=turn + 1)
        daemon.wait_equal(source, target)
    assert daemon.stop() == 0


@pytest.mark.parametrize("monitor", ["fanotify", "inotify", "poll"])
@pytest.mark.parametrize("engine", ENGINES)
def test_sixty_four_descriptors(start: Start, source: Path, target: Path, monitor: str, engine: str) -> None:
    if monitor == "fanotify" and os.geteuid() != 0:
        pytest.skip("fanotify needs root")
    for number in range(300):
        written(source / f"d{number % 60}" / f"e{number % 7}" / f"f{number}", "old")
    daemon = start(source, target, *MONITORS[monitor], f"--engine={engine}", prefix=["prlimit", "--nofile=64:64"])
    daemon.wait_following()
    for number in range(300):
        written(source / f"d{number % 60}" / f"e{number % 7}" / f"f{number}", "new")
        if number % 50 == 0:
            written(source / f"big{number % 3}", "new", 9 << 20)
    daemon.wait_equal(source, target)
    assert daemon.stop() == 0


def removed(group: Path) -> bool:
    """Whether a control group is gone: its processes end by themselves, and it is busy for a moment after that."""
    with contextlib.suppress(OSError):
        group.rmdir()
    return not group.exists()


@pytest.fixture
def memory_200_mb() -> Iterator[Path]:
    """A control group of processes that may use 200 MB together."""
    for place, limit in MEMORY_LIMITS:
        group = Path(place, f"instep-test-{os.getpid()}")
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            if (group / limit).exists():
                (group / limit).write_text(str(200 << 20))
                yield group
                return
        finally:
            # Fixtures end in turn: by now all that was in it has been killed, or ends by itself.
            wait_until(lambda group=group: removed(group), f"end of all in {group}")  # type: ignore[misc]
    pytest.skip("no control group for memory can be made here")


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("engine", ENGINES)
def test_two_hundred_megabytes(memory_200_mb: Path, start: Start, source: Path, tmp_path: Path, engine: str) -> None:
    """All processes together. The target is on a disk: what is written to a tmpfs counts, and cannot be let go."""
    for number in range(5_000):
        path = source / f"d{number % 200}" / f"f{number}"
        if number < 200:
            path.parent.mkdir()
        path.write_bytes(b"x" * (number % 300))
    written(source / "big", "old", 220 << 20)
    target = tmp_path / "target"
    enter = f'echo $$ > {memory_200_mb}/cgroup.procs; exec "$@"'
    daemon = start(source, target, f"--engine={engine}", prefix=["sh", "-c", enter, "sh"])
    if engine == "native":
        started(daemon, "python")
    daemon.wait_event("following", deadline_s=240)
    assert str(daemon.pid) in (memory_200_mb / "cgroup.procs").read_text().split()
    for number in range(5_000):
        (source / f"d{number % 200}" / f"f{number}").write_bytes(b"y" * (number % 300))
    written(source / "big", "new", 220 << 20)
    daemon.wait_equal(source, target, deadline_s=240)
    assert not daemon.events("worker-died")
    assert not daemon.events("target-away")
    assert daemon.stop() == 0
