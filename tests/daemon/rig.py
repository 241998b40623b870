"""Targets between a real change log and an engine that does as told, on a clock that only jumps."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from instep.core.changelog import ChangeLog
from instep.daemon.targets.target import Target
from instep.errors import TargetAway
from instep.model import Batch, Change, Failure, Landmarks, Outcome, Postponed, Progress, Report
from instep.paths import ROOT, RelPath, Scope

PATIENCE_S = 2000.0


class JumpingLoop(asyncio.SelectorEventLoop):
    """A loop in which waiting takes no time: its clock jumps to the next timer."""

    def __init__(self) -> None:
        super().__init__(_Jump(self))
        self.now_s = 1000.0

    def time(self) -> float:
        return self.now_s


class _Jump(selectors.SelectSelector):
    def __init__(self, loop: JumpingLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "everything waits, and no timer is set"
        self._loop.now_s += timeout
        return super().select(0)


def jump(test: Callable[[], Any]) -> None:
    """Run a coroutine function on a jumping clock."""
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        runner.run(test())


@dataclass
class Behaviour:
    """What the engine does with one batch."""

    at_once: int = 0
    """So many changes are done in ``sync_now``, the rest in ``sync``."""
    takes_s: float = 0.0
    fails: int = 0
    """So many changes, from the end of the batch, fail."""
    postponed: int = 0
    """So many more, before those, are put off."""
    unsure: bool = False
    """That is why they are."""
    away: bool = False
    raises: bool = False
    full: bool = False
    crashes: bool = False


@dataclass
class Done:
    """One change that an engine brought in step, by its batch's own word."""

    path: RelPath
    scope: Scope
    content: bool
    began: int
    """The number of reports there were when the batch began."""


@dataclass
class TellingEngine:
    """Does what its behaviours say, then everything at once; checks that no two batches get in each other's way."""

    behaviours: list[Behaviour] = field(default_factory=list)
    parallel: int = 3
    name: str = "telling"
    progress: Progress = field(default_factory=Progress)
    reports: int = 0
    batches: list[Batch] = field(default_factory=list)
    starts_s: list[float] = field(default_factory=list)
    done: list[Done] = field(default_factory=list)
    open_fails: int = 0
    knows: bool = True
    opened: int = 0
    _in_air: dict[int, set[bytes]] = field(default_factory=dict)
    _trees: dict[int, set[bytes]] = field(default_factory=dict)
    _next: tuple[Behaviour, Outcome, int] = field(default_factory=lambda: (Behaviour(), Outcome(), 0))

    async def open(self) -> bool:
        self.opened += 1
        if self.opened > 1 and self.open_fails:
            self.open_fails -= 1
            raise TargetAway("still not there")
        return self.knows

    def prepare(self) -> None:
        """Nothing takes long."""

    async def landmarks(self) -> Landmarks | None:
        return None

    def flush(self) -> None:
        """There is no disk."""

    def distrust(self, changes: Sequence[Change]) -> None:
        """Nor what could be lost on the way to it."""

    async def close(self) -> None:
        assert not self._in_air

    def sync_now(self, batch: Batch) -> tuple[Outcome, Sequence[Change]]:
        behaviour = self.behaviours.pop(0) if self.behaviours else Behaviour(at_once=1 << 30)
        changes = batch.changes
        self._check_apart(batch)
        self.batches.append(batch)
        self.starts_s.append(batch.now_s)
        outcome = Outcome()
        some = len(changes) - behaviour.fails
        outcome.failures = [Failure(change, "told to") for change in changes[max(0, some) :]]
        put_off = changes[max(0, some - behaviour.postponed) : max(0, some)]
        outcome.postponed = [Postponed(change, 2.0) for change in put_off]
        outcome.unsure = behaviour.unsure
        if behaviour.full:
            outcome.full = "no space"
        if behaviour.away:
            outcome.away = "gone"
        rest = changes[behaviour.at_once :]
        if not rest:
            self._note_done(batch, outcome, self.reports)
            return outcome, ()
        self._next = (behaviour, outcome, self.reports)
        self._fly(batch, rest)
        # As an engine does: the very same sequence when it has not touched any.
        return Outcome(), rest if behaviour.at_once else changes

    def sync(self, batch: Batch) -> Any:
        return self._sync(batch, *self._taken(batch))

    async def _sync(self, batch: Batch, whole: Batch, behaviour: Behaviour, outcome: Outcome, began: int) -> Outcome:
        number = id(whole)
        try:
            await asyncio.sleep(behaviour.takes_s)
            if behaviour.crashes:
                raise ValueError("told to")
            if behaviour.raises:
                raise TargetAway("gone in the middle")
            self._note_done(whole, outcome, began)
            return outcome
        finally:
            del self._in_air[number], self._trees[number], self._flying[number]

    # -- who is where --------------------------------------------------------------------------------------------

    def __post_init__(self) -> None:
        self._flying: dict[int, tuple[Batch, Behaviour, Outcome, int]] = {}

    def _fly(self, batch: Batch, rest: Sequence[Change]) -> None:
        number = id(batch)
        self._flying[number] = (batch, *self._next)
        moved = batch.moves.values() if len(rest) == len(batch.changes) else ()
        self._in_air[number] = {*(change.path for change in rest), *moved}
        self._trees[number] = {*(change.path for change in rest if change.scope is not Scope.ENTRY), *moved}

    def _taken(self, batch: Batch) -> tuple[Batch, Behaviour, Outcome, int]:
        first = batch.changes[0].path
        (number,) = [number for number, paths in self._in_air.items() if first in paths]
        return self._flying[number]

    def _check_apart(self, batch: Batch) -> None:
        ours = {change.path: change.scope is not Scope.ENTRY for change in batch.changes}
        ours |= dict.fromkeys(batch.moves.values(), True)
        for number, paths in self._in_air.items():
            for theirs in paths:
                for path, tree in ours.items():
                    assert path != theirs
                    assert not _above(path, theirs), "it may be removed, or replaced"
                    assert not (_above(theirs, path) and theirs in self._trees[number])
                    assert not (tree and _above(path, theirs))

    def _note_done(self, batch: Batch, outcome: Outcome, began: int) -> None:
        if outcome.away or outcome.full:
            return
        unfinished = {failure.change.path for failure in outcome.failures}
        unfinished |= {postponed.change.path for postponed in outcome.postponed}
        self.done += [
            Done(change.path, change.scope, change.content, began)
            for change in batch.changes
            if change.path not in unfinished
        ]


def _above(path: bytes, below: bytes) -> bool:
    return path != below and (not path or below.startswith(path + b"/"))


class Mirrored:
    """A change log with some targets; what a mirror does with reports."""

    def __init__(self, *engines: TellingEngine, quiet_s: float = 0.0, spacing_s: float = 0.0) -> None:
        self.loop = asyncio.get_running_loop()
        self.changelog = ChangeLog(quiet_s=quiet_s, hold_s=10.0)
        self.unread: list[Report] = []
        """What a monitor would give at the next look."""
        self.engines = engines
        self.targets = [
            Target(
                f"target{number}",
                engine,
                self.changelog,
                spacing_s=spacing_s,
                settled=lambda: None,
                look=self._look,
                clock=self.loop.time,
            )
            for number, engine in enumerate(engines)
        ]
        self.reported: list[Report] = []

    async def open(self) -> None:
        for target in self.targets:
            await target.open()

    def report(self, *reports: Report) -> None:
        for report in reports:
            self.changelog.note(report, self.loop.time())
            self.reported.append(report)
            for engine in self.engines:
                engine.reports += 1
        for target in self.targets:
            target.kick()

    def _look(self) -> None:
        unread, self.unread = self.unread, []
        if unread:
            self.report(*unread)

    def dirty(self, *paths: bytes) -> None:
        self.report(*(Report(RelPath(path)) for path in paths))

    async def rest(self) -> None:
        """Wait until everything is in step everywhere."""
        end_s = self.loop.time() + PATIENCE_S
        while not all(target.idle for target in self.targets):
            assert self.loop.time() < end_s, [target.leftovers() for target in self.targets]
            await asyncio.sleep(0.5)

    async def close(self) -> None:
        for target in self.targets:
            await target.close()

    def owed(self, engine: TellingEngine) -> list[Report]:
        """Reports that were never followed by a finished sync that does as much as they ask for."""
        last: dict[RelPath, tuple[int, Scope, bool]] = {}
        for number, report in enumerate(self.reported):
            _need(last, report.path, number, report.scope, report.content)
            if report.moved_from is not None:
                _need(last, report.moved_from, number, Scope.TREE, content=True)
        return [
            Report(path, scope, content)
            for path, (number, scope, content) in last.items()
            if not any(_covers(done, path, scope, content) for done in engine.done if done.began > number)
        ]


def _need(
    last: dict[RelPath, tuple[int, Scope, bool]], path: RelPath, number: int, scope: Scope, content: bool
) -> None:
    last[path] = (number, scope, content)


def _covers(done: Done, path: RelPath, scope: Scope, content: bool) -> bool:
    if content and not done.content:
        return False
    if done.path == path:
        return done.scope >= scope
    return done.scope is Scope.TREE and _above(done.path, path)


def paths_of(batches: Iterable[Batch]) -> list[list[bytes]]:
    """The paths of each batch."""
    return [[bytes(change.path) for change in batch.changes] for batch in batches]


EVERYTHING = Report(ROOT, Scope.TREE, content=False, is_dir=True)
