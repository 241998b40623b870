"""What is known of one sync of a configuration while it is served."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from instep.frontends.lsyncd.companions import Tunnel
from instep.frontends.lsyncd.cron import Schedule
from instep.frontends.lsyncd.queue import Entry, Queue
from instep.frontends.lsyncd.selection import Selection

DELAYS_MAX: Final = 1000
"""Unless a configuration says otherwise: with so many entries in the queue none waits out its delay."""


@dataclass(eq=False, slots=True)
class Sync:
    """One sync that the handler serves."""

    number: int
    config: Any
    """The Lua table."""
    source: bytes
    """Absolute, with a slash at the end."""
    selection: Selection
    queue: Queue = field(init=False)
    delay_s: float = 0.0
    delays_max: float = DELAYS_MAX
    processes_max: float = 1
    moves: bool = False
    collapses: bool = False
    """Events on one path are folded."""
    name: bytes = b""
    running: int = 0
    current: Entry | None = None
    started: bool = False
    """The initial sync is done."""
    schedules: Sequence[Schedule] = ()
    """When all of it is brought over anew."""
    full_at_s: float | None = None
    """The next of these times, on the wall's clock."""
    tunnel: Tunnel | None = None
    """What must be up before anything is done."""
