"""Contents: when they count as the same, and how they get over."""

from __future__ import annotations

import contextlib
import mmap
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from instep.engines.native import content as bytes_of
from instep.engines.native.attributes import Attributes
from instep.engines.native.content import Brake, Cancelled, patch, same
from instep.model import Batch
from instep.paths import ROOT, Scope
from tests.engines.native.rig import Rig, mounted, needs_root, read, temporaries, well, write
from tests.trees import assert_equal

THEN_NS = 1_500_000_000 * 10**9 + 123_456_789
MIB = 1 << 20


def _rewrite_alike(path: bytes, data: bytes) -> None:
    """Other content, same size, same time."""
    info = os.stat(path)
    assert len(data) == info.st_size
    write(path, data, mtime_ns=info.st_mtime_ns)


@pytest.mark.parametrize("now", [True, False])
@pytest.mark.parametrize("scope", [Scope.ENTRY, Scope.TREE])
def test_same_size_and_time_is_not_same_content(rig: Rig, scope: Scope, now: bool) -> None:
    write(rig.s(b"f"), b"aaaa", mtime_ns=THEN_NS)
    rig.clean(rig.tree(now=now))
    _rewrite_alike(rig.s(b"f"), b"bbbb")
    # The target's clock says that it was touched last: only the report knows.
    os.utime(rig.d(b"f"), ns=(THEN_NS, THEN_NS))
    outcome = rig.bring(b"f" if scope is Scope.ENTRY else ROOT, scope=scope, content=True, now=now)
    rig.clean(outcome)
    assert outcome.files == 1


@pytest.mark.parametrize("now", [True, False])
def test_start_up_finds_two_files_swapped_by_rename(rig: Rig, now: bool) -> None:
    """rsync's quick check never does."""
    write(rig.s(b"a"), b"aaaa", mtime_ns=THEN_NS)
    write(rig.s(b"b"), b"bbbb", mtime_ns=THEN_NS)
    rig.clean(rig.tree(now=now))
    os.rename(rig.s(b"a"), rig.s(b"t"))
    os.rename(rig.s(b"b"), rig.s(b"a"))
    os.rename(rig.s(b"t"), rig.s(b"b"))
    outcome = rig.tree(content=False, now=now)
    rig.clean(outcome)
    assert read(rig.d(b"a")) == b"bbbb"
    assert outcome.files == 2


def test_start_up_finds_a_file_rewritten_with_its_old_time(rig: Rig) -> None:
    write(rig.s(b"a"), b"aaaa", mtime_ns=THEN_NS)
    rig.clean(rig.tree(now=True))
    _rewrite_alike(rig.s(b"a"), b"bbbb")
    rig.clean(rig.tree(content=False, now=True))


def test_what_was_proven_equal_is_not_read_again(rig: Rig) -> None:
    _with_newer_ctime(rig)
    rig.clean(rig.tree(content=False, now=True))
    assert os.stat(rig.d(b"a")).st_ctime_ns > os.stat(rig.s(b"a")).st_ctime_ns


@pytest.mark.parametrize("content", [True, False])
@pytest.mark.parametrize("now", [True, False])
def test_one_name_found_equal_gets_no_stamp(rig: Rig, content: bool, now: bool) -> None:
    """Where the target is mirrored back, that would be a change to report."""
    _with_newer_ctime(rig)
    before = os.stat(rig.d(b"a"))
    well(rig.bring(b"a", content=content, now=now))
    assert os.stat(rig.d(b"a")).st_ctime_ns == before.st_ctime_ns


def _with_newer_ctime(rig: Rig) -> None:
    """A file in step, whose source has a newer ctime than its copy, and nothing else."""
    write(rig.s(b"a"), b"aaaa", mtime_ns=THEN_NS)
    rig.clean(rig.tree(now=True))
    os.rename(rig.s(b"a"), rig.s(b"b"))
    os.rename(rig.s(b"b"), rig.s(b"a"))
    deadline_s = time.monotonic() + 60
    while True:  # until the clock that stamps inodes has ticked
        write(os.path.join(rig.base, b"tick"))
        if os.stat(os.path.join(rig.base, b"tick")).st_ctime_ns > os.stat(rig.s(b"a")).st_ctime_ns:
            break
        assert time.monotonic() < deadline_s


@pytest.mark.parametrize("now", [True, False])
def test_attributes_alone_copy_nothing(rig: Rig, now: bool) -> None:
    write(rig.s(b"a"), b"aaaa", mode=0o600)
    rig.clean(rig.tree(now=now))
    inode = os.stat(rig.d(b"a")).st_ino
    os.chmod(rig.s(b"a"), 0o4755)
    outcome = rig.bring(b"a", content=False, now=now)
    rig.clean(outcome)
    assert (outcome.files, outcome.entries) == (0, 1)
    assert os.stat(rig.d(b"a")).st_ino == inode


def test_a_reported_rewrite_with_the_same_content_copies_nothing(rig: Rig) -> None:
    write(rig.s(b"a"), b"aaaa", mtime_ns=THEN_NS)
    rig.clean(rig.tree(now=True))
    inode = os.stat(rig.d(b"a")).st_ino
    _rewrite_alike(rig.s(b"a"), b"aaaa")
    rig.clean(rig.bring(b"a"))
    assert os.stat(rig.d(b"a")).st_ino == inode


def test_a_target_changed_behind_our_back_is_mended_by_any_report(rig: Rig) -> None:
    write(rig.s(b"a"), b"aaaa", mtime_ns=THEN_NS)
    rig.clean(rig.tree(now=True))
    _rewrite_alike(rig.d(b"a"), b"evil")
    rig.clean(rig.bring(b"a"))


@pytest.mark.parametrize("now", [True, False])
@pytest.mark.parametrize("special", [b"fifo", b"new-file"])
def test_an_attribute_report_that_replaces_keeps_the_times_of_the_directory(
    rig: Rig, now: bool, special: bytes
) -> None:
    os.mkdir(rig.s(b"d"))
    os.mkfifo(rig.s(b"d/fifo"), 0o600)
    rig.clean(rig.tree(now=now))
    if special == b"fifo":
        os.chmod(rig.s(b"d/fifo"), 0o644)
    else:
        write(rig.s(b"d/new-file"))
    rig.clean(rig.bring(b"d/" + special, content=False, now=now))


# -- writers that do not stop ------------------------------------------------------------------------------------


REWRITE = """
import os, sys
blocks = int(sys.argv[2])
file = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
version = 0
while True:
    version += 1
    for block in range(blocks):
        os.pwrite(file, b"%015d\\n" % version, 16 * block)
    if version == 1:
        print(flush=True)
"""


@contextlib.contextmanager
def rewritten_without_pause(path: bytes, *, blocks: int) -> Iterator[None]:
    """A process (a thread would wait for the copy's interpreter lock) rewrites the file in place."""
    command = [sys.executable, "-c", REWRITE, os.fsdecode(path), str(blocks)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        try:
            assert writer.stdout is not None
            writer.stdout.readline()
            yield
        finally:
            writer.kill()


@pytest.mark.parametrize("now", [True, False])
def test_a_file_being_written_is_left_for_later(rig: Rig, now: bool) -> None:
    """And once it rests, one more report makes it right."""
    deadline_s = time.monotonic() + 60
    with rewritten_without_pause(rig.s(b"f"), blocks=2000):
        while True:
            outcome = rig.bring(b"f", now=now)
            assert not outcome.failures
            if outcome.postponed:
                break
            assert time.monotonic() < deadline_s
    (postponed,) = outcome.postponed
    assert postponed.racy
    assert postponed.change.path == b"f"
    rig.clean(rig.bring(b"f", now=now))


@pytest.mark.parametrize("size", [3, 2 * MIB])
def test_a_copy_that_was_overtaken_is_not_published(rig: Rig, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One write into the file while it is copied: readers get the version before it, or the one after it."""
    old, new = b"o" * size, b"n" * (size + 1)
    write(rig.s(b"f"), old)
    well(rig.bring(b"f"))
    genuine = Attributes.to_file
    seen: list[bytes] = []

    def to_file(self: Attributes, source: int, target: int, *infos: os.stat_result) -> None:
        genuine(self, source, target, *infos)
        seen.append(read(rig.d(b"f")))
        if len(seen) == 1:
            write(rig.s(b"f"), b"even newer")

    monkeypatch.setattr(Attributes, "to_file", to_file)
    write(rig.s(b"f"), new)
    rig.clean(rig.bring(b"f"))
    assert seen[:2] == [old, old]
    assert read(rig.d(b"f")) == b"even newer"
    assert not temporaries(rig.dst)


def test_readers_see_whole_versions_only(rig: Rig) -> None:
    """The source publishes versions by rename: then the target shows one of them at any moment, never a mixture."""
    stop = threading.Event()
    torn: list[bytes] = []
    reads = [0]

    def publish(number: int) -> None:
        size = 1 + (number * 7919) % 5000
        write(rig.s(b"t"), (b"%09d" % number) * size)
        os.rename(rig.s(b"t"), rig.s(b"f"))

    def look() -> None:
        while not stop.is_set():
            data = read(rig.d(b"f"))
            reads[0] += 1
            if not data or data != data[:9] * (len(data) // 9):
                torn.append(data)

    publish(0)
    well(rig.bring(b"f"))
    reader = threading.Thread(target=look)
    reader.start()
    try:
        number = 0
        while number < 300 or (reads[0] < 100 and reader.is_alive()):
            number += 1
            publish(number)
            well(rig.bring(b"f"))
            if number % 50 == 0:
                well(rig.bring(b"f", now=False))
    finally:
        stop.set()
        reader.join()
    assert not torn
    assert reads[0] >= 100
    assert not temporaries(rig.dst)


# -- large, sparse, cloned ---------------------------------------------------------------------------------------


def test_a_large_file_takes_the_lane_of_its_own(base: bytes) -> None:
    with Rig(base, large_bytes=2 * MIB) as rig:
        write(rig.s(b"big"), os.urandom(3 * MIB))
        write(rig.s(b"small"))
        outcome, rest = rig.engine.sync_now(Batch(rig.changes([b"big", b"small"]), time.monotonic()))
        assert [change.path for change in rest] == [b"big"]
        assert outcome.files == 1
        rig.clean(rig.run(rig.engine.sync(Batch(tuple(rest), time.monotonic()))))
        assert rig.waits == [3 * MIB]


def test_a_large_file_that_has_to_rest_is_postponed(base: bytes) -> None:
    with Rig(base, large_bytes=2 * MIB) as rig:
        rig.wait_s = 7.5
        write(rig.s(b"big"), os.urandom(3 * MIB))
        outcome = rig.bring(b"big")
        assert [(postponed.change.path, postponed.wait_s, postponed.racy) for postponed in outcome.postponed] == [
            (b"big", 7.5, False)
        ]
        assert not os.path.exists(rig.d(b"big"))
        batch = Batch(rig.changes([b"big"]), time.monotonic(), flushing=True)
        rig.clean(rig.run(rig.engine.sync(batch)))


@pytest.mark.parametrize("now", [True, False])
@pytest.mark.parametrize("size", [100_000, 3 * MIB])
def test_sparse_stays_sparse(rig: Rig, size: int, now: bool) -> None:
    with open(rig.s(b"f"), "wb") as file:
        file.truncate(size)
        file.seek(size // 2)
        file.write(b"island")
    os.mkdir(rig.s(b"d"))
    with open(rig.s(b"d/hole"), "wb") as file:
        file.truncate(64 * MIB)
    rig.clean(rig.tree(now=now))
    assert os.stat(rig.d(b"f")).st_blocks <= os.stat(rig.s(b"f")).st_blocks
    assert os.stat(rig.d(b"d/hole")).st_blocks == 0


@pytest.fixture(params=["btrfs", "xfs"])
def cloning(request: pytest.FixtureRequest, base: bytes) -> Iterator[bytes]:
    """A file system that can share extents."""
    image = os.path.join(base, b"image")
    with open(image, "wb") as file:
        file.truncate(320 * MIB)
    try:
        subprocess.run([f"mkfs.{request.param}", "-q", image], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"cannot make {request.param}: {error}")
    point = os.path.join(base, b"mount")
    with mounted(point, "-o", "loop", os.fsdecode(image)):
        yield point


@pytest.mark.root
@needs_root
def test_extents_are_shared_where_they_can_be(cloning: bytes) -> None:
    with Rig(cloning, large_bytes=8 * MIB) as rig:
        write(rig.s(b"big"), os.urandom(24 * MIB))
        os.sync()
        before = os.statvfs(cloning).f_bfree
        rig.clean(rig.tree())
        os.sync()
        info = os.statvfs(cloning)
        assert (before - info.f_bfree) * info.f_frsize < 8 * MIB


@pytest.mark.root
@needs_root
def test_a_changed_large_file_is_cloned_then_patched(cloning: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Source on another file system than the target: only changed blocks are written, and still atomically."""
    monkeypatch.setattr(bytes_of, "CLONE_MIN_BYTES", MIB)
    with Rig(cloning) as outer, mounted(outer.src, "-t", "tmpfs", "tmpfs"), Rig(cloning, large_bytes=MIB) as rig:
        write(rig.s(b"big"), os.urandom(8 * MIB))
        rig.clean(rig.tree())
        inode = os.stat(rig.d(b"big")).st_ino
        with open(rig.s(b"big"), "r+b") as file:
            file.seek(5 * MIB)
            file.write(b"changed")
        outcome = rig.bring(b"big")
        rig.clean(outcome)
        assert outcome.bytes_copied == bytes_of.CHUNK_BYTES
        assert os.stat(rig.d(b"big")).st_ino != inode


@pytest.mark.parametrize("size", [300_000, 4 * MIB])
def test_patched_in_place_from_the_size_asked_for(base: bytes, size: int) -> None:
    with Rig(base, inplace_bytes=299_000) as rig:
        write(rig.s(b"f"), os.urandom(size))
        write(rig.s(b"g"), b"x" * 298_999)
        rig.clean(rig.tree(now=True))
        inodes = [os.stat(rig.d(name)).st_ino for name in (b"f", b"g")]
        for name in (b"f", b"g"):
            with open(rig.s(name), "r+b") as file:
                file.seek(1)
                file.write(b"changed")
        outcome = rig.bring(b"f")
        rig.clean(rig.bring(b"g"))
        assert outcome.bytes_copied == min(size, bytes_of.CHUNK_BYTES)
        assert os.stat(rig.d(b"f")).st_ino == inodes[0]
        assert os.stat(rig.d(b"g")).st_ino != inodes[1]
        os.truncate(rig.s(b"f"), size - 7)
        rig.clean(rig.bring(b"f"))
        assert os.stat(rig.d(b"f")).st_ino == inodes[0]


def test_never_in_place_through_a_second_name(base: bytes) -> None:
    with Rig(base, inplace_bytes=1000) as rig:
        write(rig.s(b"f"), b"x" * 5000)
        rig.clean(rig.tree(now=True))
        os.link(rig.d(b"f"), os.path.join(base, b"outside"))
        write(rig.s(b"f"), b"y" * 5000)
        rig.clean(rig.bring(b"f"))
        assert read(os.path.join(base, b"outside")) == b"x" * 5000


@pytest.mark.parametrize("linked", [True, False])
def test_a_copy_stops_when_the_engine_closes(base: bytes, linked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bytes_of, "STRIDE_BYTES", 4096)
    with Rig(base, large_bytes=MIB) as rig:
        write(rig.s(b"big"), os.urandom(4 * MIB))
        if linked:
            os.link(rig.s(b"big"), rig.s(b"other"))
        passed = threading.Event()
        strides: list[int] = []
        genuine = Brake.passed

        def slow(brake: Brake, count: int) -> None:
            passed.set()
            strides.append(count)
            time.sleep(0.01)
            genuine(brake, count)

        monkeypatch.setattr(Brake, "passed", slow)

        async def close_in_the_middle() -> None:
            import asyncio

            task = asyncio.create_task(rig.engine.sync(Batch(rig.changes([b"big"]), time.monotonic())))
            await asyncio.to_thread(passed.wait, 60)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await rig.engine.close()

        rig.run(close_in_the_middle())
        assert sum(strides) < 2 * MIB
        assert os.listdir(rig.dst) == []


def test_a_stopped_brake_stops() -> None:
    brake = Brake(float("inf"))
    brake.passed(10**9)
    brake.stopping = True
    with pytest.raises(Cancelled):
        brake.passed(1)


@pytest.mark.parametrize("size", [0, 1, 262_143, 262_144, 262_145, 600_000])
def test_same_and_patch(base: bytes, size: int) -> None:
    one, other = os.path.join(base, b"one"), os.path.join(base, b"other")
    data = os.urandom(size)
    write(one, data)
    write(other, data)

    def compare() -> bool:
        with open(one, "rb") as ours, open(other, "rb") as theirs:
            return same(ours.fileno(), theirs.fileno(), size)

    assert compare()
    write(other, data + b"x")
    assert not compare()
    for at in {0, size // 2, max(0, size - 1)}:
        if size:
            write(other, data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
            assert not compare()
            with open(one, "rb") as ours, open(other, "r+b") as theirs:
                patch(ours.fileno(), theirs.fileno(), size, None)
            assert read(other) == data


def test_a_shared_mapping_written_after_the_copy_is_found_again(rig: Rig) -> None:
    write(rig.s(b"f"), b"\0" * 8192)
    with open(rig.s(b"f"), "r+b") as file, mmap.mmap(file.fileno(), 8192) as mapped:
        well(rig.bring(b"f"))
        mapped[0:3] = b"new"
        mapped.flush()
    well(rig.bring(b"f"))
    assert_equal(rig.src, rig.dst)
