"""Fixtures of the remote engine's tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines.remote.rig import Rig


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """An open engine over a pipe."""
    with Rig(os.fsencode(tmp_path)) as rig:
        yield rig
