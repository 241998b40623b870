"""What is remembered of names that are one file, and how the others are found."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import pytest

from instep.core.filters import Filter
from instep.engines import hardlinks
from instep.engines.hardlinks import AGAIN_S, PAUSE, Inode, Links, Name, included, lstat_named, search, was_touched
from instep.model import Change
from instep.paths import RelPath, Scope
from instep.rules import Rule
from tests.engines.linking import searched_until

NOTHING = Filter([])


@pytest.fixture
def source(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.fixture
def links(source: int) -> Links:
    return Links(source)


def inode(path: Path) -> Inode:
    info = path.lstat()
    return info.st_dev, info.st_ino


def linked(top: Path, *names: str) -> Inode:
    """A file with all these names."""
    first, *others = (top / name for name in names)
    first.parent.mkdir(exist_ok=True)
    first.write_bytes(b"x")
    for other in others:
        other.parent.mkdir(exist_ok=True)
        os.link(first, other)
    return inode(first)


def about(*paths: bytes, scope: Scope = Scope.ENTRY) -> list[Change]:
    return [Change(RelPath(path), scope) for path in paths]


def test_names_are_looked_at_again_before_they_are_told(tmp_path: Path, links: Links) -> None:
    one, two = linked(tmp_path, "d/a", "d/b"), linked(tmp_path, "dd", "de")
    for name, known in ((b"d/a", one), (b"d/b", one), (b"dd", two), (b"dd", two)):
        links.note(name, known)
    assert links.names(one) == [b"d/a", b"d/b"]
    (tmp_path / "d").rename(tmp_path / "e")
    links.moved(b"d", b"e")
    assert links.names(one) == [b"e/a", b"e/b"]
    assert links.names(two) == [b"dd"]
    (tmp_path / "e/a").unlink()
    os.link(tmp_path / "dd", tmp_path / "e/a")
    links.note(b"e/a", two)
    assert links.names(one) == [b"e/b"]
    assert links.names(two) == [b"dd", b"e/a"]
    assert links.take_parted() == {one}
    assert not links.has_parted
    assert not links.misses_some


@pytest.mark.parametrize(
    "make", [lambda path: path.symlink_to("b"), Path.mkdir, Path.touch], ids=["link", "directory", "file"]
)
def test_another_thing_under_a_name_is_none_of_its_names(
    tmp_path: Path, links: Links, make: Callable[[Path], object]
) -> None:
    own = linked(tmp_path, "a", "b")
    for name in (b"a", b"b"):
        links.note(name, own)
    (tmp_path / "a").unlink()
    make(tmp_path / "a")
    links.review(about(b"a"))
    assert links.take_parted() == {own}
    assert links.names(own) == [b"b"]
    links.part({own})
    assert links.take_parted() == {own}


def test_only_what_a_batch_is_about_is_reviewed(tmp_path: Path, links: Links) -> None:
    own = linked(tmp_path, "d/a", "d/b", "c", "e")
    for name in (b"d/a", b"d/b", b"c", b"e"):
        links.note(name, own)
    (tmp_path / "d/a").unlink()
    (tmp_path / "c").unlink()
    links.review(about(b"e", b"not", b"d"))
    assert set(links.paths) == {b"d/a", b"d/b", b"c", b"e"}
    links.review(about(b"", scope=Scope.TREE))  # That compares all there is.
    assert set(links.paths) == {b"d/a", b"d/b", b"c", b"e"}
    links.review(about(b"d", scope=Scope.TREE))
    assert set(links.paths) == {b"d/b", b"c", b"e"}
    links.review(about(b"c"))
    assert set(links.paths) == {b"d/b", b"e"}


def test_names_outside_are_looked_for_once(tmp_path: Path, links: Links) -> None:
    own = linked(tmp_path, "a", "b", "c")
    for name in (b"a", b"b"):
        links.note(name, own)
    assert links.lacks(own, 3)
    assert links.seek({own: 3}, NOTHING, walked=True)  # Whoever walked there has not met c.
    assert links.misses_some
    assert not links.lacks(own, 3)
    assert links.lacks(own, 4)
    (tmp_path / "a").unlink()
    assert links.lacks(own, 3)  # What was looked for in vain may have been another file's names.
    assert links.seek({own: 3}, NOTHING)
    assert links.names(own) == [b"b", b"c"]
    assert not links.lacks(own, 2)


def test_a_search_is_followed_by_a_pause(tmp_path: Path, source: int, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0

    def slow(root: int, filters: Filter, *, wanted: Collection[Inode]) -> list[tuple[RelPath, Inode]]:
        nonlocal now_s
        now_s += 2.0
        return included(root, filters, wanted=wanted)

    monkeypatch.setattr(hardlinks, "included", slow)
    links = Links(source, lambda: now_s)
    one, two = linked(tmp_path, "a", "b"), linked(tmp_path, "c", "d")
    assert links.seek({}, NOTHING)
    assert now_s == 100.0
    assert links.seek({one: 2}, NOTHING)
    assert links.names(one) == [b"a", b"b"]
    now_s += 2.0 * PAUSE - 0.1
    assert not links.seek({two: 2}, NOTHING)
    assert links.names(two) == []
    now_s += 0.2
    assert links.seek({two: 2}, NOTHING)
    assert links.names(two) == [b"c", b"d"]


def test_a_rename_during_a_search_makes_its_result_doubtful(
    tmp_path: Path, links: Links, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = linked(tmp_path, "a", "b")

    def crossed(root: int, filters: Filter, *, wanted: Collection[Inode]) -> list[tuple[RelPath, Inode]]:
        links.moved(b"x", b"y")
        return []

    with monkeypatch.context() as patched:
        patched.setattr(hardlinks, "included", crossed)
        assert not links.seek({own: 2}, NOTHING)
    assert links.lacks(own, 2)
    assert not links.misses_some


def test_a_file_whose_only_known_name_goes_before_the_others_were_looked_for_is_lost(
    tmp_path: Path, source: int
) -> None:
    now_s = 100.0
    links = Links(source, lambda: now_s)
    own, known, alone = linked(tmp_path, "a", "b"), linked(tmp_path, "c", "d"), linked(tmp_path, "e", "f")
    links.note(b"b", own)
    assert links.lacks(own, 2)
    links.note(b"d", known)
    links.seek({known: 2}, NOTHING, walked=True)
    links.note(b"e", alone)
    assert links.lacks(alone, 2)
    for name in ("b", "d", "e", "f"):
        (tmp_path / name).unlink()
    links.review(about(b"b", b"d", b"e"))
    assert links.has_lost
    searched_until(links, 150.0)
    assert not links.seek({}, NOTHING)
    told: list[bool] = []
    for at_s in (100.0 + AGAIN_S - 0.1, 151.0):  # At first somebody is to come again.
        now_s = at_s
        told.append(links.has_lost)
    assert told == [False, True]
    assert links.take_parted() == set()
    assert links.seek({}, NOTHING)
    assert links.has_parted
    assert links.take_parted() == {own}
    assert links.seek({}, NOTHING)


def test_what_is_known_of_an_inode_by_one_of_its_names(tmp_path: Path, source: int) -> None:
    own = linked(tmp_path, "d/a", "b", "c")
    (tmp_path / "link").symlink_to("d")
    before = lstat_named(source, b"d/a", own)
    assert before is not None
    assert before.st_nlink == 3
    for path in (b"link/a", b"none", b"link", b"d", b"../x"):
        assert lstat_named(source, path, own) is None
    assert lstat_named(source, b"b", (own[0], own[1] + 1)) is None
    assert lstat_named(source, b"link", inode(tmp_path / "link")) is None
    again = lstat_named(source, b"b", own)
    assert again is not None
    assert not was_touched(before, again)
    (tmp_path / "b").unlink()
    after = lstat_named(source, b"c", own)
    assert after is not None
    assert was_touched(before, after)


def test_the_search(tmp_path: Path, source: int) -> None:
    one, two = linked(tmp_path, "a", "d/b", "d/x.o", "cache/c"), linked(tmp_path, "p", "d/q")
    (tmp_path / "d/alone").touch()
    os.mkfifo(tmp_path / "d/fifo")
    os.link(tmp_path / "d/fifo", tmp_path / "g")
    fifo = inode(tmp_path / "g")
    (tmp_path / "round").symlink_to(".")
    rules = Filter([Rule(include=False, pattern=b"*.o"), Rule(include=False, pattern=b"cache/")])
    steps = list(search(source, rules, wanted={one}))
    assert len(steps) == 2  # The root and d; an excluded directory is not read.
    assert sorted(name for names in steps for name in names) == [
        Name(RelPath(b"a"), one, is_excluded=False),
        Name(RelPath(b"d/b"), one, is_excluded=False),
        Name(RelPath(b"d/x.o"), one, is_excluded=True),
    ]
    assert sorted(included(source, rules)) == [
        *((b"a", one), (b"d/b", one), (b"d/fifo", fifo), (b"d/q", two)),
        *((b"g", fifo), (b"p", two)),
    ]
    assert sorted(included(source, NOTHING, [RelPath(b"d"), RelPath(b"none"), RelPath(b"a")], {one, two})) == [
        *((b"d/b", one), (b"d/q", two), (b"d/x.o", one)),
    ]
    assert included(source, NOTHING, wanted=()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every directory")
def test_a_directory_that_cannot_be_read_is_passed_over(tmp_path: Path, source: int) -> None:
    own = linked(tmp_path, "a", "d/b")
    (tmp_path / "d").chmod(0)
    try:
        assert included(source, NOTHING, wanted={own}) == [(b"a", own)]
    finally:
        (tmp_path / "d").chmod(stat.S_IRWXU)
