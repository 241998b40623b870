"""When what is due: pure arithmetic on seconds that the caller gives.

Three things hold a change back. A path has to rest (quiet time) unless it never does (hold time): that is stamped on
each change by the change log. A big file has a pace of its own. And one target's batches keep a distance from each
other: none while changes are few, so that a person sees each at once; in a storm they wait for a pause.
"""

from __future__ import annotations

from dataclasses import dataclass

from instep.model import Change
from instep.spec import Pace

CALM_PATHS = 256
"""So many paths go out at once before a flood of changes is called a storm. Guessed; a person makes fewer."""
CALM_PATHS_PER_S = 512.0
"""… and so many more for each second that passes. At 20 to 60 us a path this costs 1 to 3 % of a core."""
STORM_QUIET_S = 0.03
"""In a storm a batch starts when no report came for this long …"""
STORM_HOLD_S = 0.15
"""… or this long after the batch before it ended: so much is brought over while the rest is still being made …"""
STORM_HOLD_MAX_S = 1.0
"""… and longer after each batch, up to this: a storm that goes on touches the same paths again and again."""
STORM_OVER_S = 3.0
"""So long after the last batch of a storm the next one is another."""


def big_wait_s(pace: Pace, size_bytes: int, change: Change, now_s: float) -> float:
    """How long a file of this size has still to wait; 0.0 means go."""
    if size_bytes < pace.big_bytes:
        return 0.0
    due_s = min(change.last_s + pace.big_quiet_s, change.first_s + pace.big_hold_s)
    return max(0.0, due_s - now_s)


@dataclass(slots=True)
class Spacing:
    """The distance between the batches of one target, by a bucket of paths that may go at once.

    For each batch ``start_s`` is asked first, then ``started`` and ``ended`` are told.
    """

    spacing_s: float = 0.0
    _paths: float = CALM_PATHS
    _filled_s: float = 0.0
    _started_s: float = -1e9
    _ended_s: float = -1e9
    _hold_s: float = STORM_HOLD_S
    _stormed_s: float = -1e9

    def start_s(self, *, now_s: float, last_report_s: float, pending: int) -> float:
        """The earliest moment for a batch of so many paths; not later than ``now_s`` means at once.

        More paths than the bucket holds are a storm, and go all together: small batches of a flood would cost more
        than they bring forward. (Measured: by 0.15 s, 20,000 files on ext4 are there a tenth sooner, and removed a
        quarter sooner, than by 1 s; 300,000 operations in 400 directories cost twice as much if it never gets longer.)
        ``last_report_s`` is as good as the last look at what there is to report.
        """
        paths = self._paths + (now_s - self._filled_s) * CALM_PATHS_PER_S
        if paths > CALM_PATHS:  # noqa: PLR1730  # min() is a call, and this is the hot path
            paths = CALM_PATHS
        self._filled_s = now_s
        self._paths = paths
        earliest_s = self._started_s + self.spacing_s
        if paths >= pending:
            return earliest_s
        if self._started_s > self._ended_s:
            held_s = self._started_s + STORM_HOLD_MAX_S  # That batch is still under way, and has the machine to itself.
        elif now_s - self._stormed_s > STORM_OVER_S:
            held_s = self._ended_s + STORM_HOLD_S
        else:
            held_s = self._ended_s + self._hold_s
        return max(earliest_s, min(last_report_s + STORM_QUIET_S, held_s))

    def started(self, paths: int, now_s: float) -> None:
        """A batch of so many paths starts now."""
        self._started_s = now_s
        if paths < self._paths:
            self._paths -= paths
            return
        self._paths = 0.0
        goes_on = now_s - self._stormed_s <= STORM_OVER_S
        self._hold_s = min(2 * self._hold_s, STORM_HOLD_MAX_S) if goes_on else STORM_HOLD_S
        self._stormed_s = now_s

    def ended(self, now_s: float) -> None:
        """A batch has ended now."""
        self._ended_s = now_s
        if self._stormed_s >= self._started_s:
            self._stormed_s = now_s
