"""Making the program that loads shared objects, and keeping it."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from instep.engines.sharedobject import build
from instep.errors import ToolMissing


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(build, "_places", lambda: iter([str(tmp_path / "cache/instep")]))
    return tmp_path / "cache/instep"


@pytest.fixture
def quick_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it makes is of no matter here."""
    compiler = tmp_path / "cc"
    compiler.write_text('#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done\nprintf made > "$2"\n')
    compiler.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda _: str(compiler))


def opened() -> os.stat_result:
    fd = build.open_host()
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)


@pytest.mark.usefixtures("quick_compiler")
def test_it_is_made_once_also_by_two_at_once(place: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: opened(), range(2)))
    (made,) = place.iterdir()
    assert made.stat().st_mode & 0o777 == 0o755
    first = opened()
    assert opened().st_ino == first.st_ino == made.stat().st_ino


@pytest.mark.usefixtures("quick_compiler")
@pytest.mark.parametrize("how", ["open to others", "a link", "a file"])
def test_where_others_can_write_nothing_is_taken_or_kept(place: Path, how: str, tmp_path: Path) -> None:
    place.parent.mkdir()
    if how == "a link":
        (tmp_path / "other").mkdir()
        place.symlink_to(tmp_path / "other")
    elif how == "a file":
        place.touch()
    else:
        place.mkdir()
        place.chmod(0o777)
    assert opened().st_nlink == 0
    assert how == "a file" or not list(place.iterdir())


@pytest.mark.usefixtures("quick_compiler")
def test_a_file_that_is_not_ours_alone_is_replaced(place: Path) -> None:
    opened()
    (made,) = place.iterdir()
    made.write_bytes(b"bad")
    made.chmod(0o777)
    assert opened().st_size == len("made")
    assert made.read_text() == "made"


def test_without_a_compiler(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(ToolMissing, match="no C compiler") as caught:
        build.open_host()
    assert "apt install gcc libc6-dev" in caught.value.fix
    assert not list(place.iterdir())


def test_a_compiler_that_fails(place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bad = tmp_path / "cc"
    bad.write_text("#!/bin/sh\necho 'stdio.h: not there' >&2\nexit 1\n")
    bad.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda _: str(bad))
    with pytest.raises(ToolMissing, match=r"cannot be made: stdio\.h: not there"):
        build.open_host()
    assert not list(place.iterdir())


def test_where_it_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("HOME", "/home/u")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert list(build._places()) == ["/home/u/.cache/instep"]
    monkeypatch.setenv("XDG_CACHE_HOME", "/c")
    assert list(build._places()) == ["/c/instep"]
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert list(build._places()) == ["/var/cache/instep"]
