"""The engine as a whole: dry run, full disks, dead workers."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import shutil
import signal
import socket
import time

import pytest

from instep.engines.native.attributes import Attributes
from instep.engines.native.engine import NOW_ENTRIES
from instep.engines.native.session import Session
from instep.model import Batch
from instep.paths import Scope
from tests.engines.native.rig import Rig, mounted, needs_root, read, temporaries, well, write
from tests.trees import assert_equal, inodes, snapshot

MIB = 1 << 20
both_roads = pytest.mark.parametrize("now", [True, False])


# -- dry run -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", [Scope.ENTRY, Scope.TREE])
@pytest.mark.parametrize("content", [True, False])
def test_a_dry_run_changes_nothing_and_tells_all(
    base: bytes, scope: Scope, content: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with Rig(base) as rig:
        for name in (b"same", b"updated", b"deleted", b"mode", b"typed", b"alike", b"linked"):
            write(rig.s(name), mtime_ns=5)
        os.makedirs(rig.s(b"gone/deeper"))
        os.symlink(b"old", rig.s(b"link"))
        well(rig.tree(now=True))
    for name in (b"deleted", b"typed"):
        os.unlink(rig.s(name))
    shutil.rmtree(rig.s(b"gone"))
    os.mkdir(rig.s(b"typed"))
    os.makedirs(rig.s(b"new/deep"))
    write(rig.s(b"new/deep/file"))
    write(rig.s(b"created"))
    write(rig.s(b"updated"), b"changed!")
    write(rig.s(b"alike"), b"CONTENT", mtime_ns=5)
    os.chmod(rig.s(b"mode"), 0o700)
    os.link(rig.s(b"linked"), rig.s(b"linked2"))
    os.unlink(rig.s(b"link"))
    os.symlink(b"new", rig.s(b"link"))
    os.mkfifo(rig.s(b"fifo"))
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(rig.s(b"socket"))
    before = (snapshot(rig.dst), inodes(rig.dst), os.stat(rig.dst).st_ctime_ns)
    caplog.set_level(logging.INFO)
    with Rig(base, dry_run=True) as rig:
        if scope is Scope.TREE:
            outcome = rig.tree(content=content)
        else:
            outcome = rig.bring(*sorted({*os.listdir(rig.src), *os.listdir(rig.dst)}), scope=Scope.TREE)
        well(outcome)
    assert (snapshot(rig.dst), inodes(rig.dst), os.stat(rig.dst).st_ctime_ns) == before
    told = " ".join(str(record.__dict__["fields"]["what"]) for record in caplog.records if record.msg == "would-change")
    for expected in (
        "updated",
        "deleted",
        "created",
        "alike",
        "typed",
        "new/",
        "gone",
        "link",
        "fifo",
        "socket",
        "linked2",
    ):
        assert expected in told, expected
    assert "same" not in told
    assert outcome.deleted >= 2


# -- full and failing targets --------------------------------------------------------------------------------------


@pytest.mark.root
@needs_root
@both_roads
@pytest.mark.parametrize("what", ["one", "many", "large", "linked", "inodes"])
def test_a_full_target(base: bytes, now: bool, what: str) -> None:
    """Said so, nothing half-made, no temporary names; what fits comes over later."""
    large = 2 * MIB if what == "large" else 64 * MIB
    options = "size=1m,nr_inodes=100"
    with (
        Rig(base) as outer,
        mounted(outer.dst, "-t", "tmpfs", "-o", options, "tmpfs"),
        Rig(base, large_bytes=large) as rig,
    ):
        os.mkdir(rig.s(b"d"))
        if what in {"one", "large", "linked"}:
            write(rig.s(b"d/f"), os.urandom(3 * MIB))
            if what == "linked":
                os.link(rig.s(b"d/f"), rig.s(b"d/f2"))
        else:
            for number in range(150):
                write(rig.s(b"d/%d" % number), os.urandom(20_000) if what == "many" else b"")
        outcome = rig.bring(b"d", scope=Scope.TREE, now=now)
        assert outcome.full
        assert not temporaries(rig.dst)
        for name in os.listdir(rig.d(b"d")):
            assert read(rig.d(b"d/" + name)) == read(rig.s(b"d/" + name))
        shutil.rmtree(rig.s(b"d"))
        os.mkdir(rig.s(b"d"))
        write(rig.s(b"d/small"))
        rig.clean(rig.tree(now=now))


@both_roads
def test_one_failure_does_not_stop_the_rest(rig: Rig, now: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that the target's file system cannot take: here, one that is a directory we may not replace."""
    for name in (b"a", b"b", b"c"):
        write(rig.s(name))
    rig.clean(rig.tree(now=now))
    os.mkdir(rig.s(b"new"))
    for number in range(20):
        write(rig.s(b"new/%d" % number))
    rig.clean(rig.bring(b"never-was/deeper", b"a/below-a-file", b"new", scope=Scope.TREE, now=now))


# -- what sync_now leaves for sync ---------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", list(Scope))
@pytest.mark.parametrize("shape", ["wide", "deep", "large"])
def test_a_new_directory_comes_whole_whatever_the_report(base: bytes, scope: Scope, shape: str) -> None:
    with Rig(base, large_bytes=MIB) as rig:
        os.mkdir(rig.s(b"d"))
        if shape == "wide":
            for number in range(NOW_ENTRIES + 30):
                os.makedirs(rig.s(b"d/%d/x" % number))
                write(rig.s(b"d/%d/x/f" % number))
        elif shape == "deep":
            os.makedirs(rig.s(b"d" + b"/e" * (NOW_ENTRIES + 30)))
        else:
            os.mkdir(rig.s(b"d/e"))
            write(rig.s(b"d/e/f"), os.urandom(2 * MIB))
        rig.clean(rig.bring(b"d", scope=scope))


@both_roads
@pytest.mark.parametrize(
    ("path", "scope"), [(b"a/b/c/1", Scope.ENTRY), (b"a/b/c", Scope.ENTRY), (b"a/b/c", Scope.TREE)]
)
def test_a_missing_ancestor_comes_whole(rig: Rig, now: bool, path: bytes, scope: Scope) -> None:
    os.makedirs(rig.s(b"a/b/c"))
    for number in range(NOW_ENTRIES + 30):
        write(rig.s(b"a/b/c/%d" % number))
        os.mkdir(rig.s(b"a/%d" % number))
        os.mkdir(rig.s(b"a/%d/x" % number))
    rig.clean(rig.bring(path, scope=scope, now=now))


@pytest.mark.root
@needs_root
@both_roads
@pytest.mark.parametrize("tree", [True, False])
def test_a_full_target_still_loses_what_the_source_lost(base: bytes, now: bool, tree: bool) -> None:
    """What is deleted makes room, wherever in the batch it stands; what fits comes over meanwhile."""
    with (
        Rig(base) as outer,
        mounted(outer.dst, "-t", "tmpfs", "-o", "size=2m", "tmpfs"),
        Rig(base, large_bytes=64 * MIB) as rig,
    ):
        os.mkdir(rig.s(b"y"))
        write(rig.s(b"y/old"), os.urandom(MIB))
        rig.clean(rig.tree(now=now))
        os.unlink(rig.s(b"y/old"))
        os.mkdir(rig.s(b"a"))
        write(rig.s(b"a/big"), os.urandom(3 * MIB // 2))
        for number in range(100):
            write(rig.s(b"b%d" % number), b"small")
        names = [b"a", *(b"b%d" % number for number in range(100)), b"y/old"]
        again = []
        for _ in range(2):
            again.append(rig.tree(now=now) if tree else rig.bring(*names, scope=Scope.TREE, now=now))
            assert not os.path.exists(rig.d(b"y/old"))
            assert read(rig.d(b"b99")) == b"small"
        assert_equal(rig.src, rig.dst)
        well(again[1])


@pytest.mark.root
@needs_root
def test_on_a_full_target_what_cannot_fit_is_not_even_tried(base: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole tree that does not fit would be written again and again otherwise, at each new try."""
    with (
        Rig(base) as outer,
        mounted(outer.dst, "-t", "tmpfs", "-o", "size=1m", "tmpfs"),
        Rig(base, large_bytes=64 * MIB) as rig,
    ):
        for number in range(10):
            write(rig.s(b"%d" % number), os.urandom(3 * MIB // 2))
        made: list[bytes] = []
        temporary = Session.temporary

        def noted(session: Session) -> bytes:
            made.append(temporary(session))
            return made[-1]

        monkeypatch.setattr(Session, "temporary", noted)
        assert rig.bring(*(b"%d" % number for number in range(10))).full
        assert len(made) == 1


# -- workers -------------------------------------------------------------------------------------------------------


def _slow(base: bytes) -> Rig:
    return Rig(base, bandwidth_bytes_per_s=300_000.0)


def test_the_bandwidth_limit_holds(base: bytes) -> None:
    with Rig(base, bandwidth_bytes_per_s=2_000_000.0) as rig:
        for number in range(10):
            write(rig.s(b"%d" % number), os.urandom(100_000))
        rig.run(rig.engine._pool.warm() if rig.engine._pool else asyncio.sleep(0))
        since_s = time.monotonic()
        rig.clean(rig.tree(now=True))
        assert time.monotonic() - since_s > 0.4


async def _until_copying(rig: Rig) -> None:
    deadline_s = time.monotonic() + 60
    while not temporaries(rig.dst):
        assert time.monotonic() < deadline_s
        await asyncio.sleep(0.005)


def test_a_worker_killed_in_the_middle(base: bytes) -> None:
    """Its paths count as failed, the next batch has a new worker, and the next comparison sweeps what it left."""
    with _slow(base) as rig:
        write(rig.s(b"f"), os.urandom(2 * MIB))

        async def kill() -> object:
            task = asyncio.create_task(rig.engine.sync(Batch(rig.changes([b"f"]), time.monotonic())))
            await _until_copying(rig)
            assert rig.engine._pool is not None
            (worker,) = rig.engine._pool._all
            os.kill(worker.pid, signal.SIGKILL)
            return await task

        outcome = rig.run(kill())
        assert [failure.change.path for failure in outcome.failures] == [b"f"]
        assert "worker" in outcome.failures[0].reason
        write(rig.s(b"f"), b"small now")
        well(rig.bring(b"f"))
        assert temporaries(rig.dst)
        rig.clean(rig.tree())
        assert not temporaries(rig.dst)


def test_an_engine_closed_in_the_middle_works_again(base: bytes) -> None:
    with _slow(base) as rig:
        write(rig.s(b"f"), os.urandom(2 * MIB))

        async def close() -> None:
            task = asyncio.create_task(rig.engine.sync(Batch(rig.changes([b"f"]), time.monotonic())))
            await _until_copying(rig)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            await rig.engine.close()

        rig.run(close())
        assert not os.path.exists(rig.d(b"f"))
        assert rig.run(rig.engine.open()) is True
        write(rig.s(b"f"), b"small now")
        rig.clean(rig.tree())


@pytest.mark.parametrize("by", ["nothing", "a file"])
@pytest.mark.parametrize("entries", [20, 300])
def test_a_large_removal_does_not_hold_up_the_loop(rig: Rig, entries: int, by: str) -> None:
    os.makedirs(rig.d(b"d/below"))
    for number in range(entries):
        write(rig.d(b"d/below/f%d" % number))
    if by == "a file":
        write(rig.s(b"d"))
    _, left = rig.engine.sync_now(Batch(rig.changes([b"d"]), time.monotonic()))
    assert bool(left) == (entries > 128)
    assert os.path.isdir(rig.d(b"d")) == bool(left)
    rig.clean(rig.bring(b"d"))


def test_many_batches_side_by_side(rig: Rig) -> None:
    for number in range(8):
        os.mkdir(rig.s(b"%d" % number))
        for file in range(50):
            write(rig.s(b"%d/%d" % (number, file)))

    async def all_at_once() -> list[object]:
        return await asyncio.gather(
            *(
                rig.engine.sync(Batch(rig.changes([b"%d" % number], scope=Scope.TREE), time.monotonic()))
                for number in range(8)
            )
        )

    for outcome in rig.run(all_at_once()):
        well(outcome)
    rig.clean(rig.tree(now=True))


def test_entries_that_vanish_while_a_tree_is_compared(rig: Rig) -> None:
    """Neither an exception nor a failure: what is gone is gone."""
    import threading

    os.mkdir(rig.s(b"d"))
    stop = threading.Event()

    def churn() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            path = rig.s(b"d/%d" % (number % 40))
            if number % 3:
                write(path)
                with contextlib.suppress(FileNotFoundError):
                    os.setxattr(path, b"user.x", b"1")
            else:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _ in range(60):
            assert not rig.tree(now=True).failures
            assert not rig.tree(content=True, now=True).failures
    finally:
        stop.set()
        thread.join()
    rig.clean(rig.tree(now=True, content=True))


def test_an_xattr_that_vanishes_while_it_is_compared(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    write(rig.s(b"f"))
    os.mkfifo(rig.s(b"p"))
    well(rig.tree(now=True))

    def vanished(*_: object) -> bool:
        raise FileNotFoundError(errno.ENOENT, "gone")

    monkeypatch.setattr(Attributes, "xattrs_differ", vanished)
    rig.tree(now=True)
    monkeypatch.undo()
    rig.clean(rig.tree(now=True))


def test_another_worker_makes_the_same_directory(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    os.makedirs(rig.s(b"new/deeper"))
    genuine = os.mkdir
    raced: list[object] = []

    def mkdir(name: str | bytes, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        if os.fsencode(name) == b"new" and not raced:
            raced.append(name)
            genuine(name, mode, dir_fd=dir_fd)
        genuine(name, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "mkdir", mkdir)
    rig.clean(rig.tree(now=True))
    assert raced


# -- nothing is left -----------------------------------------------------------------------------------------------


def test_no_descriptor_is_left_open(rig: Rig) -> None:
    os.makedirs(rig.s(b"a/b"))
    write(rig.s(b"a/b/f"))
    os.link(rig.s(b"a/b/f"), rig.s(b"g"))
    well(rig.tree(now=True))
    assert rig.engine._pool is not None
    rig.run(rig.engine._pool.warm())  # slow turns of the machine are work for them, and they have pipes
    before = len(os.listdir("/proc/self/fd"))
    for number in range(10):
        write(rig.s(b"a/b/f"), b"%d" % number)
        rig.bring(b"a/b/f", b"a/none/x", b"g/x", b"gone")
        os.makedirs(rig.s(b"n/m"))
        rig.bring(b"n", scope=Scope.TREE)
        shutil.rmtree(rig.s(b"n"))
        rig.bring(b"n")
        rig.tree(now=True)
    assert len(os.listdir("/proc/self/fd")) == before


# -- a disk that lost something ------------------------------------------------------------------------------------


@both_roads
@pytest.mark.parametrize("top", [b"d/f", b"d", b""])
def test_what_was_on_its_way_when_a_loss_was_told_is_read_from_the_disk_too(
    base: bytes, monkeypatch: pytest.MonkeyPatch, top: bytes, now: bool
) -> None:
    """Part of it may be lost already, and it has its name only when it is whole."""
    forgotten: list[int] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda fd, *_: forgotten.append(os.fstat(fd).st_ino))
    scope = Scope.ENTRY if top == b"d/f" else Scope.TREE
    with Rig(base) as rig:
        os.mkdir(rig.s(b"d"))
        write(rig.s(b"d/f"), bytes(100_000))
        rig.clean(rig.tree())
        rig.engine.distrust(rig.changes([b"d/f"]))
        write(rig.d(b"d/arriving"), bytes(100_000), mtime_ns=os.stat(rig.s(b"d/f")).st_mtime_ns)
        os.rename(rig.d(b"d/arriving"), rig.d(b"d/f"))
        late = os.stat(rig.d(b"d/f")).st_ino
        assert late not in forgotten
        well(rig.bring(top, scope=scope, content=False, now=now))
        assert late not in forgotten, "nothing was compared"
        well(rig.bring(top, scope=scope, now=now))
        assert forgotten.count(late) == 1
        write(rig.s(b"d/f"), bytes(100_001))
        well(rig.bring(top, scope=scope, now=now))
        assert forgotten.count(late) == 1, "it has been asked for"
