"""Deletes, and what they must leave alone."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from instep.paths import Scope
from instep.rules import Rule
from tests.engines.native.rig import Rig, mounted, needs_root, read, temporaries, well, write
from tests.trees import snapshot

ROADS = [(Scope.ENTRY, True), (Scope.ENTRY, False), (Scope.TREE, True), (Scope.TREE, False)]


def _gone(rig: Rig, path: bytes, scope: Scope, *, now: bool) -> object:
    return rig.bring(path if scope is Scope.ENTRY else b"", scope=scope, now=now)


def _nest(root: bytes) -> None:
    os.makedirs(root + b"/gone/a/b/c")
    for path in (b"gone/f", b"gone/a/f", b"gone/a/b/c/f", b"gone/a/keep.me"):
        write(root + b"/" + path)
    os.symlink(b"/", root + b"/gone/a/link")


@pytest.mark.parametrize(("scope", "now"), ROADS)
def test_nested_directories_go(rig: Rig, scope: Scope, now: bool) -> None:
    _nest(rig.dst)
    outcome = rig.bring(b"gone" if scope is Scope.ENTRY else b"", scope=scope, now=now)
    rig.clean(outcome)
    assert outcome.deleted == 9


@pytest.mark.parametrize(("scope", "now"), ROADS)
@pytest.mark.parametrize("delete_excluded", [True, False])
def test_what_is_excluded_stays(base: bytes, scope: Scope, now: bool, delete_excluded: bool) -> None:
    rules = (Rule(include=False, pattern=b"keep.*"),)
    with Rig(base, rules=rules, delete_excluded=delete_excluded) as rig:
        _nest(rig.dst)
        outcome = rig.bring(b"gone" if scope is Scope.ENTRY else b"", scope=scope, now=now)
        well(outcome)
        left = set(snapshot(rig.dst, root_entry=False))
        assert left == (set() if delete_excluded else {b"gone", b"gone/a", b"gone/a/keep.me"})


@pytest.mark.parametrize(("scope", "now"), ROADS)
def test_no_delete(base: bytes, scope: Scope, now: bool) -> None:
    with Rig(base, delete=False) as rig:
        _nest(rig.dst)
        before = snapshot(rig.dst, root_entry=False)
        well(rig.bring(b"gone" if scope is Scope.ENTRY else b"", scope=scope, now=now))
        assert snapshot(rig.dst, root_entry=False) == before


@pytest.mark.parametrize(("scope", "now"), ROADS)
def test_no_delete_keeps_a_directory_that_became_a_file(base: bytes, scope: Scope, now: bool) -> None:
    with Rig(base, delete=False) as rig:
        _nest(rig.dst)
        write(rig.s(b"gone"))
        outcome = rig.bring(b"gone" if scope is Scope.ENTRY else b"", scope=scope, now=now)
        assert [failure.change.path for failure in outcome.failures] == [b"gone"]
        assert read(rig.d(b"gone/a/f")) == b"content"
        assert not temporaries(rig.dst)


@pytest.mark.parametrize(("scope", "now"), ROADS)
def test_a_file_does_not_replace_a_directory_that_holds_what_is_excluded(base: bytes, scope: Scope, now: bool) -> None:
    """And what is excluded does not end up under a temporary name."""
    with Rig(base, rules=(Rule(include=False, pattern=b"keep.*"),)) as rig:
        _nest(rig.dst)
        write(rig.s(b"gone"))
        outcome = rig.bring(b"gone" if scope is Scope.ENTRY else b"", scope=scope, now=now)
        assert b"gone" in [failure.change.path for failure in outcome.failures]
        assert read(rig.d(b"gone/a/keep.me")) == b"content"
        assert not temporaries(rig.dst)


@pytest.fixture(params=["tmpfs", "bind"])
def mount_below(request: pytest.FixtureRequest, rig: Rig) -> Iterator[bytes]:
    """Something mounted in a directory that only the target has."""
    _nest(rig.dst)
    elsewhere = os.path.join(rig.base, b"elsewhere")
    os.mkdir(elsewhere)
    kind = ["-t", "tmpfs", "tmpfs"] if request.param == "tmpfs" else ["--bind", os.fsdecode(elsewhere)]
    with mounted(rig.d(b"gone/mount"), *kind) as point:
        os.mkdir(point + b"/below")
        write(point + b"/below/precious")
        write(point + b"/precious")
        yield point


@pytest.mark.root
@needs_root
@pytest.mark.parametrize("road", [*ROADS, "replace", "the mount itself"], ids=str)
def test_a_mount_point_is_not_entered(rig: Rig, mount_below: bytes, road: str | tuple[Scope, bool]) -> None:
    if road == "replace":
        write(rig.s(b"gone"))
        outcome = rig.bring(b"gone")
    elif road == "the mount itself":
        os.mkdir(rig.s(b"gone"))
        outcome = rig.bring(b"gone/mount")
    else:
        assert isinstance(road, tuple)
        outcome = rig.bring(b"gone" if road[0] is Scope.ENTRY else b"", scope=road[0], now=road[1])
    reasons = {bytes(failure.change.path): failure.reason for failure in outcome.failures}
    assert "mounted" in reasons[b"gone/mount"]
    assert read(mount_below + b"/precious") == b"content"
    assert read(mount_below + b"/below/precious") == b"content"
    assert not temporaries(rig.dst)


def test_stale_temporaries_are_swept_and_ours_are_not(rig: Rig) -> None:
    """Ours: of this process or a living worker. Stale: of another daemon, or of a worker that was killed."""
    session = rig.engine._now
    assert session is not None
    own = session.temporary()
    token = own.split(b"-")[1]
    dead = b".instep-%s-%x-0.tmp" % (token, 2**22 + 1)
    stale = [b".instep-0badcafe-1-0.tmp", dead, b".instep-%s-zz-0.tmp" % token, b".instep-.tmp"]
    os.mkdir(rig.s(b"d"))
    well(rig.tree(now=True))
    for parent in (b"", b"d/"):
        for name in [own, *stale]:
            write(rig.d(parent + name))
        write(rig.s(parent + stale[0]), b"never syncs")
    os.mkdir(rig.d(b".instep-0badcafe-1-1.tmp"))
    write(rig.d(b".instep-0badcafe-1-1.tmp/x"))
    well(rig.tree(now=True))
    assert sorted(snapshot(rig.dst, root_entry=False)) == sorted([own, b"d", b"d/" + own])


def test_what_a_worker_is_writing_stays_even_where_the_excluded_is_deleted(base: bytes) -> None:
    with Rig(base, delete_excluded=True) as rig:
        session = rig.engine._now
        assert session is not None
        own = session.temporary()
        write(rig.d(own))
        well(rig.tree(now=True))
        assert sorted(snapshot(rig.dst, root_entry=False)) == [own]
