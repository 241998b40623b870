"""The fanotify monitor on real file systems: what it reports, and that it never misses a change."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import resource
import select
import shutil
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from instep.errors import SourceError, ToolMissing
from instep.linux import fanotify as kernel
from instep.linux.handles import handle_of, open_handle
from instep.model import Report
from instep.monitors import fanotify, places
from instep.monitors.fanotify import FanotifyMonitor, why_unavailable
from instep.paths import ROOT, RelPath, Scope

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="fanotify needs root on Linux"),
]

AT_SYMLINK_FOLLOW = 0x400
RENAME_EXCHANGE = 2
EVERYTHING = Report(ROOT, Scope.TREE, content=False)
DEADLINE_S = 60.0

c = ctypes.CDLL(None, use_errno=True)


def write(path: bytes, data: bytes = b"x") -> None:
    with open(path, "wb") as file:
        file.write(data)


def drain(monitor: FanotifyMonitor) -> list[Report]:
    reports = list(monitor.read())
    while not monitor.drained:
        reports += monitor.read()
    return reports


def mount(*arguments: bytes | str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def umount(path: bytes) -> None:
    subprocess.run(["umount", path], check=True)


def wait_readable(monitor: FanotifyMonitor) -> None:
    assert select.select([monitor.fileno()], [], [], DEADLINE_S)[0], "the descriptor stayed silent"


def wait_silent(monitor: FanotifyMonitor) -> None:
    """Wait until nothing wakes the monitor any more; tests that run beside this one mount things, which does."""
    end_s = time.monotonic() + DEADLINE_S
    while select.select([monitor.fileno()], [], [], 0)[0] or monitor.wake_s() is not None:
        assert time.monotonic() < end_s, "it is woken again and again"
        assert drain(monitor) == []
        time.sleep(0.01)


class Place:
    """A root with a sibling, and monitors that are closed, mounts that are taken away, at the end."""

    def __init__(self, base: bytes) -> None:
        self.base = base
        self.root = base + b"/root"
        self.outside = base + b"/outside"
        os.mkdir(self.root)
        os.mkdir(self.outside)
        self.closing = contextlib.ExitStack()

    def path(self, name: bytes) -> bytes:
        return self.root + b"/" + name

    def mount(self, point: bytes, *arguments: bytes | str) -> bytes:
        os.makedirs(point, exist_ok=True)
        mount(*arguments, point)
        self.closing.callback(lambda: subprocess.run(["umount", "-l", point], stderr=subprocess.DEVNULL, check=False))
        return point

    def monitor(self, root: bytes | None = None, **options: object) -> FanotifyMonitor:
        monitor = FanotifyMonitor(root or self.root, **options)  # type: ignore[arg-type]
        monitor.start()
        self.closing.callback(monitor.close)
        assert list(monitor.read()) == [EVERYTHING]
        assert monitor.drained
        return monitor


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    base = os.fsencode(tmp_path_factory.mktemp("fanotify"))
    mount("-t", "tmpfs", "instep-test", base)  # A file system of its own: no noise from the rest of the machine.
    found = Place(base)
    try:
        yield found
    finally:
        found.closing.close()
        subprocess.run(
            ["umount", "--recursive", "--lazy", base], check=True
        )  # Also with a descriptor left by a failure.


# -- What is reported ------------------------------------------------------------------------------------------------


def test_file_operations(place: Place) -> None:
    monitor = place.monitor()
    write(place.path(b"a"))
    assert drain(monitor) == [Report(RelPath(b"a"))]
    os.chmod(place.path(b"a"), 0o600)
    assert drain(monitor) == [Report(RelPath(b"a"), content=False)]
    os.truncate(place.path(b"a"), 0)
    assert drain(monitor) == [Report(RelPath(b"a"))]
    os.rename(place.path(b"a"), place.path(b"b"))
    assert drain(monitor) == [Report(RelPath(b"b"), moved_from=RelPath(b"a"))]
    os.symlink("nowhere", place.path(b"s"))
    os.mkfifo(place.path(b"p"))
    assert drain(monitor) == [Report(RelPath(b"s")), Report(RelPath(b"p"))]
    os.unlink(place.path(b"b"))
    assert drain(monitor) == [Report(RelPath(b"b"))]


def test_directory_operations(place: Place) -> None:
    monitor = place.monitor()
    os.makedirs(place.path(b"d/e"))
    write(place.path(b"d/e/f"))
    assert drain(monitor) == [
        Report(RelPath(b"d"), Scope.TREE, is_dir=True),
        Report(RelPath(b"d/e"), Scope.TREE, is_dir=True),
        Report(RelPath(b"d/e/f")),
    ]
    os.chmod(place.path(b"d"), 0o700)
    os.chmod(place.root, 0o711)
    assert drain(monitor) == [
        Report(RelPath(b"d"), content=False, is_dir=True),
        Report(ROOT, content=False, is_dir=True),
    ]
    os.rename(place.path(b"d"), place.path(b"g"))
    write(place.path(b"g/e/f"))
    assert drain(monitor) == [
        Report(RelPath(b"g"), Scope.TREE, is_dir=True, moved_from=RelPath(b"d")),
        Report(RelPath(b"g/e/f")),
    ]
    shutil.rmtree(place.path(b"g"))
    assert Report(RelPath(b"g"), Scope.TREE, is_dir=True) in drain(monitor)


def test_moves_across_the_border(place: Place) -> None:
    monitor = place.monitor()
    os.makedirs(place.outside + b"/d/e")
    write(place.outside + b"/d/e/f")
    write(place.outside + b"/file")
    assert drain(monitor) == []
    os.rename(place.outside + b"/d", place.path(b"in"))
    os.rename(place.outside + b"/file", place.path(b"file"))
    write(place.path(b"in/e/f"))
    assert drain(monitor) == [
        Report(RelPath(b"in"), Scope.TREE, is_dir=True),
        Report(RelPath(b"file")),
        Report(RelPath(b"in/e/f")),
    ]
    os.rename(place.path(b"in"), place.outside + b"/d")
    os.rename(place.path(b"file"), place.outside + b"/file")
    write(place.outside + b"/d/e/f")
    assert drain(monitor) == [Report(RelPath(b"in"), Scope.TREE, is_dir=True), Report(RelPath(b"file"))]


def test_names_need_not_be_text(place: Place) -> None:
    monitor = place.monitor()
    name = b"\xff\n " + b"n" * 250 + b"#"
    os.mkdir(place.path(b"(deleted)"))
    os.mkdir(place.path(b"x (deleted)"))
    drain(monitor)
    os.rename(place.path(b"(deleted)"), place.path(b"(deleted)2"))  # Empties the cache: what follows is looked up.
    drain(monitor)
    write(place.path(b"x (deleted)/" + name))
    assert drain(monitor) == [Report(RelPath(b"x (deleted)/" + name))]


def test_one_file_many_events_one_report(place: Place) -> None:
    monitor = place.monitor()
    write(place.path(b"a"))
    drain(monitor)
    # Different processes: the kernel does not merge these.
    for command in (["chmod", "600"], ["touch"], ["chmod", "640"]):
        subprocess.run([*command, place.path(b"a")], check=True)
    assert drain(monitor) == [Report(RelPath(b"a"))]


def test_noise_outside_is_silent_but_counted(place: Place) -> None:
    monitor = place.monitor()
    for number in range(50):
        os.mkdir(place.outside + b"/%d" % number)
        write(place.outside + b"/%d/f" % number)
        os.rename(place.outside + b"/%d/f" % number, place.outside + b"/%d/g" % number)
        os.link(place.outside + b"/%d/g" % number, place.outside + b"/%d/h" % number)
    shutil.rmtree(place.outside)
    wait_readable(monitor)
    assert drain(monitor) == []
    assert monitor.status().events > 200
    wait_silent(monitor)


def test_steady_noise_does_not_wake_every_time(place: Place) -> None:
    monitor = place.monitor()

    def noise(events: int = 10) -> None:
        for number in range(events):
            os.close(os.open(place.outside + b"/%d" % number, os.O_CREAT | os.O_WRONLY))

    end_s = time.monotonic() + DEADLINE_S
    while monitor.wake_s() is None:  # Only readings that follow each other quickly count.
        assert time.monotonic() < end_s
        noise()
        assert list(monitor.read()) == []
    noise()
    assert monitor.wake_s() == fanotify.NOISE_PAUSE_S
    # Of the descriptors that can wake it, the one of the events; tests that run beside this one mount things.
    assert monitor.group not in dict(monitor._ready.poll(0))
    write(place.path(b"a"))
    assert list(monitor.read()) == [Report(RelPath(b"a"))]
    # A report ends it at once, as does quiet.
    assert monitor.wake_s() is None
    noise(1)
    wait_readable(monitor)


def test_noise_that_ends(place: Place) -> None:
    monitor = place.monitor()
    monitor._pause(wanted=True)
    monitor._noise_reads = fanotify.NOISE_READS
    assert monitor.wake_s() == fanotify.NOISE_PAUSE_S
    assert list(monitor.read()) == []
    assert monitor.wake_s() is None
    write(place.outside + b"/a")
    wait_readable(monitor)


def test_noise_meant_to_wait_wakes_no_thread(place: Place) -> None:
    monitor = place.monitor()
    monitor._pause(wanted=True)
    ready = threading.Event()
    woken = 0

    def wait() -> None:
        nonlocal woken
        before = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
        with select.epoll() as waiting:
            waiting.register(ended, select.EPOLLIN)
            waiting.register(monitor.fileno(), select.EPOLLIN)
            ready.set()
            while not any(fd == ended for fd, _ in waiting.poll()):
                pass
        woken = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - before

    ended, end = os.pipe()
    with open(ended, "rb"), open(end, "wb", buffering=0) as last:
        waiter = threading.Thread(target=wait)
        waiter.start()
        assert ready.wait(60)
        for number in range(2000):
            write(place.outside + b"/%d" % number)
        last.write(b".")
        waiter.join(60)
    assert woken < 500, "it slept and was woken for every other event"


def test_reads_are_bounded(place: Place) -> None:
    monitor = place.monitor()
    count = 15_000
    for number in range(count):
        os.mknod(place.path(b"a-rather-long-name-%d" % number))
    reports = list(monitor.read())
    assert not monitor.drained
    assert 0 < len(reports) < count
    reports += drain(monitor)
    assert len(reports) == count


def test_nameless_files(place: Place) -> None:
    """A file made with O_TMPFILE is called #inode for ever; what is done to it is reported under its real name."""
    os.mkdir(place.path(b"d"))
    monitor = place.monitor()
    fd = os.open(place.path(b"d"), os.O_TMPFILE | os.O_RDWR)
    try:
        os.write(fd, b"x")
        assert drain(monitor) == []
        assert not c.linkat(-100, b"/proc/self/fd/%d" % fd, -100, place.path(b"d/t"), AT_SYMLINK_FOLLOW)
        assert drain(monitor) == [Report(RelPath(b"d/t"))]
        os.write(fd, b"y")
        assert drain(monitor) == [Report(RelPath(b"d/t"))]
        os.fchmod(fd, 0o600)
        assert drain(monitor) == [Report(RelPath(b"d/t"), content=False)]
    finally:
        os.close(fd)
    assert drain(monitor) == [Report(RelPath(b"d/t"))]


def test_names_that_look_nameless(place: Place) -> None:
    monitor = place.monitor()
    write(place.path(b"#123"))
    os.chmod(place.path(b"#123"), 0o600)
    write(place.path(b"#"))
    assert drain(monitor) == [Report(RelPath(b"#123")), Report(RelPath(b"#"))]
    os.unlink(place.path(b"#123"))
    assert drain(monitor) == [Report(RelPath(b"#123"))]


def test_links(place: Place) -> None:
    """Both names of a link are reported as they come and go, and nothing else is."""
    monitor = place.monitor()
    write(place.path(b"a"))
    drain(monitor)
    os.link(place.path(b"a"), place.path(b"b"))
    assert drain(monitor) == [Report(RelPath(b"b"))]
    os.unlink(place.path(b"a"))
    assert drain(monitor) == [Report(RelPath(b"a"))]
    write(place.path(b"c"))
    os.rename(place.path(b"c"), place.path(b"b"))
    assert drain(monitor) == [Report(RelPath(b"c")), Report(RelPath(b"b"), moved_from=RelPath(b"c"))]


def test_writes_by_handle_alone(tmp_path: object) -> None:
    """What an NFS server does: a file opened by its handle alone has no name yet. All is compared, a bit later."""
    base = os.fsencode(str(tmp_path))
    disk = base + b"/disk"
    os.mkdir(disk)
    with open(base + b"/image", "wb") as file:
        file.truncate(8 << 20)
    subprocess.run(["mkfs.ext4", "-q", base + b"/image"], check=True)
    mount("-o", "loop", base + b"/image", disk)
    write(disk + b"/f")
    with open(disk + b"/f", "rb") as file:
        handle = handle_of(file.fileno())
    umount(disk)
    mount("-o", "loop", base + b"/image", disk)  # The kernel's memory of names is empty now.
    with contextlib.ExitStack() as closing:
        closing.callback(lambda: subprocess.run(["umount", "-l", disk], check=True))
        monitor = FanotifyMonitor(disk)
        monitor.start()
        closing.callback(monitor.close)
        monitor.read()
        root_fd = os.open(disk, os.O_RDONLY)
        closing.callback(os.close, root_fd)
        fd = c.open_by_handle_at(root_fd, handle, os.O_WRONLY)
        assert fd >= 0
        os.write(fd, b"yy")
        assert drain(monitor) == []
        wake_s = monitor.wake_s()
        assert wake_s is not None
        assert 0 < wake_s <= fanotify.RESCAN_S
        monitor._due_s[ROOT] = 0.0
        assert drain(monitor) == [EVERYTHING]
        assert monitor.wake_s() is None
        os.stat(disk + b"/f")  # Now it has a name.
        os.write(fd, b"yy")
        os.close(fd)
        assert drain(monitor) == [Report(RelPath(b"f"))]


# -- Losing and finding its way ------------------------------------------------------------------------------------------


def overflow() -> bytes:
    return kernel.METADATA.pack(24, 3, 24, kernel.FAN_Q_OVERFLOW)


@pytest.mark.parametrize("at", ["alone", "first", "last"])
def test_overflow(place: Place, caplog: pytest.LogCaptureFixture, at: str) -> None:
    monitor = place.monitor()
    write(place.path(b"a"))
    buffer = os.read(monitor.group, 1 << 16)
    given = {"alone": overflow(), "first": overflow() + buffer, "last": buffer + overflow()}[at]
    reports: list[Report] = []
    monitor._take(given, reports)
    file = Report(RelPath(b"a"))
    assert reports == {"alone": [EVERYTHING], "first": [EVERYTHING, file], "last": [file, EVERYTHING]}[at]
    assert monitor.status().overflows == 1
    assert [record.message for record in caplog.records] == ["fanotify-overflow"]


def test_cache_is_bounded(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "PLACES_MAX", 10)
    monitor = place.monitor()
    for number in range(25):
        os.mkdir(place.path(b"%d" % number))
        os.mkdir(place.outside + b"/%d" % number)
        write(place.path(b"%d/f" % number))
        write(place.outside + b"/%d/f" % number)
    reports = drain(monitor)
    assert {report.path for report in reports if not report.is_dir} == {b"%d/f" % number for number in range(25)}
    assert len(monitor._places.cache) <= 10


def test_removed_directories_leave_the_cache(place: Place) -> None:
    monitor = place.monitor()
    for _ in range(20):
        for base in (place.root, place.outside):
            os.mkdir(base + b"/d")
            write(base + b"/d/f")
            shutil.rmtree(base + b"/d")
        drain(monitor)
    assert len(monitor._places.cache) < 6


def test_a_removed_directory_is_looked_up_once(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkdir(place.path(b"d"))
    for number in range(50):
        write(place.path(b"d/%d" % number))
    monitor = place.monitor()
    lookups: list[bytes] = []

    def counted(fd: int, key: bytes) -> int:
        lookups.append(key)
        return open_handle(fd, key)

    monkeypatch.setattr(places, "open_handle", counted)
    shutil.rmtree(place.path(b"d"))
    assert RelPath(b"d") in {report.path for report in drain(monitor)}
    assert len(lookups) == len(set(lookups))
    os.mkdir(place.path(b"d"))  # On some file systems it may get the same handle, so it is looked up anew.
    write(place.path(b"d/f"))
    assert RelPath(b"d/f") in {report.path for report in drain(monitor)}


def test_new_directories_outside_are_known_without_a_look(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monitor = place.monitor()
    write(place.outside + b"/f")
    assert drain(monitor) == []
    monkeypatch.setattr(places, "open_handle", lambda *_: pytest.fail("it was looked up"))
    os.makedirs(place.outside + b"/a/b")
    write(place.outside + b"/a/b/f")
    assert drain(monitor) == []
    monkeypatch.undo()
    os.rename(place.outside + b"/a", place.path(b"a"))
    write(place.path(b"a/b/g"))
    assert RelPath(b"a/b/g") in {report.path for report in drain(monitor)}


def test_events_of_a_removed_directory_that_is_still_open(place: Place) -> None:
    monitor = place.monitor()
    os.mkdir(place.path(b"d"))
    fd = os.open(place.path(b"d"), os.O_RDONLY)
    drain(monitor)
    monitor._places.forget()
    os.rmdir(place.path(b"d"))
    os.fchmod(fd, 0o700)
    assert drain(monitor) == [Report(RelPath(b"d"), Scope.TREE, is_dir=True)]
    os.close(fd)


@pytest.mark.parametrize("what", ["root", "ancestor", "removed", "removed later"])
def test_root_changed(place: Place, caplog: pytest.LogCaptureFixture, what: str) -> None:
    root = place.base + b"/up/root"
    os.makedirs(root)
    monitor = place.monitor(root)
    if what == "root":
        os.rename(root, place.base + b"/elsewhere")
    elif what == "ancestor":
        os.rename(place.base + b"/up", place.base + b"/elsewhere")
    else:
        os.mkdir(place.base + b"/up/sibling")
        if what == "removed later":
            assert drain(monitor) == []
        os.rmdir(root)
    assert EVERYTHING in drain(monitor)
    assert [record.message for record in caplog.records] == ["source-root-changed"]
    assert monitor.status().trouble
    if what in ("root", "ancestor"):
        # What is below is still reported relative to the directory that was the root.
        write(place.base + (b"/elsewhere/f" if what == "root" else b"/elsewhere/root/f"))
        assert drain(monitor) == [Report(RelPath(b"f"))]
        os.mkdir(place.base + b"/other")
        os.rename(place.base + b"/other", place.base + b"/other2")
        assert drain(monitor) == []
        assert len(caplog.records) == 1


def test_ancestor_on_another_file_system_renamed(place: Place) -> None:
    """That rename is no event here; the paths of what is looked up afterwards must be right all the same."""
    disk = place.mount(place.base + b"/up/disk", "-t", "tmpfs", "instep-test")
    os.makedirs(disk + b"/root/d")
    os.makedirs(disk + b"/root/e")
    monitor = place.monitor(disk + b"/root")
    write(disk + b"/root/d/f")
    assert drain(monitor) == [Report(RelPath(b"d/f"))]
    os.rename(place.base + b"/up", place.base + b"/above")
    try:
        write(place.base + b"/above/disk/root/e/f")
        assert drain(monitor) == [Report(RelPath(b"e/f"))]
    finally:
        os.rename(place.base + b"/above", place.base + b"/up")


def test_root_mounted_over(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    monitor = place.monitor()
    place.mount(place.root, "-t", "tmpfs", "instep-test")
    wait_readable(monitor)
    assert EVERYTHING in drain(monitor)
    assert [record.message for record in caplog.records] == ["source-root-changed"]


# -- Mounts --------------------------------------------------------------------------------------------------------------


def test_root_seen_through_a_bind_mount(place: Place) -> None:
    """What is on the same file system, and not below the bind mount, shows as exactly ``/``: that is outside."""
    os.makedirs(place.path(b"d/e"))
    bound = place.mount(place.base + b"/bound", "--bind", place.path(b"d"))
    monitor = place.monitor(bound)
    write(place.path(b"f"))
    write(place.outside + b"/f")
    assert drain(monitor) == []
    write(place.path(b"d/e/f"))
    write(bound + b"/g")
    assert drain(monitor) == [Report(RelPath(b"e/f")), Report(RelPath(b"g"))]


def test_root_of_everything(place: Place) -> None:
    """With ``/`` as the root, in a chroot, an object that shows as ``/`` may be the root or something outside."""
    os.mkdir(place.path(b"d"))
    place.mount(place.root, "--bind", place.root)
    place.mount(place.path(b"proc"), "-t", "proc", "instep-test")
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.chroot(place.root)
            os.chdir("/")
            monitor = FanotifyMonitor(b"/", ignore=lambda path, is_dir: path == b"proc")
            monitor.start()
            monitor.read()
            os.write(write_fd, b"started\n")
            wait_readable(monitor)
            while True:  # Until the other side has done everything, which is when the last file is there.
                for report in monitor.read():
                    os.write(write_fd, repr((report.path, report.is_dir)).encode() + b"\n")
                    if report.path == b"d/last":
                        os._exit(0)
                wait_readable(monitor)
        finally:
            os._exit(1)
    os.close(write_fd)
    with open(read_fd, "rb") as said:
        assert said.readline() == b"started\n"
        write(place.outside + b"/stranger")
        write(place.path(b"f"))
        os.chmod(place.root, 0o700)
        write(place.path(b"d/last"))
        lines = said.read().splitlines()
    assert os.waitpid(pid, 0)[1] == 0
    assert set(lines) == {b"(b'f', False)", b"(b'', True)", b"(b'd/last', False)"}


def test_mount_there_at_start(place: Place) -> None:
    below = place.mount(place.path(b"a b/m"), "-t", "tmpfs", "instep-test")
    os.mkdir(below + b"/d")
    monitor = place.monitor()
    write(below + b"/d/f")
    write(below + b"/g")
    os.chmod(below, 0o700)
    assert drain(monitor) == [
        Report(RelPath(b"a b/m/d/f")),
        Report(RelPath(b"a b/m/g")),
        Report(RelPath(b"a b/m"), content=False, is_dir=True),
    ]
    assert monitor.status().watches == 2
    os.rename(place.path(b"a b"), place.path(b"c"))
    drain(monitor)
    write(place.path(b"c/m/d/f"))
    assert drain(monitor) == [Report(RelPath(b"c/m/d/f"))]
    os.rename(place.path(b"c"), place.path(b"a b"))


def test_mount_that_comes_and_goes(place: Place) -> None:
    os.mkdir(place.path(b"m"))
    monitor = place.monitor()
    hidden = os.open(place.path(b"m"), os.O_RDONLY)
    tree = Report(RelPath(b"m"), Scope.TREE, is_dir=True)
    for _ in range(2):
        place.mount(place.path(b"m"), "-t", "tmpfs", "instep-test")
        wait_readable(monitor)
        assert drain(monitor) == [tree]
        wait_silent(monitor)
        write(place.path(b"m/f"))
        assert drain(monitor) == [Report(RelPath(b"m/f"))]
        # The covered directory still has this path, but nobody sees it.
        os.close(os.open(b"covered", os.O_CREAT | os.O_WRONLY, dir_fd=hidden))
        assert drain(monitor) == []
        umount(place.path(b"m"))  # Must not fail with EBUSY.
        wait_readable(monitor)
        assert drain(monitor) == [tree]
        write(place.path(b"m/uncovered"))
        assert drain(monitor) == [Report(RelPath(b"m/uncovered"))]
    os.close(hidden)


def test_mounts_that_hide_each_other(place: Place) -> None:
    below = place.mount(place.path(b"m/n"), "-t", "tmpfs", "instep-test")
    over = place.mount(place.path(b"m"), "-t", "tmpfs", "instep-test")
    over = place.mount(place.path(b"m"), "-t", "tmpfs", "instep-test")
    monitor = place.monitor()
    assert monitor.status().trouble == ()
    assert monitor.status().watches == 2
    os.mkdir(below)
    write(below + b"/f")
    assert drain(monitor) == [Report(RelPath(b"m/n"), Scope.TREE, is_dir=True), Report(RelPath(b"m/n/f"))]
    umount(over)
    umount(over)
    assert drain(monitor)
    write(below + b"/f")
    assert drain(monitor) == [Report(RelPath(b"m/n/f"))]


def test_file_mounted_over(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    write(place.outside + b"/f")
    write(place.path(b"f"))
    mount("--bind", place.outside + b"/f", place.path(b"f"))
    monitor = place.monitor()
    umount(place.path(b"f"))
    assert monitor.status().trouble
    assert [record.message for record in caplog.records] == ["mount-not-watched"]
    assert drain(monitor) == [Report(RelPath(b"f"), Scope.TREE, is_dir=True)]


def test_quick_change_of_disks(place: Place) -> None:
    """Unmounted, and another one mounted between two looks: it may get the same mount id, but it has no mark."""
    below = place.mount(place.path(b"m"), "-t", "tmpfs", "instep-test")
    monitor = place.monitor()
    umount(below)
    mount("-t", "tmpfs", "instep-test", below)
    write(below + b"/f")
    assert Report(RelPath(b"m"), Scope.TREE, is_dir=True) in drain(monitor)
    write(below + b"/g")
    assert drain(monitor) == [Report(RelPath(b"m/g"))]


def test_directory_seen_at_two_places(place: Place) -> None:
    os.makedirs(place.path(b"d/e"))
    place.mount(place.path(b"twin"), "--bind", place.path(b"d"))
    monitor = place.monitor()
    write(place.path(b"twin/e/f"))
    assert {report.path for report in drain(monitor)} == {b"d/e/f", b"twin/e/f"}
    write(place.path(b"d/g"))
    assert {report.path for report in drain(monitor)} == {b"d/g", b"twin/g"}


def test_one_file_system(place: Place) -> None:
    below = place.mount(place.path(b"m"), "-t", "tmpfs", "instep-test")
    monitor = place.monitor(one_file_system=True)
    write(below + b"/f")
    assert drain(monitor) == []
    assert monitor.status().watches == 1
    umount(below)
    assert drain(monitor) == [Report(RelPath(b"m"), Scope.TREE, is_dir=True)]  # What was covered is seen again.


def test_ignored_mount(place: Place) -> None:
    place.mount(place.path(b"a/m"), "-t", "proc", "instep-test")
    monitor = place.monitor(ignore=lambda path, is_dir: is_dir and path == b"a")
    assert monitor.status().trouble == ()
    assert monitor.wake_s() is None


def test_mount_that_cannot_be_watched(
    place: Place, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fanotify, "RESCAN_S", 0.0)
    place.mount(place.path(b"m"), "-t", "ramfs", "instep-test")
    monitor = FanotifyMonitor(place.root)
    monitor.start()
    place.closing.callback(monitor.close)
    assert monitor.read()[0] == EVERYTHING
    assert [record.message for record in caplog.records] == ["mount-not-watched"]
    assert "ramfs" in monitor.status().trouble[0]
    assert monitor.wake_s() == 0.0
    assert monitor.read() == [Report(RelPath(b"m"), Scope.TREE, content=False, is_dir=True)]
    umount(place.path(b"m"))
    assert monitor.read() == [Report(RelPath(b"m"), Scope.TREE, is_dir=True)]
    assert monitor.status().trouble == ()
    assert monitor.wake_s() is None


# -- Starting ------------------------------------------------------------------------------------------------------------


def test_first_report_is_due_at_once(place: Place) -> None:
    monitor = FanotifyMonitor(place.root)
    monitor.start()
    assert monitor.wake_s() == 0.0
    write(place.path(b"a"))
    assert list(monitor.read()) == [EVERYTHING, Report(RelPath(b"a"))]
    assert monitor.wake_s() is None
    before = len(os.listdir("/proc/self/fd"))
    monitor.close()
    monitor.close()
    assert len(os.listdir("/proc/self/fd")) == before - 5


def test_what_cannot_be_watched(place: Place) -> None:
    assert why_unavailable(place.root) is None
    assert why_unavailable(b"/proc") == "fanotify cannot watch proc"
    with pytest.raises(ToolMissing) as caught:
        FanotifyMonitor(b"/proc").start()
    assert "fanotify cannot watch proc" in str(caught.value)
    assert "fix:" in str(caught.value)
    with pytest.raises(SourceError):
        FanotifyMonitor(place.path(b"absent")).start()


def as_nobody(say: Callable[[], str]) -> str:
    """What a function says in a process without any rights; forked, since the interpreter may not be theirs to read."""
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            os.write(write_fd, say().encode())
        finally:
            os._exit(0)
    os.close(write_fd)
    with open(read_fd) as said:
        text = said.read()
    os.waitpid(pid, 0)
    return text


def test_without_privileges() -> None:
    assert as_nobody(lambda: why_unavailable(b"/") or "available").startswith("fanotify needs CAP_SYS_ADMIN")


# -- Nothing is missed ---------------------------------------------------------------------------------------------------

NAMES = (b"a", b"b", b"c", b"d")
State = tuple[object, ...]


def state_of(path: bytes) -> State | None:
    """What must be equal at the target; size and time of directories follow from their entries."""
    try:
        found = os.lstat(path)
        if stat.S_ISDIR(found.st_mode):
            return ("directory", stat.S_IMODE(found.st_mode))
        if stat.S_ISLNK(found.st_mode):
            return ("link", os.readlink(path))
    except OSError:
        return None
    return ("file", stat.S_IMODE(found.st_mode), found.st_size, found.st_mtime_ns)


def snapshot(root: bytes, path: bytes = b"", into: dict[bytes, State] | None = None) -> dict[bytes, State]:
    into = {} if into is None else into
    full = root + b"/" + path if path else root
    state = state_of(full)
    if state is not None:
        into[path] = state
        if state[0] == "directory":
            with contextlib.suppress(OSError):
                for name in os.listdir(full):
                    snapshot(root, path + b"/" + name if path else name, into)
    return into


class Mirror:
    """A target that exists in memory only, and is brought up to date by reports as an engine would."""

    def __init__(self, root: bytes) -> None:
        self.root = root
        self.entries: dict[bytes, State] = {}

    def drop(self, path: bytes) -> None:
        below = path + b"/" if path else b""
        for known in [known for known in self.entries if known == path or known.startswith(below)]:
            del self.entries[known]

    def apply(self, report: Report) -> None:
        if report.moved_from is not None:
            self.apply(Report(report.moved_from, report.scope))
        full = self.root + b"/" + report.path if report.path else self.root
        if report.scope is Scope.TREE:
            new = snapshot(self.root, report.path)
            self.drop(report.path)
            self.entries.update(new)
            return
        state = state_of(full)
        old = self.entries.get(report.path)
        if state is None or (old is not None and old[0] == "directory" and state[0] != "directory"):
            self.drop(report.path)
        if state is not None:
            self.entries[report.path] = state


def operate(root: bytes, outside: bytes, seed: int, count: int, pause_s: float) -> None:
    """Random operations on few names, so that they meet."""
    pick = random.Random(seed)

    def path() -> bytes:
        return b"/".join([root, *(pick.choice(NAMES) for _ in range(pick.randint(1, 4)))])

    def there() -> bytes:
        return outside + b"/" + pick.choice(NAMES)

    def deep(top: bytes) -> None:
        os.makedirs(top + b"/" + pick.choice(NAMES) + b"/" + pick.choice(NAMES), exist_ok=True)
        write(top + b"/f")

    def write_some() -> None:
        with open(path(), "ab" if pick.random() < 0.5 else "wb") as file:
            file.write(b"x" * pick.randint(0, 9))

    def to_and_fro() -> None:
        one, other = path(), path()
        os.rename(one, other)
        os.rename(other, one)
        os.rename(one, other)

    operations: tuple[tuple[int, Callable[[], object]], ...] = (
        (16, lambda: os.mkdir(path())),
        (6, lambda: deep(path())),
        (14, write_some),
        (6, lambda: os.unlink(path())),
        (5, lambda: os.rmdir(path())),
        (4, lambda: shutil.rmtree(path(), ignore_errors=True)),
        (20, lambda: os.rename(path(), path())),
        (4, lambda: os.rename(path(), there())),
        (4, lambda: os.rename(there(), path())),
        (4, lambda: c.renameat2(-100, path(), -100, path(), RENAME_EXCHANGE)),
        (4, to_and_fro),
        (4, lambda: os.chmod(path(), pick.choice((0o755, 0o700, 0o644)))),
        (3, lambda: os.symlink("x", path())),
        (2, lambda: os.utime(path())),
        (2, lambda: os.truncate(path(), pick.randint(0, 50))),
        (2, lambda: deep(there())),
    )
    weights = [weight for weight, _ in operations]
    for _ in range(count):
        operation = pick.choices(operations, weights)[0][1]
        with contextlib.suppress(OSError):
            operation()
        if pause_s and pick.random() < 0.05:
            time.sleep(pick.random() * pause_s)


def check_round(place: Place, seed: int, count: int, *, overflows: bool) -> None:
    print("seed", seed)
    pick = random.Random(seed)
    operate(place.root, place.outside, seed * 7 + 1, 150, 0)
    early = pick.random() < 0.5
    writers: set[int] = set()

    def start_writers() -> None:
        for number in range(1 + seed % 3):
            pid = os.fork()
            if not pid:
                try:
                    operate(place.root, place.outside, seed * 1000 + number, count, 0.002 if seed % 2 else 0)
                finally:
                    os._exit(0)
            writers.add(pid)

    if not early:
        start_writers()
    monitor = FanotifyMonitor(place.root)
    monitor.start()
    place.closing.callback(monitor.close)
    mirror = Mirror(place.root)
    if early:
        start_writers()

    def catch_up() -> None:
        if overflows and pick.random() < 0.05:
            # As if the kernel had dropped all this.
            with contextlib.suppress(BlockingIOError):
                os.read(monitor.group, 1 << 18)
                reports: list[Report] = []
                monitor._take(overflow(), reports)
                for report in reports:
                    mirror.apply(report)
        while True:
            for report in monitor.read():
                mirror.apply(report)
            if monitor.drained:
                return

    while writers:
        for pid in tuple(writers):
            if os.waitpid(pid, os.WNOHANG)[0]:
                writers.discard(pid)
        catch_up()
        if pick.random() < 0.3:
            time.sleep(pick.random() * 0.003)  # Lets the queue fill, so that events merge.
    catch_up()
    assert mirror.entries == snapshot(place.root), f"seed {seed}"
    # A directory that is not watched any more may happen to be in step: touch each one.
    for path, state in snapshot(place.root).items():
        if state[0] == "directory":
            write(place.path(path + b"/probe") if path else place.path(b"probe"))
    catch_up()
    assert mirror.entries == snapshot(place.root), f"seed {seed}, probe"


@pytest.mark.parametrize("overflows", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_nothing_is_missed(place: Place, seed: int, *, overflows: bool) -> None:
    check_round(place, seed, 400, overflows=overflows)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 300 if os.environ.get("INSTEP_SIZES") == "full" else 130))
def test_nothing_is_missed_in_many_rounds(place: Place, seed: int) -> None:
    check_round(place, seed, 800, overflows=seed % 4 == 0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_nothing_is_missed_on_disk_file_systems(tmp_path_factory: pytest.TempPathFactory, kind: str) -> None:
    base = os.fsencode(tmp_path_factory.mktemp(kind))
    image = base + b"/image"
    with open(image, "wb") as file:
        file.truncate(320 << 20)
    subprocess.run([f"mkfs.{kind}", "-q", image], check=True)
    os.mkdir(base + b"/disk")
    mount("-o", "loop", image, base + b"/disk")
    try:
        for seed in range(10):
            os.mkdir(base + b"/disk/%d" % seed)
            place = Place(base + b"/disk/%d" % seed)
            with place.closing:
                check_round(place, seed, 400, overflows=False)
    finally:
        umount(base + b"/disk")
