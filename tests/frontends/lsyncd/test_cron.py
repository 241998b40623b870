"""Rules of cron: which times they mean, on days when the clock is changed too."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instep.frontends.lsyncd.cron import RuleError, parse


@pytest.fixture(autouse=True)
def berlin() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
        time.tzset()
        yield
    time.tzset()


def after(rule: str, at: str) -> str:
    wall_s = time.mktime(time.strptime(at, "%Y-%m-%d %H:%M:%S"))
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(parse(rule).after(wall_s)))


@pytest.mark.parametrize(
    ("rule", "at", "next_at"),
    [
        ("*/10 * * * * *", "2026-11-21 10:00:03", "2026-11-21 10:00:10"),
        ("*/10 * * * * *", "2026-11-21 10:00:10", "2026-11-21 10:00:20"),
        ("0 30 4 * * *", "2026-11-21 10:00:00", "2026-11-22 04:30:00"),
        ("30 4 * * *", "2026-11-21 10:00:00", "2026-11-22 04:30:00"),
        ("5,7 1-3 0 1 jan *", "2026-11-21 10:00:00", "2027-01-01 00:01:05"),
        ("0 0 12 * * mon-fri", "2026-11-21 10:00:00", "2026-11-23 12:00:00"),
        ("0 0 0 * * 7", "2026-11-21 10:00:00", "2026-11-22 00:00:00"),
        ("0 0 0 24 * sunday", "2026-11-21 10:00:00", "2026-11-22 00:00:00"),
        ("0 0 0 24 * */7", "2026-11-24 00:00:00", "2027-01-24 00:00:00"),
        ("0 0 0 29 2 *", "2026-11-21 10:00:00", "2028-02-29 00:00:00"),
        ("59 59 23 31 12 *", "2026-12-31 23:59:59", "2027-12-31 23:59:59"),
        ("0 30 2 * * *", "2027-03-27 12:00:00", "2027-03-29 02:30:00"),  # there is no such time on the 28th
        ("0 0 3 28 3 *", "2027-03-27 12:00:00", "2027-03-28 03:00:00"),
        ("0 20/20 * * * *", "2026-11-21 10:00:00", "2026-11-21 10:20:00"),
    ],
)  # fmt: skip
def test_next_time(rule: str, at: str, next_at: str) -> None:
    assert after(rule, at) == next_at


@pytest.mark.parametrize(
    "rule",
    ["", "* * * *", "* * * * * * *", "60 * * * * *", "* * 24 * * *", "* * * 0 * *", "*/0 * * * * *", "5-3 * * * * *",
     "* * * * moon *", "x * * * * *", "0 0 0 30 2 *"],
)  # fmt: skip
def test_refused(rule: str) -> None:
    with pytest.raises(RuleError):
        parse(rule)


@given(
    st.integers(0, 59), st.integers(0, 59), st.integers(0, 23), st.sampled_from(["*", "1", "28"]),
    st.integers(0, 2**31 - 1),
)  # fmt: skip
def test_it_is_later_and_true(second: int, minute: int, hour: int, day: str, wall_s: int) -> None:
    schedule = parse(f"{second} {minute} {hour} {day} * *")
    at_s = schedule.after(wall_s)
    now = time.localtime(at_s)
    assert at_s > wall_s
    assert (now.tm_sec, now.tm_min, now.tm_hour) == (second, minute, hour)
    assert day in ("*", str(now.tm_mday))
    assert at_s - wall_s < 86_400 * (3 if day == "*" else 64)
