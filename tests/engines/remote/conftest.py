"""Fixtures of the remote engine's tests."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from instep.engines.remote import connection
from tests.engines.remote.rig import Patience, Rig


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """An open engine over a pipe."""
    with Rig(os.fsencode(tmp_path)) as rig:
        yield rig


@pytest.fixture
def open_base() -> Iterator[bytes]:
    """A directory that every user reaches; the target in it is nobody's."""
    path = tempfile.mkdtemp(prefix="instep-test-")
    os.chmod(path, 0o755)
    os.mkdir(f"{path}/dst")
    if os.geteuid() == 0:
        os.chown(f"{path}/dst", 65534, 65534)
    yield os.fsencode(path)
    shutil.rmtree(path)


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> Patience:
    """Sets how long an agent may be silent, which is asked five times a second.

    Let it be short only while one is silent: on a busy machine any of them may be, for a while.
    """
    monkeypatch.setattr(connection, "BEAT_S", 0.2)
    return lambda dead_s: monkeypatch.setattr(connection, "DEAD_S", dead_s)
