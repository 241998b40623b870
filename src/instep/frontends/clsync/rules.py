"""Which paths count: the rules file, and its verdicts.

Facts (the manual page of clsync 0.4.5 and its observed behaviour): a line is a sign, a type and a POSIX extended
regular expression, searched in the path below the watched directory, which is itself the empty path. Three questions
are answered, each by the first rule that bears on it and matches, else with yes; parents are not asked.

- Is a directory walked, and watched if it is there at start? ``w W d *``
- Is a directory watched that is made later? ``m W d *``
- Is an object told to the handler? ``s d *`` for directories, ``f *`` for regular files, ``*`` for others.
"""

from __future__ import annotations

import errno
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from instep.frontends.clsync import posixregex
from instep.frontends.clsync.automaton import Automaton, TooLarge
from instep.frontends.clsync.complaints import Note, refused
from instep.frontends.clsync.expressions import Node, groups, may_be_slow, python
from instep.frontends.clsync.posixregex import BadExpression
from instep.frontends.instep.output import escaped
from instep.paths import ROOT, RelPath
from instep.rules import Rule, Subject

_WALK = "walk"
_MONITOR = "monitor"
_DIRECTORY = "directory"
_REGULAR = "regular"
_OTHER = "other"

_DECIDES: Final = {
    b"w": frozenset({_WALK}),
    b"m": frozenset({_MONITOR}),
    b"W": frozenset({_WALK, _MONITOR}),
    b"s": frozenset({_DIRECTORY}),
    b"d": frozenset({_WALK, _MONITOR, _DIRECTORY}),
    b"f": frozenset({_REGULAR}),
    b"*": frozenset({_WALK, _MONITOR, _DIRECTORY, _REGULAR, _OTHER}),
}
"""Which questions a type answers: the three for directories, and whether other objects are told."""


@dataclass(frozen=True, slots=True)
class _Line:
    permits: bool
    kind: bytes
    expression: Node
    number: int

    @property
    def python(self) -> bytes:
        """The expression for ``re``."""
        return python(self.expression, b"r%dg" % self.number)

    @property
    def automaton(self) -> Automaton | None:
        """What has to be asked instead of ``re``, for the sake of time; None: nothing has to, or can."""
        if not may_be_slow(self.expression):
            return None
        try:
            return Automaton(self.expression)
        except TooLarge:
            return None


class Rules:
    """Verdicts for paths; immutable, so a file that is read again gives another one."""

    def __init__(self, lines: Sequence[_Line] = (), notes: Sequence[Note] = (), origin: str = "") -> None:
        self._lines = lines
        self._origin = origin
        self.notes = notes
        """What was odd in the file."""
        self.is_trivial = not lines
        """There are no rules: every answer is yes."""
        self._walks = _Verdict(lines, _WALK)
        self._monitors = _Verdict(lines, _MONITOR)
        self._syncs_directory = _Verdict(lines, _DIRECTORY)
        self._syncs_regular = _Verdict(lines, _REGULAR)
        self._syncs_other = _Verdict(lines, _OTHER)

    @property
    def split_walk(self) -> bool:
        """Some rule treats what is in a directory differently from the directory itself.

        rsync's lists cannot say that: what such a rule keeps from being walked is still brought over when the
        directory is told as a whole.
        """
        return any(line.kind in b"wWms" for line in self._lines)

    def walks(self, path: RelPath) -> bool:
        """Whether a directory is descended into; at start also whether it is watched."""
        return self._walks(path)

    def monitors(self, path: RelPath) -> bool:
        """Whether a directory that is made or moved here later is watched."""
        return self._monitors(path)

    def syncs(self, path: RelPath, *, is_dir: bool, is_regular: bool) -> bool:
        """Whether an object is told to the handler.

        clsync takes everything but directories for regular where it walks, and where they are gone.
        """
        if is_dir:
            return self._syncs_directory(path)
        return (self._syncs_regular if is_regular else self._syncs_other)(path)

    def for_engines(self) -> tuple[Rule, ...] | None:
        """The same for an engine that knows regular expressions; None: it would decide differently.

        An engine compares states, so it looks below every directory that it brings over, and has one answer for each
        object. Rules of the types ``f``, ``d`` and ``*`` say nothing else: with them a directory is walked, watched and
        told, or none of these. What is not a directory counts as a regular file, as in clsync's walks. A file to be
        told in a directory that is not is never seen by clsync either. Where the watched directory itself is rejected,
        clsync still brings everything over at start; an engine cannot. Nor does it know groups that are referred to, or
        search in a bounded time for what ``expressions.may_be_slow`` is about.
        """
        if self.split_walk or not self.walks(ROOT):
            return None
        if any(groups(line.expression) or may_be_slow(line.expression) for line in self._lines):
            return None
        subjects: dict[bytes, Subject] = {b"f": "others", b"d": "directories", b"*": "all"}
        return tuple(
            Rule(line.permits, line.python, f"{self._origin}:{line.number}", subjects[line.kind])
            for line in self._lines
        )


class _Verdict:
    """The answer to one question: all rules that bear on it, as few expressions as possible."""

    __slots__ = ("_stages",)

    def __init__(self, lines: Iterable[_Line], question: str) -> None:
        bearing = [line for line in lines if question in _DECIDES[line.kind]]
        while bearing and bearing[-1].permits:
            bearing.pop()  # As it is without a match.
        self._stages: list[_Stage] = []
        together: list[_Line] = []
        for line in bearing:
            automaton = line.automaton
            if automaton is None:
                together.append(line)
                continue
            if together:
                self._stages.append(_Together(together))
                together = []
            self._stages.append(_Alone(automaton, permits=line.permits))
        if together:
            self._stages.append(_Together(together))

    def __call__(self, path: bytes) -> bool:
        for stage in self._stages:
            answer = stage(path)
            if answer is not None:
                return answer
        return True


class _Together:
    """Rules in their order, as one expression."""

    __slots__ = ("_match", "_permits")

    def __init__(self, lines: Sequence[_Line]) -> None:
        alternatives = []
        permits = [True]
        for decision, agreeing in itertools.groupby(lines, key=lambda line: line.permits):
            # Alternatives are tried in order, so this finds the first rule that matches anywhere. An empty group
            # behind each run of rules that agree says which it was: it is the last to be closed.
            run = list(agreeing)
            permits += [decision] * (sum(groups(line.expression) for line in run) + 1)
            alternatives.append(b"(?s:.*?)(?:%b)()" % b"|".join(line.python for line in run))
        self._match = re.compile(b"|".join(alternatives)).match
        self._permits = permits

    def __call__(self, path: bytes) -> bool | None:
        found = self._match(path)
        return None if found is None else self._permits[found.lastindex or 0]


class _Alone:
    """One rule whose expression Python's ``re`` could take for ever to search."""

    __slots__ = ("_permits", "_search")

    def __init__(self, automaton: Automaton, *, permits: bool) -> None:
        self._search = automaton.search
        self._permits = permits

    def __call__(self, path: bytes) -> bool | None:
        return self._permits if self._search(path) else None


_Stage = _Together | _Alone


ALL: Final = Rules()
"""No rules: everything counts."""


def parse(text: bytes, origin: str) -> Rules:
    """The rules in a file's text; ``origin`` is the file's name, for messages.

    Raises:
        Refused: a line is no rule (22), or its expression is none (regcomp's code).
    """
    lines = []
    notes = []
    for number, line in _numbered(text):
        where = f"{origin}:{number}"
        sign, kind, expression = line[:1], line[1:2], line[2:]
        if sign not in b"+-":
            raise refused(
                f"{where}: {escaped(line)} is no rule: a rule begins with + or -",
                "begin it with one of them, or with # if it is a comment",
                status=errno.EINVAL,
            )
        kind = kind if kind == b"W" else kind.lower()
        if kind not in _DECIDES:
            what = f"has no type {escaped(kind)} that is known" if kind else "has no type"
            notes.append(Note(f"{where}: {escaped(line)} {what} (f d * w W m s), so the rule is left out"))
            continue
        try:
            node = posixregex.parse(expression)
        except BadExpression as error:
            raise refused(
                f"{where}: {escaped(expression)} is no regular expression: {error}",
                "mend it: regex(7) describes extended ones",
                status=error.code,
                is_errno=False,
            ) from None
        lines.append(_Line(sign == b"+", kind, node, number))
    return Rules(lines, notes, origin)


def _numbered(text: bytes) -> Iterator[tuple[int, bytes]]:
    for number, line in enumerate(text.split(b"\n"), 1):
        if line and not line.startswith(b"#"):
            yield number, line
