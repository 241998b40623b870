"""The window of the bulk: grows while nothing queues up, shrinks once something does, and stays within bounds."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instep.engines.remote.flow import CEILING_BYTES, FLOOR_BYTES, QUEUE_S, QUEUE_SHARE, Flow


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
        flow.acknowledged(1 << 18, 0.0, 0.1 * (1 + 2 * QUEUE_SHARE))
    assert flow.window < FLOOR_BYTES * 2


@given(st.lists(st.tuples(st.integers(1, 1 << 20), st.floats(0, 10)), max_size=60))
def test_it_stays_within_bounds(frames: list[tuple[int, float]]) -> None:
    flow = Flow()
    for count, took_s in frames:
        flow.sent(count)
        flow.acknowledged(count, 0.0, took_s)
        assert FLOOR_BYTES <= flow.window <= CEILING_BYTES
        assert flow.in_flight == 0


FRAME = 1 << 18


def _sent_over(flow: Flow, *, bytes_per_s: float, round_trip_s: float, for_s: float) -> tuple[list[float], float]:
    """Bulk over a wire of this rate, as fast as the window lets it: how long each frame queued, and the share used."""
    queued: list[float] = []
    on_the_way: deque[tuple[float, float]] = deque()  # when it was sent, and when the answer is there
    now_s = free_s = 0.0
    while now_s < for_s:
        while not flow.is_full:
            flow.sent(FRAME)
            queued.append(max(0.0, free_s - now_s))
            free_s = max(free_s, now_s) + FRAME / bytes_per_s
            on_the_way.append((now_s, free_s + round_trip_s))
        sent_s, now_s = on_the_way.popleft()
        flow.acknowledged(FRAME, sent_s, now_s)
    return queued, len(queued) * FRAME / bytes_per_s / now_s


@pytest.mark.parametrize(
    ("bytes_per_s", "round_trip_s"),
    [(3e8, 0.0005), (1.2e8, 0.001), (1.2e7, 0.02), (3e8, 0.01), (1.2e8, 0.05), (1e9, 0.0005)],
)
def test_the_wire_is_busy_and_no_small_change_waits_long(bytes_per_s: float, round_trip_s: float) -> None:
    queued, share = _sent_over(Flow(), bytes_per_s=bytes_per_s, round_trip_s=round_trip_s, for_s=4.0)
    allowed_s = QUEUE_S + QUEUE_SHARE * round_trip_s + 2 * FRAME / bytes_per_s
    assert max(queued[len(queued) // 10 :]) < allowed_s, "a change finds no more before it"
    assert max(queued) < 4 * allowed_s, "not even while it is found out how much the wire takes"
    assert share > 0.9
