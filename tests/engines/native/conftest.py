"""Places for the native engine's tests."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator

import pytest

from instep.engines.native import engine
from tests.engines.native.rig import Rig


@pytest.fixture(autouse=True)
def _exact_modes() -> Iterator[None]:
    """The daemon runs with an umask of 0."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture(autouse=True)
def _no_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is to be done at once is, however slow the machine is: else it would be work for the workers, by chance."""
    monkeypatch.setattr(engine, "NOW_S", 60.0)


@pytest.fixture
def base() -> Iterator[bytes]:
    """An empty directory in memory, where there is one."""
    path = tempfile.mkdtemp(prefix="instep-native-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
    os.chmod(path, 0o755)
    yield os.fsencode(path)
    subprocess.run(["rm", "-rf", path], check=True)  # shutil.rmtree recurses


@pytest.fixture
def rig(base: bytes) -> Iterator[Rig]:
    """An engine with default settings."""
    with Rig(base) as made:
        yield made
