"""A rename at the source is a rename at the target, where that is sure to be right."""

from __future__ import annotations

import os
import shutil

import pytest

from instep.paths import Scope
from instep.rules import Rule
from tests.engines.native.rig import Rig, read, well, write
from tests.trees import assert_equal

both_roads = pytest.mark.parametrize("now", [True, False])


@both_roads
def test_a_file_keeps_its_inode(rig: Rig, now: bool) -> None:
    os.mkdir(rig.s(b"d"))
    write(rig.s(b"a"))
    write(rig.s(b"replaced"))
    rig.clean(rig.tree(now=now))
    inode = os.stat(rig.d(b"a")).st_ino
    os.rename(rig.s(b"a"), rig.s(b"d/b"))
    outcome = rig.bring(b"d/b", b"a", moves={b"d/b": b"a"}, now=now)
    rig.clean(outcome)
    assert outcome.files == 0
    os.rename(rig.s(b"d/b"), rig.s(b"replaced"))
    rig.clean(rig.bring(b"replaced", b"d/b", moves={b"replaced": b"d/b"}, now=now))
    assert os.stat(rig.d(b"replaced")).st_ino == inode


@both_roads
def test_a_directory_keeps_all_below_it(rig: Rig, now: bool) -> None:
    os.makedirs(rig.s(b"d/e"))
    os.mkdir(rig.s(b"into"))
    write(rig.s(b"d/e/f"))
    rig.clean(rig.tree(now=now))
    inode = os.stat(rig.d(b"d/e/f")).st_ino
    os.rename(rig.s(b"d"), rig.s(b"into/d2"))
    rig.clean(rig.bring(b"into/d2", b"d", scope=Scope.TREE, moves={b"into/d2": b"d"}, now=now))
    assert os.stat(rig.d(b"into/d2/e/f")).st_ino == inode


@both_roads
def test_moved_then_changed(rig: Rig, now: bool) -> None:
    write(rig.s(b"a"))
    os.mkdir(rig.s(b"d"))
    rig.clean(rig.tree(now=now))
    os.rename(rig.s(b"a"), rig.s(b"b"))
    write(rig.s(b"b"), b"changed afterwards")
    os.rename(rig.s(b"d"), rig.s(b"e"))
    os.chmod(rig.s(b"e"), 0o700)
    os.utime(rig.s(b"e"), ns=(5, 5))
    rig.clean(rig.bring(b"b", b"a", b"e", b"d", moves={b"b": b"a", b"e": b"d"}, now=now))


@both_roads
@pytest.mark.parametrize("theirs", ["absent", "other size", "other time", "directory", "link"])
def test_refused_when_the_target_holds_something_else(rig: Rig, now: bool, theirs: str) -> None:
    write(rig.s(b"a"), mtime_ns=5)
    rig.clean(rig.tree(now=now))
    os.rename(rig.s(b"a"), rig.s(b"b"))
    old = rig.d(b"a")
    if theirs == "other size":
        write(old, b"more than before", mtime_ns=5)
    elif theirs == "other time":
        write(old, b"forgery", mtime_ns=6)
    else:
        os.unlink(old)
        if theirs == "directory":
            os.mkdir(old)
        elif theirs == "link":
            os.symlink(b"/etc/passwd", old)
    rig.clean(rig.bring(b"b", b"a", moves={b"b": b"a"}, now=now))


@both_roads
@pytest.mark.parametrize("present", ["file", "directory", "full"])
def test_a_directory_replaces_nothing_by_rename(rig: Rig, now: bool, present: str) -> None:
    os.mkdir(rig.s(b"d"))
    write(rig.s(b"d/f"))
    rig.clean(rig.tree(now=now))
    os.rename(rig.s(b"d"), rig.s(b"e"))
    if present == "file":
        write(rig.d(b"e"))
    else:
        os.mkdir(rig.d(b"e"))
        if present == "full":
            write(rig.d(b"e/extra"))
    rig.clean(rig.bring(b"e", b"d", scope=Scope.TREE, moves={b"e": b"d"}, now=now))


@both_roads
def test_a_link_or_a_moved_name_that_is_gone_again(rig: Rig, now: bool) -> None:
    os.symlink(b"text", rig.s(b"l"))
    write(rig.s(b"a"))
    rig.clean(rig.tree(now=now))
    os.rename(rig.s(b"l"), rig.s(b"m"))
    os.unlink(rig.s(b"a"))
    rig.clean(rig.bring(b"m", b"l", b"b", b"a", moves={b"m": b"l", b"b": b"a"}, now=now))


@both_roads
def test_a_chain_of_files_alike_in_size_and_time(rig: Rig, now: bool) -> None:
    """In the order in which they happened, as the change log gives them out."""
    for name in (b"a", b"b"):
        write(rig.s(name), name, mtime_ns=5)
    rig.clean(rig.tree(now=now))
    os.rename(rig.s(b"b"), rig.s(b"c"))
    os.rename(rig.s(b"a"), rig.s(b"b"))
    rig.clean(rig.bring(b"c", b"b", b"a", moves={b"c": b"b", b"b": b"a"}, now=now))


@both_roads
@pytest.mark.parametrize("pattern", [b"/d/x", b"d/x", b"x"])
def test_filters(base: bytes, now: bool, pattern: bytes) -> None:
    """Only rules of last components leave a moved directory as it was."""
    with Rig(base, rules=(Rule(include=False, pattern=pattern),)) as rig:
        os.mkdir(rig.s(b"d"))
        for name in (b"x", b"y"):
            write(rig.s(b"d/" + name))
        well(rig.tree(now=now))
        assert os.listdir(rig.d(b"d")) == [b"y"]
        inode = os.stat(rig.d(b"d/y")).st_ino
        os.rename(rig.s(b"d"), rig.s(b"e"))
        well(rig.bring(b"e", b"d", scope=Scope.TREE, moves={b"e": b"d"}, now=now))
        assert not os.path.exists(rig.d(b"d"))
        assert sorted(os.listdir(rig.d(b"e"))) == ([b"y"] if pattern == b"x" else [b"x", b"y"])
        assert (os.stat(rig.d(b"e/y")).st_ino == inode) == (pattern == b"x")


@both_roads
def test_a_move_out_of_what_is_excluded(base: bytes, now: bool) -> None:
    with Rig(base, rules=(Rule(include=False, pattern=b"*.part"),)) as rig:
        write(rig.s(b"f.part"))
        write(rig.d(b"f.part"), b"theirs!")
        mtime_ns = os.stat(rig.s(b"f.part")).st_mtime_ns
        os.utime(rig.d(b"f.part"), ns=(mtime_ns, mtime_ns))
        os.rename(rig.s(b"f.part"), rig.s(b"f"))
        well(rig.bring(b"f", moves={b"f": b"f.part"}, now=now))
        assert read(rig.d(b"f")) == b"content"
        assert read(rig.d(b"f.part")) == b"theirs!"


@both_roads
def test_dry_run_moves_nothing(base: bytes, now: bool) -> None:
    with Rig(base) as rig:
        write(rig.s(b"a"))
        rig.clean(rig.tree(now=now))
    with Rig(base, dry_run=True) as rig:
        os.rename(rig.s(b"a"), rig.s(b"b"))
        well(rig.bring(b"b", b"a", moves={b"b": b"a"}, now=now))
        assert os.listdir(rig.dst) == [b"a"]


@both_roads
def test_moved_into_a_new_directory(rig: Rig, now: bool) -> None:
    os.mkdir(rig.s(b"old"))
    write(rig.s(b"old/f"))
    rig.clean(rig.tree(now=now))
    os.makedirs(rig.s(b"new/deeper"))
    os.rename(rig.s(b"old/f"), rig.s(b"new/deeper/f"))
    shutil.rmtree(rig.s(b"old"))
    rig.clean(rig.bring(b"new/deeper/f", b"new", b"old", scope=Scope.TREE, moves={b"new/deeper/f": b"old/f"}, now=now))
    assert_equal(rig.src, rig.dst)
