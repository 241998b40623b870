"""The waiting room with a clock that the test owns."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from instep.core.retry import BACKOFF_MAX_S, WaitingRoom, backoff_s
from instep.model import Change
from instep.paths import RelPath

A, B = RelPath(b"a"), RelPath(b"b")


@given(st.integers(1, 10_000), st.binary(max_size=8))
def test_backoff_grows_within_bounds(attempts: int, salt: bytes) -> None:
    assert 0.9 <= backoff_s(attempts, salt) <= BACKOFF_MAX_S
    assert backoff_s(attempts + 1, salt) >= backoff_s(attempts, salt)


def test_a_failure_is_said_once_and_tried_again_with_growing_pauses() -> None:
    room = WaitingRoom()
    now_s, pauses = 0.0, []
    change = Change(A)
    for attempt in range(6):
        assert room.failed(change, "denied", now_s) is (attempt == 0)
        due_s = room.due_s()
        assert due_s is not None
        pauses.append(due_s - now_s)
        assert room.take_due(due_s - 0.01, 10) == []
        now_s = due_s
        assert room.take_due(now_s, 10) == [change]
    assert pauses == sorted(pauses)
    assert pauses[-1] > 25
    assert room.done(A)
    assert not room.done(A)


def test_a_path_that_fails_while_it_waits_has_failed_once_more() -> None:
    """It was worked on for the sake of another: the other name of a file."""
    room = WaitingRoom()
    assert room.failed(Change(A), "denied", 0.0)
    first_s = room.due_s()
    assert not room.failed(Change(A), "denied", 0.1)
    again_s = room.due_s()
    assert first_s is not None
    assert again_s is not None
    assert again_s > first_s + 0.5
    room.postponed(Change(A), 0.2)
    assert [waiter.reason for waiter in room.failing()] == ["denied"]
    room.take_due(0.2, 10)
    assert room.done(A)


def test_a_new_reason_is_said_again() -> None:
    room = WaitingRoom()
    assert room.failed(Change(A), "denied", 0.0)
    room.take_due(2.0, 10)
    assert room.failed(Change(A), "no space", 2.0)


def test_a_hard_failure_soon_goes_at_the_slowest_pace() -> None:
    room = WaitingRoom()
    room.failed(Change(A), "name too long", 0.0, hard=True)
    assert room.due_s() is not None
    room.take_due(2.0, 10)
    room.failed(Change(A), "name too long", 2.0, hard=True)
    assert room.due_s() == 2.0 + BACKOFF_MAX_S


def test_a_path_that_is_dirty_anew_leaves_the_room_but_not_its_history() -> None:
    room = WaitingRoom()
    change = Change(A)
    room.failed(change, "denied", 0.0)
    assert room.take(A) is change
    assert len(room) == 0
    assert room.due_s() is None
    assert room.failed(Change(A), "denied", 0.1) is False


def test_hurry_makes_all_due_without_losing_any() -> None:
    room = WaitingRoom()
    room.failed(Change(A), "denied", 0.0)
    room.postponed(Change(B), float("inf"))
    room.hurry(0.5)
    assert {change.path for change in room.take_due(0.5, 10)} == {A, B}


@given(st.lists(st.tuples(st.sampled_from([A, B, RelPath(b"c")]), st.sampled_from(["fail", "later", "take", "due"]))))
def test_nothing_leaves_but_by_being_taken(steps: list[tuple[RelPath, str]]) -> None:
    room, inside, now_s = WaitingRoom(), set[RelPath](), 0.0
    for path, what in steps:
        now_s += 0.4
        match what:
            case "fail":
                room.failed(Change(path), "denied", now_s)
                inside.add(path)
            case "later":
                room.postponed(Change(path), now_s + 1)
                inside.add(path)
            case "take":
                assert (room.take(path) is not None) == (path in inside)
                inside.discard(path)
            case _:
                inside -= {change.path for change in room.take_due(now_s, 100)}
        assert room.paths == inside
    assert {change.path for change in room.take_due(1e9, 100)} == inside
