"""Names that the source lacks: counted before any of them goes."""

from __future__ import annotations

import os

import pytest

from instep.engines.native import pruning
from instep.engines.native.extra import count_below, survey
from instep.engines.native.session import Session, Settings
from instep.model import Deletions, Held
from instep.paths import ROOT, Scope
from instep.rules import Preserve, Rule
from instep.spec import MaxDelete
from tests.engines.native.rig import Rig, mounted, needs_root, read, temporaries, well, write

both_roads = pytest.mark.parametrize("now", [True, False])
NONE = MaxDelete(0, 0)


def fill(rig: Rig, directories: int, files: int = 3) -> int:
    """The number of names made at the target."""
    for number in range(directories):
        os.makedirs(rig.d(b"d%d/sub" % number))
        for name in range(files):
            write(rig.d(b"d%d/sub/%d" % (number, name)))
    return directories * (2 + files)


def names(root: bytes) -> int:
    return sum(len(directories) + len(files) for _, directories, files in os.walk(root))


def test_what_was_found_is_summed_up() -> None:
    found = survey([(b"a/b", 3, [b"x", b"y"], []), (b"", 1, [b"z"], [b"e", b"f"]), (b"a/b", 1, [b"w"], [b"g"])])
    assert found.names == 8
    assert found.below == [b"e", b"f", b"a/b/g"]
    assert found.places == [b"a/b", b""]
    assert found.sample == (b"e", b"f", b"z", b"a/b/g", b"a/b/w")


def test_counting_stops_and_leaves_out_what_would_stay(base: bytes) -> None:
    with Rig(base) as rig:
        fill(rig, 2, files=10)
        write(rig.d(b"d0/keep"))
        os.makedirs(rig.d(b"d1/keep/below"))
        os.symlink(rig.d(b"d0"), rig.d(b"d1/link"))
        target = os.open(rig.dst, os.O_RDONLY | os.O_DIRECTORY)
        try:

            def count(*, most: float = 1000, delete_excluded: bool = False) -> int:
                rules = (Rule(include=False, pattern=b"keep"),)
                settings = Settings(Preserve(), rules, delete_excluded=delete_excluded)
                return count_below(Session(rig.source_fd, target, settings), [b"d0", b"d1", b"gone"], most)

            assert count() == 23
            assert count(delete_excluded=True) == 26
            assert 5 < count(most=5) < 23
        finally:
            os.close(target)


@both_roads
@pytest.mark.parametrize("files", [2, 200])
def test_too_many_are_held_and_all_else_is_done(base: bytes, now: bool, files: int) -> None:
    with Rig(base, max_delete=NONE) as rig:
        count = fill(rig, 2, files)
        os.makedirs(rig.d(b"way/below"))  # In the way of a file: that is no deletion.
        write(rig.d(b".instep-old-1-1.tmp"))
        for name in (b"way", b"new"):
            write(rig.s(name))
        outcome = rig.tree(now=now)
        well(outcome)
        assert outcome.held is not None
        assert outcome.held.count == count
        assert outcome.held.of >= count
        assert outcome.held.counted
        assert outcome.held.sample == (b"d0", b"d1")
        assert names(rig.dst) == count + 2
        assert read(rig.d(b"way")) == read(rig.d(b"new")) == b"content"
        assert not temporaries(rig.dst)
        # The same again: it is no failure, and nothing is remembered.
        assert rig.tree(now=now).held == Held(count, count + 2, (b"d0", b"d1"))
        outcome = rig.tree(now=now, deletions=Deletions.CONFIRMED)
        assert outcome.held is None
        rig.clean(outcome)


@both_roads
@pytest.mark.parametrize("files", [2, 200])
def test_as_many_as_allowed_go_at_once(base: bytes, now: bool, files: int) -> None:
    with Rig(base, max_delete=MaxDelete(50, 0)) as rig:
        count = fill(rig, 1, files)
        for number in range(count - 1):
            for root in (rig.src, rig.dst):
                write(os.path.join(root, b"kept%d" % number), mtime_ns=1)
        assert rig.tree(now=now).held == Held(count, 2 * count - 1, (b"d0",))
        for root in (rig.src, rig.dst):
            write(os.path.join(root, b"one more"), mtime_ns=1)
        outcome = rig.tree(now=now)
        assert outcome.held is None
        assert outcome.deleted == count
        rig.clean(outcome)


@both_roads
def test_not_one_goes_while_a_part_of_the_source_is_missing(base: bytes, now: bool) -> None:
    with Rig(base, max_delete=MaxDelete()) as rig:
        write(rig.d(b"one"))
        write(rig.s(b"other"))
        outcome = rig.tree(now=now, deletions=Deletions.NONE)
        well(outcome)
        assert outcome.held is not None
        assert (outcome.held.count, outcome.held.sample) == (1, (b"one",))
        assert sorted(os.listdir(rig.dst)) == [b"one", b"other"]
        rig.clean(rig.tree(now=now))


@both_roads
@pytest.mark.parametrize("mode", [Deletions.HELD, Deletions.NONE])
def test_what_is_reported_goes_while_others_are_held(base: bytes, now: bool, mode: Deletions) -> None:
    with Rig(base, max_delete=NONE) as rig:
        fill(rig, 2)
        write(rig.d(b"reported"))
        well(rig.bring(b"reported", b"d1", now=now, deletions=mode))
        assert os.listdir(rig.dst) == [b"d0"]
        # A list of names is no report of each.
        os.makedirs(rig.s(b"d0/sub"))
        for path, scope in ((b"", Scope.LIST), (b"d0/sub", Scope.LIST), (b"d0", Scope.TREE)):
            outcome = rig.bring(path, scope=scope, now=now, deletions=mode)
            well(outcome)
            assert outcome.held is None
            assert names(rig.dst) == 5
        rig.clean(rig.bring(b"d0", scope=Scope.TREE, now=now))


def test_counting_stops_somewhere(base: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "COUNTED_LEAST", 100)
    with Rig(base, max_delete=NONE) as rig:
        fill(rig, 4, files=150)
        held = rig.tree().held
        assert held is not None
        assert 100 < held.count < 600
        assert not held.counted
        assert names(rig.dst) == 608


@pytest.mark.parametrize("settings", [{"delete": False}, {"dry_run": True}])
def test_without_deletions_nothing_is_held(base: bytes, settings: dict[str, bool]) -> None:
    with Rig(base, max_delete=NONE, **settings) as rig:
        count = fill(rig, 2)
        assert rig.tree().held is None
        assert names(rig.dst) == count


@both_roads
def test_linked_and_large_files_beside_what_goes(base: bytes, now: bool) -> None:
    """Their directory is looked at twice; they are brought over once."""
    with Rig(base, large_bytes=1 << 20) as rig:
        write(rig.s(b"one"))
        os.link(rig.s(b"one"), rig.s(b"two"))
        write(rig.s(b"large"), os.urandom(2 << 20))
        write(rig.d(b"gone"))
        outcome = rig.tree(now=now)
        rig.clean(outcome)
        assert outcome.files == 2
        assert outcome.deleted == 1
        assert os.stat(rig.d(b"one")).st_nlink == 2


@pytest.mark.root
@needs_root
@both_roads
def test_on_a_full_target_what_may_go_goes_first(base: bytes, now: bool) -> None:
    with (
        Rig(base) as outer,
        mounted(outer.dst, "-t", "tmpfs", "-o", "size=4m", "tmpfs"),
        Rig(base) as rig,
    ):
        write(rig.d(b"old"), os.urandom(3 << 20))
        write(rig.s(b"new"), os.urandom(3 << 20))
        rig.clean(rig.tree(now=now))
        os.rename(rig.s(b"new"), rig.s(b"newer"))
        with open(rig.s(b"newer"), "ab") as file:
            file.write(b"more")
        rig.clean(rig.tree(now=now))


def test_nothing_is_held_where_nothing_is_compared_as_a_whole(base: bytes) -> None:
    with Rig(base, max_delete=NONE) as rig:
        write(rig.d(b"gone"))
        well(rig.bring(ROOT, scope=Scope.LIST))
        assert os.listdir(rig.dst) == []
