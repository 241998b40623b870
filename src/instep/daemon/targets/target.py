"""One target of a mirror: takes what is due from the change log, hands it to the engine, and keeps what failed."""

from __future__ import annotations

import asyncio
import enum
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from instep.core.changelog import ChangeLog, without_covered
from instep.core.retry import WaitingRoom, backoff_s
from instep.core.timing import Spacing
from instep.daemon.targets.deletions import DeletionGuard
from instep.daemon.targets.flights import Flight, Flights
from instep.errors import TargetAway, TargetError
from instep.logs import fields
from instep.model import Batch, Change, Deletions, Outcome
from instep.paths import ROOT, RelPath, Scope
from instep.ports import Attentive, Engine

log = logging.getLogger(__name__)

BATCH_PATHS_MAX = 20_000
AWAY_RETRY_MAX_S = 30.0
PENDING_SEARCHED_MAX = 10_000
NEVER_S = float("inf")

# Python 3.11 takes 0.25 us to get a member from its class.
_LIMITED = Deletions.LIMITED
_ENTRY = Scope.ENTRY


class Index(Protocol):
    """Keeps account of what the target holds."""

    def touch(self, batch: Batch) -> None:
        """A batch is about to begin."""

    def learn(self, outcome: Outcome) -> None:
        """What a batch that has ended saw in the source (``learned``, ``learned_names``)."""

    async def recognises(self, *, known: bool) -> bool:
        """Whether the target, opened again, holds what it held; ``known``: so says the engine."""


class State(enum.Enum):
    """What a target is doing."""

    CLOSED = "closed"
    READY = "ready"
    AWAY = "away"
    FULL = "full"


@dataclass(slots=True)
class Totals:
    """What was done for a target since start."""

    batches: int = 0
    entries: int = 0
    files: int = 0
    bytes_copied: int = 0
    deleted: int = 0


_READY = State.READY


class Target:
    """Drives one engine. Everything runs in the loop's thread; ``kick`` may be called at any time, and often."""

    def __init__(
        self,
        name: str,
        engine: Engine,
        changelog: ChangeLog,
        *,
        spacing_s: float,
        settled: Callable[[], None],
        look: Callable[[], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        claim: Callable[[], None] | None = None,
        stays: bool = True,
    ) -> None:
        """Not yet open.

        Args:
            name: As the operator gave it.
            engine: Brings paths to it.
            changelog: Of the mirror; gets a cursor for this target.
            spacing_s: From the end of one batch to the start of the next.
            settled: Called after each step.
            look: Has the change log filled with what there is to report.
            clock: Monotonic seconds.
            claim: Keeps other daemons away from it, or raises OperatorError.
            stays: The process goes on when all is done, so an operator can tell it something.
        """
        self.name = name
        self.engine = engine
        self.totals = Totals()
        self.state = State.CLOSED
        self.reason = ""
        self.tries = 0
        """How often an away target was tried again in vain."""
        self.room = WaitingRoom()
        self._waiting = self.room.paths  # a live view, asked more cheaply than the room
        self.index: Index | None = None
        self.flushing = False
        self.paused = False
        self.deletions = DeletionGuard(name, stays=stays)
        self.hides: Callable[[RelPath], bool] | None = None
        """Paths that are not to be looked at: what is reported there is passed over."""
        self.unsure: Callable[[], None] | None = None
        """Called when an engine did not find what is mounted in the source as it was to be."""
        self._changelog = changelog
        self.cursor = changelog.add_cursor(self._waiting)
        self._spacing = Spacing(spacing_s)
        self._settled = settled
        self._look = look
        self._clock = clock
        self._claim = claim
        self._flights = Flights()
        self._parked: set[RelPath] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = NEVER_S
        self._reopening: asyncio.Task[None] | None = None
        self._full_tries = 0
        self._full_until_s = 0.0
        self._kicking = False
        if isinstance(engine, Attentive):
            engine.lost = self._lost

    # -- state --------------------------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """It is open, and nothing is pending, being worked on, or waiting for another try."""
        return (
            not self._flights
            and not len(self.room)
            and self._changelog.due_s(self.cursor) is None
            and self.state is State.READY
        )

    @property
    def served(self) -> bool:
        """Everything that can be done for it now is done."""
        if self.state is State.CLOSED:
            return False
        return self.state is not State.READY or self.idle or self.only_failing

    @property
    def only_failing(self) -> bool:
        """Whatever is left has failed at least twice in a row."""
        return (
            not self._flights
            and self._changelog.due_s(self.cursor) is None
            and all(waiter.reason and waiter.attempts > 1 for waiter in self.room.waiters())
        )

    @property
    def working(self) -> bool:
        """Whether batches are under way."""
        return bool(self._flights)

    def pending(self) -> int:
        """Paths not in step, as far as known; a TREE counts as one."""
        in_flight = sum(len(flight.kept) for flight in self._flights if not flight.from_log)
        return self._changelog.pending(self.cursor) + len(self.room) + in_flight

    def claim(self) -> None:
        """Keep others away from it, as far as that can be done before it is open.

        Raises:
            OperatorError: it is kept in step by another daemon.
        """
        if self._claim is not None:
            self._claim()

    async def open(self) -> None:
        """Get the engine ready; a target that is away is tried again from then on.

        Raises:
            OperatorError: it can never work as configured, or is kept in step by another daemon.
        """
        away, known = "", True
        try:
            await self.engine.open()
            if self.index is not None:  # It was believed before anybody could look there.
                known = await self.index.recognises(known=False)
        except TargetAway as error:
            away = str(error)
        self.claim()
        if away:
            self._went_away(away)
            return
        self.state = State.READY
        if not known:
            self.compare_all()
        if self.index is not None:
            self.kick()
            self._settled()

    async def close(self) -> None:
        """Cancel what is under way and let go of the target."""
        if self._timer is not None:
            self._timer.cancel()
        tasks = [flight.task for flight in self._flights if flight.task is not None]
        if self._reopening is not None:
            tasks.append(self._reopening)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.state = State.CLOSED
        await self.engine.close()

    def leftovers(self) -> list[Change]:
        """What waits for another try, or is being worked on."""
        return [waiter.change for waiter in self.room.waiters()] + [
            change for flight in self._flights for change in flight.changes
        ]

    def unsettled(self) -> tuple[set[bytes], set[bytes]]:
        """The paths that are not in step, as far as known, and those of them that cover what is below them."""
        changes = [*self._changelog.unacknowledged(self.cursor), *self.leftovers()]
        return (
            {change.path for change in changes},
            {change.path for change in changes if change.scope is not _ENTRY},
        )

    def compare_all(self) -> None:
        """What it holds is unknown: let all of it be compared at the next kick, without quiet time.

        With it goes all that fails, which the comparison would mend and nobody would hear of.
        """
        now_s = self._clock()
        self.room.hurry(now_s)
        older = self.room.take(ROOT)
        content = older is not None and older.content
        self.room.postponed(Change(ROOT, Scope.TREE, content=content, is_dir=True), now_s)

    def confirm(self) -> bool:
        """Let the deletions that are held be made, by comparing again; False when none are."""
        if not self.deletions.confirm():
            return False
        self.compare_all()
        return True

    def look_again(self, changes: Sequence[Change]) -> None:
        """These names were found to differ here, and only here: bring them in step at the next kick."""
        now_s = self._clock()
        for change in changes:
            older = self.room.take(change.path)
            self.room.postponed(change if older is None else self._merged(change, older), now_s)

    def is_pending(self, path: RelPath) -> bool:
        """Whether anything that would bring this name in step is still to be done, or being done."""
        if self._flights and self._flights.overlap(Change(path)):
            return True
        at, depth = path, 0
        while True:
            for change in (self._changelog.unacknowledged_at(self.cursor, at), self.room.waiting_at(at)):
                if change is not None and (depth == 0 or change.scope >= (Scope.LIST if depth == 1 else Scope.TREE)):
                    return True
            if not at:
                return False
            at, depth = RelPath(at.rpartition(b"/")[0]), depth + 1

    def is_pending_in(self, directory: RelPath) -> bool:
        """The same of any name in this very directory; with very many paths pending they are not searched: True."""
        if self.pending() > PENDING_SEARCHED_MAX:
            return True
        return any(path and path.rpartition(b"/")[0] == directory for path in self.unsettled()[0])

    # -- work ---------------------------------------------------------------------------------------------------

    def kick(self) -> None:
        """Start all batches that are due, and a timer for those that will be."""
        if self.paused or self._kicking:
            return
        self._kicking = True
        try:
            # What is done at once may find the target away or full: then nothing else is started.
            while self.state is _READY and len(self._flights) < self.engine.parallel:
                if ROOT in self._flights.trees:
                    break  # The whole tree is being compared: everything else waits in the log, where it is bounded.
                now_s = self._clock()
                log_s, room_s = self._due(now_s)
                start_s = min(log_s, room_s)
                if start_s > now_s:
                    if start_s != NEVER_S:
                        self._wake_at(start_s)
                    break
                if not self._launch(now_s, from_log=log_s <= now_s):
                    break
                if not self._waiting and not self._changelog.backlog(self.cursor):
                    break  # What the next round would find out, for a third of its cost.
        finally:
            self._kicking = False

    def _due(self, now_s: float) -> tuple[float, float]:
        """From when on something of the log may start, and something of the waiting room."""
        changelog = self._changelog
        log_s = changelog.due_s(self.cursor)
        room_s = self.room.due_s() if self._waiting else None
        if log_s is None:
            log_s = NEVER_S
        elif self.flushing:
            log_s = now_s
        else:
            start_s = self._spacing.start_s(
                now_s=now_s, last_report_s=changelog.last_report_s, pending=changelog.backlog(self.cursor)
            )
            if start_s > log_s:  # noqa: PLR1730  # max() is a call, and this is the hot path
                log_s = start_s
        return log_s, NEVER_S if room_s is None or (self.flushing and room_s > now_s) else room_s

    def _launch(self, now_s: float, *, from_log: bool) -> bool:
        """Take one batch and start it; False when there was nothing to do after all."""
        changelog, cursor, room = self._changelog, self.cursor, self.room
        ticket = 0
        changes: list[Change] = []
        kept: list[Change] = []
        moves: dict[RelPath, RelPath] = {}
        if from_log:
            ticket, taken = changelog.take(cursor, NEVER_S if self.flushing else now_s, BATCH_PATHS_MAX)
            reported = len(taken)
            if reported > 1:
                # Before all else: of a burst most is in new directories, and need not even be parked.
                taken = without_covered(taken, [change.path for change in taken if change.moved_from is not None])
            for change in taken:
                if self._waiting:
                    older = room.take(change.path)
                    if older is not None:
                        change = self._merged(change, older)  # noqa: PLW2901
                        kept.append(change)
                if self._flights and self._flights.overlap(change):
                    self._park(change)
                    continue
                changes.append(change)
                if change.moved_from is not None and change.clean_for & cursor.bit:
                    if self._flights and self._flights.overlap(Change(change.moved_from, Scope.TREE)):
                        continue
                    moves[change.path] = change.moved_from
            self._spacing.started(reported, now_s)
        if self._waiting:
            for change in room.take_due(now_s, BATCH_PATHS_MAX):
                if self._flights and self._flights.overlap(change):
                    self._park(change)
                else:
                    changes.append(change)
                    kept.append(change)
        if self.hides is not None:
            changes = [change for change in changes if not self.hides(change.path)]
            moves = {change.path: moves[change.path] for change in changes if change.path in moves}
            kept = [change for change in kept if not self.hides(change.path)]
        if not changes:
            if from_log:
                changelog.acknowledge(cursor, ticket, ())
            return from_log
        if len(changes) > 1:
            changes = without_covered(changes, moves)
        batch = Batch(tuple(changes), now_s, self.flushing, moves, self.deletions.mode)
        flight = Flight(ticket, batch, kept, from_log=from_log)
        self.totals.batches += 1
        if self.index is not None:
            self.index.touch(batch)
        outcome, rest = self.engine.sync_now(batch)
        if not rest:
            self._land(flight, outcome)
            return True
        # A move that was tried once is not tried again: meanwhile something else may stand under the old name.
        if rest is not batch.changes:
            batch = Batch(tuple(rest), now_s, self.flushing, deletions=batch.deletions)
        self._fly(flight, outcome, batch)
        return True

    def _fly(self, flight: Flight, outcome: Outcome, batch: Batch) -> None:
        """Let the engine work on without holding up the loop; nothing that touches these paths starts meanwhile."""
        flight.reach(batch)
        self._flights.add(flight)
        self.cursor.working.update(change.path for change in flight.kept)
        flight.task = asyncio.get_running_loop().create_task(self._work(flight, outcome, batch))

    async def _work(self, flight: Flight, outcome: Outcome, batch: Batch) -> None:
        try:
            outcome.add(await self.engine.sync(batch))
        except asyncio.CancelledError:
            raise
        except TargetAway as away:
            outcome.away = str(away)
        except Exception:
            # A defect must not end the mirror: the paths stay pending, and the log says where to look.
            log.exception("engine-crashed", extra=fields(target=self.name, now="its paths are tried again"))
            outcome.away = "the engine failed unexpectedly"
        self._flights.remove(flight)
        self.cursor.working.difference_update(change.path for change in flight.kept)
        self._land(flight, outcome)
        if self._look is not None:
            self._look()
        self.kick()
        self._settled()

    def _land(self, flight: Flight, outcome: Outcome) -> None:
        now_s = self._clock()
        self._spacing.ended(now_s)
        room = self.room
        if outcome.held is not None or self.deletions.mode is not _LIMITED:
            again = self.deletions.weigh(flight.changes, flight.deletions, outcome)
            if again:
                self.compare_all()
        if outcome.away or outcome.full:
            if flight.from_log:
                self._changelog.give_back(self.cursor, flight.ticket)
            for change in flight.kept:
                room.postponed(self._with_waiting(change), now_s)
            self._unpark(now_s)
            if outcome.away:
                self._went_away(outcome.away)
            else:
                self._ran_full(str(outcome.full), now_s)
            return
        totals = self.totals
        totals.entries += outcome.entries
        totals.files += outcome.files
        totals.bytes_copied += outcome.bytes_copied
        totals.deleted += outcome.deleted
        if self.index is not None and (outcome.learned_names or outcome.learned):
            self.index.learn(outcome)
        unfinished = self._keep_aside(outcome, now_s) if outcome.failures or outcome.postponed else ()
        if room.any_tried:
            for change in (*flight.changes, *flight.kept):  # Of the latter a TREE may cover some.
                if change.path not in unfinished and room.done(change.path):
                    log.info("path-well-again", extra=fields(target=self.name, path=change.path))
        paths = [change.path for change in flight.changes]
        if flight.from_log:
            self._changelog.acknowledge(self.cursor, flight.ticket, paths)
        else:
            self.cursor.touch(paths)
        if self._full_tries and self.state is State.READY and not outcome.postponed:
            self._full_tries = 0  # It was tried again, and all of it fitted; not only what was small.
            log.info("target-has-space-again", extra=fields(target=self.name))
        if self._parked:
            self._unpark(now_s)
        if log.isEnabledFor(logging.DEBUG):
            log.debug(
                "batch",
                extra=fields(
                    target=self.name, paths=len(flight.changes), entries=outcome.entries, deleted=outcome.deleted
                ),
            )

    def _keep_aside(self, outcome: Outcome, now_s: float) -> set[RelPath]:
        """Put what failed or has to wait into the waiting room; the paths."""
        room = self.room
        unfinished: set[RelPath] = set()
        for failure in outcome.failures:
            path = failure.change.path
            unfinished.add(path)
            if room.failed(self._with_waiting(failure.change), failure.reason, now_s, hard=failure.hard):
                log.warning(
                    "path-failing",
                    extra=fields(
                        target=self.name, path=path, reason=failure.reason, now="tried again with growing pauses"
                    ),
                )
        for postponed in outcome.postponed:
            if postponed.change.path not in unfinished:
                unfinished.add(postponed.change.path)
                room.postponed(self._with_waiting(postponed.change), now_s + postponed.wait_s)
        if outcome.unsure and self.unsure is not None:
            self.unsure()
        return unfinished

    # -- paths that must wait for a flight ------------------------------------------------------------------------

    def _park(self, change: Change) -> None:
        self._parked.add(change.path)
        self.room.postponed(change, NEVER_S)

    def _with_waiting(self, change: Change) -> Change:
        """A change that comes back from a flight, with what waits under its path: the room holds one for both."""
        waiting = self.room.waiting_at(change.path)
        return change if waiting is None else self._merged(waiting, change)

    def _unpark(self, now_s: float) -> None:
        if self._parked:
            for path in self._parked:
                change = self.room.take(path)
                if change is not None:
                    self.room.postponed(change, now_s)
            self._parked.clear()

    @staticmethod
    def _merged(change: Change, older: Change) -> Change:
        """The change that asks for what both ask for. A new one: changes of the log are shared by all targets."""
        merged = Change(
            change.path,
            max(change.scope, older.scope),
            content=change.content or older.content,
            is_dir=change.is_dir,
            now_s=older.first_s,
        )
        merged.last_s = change.last_s
        return merged

    # -- a target in trouble --------------------------------------------------------------------------------------

    def _lost(self, why: str) -> None:
        """The engine noticed it by itself: opened again now, it need not wait for the next change."""
        if self.state in (State.READY, State.FULL):
            self._went_away(why)

    def _went_away(self, why: str) -> None:
        if self.state is State.AWAY:
            return
        self.state, self.reason = State.AWAY, why
        log.warning(
            "target-away",
            extra=fields(
                target=self.name, reason=why, now="changes stay pending; it is tried again with growing pauses"
            ),
        )
        self._reopening = asyncio.get_running_loop().create_task(self._reopen())

    async def _reopen(self) -> None:
        self.tries = 0
        known, refusal = True, ""
        while True:
            self.tries += 1
            self._settled()
            await asyncio.sleep(min(AWAY_RETRY_MAX_S, backoff_s(self.tries, self.name.encode())))
            await self._flights.landed()
            try:
                known = await self.engine.open() and known
                if self._claim is not None:
                    # It may be another directory by now, and that one taken; an end of orphans takes seconds.
                    await asyncio.to_thread(self._claim)
                if self.index is not None:
                    known = await self.index.recognises(known=known)
            except TargetAway as away:
                self.reason = str(away)
                continue
            except TargetError as refused:
                if refused.what != refusal:
                    refusal = refused.what
                    log.error(  # noqa: TRY400  # the operator's to mend, not ours
                        "target-refused",
                        extra=fields(
                            target=self.name,
                            reason=refused.what,
                            now="changes stay pending; it is tried again with growing pauses",
                            fix=refused.fix,
                        ),
                    )
                self.reason = refused.what
                continue
            except Exception:
                log.exception("engine-crashed", extra=fields(target=self.name, now="tried again"))
                continue
            break
        self.state, self.reason, self.tries = State.READY, "", 0
        self._reopening = None
        if not known:
            self.compare_all()
        self.room.hurry(self._clock())
        log.warning("target-back", extra=fields(target=self.name, pending=self.pending(), compared_anew=not known))
        self.kick()
        self._settled()

    def _ran_full(self, why: str, now_s: float) -> None:
        if self.state is not State.READY:
            return  # Another batch has said so already, or it is away by now.
        self._full_tries += 1
        if self._full_tries == 1:
            log.error(
                "target-full",
                extra=fields(
                    target=self.name, reason=why, now="changes stay pending; tried again", fix="make room at the target"
                ),
            )
        self.state, self.reason = State.FULL, why
        self._full_until_s = now_s + min(AWAY_RETRY_MAX_S, backoff_s(self._full_tries))
        self._wake_at(self._full_until_s)

    # -- timer ----------------------------------------------------------------------------------------------------

    def _wake_at(self, when_s: float) -> None:
        if self._timer is not None:
            if self._timer_s <= when_s:
                return
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer_s = when_s
        self._timer = loop.call_later(max(0.0, when_s - self._clock()), self._woken)

    def _woken(self) -> None:
        self._timer = None
        self._timer_s = NEVER_S
        if self.state is State.FULL:
            if self._clock() < self._full_until_s:
                self._wake_at(self._full_until_s)  # It was set for something else, before the target ran full.
                return
            self.state = State.READY
        self.kick()
        self._settled()
