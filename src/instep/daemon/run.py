"""Running a mirror as a process: signals, reloading, and the exit status."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from instep.core.retry import backoff_s
from instep.daemon.mirror import End, Mirror, Observer
from instep.errors import OperatorError
from instep.logs import fields
from instep.model import Report
from instep.spec import InitialSync, MirrorSpec

log = logging.getLogger(__name__)

STOP_S = 4.0
"""After so long a stop no longer waits for batches under way; the rest of the five seconds is for winding up."""
CRASH_PAUSE_MAX_S = 60.0
SWITCH_INTERVAL_S = 0.0005
"""With the default of 5 ms a busy thread starves the reader of the kernel queue (measured: 62 % of events lost)."""

Reload = Callable[[MirrorSpec], MirrorSpec]


def run_mirror(spec: MirrorSpec, *, observer: Observer | None = None, reload: Reload | None = None) -> int:
    """Run one mirror until it ends; the exit status. Blocks; owns the process's signals meanwhile.

    Raises:
        OperatorError: it cannot work as asked; nothing was changed.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    with contextlib.suppress(ValueError, OSError):
        _raise_descriptor_limit()
    _wait_for_children_without_threads()
    return asyncio.run(_Process(spec, observer, reload).run())


class _Process:
    """Signals only enqueue: each becomes a call in the loop."""

    def __init__(self, spec: MirrorSpec, observer: Observer | None, reload: Reload | None) -> None:
        self._spec = spec
        self._observer = observer
        self._reload = reload
        self._mirror: Mirror | None = None
        self._stopped_by = 0
        self._hurried = False
        self._crashes = 0

    async def run(self) -> int:
        umask = os.umask(0)  # Every mode is given exactly; the user's umask only serves modes that are not preserved.
        try:
            return await self._run(umask)
        finally:
            os.umask(umask)

    async def _run(self, umask: int) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number)
        loop.add_signal_handler(signal.SIGHUP, self._reload_rules)
        loop.add_signal_handler(signal.SIGUSR1, self._status)
        loop.add_signal_handler(signal.SIGUSR2, self._resync)
        loop.set_exception_handler(self._crashed)
        carried: Sequence[Report] = ()
        while True:
            self._mirror = Mirror(self._spec, observer=self._observer, carried=carried, umask=umask)
            end = await self._mirror.run()
            if end is not End.REBUILD or self._stopped_by:
                break
            carried = self._mirror.carry()
            if self._crashes:
                await asyncio.sleep(min(CRASH_PAUSE_MAX_S, backoff_s(self._crashes)))
            self._observer = None
            # What happened between the two monitors is found by comparing.
            self._spec = replace(self._spec, initial_sync=InitialSync.FULL)
        for target, pending in self._mirror.left_over.items():
            log.warning(
                "target-left-behind",
                extra=fields(target=target, pending=pending, now="the comparison at the next start brings it in step"),
            )
        if self._hurried:
            return 128 + self._stopped_by
        log.info("stopped", extra=fields(why=end.value, pending=sum(self._mirror.left_over.values())))
        return 1 if end is End.INCOMPLETE else 0

    def _stop(self, number: int) -> None:
        assert self._mirror is not None
        if self._stopped_by:
            self._hurried = True
            self._stopped_by = number
            self._mirror.end(End.STOPPED)
            return
        self._stopped_by = number
        asyncio.get_running_loop().call_later(STOP_S, self._mirror.end, End.STOPPED)
        self._mirror.stop()

    def _crashed(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A callback failed, so a report may have been lost half-way: begin anew, which compares everything."""
        error = context.get("exception")
        log.error(
            "internal-error",
            exc_info=error,
            extra=fields(what=str(context.get("message")), now="everything is compared anew", fix="please report it"),
        )
        self._crashes += 1
        if self._mirror is not None and isinstance(error, Exception):
            self._mirror.end(End.REBUILD)

    def _reload_rules(self) -> None:
        if self._reload is None or self._mirror is None:
            return
        try:
            spec = self._reload(self._spec)
        except OperatorError as error:
            log.error(  # noqa: TRY400  # the operator's error, not ours
                "reload-failed",
                extra=fields(reason=error.what, now="the rules from before stay in force", fix=error.fix),
            )
            return
        log.info("reloaded", extra=fields(rules=len(spec.rules), now="the whole tree is compared"))
        self._spec = spec
        self._mirror.end(End.REBUILD)

    def _status(self) -> None:
        if self._mirror is not None:
            self._mirror.log_status()

    def _resync(self) -> None:
        if self._mirror is not None:
            self._mirror.resync()


def _wait_for_children_without_threads() -> None:
    """Let Python 3.11 wait by pidfd as later versions do; its default starts a thread for each child."""
    if sys.version_info < (3, 12) and hasattr(os, "pidfd_open"):
        asyncio.set_child_watcher(asyncio.PidfdChildWatcher())


def _raise_descriptor_limit() -> None:
    import resource  # noqa: PLC0415  # not on every system

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
