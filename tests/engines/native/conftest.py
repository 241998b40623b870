"""Places for the native engine's tests."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator

import pytest

from tests.engines.native.rig import Rig


@pytest.fixture(autouse=True)
def _exact_modes() -> Iterator[None]:
    """The daemon runs with an umask of 0."""
    before = os.umask(0)
    yield
    os.umask(before)


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
