"""Fixtures of the whole-daemon tests."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from tests.system.daemon_process import DaemonProcess
from tests.system.disks import Disks
from tests.system.sshd import Sshd, serving, why_unavailable

Start = Callable[..., DaemonProcess]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts daemons: ``start(source, target, "--option", …)``; all are killed afterwards, and none may have crashed."""
    numbers = itertools.count()
    running: list[DaemonProcess] = []

    def begin(
        *arguments: str | Path,
        prefix: Sequence[str] = (),
        program: Path | None = None,
        python: str = sys.executable,
        environment: Mapping[str, str] | None = None,
    ) -> DaemonProcess:
        daemon = DaemonProcess(
            tmp_path / f"log{next(numbers)}",
            [str(argument) for argument in arguments],
            prefix=prefix,
            program=program,
            python=python,
            environment=environment,
        )
        running.append(daemon)
        return daemon

    yield begin
    for daemon in running:
        daemon.kill()
    for daemon in running:
        daemon.complain()


@pytest.fixture
def shm() -> Iterator[Path]:
    """A directory on tmpfs."""
    path = Path(tempfile.mkdtemp(prefix="instep-test-", dir="/dev/shm"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def source(shm: Path) -> Path:
    """An empty source on tmpfs."""
    path = shm / "source"
    path.mkdir()
    return path


@pytest.fixture
def target(shm: Path) -> Path:
    """A target beside it, not there yet."""
    return shm / "target"


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mounts tmpfs: ``mounted(path, "size=1M")``; all are unmounted afterwards."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    places: list[Path] = []

    def mount(path: Path, *options: str) -> Path:
        path.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join(["mode=755", *options]), "none", path], check=True)
        places.append(path)
        return path

    yield mount
    for path in reversed(places):
        subprocess.run(["umount", "-l", path], check=False, stderr=subprocess.DEVNULL)


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    """A started sshd of our own, reached as ``there``."""
    if (missing := why_unavailable()) is not None:
        pytest.skip(missing)
    with serving(tmp_path / "sshd") as server:
        yield server


@pytest.fixture
def disks(shm: Path) -> Iterator[Disks]:
    """File systems of other kinds: ``disks.disk("ext4")``; all are unmounted afterwards."""
    found = Disks(shm)
    yield found
    found.close()
