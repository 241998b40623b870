"""Records: every change of a name changes its record."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instep.records import SIZE, identity_only, is_directory, parse, record, same_directory

NAMES = st.binary(min_size=1, max_size=20).filter(lambda name: b"\0" not in name and b"/" not in name)
ENTRIES = st.dictionaries(NAMES, st.binary(min_size=SIZE, max_size=SIZE))


@given(ENTRIES)
def test_a_text_is_read_back(entries: dict[bytes, bytes]) -> None:
    assert parse(b"".join(name + b"\0" + one for name, one in entries.items())) == entries


@pytest.mark.parametrize("change", ["write", "chmod", "times", "rename-over", "touch-and-back"])
def test_every_change_shows(tmp_path: Path, change: str) -> None:
    path = tmp_path / "f"
    path.write_text("one")
    before = record(path.lstat())
    assert record(path.lstat()) == before
    info = path.lstat()
    if change == "write":
        path.write_text("two")
        os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    elif change == "chmod":
        path.chmod(0o600)
    elif change == "times":
        os.utime(path, ns=(1, 1))
    elif change == "touch-and-back":
        os.utime(path, ns=(1, 1))
        os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    else:
        (tmp_path / "g").write_text("one")
        os.utime(tmp_path / "g", ns=(info.st_atime_ns, info.st_mtime_ns))
        (tmp_path / "g").rename(path)
    assert record(path.lstat()) != before


def test_directories_are_known_by_their_inode(tmp_path: Path) -> None:
    here, there = tmp_path / "a", tmp_path / "b"
    here.mkdir()
    there.mkdir()
    before = record(here.lstat())
    (here / "new").touch()
    assert record(here.lstat()) != before
    assert same_directory(record(here.lstat()), before)
    assert same_directory(record(here.lstat()), identity_only(here.lstat()))
    assert record(here.lstat()) != identity_only(here.lstat())
    assert not same_directory(record(here.lstat()), record(there.lstat()))
    assert is_directory(before)
    (tmp_path / "f").touch()
    assert not is_directory(record((tmp_path / "f").lstat()))
