"""A mirror for as long as the process lives: it is built again after a reload, a defect, or a lost source."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import replace

from instep.core.retry import backoff_s
from instep.daemon.locks import TargetLocks
from instep.daemon.mirrors.handover import Handover
from instep.daemon.mirrors.mirror import End, Mirror
from instep.daemon.mirrors.progress import Observer
from instep.daemon.mirrors.source import Source
from instep.daemon.state import StateDirectory, kept_apart, open_state
from instep.errors import OperatorError
from instep.logs import fields
from instep.paths import ROOT
from instep.spec import InitialSync, MirrorSpec

log = logging.getLogger(__name__)

CRASH_PAUSE_MAX_S = 60.0

Reload = Callable[[MirrorSpec], MirrorSpec]


class KeptMirror:
    """One mirror; a unit of the process (``supervisor.Unit``)."""

    def __init__(
        self, spec: MirrorSpec, *, umask: int, observer: Observer | None = None, reload: Reload | None = None
    ) -> None:
        self._spec = spec
        self._umask = umask
        self._observer = observer
        self._reread = reload
        self._mirror: Mirror | None = None
        self._stopping = False
        self._told_to_stop = asyncio.Event()
        self._crashes = 0

    async def run(self) -> int:
        """Follow until stopped; 1 if something was left undone where it should have been done once."""
        spec = kept_apart(self._spec)  # It may refuse, and that is before anything is made.
        state = open_state(spec)
        locks = None if spec.dry_run else TargetLocks(spec, state)
        try:
            # Once: by its name it may be another directory later, one that nothing is mounted on, say.
            with contextlib.closing(Source(spec.source)) as source:
                return await self._keep(source, locks, state)
        finally:
            if locks is not None:
                locks.close()

    async def _keep(self, source: Source, locks: TargetLocks | None, state: StateDirectory | None) -> int:
        before: Handover | None = None
        crashes = 0
        while True:
            if self._stopping:
                if before is not None and before.monitor is not None:
                    before.monitor.close()
                return 0  # Between two mirrors: what is left is found by the comparison at the next start.
            mirror = self._mirror = Mirror(
                kept_apart(self._spec),
                source,
                observer=self._observer,
                before=before,
                umask=self._umask,
                locks=locks,
                state=state,
            )
            end = await mirror.run()
            if end is not End.REBUILD or self._stopping:
                break
            before = mirror.hand_over()
            if self._crashes != crashes and before.monitor is not None:
                before.monitor.close()
                before = replace(before, monitor=None)
            crashes = self._crashes
            if self._crashes:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(CRASH_PAUSE_MAX_S, backoff_s(self._crashes))):
                        await self._told_to_stop.wait()
            self._observer = None
            # After a defect nothing is believed, its monitor the least.
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
        self._told_to_stop.set()
        if self._mirror is not None:
            self._mirror.stop()

    def end(self) -> None:
        """End now; batches under way are cancelled."""
        self._stopping = True
        self._told_to_stop.set()
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

    def unsettled(self) -> tuple[set[bytes], set[bytes]]:
        """See ``instep.ports.Beside``. Until the first comparison is done the whole tree is not in step."""
        if self._mirror is None:
            return {ROOT}, {ROOT}
        paths: set[bytes] = set()
        covering: set[bytes] = set()
        for target in self._mirror.targets:
            some, more = target.unsettled()
            paths |= some
            covering |= more
        if not self._mirror.following:
            paths.add(ROOT)
            covering.add(ROOT)
        return paths, covering

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
