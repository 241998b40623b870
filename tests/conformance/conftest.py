"""The monitors under test, and places to test them in."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from typing import Protocol

import pytest

from instep.ports import Monitor

MONITORS = ("inotify", "fanotify", "poll")


class Make(Protocol):
    """Makes a monitor on a root; not started."""

    name: str

    def __call__(self, root: bytes, *, one_file_system: bool = False) -> Monitor: ...


class Factory:
    """One row of the suite."""

    def __init__(self, name: str) -> None:
        self.name = name
        try:
            self._module = importlib.import_module(f"instep.monitors.{name}")
        except ImportError as error:
            pytest.skip(f"{name}: {error}")

    def check(self, root: bytes) -> None:
        """Skip, by name, where this monitor cannot run."""
        reason = self._module.why_unavailable(root)
        if reason is not None:
            pytest.skip(f"{self.name} is not available: {reason}")

    def __call__(self, root: bytes, *, one_file_system: bool = False) -> Monitor:
        options = {"interval_s": 0.02} if self.name == "poll" else {}
        monitor: Monitor = getattr(self._module, f"{self.name.capitalize()}Monitor")(
            root, one_file_system=one_file_system, **options
        )
        return monitor


@pytest.fixture(params=["shm", "disk"])
def base(request: pytest.FixtureRequest) -> Iterator[bytes]:
    """An empty directory on tmpfs, and one on the disk; strangers may pass through.

    Not pytest's own directory: each pytest that starts meanwhile closes that to strangers.
    """
    above = "/dev/shm" if request.param == "shm" else tempfile.gettempdir()
    if not os.path.isdir(above):
        pytest.skip(f"there is no {above}")
    path = tempfile.mkdtemp(prefix="instep-test-", dir=above)
    os.chmod(path, 0o755)
    yield os.fsencode(path)
    subprocess.run(["chmod", "-R", "u+rwx", path], check=True)
    shutil.rmtree(path)


@pytest.fixture(params=MONITORS)
def make(request: pytest.FixtureRequest, base: bytes) -> Factory:
    """Every monitor that can run in this place."""
    factory = Factory(request.param)
    factory.check(base)
    return factory
