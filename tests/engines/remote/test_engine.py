"""The engine with a real agent at the end of a pipe."""

from __future__ import annotations

import os
import shutil
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from instep.engines.hardlinks import Links
from instep.engines.remote.names import Names
from instep.engines.remote.request import Item
from instep.engines.remote.session import Session
from instep.paths import Scope
from instep.spec import Compress
from tests.engines.remote.rig import Rig, needs_root, read, well, write


def test_small_changes_are_brought_over(rig: Rig) -> None:
    write(rig.s(b"a"), b"one")
    outcome = rig.bring(b"a")
    rig.clean(outcome)
    assert outcome.files == 1
    assert outcome.bytes_copied == 3
    write(rig.s(b"a"), b"two")
    os.mkdir(rig.s(b"d"))
    write(rig.s(b"d/b"), b"x" * 5000)
    os.symlink("a", rig.s(b"l"))
    os.mkfifo(rig.s(b"f"))
    rig.clean(rig.bring(b"a", b"d", b"d/b", b"l", b"f"))
    os.unlink(rig.s(b"a"))
    shutil.rmtree(rig.s(b"d"))
    outcome = rig.bring(b"a", b"d")
    rig.clean(outcome)
    assert outcome.deleted == 3


def test_a_tree_is_brought_over_and_compared(rig: Rig) -> None:
    for i in range(30):
        os.makedirs(rig.s(b"d%d/e" % i))
        for j in range(30):
            write(rig.s(b"d%d/e/f%d" % (i, j)), b"%d" % (i * j))
    outcome = rig.tree()
    rig.clean(outcome)
    assert outcome.files == 900
    again = rig.tree()
    rig.clean(again)
    assert (again.files, again.entries, again.deleted) == (0, 0, 0)
    os.unlink(rig.s(b"d3/e/f4"))
    write(rig.s(b"d4/e/f4"), b"another")
    shutil.rmtree(rig.s(b"d5"))
    write(rig.d(b"extra"), b"x")
    os.mkdir(rig.s(b"d6/new"))
    write(rig.s(b"d6/new/x"), b"x")
    outcome = rig.tree()
    rig.clean(outcome)
    assert outcome.files == 2
    assert outcome.deleted == 1 + 32 + 1


def test_a_move_is_a_rename(rig: Rig) -> None:
    os.mkdir(rig.s(b"d"))
    os.mkdir(rig.s(b"to"))
    for i in range(10):
        write(rig.s(b"d/f%d" % i), b"%d" % i)
    write(rig.s(b"g"), b"g")
    rig.clean(rig.tree())
    inode = os.stat(rig.d(b"d/f1")).st_ino
    os.rename(rig.s(b"d"), rig.s(b"to/n"))
    os.rename(rig.s(b"g"), rig.s(b"h"))
    outcome = rig.bring(b"to/n", b"d", b"h", b"g", moves={b"to/n": b"d", b"h": b"g"})
    rig.clean(outcome)
    assert os.stat(rig.d(b"to/n/f1")).st_ino == inode
    assert outcome.files == 0


def test_hard_links_are_kept(rig: Rig) -> None:
    os.mkdir(rig.s(b"a"))
    os.mkdir(rig.s(b"d"))
    write(rig.s(b"a/a"), b"x" * 100)
    os.link(rig.s(b"a/a"), rig.s(b"d/b"))
    rig.clean(rig.tree())
    assert os.stat(rig.d(b"a/a")).st_ino == os.stat(rig.d(b"d/b")).st_ino
    os.link(rig.s(b"a/a"), rig.s(b"c"))
    rig.clean(rig.bring(b"c"))
    with open(rig.s(b"c"), "ab") as file:
        file.write(b"more")
    rig.clean(rig.bring(b"c"))
    assert os.stat(rig.d(b"c")).st_nlink == 3
    assert read(rig.d(b"d/b")).endswith(b"more")


def filled(path: bytes) -> None:
    os.mkdir(path)
    write(path + b"/inner", b"i")


def test_types_replace_each_other(rig: Rig) -> None:
    makers: dict[bytes, Callable[[bytes], object]] = {
        b"file": lambda path: write(path, b"content"),
        b"dir": filled,
        b"link": lambda path: os.symlink(b"file", path),
        b"fifo": os.mkfifo,
        b"none": lambda path: None,
    }
    paths = []
    for one, make in makers.items():
        for other in makers:
            make(rig.s(one + b"-" + other))
            paths.append(one + b"-" + other)
    rig.clean(rig.tree())
    for one in makers:
        for other, make in makers.items():
            path = rig.s(one + b"-" + other)
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path)
            elif os.path.lexists(path):
                os.unlink(path)
            make(path)
    rig.clean(rig.bring(*paths, scope=Scope.TREE))


@pytest.mark.parametrize("now", [True, False])
@pytest.mark.parametrize("what", ["replaced", "removed", "moved", "removed with its directory", "known since just now"])
def test_what_was_written_through_a_name_that_then_went(rig: Rig, what: str, now: bool) -> None:
    """It is reported under that name alone; the others have it too."""
    os.mkdir(rig.s(b"d"))
    write(rig.s(b"d/a"), b"old")
    if what == "known since just now":
        rig.clean(rig.tree())
        os.link(rig.s(b"d/a"), rig.s(b"b"))
        rig.clean(rig.bring(b"b", now=now))
    else:
        os.link(rig.s(b"d/a"), rig.s(b"b"))
        rig.clean(rig.tree())
    info = os.stat(rig.s(b"b"))
    write(rig.s(b"d/a"), b"new")
    os.utime(rig.s(b"d/a"), ns=(info.st_atime_ns, info.st_mtime_ns))
    if what == "removed":
        os.unlink(rig.s(b"d/a"))
        rig.clean(rig.bring(b"d/a", now=now))
    elif what == "moved":
        os.rename(rig.s(b"d/a"), rig.s(b"c"))
        rig.clean(rig.bring(b"d/a", b"c", now=now))
    elif what == "removed with its directory":
        shutil.rmtree(rig.s(b"d"))
        rig.clean(rig.bring(b"d", scope=Scope.TREE, now=now))
    else:
        write(rig.s(b"d/x"), b"another")
        os.rename(rig.s(b"d/x"), rig.s(b"d/a"))
        rig.clean(rig.bring(b"d/a", now=now))
    assert read(rig.d(b"b")) == b"new"


@pytest.mark.parametrize("now", [True, False])
def test_a_name_that_went_while_its_file_was_looked_at(rig: Rig, monkeypatch: pytest.MonkeyPatch, now: bool) -> None:
    """Its own report may have been dealt with meanwhile: it must not be made again."""
    write(rig.s(b"a"), b"old")
    os.link(rig.s(b"a"), rig.s(b"b"))
    rig.clean(rig.tree())
    monkeypatch.setattr(Links, "names", lambda *_: [b"a", b"b", b"gone", b"no/directory"])
    write(rig.s(b"a"), b"new")
    rig.clean(rig.bring(b"a", now=now))


def test_attributes_alone(rig: Rig) -> None:
    write(rig.s(b"a"), b"x")
    write(rig.s(b"big"), b"y" * 3_000_000)
    os.mkdir(rig.s(b"d"))
    rig.clean(rig.tree())
    inodes = [os.stat(rig.d(name)).st_ino for name in (b"a", b"big")]
    os.chmod(rig.s(b"a"), 0o4711)
    os.chmod(rig.s(b"big"), 0o600)
    os.chmod(rig.s(b"d"), 0o1777)
    os.setxattr(rig.s(b"d"), "user.k", b"v")
    os.setxattr(rig.s(b"a"), "user.k", b"v")
    outcome = rig.bring(b"a", b"big", b"d", content=False)
    rig.clean(outcome)
    assert outcome.files == 0
    assert [os.stat(rig.d(name)).st_ino for name in (b"a", b"big")] == inodes
    os.removexattr(rig.s(b"a"), "user.k")
    rig.clean(rig.tree())


@pytest.mark.parametrize("now", [True, False])
def test_attributes_of_a_directory_are_read_right_before_they_are_sent(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, now: bool
) -> None:
    """Read in another thread they might be sent behind newer ones, which another job has read since."""
    os.mkdir(rig.s(b"d"))
    rig.clean(rig.tree())
    reading = Names.own
    readers: set[str] = set()

    def own(names: Names, item: Item, fd: int) -> None:
        readers.add(threading.current_thread().name)
        reading(names, item, fd)

    monkeypatch.setattr(Names, "own", own)
    os.utime(rig.s(b"d"), (1, 1))
    rig.clean(rig.bring(b"d", content=False, now=now))
    assert readers == {threading.main_thread().name}


@pytest.mark.parametrize("now", [True, False])
@pytest.mark.parametrize("names", [1, 2])
@pytest.mark.parametrize("size", [3, 200_000, 3_000_000])
def test_a_new_time_alone_leaves_that_of_the_directory(rig: Rig, size: int, names: int, now: bool) -> None:
    """The agent may write the file anew for it, which the directory shows."""
    os.mkdir(rig.s(b"d"))
    os.mkdir(rig.s(b"d/e"))
    paths = [b"d/f%d" % number for number in range(names)]
    for path in paths:
        write(rig.s(path), b"y" * size)
    rig.clean(rig.tree())
    for path in paths:
        os.utime(rig.s(path), (1, 1))
    rig.clean(rig.bring(*paths, content=False, now=now))
    os.rmdir(rig.d(b"d/e"))
    os.utime(rig.d(b"d"), ns=(0, os.stat(rig.s(b"d")).st_mtime_ns))
    rig.clean(rig.bring(b"d/e", content=False, now=now))


def test_a_new_directory_that_goes_before_it_is_filled(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was made out of sight; nothing of it stays."""
    os.makedirs(rig.s(b"d/e/f"))
    opening = Session.open

    def vanishing(session: Session, path: bytes) -> int:
        if path == b"d/e" and os.path.exists(rig.s(b"d/e")):
            os.rename(rig.s(b"d/e"), rig.s(b"d/other"))
        return opening(session, path)

    monkeypatch.setattr(Session, "open", vanishing)
    well(rig.bring(b"d", scope=Scope.TREE))
    assert os.listdir(rig.d(b"d")) == []
    rig.clean(rig.bring(b"d/other", scope=Scope.TREE))


@pytest.mark.parametrize("scope", [Scope.LIST, Scope.TREE])
def test_a_new_directory_that_goes_with_what_is_above_before_it_is_filled(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, scope: Scope
) -> None:
    """For a moment: when its own report comes, what is above is there again, and says nothing of it."""
    os.mkdir(rig.s(b"d"))
    rig.clean(rig.tree())
    os.makedirs(rig.s(b"d/e/f"))
    os.mkdir(rig.s(b"d/g"))
    opening = Session.open

    def vanishing(session: Session, path: bytes) -> int:
        if path in (b"d/e", b"d/g") and os.path.exists(rig.s(b"d")):
            os.rename(rig.s(b"d"), rig.base + b"/aside")
        return opening(session, path)

    monkeypatch.setattr(Session, "open", vanishing)
    well(rig.bring(b"d", scope=scope))
    os.mkdir(rig.s(b"d"))
    rig.clean(rig.bring(b"d", scope=scope))
    assert os.listdir(rig.d(b"d")) == []


@pytest.mark.parametrize("size", [600_000, 1 << 20, 2_000_000, 5_000_000, 8 << 20, 12_000_000])
def test_large_files(rig: Rig, size: int) -> None:
    data = os.urandom(size)
    write(rig.s(b"big"), data)
    outcome = rig.bring(b"big")
    rig.clean(outcome)
    assert outcome.files == 1
    assert outcome.bytes_copied == size
    changed = bytearray(data)
    changed[size // 2] ^= 1
    changed += b"tail"
    write(rig.s(b"big"), bytes(changed))
    outcome = rig.bring(b"big")
    rig.clean(outcome)
    if size > 4 << 20:
        assert outcome.bytes_copied < 300_000
    os.truncate(rig.s(b"big"), size // 2 + 5)
    rig.clean(rig.bring(b"big"))
    rig.clean(rig.tree(content=True))
    assert not [name for name in os.listdir(rig.dst) if name.startswith(b".instep")]


def test_frames_can_be_packed(tmp_path: Path) -> None:
    with Rig(os.fsencode(tmp_path), compress=Compress.ON) as rig:
        for i in range(50):
            write(rig.s(b"text%d" % i), b"the same again and again " * 500)
            write(rig.s(b"noise%d" % i), os.urandom(20_000))
        write(rig.s(b"large"), b"0123456789" * 200_000)
        rig.clean(rig.tree())


def test_sparse_files_stay_sparse(rig: Rig) -> None:
    for name, size in ((b"small", 400_000), (b"large", 40_000_000)):
        with open(rig.s(name), "wb") as file:
            file.truncate(size)
            file.seek(size // 2)
            file.write(b"x" * 4096)
    rig.clean(rig.bring(b"small", b"large"))
    for name in (b"small", b"large"):
        assert os.stat(rig.d(name)).st_blocks <= os.stat(rig.s(name)).st_blocks + 8
    with open(rig.s(b"large"), "r+b") as file:
        file.seek(1_000_000)
        file.write(b"y" * 10)
    rig.clean(rig.bring(b"large"))
    assert os.stat(rig.d(b"large")).st_blocks <= os.stat(rig.s(b"large")).st_blocks + 600


def test_same_size_and_time_is_not_same_content(rig: Rig) -> None:
    write(rig.s(b"a"), b"one")
    rig.clean(rig.tree())
    info = os.stat(rig.s(b"a"))
    write(rig.s(b"a"), b"two")
    os.utime(rig.s(b"a"), ns=(info.st_atime_ns, info.st_mtime_ns))
    rig.clean(rig.tree())
    assert read(rig.d(b"a")) == b"two"


@needs_root
def test_owners_devices_and_acls(rig: Rig) -> None:
    write(rig.s(b"a"), b"x")
    os.chown(rig.s(b"a"), 1234, 4321)
    os.chmod(rig.s(b"a"), 0o4750)
    os.mknod(rig.s(b"null"), stat.S_IFCHR | 0o640, os.makedev(1, 3))
    os.symlink("x", rig.s(b"l"))
    os.chown(rig.s(b"l"), 7, 8, follow_symlinks=False)
    rig.clean(rig.tree())
    rig.clean(rig.tree())


def test_a_missing_directory_at_the_target_is_made_again(rig: Rig) -> None:
    os.makedirs(rig.s(b"a/b/c"))
    write(rig.s(b"a/x"), b"x")
    write(rig.s(b"a/b/c/y"), b"y")
    rig.clean(rig.tree())
    shutil.rmtree(rig.d(b"a"))
    write(rig.s(b"a/b/c/y"), b"yy")
    rig.clean(rig.bring(b"a/b/c/y"))
