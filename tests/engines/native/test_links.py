"""Hard links: one file there is one file here."""

from __future__ import annotations

import os
from typing import Any

import pytest

from instep.engines.native.links import Links
from instep.model import Scope
from instep.spec import Preserve
from tests.engines.native.rig import Rig, read, well, write
from tests.trees import assert_equal

both_roads = pytest.mark.parametrize("now", [True, False])


def _linked(rig: Rig, *names: bytes) -> bool:
    return len({os.stat(rig.d(name)).st_ino for name in names}) == 1


@both_roads
def test_made_before(rig: Rig, now: bool) -> None:
    os.mkdir(rig.s(b"d"))
    write(rig.s(b"a"))
    os.link(rig.s(b"a"), rig.s(b"d/b"))
    os.link(rig.s(b"a"), rig.s(b"c"))
    rig.clean(rig.tree(now=now))
    assert _linked(rig, b"a", b"d/b", b"c")
    again = rig.tree(now=now)
    assert (again.entries, again.files) == (0, 0)


@both_roads
def test_a_second_name_is_made_later_and_only_that_is_reported(rig: Rig, now: bool) -> None:
    os.mkdir(rig.s(b"deep"))
    write(rig.s(b"deep/first"))
    rig.clean(rig.tree(now=now))
    os.link(rig.s(b"deep/first"), rig.s(b"second"))
    rig.clean(rig.bring(b"second", now=now))
    assert _linked(rig, b"deep/first", b"second")


@both_roads
@pytest.mark.parametrize("reported", [b"a", b"b"])
def test_written_through_one_name_all_are_new(rig: Rig, now: bool, reported: bytes) -> None:
    write(rig.s(b"a"))
    os.link(rig.s(b"a"), rig.s(b"b"))
    os.link(rig.s(b"a"), rig.s(b"c"))
    rig.clean(rig.tree(now=now))
    write(rig.s(reported), b"new content")
    rig.clean(rig.bring(reported, now=now))
    os.chmod(rig.s(reported), 0o600)
    rig.clean(rig.bring(reported, content=False, now=now))
    assert read(rig.d(b"c")) == b"new content"
    assert _linked(rig, b"a", b"b", b"c")


@both_roads
def test_a_link_is_broken(rig: Rig, now: bool) -> None:
    write(rig.s(b"a"))
    os.link(rig.s(b"a"), rig.s(b"b"))
    rig.clean(rig.tree(now=now))
    write(rig.s(b"t"))
    os.rename(rig.s(b"t"), rig.s(b"b"))
    rig.clean(rig.bring(b"b", now=now))
    write(rig.s(b"b"), b"other")
    rig.clean(rig.bring(b"b", now=now))
    assert read(rig.d(b"a")) == b"content"
    assert not _linked(rig, b"a", b"b")


def test_a_broken_link_with_the_same_content_is_broken_here_too(rig: Rig) -> None:
    write(rig.s(b"a"), mtime_ns=5)
    os.link(rig.s(b"a"), rig.s(b"b"))
    rig.clean(rig.tree(now=True))
    write(rig.s(b"t"), mtime_ns=5)
    os.rename(rig.s(b"t"), rig.s(b"b"))
    rig.clean(rig.tree(content=False, now=True))
    assert not _linked(rig, b"a", b"b")


def test_one_group_becomes_two(rig: Rig) -> None:
    names = [b"a", b"b", b"c", b"d"]
    write(rig.s(b"a"), mtime_ns=5)
    for name in names[1:]:
        os.link(rig.s(b"a"), rig.s(name))
    rig.clean(rig.tree(now=True))
    os.unlink(rig.s(b"c"))
    os.unlink(rig.s(b"d"))
    write(rig.s(b"c"), mtime_ns=5)
    os.link(rig.s(b"c"), rig.s(b"d"))
    os.chmod(rig.s(b"c"), 0o600)
    rig.clean(rig.tree(content=False, now=True))


@both_roads
def test_names_move_and_go(rig: Rig, now: bool) -> None:
    os.mkdir(rig.s(b"d"))
    write(rig.s(b"d/a"))
    os.link(rig.s(b"d/a"), rig.s(b"b"))
    rig.clean(rig.tree(now=now))
    os.rename(rig.s(b"d"), rig.s(b"e"))
    rig.clean(rig.bring(b"e", b"d", scope=Scope.TREE, moves={b"e": b"d"}, now=now))
    os.rename(rig.s(b"b"), rig.s(b"e/b"))
    rig.clean(rig.bring(b"e/b", b"b", moves={b"e/b": b"b"}, now=now))
    assert _linked(rig, b"e/a", b"e/b")
    write(rig.s(b"e/a"), b"new content")
    rig.clean(rig.bring(b"e/a", now=now))
    os.unlink(rig.s(b"e/a"))
    rig.clean(rig.bring(b"e/a", now=now))
    write(rig.s(b"e/b"), b"newer")
    rig.clean(rig.bring(b"e/b", now=now))


@both_roads
def test_names_it_once_had_do_not_stand_for_those_it_has(rig: Rig, now: bool) -> None:
    """The file came back under a name that no report of this inode told of."""
    write(rig.s(b"x"))
    os.link(rig.s(b"x"), rig.s(b"y"))
    rig.clean(rig.bring(b"x", b"y", now=now))
    os.unlink(rig.s(b"y"))
    rig.clean(rig.bring(b"y", now=now))
    os.rename(rig.s(b"x"), rig.s(b"z"))
    rig.clean(rig.bring(b"x", b"z", now=now))
    os.link(rig.s(b"z"), rig.s(b"w"))
    rig.clean(rig.bring(b"w", now=now))
    assert _linked(rig, b"z", b"w")


def test_a_name_that_goes_while_it_is_linked_is_looked_at_again(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its report may have been worked off just before the link was made."""
    write(rig.s(b"a"))
    rig.clean(rig.bring(b"a"))
    os.link(rig.s(b"a"), rig.s(b"b"))
    link = os.link

    def late(*arguments: Any, **named: Any) -> None:
        os.unlink(rig.s(b"b"))
        link(*arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(os, "link", late)
        outcome = rig.bring(b"b")
    assert [postponed.change.path for postponed in outcome.postponed] == [b"b"]
    rig.clean(rig.bring(b"b"))


@both_roads
def test_a_name_outside_the_source_is_looked_for_once(rig: Rig, now: bool) -> None:
    write(rig.s(b"a"))
    os.link(rig.s(b"a"), os.path.join(rig.base, b"outside"))
    well(rig.bring(b"a", now=now))
    assert read(rig.d(b"a")) == b"content"
    assert os.stat(rig.d(b"a")).st_nlink == 1
    write(rig.s(b"a"), b"changed")
    well(rig.bring(b"a", now=now))
    assert read(rig.d(b"a")) == b"changed"


@both_roads
def test_a_name_of_the_target_outside_of_it_is_left_alone(rig: Rig, now: bool) -> None:
    """Neither content nor attributes go through a hard link that someone planted."""
    write(rig.s(b"a"), b"same", mode=0o600, mtime_ns=5)
    os.link(rig.s(b"a"), rig.s(b"a2"))
    os.link(rig.s(b"a"), rig.s(b"a3"))
    write(rig.s(b"b"), b"same", mode=0o600, mtime_ns=5)
    outside = os.path.join(rig.base, b"outside")
    write(outside, b"same", mode=0o644, mtime_ns=5)
    for name in (b"a", b"b"):
        os.link(outside, rig.d(name))
    before = os.stat(outside)
    rig.clean(rig.bring(b"a", b"a2", b"a3", b"b", now=now))
    after = os.stat(outside)
    assert (after.st_mode, after.st_uid, after.st_mtime_ns) == (before.st_mode, before.st_uid, before.st_mtime_ns)
    assert after.st_nlink == 1


def test_links_are_not_kept_when_not_asked_for(base: bytes) -> None:
    with Rig(base, preserve=Preserve(hard_links=False)) as rig:
        write(rig.s(b"a"))
        os.link(rig.s(b"a"), rig.s(b"b"))
        well(rig.tree(now=True))
        assert not _linked(rig, b"a", b"b")
        assert read(rig.d(b"b")) == b"content"


@both_roads
def test_large_linked_files(base: bytes, now: bool) -> None:
    with Rig(base, large_bytes=1 << 20) as rig:
        write(rig.s(b"a"), os.urandom(2 << 20))
        os.link(rig.s(b"a"), rig.s(b"b"))
        rig.clean(rig.tree(now=now))
        assert_equal(rig.src, rig.dst)


def test_the_memory_of_names() -> None:
    links = Links()
    one, two = (1, 10), (1, 20)
    links.note(b"d/a", one)
    links.note(b"d/b", one)
    links.note(b"dd", two)
    assert not links.lacks(one, 2)
    assert links.lacks(one, 3)
    links.sought(one, 3)
    assert not links.lacks(one, 3)
    links.moved(b"d", b"e")
    assert links.names(one) == [b"e/a", b"e/b"]
    assert links.names(two) == [b"dd"]
    links.note(b"e/a", two)  # the name is another file now
    assert links.names(one) == [b"e/b"]
    links.forget(b"e/b")
    links.forget(b"never seen")
    assert links.names(one) == []
    assert len(links) == 2
