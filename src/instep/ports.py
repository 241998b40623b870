"""The few protocols between the decisions and the edges. What is behind them is chosen in ``daemon`` alone."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from instep.model import (
    Batch,
    Change,
    Difference,
    EventReport,
    Landmarks,
    MonitorStatus,
    Outcome,
    ProgramEnd,
    Progress,
    Report,
    Work,
)
from instep.paths import RelPath


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


@runtime_checkable
class Renewable(Protocol):
    """A monitor that can be handed from one mirror to the next."""

    def renew(self, ignore: Callable[[RelPath, bool], bool] | None) -> bool:
        """Go on for another mirror of the same source, which leaves out other directories. Nothing is lost meanwhile.

        ``Report(ROOT, TREE, content=False)`` is given once more, when every directory that is not ignored is being
        watched; what was not read before may come first.

        Returns:
            Whether it can go on. If not it is of no use any more: what it watched was unmounted, or it is closed.
        """


@runtime_checkable
class Grouped(Protocol):
    """A monitor that can be kept from being told of single directories (``instep.linux.fanotify.ignore_in``)."""

    group: int
    """Its fanotify group; there once it was started."""


@runtime_checkable
class Discreet(Protocol):
    """An engine that writes where a monitor of the same mirror listens, and can keep it from hearing that."""

    def hush(self, group: int) -> None:
        """What is written out of sight is not to be told to this fanotify group. Before the first batch."""


class Engine(Protocol):
    """Brings the paths of a batch in step with the source as it is at that moment. One instance per target.

    An engine holds no queue and no retry; it may be given the same path any number of times. A path that fails is
    data in the outcome. It never writes outside the target, never follows a link there, and leaves nothing half
    written under a real name. ``Batch.deletions`` says what it may delete; deletions that it holds are in the outcome.
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

    async def landmarks(self) -> Landmarks | None:
        """By what the open target is known again after a restart; None when that cannot be told."""

    def flush(self) -> None:
        """Make what was written survive a power cut, as far as that is in our hands. Blocks; called in a thread.

        Raises:
            TargetAway: not reachable now.
            OSError: the disk lost something that was written since the last call; this is not told again.
        """

    def distrust(self, changes: Sequence[Change]) -> None:
        """What was written of these may be lost, though the kernel still shows it; when they come back, ask the disk.

        Blocks; called in a thread.
        """

    async def close(self) -> None:
        """Stop helpers and let go of the target; a running ``sync`` is cancelled first by the caller."""


@runtime_checkable
class Attentive(Protocol):
    """An engine that notices by itself, also when it has nothing to do, that its target went away."""

    lost: Callable[[str], None] | None
    """Called with the reason, in the loop's thread, at most once after each ``open``; set before the first one."""


class Verifier(Protocol):
    """Compares one target with the source by looking at both, changes nothing, and takes care to be no burden.

    What it finds is what one look found: a name may have changed between the look at one side and that at the other.
    Whoever asks looks again at what differs, with ``again``.
    """

    entries: int
    """Names compared since ``open``."""

    async def open(self) -> None:
        """Get ready.

        Raises:
            TargetAway: not reachable now.
            OperatorError: can never work as configured.
        """

    def differences(self) -> AsyncGenerator[Sequence[Difference], None]:
        """All names that differ, some at a time, once; an empty sequence means that it is still busy.

        Raises:
            TargetAway: it cannot go on.
        """

    async def again(self, suspects: Sequence[Difference]) -> Sequence[Difference]:
        """Those of these names that (still) differ. May be called while ``differences`` is under way.

        Raises:
            TargetAway: as above.
        """

    async def close(self) -> None:
        """Stop, and let go of both sides; may be called at any time."""


class Following(NamedTuple):
    """Which links to directories are looked through, as if what they lead to stood in their place."""

    wanted: Callable[[RelPath, bytes], bool]
    """Whether a link at this path, with this text, is one of them, should it lead to a directory."""
    apart: tuple[bytes, ...] = ()
    """Directories, by absolute path, that a followed one may neither hold nor lie in: what is done about its changes is
    written there."""


class Place(NamedTuple):
    """A directory whose events a handler wants."""

    root: bytes
    """Absolute path, no trailing slash."""
    ignore: Callable[[RelPath, bool], bool]
    """Whether a path is of no interest; a directory that is not is not watched, nor is anything below it."""
    one_file_system: bool = False
    following: Following | None = None
    """None: links are entries like any other."""


class Handler(Protocol):
    """Acts on events by having work done: a state machine without a clock, given by a front end.

    All calls come from one thread. ``now_s`` never goes back.
    """

    exit_status: int | None
    """Not None: it wants to end at once, with this status."""

    @property
    def places(self) -> Sequence[Place]:
        """What is to be watched; asked for once."""

    def started(self, now_s: float) -> None:
        """Every place is being watched."""

    def note(self, place: int, report: EventReport, now_s: float) -> bool:
        """Something happened in the place of this number.

        Returns:
            Whether what is below this directory now shall be told as well, as if it had just been made.
        """

    def appeared(self, place: int, path: RelPath, now_s: float) -> bool:
        """All directories below this one are watched from now on; what is below may have come without an event.

        Returns:
            Whether it shall be told, as if it had just been made.
        """

    def lost(self, place: int, now_s: float) -> None:
        """Events of this place may be missing: nothing that is remembered of it is certain."""

    def due(self, now_s: float, *, drained: bool) -> Sequence[tuple[int, Work]]:
        """What is to be done now, each with a number of the handler's choice. Called again after every other call.

        Args:
            now_s: the time.
            drained: whether everything that happened before this call has been told.
        """

    def finished(self, number: int, end: ProgramEnd, now_s: float) -> None:
        """What was asked for under this number has ended; of an ``Interrupt`` nothing is told."""

    def wake_s(self) -> float | None:
        """When to call ``due`` though nothing happens; None: no need."""

    def stop(self) -> None:
        """The process is to end, and does so when ``due`` has nothing more and all that runs has ended."""

    def reload(self) -> None:
        """Read again what may be read again while it runs."""

    def log_status(self) -> None:
        """Say how things are."""


class Beside(Protocol):
    """A mirror that runs in the same process as a handler."""

    def unsettled(self) -> tuple[set[bytes], set[bytes]]:
        """The paths that are not in step, as far as known, and those of them that cover what is below them.

        The empty path is the whole tree.
        """


class Observer(Handler, Protocol):
    """A handler with descriptors of its own."""

    def beside(self, mirrors: Sequence[Beside]) -> bool:
        """Called once, before all else, with the mirrors it goes with; True: it has work to do even without a place."""

    @property
    def observed(self) -> Mapping[int, tuple[bool, bool]]:
        """Which are of interest now: whether for reading, whether for writing. Looked at after every other call."""

    def ready(self, fd: int, *, writable: bool) -> None:
        """A descriptor can be read, or written."""

    def unwatchable(self, fd: int, reason: str) -> None:
        """A descriptor cannot be watched; it is not to be asked for again."""
