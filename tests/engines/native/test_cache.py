"""What the kernel remembers of files."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from instep.engines.native.cache import Distrusted, forget
from instep.linux.libc import libc
from instep.model import Change
from instep.paths import RelPath, Scope


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def remembered(path: Path) -> bool:
    """Whether any of it can be read without asking the disk: mincore(2)."""
    size = path.stat().st_size
    with path.open("r+b") as file, mmap.mmap(file.fileno(), size) as mapped:
        pages = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
        begin = ctypes.c_char.from_buffer(mapped)
        try:
            assert libc().mincore(ctypes.c_void_p(ctypes.addressof(begin)), ctypes.c_size_t(size), pages) == 0
        finally:
            del begin
    return any(page & 1 for page in pages)


def written(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(bytes(range(256)) * 64)
        os.fsync(file.fileno())
    if not remembered(path):
        pytest.skip("this file system remembers nothing")
    return path


def test_of_one_file(tmp_path: Path, root: int) -> None:
    one, other = written(tmp_path / "d/one"), written(tmp_path / "d/other")
    forget(root, b"d/one", below=False)
    if remembered(one):
        pytest.skip("this file system forgets nothing")
    assert remembered(other)
    forget(root, b"d", below=False)
    assert remembered(other)


@pytest.mark.parametrize("top", [b"", b"d"])
def test_of_all_below(tmp_path: Path, root: int, top: bytes) -> None:
    files = [written(tmp_path / "d" / below) for below in ("a", "b/c", "b/e/f")]
    forget(root, top, below=True)
    if all(remembered(path) for path in files):
        pytest.skip("this file system forgets nothing")
    assert not any(remembered(path) for path in files)


def test_not_through_links_nor_of_what_is_no_file(tmp_path: Path, root: int) -> None:
    outside = written(tmp_path / "outside/file")
    (tmp_path / "d").mkdir()
    (tmp_path / "d/link").symlink_to(outside)
    (tmp_path / "d/directory").symlink_to(outside.parent)
    os.mkfifo(tmp_path / "d/fifo")
    forget(root, b"d", below=True)
    for path in (b"d/link", b"d/directory", b"d/directory/file", b"d/fifo", b"gone", b"gone/x"):
        forget(root, path, below=True)
    assert remembered(outside)


def test_a_tree_that_is_distrusted_is_not_done_with_one_file_of_it(tmp_path: Path, root: int) -> None:
    one, other = written(tmp_path / "d/one"), written(tmp_path / "d/other")
    forget(root, b"d/one", below=False)
    if remembered(one):
        pytest.skip("this file system forgets nothing")
    tree = [Change(RelPath(b"d"), Scope.TREE)]
    distrusted = Distrusted()
    assert not distrusted.concerns(tree)
    distrusted.add(tree)
    distrusted.forget(root, [Change(RelPath(b"d"))])
    distrusted.forget(root, [Change(RelPath(b"d/other"))])
    assert remembered(other)
    assert distrusted.concerns(tree)
    assert not distrusted.concerns([Change(RelPath(b"d/other"))])
    distrusted.forget(root, tree)
    assert not remembered(other)
    assert not distrusted.concerns(tree)
