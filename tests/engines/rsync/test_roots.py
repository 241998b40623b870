"""The source and the target of an rsync: made, recognised, missed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from instep.engines.rsync.command import address
from instep.engines.rsync.roots import Roots
from instep.errors import TargetAway, TargetError


@pytest.fixture
def source(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "source").mkdir()
    fd = os.open(tmp_path / "source", os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.fixture
def roots(tmp_path: Path, source: int) -> Roots:
    return Roots(bytes(tmp_path / "source"), source, address(bytes(tmp_path / "target")))


def test_a_target_is_made_once_and_known_again(roots: Roots, tmp_path: Path) -> None:
    assert not roots.open_target(make=True, dry_run=False)
    assert roots.open_target(make=False, dry_run=False)
    assert roots.target_inode == (tmp_path / "target").stat().st_ino
    assert roots.trouble() is None
    (tmp_path / "target").rename(tmp_path / "aside")
    assert "target" in (roots.trouble() or "")
    assert roots.target_descriptor() == -1
    with pytest.raises(TargetAway, match="No such file"):
        roots.open_target(make=False, dry_run=False)
    with pytest.raises(TargetAway, match="cannot open it"):
        roots.flush()
    (tmp_path / "target").mkdir()
    assert "not the directory any more" in (roots.trouble() or "")
    assert roots.target_descriptor() == -1
    assert not roots.open_target(make=False, dry_run=False)
    assert roots.trouble() is None
    fd = roots.target_descriptor()
    assert os.fstat(fd).st_ino == roots.target_inode
    os.close(fd)
    roots.flush()


def test_a_dry_run_makes_no_target(roots: Roots, tmp_path: Path) -> None:
    assert roots.open_target(make=True, dry_run=True)
    assert not (tmp_path / "target").exists()
    assert roots.trouble() is None
    assert roots.target_inode == 0


def test_a_file_is_no_target(roots: Roots, tmp_path: Path) -> None:
    (tmp_path / "target").touch()
    with pytest.raises(TargetError, match="not a directory"):
        roots.open_target(make=True, dry_run=False)


def test_another_source_under_the_same_name_is_trouble(roots: Roots, tmp_path: Path) -> None:
    (tmp_path / "source").rename(tmp_path / "aside")
    assert "No such file" in (roots.trouble() or "")
    (tmp_path / "source").mkdir()
    assert "not the directory any more" in (roots.trouble() or "")


def test_a_directory_of_the_source_is_no_link_on_the_way(roots: Roots, tmp_path: Path) -> None:
    (tmp_path / "source" / "d" / "e").mkdir(parents=True)
    (tmp_path / "source" / "link").symlink_to("d")
    assert roots.has_directory(b"d/e")
    assert not roots.has_directory(b"link/e")
    assert not roots.has_directory(b"link")


def test_both_spellings_of_a_root_are_known(tmp_path: Path, source: int) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "alias").symlink_to("real")
    roots = Roots(bytes(tmp_path / "source"), source, address(bytes(tmp_path / "alias")))
    assert set(roots.spellings) >= {bytes(tmp_path / "alias"), bytes(tmp_path / "real"), bytes(tmp_path / "source")}
    assert list(roots.spellings) == sorted(roots.spellings, key=len, reverse=True)
    far = Roots(bytes(tmp_path / "source"), source, address(b"there:/srv/x"))
    assert b"/srv/x" in far.spellings
    assert not far.target_is_here
    far.flush()
