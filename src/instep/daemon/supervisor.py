"""The mirrors of one process: each is made anew when need be, and all end together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from instep.core.retry import backoff_s
from instep.daemon.locks import TargetLocks
from instep.daemon.mirror import End, Mirror
from instep.daemon.progress import Observer
from instep.daemon.state import StateDirectory, kept_apart, open_state
from instep.errors import OperatorError
from instep.logs import fields
from instep.model import Report
from instep.spec import InitialSync, MirrorSpec

log = logging.getLogger(__name__)

CRASH_PAUSE_MAX_S = 60.0

Reload = Callable[[MirrorSpec], MirrorSpec]


class Unit(Protocol):
    """What a process runs beside others of its kind. All calls come from the loop's thread, and only enqueue."""

    async def run(self) -> int:
        """Work until it ends; the exit status it asks for.

        Raises:
            OperatorError: it cannot work as asked; nothing was changed.
        """

    def stop(self) -> None:
        """Finish what is running, then end."""

    def end(self) -> None:
        """End now."""

    def crashed(self) -> None:
        """A callback of the process failed, maybe one of this unit: trust nothing that is remembered."""

    def reload(self) -> None:
        """Read again what may be read again while it runs."""

    def log_status(self) -> None:
        """Say how things are."""

    def resync(self) -> None:
        """Compare everything."""

    def confirm(self) -> None:
        """The operator wants the deletions that are held."""


class KeptMirror:
    """One mirror for as long as the process lives: it is built again after a reload, a defect, or a lost source."""

    def __init__(
        self, spec: MirrorSpec, *, umask: int, observer: Observer | None = None, reload: Reload | None = None
    ) -> None:
        self._spec = spec
        self._umask = umask
        self._observer = observer
        self._reread = reload
        self._mirror: Mirror | None = None
        self._stopping = False
        self._crashes = 0

    async def run(self) -> int:
        """Follow until stopped; 1 if something was left undone where it should have been done once."""
        spec = kept_apart(self._spec)  # It may refuse, and that is before anything is made.
        state = open_state(spec)
        locks = None if spec.dry_run else TargetLocks(spec, state)
        try:
            return await self._keep(locks, state)
        finally:
            if locks is not None:
                locks.close()

    async def _keep(self, locks: TargetLocks | None, state: StateDirectory | None) -> int:
        carried: Sequence[Report] = ()
        while True:
            if self._stopping:
                return 0  # Between two mirrors: what is left is found by the comparison at the next start.
            mirror = self._mirror = Mirror(
                kept_apart(self._spec),
                observer=self._observer,
                carried=carried,
                umask=self._umask,
                locks=locks,
                state=state,
            )
            end = await mirror.run()
            if end is not End.REBUILD or self._stopping:
                break
            carried = mirror.carry()
            if self._crashes:
                await asyncio.sleep(min(CRASH_PAUSE_MAX_S, backoff_s(self._crashes)))
            self._observer = None
            # What happened between the two monitors is found by comparing; after a defect nothing is believed.
            again = InitialSync.FULL if self._crashes else InitialSync.AUTO
            self._spec = replace(self._spec, initial_sync=again, force_delete=False)
        for target, pending in mirror.left_over.items():
            log.warning(
                "target-left-behind",
                extra=fields(target=target, pending=pending, now="the comparison at the next start brings it in step"),
            )
        log.info("stopped", extra=fields(why=end.value, pending=sum(mirror.left_over.values())))
        return 1 if end is End.INCOMPLETE else 0

    def stop(self) -> None:
        """Bring over what is dirty, then end."""
        self._stopping = True
        if self._mirror is not None:
            self._mirror.stop()

    def end(self) -> None:
        """End now; batches under way are cancelled."""
        self._stopping = True
        if self._mirror is not None:
            self._mirror.end(End.STOPPED)

    def crashed(self) -> None:
        """A report may have been lost half-way: begin anew, which compares everything."""
        self._crashes += 1
        if self._mirror is not None:
            self._mirror.end(End.REBUILD)

    def reload(self) -> None:
        """Read the rules again; if they cannot be, those from before stay in force."""
        if self._reread is None or self._mirror is None:
            return
        try:
            spec = self._reread(self._spec)
        except OperatorError as error:
            log.error(  # noqa: TRY400  # the operator's error, not ours
                "reload-failed",
                extra=fields(reason=error.what, now="the rules from before stay in force", fix=error.fix),
            )
            return
        log.info("reloaded", extra=fields(rules=len(spec.rules), now="the whole tree is compared"))
        self._spec = spec
        self._mirror.end(End.REBUILD)

    def log_status(self) -> None:
        """The status report of the mirror."""
        if self._mirror is not None:
            self._mirror.log_status()

    def resync(self) -> None:
        """Compare the whole tree again."""
        if self._mirror is not None:
            self._mirror.resync()

    def confirm(self) -> None:
        """Compare again, and delete what was held."""
        if self._mirror is not None:
            self._mirror.confirm()


class Supervisor:
    """Several units as one: told together, ended together, with the worst of their exit statuses."""

    def __init__(self, units: Sequence[Unit]) -> None:
        self._units = units

    async def run(self) -> int:
        """Run all until the last has ended. One that cannot work as asked ends the others too.

        Raises:
            OperatorError: the first that one of them raised.
        """
        tasks = [asyncio.ensure_future(unit.run()) for unit in self._units]
        try:
            return max(await asyncio.gather(*tasks), default=0)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def stop(self) -> None:
        """Let all finish."""
        for unit in self._units:
            unit.stop()

    def end(self) -> None:
        """End all now."""
        for unit in self._units:
            unit.end()

    def crashed(self) -> None:
        """Nobody knows whose callback it was."""
        for unit in self._units:
            unit.crashed()

    def reload(self) -> None:
        """Let each read again what it may."""
        for unit in self._units:
            unit.reload()

    def log_status(self) -> None:
        """The status report of each."""
        for unit in self._units:
            unit.log_status()

    def resync(self) -> None:
        """Compare everything everywhere."""
        for unit in self._units:
            unit.resync()

    def confirm(self) -> None:
        """Delete what is held, wherever it is."""
        for unit in self._units:
            unit.confirm()
