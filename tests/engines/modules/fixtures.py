"""Fixtures that the tests of all kinds of modules share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from instep.engines.sharedobject import build


@pytest.fixture(scope="session")
def kept_hosts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the program that loads shared objects is kept: made once for all tests."""
    return tmp_path_factory.mktemp("hosts")


@pytest.fixture(autouse=True)
def own_cache(kept_hosts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left in the machine's cache."""
    monkeypatch.setattr(build, "_places", lambda: iter([os.fspath(kept_hosts / "instep")]))
