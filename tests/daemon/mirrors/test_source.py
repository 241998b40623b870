"""The directory that is mirrored, and whether its path still names it."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

import pytest

from instep.daemon.mirrors import source as module
from instep.daemon.mirrors.source import Source
from instep.errors import SourceError
from instep.linux.mounts import mount_id_of


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


@pytest.mark.root
def test_it_is_back_by_way_of_another_mount(tmp_path: Path) -> None:
    """What is mounted below it is seen through that one alone; descriptors that were given out follow."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    store, place = tmp_path / "store", tmp_path / "source"
    store.mkdir()
    place.mkdir()
    bind: list[str | Path] = ["mount", "--bind", store, place]
    subprocess.run(bind, check=True)
    source = Source(os.fsencode(place))
    try:
        fd, before = source.fd, mount_id_of(source.fd)
        assert asyncio.run(source.back())
        assert mount_id_of(fd) == before
        subprocess.run(["umount", "-l", place], check=True)
        assert not source.is_there()
        subprocess.run(bind, check=True)
        assert source.is_there()
        assert not asyncio.run(source.back())
        assert source.fd == fd
        assert mount_id_of(fd) != before
        assert not os.get_inheritable(fd)
        assert asyncio.run(source.back())
    finally:
        source.close()
        subprocess.run(["umount", "-l", place], check=False)
