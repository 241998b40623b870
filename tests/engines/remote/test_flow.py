"""The window of the bulk: grows while nothing queues up, shrinks once something does, and stays within bounds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from instep.engines.remote.flow import CEILING_BYTES, FLOOR_BYTES, QUEUE_S, Flow


def test_it_grows_while_answers_come_quickly() -> None:
    flow = Flow()
    before = flow.window
    for i in range(100):
        flow.sent(1 << 18)
        flow.acknowledged(1 << 18, i * 1.0, i * 1.0 + 0.1)
    assert before < flow.window == CEILING_BYTES
    assert flow.in_flight == 0


def test_it_shrinks_once_they_queue_up() -> None:
    flow = Flow()
    flow.sent(1 << 18)
    flow.acknowledged(1 << 18, 0.0, 0.1)
    for _ in range(20):
        flow.sent(1 << 18)
        flow.acknowledged(1 << 18, 0.0, 0.1 + 3 * QUEUE_S)
    assert flow.window < FLOOR_BYTES * 2


@given(st.lists(st.tuples(st.integers(1, 1 << 20), st.floats(0, 10)), max_size=60))
def test_it_stays_within_bounds(frames: list[tuple[int, float]]) -> None:
    flow = Flow()
    for count, took_s in frames:
        flow.sent(count)
        flow.acknowledged(count, 0.0, took_s)
        assert FLOOR_BYTES <= flow.window <= CEILING_BYTES
        assert flow.in_flight == 0
