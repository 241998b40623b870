"""The number of the iteration, which handlers are told.

Facts (observed): it grows with each walk and each run. In mode simple only walks count, each when all that it found was
told.
"""

from __future__ import annotations

from collections import deque


class Iterations:
    """Counts walks and runs."""

    def __init__(self) -> None:
        self.number = 0
        self._walks: deque[int] = deque()
        """So many paths have been told when each walk that was noted is over."""
        self._told = 0

    @property
    def walks(self) -> int:
        """How many walks have not been told in full."""
        return len(self._walks)

    def begin_anew(self, under_way: int) -> None:
        """From 0 on; so many runs that are under way count, when they end, for what was before."""
        self.number = -under_way

    def ran(self) -> None:
        """A run was a success."""
        self.number += 1

    def walked(self, *, singly: bool) -> None:
        """A directory is walked through; ``singly``: it counts when all that it found was told, a path each."""
        if singly:
            self._walks.append(0)
        else:
            self.number += 1

    def found(self, since: int, waiting: int) -> bool:
        """All is noted that the walks found that there are since there were so many; whether one is over already.

        Args:
            since: what ``walks`` was.
            waiting: how many paths are still to be told.
        """
        if since == len(self._walks):
            return False
        for number in range(since, len(self._walks)):
            self._walks[number] = self._told + waiting
        return self._count()

    def told(self) -> bool:
        """A single path was told; whether a walk is over with that."""
        self._told += 1
        return self._count()

    def _count(self) -> bool:
        before = self.number
        while self._walks and self._walks[0] <= self._told:
            self._walks.popleft()
            self.number += 1
        return self.number > before
