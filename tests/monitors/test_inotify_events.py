"""The inotify monitor for those who act on events: what each kernel event becomes."""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from instep.linux.inotify import (
    IN_ATTRIB,
    IN_CLOSE_WRITE,
    IN_CREATE,
    IN_DELETE,
    IN_MODIFY,
    IN_MOVED_FROM,
    IN_MOVED_TO,
)
from instep.model import EventReport, Report
from instep.monitors.inotify_events import InotifyEvents
from instep.paths import Scope

NAMES = {
    IN_ATTRIB: "attrib", IN_CLOSE_WRITE: "close", IN_CREATE: "create", IN_DELETE: "delete", IN_MODIFY: "modify",
    IN_MOVED_FROM: "from", IN_MOVED_TO: "to", IN_MOVED_FROM | IN_MOVED_TO: "move",
}  # fmt: skip

Read = Callable[[], list[str]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "r/d/e").mkdir(parents=True)
    (tmp_path / "r/f").write_text("f")
    (tmp_path / "outside").mkdir()
    return tmp_path / "r"


@pytest.fixture
def monitor(root: Path) -> Iterator[InotifyEvents]:
    monitor = InotifyEvents(os.fsencode(root), ignore=lambda path, _: path == b"ignored")
    monitor.start()
    try:
        yield monitor
    finally:
        monitor.close()


@pytest.fixture
def read(monitor: InotifyEvents) -> Read:
    """All that there is to read, one word a report; what is not an event stands in capitals."""

    def reading() -> list[str]:
        found: list[str] = []
        while True:
            reports = monitor.read()
            found += [shown(report) for report in reports]
            if not reports and monitor.drained:
                return found
            select.select([monitor.fileno()], [], [], monitor.wake_s() or 0)

    assert reading() == ["TREE "]
    return reading


def shown(report: Report) -> str:
    if not isinstance(report, EventReport):
        return f"{report.scope.name} {os.fsdecode(report.path)}"
    assert report.scope is Scope.ENTRY
    name = os.fsdecode(report.path) + ("/" if report.is_dir else "")
    return f"{NAMES[report.mask]} " + (f"{os.fsdecode(report.moved_from)} " if report.moved_from else "") + name


def test_files(root: Path, read: Read) -> None:
    (root / "new").write_text("x")
    assert read() == ["create new", "modify new", "close new"]
    os.utime(root / "f")
    assert read() == ["attrib f"]
    (root / "f").unlink()
    assert read() == ["delete f"]


def test_nothing_is_merged_but_what_the_kernel_merges(root: Path, read: Read) -> None:
    for _ in range(3):
        (root / "f").write_text("y")
        (root / "f").chmod(0o600)
    assert [word for word in read() if word != "modify f"] == ["close f", "attrib f"] * 3


def test_renames(root: Path, read: Read) -> None:
    (root / "f").rename(root / "g")
    (root / "d").rename(root / "k")
    assert read() == ["move f g", "move d k/"]
    (root / "k/e/z").write_text("")
    assert read() == ["create k/e/z", "close k/e/z"], "what moved is watched under its new name"
    (root / "g").rename(root.parent / "outside/g")
    assert read() == ["from g"]
    (root.parent / "outside/g").rename(root / "back")
    assert read() == ["to back"]


def test_a_directory_that_comes_is_told_and_then_left_to_be_listed(root: Path, read: Read) -> None:
    (root / "n/m").mkdir(parents=True)
    found = read()
    assert found[0] == "create n/"
    assert "TREE n" in found
    (root / "n/m/z").write_text("")
    assert read() == ["create n/m/z", "close n/m/z"]
    (root.parent / "outside/deep/er").mkdir(parents=True)
    (root.parent / "outside/deep").rename(root / "deep")
    assert read() == ["to deep/", "TREE deep"]


def test_removals(root: Path, read: Read) -> None:
    (root / "d/e").rmdir()
    (root / "d").rmdir()
    assert read() == ["delete d/e/", "delete d/"]


def test_what_is_ignored_is_told_but_not_watched(root: Path, read: Read) -> None:
    (root / "ignored/below").mkdir(parents=True)
    assert read()[0] == "create ignored/"
    (root / "ignored/below/x").write_text("")
    assert read() == []


def test_an_overflow_is_a_tree(root: Path, monitor: InotifyEvents, read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(InotifyEvents, "backoff_s", (0.0,))
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    for number in range(limit // 2 + 10):
        os.utime(root / "f", (number, number))
        os.chmod(root / "d", 0o700 + number % 2)
    assert "TREE " in read()
    assert monitor.status().overflows == 1
    (root / "f").unlink()
    assert read() == ["delete f"]
