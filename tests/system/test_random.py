"""Several writers at once, whatever they do: at rest the target equals the source, and goes on being followed."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.system import writers
from tests.system.conftest import Start

OPERATIONS = 400
MONITORS = {
    "fanotify": ["--monitor=fanotify"],
    "inotify": ["--monitor=inotify"],
    "poll": ["--monitor=poll", "--poll-interval=0.1"],
}
ROUNDS = int(os.environ.get("INSTEP_ROUNDS", "10"))


def seeds(count: int) -> list[int]:
    """``INSTEP_SEED`` alone, or as many new ones."""
    given = os.environ.get("INSTEP_SEED")
    return [int(given)] if given else [random.SystemRandom().randrange(1_000_000) for _ in range(count)]


@pytest.fixture(params=["tmpfs", "disk"])
def place(request: pytest.FixtureRequest, tmp_path: Path, shm: Path) -> Path:
    return shm if request.param == "tmpfs" else tmp_path


def play(start: Start, place: Path, seed: int, *options: str) -> None:
    """One round: writers beside the daemon; then rest, comparison, a probe in every directory, comparison."""
    print(f"INSTEP_SEED={seed}")
    base = Path(tempfile.mkdtemp(prefix="round", dir=place))
    root, outside, target = base / "root", base / "outside", base / "target"
    root.mkdir()
    outside.mkdir()
    writers.disturb(os.fsencode(root), os.fsencode(outside), seed * 7 + 1, 150, 0)
    # A known limit of the rsync engine (README): names that meet again in a moved directory may stay two files.
    links = "--engine=rsync" not in options
    daemon = start(root, target, *options)
    draw = random.Random(seed)
    if draw.random() < 0.6:
        daemon.wait_event("monitor" if draw.random() < 0.3 else "following")
    pause_s = draw.choice((0.0, 0.002, 0.01))
    running = [
        subprocess.Popen(
            [sys.executable, writers.__file__, root, outside, str(seed * 1000 + number), str(OPERATIONS), str(pause_s)]
        )
        for number in range(draw.randint(1, 3))
    ]
    try:
        for writer in running:
            assert writer.wait(60) == 0
        daemon.wait_equal(root, target, links=links)
        for directory, _, _ in os.walk(root):
            with open(os.path.join(directory, "probe"), "wb") as file:
                file.write(draw.randbytes(5))
        daemon.wait_equal(root, target, links=links)
        assert daemon.stop() == 0
    except AssertionError as error:
        raise AssertionError(f"INSTEP_SEED={seed} {' '.join(options)}: {error}") from None
    finally:
        for writer in running:
            writer.kill()
            writer.wait()
        daemon.kill()
        shutil.rmtree(base, ignore_errors=True)


@pytest.mark.parametrize("engine", ["native", "rsync"])
@pytest.mark.parametrize("monitor", MONITORS)
def test_writers_at_once(start: Start, place: Path, monitor: str, engine: str) -> None:
    if monitor == "fanotify" and os.geteuid() != 0:
        pytest.skip("fanotify needs root")
    for seed in seeds(3):
        play(start, place, seed, *MONITORS[monitor], f"--engine={engine}")


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("engine", ["native", "rsync"])
@pytest.mark.parametrize("monitor", MONITORS)
def test_writers_at_once_for_long(start: Start, place: Path, monitor: str, engine: str) -> None:
    if monitor == "fanotify" and os.geteuid() != 0:
        pytest.skip("fanotify needs root")
    for seed in seeds(ROUNDS):
        play(start, place, seed, *MONITORS[monitor], f"--engine={engine}")
