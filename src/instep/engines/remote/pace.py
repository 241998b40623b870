"""Holding what is sent to a rate."""

from __future__ import annotations

import asyncio
import time


class Pace:
    """A rate that all bulk of one engine shares."""

    def __init__(self, bytes_per_s: float) -> None:
        self.is_limited = bytes_per_s < float("inf")
        self._bytes_per_s = bytes_per_s
        self._free_s = 0.0

    async def passed(self, count: int) -> None:
        """So many bytes are to go out; waits until they may."""
        if self.is_limited:
            now_s = time.monotonic()
            self._free_s = max(self._free_s, now_s) + count / self._bytes_per_s
            await asyncio.sleep(max(0.0, self._free_s - now_s))
