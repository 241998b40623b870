"""Ratios and verdicts: a bench that flatters is worse than none."""

from __future__ import annotations

import json

from benchmarks.measure import NEVER, median, percentile
from benchmarks.table import Line, Reach, as_json, brief, markdown, number


def line(*reaches: Reach, **samples: list[float]) -> Line:
    return Line("a row", "ms", "tmpfs", dict(samples), reaches)


def test_a_ratio_is_the_median_of_the_rounds_ratios() -> None:
    # Round 2 hit a noisy neighbour: both are slow in it, so the ratio stays.
    assert line(instep=[1.0, 9.0, 1.0], lsyncd=[10.0, 90.0, 10.0]).ratio("lsyncd") == 0.1


def test_a_reach_is_kept_up_to_its_limit_and_missed_past_it() -> None:
    kept, missed = Reach(1 / 10, "lsyncd"), Reach(1 / 11, "lsyncd")
    verdicts = line(kept, missed, instep=[1.0], lsyncd=[10.0]).verdicts()
    assert [(reach, ok) for reach, _, ok in verdicts] == [(kept, True), (missed, False)]


def test_at_least_turns_it_round() -> None:
    (verdict,) = line(Reach(60, at_least=True), instep=[59.0]).verdicts()
    assert not verdict[2]


def test_ours_never_there_keeps_no_reach() -> None:
    for theirs in (5.0, NEVER):
        (verdict,) = line(Reach(0.5, "lsyncd"), instep=[NEVER], lsyncd=[theirs]).verdicts()
        assert not verdict[2]


def test_a_peer_that_never_gets_there_is_beaten() -> None:
    (verdict,) = line(Reach(0.5, "lsyncd"), instep=[3.0], lsyncd=[NEVER]).verdicts()
    assert verdict[2]


def test_a_missing_peer_gives_no_verdict() -> None:
    assert line(Reach(0.5, "lsyncd"), instep=[3.0]).verdicts() == []


def test_figures_have_three_digits() -> None:
    assert [number(v) for v in (0, 0.01234, 1.5, 12.34, 1234.5, NEVER)] == [
        "0",
        "0.0123",
        "1.50",
        "12.3",
        "1,234",
        "never",
    ]


def test_never_counts_as_the_longest() -> None:
    assert median([1.0, NEVER, NEVER]) == NEVER
    assert percentile([NEVER, *map(float, range(99))], 0.99) == NEVER


def test_every_form_shows_a_missed_reach() -> None:
    lines = [line(Reach(1 / 15, "lsyncd"), instep=[1.0], lsyncd=[10.0])]
    assert "✗" in brief(lines[0])
    assert "✗" in markdown(lines, ["a fact"])
    assert json.loads(as_json(lines, []))["lines"][0]["reaches"][0]["kept"] is False
