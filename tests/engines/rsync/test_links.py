"""Files with several names: none is left behind, and they stay one file."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from tests.engines.linking import searched_until
from tests.engines.rsync.places import Place, assert_done, batch, entry, run, tree


def linked(place: Place, *names: str) -> None:
    (first, *others) = (place.source / name for name in names)
    first.parent.mkdir(exist_ok=True)
    first.write_bytes(b"one")
    for other in others:
        other.parent.mkdir(exist_ok=True)
        os.link(first, other)


def one_file(*paths: Path) -> bool:
    return len({path.stat().st_ino for path in paths}) == 1


def assert_together(place: Place, *names: str) -> None:
    place.assert_equal()
    assert one_file(*(place.target / name for name in names))


def test_a_write_through_one_name_reaches_all(place: Place) -> None:
    linked(place, "a", "d/b")
    place.sync(place.engine(), tree())
    (place.source / "a").write_bytes(b"two!")
    assert_done(place.sync(place.engine(), entry(b"a")))  # an engine that has seen nothing before
    assert_together(place, "a", "d/b")


def test_a_link_made_later_is_one(place: Place) -> None:
    linked(place, "a")
    place.sync(place.engine(), tree())
    (place.source / "d").mkdir()
    os.link(place.source / "a", place.source / "d" / "b")
    assert_done(place.sync(place.engine(), tree(b"d", content=True), entry(b"d/b")))
    assert_together(place, "a", "d/b")


def test_a_write_through_a_name_that_goes_is_not_lost(place: Place) -> None:
    linked(place, "a", "b", "d/c")
    engine = place.engine()

    async def steps() -> None:
        await engine.open()
        assert_done(await engine.sync(batch(tree())))
        (place.source / "a").write_bytes(b"two!")
        os.rename(place.source / "a", place.base / "away")
        assert_done(await engine.sync(batch(entry(b"a"))))
        await engine.close()

    run(steps())
    assert_together(place, "b", "d/c")


def test_a_changed_mode_reaches_all(place: Place) -> None:
    linked(place, "a", "b")
    place.sync(place.engine(), tree())
    (place.source / "a").chmod(0o601)
    outcome = place.sync(place.engine(), entry(b"a", content=False))
    assert outcome.files == 0
    assert_together(place, "a", "b")


def test_a_mode_changed_through_a_name_of_a_fifo_that_goes_is_not_lost(place: Place) -> None:
    os.mkfifo(place.source / "a", 0o640)
    (place.source / "d").mkdir()
    os.link(place.source / "a", place.source / "d" / "b")
    engine = place.engine()

    async def steps() -> None:
        await engine.open()
        assert_done(await engine.sync(batch(tree())))
        (place.source / "a").chmod(0o600)
        (place.source / "a").unlink()
        assert_done(await engine.sync(batch(entry(b"a"))))
        await engine.close()

    run(steps())
    assert ((place.target / "d" / "b").stat().st_mode & 0o777, (place.target / "a").exists()) == (0o600, False)


def test_many_in_one_directory(place: Place) -> None:
    names = [f"d/{number}" for number in range(100)]
    linked(place, *names)
    for number in range(100, 200):
        (place.source / f"d/{number}").write_bytes(b"plain")
    place.sync(place.engine(), tree())
    (place.source / "d/0").write_bytes(b"two!")
    assert_done(place.sync(place.engine(), *(entry(b"d/%d" % number) for number in range(70))))
    assert_together(place, *names)


def test_a_name_that_comes_right_after_a_search_is_joined_a_little_later(place: Place) -> None:
    """The source is not searched again and again."""
    linked(place, "a")
    engine = place.engine()

    async def steps() -> None:
        await engine.open()
        assert_done(await engine.sync(batch(tree())))
        os.link(place.source / "a", place.source / "b")
        searched_until(engine._links, math.inf)
        early = await engine.sync(batch(entry(b"b")))
        assert [again.change.path for again in early.postponed] == [b"b"]
        assert (place.target / "b").read_bytes() == b"one"
        searched_until(engine._links, 0.0)
        assert_done(await engine.sync(batch(*(again.change for again in early.postponed))))
        await engine.close()

    run(steps())
    assert_together(place, "a", "b")


def test_what_was_written_through_a_name_that_went_is_not_forgotten_when_the_target_is_away(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    linked(place, "a", "b")
    engine = place.engine()

    async def steps() -> None:
        await engine.open()
        assert_done(await engine.sync(batch(tree())))
        before = (place.source / "b").stat()
        (place.source / "a").write_bytes(b"two")
        (place.source / "a").unlink()
        os.utime(place.source / "b", ns=(before.st_atime_ns, before.st_mtime_ns))  # To a quick look nothing happened.
        place.target.rename(place.base / "aside")
        with monkeypatch.context() as patched:
            patched.setattr(engine._roots, "trouble", lambda: None)  # It goes right after it was looked at.
            assert (await engine.sync(batch(entry(b"a")))).away
        (place.base / "aside").rename(place.target)
        assert_done(await engine.sync(batch(entry(b"a"))))
        await engine.close()

    run(steps())
    assert (place.target / "b").read_bytes() == b"two"
