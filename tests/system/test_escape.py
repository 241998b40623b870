"""A stranger puts links to the outside in the place of directories, on either side: nothing outside changes.

Swapped back and forth while the engine works, that is a race which the native engine cannot lose. With rsync it is up to
rsync: 3.2.7 loses it now and then, 3.5.0 was not seen to. So only the native engine is raced, and rsync meets links that
stand still.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.compare import snapshot
from tests.system.conftest import Start
from tests.system.daemon_process import wait_until

SWAPPER = """
import os, sys, time
place, away, until = sys.argv[1], sys.argv[2], time.monotonic() + float(sys.argv[3])
while time.monotonic() < until:
    try:
        os.rename(place, place + ".real")
        os.symlink(away, place)
        time.sleep(0.0005)
        os.unlink(place)
    except OSError:
        pass
    try:
        if os.path.islink(place):
            os.unlink(place)
        if not os.path.lexists(place):
            os.rename(place + ".real", place)
    except OSError:
        pass
    time.sleep(0.0005)
"""


def swapping(place: Path, away: Path, seconds: float) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", SWAPPER, place, away, str(seconds)])


def writes(place: Path, number: int) -> None:
    with contextlib.suppress(OSError):
        (place / "victim").write_text(f"{number}")
    with contextlib.suppress(OSError):
        (place / f"n{number % 7}").write_text("x" * (number % 50))
    with contextlib.suppress(OSError):
        (place / f"n{(number + 3) % 7}").unlink()
    with contextlib.suppress(OSError):
        (place / "sub" / "victim").write_text(f"{number}")


def holds(directory: Path, name: str) -> bool:
    """Whether a name is in this very directory; links in its place are not followed, however often they come and go."""
    with contextlib.suppress(OSError):
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            return name in os.listdir(fd)
        finally:
            os.close(fd)
    return False


@pytest.fixture
def outside(shm: Path) -> Path:
    path = shm / "outside"
    (path / "sub").mkdir(parents=True)
    for name in ("victim", "other", "sub/victim", "n1"):
        (path / name).write_text("precious")
    return path


ENGINES = ("native", "rsync")


def filled(source: Path) -> None:
    (source / "d" / "sub").mkdir(parents=True)
    writes(source / "d", 0)


def replace_by_link(place: Path, away: Path) -> None:
    place.rename(f"{place}.real")
    place.symlink_to(away)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("place", ["d", "d/sub"])
def test_a_link_at_the_target(start: Start, source: Path, target: Path, outside: Path, engine: str, place: str) -> None:
    filled(source)
    before = snapshot(outside)
    daemon = start(source, target, f"--engine={engine}")
    daemon.wait_following()
    replace_by_link(target / place, outside)
    for number in range(1, 9):
        writes(source / "d", number)
    (source / place / "last").write_text("last")
    wait_until(lambda: not (target / place).is_symlink() and (target / place / "last").exists(), "the last file")
    assert snapshot(outside) == before
    # What the stranger left behind is none of our reports: compare.
    daemon.tell(signal.SIGUSR2)
    daemon.wait_equal(source, target)
    assert snapshot(outside) == before
    assert daemon.stop() == 0


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("place", ["d", "d/sub"])
def test_a_link_in_the_source(start: Start, source: Path, target: Path, outside: Path, engine: str, place: str) -> None:
    filled(source)
    before = snapshot(outside)
    daemon = start(source, target, f"--engine={engine}")
    daemon.wait_following()
    writes(source / place, 1)
    replace_by_link(source / place, outside)
    daemon.wait_equal(source, target)
    (source / place).unlink()
    (source / f"{place}.real").rename(source / place)
    writes(source / place, 2)
    daemon.wait_equal(source, target)
    assert snapshot(outside) == before
    assert daemon.stop() == 0


def test_links_swapped_at_the_target(start: Start, source: Path, target: Path, outside: Path) -> None:
    filled(source)
    before = snapshot(outside)
    daemon = start(source, target, "--engine=native")
    daemon.wait_following()
    swapper = swapping(target / "d", outside, 1.5)
    number = 0
    while swapper.poll() is None:
        number += 1
        writes(source / "d", number)
    assert snapshot(outside) == before
    for directory in ("", "d", "d/sub"):
        (source / directory / "last").write_text("last")
    # What the stranger left behind is none of our reports: compare.
    with contextlib.suppress(OSError):
        (target / "d.real").rename(target / "d")
    daemon.tell(signal.SIGUSR2)
    daemon.wait_equal(source, target)
    assert snapshot(outside) == before
    assert daemon.stop() == 0


def test_links_swapped_in_the_source(start: Start, source: Path, target: Path, outside: Path) -> None:
    filled(source)
    before = snapshot(outside)
    daemon = start(source, target, "--engine=native")
    daemon.wait_following()
    swapper = swapping(source / "d", outside, 1.5)
    number = 0
    leaked = False
    # The writers work on d.real, which the swapper moves to and fro as well, so as never to write outside themselves.
    while swapper.poll() is None:
        number += 1
        writes(source / "d.real", number)
        # A name that only the outside has; through a link at the target it is what the source has, too.
        leaked |= holds(target / "d", "other") or holds(target / "d.real", "other")
    assert snapshot(outside) == before
    assert not leaked, "content from outside the source was brought over"
    daemon.wait_equal(source, target)
    assert daemon.stop() == 0
