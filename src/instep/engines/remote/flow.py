"""How much may be on its way to the far side at once: enough to keep the wire busy, too little to delay a small change.

Bulk and small changes share one connection, and what is already on it cannot be overtaken. So the window of the bulk
follows the time that acknowledgements take: while that is near the shortest seen, it grows, by doubling until work has
queued up on the way for the first time, and in small steps from then on; when work queues up, it shrinks by quarters.
(Measured, doubling each time: it swings from half to five times of what is needed, the receiving kernel throws away
what it has no room for, and a small change waits 30 to 60 ms.) Pure: times are arguments.
"""

from __future__ import annotations

FLOOR_BYTES = 384 << 10
CEILING_BYTES = 16 << 20
STEP_BYTES = 128 << 10
"""The window grows by this with each round trip, once it was too large."""
QUEUE_S = 0.003
"""So much queueing is allowed; a small change behind it is still brought over within 10 ms."""
QUEUE_SHARE = 0.25
"""As much as this share of the shortest time is allowed as well: on a long way times vary by more than QUEUE_S."""
LARGE_FRAME_BYTES = 128 << 10
PROBE_AFTER_S = 10.0
"""The shortest time is measured anew when it was not seen for so long, by one frame alone; routes change."""
BEST_DECAY = 1.0005
"""The best rate is believed a little less with every acknowledgement."""
_NEVER_S = float("inf")


class Flow:
    """The window of one connection's bulk."""

    def __init__(self) -> None:
        self.in_flight = 0
        """Bytes sent and not acknowledged."""
        self.window = 2 * FLOOR_BYTES
        self._base_s = _NEVER_S
        self._base_seen_s = 0.0
        self._probing_s = _NEVER_S
        """Since when the shortest time is being measured anew."""
        self._has_queued = False
        self.bytes_per_s = 0.0
        """The best that the way to the target was seen to do for one large frame; 0: nothing seen yet."""

    @property
    def is_full(self) -> bool:
        """Nothing more is to be sent now."""
        return self.in_flight >= (self.window if self._probing_s == _NEVER_S else 1)

    def sent(self, count: int) -> None:
        """So many bytes of bulk went out."""
        self.in_flight += count

    def acknowledged(self, count: int, sent_s: float, now_s: float) -> None:
        """So many bytes, sent at ``sent_s``, were worked on over there."""
        self.in_flight -= count
        took_s = now_s - sent_s
        if took_s <= self._base_s or sent_s > self._probing_s:
            self._base_s, self._base_seen_s, self._probing_s = took_s, now_s, _NEVER_S
        elif now_s - self._base_seen_s > PROBE_AFTER_S:
            self._probing_s = min(now_s, self._probing_s)
        if took_s - self._base_s >= max(QUEUE_S, QUEUE_SHARE * self._base_s):
            self._has_queued = True
            self.window = max(FLOOR_BYTES, self.window - count // 4)
        else:
            more = count * STEP_BYTES // self.window if self._has_queued else count
            self.window = min(CEILING_BYTES, self.window + more)
        if count >= LARGE_FRAME_BYTES and took_s > 0:
            self.bytes_per_s = max(self.bytes_per_s / BEST_DECAY, count / took_s)
