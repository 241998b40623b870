"""One source and its targets: reports come in from the monitor, batches go out to the engines."""

from __future__ import annotations

import asyncio
import enum
import functools
import gc
import logging
import math
import os
import time
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace

from instep.core.changelog import ChangeLog
from instep.core.filters import Filter
from instep.daemon.build import build_monitor, build_verifier, ignored_by
from instep.daemon.indexes.indexes import Indexes
from instep.daemon.indexes.rescan import Rescan
from instep.daemon.locks import TargetLocks
from instep.daemon.mirrors.admission import Admission
from instep.daemon.mirrors.aliases import Aliases
from instep.daemon.mirrors.handover import Handover
from instep.daemon.mirrors.mountpoints import MountGuard
from instep.daemon.mirrors.opening import EndedEarly, Opening
from instep.daemon.mirrors.presence import Presence
from instep.daemon.mirrors.progress import Observer, draw
from instep.daemon.mirrors.source import Source
from instep.daemon.mirrors.status import report_mirror, report_target, say_in_step
from instep.daemon.state import StateDirectory
from instep.daemon.targets.target import State, Target
from instep.daemon.targets.targets import Built, build_targets
from instep.daemon.targets.verify import keep_verifying
from instep.errors import SourceError, ToolMissing
from instep.logs import fields
from instep.model import MonitorStatus, Report
from instep.paths import RelPath, Scope
from instep.ports import Discreet, Grouped, Monitor, Renewable
from instep.records import CLOCK_LAG_NS
from instep.spec import InitialSync, MirrorSpec, MonitorName, Rounds

log = logging.getLogger(__name__)

READS_PER_TURN_MAX = 4
FLOOD_WAKES = 16
FLOOD_S = 0.01
"""So many wake-ups in so short a time are a flood of events. Guessed."""
FLOOD_PAUSE_S = 0.004
INDEX_CLOSE_S = 2.5
"""For the last entries of the indexes when the daemon is stopped; what is not written is compared at the next start."""


class End(enum.Enum):
    """Why a mirror stopped."""

    STOPPED = "stopped"
    DONE = "done"
    """``once``: everything is in step."""
    INCOMPLETE = "incomplete"
    """``once``: what is left fails again and again."""
    REBUILD = "rebuild"
    """To be made anew: other rules, or the source came back."""


class Mirror:
    """Wires one monitor, one change log and some targets; lives in one loop, ends with ``run``."""

    def __init__(
        self,
        spec: MirrorSpec,
        source: Source,
        *,
        observer: Observer | None,
        before: Handover | None = None,
        umask: int = 0o022,
        locks: TargetLocks | None = None,
        state: StateDirectory | None = None,
    ) -> None:
        """``source``: stays the caller's; ``before``: of the mirror whose place it takes."""
        self.spec = spec
        self.changelog = ChangeLog(quiet_s=spec.pace.quiet_s, hold_s=spec.pace.hold_s)
        self.targets: list[Target] = []
        self.following = False
        self._observer = observer
        self._umask = umask
        self._locks = locks
        self._state = state
        self._indexes: Indexes | None = None
        self._rescan: Rescan | None = None
        self._compare_whole: list[Target] = []
        self._doubted: set[Target] = set()  # compared since they were followed, and not known to be in step yet
        self._is_first = before is None
        self._before = before or Handover()
        self._clock = time.monotonic
        self._complete_s = self._clock() if before is None else before.complete_s
        self._filter = Filter(spec.rules)
        self._admission: Admission | None = None
        self._aliases: Aliases | None = None
        self._mounts: MountGuard | None = None
        self._monitor: Monitor | None = None
        self._why_monitor = ""
        self._polls = False  # What happened is not in a queue, but found at intervals.
        self._listens = False  # The monitor is that of the mirror before.
        self._reads = -1
        self._armed = False
        self._source = source
        self._presence = Presence(source, away=self._pause, back=lambda: self.end(End.REBUILD))
        self.left_over: dict[str, int] = {}
        """After the end: the targets that are not in step, with the number of paths."""
        self._ended: asyncio.Future[End] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._stopping = False
        self._is_closed = False
        self._flood: asyncio.TimerHandle | None = None
        self._wakes = 0
        self._wakes_since_s = 0.0
        self._verifying: list[asyncio.Task[None]] = []
        self._opening = Opening(self._fail)

    # -- life ---------------------------------------------------------------------------------------------------

    async def run(self) -> End:
        """Bring the targets in step, then follow until stopped.

        Raises:
            OperatorError: it cannot work as asked; nothing was changed.
        """
        loop = asyncio.get_running_loop()
        self._ended = loop.create_future()
        spec = self.spec
        source = self._source.fd
        try:
            if not self._filter.is_trivial:
                self._aliases = Aliases(source, self._filter, note=self._note, settled=self._settled, clock=self._clock)
                self._admission = Admission(source, self._filter, self._aliases)
            self._mounts = MountGuard.of(spec, source, self._filter, self._state, self._before.mounts)
            built = Built(
                spec,
                source,
                changelog=self.changelog,
                settled=self._check,
                look=self._look,
                clock=self._clock,
                umask=self._umask,
                locks=self._locks,
                mounted=None if self._mounts is None else self._mounts.mounted,
            )
            self.targets = build_targets(built)
            if spec.force_delete:
                for target in self.targets:
                    target.deletions.allow()
            if self._mounts is not None:
                self._mounts.keep(self.targets)
            try:
                self._monitor = await self._watch(source)
            except EndedEarly:
                return await self._ended
            except (SourceError, ToolMissing) as error:
                if self._is_first or (isinstance(error, ToolMissing) and self._source.is_there()):
                    raise
                self._presence.miss(error.what)
                return await self._ended
            whole = self._compare_whole
            if isinstance(self._monitor, Grouped):
                for target in self.targets:
                    if isinstance(target.engine, Discreet):
                        target.engine.hush(self._monitor.group)
            for target in whole:
                if target.state is State.READY:
                    target.engine.prepare()
            log.info("monitor", extra=fields(name=self._monitor.name, reason=self._why_monitor))
            if self._observer is not None and whole:
                self._observer.initial_sync_started([(target.name, target.engine.progress) for target in whole])
            ticking = None
            if self._observer is not None:
                ticking = loop.create_task(draw(self._observer, source, lambda: self.following))
            self._reads = self._monitor.fileno()
            loop.add_reader(self._reads, self._readable)
            for report in self._before.carried:
                self.changelog.note(report, self._clock())
            self._before = Handover()
            self._turn()
            if spec.verify is not None and not spec.once and not spec.dry_run:
                self._start_verifying(built, spec.verify)
            try:
                end = await self._ended
            finally:
                if ticking is not None:
                    ticking.cancel()
        finally:
            await self._close()
        if end is End.DONE and self._indexes is not None and self._indexes.any_lossy:
            return End.INCOMPLETE
        return end

    async def _watch(self, source: int) -> Monitor:
        """Open the targets and ask their indexes, then begin to watch: nobody can ask a monitor for anything before."""
        spec = self.spec
        monitor, self._why_monitor = self._renewed() or build_monitor(spec, self._filter)
        self._listens = monitor is self._before.monitor
        self._polls = monitor.name == MonitorName.POLL.value
        try:
            await self._opening.begin(self.targets, [target.is_local for target in spec.targets])
            await self._use_indexes(source)
            if spec.once and not self._listens and not self._compare_whole:
                monitor.close()
                monitor, self._why_monitor = build_monitor(spec, self._filter, copying=False)
            if not self._listens:
                monitor.start()
                self._see_that_it_is_there()
        except BaseException:
            if not self._listens:
                monitor.close()
            raise
        return monitor

    def _see_that_it_is_there(self) -> None:
        """Else it may be something else that the monitor has opened by the source's name."""
        if not self._source.is_there():
            raise SourceError("source-away", f"{os.fsdecode(self.spec.source)} is another directory now, or none")

    def _renewed(self) -> tuple[Monitor, str] | None:
        """The monitor of the mirror before, if it can go on with what this one leaves out."""
        before = self._before
        if before.monitor is None:
            return None
        if isinstance(before.monitor, Renewable) and before.monitor.renew(ignored_by(self._filter)):
            return before.monitor, before.why_monitor
        before.monitor.close()
        self._before = replace(before, monitor=None)
        return None

    async def _use_indexes(self, source: int) -> None:
        """See of which targets it is known what they hold; the others are compared as a whole."""
        spec = self.spec
        self._indexes = Indexes(spec, source, self.targets, self._state, self._drain, polls=self._polls)
        self._rescan = Rescan(
            self._indexes,
            self.targets,
            note=self._note,
            settled=self._settled,
            max_delete=spec.max_delete,
            clock=self._clock,
        )
        self._compare_whole = await self._indexes.begin(self._opening.opened)

    def stop(self) -> None:
        """Finish what is running, bring over what is dirty, then end; ``run`` returns when that is done."""
        if self._stopping:
            return
        self._stopping = True
        log.info("stopping", extra=fields(now="what is running is finished, what is pending is brought over"))
        if self._monitor is not None and not self._presence.is_away:
            self._turn()
        for target in self.targets:
            target.flushing = True
            target.kick()
        self._check()

    def end(self, end: End) -> None:
        """End now; batches under way are cancelled."""
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(end)
            self._opening.end_early()

    def _fail(self, error: BaseException) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_exception(error)
            self._ended.exception()  # It may have been raised already, where this target was waited for.

    def _pause(self) -> None:
        for target in self.targets:
            target.paused = True

    def hand_over(self) -> Handover:
        """For the mirror that takes its place, after ``run`` has ended with REBUILD."""
        changes = self.changelog.unacknowledged()
        for target in self.targets:
            changes += target.leftovers()
        left = [Report(change.path, change.scope, change.content, change.is_dir) for change in changes if change.path]
        return Handover(
            carried=[*self._before.carried, *left],
            mounts=self._before.mounts if self._mounts is None else self._mounts.points.remembered,
            monitor=self._before.monitor,
            why_monitor=self._before.why_monitor,
            complete_s=self._complete_s,
        )

    def resync(self) -> None:
        """Compare the whole tree again."""
        log.info("resync", extra=fields(now="the whole tree is compared"))
        self._doubted.update(self.targets)
        for target in self.targets:
            target.compare_all()
        self._kick()

    def confirm(self) -> None:
        """The operator wants the deletions that are held: compare again, and make them."""
        confirmed = [target.confirm() for target in self.targets]
        if self._mounts is not None:
            confirmed.append(self._mounts.confirm())
        if not any(confirmed):
            log.info("nothing-held", extra=fields(now="no deletion waits to be confirmed"))
        self._kick()

    def log_status(self) -> None:
        """The status report, as one log event per target and one for the monitor."""
        if self._monitor is not None:
            status, name = self._monitor.status(), self._monitor.name
        elif self._presence.is_away:
            status, name = MonitorStatus(0, 0, 0, trouble=("the source is not there",)), "none"
        else:
            return  # It begins or ends; before long there is more to tell.
        report_mirror(self.spec.source, name, status, missing=self._missing, following=self.following)
        now_s = self._clock()
        for target in self.targets:
            report_target(target, now_s)

    def _start_verifying(self, built: Built, rounds: Rounds) -> None:
        loop = asyncio.get_running_loop()
        for target, spec in zip(self.targets, built.spec.targets, strict=True):
            make = functools.partial(build_verifier, built, spec, checksum=rounds.checksum)
            self._verifying.append(loop.create_task(keep_verifying(target, make, rounds, self._kick)))

    async def _close(self) -> None:
        self._pause()  # What is begun now would be cut short, and no index would know of it.
        for task in self._verifying:
            task.cancel()
        await asyncio.gather(*self._verifying, return_exceptions=True)
        await self._opening.close()
        if self._rescan is not None:
            self._rescan.close()
        if self._aliases is not None:
            await self._aliases.close()
        if self._indexes is not None:
            await self._indexes.close(
                clean=not self._presence.is_away and not any(target.working for target in self.targets),
                within_s=INDEX_CLOSE_S if self._stopping else math.inf,
            )
        if self._timer is not None:
            self._timer.cancel()
        self._presence.close()
        if self._flood is not None:
            self._flood.cancel()
        if self._monitor is not None:
            if self._reads >= 0:
                asyncio.get_running_loop().remove_reader(self._reads)
            self._before = replace(self._before, monitor=self._monitor, why_monitor=self._why_monitor)
            self._monitor = None  # While the targets close one may still be asked to stop, or how things are.
        if self._before.monitor is not None and (self._presence.is_elsewhere or not self._is_replaced()):
            self._before.monitor.close()
            self._before = replace(self._before, monitor=None)
        self.left_over = {target.name: target.pending() for target in self.targets if target.pending()}
        await asyncio.gather(*(target.close() for target in self.targets))
        if self._mounts is not None:
            self._mounts.close()  # Engines have asked it to the end.
        self._is_closed = True
        if self._observer is not None:
            self._observer.closed()

    def _is_replaced(self) -> bool:
        ended = self._ended
        if ended is None or not ended.done() or ended.cancelled() or ended.exception() is not None:
            return False
        return ended.result() is End.REBUILD

    # -- the way of a change --------------------------------------------------------------------------------------

    def _readable(self) -> None:
        """The monitor's descriptor woke us; in a flood it is looked at by the clock instead, a few ms apart.

        A wake-up for each event of a flood would cost several times what the events do, and the kernel merges what
        is left together for a moment. The queue holds the events of 50 ms at the rate of the fastest writer.
        """
        now_s = self._clock()
        if now_s - self._wakes_since_s > FLOOD_S:
            self._wakes_since_s, self._wakes = now_s, 0
        self._wakes += 1
        self._turn()
        if self._wakes >= FLOOD_WAKES and self._ended is not None and not self._ended.done():
            self._wakes = 0
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._reads)
            self._flood = loop.call_later(FLOOD_PAUSE_S, self._look_again)

    def _look_again(self) -> None:
        """In a flood: take in what has come meanwhile; back to wake-ups once nothing has."""
        loop = asyncio.get_running_loop()
        if self._turn():
            self._flood = loop.call_later(FLOOD_PAUSE_S, self._look_again)
        else:
            self._flood = None
            loop.add_reader(self._reads, self._readable)

    def _turn(self) -> bool:
        """Take in what the monitor has, start what is due; again until it has no more. Whether there was anything.

        The last reading finds nothing, and that is its use: it proves that whatever happened before was noted, and
        takes our own writes to a target on the same file system out of the kernel queue without another turn.
        """
        any_reports = False
        for _ in range(READS_PER_TURN_MAX):
            if not self._take_in():
                break
            any_reports = True
            self._kick()
        self._check()
        self._plan_wake()
        return any_reports

    def _take_in(self) -> bool:
        """Note what the monitor has read; whether there was anything. Nothing is started."""
        monitor, changelog = self._monitor, self.changelog
        assert monitor is not None
        began_s = self._clock()
        reports = monitor.read()
        begins = bool(reports) and not self._armed
        if begins:
            reports = self._begin(reports)
        if reports:
            if self._mounts is not None:
                self._mounts.look(reports)
            note, admission = changelog.note, self._admission
            now_s = self._clock()
            for report in reports:
                if not report.path and report.scope is Scope.TREE:
                    self._lost()
                elif admission is None:
                    note(report, now_s)
                else:
                    for admitted in admission.admit(report):
                        note(admitted, now_s)
        if monitor.drained:
            if not self._polls:  # A scan tells of what was before it began; and it misses nothing that stays.
                self._complete_s = began_s
            changelog.drained()  # Before anything is started: what that touches is newer than what was read.
        return bool(reports) or begins

    def _look(self) -> None:
        """Take in what came while the loop was busy, lest its silence be taken for a pause."""
        if self._monitor is not None and not self._presence.is_away:
            if self._take_in():
                self._kick()
            self._plan_wake()

    def _plan_wake(self) -> None:
        """The monitor may want to be read without a wake-up."""
        assert self._monitor is not None
        wake_s = self._monitor.wake_s()
        if wake_s is not None:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = asyncio.get_running_loop().call_later(wake_s, self._turn)

    def _begin(self, reports: Sequence[Report]) -> Sequence[Report]:
        """Everything is watched, one report says: compare the whole tree, or trust it; all other reports.

        It is the first of all, but of a monitor that was handed over, which has more to tell of before.
        """
        said = next((each for each in reports if not each.path and each.scope is Scope.TREE), None)
        if said is None:
            return reports
        self._armed = True
        for target in self._compare_whole:
            target.compare_all()
        if self.spec.initial_sync is not InitialSync.NONE and self._rescan is not None:
            self._rescan.start()
            if not self._is_first and not (self._polls and self._listens):
                # Whoever watched before this one may have lost something, or have been of no use any more.
                self._rescan.missed(self._complete_ns)
        return [each for each in reports if each is not said]

    def _lost(self) -> None:
        """The monitor cannot say what changed."""
        assert self._rescan is not None
        log.warning("events-lost", extra=fields(now="what differs is looked for"))
        self._doubted.update(self.targets)
        self._rescan.lost(self._complete_ns)

    @property
    def _complete_ns(self) -> int:
        """When events were last known to be complete, by the clock that files are stamped with."""
        return time.time_ns() - int(1e9 * (self._clock() - self._complete_s)) - CLOCK_LAG_NS

    def _note(self, report: Report) -> None:
        self.changelog.note(report, self._clock())

    @property
    def _missing(self) -> AbstractSet[RelPath]:
        """The file systems that ought to be mounted in the source."""
        return frozenset() if self._mounts is None else self._mounts.points.missing

    def _settled(self) -> None:
        self._kick()
        self._check()

    def _drain(self) -> bool:
        """Take in what there is; whether all that happened before is noted."""
        if self._presence.is_away or self._monitor is None:
            return False
        self._turn()
        if self._rescan is not None and self._rescan.busy:
            return False  # What was lost, as the end of a name that is touched, is noted by that alone.
        return self._monitor.drained or self._polls

    def _kick(self) -> None:
        if self._is_closed or not self._presence.check():
            return
        for target in self.targets:
            target.kick()

    def _check(self) -> None:
        """See whether a stage is reached: following, or the end of a ``once``."""
        if self._ended is None or self._ended.done() or not (self._armed or self._stopping):
            return
        if self._rescan is not None and self._rescan.busy and not self._stopping:
            return
        if self._doubted and self.following:
            for target in [each for each in self._doubted if each.idle]:
                self._doubted.discard(target)
                say_in_step("in-step-again", target)
        if not self.following and all(target.served for target in self.targets):
            self.following = True
            self._doubted.clear()
            # What lives now lives on: the collector need not walk it, least of all in the middle of a change.
            gc.collect()
            gc.freeze()
            if self._observer is not None:
                self._observer.initial_sync_done()
            for target in self.targets:
                if target.state is not State.READY:
                    continue  # Said before, and again when it is back.
                target.deletions.started()
                say_in_step("in-step", target)
            if not self.spec.once and not self.spec.dry_run:
                log.info("following", extra=fields(source=self.spec.source))
        if self._stopping:
            if not any(target.working for target in self.targets) and all(
                target.state is not State.READY or target.paused or self.changelog.due_s(target.cursor) is None
                for target in self.targets
            ):
                self.end(End.STOPPED)
        elif (self.spec.once or self.spec.dry_run) and not (self._aliases is not None and self._aliases.busy):
            if all(target.idle for target in self.targets):
                held = any(target.deletions.held for target in self.targets)
                self.end(End.INCOMPLETE if held or self._missing else End.DONE)
            elif all(target.served and (target.state is State.READY or target.tries > 3) for target in self.targets):
                self.end(End.INCOMPLETE)
