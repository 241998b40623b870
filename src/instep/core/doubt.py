"""Differences that a comparison of moving trees found: which of them are true.

One look proves nothing: the source may have changed between the look at one side and that at the other, and whoever
keeps the target in step may be about to bring that over. So each name is looked at again after a pause. It differs
if the source was the same at both looks, and had not changed since the comparison began. A name that goes on changing
is given up after some looks: it is judged by the next comparison. Not so one that the source lacks: only a time in the
directory above tells of it, and where files come and go all day that time never rests. It is looked at for longer, and
then believed.

Pure: times are the caller's.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from instep.model import Difference
from instep.paths import RelPath

LOOKS_MAX = 5
ABSENT_LOOKS_MAX = 8
PAUSE_S = 0.25
"""Before the second look; doubled before each further one. Guessed: many times what a live change takes."""


class _Doubt(NamedTuple):
    due_s: float
    number: int
    difference: Difference
    looks: int


class Doubts:
    """The differences of one comparison that are still to be looked at again."""

    def __init__(self, began_ns: int) -> None:
        """``began_ns``: when the comparison began, by the wall clock."""
        self.changing = 0
        """Names given up because they changed all the time."""
        self._began_ns = began_ns
        self._heap: list[_Doubt] = []
        self._asked: dict[RelPath, _Doubt] = {}
        self._numbers = 0

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, differences: Iterable[Difference], now_s: float) -> None:
        """What a first look found."""
        for difference in differences:
            self._put(difference, 1, now_s)

    def due_s(self) -> float | None:
        """When the next one may be looked at again; None when there is none."""
        return self._heap[0].due_s if self._heap else None

    def take(self, now_s: float, most: int) -> list[Difference]:
        """What is to be looked at again now; ``settle`` has to follow."""
        assert not self._asked
        while self._heap and self._heap[0].due_s <= now_s and len(self._asked) < most:
            doubt = heapq.heappop(self._heap)
            self._asked[doubt.difference.path] = doubt
        return [doubt.difference for doubt in self._asked.values()]

    def settle(self, again: Sequence[Difference], now_s: float, now_ns: int) -> list[Difference]:
        """The other look at what was taken found ``again``; those of it that are true."""
        asked, self._asked = self._asked, {}
        found = []
        for difference in again:
            doubt = asked.get(difference.path)
            if doubt is None:
                continue  # Not asked for: it has its own doubt.
            looks = doubt.looks + 1
            # A time that lies ahead tells nothing: a clock was set back.
            moved = difference.source != doubt.difference.source or (self._began_ns <= difference.changed_ns <= now_ns)
            if not moved:
                found.append(difference)
            elif looks < (LOOKS_MAX if difference.source else ABSENT_LOOKS_MAX):
                self._put(difference, looks, now_s)
            elif difference.source:
                self.changing += 1
            else:
                found.append(difference)
        return found

    def _put(self, difference: Difference, looks: int, now_s: float) -> None:
        self._numbers += 1
        due_s = now_s + PAUSE_S * 2.0 ** (looks - 1)
        heapq.heappush(self._heap, _Doubt(due_s, self._numbers, difference, looks))
