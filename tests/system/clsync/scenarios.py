"""Command lines with what both programs tell a handler for them, and where they differ.

What is told is written as words, one for each path or line, in any order:

- ``MASK:PATH`` in modes simple and shell, the masks of one path OR-ed (``*`` where they depend on who was faster);
- ``PATH`` in mode direct, and in mode shell without masks; the watched directory is ``.``;
- ``+LINE`` and ``-LINE`` for the lines of rsync's include and exclude lists;
- ``(WORD,WORD)``: the handler's arguments, where these are not paths.

Names that begin with ``zz`` are the tests' own: the last thing that happens in each step.
"""

from __future__ import annotations

import functools
import itertools
import operator
import shlex
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tests.original_clsync import TRIES, is_installed
from tests.system.clsync.programs import OURS, THEIRS, Clsync, Desk, Told

AT_ONCE = 12
"""Most of the time each waits for its delays."""


@dataclass(frozen=True)
class Differs:
    """Where the original tells something else."""

    why: str
    """B-number, or row of docs/clsync.md."""
    step: int = 0
    ours: str = ""
    """Words that only we tell."""
    theirs: str = ""
    """Words that only the original tells."""


@dataclass(frozen=True)
class Scenario:
    """One command line."""

    name: str
    options: str
    """With those that all have: watch-dir, handler, delays of a second, label ``test``."""
    told: Sequence[str]
    """For the initial sync, for each step, and for what comes after; words of a step that is not there tell nothing."""
    steps: Sequence[str] = ()
    """Shell scripts, run in the tree one after the other, each when the one before was told."""
    tree: str = "mkdir d; touch a d/b"
    arguments: str = ""
    then: str = ""
    """What the handler does in the end, in shell."""
    files: Mapping[str, str] = field(default_factory=dict)
    """To be made beside the tree."""
    ends: int | None = None
    """The exit status where it is to end by itself, or after ``signals``."""
    original_ends: int | None = None
    """The same of the original, where that is another."""
    last: str = ""
    """A script for which nothing is waited."""
    signal: int = 0
    """To be sent after that."""
    runs: int = 0
    """How often the handler is run in all; 0: not looked at."""
    original_runs: int = 0
    fast: str = ""
    """Names whose masks depend on who was faster: the beginnings of their paths."""
    may: str = ""
    """Words that may be told in any step, or not."""
    original: bool = True
    """Whether the original does it: not where what it does is a matter of luck."""
    needs_root: bool = False
    after: str = ""
    """A script that cleans up."""
    differs: Sequence[Differs] = ()
    sentinel: str = "zz"
    """The step's number is put behind; the last thing that happens in each step."""


@dataclass
class Outcome:
    """What one program did."""

    told: list[set[str]]
    status: int | None
    runs: int
    output: str


def play(scenario: Scenario, top: Path, program: Sequence[str]) -> Outcome:
    """Run one scenario with one program."""
    desk = Desk(top, tree=scenario.tree + "\ntouch zz0", then=scenario.then)
    for name, text in scenario.files.items():
        (top / name).write_text(text)
    words = shlex.split(f"-W@/src -S@/handler -w1 -t1 -ltest {scenario.options}")
    if scenario.arguments:
        words += ["--", *shlex.split(scenario.arguments)]
    process = Clsync(desk, words, program=program)
    try:
        return _play(scenario, desk, process)
    finally:
        process.kill()
        if scenario.after:
            desk.sh(scenario.after)


def _play(scenario: Scenario, desk: Desk, process: Clsync) -> Outcome:
    status = None
    if scenario.ends is not None and not scenario.steps and not scenario.signal:
        status = process.ended()
        bounds = [len(desk.told())]
    else:
        bounds = [0]
        if scenario.told[0] and "--skip-initialsync" not in scenario.options:
            is_simple = "-Msimple" in scenario.options
            process.runs(len(scenario.told[0].split()) + 1 if is_simple else 1)
            bounds = [len(desk.told())]
        else:
            process.watching()
        for number, step in enumerate(scenario.steps, 1):
            name = f"{scenario.sentinel}{number}"
            if "-Msimple" in scenario.options:
                desk.sh(f"{step}\ntouch {name}")
                process.tells(name)
                # What is found in new directories may be told behind that.
                desk.sh(f"touch {name}-end")
                closed = ("8", f"@/src/{name}-end")
                process.wait(lambda: desk.told()[-1].words[2:] == closed, "the last event of the step")  # noqa: B023
            else:
                with process.asleep():  # A step is to be one run, not as many as the machine is slow.
                    desk.sh(f"{step}\ntouch {name}")
                process.tells(name)
            bounds.append(len(desk.told()))
        desk.sh(scenario.last)
        if scenario.signal:
            process.process.send_signal(scenario.signal)
        if scenario.ends is not None:
            status = process.ended()
    told = desk.told()
    if bounds[-1] < len(told):
        bounds.append(len(told))
    parts = [told[begin:end] for begin, end in zip([0, *bounds], bounds, strict=False)]
    return Outcome([words_of(part, scenario) for part in parts], status, len(told), process.text())


def words_of(runs: Sequence[Told], scenario: Scenario) -> set[str]:
    """What these runs told."""
    masks: dict[str, list[int]] = {}
    words: set[str] = set()
    for run in runs:
        if run.include or run.exclude or "LIST" in run.words:
            words.add(f"({','.join(run.words)})")
            for line in run.include:
                if line.startswith("sync test "):
                    mask, _, path = line.removeprefix("sync test ").partition(" ")
                    masks.setdefault(path or ".", []).append(int(mask))
                else:
                    words.add(f"+{line}" if run.words[0] in ("rsynclist", "-aH") else line or ".")
            words |= {f"-{line}" for line in run.exclude}
        elif run.words[:2] == ("sync", "test") and len(run.words) == 4:
            path = run.words[3].removeprefix("@/src").lstrip("/") or "."
            masks.setdefault(path, []).append(int(run.words[2]))
        elif "%INCLUDE-LIST%" in scenario.arguments or not scenario.arguments:
            words |= {f"({','.join(run.words)})"} if run.words[0] == "initialsync" else {*run.words} - {"@/dst/"}
        else:
            words.add(f"({','.join(run.words)})")
    for path, some in masks.items():
        is_fast = any(path.startswith(name) for name in scenario.fast.split())
        words.add(f"{'*' if is_fast else functools.reduce(operator.or_, some)}:{path}")
    return {word for word in words if "zz" not in word}


def _wrong(scenario: Scenario, outcome: Outcome, *, original: bool) -> list[str]:
    expected = [set(told.split()) for told in scenario.told]
    status, runs = scenario.ends, scenario.runs
    if original:
        for each in scenario.differs:
            expected[each.step] = (expected[each.step] - set(each.ours.split())) | set(each.theirs.split())
        status = status if scenario.original_ends is None else scenario.original_ends
        runs = scenario.original_runs or runs
    wrong = []
    may = set(scenario.may.split())
    nothing: set[str] = set()
    for step, (want, got) in enumerate(itertools.zip_longest(expected, outcome.told, fillvalue=nothing)):
        if (want ^ got) - may:
            wrong.append(f"step {step}: not told {sorted(want - got)}, but told {sorted(got - want)}")
    if status != outcome.status:
        wrong.append(f"exit status {outcome.status}, not {status}")
    if runs and runs != outcome.runs:
        wrong.append(f"{outcome.runs} runs, not {runs}")
    if wrong:
        wrong.append(f"output: {outcome.output[-2000:]}")
    program = "the original" if original else "instep"
    return [f"{scenario.name}, {program}: {line}" for line in wrong]


def check(table: Sequence[Scenario], top: Path, *, only_ours: bool = False) -> None:
    """Play a table with both programs, side by side, and compare."""
    programs = [(False, OURS)] + ([(True, THEIRS)] if is_installed() and not only_ours else [])

    def one(number: int, scenario: Scenario, original: bool, program: Sequence[str]) -> list[str]:
        wrong: list[str] = []
        for attempt in range(TRIES if original else 1):
            place = top / f"{number}-{'original' if original else 'instep'}-{attempt}"
            try:
                wrong = _wrong(scenario, play(scenario, place, program), original=original)
            except AssertionError as error:
                wrong = [f"{scenario.name}, {program[0]}: {error}"]
            if not wrong:
                break
        return wrong

    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = [
            pool.submit(one, number, scenario, original, program)
            for number, scenario in enumerate(table)
            for original, program in programs
            if scenario.original or not original
        ]
        wrong = [line for each in found for line in each.result()]
    assert not wrong, "\n".join(wrong)
