"""Figures, what they have to keep to, and how they are shown."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table

from benchmarks.measure import NEVER, median

OURS = "instep"
PEERS = ("lsyncd", "lsyncd, kept ssh", "clsync", "rsync", "cp -a", "tar")


@dataclass(frozen=True, slots=True)
class Reach:
    """What a figure of instep has to keep to: ``limit`` in the line's unit, or times the figure of a peer."""

    limit: float
    of: str | None = None
    at_least: bool = False

    def kept(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit

    def __str__(self) -> str:
        sign = "≥" if self.at_least else "≤"
        return f"{sign} {_factor(self.limit)} {self.of}" if self.of else f"{sign} {number(self.limit)}"


@dataclass(slots=True)
class Line:
    """One figure, measured once per round for each tool."""

    title: str
    unit: str
    place: str = ""
    samples: dict[str, list[float]] = field(default_factory=dict)
    reaches: tuple[Reach, ...] = ()
    note: str = ""

    def add(self, tool: str, value: float) -> None:
        self.samples.setdefault(tool, []).append(value)

    def figure(self, tool: str) -> float | None:
        """The median of the rounds."""
        values = self.samples.get(tool)
        return median(values) if values else None

    def ratio(self, other: str) -> float | None:
        """Ours to the other's, as the median over the rounds: rounds are neighbours in time, so noise hits both."""
        ours, theirs = self.samples.get(OURS), self.samples.get(other)
        if not ours or not theirs:
            return None
        if len(ours) != len(theirs):
            return _divide(median(ours), median(theirs))
        return median([_divide(a, b) for a, b in zip(ours, theirs, strict=True)])

    def verdicts(self) -> list[tuple[Reach, float, bool]]:
        """Each reach with the figure it is about; those that could not be measured are left out."""
        found: list[tuple[Reach, float, bool]] = []
        for reach in self.reaches:
            value = self.ratio(reach.of) if reach.of else self.figure(OURS)
            if value is not None:
                found.append((reach, value, reach.kept(value)))
        return found


def _divide(a: float, b: float) -> float:
    if b == NEVER:
        return 0.0 if a != NEVER else 1.0
    return a / b if b else (1.0 if a == 0 else math.inf)


def number(value: float) -> str:
    """Three digits that count."""
    if value == NEVER:
        return "never"
    if value == 0 or value >= 100:
        return f"{value:,.0f}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def _factor(value: float) -> str:
    """A ratio: 1/15 reads better than 0.0667."""
    return f"1/{1 / value:.3g}" if 0 < value < 0.3 else f"{value:.2f} ×"


def _verdict(line: Line) -> str:
    return "; ".join(
        f"{reach}: {_factor(value) if reach.of else number(value)} {'✓' if kept else '✗'}"
        for reach, value, kept in line.verdicts()
    )


def _columns(lines: list[Line]) -> list[str]:
    return [tool for tool in (OURS, *PEERS) if any(tool in line.samples for line in lines)]


def _cells(line: Line, tools: list[str]) -> list[str]:
    figures = [line.figure(tool) for tool in tools]
    return [line.title, line.place, line.unit, *("" if value is None else number(value) for value in figures)]


def brief(line: Line) -> str:
    """One figure on one line, for while the rest is being measured."""
    figures = ", ".join(f"{tool} {number(line.figure(tool) or 0.0)}" for tool in line.samples)
    verdict = _verdict(line)
    return f"{line.title} ({line.place}), {line.unit}: {figures}" + (f"  [{verdict}]" if verdict else "")


def show(lines: list[Line], console: Console) -> None:
    """One table for a terminal."""
    tools = _columns(lines)
    table = Table(show_lines=False, header_style="bold")
    for name in ("what", "where", "unit"):
        table.add_column(name)
    for tool in tools:
        table.add_column(tool, justify="right")
    table.add_column("reach: seen")
    for line in lines:
        missed = any(not kept for _, _, kept in line.verdicts())
        table.add_row(*_cells(line, tools), _verdict(line), style="red" if missed else None)
    console.print(table)
    for line in lines:
        if line.note:
            console.print(f"{line.title} ({line.place}): {line.note}", style="dim", highlight=False)


def markdown(lines: list[Line], facts: list[str]) -> str:
    """The same as a page for the documentation."""
    tools = _columns(lines)
    head = ["what", "where", "unit", *tools, "reach: seen"]
    out = ["# Benchmarks", "", "Made by `make bench`; every figure is measured, medians of rounds in turn.", ""]
    out += [f"- {fact}" for fact in facts]
    out += ["", "| " + " | ".join(head) + " |", "| " + " | ".join(["---"] * 3 + ["---:"] * len(tools) + ["---"]) + " |"]
    out += ["| " + " | ".join([*_cells(line, tools), _verdict(line)]) + " |" for line in lines]
    notes = [f"- {line.title} ({line.place}): {line.note}" for line in lines if line.note]
    if notes:
        out += ["", *notes]
    return "\n".join(out) + "\n"


def as_json(lines: list[Line], facts: list[str]) -> str:
    """The same for machines, each round's figure included."""
    rows = [
        {
            "title": line.title,
            "place": line.place,
            "unit": line.unit,
            "samples": {tool: [None if v == NEVER else v for v in values] for tool, values in line.samples.items()},
            "reaches": [{"reach": str(reach), "seen": value, "kept": kept} for reach, value, kept in line.verdicts()],
            "note": line.note,
        }
        for line in lines
    ]
    return json.dumps({"facts": facts, "lines": rows}, indent=1)
