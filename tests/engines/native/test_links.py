"""Hard links: one file there is one file here."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import sys
import threading
import time
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import pytest

from instep.core.filters import Filter
from instep.engines import hardlinks
from instep.engines.hardlinks import Inode, Links, included
from instep.engines.native import content
from instep.model import Batch, Change, Outcome
from instep.paths import RelPath, Scope
from instep.rules import Preserve, Rule
from tests.engines.linking import searched_until
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
def test_another_target_in_its_place(rig: Rig, now: bool) -> None:
    """What was learned of names while the first one was filled is learned anew, by all that need it."""
    write(rig.s(b"a"))
    os.link(rig.s(b"a"), rig.s(b"b"))
    rig.clean(rig.tree(now=now))
    os.rename(rig.dst, os.path.join(rig.base, b"aside"))
    os.mkdir(rig.dst)
    assert rig.run(rig.engine.open()) is False
    rig.clean(rig.tree(now=now))
    write(rig.s(b"a"), b"other content")
    os.unlink(rig.s(b"a"))
    rig.clean(rig.bring(b"a", now=now))


@both_roads
def test_a_fifo_with_several_names(rig: Rig, now: bool) -> None:
    os.mkfifo(rig.s(b"a"), 0o640)
    os.link(rig.s(b"a"), rig.s(b"b"))
    rig.clean(rig.tree(now=now))
    assert _linked(rig, b"a", b"b")
    os.link(rig.s(b"a"), rig.s(b"c"))
    rig.clean(rig.bring(b"c", now=now))
    assert _linked(rig, b"a", b"b", b"c")
    os.chmod(rig.s(b"b"), 0o600)
    rig.clean(rig.bring(b"b", content=False, now=now))
    assert _linked(rig, b"a", b"b", b"c")
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
def test_a_name_that_is_in_step_is_joined_all_the_same(rig: Rig, now: bool) -> None:
    """What a search missed comes by a look at its attributes: at the target it is a file of its own, and looks right."""
    write(rig.s(b"a"))
    rig.clean(rig.tree())
    os.link(rig.s(b"a"), rig.s(b"b"))
    shutil.copy2(rig.d(b"a"), rig.d(b"b"))
    rig.clean(rig.bring(b"b", content=False, now=now))
    assert _linked(rig, b"a", b"b")
    again = rig.bring(b"b", content=False, now=now)
    assert (again.entries, again.files) == (0, 0)


@both_roads
@pytest.mark.parametrize("end", ["unlinked", "replaced", "replaced by a link", "moved", "with its directory"])
def test_written_through_a_name_that_goes_at_once(rig: Rig, now: bool, end: str) -> None:
    """The write is reported under that name alone, and when it is looked at it is gone."""
    os.mkdir(rig.s(b"d"))
    write(rig.s(b"a"), mtime_ns=5)
    write(rig.s(b"other"))
    os.link(rig.s(b"other"), rig.s(b"other 2"))
    os.link(rig.s(b"a"), rig.s(b"d/b"))
    rig.clean(rig.tree(now=now))
    write(rig.s(b"d/b"), b"CONTENT", mtime_ns=7)
    if end == "unlinked":
        os.unlink(rig.s(b"d/b"))
        rig.clean(rig.bring(b"d/b", now=now))
    elif end == "replaced":
        write(rig.s(b"t"))
        os.rename(rig.s(b"t"), rig.s(b"d/b"))
        rig.clean(rig.bring(b"d/b", now=now))
    elif end == "replaced by a link":
        os.link(rig.s(b"other"), rig.s(b"t"))
        os.rename(rig.s(b"t"), rig.s(b"d/b"))
        rig.clean(rig.bring(b"d/b", now=now))
    elif end == "moved":
        os.rename(rig.s(b"d/b"), os.path.join(rig.base, b"outside"))
        rig.clean(rig.bring(b"d/b", now=now))
    else:
        os.rename(rig.s(b"d"), os.path.join(rig.base, b"outside"))
        rig.clean(rig.bring(b"d", scope=Scope.TREE, now=now))
    assert read(rig.d(b"a")) == b"CONTENT"


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
    assert {postponed.change.path for postponed in outcome.postponed} == {b"a", b"b"}
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


@both_roads
def test_an_excluded_name_is_not_brought_over(base: bytes, now: bool) -> None:
    with Rig(base, rules=(Rule(include=False, pattern=b"secret"), Rule(include=False, pattern=b"*.o"))) as rig:
        os.mkdir(rig.s(b"secret"))
        write(rig.s(b"secret/first"))
        os.link(rig.s(b"secret/first"), rig.s(b"x.o"))
        os.link(rig.s(b"secret/first"), rig.s(b"second"))
        well(rig.bring(b"second", now=now))
        assert os.listdir(rig.dst) == [b"second"]


@both_roads
def test_a_name_takes_the_place_of_a_directory(rig: Rig, now: bool) -> None:
    write(rig.s(b"a"))
    os.mkdir(rig.s(b"b"))
    write(rig.s(b"b/f"))
    rig.clean(rig.tree(now=now))
    os.unlink(rig.s(b"b/f"))
    os.rmdir(rig.s(b"b"))
    os.link(rig.s(b"a"), rig.s(b"b"))
    rig.clean(rig.bring(b"b", now=now))
    assert _linked(rig, b"a", b"b")


@both_roads
@pytest.mark.parametrize("blocked", [b"a", b"d/b", b"e/c"])
@pytest.mark.parametrize("reported", [b"a", b"d/b", b"e/c", None])
def test_a_name_that_cannot_be_had_keeps_no_other_away(
    base: bytes, now: bool, blocked: bytes, reported: bytes | None
) -> None:
    with Rig(base, delete=False) as rig:
        write(rig.s(b"a"))
        for directory, name in ((b"d", b"d/b"), (b"e", b"e/c")):
            os.mkdir(rig.s(directory))
            os.mkdir(rig.d(directory))
            os.link(rig.s(b"a"), rig.s(name))
        os.mkdir(rig.d(blocked))
        write(rig.d(blocked + b"/kept"))
        outcome = rig.tree(now=now) if reported is None else rig.bring(reported, now=now)
        assert [failure.change.path for failure in outcome.failures] == [blocked]
        assert _linked(rig, *({b"a", b"d/b", b"e/c"} - {blocked}))
        assert read(rig.d(blocked + b"/kept")) == b"content"
        rig.tree(now=now)
        parent = blocked.rpartition(b"/")[0]
        for touched in (True, False):  # The attempts leave no trace, either.
            assert rig.bring(blocked, content=touched, now=now).failures
            assert os.stat(rig.d(parent)).st_mtime_ns == os.stat(rig.s(parent)).st_mtime_ns


@both_roads
def test_with_no_room_for_one_name_none_is_tried(rig: Rig, monkeypatch: pytest.MonkeyPatch, now: bool) -> None:
    write(rig.s(b"a"))
    for name in (b"b", b"c", b"d"):
        os.link(rig.s(b"a"), rig.s(name))
    tried: list[object] = []

    def full(*arguments: Any, **_: Any) -> int:
        tried.append(arguments)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(content, "copy", full)
        outcome = rig.bring(b"a", now=now)
    assert outcome.full
    assert len(tried) == 1
    rig.clean(rig.bring(b"a", now=now))


@both_roads
def test_a_new_directory_holds_a_second_name(rig: Rig, now: bool) -> None:
    """It was made outside of the source, where nobody reports the link."""
    write(rig.s(b"first"))
    rig.clean(rig.tree())
    outside = os.path.join(rig.base, b"outside")
    os.mkdir(outside)
    os.link(rig.s(b"first"), os.path.join(outside, b"second"))
    os.rename(outside, rig.s(b"d"))
    rig.clean(rig.bring(b"d", scope=Scope.TREE, now=now))
    assert _linked(rig, b"first", b"d/second")


def test_names_are_not_joined_by_two_at_once(rig: Rig) -> None:
    """Nor does one that takes long hold up the others."""
    for first, second in ((b"a", b"b"), (b"c", b"d"), (b"e", b"f")):
        write(rig.s(first))
        os.link(rig.s(first), rig.s(second))
    info = os.lstat(rig.s(b"a"))
    released, started = threading.Event(), threading.Event()

    def someone_else() -> None:
        with rig.engine._joiner._claimed([(info.st_dev, info.st_ino)]):
            started.set()
            released.wait(60)

    def batch(*paths: bytes) -> Batch:
        return Batch(rig.changes(paths), time.monotonic())

    def has(name: bytes) -> bool:
        return os.path.exists(rig.d(name))

    async def rest(changes: Sequence[Change]) -> Outcome:
        bringing = asyncio.create_task(rig.engine.sync(Batch(tuple(changes), time.monotonic())))
        async with asyncio.timeout(60):
            while not (has(b"f") or bringing.done()):  # noqa: ASYNC110  # a thread makes it
                await asyncio.sleep(0.01)
        assert (bringing.done(), has(b"a")) == (False, False)
        released.set()
        return await bringing

    other = threading.Thread(target=someone_else)
    other.start()
    try:
        started.wait(60)
        outcome, left = rig.engine.sync_now(batch(b"a", b"b", b"c", b"d"))
        assert [change.path for change in left] == [b"a", b"b"]  # The loop does not wait.
        assert _linked(rig, b"c", b"d")
        outcome.add(rig.run(rest([*left, *rig.changes([b"e", b"f"])])))
    finally:
        released.set()
        other.join()
    rig.clean(outcome)
    assert _linked(rig, b"e", b"f")


@both_roads
def test_names_in_a_directory_that_the_target_lacks(rig: Rig, now: bool) -> None:
    """It is brought over whole, and all that is found in it is brought over too."""
    write(rig.s(b"a"))
    os.mkdir(rig.s(b"d"))
    os.link(rig.s(b"a"), rig.s(b"d/b"))
    rig.clean(rig.tree())
    os.rename(rig.s(b"d"), rig.s(b"e"))
    write(rig.s(b"e/one"))
    os.link(rig.s(b"e/one"), rig.s(b"e/other"))
    write(rig.s(b"e/large"), b"x" * (9 << 20))
    os.link(rig.s(b"a"), rig.s(b"c"))
    well(rig.bring(b"c", now=now))  # The search for its names leads to where none of the reports has led yet.
    assert _linked(rig, b"a", b"e/b", b"c")
    assert _linked(rig, b"e/one", b"e/other")
    assert read(rig.d(b"e/large")) == b"x" * (9 << 20)
    rig.clean(rig.bring(b"d", now=now))


@pytest.mark.parametrize("early", [True, False])
def test_a_directory_that_moves_during_the_search(rig: Rig, monkeypatch: pytest.MonkeyPatch, early: bool) -> None:
    """From where the search has not been yet to where it has been: what is in it is found later."""
    for name in (b"d", b"z"):
        os.mkdir(rig.s(name))
    write(rig.s(b"d/first"))
    rig.clean(rig.tree())
    os.link(rig.s(b"d/first"), rig.s(b"second"))

    def miss(source: int, filters: Filter, *, wanted: AbstractSet[Inode]) -> list[tuple[RelPath, Inode]]:
        os.rename(rig.s(b"d"), rig.s(b"z/d"))
        if early:
            rig.engine.sync_now(move)  # its report is worked off before the search ends
        return [found for found in included(source, filters, wanted=wanted) if not found[0].startswith(b"z/d/")]

    move = Batch(
        rig.changes([b"z/d", b"d"], scope=Scope.TREE), time.monotonic(), moves={RelPath(b"z/d"): RelPath(b"d")}
    )
    with monkeypatch.context() as patched:
        patched.setattr(hardlinks, "included", miss)
        outcome = rig.bring(b"second")
    if early:
        assert [postponed.change.path for postponed in outcome.postponed] == [b"second"]
        searched_until(rig.engine._links, 0.0)
        rig.clean(rig.bring(b"second"))
    else:
        well(outcome)
        rig.clean(rig.bring(b"z/d", b"d", scope=Scope.TREE, moves={b"z/d": b"d"}))
    assert _linked(rig, b"z/d/first", b"second")


def test_a_name_that_goes_before_the_others_are_linked_to_it(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    write(rig.s(b"a"))
    os.link(rig.s(b"a"), rig.s(b"b"))
    os.link(rig.s(b"a"), rig.s(b"c"))
    names = Links.names

    def late(links: Links, inode: Inode) -> list[bytes]:
        found = names(links, inode)
        if sys._getframe(1).f_code.co_name == "bring_linked":
            with contextlib.suppress(FileNotFoundError):
                os.unlink(rig.s(b"a"))
        return found

    with monkeypatch.context() as patched:
        patched.setattr(Links, "names", late)
        outcome = rig.bring(b"b", b"c", b"a")
    assert {postponed.change.path for postponed in outcome.postponed} >= {b"b", b"c"}
    rig.clean(rig.bring(b"a", b"b", b"c"))
    assert _linked(rig, b"b", b"c")
