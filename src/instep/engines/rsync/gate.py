"""Who may run beside whom: runs that could undo each other's work go one after the other, in the order of coming.

The caller only lets batches meet whose paths do not touch. A run reaches further than the paths of its batch: a listed
name that is gone when rsync looks takes all below it along at the target, an ancestor in the way is listed instead of
the path, and a directory listed in place of its names loses the temporary files that another run has in it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator


class Gate:
    """Lets in whoever meets nobody inside, nor anybody who came before."""

    def __init__(self) -> None:
        self._waiting: list[_Claim] = []
        self._inside: list[_Claim] = []
        self._shared: set[bytes] = set()

    @contextlib.asynccontextmanager
    async def enter(self, paths: set[bytes]) -> AsyncIterator[None]:
        """Wait for a place to work on these paths and all below them; give it back at the end."""
        claim = _Claim(paths)
        self._waiting.append(claim)
        self._admit()
        try:
            await claim.place
            yield
        finally:
            if claim in self._inside:
                self._inside.remove(claim)
            else:
                claim.place.cancel()
            self._admit()

    @property
    def empty(self) -> bool:
        """Nobody is at work, nobody waits."""
        return not self._inside and not self._waiting

    @property
    def alone(self) -> bool:
        """Only one is at work, and nobody waits."""
        return len(self._inside) == 1 and not self._waiting

    def take_shared(self) -> set[bytes]:
        """The directories above the paths of more than one that were inside at once, since this was last asked."""
        shared, self._shared = self._shared, set()
        return shared

    def _admit(self) -> None:
        # One that has to wait is overtaken by those that meet neither it nor anyone inside.
        still: list[_Claim] = []
        for claim in self._waiting:
            if claim.place.done():
                continue
            if any(claim.meets(other) for other in (*self._inside, *still)):
                still.append(claim)
            else:
                for other in self._inside:
                    self._shared |= claim.above & other.above
                self._inside.append(claim)
                claim.place.set_result(None)
        self._waiting = still


class _Claim:
    """One entry at the gate."""

    __slots__ = ("above", "paths", "place")

    def __init__(self, paths: set[bytes]) -> None:
        self.paths = paths
        self.place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.above: set[bytes] = {b""}  # Each run brings the root's own attributes too, if nothing else.
        for path in paths:
            parent = path.rpartition(b"/")[0]
            while parent not in self.above:
                self.above.add(parent)
                parent = parent.rpartition(b"/")[0]

    def meets(self, other: _Claim) -> bool:
        """Whether a path of one is, or is below, a path of the other."""
        return not (
            self.paths.isdisjoint(other.paths)
            and self.paths.isdisjoint(other.above)
            and self.above.isdisjoint(other.paths)
        )
