"""The pipeline: what waits becomes runs, runs are tried, tried again, and given up, and at the end all is wound up.

A state machine without a clock (``ports.Handler``). One run tells the handler program of some entries; it may be cut
into parts that are carried out one after the other. What becomes of a failed run is decided here alone.

Facts (observed): hooks get the label.
"""

from __future__ import annotations

import enum
import errno
import math
import signal
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from instep.core.retry import backoff_s
from instep.errors import OperatorError
from instep.frontends.clsync import dump, ends
from instep.frontends.clsync.collect import Collector
from instep.frontends.clsync.entries import Entry, ObjectType
from instep.frontends.clsync.files import State
from instep.frontends.clsync.iterations import Iterations
from instep.frontends.clsync.output import Say
from instep.frontends.clsync.queues import Delays, Queue, overlap
from instep.frontends.clsync.rules import Rules
from instep.frontends.clsync.running import Kind, Run, Running
from instep.frontends.clsync.runs import Excluded, Part, environment_of, told_again
from instep.frontends.clsync.settings import Mode, Settings, Threading
from instep.frontends.clsync.tree import Tree
from instep.model import EventReport, Program, ProgramEnd, Work
from instep.paths import RelPath
from instep.ports import Place

STANDBY_S: Final = 1.0
"""How often the standby file is looked for."""
DRAIN_S: Final = 0.01
LAST_LOOK_S: Final = 1.0
"""So long the last run waits for the kernel's queue to be empty; a busy writer may never let it be."""
LAST_RUN_S: Final = 30.0
"""How long the last run may take after TERM, before it is ended as well. Guessed: systemd waits for 90 s in all."""
AT_ONCE_MAX: Final = 64
"""Runs at the same time with threading. Guessed: more only wait for each other."""
_ENDS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)


class Phase(enum.Enum):
    """How far the process has come; in this order."""

    FOLLOWING = enum.auto()
    EMPTYING = enum.auto()
    """Delays do not count any more; when nothing waits and nothing happens, it goes on."""
    FLUSHING = enum.auto()
    """One last run with all that waits."""
    BEFORE_HOOK = enum.auto()
    AFTER_HOOK = enum.auto()
    LEAVING = enum.auto()
    GONE = enum.auto()


class MakesRuns(Protocol):
    """Says what one run is; ``runs.Runs``, or ``engine.EngineRuns``."""

    @property
    def tells_singly(self) -> bool:
        """Each path has a part of its own, and a failure ends all with a code of its own."""

    @property
    def leaves_mounts(self) -> bool:
        """With ``one_file_system`` what lies in a mount point must not be told: it would be brought over."""

    def change(self, settings: Settings) -> None:
        """Other settings hold for the runs to come."""

    def follow(self, rules: Rules) -> None:
        """Other rules do."""

    def of(
        self, entries: Sequence[Entry], excluded: Sequence[Excluded] = (), *, iteration: int | None, status: str
    ) -> list[Part]:
        """The parts of a run, to be carried out one after the other. OSError: its lists cannot be made."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the pipeline asks of the world."""

    tree: Tree
    say: Say
    announce: Callable[[State], None]
    """The state has changed."""
    ready: Callable[[], None]
    """Everything is watched from now on."""
    is_own: Callable[[RelPath], bool]
    """Of list files, which are nobody's change."""
    exists: Callable[[bytes], bool]
    """Of the standby file."""
    read_rules: Callable[[Settings], Rules]
    """OperatorError: they cannot be used."""
    read_block: Callable[[Settings, str], Settings]
    """The settings with this block of the configuration file on top. OperatorError: as above."""
    changed: Callable[[Settings], None]
    """Other settings hold from now on. OperatorError: they cannot be used, and nothing has changed."""
    dump: Callable[[ClsyncHandler, bytes], None]
    """Write what is known of queues and runs to this directory; OSError."""


class ClsyncHandler:
    """See the module; the methods of ``ports.Handler`` are described there."""

    def __init__(self, settings: Settings, rules: Rules, runs: MakesRuns, surroundings: Surroundings) -> None:
        """Nothing is looked at yet."""
        self.exit_status: int | None = None
        self.settings = settings
        self.status = State.STARTING
        self.collector = Collector(settings, rules, surroundings.tree, walked=self._walked, is_own=surroundings.is_own)
        self.running = Running()
        self._around = surroundings
        self._runs = runs
        self._phase = Phase.FOLLOWING
        self._with_hook = False
        self._hurries = False
        """It was told to end."""
        self._deaf = False
        """What happens now is not told any more."""
        self._initial_done = False
        self._last_s = math.inf
        self._standby_s = -math.inf
        self._again: list[tuple[float, Entry]] = []
        self._failures = 0
        self._iterations = Iterations()
        self._now_s = 0.0
        self._wake_s = math.inf

    @property
    def iteration(self) -> int:
        """Its number."""
        return self._iterations.number

    def waiting(self) -> list[list[dump.Line]]:
        """What waits, by queue."""
        queues = self.collector.queues
        return [dump.lines(queues.entries(queue)) for queue in Queue]

    # ---- what is watched ----

    @property
    def place(self) -> Place:
        """The watched directory."""
        settings = self.settings
        stays = settings.one_file_system or settings.exclude_mount_points
        return Place(settings.watch_dir, self.collector.ignores, stays and self._runs.leaves_mounts)

    @property
    def places(self) -> Sequence[Place]:
        """The watched directory; none when there is only the initial sync."""
        return () if self.settings.only_initialsync else (self.place,)

    def started(self, now_s: float) -> None:
        """Everything is being watched: the initial sync is due."""
        settings = self.settings
        self._now_s = now_s
        self.collector.is_starting = False
        self._around.ready()
        self.collector.queues.ran(now_s)
        if settings.skip_initialsync:
            self._initial_done = True
            self._announce(State.RUNNING)
        else:
            self._announce(State.INITSYNC)
            self._tell_all(now_s)
        if settings.only_initialsync:
            self._go(Phase.FLUSHING)
        elif settings.exit_on_no_events:
            self._go(Phase.EMPTYING, hook=True)

    def note(self, place: int, report: EventReport, now_s: float) -> bool:  # noqa: ARG002  # the protocol's
        """Take in one event; new directories are looked into here."""
        if not self._deaf:
            walks = self._iterations.walks
            self.collector.note(report, now_s)
            self._found(walks)
        return False

    def appeared(self, place: int, path: RelPath, now_s: float) -> bool:  # noqa: ARG002  # as above
        """See ``note``."""
        if not self._deaf:
            self.collector.appeared(path, now_s)
        return False

    def lost(self, place: int, now_s: float) -> None:  # noqa: ARG002  # as above
        """Tell everything again, as if the process had just started."""
        if self._deaf:
            return
        self._around.say.warning("Events were lost (queue overflow): everything is synced again.")
        self._tell_all(now_s)
        if self.settings.exit_on_sync_skipping and self._phase is Phase.FOLLOWING:
            self._go(Phase.FLUSHING)

    def _tell_all(self, now_s: float) -> None:
        walks = self._iterations.walks
        self.collector.initial(now_s)
        self._found(walks)

    def _found(self, walks: int) -> None:
        """All is noted that the walks found which were begun when there were so many."""
        if self._iterations.found(walks, len(self.running) + len(self.collector.singles)):
            self._initial_done = True

    # ---- signals ----

    def signalled(self, number: int, now_s: float) -> None:
        """A signal came. Those that a configuration names come first, whatever else they would do."""
        self._now_s = now_s
        block = self.settings.custom_signals.get(number)
        if block is not None:
            self._reread(block)
        elif number in _ENDS:
            self._end(number)
        elif number == signal.SIGQUIT:
            self._go(Phase.FLUSHING, hook=True)
        elif number == signal.SIGHUP:
            self.reload()
        elif number == signal.SIGUSR1:
            self._announce(State.THREAD_GC)
        elif number == signal.SIGUSR2:
            self._iterations.begin_anew(sum(run.kind is Kind.EVENTS for run in self.running))
            self._tell_all(now_s)
        elif number == signal.SIGIO:
            self._dump(self.settings.dump_dir)

    def stop(self) -> None:
        """As TERM."""
        self._end(signal.SIGTERM)

    def reload(self) -> None:
        """Read the rules again; those from before stay in force if that fails. Nothing is synced because of it."""
        self._announce(State.REHASHING)
        try:
            rules = self._around.read_rules(self.settings)
        except OperatorError as error:
            self._around.say.error(f"{error.what} (the rules from before stay in force)")
        else:
            self.collector.rules = rules
            self._runs.follow(rules)

    def change(self, settings: Settings) -> None:
        """Other settings hold from now on.

        Raises:
            OperatorError: they cannot be used; those from before stay in force.
        """
        self._around.changed(settings)
        if settings.exit_on_no_events and not self.settings.exit_on_no_events:
            self._go(Phase.EMPTYING, hook=True)
        self.settings = settings
        self.collector.change(settings)
        self._runs.change(settings)

    def log_status(self) -> None:
        """Say how things are."""
        waiting = len(self.collector) + len(self._again)
        under_way = len(self.running)
        self._around.say.info(
            f"{self.status.value}: iteration {self.iteration}, {waiting} waiting, {under_way} under way"
        )

    def _reread(self, block: str) -> None:
        try:
            self.change(self._around.read_block(self.settings, block))
        except OperatorError as error:
            self._around.say.error(f"block {block!r}: {error.what} (the settings from before stay in force)")

    def _dump(self, path: bytes) -> None:
        try:
            self._around.dump(self, path)
        except OSError as error:
            self._around.say.error("Cannot dump to " + repr(path), error.errno or 0)

    def _end(self, number: int) -> None:
        """Ask what runs to end, tell what waits, and leave. The second time: kill it, and leave at once."""
        if self._phase.value >= Phase.FLUSHING.value:
            self.running.kill(self._now_s)
            self._phase, self._deaf = Phase.LEAVING, True
            self._forget()
            return
        for run in self.running:
            if run.again_s == math.inf and not run.is_engines:
                self.running.interrupt(run, self._now_s, number)
            else:
                # It gets one more try; an engine's goes on, as another one would only do the same again.
                self.running.interrupt(run, self._now_s + LAST_RUN_S, number)
        self._hurries = True
        self._announce(State.TERMINATING)
        self._go(Phase.FLUSHING)

    # ---- runs ----

    def due(self, now_s: float, *, drained: bool) -> Sequence[tuple[int, Work]]:
        """What is to be done now."""
        self._now_s = now_s
        self._wake_s = math.inf
        while self.exit_status is None and self._next(drained=drained) is not None:
            pass
        return self.running.due(now_s)

    def finished(self, number: int, end: ProgramEnd, now_s: float) -> None:
        """One part of a run has ended."""
        self._now_s = now_s
        run = self.running[number]
        if run.kind is Kind.HOOK:
            self._over(run)
        elif ends.is_good(end, self.settings, by_engine=run.is_engines):
            if end.trouble:
                self._around.say.warning(f"Exit code {end.status}, which counts as success: {end.trouble}")
            run.parts.popleft()
            run.tries = 0
            if run.parts and not run.interrupted:
                run.again_s = now_s
            elif run.parts:
                self._broken_off(run)
            else:
                self._succeeded(run)
        elif run.interrupted:
            self._broken_off(run)
        else:
            self._failed(run, end)

    def wake_s(self) -> float | None:
        """When to be asked again."""
        at_s = min(self._wake_s, self.running.wake_s())
        return None if at_s == math.inf else at_s

    def _wake(self, at_s: float) -> None:
        self._wake_s = min(self._wake_s, at_s)

    def _next(self, *, drained: bool) -> Run | None:
        """Begin the next run; None when there is none now."""
        threading = self.settings.threading
        if self.running and (threading is Threading.OFF or len(self.running) >= AT_ONCE_MAX):
            return None
        while True:
            limit = self.settings.max_iterations
            if limit and self.iteration >= limit:
                self._go(Phase.FLUSHING, hook=self.settings.exit_on_no_events)
            if self._phase is Phase.FOLLOWING:
                return self._next_followed()
            if self.running and (self._phase is not Phase.EMPTYING or threading is Threading.OFF):
                return None
            if self._phase is Phase.EMPTYING:
                run = self._next_emptied()
                if run is not None:
                    return run
                if self.running or self._is_held():
                    return None
            if not drained and self._now_s < self._last_s:
                self._wake(self._now_s + DRAIN_S)
                return None
            if self._phase is Phase.EMPTYING:
                self._go(Phase.FLUSHING, hook=self._with_hook)
            run = self._next_of_the_end()
            if run is not None or self.exit_status is not None:
                return run

    def _next_followed(self) -> Run | None:
        self._release_failed()
        if not self.collector.is_waiting_for_nothing:
            at_s = self.collector.queues.due_s(Delays.of(self.settings))
            if at_s > self._now_s:
                self._wake(at_s)
                return None
        return None if self._is_held() else self._collected(everything=False)

    def _next_emptied(self) -> Run | None:
        return None if self._is_held() else self._collected(everything=True)

    def _next_of_the_end(self) -> Run | None:
        """One step of winding up; nothing runs."""
        settings = self.settings
        phase = self._phase
        if phase in (Phase.FLUSHING, Phase.AFTER_HOOK):
            # What comes later than this is not told any more; what an interrupted run gave back is.
            self._deaf = True
            if self._is_held():
                self._leave_behind(len(self.collector), "the standby file is there")
                self._forget()
            run = self._collected(everything=True)
            if run is None:
                self._phase = Phase.BEFORE_HOOK if phase is Phase.FLUSHING else Phase.LEAVING
            return run
        if phase is Phase.BEFORE_HOOK:
            self._phase = Phase.LEAVING
            if self._with_hook and settings.pre_exit_hook is not None:
                self._phase, self._deaf, self._last_s = Phase.AFTER_HOOK, False, math.inf
                self._announce(State.PREEXIT)
                return self._hook(settings.pre_exit_hook)
        elif phase is Phase.LEAVING:
            self._phase = Phase.GONE
            self._announce(State.EXITING)
            if settings.exit_hook is not None:
                return self._hook(settings.exit_hook)
        else:
            self.exit_status = 0
        return None

    def _forget(self) -> None:
        """Nothing that waits is told any more."""
        self.collector.clear()
        self._again.clear()

    def _go(self, phase: Phase, *, hook: bool = False) -> None:
        """On to a later phase; never back."""
        if phase.value > self._phase.value:
            self._phase = phase
            self._with_hook = hook
            if phase is not Phase.EMPTYING:
                self._last_s = self._now_s + LAST_LOOK_S
                self._leave_behind(len(self._again), "it failed before")
                self._again.clear()
                for run in self.running:
                    run.last = (
                        self.settings.retries == 0 or run.again_s < math.inf or (self._hurries and run.is_engines)
                    )
                    if run.again_s < math.inf:
                        run.again_s = self._now_s

    def _collected(self, *, everything: bool) -> Run | None:
        """A run with what waits; None when nothing does."""
        collector = self.collector
        if collector.whole:
            return self._begin(Kind.EVENTS, [collector.whole.popleft()])
        if collector.singles:
            entry = self._free_single()
            return None if entry is None else self._begin(Kind.SINGLE, [entry])
        queues = collector.queues
        entries = queues.take_all() if everything else queues.take(self._now_s, Delays.of(self.settings))
        entries = self._unlocked(entries)
        if not entries:
            return None
        queues.ran(self._now_s)
        return self._begin(Kind.EVENTS, entries)

    def _begin(self, kind: Kind, entries: list[Entry]) -> Run | None:
        excluded = [
            found
            for entry in entries
            if entry.recursive and entry.new is ObjectType.DIRECTORY and not entry.absolute
            for found in self.collector.excluded(entry.path)
        ]
        iteration = self.iteration if self.settings.threading is Threading.OFF else None
        try:
            parts = self._runs.of(entries, excluded, iteration=iteration, status=self.status.value)
        except OSError as error:
            self._cannot_list(entries, error)
            return None
        if not parts:
            return None
        run = self.running.begin(kind, entries, parts, self._now_s)
        run.last = self._hurries or (self.settings.retries == 0 and self._phase.value >= Phase.FLUSHING.value)
        if self._hurries:
            self.running.interrupt(run, self._now_s + LAST_RUN_S, signal.SIGTERM)
        return run

    def _hook(self, path: bytes) -> Run:
        program = Program(
            (path, self.settings.label),
            environment=environment_of(iteration=self.iteration, status=self.status.value),
            directory=self.settings.watch_dir,
        )
        return self.running.begin(Kind.HOOK, [], [Part(program, ())], self._now_s)

    # ---- ends of runs ----

    def _succeeded(self, run: Run) -> None:
        self._over(run)
        self._failures = 0
        if run.kind is not Kind.SINGLE:
            self._iterations.ran()
        self._settled()
        if self.status is State.SYNCHANDLER_ERROR:
            self._announce(State.RUNNING if self._initial_done else State.INITSYNC)

    def _settled(self) -> None:
        """A run has come to an end: maybe it was the last of the initial sync."""
        collector = self.collector
        if not (self._initial_done or self.running or collector.singles or collector.whole):
            self._initial_done = True
        if self._initial_done and self.status not in (State.TERMINATING, State.EXITING, State.SYNCHANDLER_ERROR):
            self._announce(State.RUNNING)

    def _broken_off(self, run: Run) -> None:
        """It was interrupted: what it has not told is told by the last run, unless it was that."""
        self._over(run)
        if run.last:
            self._leave_behind(len(run.left), "the last run was ended")
        else:
            self._put_back(run.left, pause_s=0.0)

    def _leave_behind(self, count: int, why: str) -> None:
        if count:
            self._around.say.warning(f"Not synced, as {why}: {count} paths.")

    def _failed(self, run: Run, end: ProgramEnd) -> None:
        settings, say = self.settings, self._around.say
        run.tries += 1
        what = ends.why(end, settings)
        again = not run.last and (settings.retries == 0 or run.tries < settings.retries)
        attempt = f"try {run.tries}" + (f" of {settings.retries}" if settings.retries else "")
        self._announce(State.SYNCHANDLER_ERROR)
        if again:
            say.error(f"The handler failed: {what} ({attempt}); tried again in {settings.delay_sync_s} s.")
            run.again_s = self._now_s + settings.delay_sync_s
            run.parts[0] = told_again(run.parts[0], status=self.status.value)
            return
        self._over(run)
        if settings.ignore_failures:
            self._failures += 1
            pause_s = max(float(settings.delay_sync_s), backoff_s(self._failures))
            left = set(end.failed)
            entries = [entry for entry in run.entries if entry.path in left] if left else run.left
            say.error(
                f"The handler failed: {what} ({attempt}); {len(entries)} paths wait {pause_s:.0f} s for another run."
            )
            self._put_back(entries, pause_s=pause_s)
            self._settled()
            return
        say.error(
            f"The handler failed: {what} ({attempt}). Giving up: see --retries, --ignore-exitcode, --ignore-failures."
        )
        single = self._runs.tells_singly and not run.entries[0].absolute
        self.exit_status = ends.exit_status(end, single=single)

    def _cannot_list(self, entries: list[Entry], error: OSError) -> None:
        """There is no place for lists, so there is no run."""
        self._announce(State.SYNCHANDLER_ERROR)
        self._around.say.error("The lists of a run cannot be made", error.errno or errno.EIO)
        if self.settings.ignore_failures:
            self._failures += 1
            self._put_back(entries, pause_s=backoff_s(self._failures))
        else:
            self.exit_status = error.errno or errno.EIO

    def _over(self, run: Run) -> None:
        self.running.over(run)
        self.collector.queues.release()
        if run.kind is Kind.SINGLE and self._iterations.told():
            self._initial_done = True

    def _put_back(self, entries: Iterable[Entry], *, pause_s: float) -> None:
        for entry in entries:
            if self.settings.mode is Mode.SIMPLE or entry.absolute or pause_s:
                self._again.append((self._now_s + pause_s, entry))
            else:
                self.collector.queues.add(Queue.INSTANT, entry, self._now_s)
        if not pause_s:
            self._release_failed()

    def _release_failed(self) -> None:
        """What failed long enough ago is told again."""
        later = []
        for at_s, entry in self._again:
            if at_s > self._now_s:
                later.append((at_s, entry))
                self._wake(at_s)
            elif entry.absolute:
                self.collector.whole.append(entry)
            elif self.settings.mode is Mode.SIMPLE:
                self.collector.singles.append(entry)
            else:
                self.collector.queues.add(Queue.INSTANT, entry, self._now_s)
        self._again = later

    # ---- who may run ----

    def _is_held(self) -> bool:
        """Whether the standby file holds everything up; not recursive calls."""
        standby = self.settings.standby_file
        if standby is None or self.collector.whole or not len(self.collector):
            return False
        if self._now_s < self._standby_s:
            self._wake(self._standby_s)
            return True
        if self._around.exists(standby):
            self._standby_s = self._now_s + STANDBY_S
            self._wake(self._standby_s)
            self._announce(State.HOLD_ON)
            return True
        if self.status is State.HOLD_ON:
            self._announce(State.RUNNING if self._initial_done else State.INITSYNC)
        return False

    def _unlocked(self, entries: list[Entry]) -> list[Entry]:
        """Those that no run under way has; the others wait for its end."""
        if self.settings.threading is not Threading.SAFE or not self.running:
            return entries
        busy = overlap(entries, {entry.path: entry for entry in self.running.entries()})
        for entry in entries:
            if entry.path in busy:
                self.collector.queues.add(Queue.LOCKWAIT, entry, self._now_s)
        return [entry for entry in entries if entry.path not in busy]

    def _free_single(self) -> Entry | None:
        singles = self.collector.singles
        if self.settings.threading is not Threading.SAFE or not self.running:
            return singles.popleft()
        busy = {entry.path for entry in self.running.entries()}
        for entry in singles:
            if entry.path not in busy:
                singles.remove(entry)
                return entry
            busy.add(entry.path)  # The order of what happened to one path stays.
        return None

    def _walked(self) -> None:
        self._iterations.walked(singly=self.settings.mode is Mode.SIMPLE)

    def _announce(self, status: State) -> None:
        if status is not self.status:
            self.status = status
            self._around.announce(status)
