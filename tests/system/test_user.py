"""As an ordinary user: inotify is taken by itself, and what the user may is kept equal."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import instep
from tests.system import writers
from tests.system.conftest import Start

pytestmark = pytest.mark.root

NOBODY = 65534
AS_NOBODY = [
    *("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"),
    *("env", f"PYTHONPATH={Path(instep.__file__).parents[1]}"),
]
TRIAL = "import subprocess, sys, instep; subprocess.run([sys.executable, '-c', 'import instep'], check=True)"


@cache
def python() -> str | None:
    """An interpreter that an ordinary user may run: this one may stand below root's home."""
    for path in (sys.executable, "/usr/bin/python3"):
        if os.path.exists(path):
            trial = subprocess.run([*AS_NOBODY, path, "-c", TRIAL], check=False, capture_output=True, cwd="/")
            if trial.returncode == 0:
                return path
    return None


@pytest.fixture
def place(shm: Path) -> Path:
    if os.geteuid() != 0:
        pytest.skip("needs root, to become somebody else")
    if python() is None:
        pytest.skip("no interpreter that an ordinary user may run")
    os.chown(shm, NOBODY, NOBODY)
    return shm


def as_nobody(*words: str | Path) -> None:
    subprocess.run([*AS_NOBODY, *words], check=True)


@pytest.mark.parametrize("engine", ["native", "rsync"])
def test_an_ordinary_user_follows_by_inotify(start: Start, place: Path, engine: str) -> None:
    source, target, outside = place / "source", place / "target", place / "outside"
    as_nobody("mkdir", source, outside)
    daemon = start(source, target, f"--engine={engine}", prefix=AS_NOBODY, python=str(python()))
    daemon.wait_following()
    assert daemon.wait_event("monitor")["name"] == "inotify"
    as_nobody(str(python()), writers.__file__, source, outside, "7", "300", "0.001")
    # The writers leave directories that their own user cannot search: those are failing, until they can be read.
    as_nobody("chmod", "-R", "u+rwX", source)
    daemon.wait_equal(source, target)
    as_nobody("sh", "-c", f"echo more > {source}/probe")
    daemon.wait_equal(source, target)
    assert daemon.stop() == 0


@pytest.mark.parametrize("engine", ["native", "rsync"])
def test_what_the_user_may_not_read_holds_back_nothing(start: Start, place: Path, engine: str) -> None:
    source, target = place / "source", place / "target"
    as_nobody("mkdir", source, source / "open")
    secret = source / "secret"
    secret.write_text("root's")
    secret.chmod(0o600)
    daemon = start(source, target, f"--engine={engine}", prefix=AS_NOBODY, python=str(python()))
    daemon.wait_event("path-failing")
    daemon.wait_following()
    for number in range(5):
        as_nobody("sh", "-c", f"echo {number} > {source}/open/file")
        daemon.wait_equal(source, target, ignore=["secret"])
    secret.chmod(0o644)
    os.chown(secret, NOBODY, NOBODY)
    daemon.wait_equal(source, target)
    daemon.wait_event("path-well-again")
    assert daemon.stop() == 0
