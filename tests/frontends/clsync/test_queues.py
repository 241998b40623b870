"""What waits: one entry a path, joined over queues, and the times of the next run."""

from __future__ import annotations

import math

import pytest

from instep.frontends.clsync.entries import Entry, ObjectType
from instep.frontends.clsync.queues import Delays, Queue, Queues, overlap
from instep.paths import ROOT, RelPath

DELAYS = Delays(collect_s=5.0, big_s=60.0, sync_s=10.0)


def entry(path: bytes, mask: int = 2, *, old: int = 2, new: int = 2, recursive: bool = False) -> Entry:
    return Entry(RelPath(path), mask, ObjectType(old), ObjectType(new), recursive=recursive)


def told(entries: list[Entry]) -> dict[bytes, tuple[int, int, int]]:
    return {each.path: (each.mask, each.old, each.new) for each in entries}


def test_a_path_is_told_once_with_all_that_happened() -> None:
    queues = Queues()
    queues.add(Queue.NORMAL, entry(b"f", 256, old=ObjectType.ABSENT), 1.0)
    queues.add(Queue.NORMAL, entry(b"f", 8), 2.0)
    queues.add(Queue.NORMAL, entry(b"f", 512, new=ObjectType.ABSENT), 3.0)
    assert len(queues) == 1
    assert told(queues.take_all()) == {b"f": (256 | 8 | 512, ObjectType.ABSENT, ObjectType.ABSENT)}
    assert len(queues) == 0


def test_times() -> None:
    queues = Queues()
    assert queues.due_s(DELAYS) == math.inf
    queues.ran(0.0)
    queues.add(Queue.NORMAL, entry(b"f"), 1.0)
    queues.add(Queue.NORMAL, entry(b"g"), 4.0)
    assert queues.due_s(DELAYS) == 10.0, "delay-sync counts from the last run"
    queues.ran(-100.0)
    assert queues.due_s(DELAYS) == 6.0, "delay-collect counts from the first event"
    queues.add(Queue.INSTANT, entry(b"h"), 5.0)
    assert queues.due_s(DELAYS) == -math.inf


def test_a_queue_that_is_flushed_takes_along_what_others_have_of_its_paths() -> None:
    queues = Queues()
    queues.add(Queue.BIG, entry(b"f", 1), 1.0)
    queues.add(Queue.BIG, entry(b"big", 1), 1.0)
    queues.add(Queue.NORMAL, entry(b"f", 2), 2.0)
    assert queues.take(3.0, DELAYS) == []
    assert told(queues.take(7.0, DELAYS)) == {b"f": (3, 2, 2)}
    assert [each.path for each in queues.entries(Queue.BIG)] == [b"big"]
    assert queues.due_s(DELAYS) == 61.0


def test_all_that_is_due_is_one_run() -> None:
    queues = Queues()
    for queue in (Queue.BIG, Queue.NORMAL, Queue.INSTANT):
        queues.add(queue, entry(b"%d" % queue), 0.0)
    assert told(queues.take(60.0, DELAYS)).keys() == {b"0", b"1", b"2"}


@pytest.mark.parametrize("late", [False, True])
def test_what_is_below_a_whole_directory_is_part_of_it(late: bool) -> None:
    queues = Queues()
    given = [(b"d", True), (b"d/e/f", False), (b"de", False), (b"d/e", True)]
    for path, recursive in reversed(given) if late else given:
        queues.add(Queue.NORMAL, entry(path, recursive=recursive), 0.0)
    assert told(queues.take_all()).keys() == {b"d", b"de"}
    queues.add(Queue.NORMAL, entry(b"d/e/f"), 0.0)
    assert told(queues.take_all()).keys() == {b"d/e/f"}, "once it is out it covers nothing more"


def test_everything_is_below_the_root() -> None:
    queues = Queues()
    queues.add(Queue.INSTANT, entry(ROOT, recursive=True), 0.0)
    queues.add(Queue.NORMAL, entry(b"f"), 0.0)
    assert told(queues.take_all()).keys() == {b""}


def test_what_was_held_is_tried_again_at_once() -> None:
    queues = Queues()
    queues.add(Queue.LOCKWAIT, entry(b"f"), 5.0)
    assert queues.due_s(DELAYS) == math.inf
    queues.release()
    assert queues.due_s(DELAYS) == -math.inf


def test_overlaps() -> None:
    others = {each.path: each for each in (entry(b"a/b"), entry(b"t", recursive=True))}
    given = [
        entry(b"a/b"), entry(b"a"), entry(b"a/b/c"), entry(b"t/x/y"), entry(b"tt"), entry(b"a", recursive=True)
    ]  # fmt: skip
    assert overlap(given[:5], others) == {b"a/b", b"t/x/y"}
    assert overlap(given[5:], others) == {b"a"}
