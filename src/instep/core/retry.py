"""Paths of one target that wait for another try, with a growing pause between the tries.

Pure: times are the caller's monotonic seconds. The pause is spread by a checksum of the path, so that thousands of
failures of one moment do not all come back in one moment.
"""

from __future__ import annotations

import heapq
import zlib
from collections.abc import Iterator, KeysView, ValuesView
from dataclasses import dataclass

from instep.model import Change
from instep.paths import RelPath

BACKOFF_MIN_S = 1.0
BACKOFF_MAX_S = 300.0


def backoff_s(attempts: int, salt: bytes = b"") -> float:
    """The pause after so many failures in a row (1 or more): 1, 2, 4 … 300 s, each up to a tenth shorter."""
    pause_s = min(BACKOFF_MAX_S, BACKOFF_MIN_S * 2.0 ** min(attempts - 1, 30))
    return pause_s * (1.0 - 0.1 * (zlib.crc32(salt) & 0xFF) / 256)


@dataclass(slots=True)
class Waiter:
    """One path that waits."""

    change: Change
    due_s: float
    attempts: int
    reason: str
    """Why it failed; empty when it only waits (a big or racy file, a path that another batch is working on)."""


class WaitingRoom:
    """Changes kept aside, each with the time of its next try. Nothing is ever dropped from it but by ``done``."""

    def __init__(self) -> None:
        self._waiters: dict[RelPath, Waiter] = {}
        self._heap: list[tuple[float, int, RelPath]] = []
        self._tried: dict[RelPath, tuple[int, str]] = {}  # failed before, out for another try: attempts, reason
        self._numbers = 0

    def __len__(self) -> int:
        return len(self._waiters)

    @property
    def paths(self) -> KeysView[RelPath]:
        """The paths kept aside: a live view."""
        return self._waiters.keys()

    def waiters(self) -> ValuesView[Waiter]:
        """All that wait: a live view."""
        return self._waiters.values()

    def failing(self) -> Iterator[Waiter]:
        """Those that failed, with reason and next try."""
        return (waiter for waiter in self._waiters.values() if waiter.reason)

    def failed(self, change: Change, reason: str, now_s: float, *, hard: bool = False) -> bool:
        """Keep a failed path; True when it had not been failing for this reason before, so that it is said once."""
        attempts, before = self._history(change.path)
        attempts += 1
        pause_s = BACKOFF_MAX_S if hard and attempts > 1 else backoff_s(attempts, change.path)
        self._put(change, now_s + pause_s, attempts, reason)
        return before != reason

    def postponed(self, change: Change, due_s: float) -> None:
        """Keep a path that is only too early."""
        attempts, reason = self._history(change.path)
        self._put(change, due_s, attempts, reason)

    def waiting_at(self, path: RelPath) -> Change | None:
        """The change of this very path that waits."""
        waiter = self._waiters.get(path)
        return None if waiter is None else waiter.change

    def take(self, path: RelPath) -> Change | None:
        """The waiting change of this path, if any, because the path is dirty anew and is going out now."""
        waiter = self._waiters.pop(path, None)
        if waiter is None:
            return None
        if waiter.reason:
            self._tried[path] = (waiter.attempts, waiter.reason)
        return waiter.change

    def take_due(self, now_s: float, paths_max: int) -> list[Change]:
        """The changes whose time has come."""
        due: list[Change] = []
        heap = self._heap
        while heap and heap[0][0] <= now_s and len(due) < paths_max:
            due_s, _, path = heapq.heappop(heap)
            waiter = self._waiters.get(path)
            if waiter is not None and waiter.due_s == due_s:
                change = self.take(path)
                assert change is not None
                due.append(change)
        return due

    def due_s(self) -> float | None:
        """When the next one is due."""
        heap = self._heap
        while heap:
            due_s, _, path = heap[0]
            waiter = self._waiters.get(path)
            if waiter is not None and waiter.due_s == due_s:
                return due_s
            heapq.heappop(heap)
        return None

    def done(self, path: RelPath) -> bool:
        """A path is in step; True when it had been failing."""
        return self._tried.pop(path, None) is not None

    @property
    def any_tried(self) -> bool:
        """Whether ``done`` has anything to tell at all."""
        return bool(self._tried)

    def hurry(self, now_s: float) -> None:
        """Let everything be due now."""
        for path, waiter in self._waiters.items():
            waiter.due_s = now_s
            self._numbers += 1
            heapq.heappush(self._heap, (now_s, self._numbers, path))

    def _history(self, path: RelPath) -> tuple[int, str]:
        """How often it failed, and why, whether it was out for another try or was worked on while it waited here."""
        tried = self._tried.pop(path, None)
        if tried is not None:
            return tried
        waiter = self._waiters.get(path)
        return (0, "") if waiter is None else (waiter.attempts, waiter.reason)

    def _put(self, change: Change, due_s: float, attempts: int, reason: str) -> None:
        self._waiters[change.path] = Waiter(change, due_s, attempts, reason)
        self._numbers += 1
        heapq.heappush(self._heap, (due_s, self._numbers, change.path))
