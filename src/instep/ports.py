"""The few protocols between the decisions and the edges. What is behind them is chosen in ``daemon`` alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from instep.model import Batch, Change, MonitorStatus, Outcome, Progress, Report


class Monitor(Protocol):
    """Reports changes below one source root; states facts, decides nothing. Used by one thread, never blocks.

    The contract, which ``tests/conformance`` holds every monitor to:

    - ``start`` arms it. What changes after that is reported, and ``Report(ROOT, TREE, content=False)`` is the first
      report, given out only when every directory is being watched.
    - A directory that appears is watched before it is listed, and reported as TREE once all below it is watched.
    - Whatever may have been missed (queue overflow, a lost watch) is reported as a TREE. Losing precision is
      allowed, losing a change is not.
    - Symbolic links are entries, never followed. Mount points below the root are followed only unless
      ``one_file_system``.
    """

    name: str

    drained: bool
    """After ``read``: the kernel's queue was seen empty, so whatever happened before that moment has been reported."""

    def start(self) -> None:
        """Arm the monitor.

        Raises:
            ToolMissing: the kernel or the user's rights do not allow this monitor on this source.
        """

    def fileno(self) -> int:
        """A descriptor that is readable when ``read`` has something to say."""

    def read(self) -> Sequence[Report]:
        """What is new, in the kernel's order; empty when nothing is. Takes a bounded time, so it may leave some."""

    def wake_s(self) -> float | None:
        """Seconds after which to call ``read`` even if the descriptor stays silent; None: no need."""

    def status(self) -> MonitorStatus:
        """Figures for the status report."""

    def close(self) -> None:
        """Give everything back to the kernel; may be called twice."""


class Engine(Protocol):
    """Brings the paths of a batch in step with the source as it is at that moment. One instance per target.

    An engine holds no queue and no retry; it may be given the same path any number of times. A path that fails is
    data in the outcome. It never writes outside the target, never follows a link there, and leaves nothing half
    written under a real name.
    """

    name: str

    parallel: int
    """How many ``sync`` calls, on paths that do not touch each other, it can run at once."""

    progress: Progress

    async def open(self) -> bool:
        """Get ready; may be called again after a TargetAway.

        Returns:
            Whether the target is the one that was left: then nothing in it needs to be compared anew.

        Raises:
            TargetAway: not reachable now.
            OperatorError: can never work as configured.
        """

    def prepare(self) -> None:
        """A whole comparison is coming: start meanwhile what takes long to start. Returns at once."""

    def sync_now(self, batch: Batch) -> tuple[Outcome, Sequence[Change]]:
        """Do at once what is quick, in the caller's thread; return its outcome, and the changes not touched."""

    async def sync(self, batch: Batch) -> Outcome:
        """Do the batch without holding up the loop."""

    async def close(self) -> None:
        """Stop helpers and let go of the target; a running ``sync`` is cancelled first by the caller."""
