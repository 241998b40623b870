"""Where list files are."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from instep.frontends.clsync.complaints import Refused
from instep.frontends.clsync.listdir import ListDirectories
from instep.paths import RelPath

NOBODY = 65534


def directory(tmp_path: Path, path: Path | None, *, keep: bool = False, base: Path | None = None) -> ListDirectories:
    return ListDirectories(
        None if path is None else bytes(path),
        watch_dir=os.path.realpath(bytes(tmp_path / "w")),
        keep=keep,
        base=bytes(base or tmp_path),
    )


@pytest.fixture(autouse=True)
def watched(tmp_path: Path) -> Path:
    (tmp_path / "w").mkdir()
    return tmp_path / "w"


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory that everybody may reach; pytest's own may not be entered by others."""
    with tempfile.TemporaryDirectory(prefix="instep-test-") as name:
        os.chmod(name, 0o755)
        yield Path(name)


def test_a_temporary_one_is_made_when_it_is_needed(tmp_path: Path) -> None:
    lists = directory(tmp_path, None)
    lists.check()
    assert os.listdir(tmp_path) == ["w"]
    lists.close()
    lists = directory(tmp_path, None)
    path = Path(os.fsdecode(lists.path()))
    assert path.parent == tmp_path
    assert path.name.startswith("clsync-")
    assert len(path.name) >= len("clsync-XXXXXX")
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert lists.path() == bytes(path)
    (path / f".clsync-list.{os.getpid()}.1.2.3").write_text("left by a run that was killed")
    lists.close()
    lists.close()
    assert os.listdir(tmp_path) == ["w"]


def test_one_that_is_missing_is_made_and_removed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lists = directory(tmp_path, tmp_path / "lists")
    lists.check()
    assert stat.S_IMODE((tmp_path / "lists").stat().st_mode) == 0o700
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "list-directory-made")
    ]
    lists.close()
    assert not (tmp_path / "lists").exists()


def test_one_that_is_there_stays(tmp_path: Path) -> None:
    path = tmp_path / "lists"
    path.mkdir(mode=0o700)
    lists = directory(tmp_path, path)
    lists.check()
    mine, others = path / f".clsync-exclist.{os.getpid()}.1.2.3", path / ".clsync-list.1.1.2.3"
    mine.write_text("")
    others.write_text("")
    lists.close()
    assert [others] == list(path.iterdir())


def test_what_others_put_there_stays(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lists = directory(tmp_path, tmp_path / "lists")
    lists.check()
    (tmp_path / "lists/foreign").write_text("")
    lists.close()
    assert (tmp_path / "lists/foreign").exists()
    assert caplog.records[-1].getMessage() == "list-directory-left"


@pytest.mark.parametrize("given", [True, False])
def test_lists_that_are_to_stay(tmp_path: Path, given: bool) -> None:
    lists = directory(tmp_path, tmp_path / "lists" if given else None, keep=True)
    lists.check()
    path = Path(os.fsdecode(lists.path()))
    name = f".clsync-list.{os.getpid()}.1.2.3"
    (path / name).write_text("")
    lists.close()
    assert os.listdir(path) == [name]


@pytest.mark.parametrize("mode", [0o750, 0o701, 0o720])
def test_one_that_is_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists").chmod(mode)
    with pytest.raises(Refused, match="open to others") as caught:
        directory(tmp_path, tmp_path / "lists").check()
    assert caught.value.status == errno.EACCES


def test_no_directory(tmp_path: Path) -> None:
    (tmp_path / "lists").write_text("")
    for path, status in ((tmp_path / "lists", errno.ENOTDIR), (tmp_path / "none/lists", errno.ENOENT)):
        with pytest.raises(Refused) as caught:
            directory(tmp_path, path).check()
        assert caught.value.status == status


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.root
def test_one_of_another_user_is_refused(tmp_path: Path, shared: Path) -> None:
    (shared / "lists").mkdir(mode=0o700)
    lists = directory(tmp_path, shared / "lists")
    os.seteuid(NOBODY)
    try:
        with pytest.raises(Refused, match="cannot be written by user") as caught:
            lists.check()
    finally:
        os.seteuid(0)
    assert caught.value.status == errno.EACCES


def test_its_own_files_are_nobodys_change(tmp_path: Path, watched: Path) -> None:
    (watched / "lists").mkdir(mode=0o700)
    lists = directory(tmp_path, watched / "lists")
    assert not lists.is_own(RelPath(b"lists/.clsync-list.1"))  # not known yet
    assert lists.own() is None
    lists.check()
    assert lists.own() == (b"lists", True)
    assert lists.is_own(RelPath(b"lists/.clsync-list.1"))
    for other in (b"", b"lists", b"lists/a", b".clsync-list.1", b"lists/d/.clsync-list.1", b"x/lists/.clsync-list.1"):
        assert not lists.is_own(RelPath(other)), other


def test_the_watched_directory_itself(tmp_path: Path, watched: Path) -> None:
    watched.chmod(0o700)
    lists = directory(tmp_path, watched)
    lists.check()
    assert lists.own() == (b"", True)
    assert lists.is_own(RelPath(b".clsync-list.1"))
    assert not lists.is_own(RelPath(b"a"))
    assert not lists.is_own(RelPath(b""))
    assert not lists.is_own(RelPath(b"d/.clsync-list.1"))


@pytest.mark.parametrize("given", [True, False])
def test_one_that_was_made_in_the_watched_directory(tmp_path: Path, watched: Path, given: bool) -> None:
    lists = directory(tmp_path, watched / "lists" if given else None, base=watched)
    lists.check()
    name = os.path.basename(lists.path())
    assert lists.own() == (name, False)
    assert lists.is_own(RelPath(name))
    assert lists.is_own(RelPath(name + b"/anything"))
    assert not lists.is_own(RelPath(name + b"x"))
    lists.close()


def test_elsewhere(tmp_path: Path) -> None:
    lists = directory(tmp_path, tmp_path / "w-lists")
    lists.check()
    assert lists.own() is None
    assert not lists.is_own(RelPath(b".clsync-list.1"))
    lists.close()


def test_it_may_be_changed(tmp_path: Path, watched: Path) -> None:
    """What is under way has its lists in the old one, which is removed at the end as well."""
    lists = directory(tmp_path, None, base=watched)
    old = os.path.basename(lists.path())
    assert lists.own() == (old, False)
    lists.change(bytes(tmp_path / "new"), keep=False)
    assert lists.path() == bytes(tmp_path / "new")
    assert lists.is_own(RelPath(old))
    assert lists.own() is None
    (tmp_path / "open").mkdir(mode=0o755)
    with pytest.raises(Refused):
        lists.change(bytes(tmp_path / "open"), keep=True)
    assert lists.path() == bytes(tmp_path / "new")
    lists.change(bytes(tmp_path / "new"), keep=False)
    lists.close()
    assert sorted(os.listdir(tmp_path)) == ["open", "w"]
    assert os.listdir(watched) == []
