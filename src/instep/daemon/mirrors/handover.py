"""What one mirror leaves to the one that takes its place in the same process."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from instep.model import Report
from instep.ports import Monitor


@dataclass(frozen=True)
class Handover:
    """Of the very first there is nothing."""

    carried: Sequence[Report] = ()
    """What it had not brought over."""
    mounts: AbstractSet[bytes] = frozenset()
    """What it knew to be mounted."""
    monitor: Monitor | None = None
    """It goes on watching, so that nothing is missed between the two; who takes it closes it."""
    why_monitor: str = ""
    complete_s: float = 0.0
    """When all that had happened was reported to it, by the monotonic clock."""
