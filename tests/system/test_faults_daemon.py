"""The daemon is killed or stopped, wherever it stands: no file is torn, and the next start ends equal."""

from __future__ import annotations

import collections
import os
import random
import shutil
import signal
from pathlib import Path

import pytest

from tests.system import crashing
from tests.system.compare import differences
from tests.system.conftest import Start
from tests.system.daemon_process import DaemonProcess, wait_until
from tests.system.faults import ENGINES, below, contents, gone, leftovers, named, signalled, written
from tests.system.test_random import seeds

# Some hundreds of lives, one second each.
ALL_POINTS = os.environ.get("INSTEP_CRASH_POINTS") == "all"
FULL = os.environ.get("INSTEP_SIZES") == "full"


def plant(root: Path) -> None:
    """The tree before."""
    for name in ("same", "rewritten", "removed", "moved", "replaced", "linked"):
        written(root / name, "old", 1000)
    for directory in ("stays", "goes", "moves"):
        for number in range(3):
            written(root / directory / f"f{number}", "old")
    written(root / "large", "old", 9 << 20)


def change(root: Path) -> None:
    """Something for every road that a change can take: at once, by a worker, by a thread, removed, moved, joined."""
    written(root / "rewritten", "new", 1000)
    (root / "removed").unlink()
    (root / "moved").rename(root / "stays" / "moved")
    written(root / "beside", "new")
    (root / "beside").rename(root / "replaced")
    os.link(root / "linked", root / "second name")
    (root / "link").symlink_to("nowhere")
    shutil.rmtree(root / "goes")
    (root / "moves").rename(root / "came")
    (root / "same").chmod(0o600)
    for number in range(40):
        written(root / "many" / "deep" / f"f{number}", "new", 300)
    for number in range(80):
        written(root / "stays" / f"more{number}", "new", 100)
    written(root / "large", "new", 9 << 20)


def crashing_daemon(start: Start, place: Path, engine: str, crash: str) -> DaemonProcess:
    environment = {"INSTEP_ARMED": f"{place}/armed", "INSTEP_STEPS": f"{place}/steps", "INSTEP_CRASH": crash}
    return start(
        place / "source",
        place / "target",
        f"--engine={engine}",
        environment=environment,
        program=Path(crashing.__file__),
    )


def crash_once(start: Start, place: Path, engine: str, when: str, crash: str) -> list[str]:
    """One life that ends at a point of its work, if it comes to it, and the life after it; the steps of the first."""
    source, target = place / "source", place / "target"
    source.mkdir(parents=True)
    plant(source)
    whole = {content for _, content in contents(source)}
    if when == "live":
        daemon = crashing_daemon(start, place, engine, crash)
        daemon.wait_following()
        daemon.tell(signal.SIGSTOP)  # So that it meets all at once.
        change(source)
        (place / "armed").touch()
        daemon.tell(signal.SIGCONT)
    else:
        shutil.copytree(source, target, symlinks=True)
        change(source)
        (place / "armed").touch()
        daemon = crashing_daemon(start, place, engine, crash)
    if crash:
        # It may come to rest without that step: batches are not cut alike in every life.
        wait_until(lambda: daemon.process.poll() is not None or not differences(source, target), f"death at {crash}")
        assert (daemon.process.poll() or daemon.stop()) in (-signal.SIGKILL, 0), daemon.text()
        whole |= {content for _, content in contents(source)}
        torn = [str(path) for path, content in contents(target) if content not in whole]
        assert not torn
        daemon = start(source, target, f"--engine={engine}")
        daemon.wait_following()
        says_how_it_came_back(daemon)
    daemon.wait_equal(source, target, links=engine == "native")
    assert not leftovers(target)
    written(source / "stays" / "probe", "after")
    daemon.wait_equal(source, target, links=engine == "native")
    assert daemon.stop() == 0
    return (place / "steps").read_text().split()


def says_how_it_came_back(daemon: DaemonProcess) -> None:
    """Whether it went by the index, and why not; and that the target is in step since then."""
    index, step = daemon.wait_event("index"), daemon.wait_event("in-step")
    assert index["used"] or index["reason"]
    assert step["time"] >= index["time"]  # type: ignore[operator]  # as text, both of one form


@pytest.mark.timeout(7200 if ALL_POINTS else 300)
@pytest.mark.parametrize("when", ["live", "at start"])
@pytest.mark.parametrize("engine", ENGINES)
def test_killed_at_every_kind_of_step(start: Start, shm: Path, engine: str, when: str) -> None:
    (seed,) = seeds(1, f"{engine} {when}")
    print(f"INSTEP_SEED={seed}")
    draw = random.Random(seed)
    seen = collections.Counter(crash_once(start, shm / "trace", engine, when, ""))
    assert any(name.startswith("daemon:rsync" if engine == "rsync" else "worker:") for name in seen), seen
    points = [f"{name}:{number + 1}" for name, count in seen.items() for number in range(count)]
    if not ALL_POINTS:  # One of each kind, and not of all kinds.
        points = [f"{name}:{draw.randint(1, seen[name])}" for name in draw.sample(sorted(seen), min(4, len(seen)))]
    for point in points:
        try:
            crash_once(start, shm / point, engine, when, point)
        except AssertionError as error:
            raise AssertionError(f"INSTEP_SEED={seed} killed at {point}: {error}") from None
        shutil.rmtree(shm / point)


@pytest.mark.parametrize("stopped", [False, True], ids=["running", "stopped"])
@pytest.mark.parametrize("engine", ENGINES)
def test_what_a_dead_daemon_left_running_undoes_nothing(
    start: Start, source: Path, target: Path, engine: str, stopped: bool
) -> None:
    """A helper that holds an old version in its hands must not bring it over what the next daemon brought.

    So it has ended before that one begins; and nothing has to be done for it by then, in whatever state it was.
    """
    daemon = start(source, target, f"--engine={engine}", "--bwlimit=100K")
    daemon.wait_following()
    written(source / "file", "old", 5_000_000)  # For a minute, so that half of it is what is met.
    wait_until(lambda: bool(leftovers(target)) or bool(rsync_temporaries(target)), "half of the old version")
    helpers = named(daemon, "rsync" if engine == "rsync" else "python")
    signalled(helpers if stopped else (), signal.SIGSTOP)
    daemon.tell(signal.SIGKILL)
    daemon.ended()
    written(source / "new", "new", 1000)
    (source / "new").rename(source / "file")  # The old version lives on for whoever has it open.
    again = start(source, target, f"--engine={engine}")
    try:
        again.wait_event("monitor")
        # A worker that was killed needs a moment of the processor to go, but does nothing of its own in it.
        wait_until(lambda: all(gone(pid) for pid in helpers), "the helpers gone")
        if stopped and engine == "rsync":
            said = again.wait_event("orphans-ended")
            assert set(said["processes"]) <= set(helpers)  # type: ignore[call-overload]
        again.wait_following()
    finally:
        signalled(helpers, signal.SIGCONT)
    again.wait_equal(source, target)
    assert (target / "file").read_bytes() == (source / "file").read_bytes()
    assert again.stop() == 0


def rsync_temporaries(target: Path) -> list[str]:
    """rsync's own: ``.NAME.XXXXXX``, or below ``.~tmp~``."""
    return [name for name in os.listdir(target) if name.startswith(".")] if target.exists() else []


@pytest.mark.timeout(300)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("monitor", ["fanotify", "inotify"])
def test_ten_thousand_files_while_it_is_stopped(
    start: Start, source: Path, target: Path, monitor: str, engine: str
) -> None:
    """More than the kernel's queue of 16,384 holds: inotify loses some, and says so; nothing is lost in the end."""
    if monitor == "fanotify" and os.geteuid() != 0:
        pytest.skip("fanotify needs root")
    daemon = start(source, target, f"--monitor={monitor}", f"--engine={engine}")
    daemon.wait_following()
    (source / "d").mkdir()
    daemon.wait_equal(source, target)
    daemon.tell(signal.SIGSTOP)
    for number in range(20_000 if FULL else 10_000):  # Two events each, with inotify.
        os.close(os.open(source / "d" / f"f{number}", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))
    (source / "d" / "f0").unlink()
    (source / "d").rename(source / "e")
    daemon.tell(signal.SIGCONT)
    took_s = daemon.wait_equal(source, target, deadline_s=200)
    print(f"equal after {took_s:.1f} s")
    if monitor == "inotify":
        daemon.wait_event("inotify-overflow")
        daemon.wait_event("events-lost")
        daemon.wait_event("in-step-again")
    (source / "e" / "probe").write_text("followed again")
    daemon.wait_equal(source, target)
    assert daemon.stop() == 0


@pytest.mark.parametrize("engine", ENGINES)
def test_killed_again_and_again_while_the_source_changes(start: Start, source: Path, target: Path, engine: str) -> None:
    plant(source)
    for life in range(3):
        daemon = start(source, target, f"--engine={engine}")
        daemon.wait_event("monitor")
        for number in range(200):
            written(source / f"d{number % 7}" / f"f{number}", f"life {life}", 300)
            if number % 3 == 0:
                shutil.rmtree(source / f"d{(number + life) % 7}", ignore_errors=True)
        daemon.tell(signal.SIGKILL)
        daemon.ended()
        (source / "same").write_text(f"while it was dead {life}")
    daemon = start(source, target, f"--engine={engine}")
    daemon.wait_following()
    says_how_it_came_back(daemon)
    daemon.wait_equal(source, target)
    assert not leftovers(target)
    assert daemon.stop() == 0


@pytest.mark.parametrize("engine", ENGINES)
def test_killed_with_all_its_helpers(start: Start, source: Path, target: Path, engine: str) -> None:
    """As the kernel does when memory runs out: nobody is left who could clean up."""
    plant(source)
    daemon = start(source, target, f"--engine={engine}")
    daemon.wait_following()
    daemon.wait_equal(source, target)
    assert daemon.stop() == 0
    daemon = start(source, target, f"--engine={engine}", "--bwlimit=100K")
    daemon.wait_following()
    for number in range(3):
        written(source / "stays" / f"slow{number}", "new", 3_000_000)

    def begun() -> bool:
        return bool(leftovers(target)) or bool(rsync_temporaries(target / "stays"))

    wait_until(begun, "half of a file")
    daemon.tell(signal.SIGSTOP)
    # All stand still first: an rsync whose other half is killed before it clears up.
    for number in (signal.SIGSTOP, signal.SIGKILL):
        signalled((*below(daemon.pid), daemon.pid), number)
    daemon.ended()
    assert begun()
    again = start(source, target, f"--engine={engine}")
    again.wait_following()
    says_how_it_came_back(again)
    again.wait_equal(source, target)
    assert again.stop() == 0
