"""The window of the bulk: the wire is kept busy, and hardly more stands before a small change than the wire takes."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instep.engines.remote.flow import CEILING_BYTES, FLOOR_BYTES, QUEUE_S, QUEUE_SHARE, Flow


class Wire:
    """Simulated: takes frames one after the other at some rate, and each answer takes a round trip more."""

    def __init__(self, flow: Flow, round_trip_s: float) -> None:
        self.flow = flow
        self.now_s = 0.0
        self._round_trip_s = round_trip_s
        self._free_s = 0.0
        self._on_the_way: deque[tuple[float, float, int]] = deque()

    def carry(self, frames: int, size: int, bytes_per_s: float) -> tuple[list[float], float]:
        """Bulk as fast as the window lets it out: how long each frame stood behind others, and the share used."""
        queued: list[float] = []
        begin_s = self.now_s
        while len(queued) < frames:
            while not self.flow.is_full:
                self.flow.sent(size)
                queued.append(max(0.0, self._free_s - self.now_s))
                self._free_s = max(self._free_s, self.now_s) + size / bytes_per_s
                self._on_the_way.append((self.now_s, self._free_s + self._round_trip_s, size))
            sent_s, self.now_s, count = self._on_the_way.popleft()
            self.flow.acknowledged(count, sent_s, self.now_s)
        return queued, len(queued) * size / bytes_per_s / (self.now_s - begin_s)

    def drain(self) -> None:
        """All that is on its way arrives."""
        while self._on_the_way:
            sent_s, self.now_s, count = self._on_the_way.popleft()
            self.flow.acknowledged(count, sent_s, self.now_s)


@pytest.mark.parametrize(
    ("bytes_per_s", "round_trip_s", "size"),
    [
        (3e8, 0.0005, 1 << 18),
        (1.2e8, 0.001, 1 << 18),
        (1.2e7, 0.02, 1 << 18),
        (3e8, 0.01, 1 << 18),
        (1.2e8, 0.05, 1 << 18),
        (1e9, 0.0005, 1 << 18),
        (2e7, 0.05, 1 << 17),
    ],
)
def test_the_wire_is_busy_and_no_small_change_waits_long(bytes_per_s: float, round_trip_s: float, size: int) -> None:
    wire = Wire(Flow(), round_trip_s)
    begun, _ = wire.carry(200, size, bytes_per_s)
    queued, share = wire.carry(2000, size, bytes_per_s)
    frame_s = size / bytes_per_s
    allowed_s = max(QUEUE_S, QUEUE_SHARE * (round_trip_s + frame_s)) + 3 * frame_s
    allowed_s = max(allowed_s, FLOOR_BYTES / bytes_per_s)
    assert sorted(queued)[len(queued) * 98 // 100] < 1.2 * allowed_s, "a change finds no more before it"
    assert max(queued) < 1.2 * (allowed_s + round_trip_s), "nor after a pause, when all the window is empty"
    assert max(begun) < max(4 * allowed_s, 2 * FLOOR_BYTES / bytes_per_s), "nor while it is found out what fits"
    assert share > 0.95


def test_it_grows_while_answers_come_quickly() -> None:
    flow = Flow()
    before = flow.window
    for i in range(100):
        flow.sent(1 << 18)
        flow.acknowledged(1 << 18, i * 0.05, i * 0.05 + 0.1)
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


def test_a_stream_that_never_ends_does_not_come_to_stand_in_the_way() -> None:
    """What always queues a little is not taken for the time that the way takes."""
    wire = Wire(Flow(), 0.0005)
    wire.carry(120_000, 1 << 18, 3e8)
    assert wire.now_s > 100
    queued, _ = wire.carry(2000, 1 << 18, 3e8)
    assert max(queued) < 2 * QUEUE_S


@given(st.lists(st.tuples(st.integers(1, 1 << 20), st.floats(0, 10)), max_size=60))
def test_it_stays_within_bounds(frames: list[tuple[int, float]]) -> None:
    flow = Flow()
    for count, took_s in frames:
        flow.sent(count)
        flow.acknowledged(count, 0.0, took_s)
        assert FLOOR_BYTES <= flow.window <= CEILING_BYTES
        assert flow.in_flight == 0


def test_the_shortest_time_is_measured_anew() -> None:
    """The way gets longer, and stays so: that is no queue."""
    flow = Flow()
    wire = Wire(flow, 0.005)
    wire.carry(400, 1 << 18, 1e8)
    wire.drain()
    longer = Wire(flow, 0.05)
    longer.now_s = wire.now_s
    longer.carry(8000, 1 << 18, 1e8)
    _, share = longer.carry(8000, 1 << 18, 1e8)
    assert share > 0.95
