"""Timing with a clock that the test owns."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from instep.core.timing import (
    CALM_PATHS,
    CALM_PATHS_PER_S,
    STORM_HOLD_MAX_S,
    STORM_HOLD_S,
    STORM_OVER_S,
    STORM_QUIET_S,
    Spacing,
    big_wait_s,
)
from instep.model import Change
from instep.paths import RelPath
from instep.spec import Pace


def test_few_changes_go_at_once() -> None:
    spacing = Spacing()
    for number in range(1000):
        now_s = number / 100
        assert spacing.start_s(now_s=now_s, last_report_s=now_s, pending=1) <= now_s
        spacing.started(1, now_s)
        spacing.ended(now_s)


def test_a_flood_waits_for_a_pause_and_then_goes_as_one() -> None:
    spacing = Spacing()
    spacing.started(1, 0.0)
    spacing.ended(0.0)
    assert spacing.start_s(now_s=0.1, last_report_s=0.1, pending=CALM_PATHS + 1) == 0.1 + STORM_QUIET_S
    assert spacing.start_s(now_s=0.14, last_report_s=0.1, pending=CALM_PATHS + 1) <= 0.14


def test_a_flood_without_a_pause_does_not_wait_for_ever() -> None:
    spacing = Spacing()
    spacing.started(1, 0.0)
    spacing.ended(0.25)
    assert spacing.start_s(now_s=0.26, last_report_s=0.26, pending=10_000) == 0.26 + STORM_QUIET_S
    assert spacing.start_s(now_s=0.39, last_report_s=0.39, pending=10_000) == 0.25 + STORM_HOLD_S


def test_a_flood_that_goes_on_is_done_ever_less_often() -> None:
    spacing = Spacing()
    now_s, waits_s = 100.0, []
    spacing.started(CALM_PATHS - 1, now_s)
    spacing.ended(now_s)
    for _ in range(6):
        began_s = now_s
        while (start_s := spacing.start_s(now_s=now_s, last_report_s=now_s, pending=10_000)) > now_s:
            now_s = min(start_s, now_s + STORM_QUIET_S / 2)
        waits_s.append(round(now_s - began_s, 6))
        spacing.started(10_000, now_s)
        now_s += 0.1
        assert spacing.start_s(now_s=now_s, last_report_s=now_s, pending=10_000) > now_s  # One at a time.
        spacing.ended(now_s)
    assert waits_s == [
        STORM_HOLD_S,
        STORM_HOLD_S,
        2 * STORM_HOLD_S,
        4 * STORM_HOLD_S,
        STORM_HOLD_MAX_S,
        STORM_HOLD_MAX_S,
    ]
    # The next one is another.
    now_s += STORM_OVER_S + 0.1
    spacing.started(1, now_s)
    spacing.ended(now_s)
    start_s = spacing.start_s(now_s=now_s + 0.14, last_report_s=now_s + 0.14, pending=10_000)
    assert start_s == now_s + STORM_HOLD_S


def test_a_batch_that_takes_long_is_not_waited_for_for_ever() -> None:
    spacing = Spacing()
    spacing.started(10_000, 50.0)
    assert spacing.start_s(now_s=50.99, last_report_s=50.99, pending=10_000) == 50.0 + STORM_HOLD_MAX_S


def test_calm_comes_back() -> None:
    spacing = Spacing()
    spacing.started(100_000, 0.0)
    spacing.ended(0.0)
    assert spacing.start_s(now_s=0.001, last_report_s=0.001, pending=1) == 0.001 + STORM_QUIET_S
    later_s = CALM_PATHS / CALM_PATHS_PER_S
    assert spacing.start_s(now_s=later_s, last_report_s=later_s, pending=CALM_PATHS) <= later_s


def test_spacing_keeps_its_distance() -> None:
    spacing = Spacing(spacing_s=2.0)
    spacing.started(1, 10.0)
    spacing.ended(10.1)
    assert spacing.start_s(now_s=10.2, last_report_s=10.2, pending=1) == 12.0


@given(st.lists(st.tuples(st.floats(0, 0.05), st.integers(1, 500)), min_size=1, max_size=200))
def test_without_pauses_the_bucket_bounds_what_goes_at_once(steps: list[tuple[float, int]]) -> None:
    spacing = Spacing()
    now_s, at_once, last_s = 0.0, 0, -STORM_HOLD_MAX_S
    for gap_s, pending in steps:
        now_s += gap_s
        if spacing.start_s(now_s=now_s, last_report_s=now_s, pending=pending) <= now_s:
            if now_s < last_s + STORM_HOLD_S:
                at_once += pending
            spacing.started(pending, now_s)
            spacing.ended(now_s)
            last_s = now_s
    assert at_once <= CALM_PATHS + CALM_PATHS_PER_S * now_s + 1


def test_big_files_have_their_own_pace() -> None:
    pace = Pace(big_bytes=1000, big_quiet_s=5, big_hold_s=20)
    change = Change(RelPath(b"a"), now_s=100.0)
    assert big_wait_s(pace, 999, change, 100.0) == 0
    assert big_wait_s(pace, 1000, change, 101.0) == 4
    change.last_s = 119.0
    assert big_wait_s(pace, 1000, change, 119.0) == 1  # the hold of the first report
    assert big_wait_s(pace, 1000, change, 120.5) == 0
