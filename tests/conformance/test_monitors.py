"""What every monitor must see, whatever the kernel facility behind it."""

from __future__ import annotations

import ctypes
import mmap
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from instep.linux.libc import libc
from instep.model import Report
from instep.paths import ROOT, RelPath, Scope
from instep.ports import Monitor, Renewable
from tests.conformance.conftest import Factory
from tests.conformance.monitor_model import Mirror, compare, disturb, drain, exchange, fork, read_until, rounds

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="these monitors are for Linux")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

AT_SYMLINK_FOLLOW = 0x400
NOBODY = 65534


def write(path: bytes, data: bytes = b"x") -> None:
    with open(path, "wb") as file:
        file.write(data)


class Stage:
    """A source with a monitor on it and a model mirror of it."""

    def __init__(self, make: Callable[..., Monitor], base: bytes, *, one_file_system: bool = False) -> None:
        self.root = base + b"/root"
        self.outside = base + b"/outside"
        for path in (self.root, self.outside):
            os.makedirs(path, exist_ok=True)
        self.monitor = make(self.root, one_file_system=one_file_system)
        self.mirror = Mirror(self.root)
        self.reports: list[Report] = []

    def at(self, path: bytes) -> bytes:
        return self.root + b"/" + path

    def out(self, path: bytes) -> bytes:
        return self.outside + b"/" + path

    def start(self) -> None:
        self.monitor.start()
        first = drain(self.monitor)
        assert first[0][:3] == (ROOT, Scope.TREE, False), "the first report is the whole tree"
        self.mirror.apply(first)
        assert compare(self.mirror) == []

    def settle(self) -> list[Report]:
        """Reports since the last call; the mirror must have become equal by them."""
        reports = drain(self.monitor)
        self.mirror.apply(reports)
        assert compare(self.mirror) == [], reports
        return reports

    def probe(self) -> None:
        """Every directory is being watched."""
        for top, _, _ in os.walk(self.root):
            write(top + b"/probe")
        self.settle()


@pytest.fixture
def stage(make: Factory, base: bytes) -> Iterator[Stage]:
    one = Stage(make, base)
    yield one
    one.monitor.close()
    one.monitor.close()  # May be called twice.


def paths(reports: list[Report]) -> set[bytes]:
    return {report.path for report in reports} | {r.moved_from for r in reports if r.moved_from is not None}


# Each scenario: what is there before, and what happens.

Scene = tuple[Callable[[Stage], object], Callable[[Stage], object]]


def nothing(_: Stage) -> None:
    pass


def some_directories(stage: Stage) -> None:
    os.makedirs(stage.at(b"one/deep/er"))
    os.makedirs(stage.at(b"two"))
    write(stage.at(b"one/deep/er/file"))
    os.makedirs(stage.out(b"three/deep"))
    write(stage.out(b"three/deep/file"))


def made_and_filled(stage: Stage) -> None:
    os.makedirs(stage.at(b"a/b/c"))
    for path in (b"a/1", b"a/b/2", b"a/b/c/3"):
        write(stage.at(path))


def there_back_there(stage: Stage) -> None:
    for one, other in ((b"one", b"x"), (b"x", b"one"), (b"one", b"x")):
        os.rename(stage.at(one), stage.at(other))


def odd_names(stage: Stage) -> None:
    for name in (b"\xff\xfe", b"new\nline", b"-rf", b" ", b"\xc3\xa9", b"n" * 255, b"tab\there", b"\\011"):
        os.makedirs(stage.at(name + b"/" + name))
        write(stage.at(name + b"/" + name + b"/" + name))


def unnamed_then_linked(stage: Stage) -> None:
    fd = os.open(stage.root, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC)
    os.write(fd, b"complete")
    link = b"/proc/self/fd/%d" % fd
    if libc().linkat(-100, link, -100, stage.at(b"named"), AT_SYMLINK_FOLLOW) != 0:
        raise OSError(ctypes.get_errno(), "linkat")
    os.close(fd)


def mapped_write(stage: Stage) -> None:
    with open(stage.at(b"file"), "r+b") as file, mmap.mmap(file.fileno(), 0) as area:
        area[:4] = b"four"


def swap_files(stage: Stage) -> None:
    exchange(stage.at(b"file"), stage.at(b"other"))


def two_files(stage: Stage) -> None:
    write(stage.at(b"file"), b"long file")
    write(stage.at(b"other"), b"other")


def gone_and_a_file(stage: Stage) -> None:
    shutil.rmtree(stage.at(b"one"))
    write(stage.at(b"one"))


SCENES: dict[str, Scene] = {
    "made and filled in the same moment": (nothing, made_and_filled),
    "moved in": (some_directories, lambda s: os.rename(s.out(b"three"), s.at(b"three"))),
    "moved out": (some_directories, lambda s: os.rename(s.at(b"one"), s.out(b"one"))),
    "moved within": (some_directories, lambda s: os.rename(s.at(b"one"), s.at(b"two/one"))),
    "moved over an empty one": (some_directories, lambda s: os.rename(s.at(b"one"), s.at(b"two"))),
    "moved in over an empty one": (some_directories, lambda s: os.rename(s.out(b"three"), s.at(b"two"))),
    "there, back, there again": (some_directories, there_back_there),
    "exchanged": (some_directories, lambda s: exchange(s.at(b"one"), s.at(b"two"))),
    "exchanged with one outside": (some_directories, lambda s: exchange(s.at(b"one"), s.out(b"three"))),
    "exchanged with one's own inside": (some_directories, lambda s: exchange(s.at(b"one/deep"), s.at(b"two"))),
    "removed": (some_directories, lambda s: shutil.rmtree(s.at(b"one"))),
    "removed, a file in its place": (some_directories, gone_and_a_file),
    "odd names": (nothing, odd_names),
    "unnamed, then linked": (nothing, unnamed_then_linked),
    "truncated by name": (two_files, lambda s: os.truncate(s.at(b"file"), 2)),
    "written through a mapping": (two_files, mapped_write),
    "files exchanged": (two_files, swap_files),
    "file over file": (two_files, lambda s: os.rename(s.at(b"file"), s.at(b"other"))),
    "file moved out": (two_files, lambda s: os.rename(s.at(b"file"), s.out(b"file"))),
    "hard link made": (two_files, lambda s: os.link(s.at(b"file"), s.at(b"link"))),
    "fifo": (nothing, lambda s: os.mkfifo(s.at(b"fifo"))),
}


@pytest.mark.parametrize("name", SCENES)
def test_scene(stage: Stage, name: str) -> None:
    before, happens = SCENES[name]
    before(stage)
    stage.start()
    happens(stage)
    assert stage.settle(), "something was reported"
    stage.probe()


@pytest.mark.parametrize("what", ["chmod", "utime", "xattr"])
def test_attributes_are_no_content(stage: Stage, what: str) -> None:
    write(stage.at(b"file"))
    stage.start()
    if what == "chmod":
        os.chmod(stage.at(b"file"), 0o600)
    elif what == "utime":
        os.utime(stage.at(b"file"), (1, 1))
    else:
        try:
            os.setxattr(stage.at(b"file"), b"user.instep", b"x")
        except OSError as error:
            pytest.skip(f"no user xattrs here: {error.strerror}")
    found = [report for report in stage.settle() if report.path == b"file"]
    assert found
    if stage.monitor.name != "poll":  # a scan cannot tell
        assert not any(report.content for report in found)
    write(stage.at(b"file"), b"more")
    os.chmod(stage.at(b"file"), 0o644)
    assert any(report.content for report in stage.settle() if report.path == b"file")


def test_kinds_are_told(stage: Stage) -> None:
    stage.start()
    os.mkdir(stage.at(b"dir"))
    write(stage.at(b"file"))
    kinds = {report.path: report.is_dir for report in stage.settle()}
    assert (kinds[RelPath(b"dir")], kinds[RelPath(b"file")]) == (True, False)


def test_rename_is_told_as_one(stage: Stage) -> None:
    if stage.monitor.name == "poll":
        pytest.skip("poll does not pair names")
    some_directories(stage)
    write(stage.at(b"file"))
    stage.start()
    os.rename(stage.at(b"one"), stage.at(b"two/uno"))
    os.rename(stage.at(b"file"), stage.at(b"two/file"))
    reports = stage.settle()
    assert Report(RelPath(b"two/uno"), Scope.TREE, True, True, RelPath(b"one")) in reports
    assert Report(RelPath(b"two/file"), Scope.ENTRY, True, False, RelPath(b"file")) in reports
    write(stage.at(b"two/uno/deep/er/file"), b"changed")
    assert paths(stage.settle()) == {b"two/uno/deep/er/file"}


def test_directory_links_are_not_followed(stage: Stage) -> None:
    os.makedirs(stage.out(b"dir"))
    os.symlink(stage.out(b"dir"), stage.at(b"before"))
    stage.start()
    os.symlink(stage.out(b"dir"), stage.at(b"after"))
    assert paths(stage.settle()) <= {b"after", b""}
    write(stage.out(b"dir/file"))
    os.mkdir(stage.out(b"dir/sub"))
    assert not paths(stage.settle())


def test_deep_tree_moved_while_it_is_made(stage: Stage) -> None:
    stage.start()
    os.mkdir(stage.at(b"d0"))
    deep = b"/".join(b"s%d" % n for n in range(20))

    def make_and_move() -> None:
        for number in range(12):
            here = stage.at(b"d%d" % number)
            os.makedirs(here + b"/t%d/" % number + deep)
            write(here + b"/t%d/" % number + deep + b"/file")
            os.rename(here, stage.at(b"d%d" % (number + 1)))

    pid = fork(make_and_move)
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        stage.mirror.apply(stage.monitor.read())
    stage.settle()
    stage.probe()


def test_what_is_made_while_starting(make: Factory, base: bytes) -> None:
    stage = Stage(make, base)
    pid = fork(disturb, stage.root, stage.outside, 7, 3000, 0.0, False)
    try:
        stage.monitor.start()
        while os.waitpid(pid, os.WNOHANG) == (0, 0):
            stage.mirror.apply(stage.monitor.read())
        stage.settle()
        stage.probe()
    finally:
        stage.monitor.close()


def test_overflow(stage: Stage) -> None:
    """More events than a queue holds, none of them read meanwhile: some are lost, no change is."""
    try:
        with open("/proc/sys/fs/inotify/max_queued_events", "rb") as file:
            limit = int(file.read())
    except OSError:
        limit = 16384
    if limit > 50_000:
        pytest.skip(f"fs.inotify.max_queued_events is {limit}")
    some_directories(stage)
    write(stage.at(b"a"))
    write(stage.at(b"b"))
    stage.start()
    names = [stage.at(b"a"), stage.at(b"b")]
    for number in range(limit + 100):
        os.truncate(names[number & 1], number & 7)
    os.rename(stage.at(b"one"), stage.at(b"uno"))
    exchange(stage.at(b"uno/deep"), stage.at(b"two"))
    reports = stage.settle()
    if stage.monitor.name == "inotify":
        assert stage.monitor.status().overflows == 1
        assert Report(ROOT, Scope.TREE, content=False, is_dir=True) in reports
        # Another directory stands here now; its files may have the size and time of those that were here.
        assert Report(RelPath(b"two"), Scope.TREE, content=True, is_dir=True) in reports
    stage.probe()


@contextmanager
def mounted(path: bytes, *arguments: str) -> Iterator[None]:
    subprocess.run(["mount", *arguments, path], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", path], check=True)


@needs_root
@pytest.mark.root
@pytest.mark.parametrize("one_file_system", [False, True])
def test_mount_below(make: Factory, base: bytes, *, one_file_system: bool) -> None:
    stage = Stage(make, base, one_file_system=one_file_system)
    os.makedirs(stage.at(b"mnt"))
    with mounted(stage.at(b"mnt"), "-t", "tmpfs", "instep-test"):
        os.makedirs(stage.at(b"mnt/a/b"))
        try:
            stage.start()
            write(stage.at(b"mnt/a/b/file"))
            reports = drain(stage.monitor)
            assert any(path.startswith(b"mnt/") for path in paths(reports)) is not one_file_system
        finally:
            stage.monitor.close()


@needs_root
@pytest.mark.root
def test_mounted_while_watching(make: Factory, base: bytes) -> None:
    if make.name == "fanotify":
        pytest.skip("see the test of the fanotify monitor")
    stage = Stage(make, base)
    os.makedirs(stage.at(b"in/mnt/covered"))
    try:
        stage.start()
        stage.monitor.read()
        with mounted(stage.at(b"in/mnt"), "-t", "tmpfs", "instep-test"):
            read_until(stage.monitor, lambda reports: b"in/mnt" in paths(reports), "the mount")
            stage.mirror.apply([Report(RelPath(b"in/mnt"), Scope.TREE)])
            os.makedirs(stage.at(b"in/mnt/a/b"))
            stage.settle()
            stage.probe()
        assert (b"in/mnt", Scope.TREE) in [report[:2] for report in stage.settle()]
        stage.probe()
    finally:
        stage.monitor.close()


@needs_root
@pytest.mark.root
def test_unmounted_below(make: Factory, base: bytes) -> None:
    """What the mount had covered comes to light, and is watched."""
    if make.name == "fanotify":
        pytest.skip("see the test of the fanotify monitor")
    stage = Stage(make, base)
    os.makedirs(stage.at(b"mnt/covered"))
    try:
        with mounted(stage.at(b"mnt"), "-t", "tmpfs", "instep-test"):
            os.makedirs(stage.at(b"mnt/a/b"))
            write(stage.at(b"mnt/a/b/file"))
            stage.start()
        assert (b"mnt", Scope.TREE) in [report[:2] for report in stage.settle()]
        stage.probe()
    finally:
        stage.monitor.close()


@needs_root
@pytest.mark.root
def test_directory_becomes_readable(make: Factory, base: bytes) -> None:
    if make.name == "fanotify":
        pytest.skip("fanotify needs root, who reads everything")
    os.chmod(base, 0o777)

    def unprivileged() -> None:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        stage = Stage(make, base)
        os.makedirs(stage.at(b"dir/sub"))
        os.chmod(stage.at(b"dir"), 0)
        stage.start()
        assert len(stage.monitor.status().trouble) == 1
        os.chmod(stage.at(b"dir"), 0o755)
        reports = stage.settle()
        assert (b"dir", Scope.TREE) in [report[:2] for report in reports]
        assert stage.monitor.status().trouble == ()
        stage.probe()
        assert rounds(make, base, range(3), 300, modes=True) == []

    assert os.waitpid(fork(unprivileged), 0)[1] == 0, "see the traceback of the child"


def test_idle_says_nothing(stage: Stage) -> None:
    some_directories(stage)
    stage.start()
    stage.settle()
    assert not stage.monitor.read()
    if stage.monitor.name != "poll":
        assert stage.monitor.wake_s() is None


# Handed to another mirror.


def renewed(stage: Stage, *ignored: bytes) -> None:
    assert isinstance(stage.monitor, Renewable)
    assert stage.monitor.renew((lambda path, is_dir: is_dir and path in ignored) if ignored else None)


def test_what_was_not_read_before_it_was_renewed_is_told_after(stage: Stage) -> None:
    some_directories(stage)
    write(stage.at(b"two/file"), b"old")
    stage.start()
    os.rename(stage.at(b"one"), stage.at(b"two/one"))
    before = os.stat(stage.at(b"two/file"))
    write(stage.at(b"two/file"), b"new")
    os.utime(stage.at(b"two/file"), ns=(before.st_atime_ns, before.st_mtime_ns))
    renewed(stage)
    renewed(stage)
    os.makedirs(stage.at(b"between/deep"))
    reports = stage.settle()
    assert {b"one", b"two/one", b"two/file", b"between"} <= paths(reports)
    assert any(report.content for report in reports if report.path == b"two/file")
    assert (ROOT, Scope.TREE, False) in [report[:3] for report in reports]
    stage.probe()
    renewed(stage)
    assert [report[:3] for report in stage.settle()] == [(ROOT, Scope.TREE, False)]
    stage.probe()


def test_what_was_ignored_is_watched_when_the_whole_tree_is_told_again(stage: Stage) -> None:
    some_directories(stage)
    stage.start()
    renewed(stage, b"one")
    reports = stage.settle()
    assert (ROOT, Scope.TREE, False) in [report[:3] for report in reports]
    if stage.monitor.name != "fanotify":  # That one has no cost for each directory, and leaves it to who reads.
        write(stage.at(b"one/deep/er/file"), b"unseen")
        os.makedirs(stage.at(b"one/more"))
        assert not [path for path in paths(drain(stage.monitor)) if path.startswith(b"one/")]
    renewed(stage, b"two")
    reports = stage.settle()
    assert (ROOT, Scope.TREE, False) in [report[:3] for report in reports]
    write(stage.at(b"one/deep/er/file"), b"seen")
    assert b"one/deep/er/file" in paths(stage.settle())
    renewed(stage)
    stage.settle()
    stage.probe()


def test_closed_it_is_of_no_use(stage: Stage) -> None:
    stage.start()
    stage.monitor.close()
    assert isinstance(stage.monitor, Renewable)
    assert not stage.monitor.renew(None)


def test_of_a_root_that_was_away_and_is_back(stage: Stage) -> None:
    some_directories(stage)
    stage.start()
    for _ in range(2):
        os.rename(stage.root, stage.root + b"-away")
        write(stage.root + b"-away/two/file")
        assert (b"two/file") in paths(drain(stage.monitor))
        os.rename(stage.root + b"-away", stage.root)
        renewed(stage)
        assert (ROOT, Scope.TREE, False) in [report[:3] for report in stage.settle()]
        assert stage.monitor.status().trouble == ()
        stage.probe()


# The property.

SEEDS_ENV = "INSTEP_MONITOR_SEEDS"
"""``7`` or ``100-200``: the seeds to play instead of the usual ones."""


LONG_SEEDS = 150 if os.environ.get("INSTEP_SIZES") == "full" else 6
"""The soak plays more."""


def seeds(first: int, count: int) -> range:
    asked = os.environ.get(SEEDS_ENV)
    if asked is None:
        return range(first, first + count)
    start, _, end = asked.partition("-")
    return range(int(start), int(end or start) + 1)


def told(failed: object) -> str:
    return f"replay with {SEEDS_ENV}=<seed>: {failed}"


def test_nothing_is_lost(make: Factory, base: bytes) -> None:
    """Several writers at random; at rest the mirror equals the source, and every directory is watched."""
    failed = rounds(make, base, seeds(0, 12))
    assert not failed, told([str(one) for one in failed])


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_nothing_is_lost_for_long(make: Factory, base: bytes) -> None:
    failed = rounds(make, base, seeds(1000, LONG_SEEDS // 5 if make.name == "poll" else LONG_SEEDS), 1000)
    assert not failed, told([str(one) for one in failed])
