"""Runs under way: what each has done and still has to do, when it is tried again, and when it is interrupted."""

from __future__ import annotations

import enum
import math
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from instep.frontends.clsync.entries import Entry
from instep.frontends.clsync.runs import Part
from instep.model import Bring, Interrupt, Program, Work

PATIENCE_S: Final = 5.0
"""How long a handler that was asked to end may take before it is killed. Guessed."""


class Kind(enum.Enum):
    """What a run is for."""

    EVENTS = enum.auto()
    SINGLE = enum.auto()
    HOOK = enum.auto()


@dataclass(slots=True)
class Run:
    """Work under way, or waiting for another try."""

    number: int
    kind: Kind
    entries: list[Entry]
    parts: deque[Part]
    began_s: float
    tries: int = 0
    again_s: float = math.inf
    """When the next try, or the next part, begins; infinity while one is under way."""
    interrupted: bool = False
    last: bool = False
    """There is no time for more tries than this one."""

    @property
    def command(self) -> Sequence[bytes]:
        """The words of the program; none for what is no program."""
        work = self.parts[0].work if self.parts else None
        return work.argv if isinstance(work, Program) else ()

    @property
    def is_engines(self) -> bool:
        """Its work is an engine's: there is nobody to be asked to end."""
        return bool(self.parts) and isinstance(self.parts[0].work, Bring)

    @property
    def left(self) -> list[Entry]:
        """What the parts that are not done were to tell."""
        covered = {entry.path for part in self.parts for entry in part.entries}
        return [entry for entry in self.entries if entry.path in covered]


class Running:
    """All runs under way, by number."""

    def __init__(self) -> None:
        self._runs: dict[int, Run] = {}
        self._interrupts: list[tuple[float, int, int]] = []  # when, which run, signal
        self._number = 0

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[Run]:
        return iter(list(self._runs.values()))

    def __getitem__(self, number: int) -> Run:
        return self._runs[number]

    def begin(self, kind: Kind, entries: list[Entry], parts: Sequence[Part], now_s: float) -> Run:
        """One more, whose first part is to be begun now."""
        self._number += 1
        run = self._runs[self._number] = Run(self._number, kind, entries, deque(parts), now_s, again_s=now_s)
        return run

    def over(self, run: Run) -> None:
        """It has ended."""
        del self._runs[run.number]

    def entries(self) -> Iterator[Entry]:
        """What all of them tell."""
        for run in self._runs.values():
            yield from run.entries

    def interrupt(self, run: Run, at_s: float, number: int) -> None:
        """Send it a signal then, and kill it if it does not end."""
        self._interrupts.append((at_s, run.number, number))
        self._interrupts.append((at_s + PATIENCE_S, run.number, signal.SIGKILL))

    def kill(self, now_s: float) -> None:
        """Kill all of them; there are no more tries."""
        for run in self._runs.values():
            run.last = True
            self._interrupts.append((now_s, run.number, signal.SIGKILL))

    def due(self, now_s: float) -> list[tuple[int, Work]]:
        """What is to be begun or interrupted now."""
        out: list[tuple[int, Work]] = []
        later = []
        for at_s, number, signum in self._interrupts:
            run = self._runs.get(number)
            if run is None:
                continue
            if at_s > now_s:
                later.append((at_s, number, signum))
            elif run.again_s == math.inf:
                run.interrupted = True
                out.append((number, Interrupt(number, signum)))
        self._interrupts = later
        for run in self._runs.values():
            if run.again_s <= now_s:
                run.again_s = math.inf
                out.append((run.number, run.parts[0].work))
        return out

    def wake_s(self) -> float:
        """When there is something due next; infinity: when something has ended."""
        interrupts = (at_s for at_s, _, _ in self._interrupts)
        return min((*interrupts, *(run.again_s for run in self._runs.values())), default=math.inf)
