"""What a row is given, and the list of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks.places import Place
from benchmarks.table import Line


@dataclass(frozen=True, slots=True)
class Bench:
    """The conditions of this run."""

    places: list[Place]
    rounds: int
    quick: bool

    def size(self, full: int, quick: int) -> int:
        """How much work: the issue's figure, or enough to see that the row works."""
        return quick if self.quick else full

    def patience_s(self, full_s: float) -> float:
        """How long a tool is waited for that may never get there: less where there is little to do."""
        return min(full_s, 5.0) if self.quick else full_s


@dataclass(frozen=True, slots=True)
class Row:
    """One or more lines of the table that are measured together."""

    name: str
    title: str
    measure: Callable[[Bench], Iterator[Line]]


ROWS: dict[str, Row] = {}


def row(name: str, title: str) -> Callable[[Callable[[Bench], Iterator[Line]]], Callable[[Bench], Iterator[Line]]]:
    """Register a function that measures; its lines appear as they are yielded."""

    def register(measure: Callable[[Bench], Iterator[Line]]) -> Callable[[Bench], Iterator[Line]]:
        assert name not in ROWS
        ROWS[name] = Row(name, title, measure)
        return measure

    return register
