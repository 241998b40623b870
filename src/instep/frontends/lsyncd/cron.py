"""Times of day by the rules of cron, with seconds: ``second minute hour day month weekday``, local time.

A rule of five fields is cron's own, and means second 0. Fields have numbers, names (``jan``, ``mon``), ranges, lists
and steps. As in cron(5): where both a day of the month and a weekday are given, either is enough.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Final

_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS: Final = (
    ("second", 0, 59, ()),
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("weekday", 0, 7, _WEEKDAYS),
)
_ITEM: Final = re.compile(r"(?:\*|(\w+)(?:-(\w+))?)(?:/(\d+))?")
_AHEAD_S: Final = 9 * 366 * 86_400
"""February 29 comes after eight years at the latest, around 2100."""


class RuleError(ValueError):
    """A rule that cannot be understood, or never comes true; the text says why."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """When something is to be done, again and again."""

    seconds: frozenset[int]
    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    """0 is Sunday."""
    either_day: bool
    """A day counts by its number or by its weekday; else by both."""

    def after(self, wall_s: float) -> float:
        """The first time later than this one; both in seconds since the epoch. Infinity: never."""
        at_s = int(wall_s) + 1
        end_s = at_s + _AHEAD_S
        while at_s < end_s:
            now = time.localtime(at_s)
            if now.tm_mon not in self.months:
                at_s = _later(at_s, now.tm_year + now.tm_mon // 12, now.tm_mon % 12 + 1, 1)
            elif not self._is_day(now):
                at_s = _later(at_s, now.tm_year, now.tm_mon, now.tm_mday + 1)
            elif now.tm_hour not in self.hours:
                at_s += 3600 - 60 * now.tm_min - min(now.tm_sec, 59)
            elif now.tm_min not in self.minutes:
                at_s += 60 - min(now.tm_sec, 59)
            elif now.tm_sec not in self.seconds:
                at_s += 1
            else:
                return at_s
        return float("inf")

    def _is_day(self, now: time.struct_time) -> bool:
        by_number = now.tm_mday in self.days
        by_name = (now.tm_wday + 1) % 7 in self.weekdays
        return by_number or by_name if self.either_day else by_number and by_name


def parse(text: str) -> Schedule:
    """Understand one rule.

    Raises:
        RuleError: it cannot be understood, or never comes true.
    """
    words = text.lower().split()
    if len(words) == len(_FIELDS) - 1:
        words.insert(0, "0")
    if len(words) != len(_FIELDS):
        raise RuleError(f'"{text}" has not the six fields: second minute hour day month weekday')
    seconds, minutes, hours, days, months, weekdays = (
        _field(word, *about) for word, about in zip(words, _FIELDS, strict=True)
    )
    either_day = not words[3].startswith("*") and not words[5].startswith("*")
    schedule = Schedule(
        seconds, minutes, hours, days, months, frozenset(day % 7 for day in weekdays), either_day=either_day
    )
    if schedule.after(0.0) == float("inf"):
        raise RuleError(f'"{text}" never comes true')
    return schedule


def _later(at_s: int, year: int, month: int, day: int) -> int:
    """Midnight of that day; always later, whatever the clocks do that night."""
    return max(at_s + 1, int(time.mktime((year, month, day, 0, 0, 0, 0, 0, -1))))


def _field(word: str, name: str, least: int, most: int, names: tuple[str, ...]) -> frozenset[int]:
    found: set[int] = set()
    for item in word.split(","):
        match = _ITEM.fullmatch(item)
        step = int(match[3]) if match is not None and match[3] else 1
        if match is None or step < 1:
            raise RuleError(f'"{word}" is no {name}')
        if match[1] is None:
            first, last = least, most
        else:
            first = _number(match[1], word, name, least, names)
            last = _number(match[2], word, name, least, names) if match[2] else most if match[3] else first
        if not least <= first <= last <= most:
            raise RuleError(f'"{word}" is no {name}: there are {least} to {most}')
        found.update(range(first, last + 1, step))
    return frozenset(found)


def _number(text: str, word: str, name: str, least: int, names: tuple[str, ...]) -> int:
    if text.isdecimal():
        return int(text)
    if text[:3] in names:
        return names.index(text[:3]) + least
    raise RuleError(f'"{word}" is no {name}')
