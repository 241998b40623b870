"""What is particular to the poll monitor."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from instep.errors import SourceError
from instep.model import Report
from instep.monitors import poll
from instep.monitors.poll import PollMonitor, why_unavailable
from instep.paths import RelPath, Scope
from tests.conformance.monitor_model import Mirror, drain, snapshot


@pytest.fixture
def root(tmp_path: object) -> bytes:
    return os.fsencode(str(tmp_path))


@pytest.fixture
def monitor(root: bytes) -> Iterator[PollMonitor]:
    one = PollMonitor(root, interval_s=0.01)
    yield one
    one.close()
    one.close()


def test_always_available(root: bytes) -> None:
    assert why_unavailable(root) is None


def test_no_such_root(root: bytes) -> None:
    with pytest.raises(SourceError):
        PollMonitor(root + b"/missing").start()


def test_gone_and_new_names_are_lists_too(root: bytes, monitor: PollMonitor) -> None:
    os.mkdir(root + b"/dir")
    with open(root + b"/dir/old", "wb"):
        pass
    monitor.start()
    drain(monitor)
    os.rename(root + b"/dir/old", root + b"/dir/new")
    reports = drain(monitor)
    assert {Report(RelPath(b"dir/old")), Report(RelPath(b"dir/new"))} <= set(reports)
    assert Report(RelPath(b"dir"), Scope.LIST, is_dir=True) in reports


def test_a_new_directory_is_one_tree(root: bytes, monitor: PollMonitor) -> None:
    monitor.start()
    drain(monitor)
    os.makedirs(root + b"/new/deep")
    with open(root + b"/new/deep/file", "wb"):
        pass
    reports = drain(monitor)
    assert Report(RelPath(b"new"), Scope.TREE, is_dir=True) in reports


def test_same_size_and_mtime(root: bytes, monitor: PollMonitor) -> None:
    """Only ctime tells; and within one tick not even that: the second look does."""
    path = root + b"/file"
    with open(path, "wb") as file:
        file.write(b"one")
    before = os.stat(path)
    monitor.start()
    drain(monitor)
    with open(path, "r+b") as file:
        file.write(b"two")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert Report(RelPath(b"file")) in drain(monitor)


def test_what_changed_just_before_is_looked_at_again(
    root: bytes, monitor: PollMonitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open(root + b"/file", "wb"):
        pass
    monkeypatch.setattr(poll, "RACY_NS", 3600 * 10**9)
    monitor.start()
    seen: list[Report] = []
    while RelPath(b"file") not in {report.path for report in seen}:  # nothing changes, it is reported all the same
        seen += monitor.read()
    assert not monitor.drained
    monkeypatch.setattr(poll, "RACY_NS", -3600 * 10**9)
    drain(monitor)
    assert drain(monitor) == []


def test_a_scan_goes_on_in_slices(root: bytes, monitor: PollMonitor, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(50):
        os.mkdir(root + b"/%d" % number)
    monitor.start()
    drain(monitor)
    monkeypatch.setattr(poll, "SLICE_S", 0.0)
    drain(monitor)  # ends with a scan
    slices = 0

    def settled() -> bool:
        monitor.read()
        return monitor.drained

    while not settled():
        slices += monitor.wake_s() == 0.0
    assert slices >= 50


def test_ignored_is_not_walked(root: bytes) -> None:
    os.makedirs(root + b"/cache/deep")
    monitor = PollMonitor(root, interval_s=0.01, ignore=lambda path, _: path == b"cache")
    try:
        monitor.start()
        drain(monitor)
        with open(root + b"/cache/deep/file", "wb"):
            pass
        assert drain(monitor) == []
    finally:
        monitor.close()


def test_a_directory_that_was_away_while_its_reports_were_acted_on(root: bytes, monitor: PollMonitor) -> None:
    """Between two scans it goes and comes back: the same inode and names, but the target has lost them meanwhile."""
    os.makedirs(root + b"/top/dir/sub")
    with open(root + b"/top/dir/sub/file", "wb"):
        pass
    mirror = Mirror(root)
    monitor.start()
    mirror.apply(drain(monitor))
    with open(root + b"/top/new", "wb"):
        pass
    reports = drain(monitor)
    os.rename(root + b"/top/dir", root + b"/away")
    mirror.apply(reports)
    assert b"top/dir" not in mirror.holds
    os.rename(root + b"/away", root + b"/top/dir")
    mirror.apply(drain(monitor))
    assert mirror.holds == snapshot(root)[0]
