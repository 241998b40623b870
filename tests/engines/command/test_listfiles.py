"""List files: theirs alone, and gone after the run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from instep.engines.command.listfiles import list_files
from instep.model import ListFile


def named(path: Path, content: bytes = b"x", *, keep: bool = False) -> ListFile:
    return ListFile(os.fsencode(path), content, keep)


def test_they_are_there_for_the_run_alone(tmp_path: Path) -> None:
    with list_files([named(tmp_path / "a", b"/a\n"), named(tmp_path / "b", keep=True)], umask=0o027):
        assert (tmp_path / "a").read_bytes() == b"/a\n"
        assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o640}
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_they_are_removed_when_the_run_fails(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), list_files([named(tmp_path / "a")], umask=0o022):
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_the_handler_may_have_removed_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with list_files([named(tmp_path / "a")], umask=0o022):
        (tmp_path / "a").unlink()
    assert not caplog.records


def test_one_that_cannot_be_removed_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with list_files([named(tmp_path / "a")], umask=0o022):
        (tmp_path / "a").unlink()
        (tmp_path / "a").mkdir()
    assert [record.getMessage() for record in caplog.records] == ["list-not-removed"]


@pytest.mark.parametrize("kind", ["file", "link", "dangling"])
def test_what_is_there_is_not_written_to(tmp_path: Path, kind: str) -> None:
    other, taken = tmp_path / "other", tmp_path / "taken"
    if kind != "dangling":
        other.write_text("mine")
    if kind == "file":
        other.rename(taken)
    else:
        taken.symlink_to(other)
    with pytest.raises(FileExistsError), list_files([named(tmp_path / "a"), named(taken)], umask=0o022):
        raise AssertionError("not reached")
    assert not (tmp_path / "a").exists()
    assert kind == "dangling" or taken.read_text() == "mine"
    assert kind != "dangling" or not other.exists()
