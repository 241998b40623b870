"""The directory that is mirrored, and whether its path still names it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from instep.daemon.mirrors import source as module
from instep.daemon.mirrors.source import Source
from instep.errors import SourceError


def test_another_directory_under_its_name_is_not_it(tmp_path: Path) -> None:
    place = tmp_path / "source"
    place.mkdir()
    source = Source(os.fsencode(place))
    assert source.is_there()
    place.rename(tmp_path / "moved")
    assert not source.is_there()
    place.mkdir()
    assert not source.is_there()
    place.rmdir()
    (tmp_path / "moved").rename(place)
    assert source.is_there()
    source.close()
    source.close()
    assert source.fd == -1


def test_who_waits_is_told_when_it_is_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "source"
    place.mkdir()
    source = Source(os.fsencode(place))
    place.rename(tmp_path / "moved")
    looks: list[int] = []

    def backoff_s(tries: int) -> float:
        looks.append(tries)
        if tries == 3:
            (tmp_path / "moved").rename(place)
        return 0.0

    monkeypatch.setattr(module, "backoff_s", backoff_s)
    asyncio.run(asyncio.wait_for(source.back(), 10))
    assert looks == [1, 2, 3]
    source.close()


@pytest.mark.parametrize("name", ["nowhere", "file"])
def test_what_cannot_be_opened_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SourceError, match=name):
        Source(os.fsencode(tmp_path / name))
