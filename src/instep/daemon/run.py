"""Running mirrors as a process: signals, limits, and the exit status."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from instep.daemon.supervisor import Supervisor, Unit
from instep.logs import fields
from instep.spec import MirrorSpec

if TYPE_CHECKING:
    from instep.daemon.mirrors.kept import Reload
    from instep.daemon.mirrors.progress import Observer

log = logging.getLogger(__name__)

STOP_S = 4.0
"""After so long a stop no longer waits for batches under way; the rest of the five seconds is for winding up."""
SWITCH_INTERVAL_S = 0.0005
"""With the default of 5 ms a busy thread starves the reader of the kernel queue (measured: 62 % of events lost)."""

Make = Callable[[int], Sequence[Unit]]
"""From the user's umask to the units of the process. The process itself runs with none: every mode is given exactly."""


class Ended(NamedTuple):
    """How a process of ours came to its end."""

    status: int
    """What its units ask for as the exit status."""
    signal: int
    """The signal that ended it; 0: none did."""
    hurried: bool = False
    """A second signal cut short what the first had left time for."""


class Habits(NamedTuple):
    """What differs between the commands in how they treat signals."""

    hangup_ends: bool = False
    """SIGHUP ends all units, for the caller to read everything anew; else it is their ``reload``."""
    user_signals: bool = True
    """SIGUSR1 asks for the status report, SIGUSR2 for a comparison, SIGRTMIN+1 confirms held deletions; else the
    system's default actions are left."""
    stop_s: float | None = STOP_S
    """How long a stop may take; None: as long as it needs."""
    hurries: bool = True
    """A second signal ends at once what the first one asked to finish."""
    exact_modes: bool = True
    """Work without a umask, as mirrors must; not for units that run somebody's own code in this process."""
    told: Callable[[int], None] | None = None
    """Called with each signal that asks for the end."""
    own: Mapping[int, Callable[[], None]] | None = None
    """Not None: what each signal does; none of the above."""


def run_mirror(spec: MirrorSpec, *, observer: Observer | None = None, reload: Reload | None = None) -> int:
    """Run one mirror until it ends; the exit status. Blocks; owns the process's signals meanwhile.

    Raises:
        OperatorError: it cannot work as asked; nothing was changed.
    """
    from instep.daemon.mirrors.kept import KeptMirror  # noqa: PLC0415  # a process without mirrors needs nothing of them

    ended = run_units(lambda umask: [KeptMirror(spec, umask=umask, observer=observer, reload=reload)])
    return 128 + ended.signal if ended.hurried else ended.status


def run_mirrors(specs: Sequence[MirrorSpec], *, habits: Habits | None = None) -> Ended:
    """Run several mirrors until they end. Blocks; owns the process's signals meanwhile.

    Raises:
        OperatorError: one of them cannot work as asked.
    """
    from instep.daemon.mirrors.kept import KeptMirror  # noqa: PLC0415  # as above

    return run_units(lambda umask: [KeptMirror(spec, umask=umask) for spec in specs], habits=habits)


def run_units(make: Make, *, habits: Habits | None = None) -> Ended:
    """Run what ``make`` gives until all of it has ended. Blocks; owns the process's signals meanwhile.

    Raises:
        OperatorError: one of them cannot work as asked.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    with contextlib.suppress(ValueError, OSError):
        _raise_descriptor_limit()
    _wait_for_children_without_threads()
    return asyncio.run(_Process(make, habits or Habits()).run())


class _Process:
    """Signals only enqueue: each becomes a call in the loop."""

    def __init__(self, make: Make, habits: Habits) -> None:
        self._make = make
        self._habits = habits
        self._units = Supervisor(())
        self._stopped_by = 0
        self._hurried = False

    async def run(self) -> Ended:
        umask = os.umask(0)  # Every mode is given exactly; the user's umask only serves modes that are not preserved.
        if not self._habits.exact_modes:
            os.umask(umask)
        try:
            self._units = Supervisor(self._make(umask))
            self._listen()
            return Ended(await self._units.run(), self._stopped_by, self._hurried)
        finally:
            os.umask(umask)

    def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._crashed)
        if self._habits.own is not None:
            for number, call in self._habits.own.items():
                loop.add_signal_handler(number, call)
            return
        stops = [signal.SIGTERM, signal.SIGINT]
        if self._habits.hangup_ends:
            stops.append(signal.SIGHUP)
        else:
            loop.add_signal_handler(signal.SIGHUP, self._units.reload)
        for number in stops:
            loop.add_signal_handler(number, self._stop, number)
        if self._habits.user_signals:
            loop.add_signal_handler(signal.SIGUSR1, self._units.log_status)
            loop.add_signal_handler(signal.SIGUSR2, self._units.resync)
            loop.add_signal_handler(signal.SIGRTMIN + 1, self._units.confirm)

    def _stop(self, number: int) -> None:
        if self._habits.told is not None:
            self._habits.told(number)
        if self._stopped_by:
            # A hangup that is followed by a request to end is a request to end.
            self._stopped_by = number
            if self._habits.hurries:
                self._hurried = True
                self._units.end()
            return
        self._stopped_by = number
        if self._habits.stop_s is not None:
            asyncio.get_running_loop().call_later(self._habits.stop_s, self._units.end)
        self._units.stop()

    def _crashed(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A callback failed, so a report may have been lost half-way: begin anew, which compares everything."""
        error = context.get("exception")
        log.error(
            "internal-error",
            exc_info=error,
            extra=fields(what=str(context.get("message")), now="everything is compared anew", fix="please report it"),
        )
        if isinstance(error, Exception):
            self._units.crashed()


def _wait_for_children_without_threads() -> None:
    """Let Python 3.11 wait by pidfd as later versions do; its default starts a thread for each child."""
    if sys.version_info < (3, 12) and hasattr(os, "pidfd_open"):
        asyncio.set_child_watcher(asyncio.PidfdChildWatcher())


def _raise_descriptor_limit() -> None:
    import resource  # noqa: PLC0415  # not on every system

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
