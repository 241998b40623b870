"""The pipeline without a process: time is a number, the tree is a dictionary, and programs end when they are told to."""

from __future__ import annotations

import heapq
import itertools
import math
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from instep.frontends.clsync.entries import Entry
from instep.frontends.clsync.handler import ClsyncHandler, Surroundings
from instep.frontends.clsync.output import Say
from instep.frontends.clsync.rules import ALL, Rules, parse
from instep.frontends.clsync.runs import Excluded, Part
from instep.frontends.clsync.settings import Mode, Settings
from instep.linux.inotify import IN_CREATE
from instep.model import Batch, Bring, Change, EventReport, Interrupt, Program, ProgramEnd, Work
from instep.paths import RelPath, Scope

STEP_S = 0.001


def settings(mode: Mode = Mode.SHELL, **given: Any) -> Settings:
    return Settings(b"/watched", mode, b"handler", (), None, default_arguments=True, **given)


def event(path: bytes, mask: int, *, is_dir: bool = False, moved_from: bytes | None = None) -> EventReport:
    old = None if moved_from is None else RelPath(moved_from)
    report = EventReport(RelPath(path), Scope.ENTRY, is_dir=is_dir, moved_from=old)
    report.mask = mask
    return report


class PretendedTree:
    """Names, each with what it is; a directory has None for its size."""

    def __init__(self, **names: int | None) -> None:
        self.names: dict[bytes, int | None] = {name.encode(): size for name, size in names.items()}

    def look(self, path: RelPath) -> os.stat_result | None:
        if path and path not in self.names:
            return None
        size = self.names.get(path) if path else None
        mode = stat.S_IFDIR if size is None else stat.S_IFREG
        return os.stat_result((mode, 0, 1, 1, 0, 0, size or 0, 0, 0, 0))

    def listed(self, path: RelPath) -> Sequence[tuple[bytes, bool]]:
        found = [(name, size is None) for name, size in self.names.items() if name.rpartition(b"/")[0] == path]
        return sorted((name.rpartition(b"/")[2], is_dir) for name, is_dir in found)


class OneProgramEach:
    """Instead of ``Runs``: a run is one program, whose words are its paths; or several, a path each."""

    tells_singly = False
    leaves_mounts = False

    def __init__(self, part_max: int = 1_000_000) -> None:
        self.part_max = part_max
        self.by_engine = False
        """Batches for an engine in the place of programs."""
        self.told: list[tuple[int | None, str]] = []

    def change(self, settings: Settings) -> None:
        pass

    def follow(self, rules: Rules) -> None:
        pass

    def of(
        self, entries: Sequence[Entry], excluded: Sequence[Excluded] = (), *, iteration: int | None, status: str
    ) -> list[Part]:
        self.told.append((iteration, status))
        return [
            Part(self._work(some), some)
            for some in (entries[at : at + self.part_max] for at in range(0, len(entries), self.part_max))
        ]

    def _work(self, entries: Sequence[Entry]) -> Program | Bring:
        if self.by_engine:
            return Bring(Batch(tuple(Change(entry.path) for entry in entries), 0.0))
        return Program(tuple(entry.path for entry in entries))


class Simulation:
    """Drives one handler. ``runs``: when each work began, and its words."""

    def __init__(
        self,
        given: Settings,
        *,
        tree: PretendedTree | None = None,
        rules: bytes | None = None,
        takes_s: float = 0.0,
        ends: Callable[[Any], ProgramEnd] = lambda _: ProgramEnd(0),
        part_max: int = 1_000_000,
    ) -> None:
        self.runs: list[tuple[float, tuple[bytes, ...]]] = []
        self.interrupts: list[tuple[float, int]] = []
        self.statuses: list[str] = []
        self.standby = False
        self.now_s = 0.0
        self.made = OneProgramEach(part_max)
        self.read_rules: Callable[[Settings], Rules] = lambda _: ALL
        self.blocks: dict[str, dict[str, Any]] = {}
        self.dumps: list[bytes] = []
        self.drained = True
        self.at_once = 0
        self._takes_s = takes_s
        self._ends = ends
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._under_way: dict[int, Program | Bring] = {}
        around = Surroundings(
            tree=tree or PretendedTree(),
            say=Say(),
            announce=lambda state: self.statuses.append(state.value),
            ready=lambda: None,
            is_own=lambda _: False,
            exists=lambda _: self.standby,
            read_rules=lambda now: self.read_rules(now),  # noqa: PLW0108  # it is replaced by tests
            read_block=lambda now, block: replace(now, **self.blocks[block]),
            changed=lambda _: None,
            dump=lambda _, path: self.dumps.append(path),
        )
        found = ALL if rules is None else parse(rules, "rules")
        self.handler = ClsyncHandler(given, found, self.made, around)

    def at(self, at_s: float, do: Callable[[], None]) -> None:
        """Put something on the agenda."""
        heapq.heappush(self._agenda, (at_s, next(self._order), do))

    def event(self, at_s: float, path: bytes, mask: int = IN_CREATE, **more: Any) -> None:
        """An event to come."""
        self.at(at_s, lambda: self._note(event(path, mask, **more)))

    def signal(self, at_s: float, number: int) -> None:
        """A signal to come."""
        self.at(at_s, lambda: self.handler.signalled(number, self.now_s))

    def run(self, until_s: float = 1000.0) -> list[float]:
        """Let time pass; when each work began."""
        self.handler.started(self.now_s)
        while True:
            self._act()
            if self.handler.exit_status is not None:
                break
            wake_s = self.handler.wake_s()
            next_s = min(self._agenda[0][0] if self._agenda else math.inf, math.inf if wake_s is None else wake_s)
            if next_s > until_s:
                break
            self.now_s = max(self.now_s, next_s)
            while self._agenda and self._agenda[0][0] <= self.now_s:
                heapq.heappop(self._agenda)[2]()
        return [began_s for began_s, _ in self.runs]

    @property
    def paths(self) -> list[list[bytes]]:
        """What each run told, in order."""
        return [sorted(words) for _, words in self.runs]

    def _note(self, report: EventReport) -> None:
        self.handler.note(0, report, self.now_s)

    def _act(self) -> None:
        for number, work in self.handler.due(self.now_s, drained=self.drained):
            self._begin(number, work)

    def _begin(self, number: int, work: Work) -> None:
        if isinstance(work, Interrupt):
            self.interrupts.append((self.now_s, work.signal))
            if self._under_way.pop(number, None) is not None:
                self.handler.finished(number, ProgramEnd(128 + work.signal, signal=work.signal), self.now_s)
                self.at(self.now_s, lambda: None)
            return
        assert isinstance(work, (Program, Bring))
        words = work.argv if isinstance(work, Program) else tuple(change.path for change in work.batch.changes)
        self.runs.append((self.now_s, words))
        self._under_way[number] = work
        self.at_once = max(self.at_once, len(self._under_way))
        self.at(self.now_s + self._takes_s, lambda: self._end(number))

    def _end(self, number: int) -> None:
        work = self._under_way.pop(number, None)
        if work is not None:
            self.handler.finished(number, self._ends(work), self.now_s)
