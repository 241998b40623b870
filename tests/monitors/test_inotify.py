"""What is particular to the inotify monitor: overflow, limits, memory; and that its test finds known mistakes."""

from __future__ import annotations

import array
import errno
import fcntl
import logging
import os
import random
import select
import shutil
import subprocess
import sys
import tempfile
import termios
import time
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest

from instep.errors import SourceError, ToolMissing
from instep.linux import inotify as kernel
from instep.model import Report
from instep.monitors import inotify
from instep.monitors.inotify import InotifyMonitor, why_unavailable
from instep.monitors.inotify_tree import Node, Tree, below
from instep.monitors.inotify_watches import Watches
from instep.paths import ROOT, RelPath, Scope
from tests.conformance.monitor_model import drain, fork, read_until, rounds

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="inotify is a facility of Linux")

OVERFLOW = kernel.EVENT.pack(-1, kernel.IN_Q_OVERFLOW, 0, 0)
EVERYTHING = Report(ROOT, Scope.TREE, content=False, is_dir=True)
NOBODY = 65534


@pytest.fixture
def root() -> Iterator[bytes]:
    path = tempfile.mkdtemp(prefix="instep-test-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
    yield os.fsencode(path)
    subprocess.run(["chmod", "-R", "u+rwx", path], check=True)
    shutil.rmtree(path)


@pytest.fixture
def monitor(root: bytes) -> Iterator[InotifyMonitor]:
    one = InotifyMonitor(root)
    yield one
    one.close()


def told(caplog: pytest.LogCaptureFixture, event: str) -> list[dict[str, object]]:
    return [getattr(record, "fields") for record in caplog.records if record.message == event]  # noqa: B009


class Injected(InotifyMonitor):
    """Overflows now and then, more often than any kernel."""

    backoff_s = (0.0,)
    draw = random.Random(5)

    def _next(self) -> bytes:
        data = super()._next()
        return OVERFLOW if len(data) > 600 and self.draw.random() < 0.06 else data


class TestOverflow:
    def test_nothing_is_lost(self, root: bytes) -> None:
        assert rounds(Injected, root, range(300, 312)) == []

    def test_the_tree_is_attached_anew(
        self, root: bytes, monitor: InotifyMonitor, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        os.makedirs(root + b"/one/deep")
        os.makedirs(root + b"/two")
        monitor.start()
        drain(monitor)
        fd = monitor.fileno()
        with monkeypatch.context() as patch:
            # What happens meanwhile is lost.
            patch.setattr(monitor, "_next", lambda: OVERFLOW)
            os.rename(root + b"/one", root + b"/uno")
            os.rename(root + b"/two", root + b"/one")
            monitor.read()
        reports = drain(monitor)
        assert reports == [EVERYTHING, Report(RelPath(b"one"), Scope.TREE, content=True, is_dir=True)]
        assert monitor.fileno() == fd
        assert monitor.status().overflows == 1
        (fields,) = told(caplog, "inotify-overflow")
        assert "max_queued_events" in str(fields["fix"])
        os.mkdir(root + b"/uno/deep/new")
        assert b"uno/deep/new" in {report.path for report in drain(monitor)}

    def test_repeated_ones_pause(self, monitor: InotifyMonitor, monkeypatch: pytest.MonkeyPatch) -> None:
        monitor.start()
        drain(monitor)
        waits = []
        now_s = time.monotonic()
        with monkeypatch.context() as patch:
            patch.setattr(monitor, "_next", lambda: OVERFLOW)
            patch.setattr(time, "monotonic", lambda: now_s)
            for _ in range(5):
                monitor.read()
                waits.append(monitor.wake_s())
                monitor._restart_at_s = 0.0
        assert waits == [0, 1, 2, 4, 4]

    def test_reports_still_due_survive(
        self, root: bytes, monitor: InotifyMonitor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monitor.start()
        drain(monitor)
        os.mkdir(root + b"/new")
        event = os.read(monitor._queue, 65536)
        pieces = iter([event, OVERFLOW])
        with monkeypatch.context() as patch:
            patch.setattr(monitor, "_next", lambda: next(pieces))
            patch.setattr(inotify, "SLICE_S", -1.0)
            patch.setattr(Watches, "work", lambda *_: None)
            monitor.read()
            monitor.read()
        reports = drain(monitor)
        assert EVERYTHING in reports
        assert Report(RelPath(b"new"), Scope.TREE, content=True, is_dir=True) in reports


LIMITED = """
import os, sys, logging
from instep.monitors.inotify import InotifyMonitor
from tests.conformance.monitor_model import drain, read_until
class Handler(logging.Handler):
    def emit(self, record): print(record.getMessage(), record.fields.get("limit"), record.fields.get("fix", ""))
logging.getLogger().addHandler(Handler())
root = os.fsencode(sys.argv[1])
def limit(number):
    with open("/proc/sys/user/max_inotify_watches", "w") as file: file.write(str(number))
for n in range(30): os.makedirs(root + b"/%02d/below" % n)
limit(41)  # one is for the directory above the root
monitor = InotifyMonitor(root, rescan_s=0.1)
monitor.start()
first = drain(monitor)
print(first[0].path, int(first[0].scope), monitor.status().watches, len(monitor.status().trouble) > 0)
missed = [n for n in range(30) if any(t.startswith("'%02d" % n) for t in monitor.status().trouble)]
seen = lambda reports: any(r.path.startswith(b"%02d" % missed[0]) and int(r.scope) == 2 for r in reports)
read_until(monitor, seen, "rescan")
limit(1000)
read_until(monitor, lambda _: not monitor.status().trouble and monitor.drained, "healed")
print(monitor.status().watches)
"""


class TestLimits:
    def test_watches(self, root: bytes) -> None:
        try:
            done = subprocess.run(
                ["unshare", "--user", "--map-root-user", sys.executable, "-c", LIMITED, root],
                capture_output=True, text=True, check=False, timeout=60, env={**os.environ, "PYTHONPATH": "src:."},
            )  # fmt: skip
        except FileNotFoundError:
            pytest.skip("there is no unshare")
        if "unshare" in done.stderr and "ermission" in done.stderr:
            pytest.skip(done.stderr)
        assert done.returncode == 0, done.stderr
        reached, first, healed, watches = done.stdout.splitlines()
        assert reached.startswith("watch-limit-reached")
        assert "this tree needs about 61)" in reached
        assert first == "b'' 2 40 True"
        assert healed.startswith("watch-limit-healed")
        assert watches == "61"

    def test_instances(self, monitor: InotifyMonitor, monkeypatch: pytest.MonkeyPatch) -> None:
        def full() -> int:
            raise OSError(errno.EMFILE, "Too many open files")

        monkeypatch.setattr(kernel, "open_queue", full)
        with pytest.raises(ToolMissing) as caught:
            monitor.start()
        assert "max_user_instances" in caught.value.fix
        assert "Too many open files" in (why_unavailable(b"/") or "")

    def test_memory(self, root: bytes, monitor: InotifyMonitor) -> None:
        for one in range(8):
            for two in range(30):
                for three in range(33):
                    os.makedirs(root + b"/directory-%d/sub-%d/name-%d" % (one, two, three))
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            begun_s = time.monotonic()
            monitor.start()
            took_s = time.monotonic() - begun_s
            watches = monitor.status().watches
            each = (tracemalloc.get_traced_memory()[0] - before) / watches
        finally:
            tracemalloc.stop()
        print(f"{watches} directories, {each:.0f} bytes each, {took_s / watches * 1e6:.1f} us each (traced)")
        assert watches == 8 * 30 * 33 + 8 * 30 + 8 + 1
        assert each < 350

    def test_a_large_tree_moved_out_does_not_overflow_the_queue(self, root: bytes, monitor: InotifyMonitor) -> None:
        """Each watch given back is an event."""
        for one in range(300):
            for two in range(60):
                os.makedirs(root + b"/in/all/%d/%d" % (one, two))
        outside = os.fsencode(tempfile.mkdtemp(prefix="instep-test-", dir=os.fsdecode(os.path.dirname(root)))) + b"/all"
        try:
            monitor.start()
            drain(monitor)
            os.rename(root + b"/in/all", outside)
            drain(monitor)
            assert monitor.status().watches == 2
            assert monitor.status().overflows == 0
        finally:
            shutil.rmtree(os.path.dirname(outside))


def test_the_kernel_queue_is_emptied_before_events_are_looked_at(root: bytes, monitor: InotifyMonitor) -> None:
    """It holds little, and looking takes time: one reading makes room for all that it holds."""
    monitor.start()
    drain(monitor)
    names = {b"%032x" % number for number in range(4000)}
    for name in names:  # three events each
        os.close(os.open(root + b"/" + name, os.O_CREAT | os.O_WRONLY))
    assert monitor.read()
    assert not monitor.drained
    left = array.array("i", [0])
    fcntl.ioctl(monitor._queue, termios.FIONREAD, left)
    assert left[0] == 0
    reports = drain(monitor)
    assert {report.path for report in reports} < names
    assert monitor.status().overflows == 0


def test_events_on_one_name_are_one_report(root: bytes, monitor: InotifyMonitor) -> None:
    monitor.start()
    drain(monitor)
    with open(root + b"/file", "wb") as file:
        for _ in range(10):
            file.write(b"x")
            file.flush()
            os.fchmod(file.fileno(), 0o600)
    assert drain(monitor) == [Report(RelPath(b"file"))]
    assert monitor.status().events > 10


def test_attributes_then_content_is_content(root: bytes, monitor: InotifyMonitor) -> None:
    with open(root + b"/file", "wb"):
        pass
    monitor.start()
    drain(monitor)
    os.chmod(root + b"/file", 0o600)
    os.truncate(root + b"/file", 5)
    assert drain(monitor) == [Report(RelPath(b"file"))]


def test_ignored_directories_are_not_watched(root: bytes) -> None:
    asked = []

    def ignore(path: RelPath, is_dir: bool) -> bool:
        assert is_dir
        asked.append(path)
        return path.endswith(b"cache")

    os.makedirs(root + b"/cache/deep")
    os.makedirs(root + b"/kept")
    monitor = InotifyMonitor(root, ignore=ignore)
    try:
        monitor.start()
        drain(monitor)
        assert monitor.status().watches == 2
        os.mkdir(root + b"/kept/cache")
        os.mkdir(root + b"/kept/other")
        drain(monitor)
        assert sorted(asked) == [b"cache", b"kept", b"kept/cache", b"kept/other"]
        # Renamed, it is ignored no more; nor is what was ignored by its place.
        os.rename(root + b"/cache", root + b"/kept/named")
        drain(monitor)
        with open(root + b"/kept/named/deep/file", "wb"):
            pass
        assert {report.path for report in drain(monitor)} == {b"kept/named/deep/file"}
    finally:
        monitor.close()


@pytest.mark.parametrize("what", ["renamed", "removed"])
def test_the_root_is_gone(root: bytes, what: str, caplog: pytest.LogCaptureFixture) -> None:
    source = root + b"/source"
    os.mkdir(source)
    monitor = InotifyMonitor(source)
    try:
        monitor.start()
        drain(monitor)
        if what == "renamed":
            os.rename(source, root + b"/other")
        else:
            os.rmdir(source)
        reports = drain(monitor)
        assert Report(ROOT, Scope.TREE, is_dir=True) in reports
        assert len(told(caplog, "source-root-changed")) == 1
        assert what in monitor.status().trouble[0]
    finally:
        monitor.close()


def test_a_link_swapped_in_is_not_followed(root: bytes, monitor: InotifyMonitor) -> None:
    """A stranger replaces a directory by a link to the outside between the event and our look."""
    os.makedirs(root + b"/../" + os.path.basename(root) + b"/in/dir")
    outside = tempfile.mkdtemp(prefix="instep-test-").encode()
    try:
        os.makedirs(outside + b"/dir/deep")
        monitor.start()
        drain(monitor)
        os.mkdir(root + b"/in/dir/deep")
        os.rename(root + b"/in", root + b"/away")
        os.symlink(outside, root + b"/in")
        drain(monitor)
        assert monitor.status().watches == 4
        with open(outside + b"/dir/deep/file", "wb"):
            pass
        assert drain(monitor) == []
    finally:
        shutil.rmtree(outside)


def test_no_such_root(root: bytes) -> None:
    with pytest.raises(SourceError) as caught:
        InotifyMonitor(root + b"/missing").start()
    assert caught.value.code == "source-unreadable"


def test_parts_of_a_rename_in_two_reads(root: bytes, monitor: InotifyMonitor, monkeypatch: pytest.MonkeyPatch) -> None:
    os.makedirs(root + b"/one/deep")
    monitor.start()
    drain(monitor)
    os.rename(root + b"/one", root + b"/two")
    data = os.read(monitor._queue, 65536)
    first = kernel.EVENT.size + kernel.EVENT.unpack_from(data)[3]
    pieces = [data[:first], b"", data[first:]]
    monkeypatch.setattr(monitor, "_next", lambda: pieces.pop(0) if pieces else b"")
    assert monitor.read() == []
    assert not monitor.drained
    wake_s = monitor.wake_s()
    assert wake_s is not None
    assert wake_s > 0
    assert Report(RelPath(b"two"), Scope.TREE, True, True, RelPath(b"one")) in monitor.read()


class Unlisted(Watches):
    """Mutant: watches, but does not list; what was made before the watch is lost."""

    def _list(self, fd: int) -> list[bytes]:
        return []


class Blind(InotifyMonitor):
    """Mutant: a directory moved away is dropped by name, though another may stand there already."""

    def _left(self, node: Node) -> None:
        if node.is_alive():
            self._watches.tree.drop(node)


class Naive(Watches):
    """Mutant: a rename is believed as the event tells it."""

    def moved(self, node: Node, parent: Node, name: bytes) -> bool:
        return self.tree.relink(node, parent, name)


class Unforgiving(InotifyMonitor):
    """Mutant: a directory that becomes readable is not looked into."""

    def _directory(self, parent: Node, name: bytes, mask: int, pending: Any, out: list[Report]) -> None:
        if mask & (kernel.IN_CREATE | kernel.IN_MOVED_TO | kernel.IN_DELETE):
            super()._directory(parent, name, mask, pending, out)
        else:
            out.append(Report(below(parent.path(), name), Scope.ENTRY, content=False, is_dir=True))


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody to whom directories can be unreadable")
def test_the_property_test_finds_a_missing_rule_of_attributes(root: bytes) -> None:
    os.chmod(root, 0o777)

    def unprivileged() -> None:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        logging.disable(logging.CRITICAL)
        for seed in range(0, 400, 4):
            if rounds(Unforgiving, root, range(seed, seed + 4), modes=True):
                return
        pytest.fail("400 rounds did not find it")

    assert os.waitpid(fork(unprivileged), 0)[1] == 0, "see the traceback of the child"


@pytest.mark.parametrize("mutant", ["noscan", "blinddrop", "naive"])
def test_the_property_test_finds_mutants(root: bytes, mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make: type[InotifyMonitor] = InotifyMonitor
    if mutant == "blinddrop":
        make = Blind
    else:
        monkeypatch.setattr(inotify, "Watches", Unlisted if mutant == "noscan" else Naive)
    logging.disable(logging.CRITICAL)
    try:
        for seed in range(0, 400, 4):
            if rounds(make, root, range(seed, seed + 4)):
                return
    finally:
        logging.disable(logging.NOTSET)
    pytest.fail("400 rounds did not find it")


class TestTree:
    def test_a_place_below_itself_is_refused(self) -> None:
        tree = Tree()
        one = tree.add(tree.top, b"one")
        two = tree.add(one, b"two")
        assert not tree.relink(one, two, b"x")
        assert (two.path(), one.kid(b"two")) == (b"one/two", two)

    def test_relink_takes_the_place_of_another(self) -> None:
        tree = Tree()
        one, two = tree.add(tree.top, b"one"), tree.add(tree.top, b"two")
        deep = tree.add(one, b"deep")
        assert tree.relink(one, tree.top, b"two")
        assert deep.path() == b"two/deep"
        assert not two.is_alive()
        assert tree.dropped == [two]
        assert tree.top.kid(b"one") is None


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_one_directory_at_two_places_is_rescanned(root: bytes) -> None:
    """A watch belongs to the directory: of a bind mount inside the tree only one place can have it."""
    os.makedirs(root + b"/one/deep")
    os.makedirs(root + b"/two")
    subprocess.run(["mount", "--bind", root + b"/one", root + b"/two"], check=True)
    monitor = InotifyMonitor(root, rescan_s=0.05)
    try:
        monitor.start()
        drain(monitor)
        (trouble,) = monitor.status().trouble
        twice = RelPath(b"two" if trouble.startswith("'two'") else b"one")
        rescan = Report(twice, Scope.TREE, content=False, is_dir=True)
        read_until(monitor, lambda reports: rescan in reports, "rescan")
    finally:
        monitor.close()
        subprocess.run(["umount", root + b"/two"], check=True)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_mount_wakes_the_caller(root: bytes, monitor: InotifyMonitor) -> None:
    os.makedirs(root + b"/mnt")
    monitor.start()
    drain(monitor)
    poll = select.poll()
    poll.register(monitor.fileno(), select.POLLIN)
    while poll.poll(0):
        monitor.read()
    subprocess.run(["mount", "-t", "tmpfs", "instep-test", root + b"/mnt"], check=True)
    try:
        assert poll.poll(60_000), "nothing in a minute"
        assert RelPath(b"mnt") in {report.path for report in drain(monitor)}
    finally:
        monitor.close()
        subprocess.run(["umount", root + b"/mnt"], check=True)
