"""Which file systems are missing in a source, by a mount table that says what a test wants."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from instep.daemon.mirrors import mountpoints
from instep.daemon.mirrors.mountpoints import MountPoints
from instep.engines.mounted import MISSING
from instep.paths import RelPath


class Table:
    """Stands for the kernel's."""

    def __init__(self) -> None:
        self.mounted: set[RelPath] = set()
        self.is_readable = True


class Watch:
    """Stands for ``MountWatch``."""

    table: Table

    def __init__(self, _: int) -> None:
        if not self.table.is_readable:
            raise FileNotFoundError
        self._seen = set(self.table.mounted)

    def changed(self) -> set[RelPath]:
        before, self._seen = self._seen, set(self.table.mounted)
        return before ^ self._seen

    @property
    def mounts(self) -> set[tuple[int, RelPath]]:
        return {(1, point) for point in self._seen}

    def refresh(self) -> None:
        self._seen = set(self.table.mounted)

    def close(self) -> None:
        pass


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Table:
    monkeypatch.setattr(Watch, "table", Table(), raising=False)
    monkeypatch.setattr(mountpoints, "MountWatch", Watch)
    return Watch.table


@pytest.fixture
def source(tmp_path: Path) -> Iterator[int]:
    for name in ("a/disk", "b"):
        (tmp_path / "source" / name).mkdir(parents=True)
    fd = os.open(tmp_path / "source", os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def points(*paths: bytes) -> set[RelPath]:
    return {RelPath(path) for path in paths}


def everything(_: RelPath) -> bool:
    return True


def test_missed_until_it_is_back(table: Table, source: int) -> None:
    table.mounted = points(b"a/disk", b"b")
    made = MountPoints(source, everything, None)
    assert not made.look()
    assert not made.hides(RelPath(b"a/disk/x"))
    table.mounted = points(b"b")
    assert made.look()
    assert not made.look()
    assert made.missing == points(b"a/disk")
    assert [made.hides(RelPath(path)) for path in (b"a/disk", b"a/disk/x/y", b"a", b"a/disks", b"b/x")] == [
        *(True, True),
        *[False] * 3,
    ]
    table.mounted = points(b"a/disk", b"b", b"a")
    assert made.look()
    assert not made.missing
    made.close()
    made.close()
    assert not made.look()


def test_what_does_not_count_is_not_missed(table: Table, source: int) -> None:
    table.mounted = points(b"a/disk", b"b")
    made = MountPoints(source, lambda point: point != b"b", None)
    table.mounted = points()
    assert made.look()
    assert made.missing == points(b"a/disk")


def test_a_place_that_is_gone_too_is_not_missed(table: Table, source: int, tmp_path: Path) -> None:
    table.mounted = points(b"a/disk", b"b")
    made = MountPoints(source, everything, os.fsencode(tmp_path / "memory"))
    (tmp_path / "source" / "b").rmdir()
    table.mounted = points()
    assert made.look()
    assert made.missing == points(b"a/disk")
    shutil.rmtree(tmp_path / "source" / "a")
    (tmp_path / "source" / "a").mkdir()
    (tmp_path / "source" / "a" / "disk").touch()
    assert not made.hides(RelPath(b"a/disk/x"))
    assert not made.missing
    assert (tmp_path / "memory").read_bytes() == b""


def test_remembered_for_the_next_start(table: Table, source: int, tmp_path: Path) -> None:
    memory = os.fsencode(tmp_path / "memory")
    table.mounted = points(b"a/disk", b"b")
    MountPoints(source, everything, memory).close()
    table.mounted = points(b"b")
    assert MountPoints(source, everything, memory).missing == points(b"a/disk")
    made = MountPoints(source, everything, memory)
    assert made.missing == points(b"a/disk")
    assert made.forget() == [b"a/disk"]
    assert made.forget() == []
    assert not MountPoints(source, everything, memory).missing
    (tmp_path / "source" / "b").rmdir()
    table.mounted = points()
    assert not MountPoints(source, everything, memory).missing
    assert (tmp_path / "memory").read_bytes() == b""


def test_what_does_not_count_any_more_is_forgotten(table: Table, source: int, tmp_path: Path) -> None:
    memory = os.fsencode(tmp_path / "memory")
    table.mounted = points(b"a/disk", b"b")
    MountPoints(source, everything, memory).close()
    table.mounted = points()
    assert MountPoints(source, lambda point: point != b"b", memory).missing == points(b"a/disk")


def test_a_place_is_followed_when_a_directory_above_it_is_renamed(table: Table, source: int, tmp_path: Path) -> None:
    memory = os.fsencode(tmp_path / "memory")
    table.mounted = points(b"a/disk")
    made = MountPoints(source, everything, memory)
    table.mounted = points()
    assert made.look()
    (tmp_path / "source" / "a").rename(tmp_path / "source" / "z")
    # What goes under the old name stays at the targets, and so does what is there in its place.
    assert made.hides(RelPath(b"a"))
    assert made.missing == points(b"z/disk")
    assert made.hides(RelPath(b"z/disk/x"))
    assert made.hides(RelPath(b"a/disk"))
    assert made.hides(RelPath(b"a/disk/x"))
    assert not made.hides(RelPath(b"z"))
    assert not made.hides(RelPath(b"b"))
    assert not made.hides(RelPath(b""))
    assert not made.left_behind()
    # The next process knows both.
    made.close()
    made = MountPoints(source, everything, memory)
    assert made.missing == points(b"z/disk")
    assert made.hides(RelPath(b"a"))
    # What is new under the old name is brought over.
    (tmp_path / "source" / "a" / "disk").mkdir(parents=True)
    (tmp_path / "source" / "a" / "disk" / "new").touch()
    assert [made.hides(RelPath(path)) for path in (b"a", b"a/disk", b"a/disk/new", b"a/disk/x")] == [False] * 3 + [True]
    shutil.rmtree(tmp_path / "source" / "a")
    # It comes back in its new place.
    table.mounted = points(b"z/disk")
    assert made.look()
    assert not made.missing
    assert made.left_behind()
    assert not made.left_behind()
    assert not made.hides(RelPath(b"a"))
    assert (tmp_path / "memory").read_bytes() == b"z/disk\0"


def test_there_and_back_again(table: Table, source: int, tmp_path: Path) -> None:
    table.mounted = points(b"a/disk")
    made = MountPoints(source, everything, None)
    table.mounted = points()
    assert made.look()
    (tmp_path / "source" / "a").rename(tmp_path / "source" / "z")
    assert made.look(renamed=True)
    assert made.missing == points(b"z/disk")
    (tmp_path / "source" / "z").rename(tmp_path / "source" / "a")
    assert made.look(renamed=True)
    assert made.missing == points(b"a/disk")
    assert made.hides(RelPath(b"z"))
    assert not made.hides(RelPath(b"a"))
    assert made.forget() == [b"a/disk"]
    assert made.left_behind()


def test_a_directory_above_is_renamed_while_it_is_mounted(table: Table, source: int, tmp_path: Path) -> None:
    table.mounted = points(b"a/disk")
    made = MountPoints(source, everything, None)
    (tmp_path / "source" / "a").rename(tmp_path / "source" / "z")
    table.mounted = points(b"z/disk")
    assert not made.look(renamed=True)
    table.mounted = points()
    assert made.look()
    assert made.missing == points(b"z/disk")


@pytest.mark.parametrize("where", ["outside", "excluded", "removed"])
def test_a_place_that_has_left_is_not_missed(table: Table, source: int, tmp_path: Path, where: str) -> None:
    table.mounted = points(b"a/disk")
    made = MountPoints(source, lambda point: not point.startswith(b"no"), None)
    table.mounted = points()
    assert made.look()
    if where == "removed":
        shutil.rmtree(tmp_path / "source" / "a")
    else:
        (tmp_path / "source" / "a").rename(tmp_path / "out" if where == "outside" else tmp_path / "source" / "no")
    assert not made.hides(RelPath(b"a"))
    assert not made.missing


def test_below_the_root_of_all(table: Table, source: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    top = os.fsencode(tmp_path).lstrip(b"/") + b"/source/"
    fd = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    table.mounted = points(top + b"a/disk")
    made = MountPoints(fd, everything, None)
    monkeypatch.setattr(made, "_device", os.fstat(source).st_dev)
    table.mounted = points()
    assert made.look()
    (tmp_path / "source" / "a").rename(tmp_path / "source" / "z")
    assert made.hides(RelPath(top + b"a"))
    assert made.missing == points(top + b"z/disk")
    made.close()
    os.close(fd)


def test_what_lies_on_another_file_system_is_known_by_its_path_alone(
    table: Table, source: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not held open: that file system could not be unmounted."""
    table.mounted = points(b"a/disk")
    made = MountPoints(source, everything, None)
    monkeypatch.setattr(made, "_device", -1)
    before = len(os.listdir("/proc/self/fd"))
    table.mounted = points()
    assert made.look()
    assert len(os.listdir("/proc/self/fd")) == before
    assert made.hides(RelPath(b"a/disk/x"))
    (tmp_path / "source" / "a").rename(tmp_path / "source" / "z")
    assert not made.hides(RelPath(b"a/disk/x"))
    assert not made.missing


def test_where_it_cannot_be_remembered(
    table: Table, source: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table.mounted = points(b"b")
    made = MountPoints(source, everything, os.fsencode(tmp_path / "none" / "memory"))
    assert [record.message for record in caplog.records] == ["mounts-not-remembered"]
    table.mounted = points()
    assert made.look()
    assert made.missing == points(b"b")


def test_where_there_is_no_table(table: Table, source: int, tmp_path: Path) -> None:
    memory = tmp_path / "memory"
    memory.write_bytes(b"b\0")
    table.is_readable = False
    made = MountPoints(source, everything, os.fsencode(memory))
    assert not made.look()
    assert not made.missing
    assert memory.read_bytes() == b"b\0"
    made.close()


def test_known_from_elsewhere(table: Table, source: int, tmp_path: Path) -> None:
    table.mounted = points(b"b")
    memory = os.fsencode(tmp_path / "memory")
    made = MountPoints(source, everything, memory, {b"a/disk", b"/old", b"nowhere"})
    assert made.missing == points(b"a/disk")
    assert made.remembered == {b"a/disk", b"b", b"/old"}
    made.forget()
    assert made.remembered == {b"b", b"/old"}
    made.close()
    made = MountPoints(source, everything, None, {b"a/disk"})
    assert made.missing == points(b"a/disk")
    assert made.remembered == {b"a/disk", b"b"}
    made.close()


def test_engines_are_told(table: Table, source: int, tmp_path: Path) -> None:
    table.mounted = points(b"a/disk", b"b")
    made = MountPoints(source, lambda point: point != b"b", None)
    assert set(made.mounted.mounts) == {(1, b"a/disk")}
    table.mounted = points(b"b")
    made.look()
    assert set(made.mounted.mounts) == {(MISSING, b"a/disk")}
    (tmp_path / "source" / "a").rename(tmp_path / "source" / "c")
    made.look(renamed=True)
    assert set(made.mounted.mounts) == {(MISSING, b"c/disk")}
    made.forget()
    assert not made.mounted.mounts
    made.close()
