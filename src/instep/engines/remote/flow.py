"""How much may be on its way to the far side at once: enough to keep the wire busy, too little to delay a small change.

Bulk and small changes share one connection, and what is already on it cannot be overtaken. So the window of the bulk
follows the time that acknowledgements take: while that is near the shortest seen, it grows; once work queues up on the
way, it shrinks. Pure: times are arguments.
"""

from __future__ import annotations

FLOOR_BYTES = 384 << 10
CEILING_BYTES = 16 << 20
QUEUE_S = 0.004
"""So much queueing is allowed; a small change behind it is still brought over within 20 ms."""
LARGE_FRAME_BYTES = 128 << 10
BASE_GROWTH = 1.0005
"""The shortest time seen is believed a little less with every acknowledgement, for routes change."""


class Flow:
    """The window of one connection's bulk."""

    def __init__(self) -> None:
        self.in_flight = 0
        """Bytes sent and not acknowledged."""
        self.window = 2 * FLOOR_BYTES
        self._base_s = float("inf")
        self.bytes_per_s = 0.0
        """The best that the way to the target was seen to do for one large frame; 0: nothing seen yet."""

    @property
    def is_full(self) -> bool:
        """Nothing more is to be sent now."""
        return self.in_flight >= self.window

    def sent(self, count: int) -> None:
        """So many bytes of bulk went out."""
        self.in_flight += count

    def acknowledged(self, count: int, sent_s: float, now_s: float) -> None:
        """So many bytes, sent at ``sent_s``, were worked on over there."""
        self.in_flight -= count
        took_s = now_s - sent_s
        self._base_s = min(self._base_s * BASE_GROWTH, took_s)
        if took_s - self._base_s < QUEUE_S:
            self.window = min(CEILING_BYTES, self.window + count)
        else:
            self.window = max(FLOOR_BYTES, self.window - count // 2)
        if count >= LARGE_FRAME_BYTES and took_s > 0:
            self.bytes_per_s = max(self.bytes_per_s / BASE_GROWTH, count / took_s)
