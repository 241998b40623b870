"""The queue of a sync: how entries relate, what order and blocking they keep, and what it costs."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instep.frontends.lsyncd.queue import Entry, Kind, Queue, Relation, Status, relate

ENTRIES = 20_000

A, C, D, M, V = Kind.ATTRIB, Kind.CREATE, Kind.DELETE, Kind.MODIFY, Kind.MOVE


def shown(queue: Queue) -> list[str]:
    """One line an entry, as in a status file."""
    return [
        f"{entry.status.value.decode()} {entry.kind.value.decode()} {entry.path.decode()}"
        + (f" -> {entry.path2.decode()}" if entry.path2 else "")
        for entry in queue
    ]


Note = tuple[Kind, bytes] | tuple[Kind, bytes, bytes]


def queued(*notes: Note) -> Queue:
    queue = Queue(collapse=False)
    for kind, path, *more in notes:
        queue.note(kind, path, *more, due_s=0)
    return queue


@pytest.mark.parametrize(
    ("old", "new", "side_by_side", "collapsed"),
    [
        (A, A, None, Relation.ABSORB),
        (A, M, None, Relation.REPLACE),
        (A, C, None, Relation.REPLACE),
        (A, D, None, Relation.REPLACE),
        (M, A, None, Relation.ABSORB),
        (M, M, None, Relation.ABSORB),
        (M, C, None, Relation.REPLACE),
        (M, D, None, Relation.REPLACE),
        (C, A, None, Relation.ABSORB),
        (C, M, None, Relation.ABSORB),
        (C, C, None, Relation.ABSORB),
        (C, D, None, Relation.REPLACE),
        (D, A, None, Relation.ABSORB),
        (D, M, None, Relation.ABSORB),
        (D, D, None, Relation.ABSORB),
        (D, C, Relation.REPLACE, Relation.REPLACE),
    ],
)
def test_two_entries_on_one_file(
    old: Kind, new: Kind, side_by_side: Relation | None, collapsed: Relation | None
) -> None:
    first, second = Entry(old, b"/f"), Entry(new, b"/f")
    assert relate(first, second, collapse=False) is side_by_side
    assert relate(first, second, collapse=True) is collapsed
    first.status = Status.ACTIVE
    assert relate(first, second, collapse=True) is Relation.BLOCK, "what is being acted on cannot change any more"


@pytest.mark.parametrize(
    ("notes", "lines"),
    [
        ([(C, b"/n/"), (C, b"/n/m/")], ["wait Create /n/", "block Create /n/m/"]),
        ([(D, b"/n/z"), (D, b"/n/")], ["wait Delete /n/z", "block Delete /n/"]),
        ([(D, b"/d/"), (C, b"/d/")], ["wait Delete /d/", "block Create /d/"]),
        ([(D, b"/f"), (C, b"/f")], ["wait Create /f"]),
        ([(M, b"/f"), (M, b"/f")], ["wait Modify /f", "wait Modify /f"]),
        ([(M, b"/fo"), (C, b"/f")], ["wait Modify /fo", "wait Create /f"]),
        ([(V, b"/a", b"/b"), (M, b"/a")], ["wait Move /a -> /b", "block Modify /a"]),
        ([(V, b"/a", b"/b"), (M, b"/b")], ["wait Move /a -> /b", "block Modify /b"]),
        ([(V, b"/a", b"/b"), (D, b"/b")], ["wait Delete /a", "block Delete /b"]),
        ([(V, b"/a", b"/b"), (C, b"/b")], ["wait Delete /a", "block Create /b"]),
        ([(V, b"/a/", b"/b/"), (M, b"/b/f")], ["wait Move /a/ -> /b/", "block Modify /b/f"]),
        ([(M, b"/a"), (V, b"/a", b"/b")], ["wait Modify /a", "wait Delete /a", "wait Create /b"]),
        ([(M, b"/a/f"), (V, b"/a/", b"/b/")], ["wait Modify /a/f", "block Delete /a/", "wait Create /b/"]),
        ([(V, b"/a", b"/b"), (V, b"/b", b"/a")], ["wait Create /a", "block Delete /b"]),
        ([(Kind.INIT, b""), (M, b"/f"), (V, b"/a", b"/b")], ["wait Init ", "block Modify /f", "block Move /a -> /b"]),
        ([(M, b"/f"), (Kind.BLANKET, b""), (M, b"/g")], ["wait Modify /f", "wait Blanket ", "block Modify /g"]),
        ([(D, b"/d/"), (C, b"/d"), (D, b"/d"), (C, b"/d/"), (C, b"/d/f")],
         ["wait Delete /d/", "block Create /d", "block Delete /d", "block Create /d/", "block Create /d/f"]),
        ([(C, b"/d"), (C, b"/d/f")], ["wait Create /d", "block Create /d/f"]),
        ([(Kind.FULL, b"/"), (M, b"/f")], ["wait Full /", "wait Modify /f"]),
    ],
)  # fmt: skip
def test_what_waits_for_what(notes: list[Note], lines: list[str]) -> None:
    assert shown(queued(*notes)) == lines


def test_a_move_there_and_back_leaves_nothing_behind() -> None:
    queue = queued((V, b"/a", b"/b"), (V, b"/b", b"/a"))
    for _ in range(10):
        for entry in list(queue.waiting(0)):
            queue.start(entry)
            queue.remove(entry)
    assert shown(queue) == []


def test_what_waits_is_due_in_order_up_to_the_first_that_is_not() -> None:
    queue = Queue(collapse=False)
    for number in range(4):
        queue.note(M, b"/%d" % number, due_s=number)
    assert [entry.path for entry in queue.waiting(1.5)] == [b"/0", b"/1"]
    assert [entry.path for entry in queue.waiting(1.5)] == [b"/0", b"/1"], "a walk takes nothing away"
    assert len(list(queue.waiting(0, hurried=True))) == 4
    first = next(iter(queue.waiting(9)))
    queue.start(first)
    queue.again(first, due_s=7)
    assert queue.due_s() == 1, "what was tried in vain holds up nothing"
    assert [entry.path for entry in queue.waiting(3)] == [b"/1", b"/2", b"/3"]
    assert [entry.path for entry in queue.waiting(7)] == [b"/0", b"/1", b"/2", b"/3"]
    for entry in [*queue][1:]:
        queue.remove(entry)
    assert queue.due_s() == 7


def test_a_batch_takes_what_waits_for_one_another_but_not_for_what_is_left_out() -> None:
    queue = queued((C, b"/d/"), (C, b"/d/f"), (M, b"/g"), (C, b"/e/"), (C, b"/e/f"))
    everything = queue.batch(lambda _: True)
    assert [entry.path for entry in everything] == [b"/d/", b"/d/f", b"/g", b"/e/", b"/e/f"]
    without = queue.batch(lambda entry: entry.path != b"/d/")
    assert [entry.path for entry in without] == [b"/g", b"/e/", b"/e/f"]
    until = queue.batch(lambda entry: None if entry.path == b"/g" else True)
    assert [entry.path for entry in until] == [b"/d/", b"/d/f"]
    queue.start(everything[0])
    assert [entry.path for entry in queue.batch(lambda _: True)] == [b"/g", b"/e/", b"/e/f"]


PATHS = [b"/a", b"/a/", b"/a/y", b"/a/x", b"/a/y/", b"/b", b"/b/", b"/b/x"]
NOTES = st.one_of(
    st.tuples(st.sampled_from([A, C, D, M]), st.sampled_from(PATHS), st.none()),
    st.tuples(st.just(V), st.sampled_from([b"/a", b"/b"]), st.sampled_from([b"/c", b"/a/z"])),
    st.tuples(st.just(V), st.sampled_from([b"/a/", b"/b/"]), st.sampled_from([b"/c/", b"/d/"])),
    st.tuples(st.just(Kind.BLANKET), st.just(b""), st.none()),
)


@given(st.lists(NOTES, max_size=30), st.booleans(), st.data())
def test_whatever_the_order_everything_gets_its_turn(
    notes: list[tuple[Kind, bytes, bytes | None]], collapse: bool, data: st.DataObject
) -> None:
    """Nothing waits for ever, whichever entries are started, retried and finished in whichever order."""
    gone: list[int] = []
    queue = Queue(collapse=collapse, on_gone=lambda entry: gone.append(entry.ident))
    made: set[int] = set()
    for kind, path, path2 in notes:
        for entry in queue.note(kind, path, path2, due_s=0):
            entry.is_known = True
            made.add(entry.ident)
        if data.draw(st.booleans()):
            for entry in list(queue.waiting(0))[:2]:
                queue.start(entry)
        active = [entry for entry in queue if entry.status is Status.ACTIVE]
        if active:
            chosen = data.draw(st.integers(0, 2 * len(active)))
            if chosen < len(active):
                queue.remove(active[chosen])
    for _ in range(200):
        if not len(queue):
            break
        for entry in [*queue]:
            if entry.status is Status.ACTIVE:
                if entry.tries:
                    queue.remove(entry)
                else:
                    queue.again(entry, due_s=0)
        for entry in list(queue.waiting(0)):
            queue.start(entry)
    assert shown(queue) == []
    assert sorted(gone) == sorted(made)


def test_many_entries_cost_little() -> None:
    began_s = time.process_time()
    queue = Queue(collapse=False)
    for number in range(ENTRIES):
        queue.note(M, b"/d%d/sub/f%d" % (number % 100, number), due_s=0)
    batch = queue.batch(lambda _: True)
    assert len(batch) == ENTRIES
    for entry in batch:
        queue.start(entry)
    for entry in batch:
        queue.remove(entry)
    took_s = time.process_time() - began_s
    print(f"{ENTRIES} entries: {took_s:.2f} s of processor time")
    # It takes 0.3 s here; a walk over older entries for each would take minutes.
    assert took_s < 60


def test_the_deepest_path_there_can_be() -> None:
    queue = Queue(collapse=False)
    queue.note(C, b"/a" * 2000 + b"/", due_s=0)
    queue.note(C, b"/a" * 2000 + b"/f", due_s=0)
    assert [entry.status for entry in queue] == [Status.WAIT, Status.BLOCK]


def test_many_removals_in_one_tree_cost_little() -> None:
    queue = Queue(collapse=True)
    began_s = time.process_time()
    for number in range(10_000):
        queue.note(D, b"/d/e%d/f" % number, due_s=0)
        queue.note(D, b"/d/e%d/" % number, due_s=0)
    queue.note(D, b"/d/", due_s=0)
    while len(queue):
        for entry in list(queue.waiting(0)):
            queue.start(entry)
            queue.remove(entry)
    assert time.process_time() - began_s < 60
