"""An ordinary user brings over what it may, and hears of the rest."""

from __future__ import annotations

import os
import stat

import pytest

from instep.paths import Scope
from tests.engines.native.rig import NOBODY, Rig, as_nobody, needs_root, read, temporaries, well, write
from tests.trees import difference, snapshot

pytestmark = [pytest.mark.root, needs_root]


@pytest.fixture
def theirs(base: bytes) -> bytes:
    """A base directory of nobody's."""
    os.chown(base, NOBODY, NOBODY)
    return base


def test_its_own_tree_is_mirrored_exactly(theirs: bytes) -> None:
    def act() -> list[str]:
        with Rig(theirs) as rig:
            os.makedirs(rig.s(b"d/e"))
            write(rig.s(b"d/e/f"), mode=0o400)
            write(rig.s(b"d/g"), mode=0o4711)
            os.setxattr(rig.s(b"d/g"), b"user.x", b"1")
            os.symlink(b"x", rig.s(b"l"))
            os.mkfifo(rig.s(b"p"))
            os.chmod(rig.s(b"d/e"), 0o555)
            os.chmod(rig.s(b"d"), 0o555)
            well(rig.tree(now=True))
            return difference(snapshot(rig.src), snapshot(rig.dst))

    assert as_nobody(act) == []


@pytest.mark.parametrize("scope", [Scope.ENTRY, Scope.TREE])
def test_changes_below_read_only_directories(theirs: bytes, scope: Scope) -> None:
    def act() -> list[str]:
        with Rig(theirs) as rig:
            os.mkdir(rig.s(b"ro"))
            for name in (b"changed", b"removed", b"became"):
                write(rig.s(b"ro/" + name))
            os.chmod(rig.s(b"ro"), 0o555)
            well(rig.tree(now=True))
            write(rig.s(b"ro/changed"), b"other")
            os.chmod(rig.s(b"ro"), 0o755)
            os.unlink(rig.s(b"ro/removed"))
            os.unlink(rig.s(b"ro/became"))
            os.symlink(b"link", rig.s(b"ro/became"))
            write(rig.s(b"ro/new"))
            os.mkdir(rig.s(b"ro/d"))
            write(rig.s(b"ro/d/f"))
            os.chmod(rig.s(b"ro"), 0o555)
            if scope is Scope.TREE:
                well(rig.tree(now=True))
            else:
                paths = [b"ro/" + name for name in (b"changed", b"removed", b"became", b"new", b"d")]
                well(rig.bring(*paths))
            return difference(snapshot(rig.src), snapshot(rig.dst))

    assert as_nobody(act) == []


def test_read_only_trees_are_moved_and_removed(theirs: bytes) -> None:
    def act() -> list[str]:
        with Rig(theirs) as rig:
            for name in (b"gone", b"moved"):
                os.makedirs(rig.s(name + b"/ro"))
                write(rig.s(name + b"/ro/f"))
                os.chmod(rig.s(name + b"/ro"), 0o500)
            os.chmod(rig.s(b"gone"), 0o500)
            well(rig.tree(now=True))
            os.chmod(rig.s(b"gone"), 0o700)
            os.chmod(rig.s(b"gone/ro"), 0o700)
            os.unlink(rig.s(b"gone/ro/f"))
            os.rmdir(rig.s(b"gone/ro"))
            os.rmdir(rig.s(b"gone"))
            os.rename(rig.s(b"moved"), rig.s(b"here"))
            well(rig.bring(b"gone"))
            well(rig.bring(b"here", b"moved", scope=Scope.TREE, moves={b"here": b"moved"}))
            return difference(snapshot(rig.src), snapshot(rig.dst))

    assert as_nobody(act) == []


@pytest.mark.parametrize("scope", [Scope.ENTRY, Scope.TREE])
def test_what_cannot_be_read_fails_and_the_rest_is_done(theirs: bytes, scope: Scope) -> None:
    with Rig(theirs) as rig:
        for path in (rig.src, rig.dst):
            os.chown(path, NOBODY, NOBODY)
        write(rig.s(b"secret"), mode=0o600)
        os.mkdir(rig.s(b"locked"), 0o700)
        os.mkdir(rig.s(b"open"))
        for name in (b"a", b"open/b"):
            write(rig.s(name), mode=0o644)
        os.mknod(rig.s(b"device"), stat.S_IFCHR | 0o666, os.makedev(1, 3))

    def act() -> tuple[set[bytes], list[bytes]]:
        with Rig(theirs) as rig:
            names = sorted(os.listdir(rig.src))
            outcome = rig.tree(now=True) if scope is Scope.TREE else rig.bring(*names, scope=Scope.TREE)
            assert all("ermission" in failure.reason for failure in outcome.failures)
            return {failure.change.path for failure in outcome.failures}, temporaries(rig.dst)

    assert as_nobody(act) == ({b"secret", b"locked"}, [])
    with Rig(theirs) as rig:
        assert read(rig.d(b"a")) == read(rig.d(b"open/b")) == b"content"
        assert not os.path.exists(rig.d(b"device"))
        assert os.stat(rig.d(b"a")).st_uid == NOBODY


def test_what_cannot_be_written_fails_and_the_rest_is_done(theirs: bytes) -> None:
    """A directory of another user in the target, and a file of another user in a directory of ours."""
    with Rig(theirs) as rig:
        for path in (rig.src, rig.dst):
            os.chown(path, NOBODY, NOBODY)
        for root in (rig.src, rig.dst):
            os.mkdir(os.path.join(root, b"d"), 0o755)
            write(os.path.join(root, b"d/x"), root)
            write(os.path.join(root, b"theirs"), root, mode=0o644)
        write(rig.s(b"fine"), mode=0o644)

    def act() -> set[bytes]:
        with Rig(theirs) as rig:
            outcome = rig.tree(content=True, now=True)
            outcome.add(rig.bring(b"d/x"))
            assert not temporaries(rig.dst)
            return {failure.change.path for failure in outcome.failures}

    assert as_nobody(act) == {b"d", b"d/x"}
    with Rig(theirs) as rig:
        assert read(rig.d(b"theirs")) == rig.src  # replaced: its directory is ours
        assert read(rig.d(b"fine")) == b"content"
        assert read(rig.d(b"d/x")) == rig.dst
