"""What a sync leaves out: lsyncd's ``filter`` rules in order, then its ``exclude`` patterns, read as rsync reads them.

lsyncd hands the patterns to rsync for the initial sync and has a language of its own, nearly the same, for what comes
after. Where the two disagree, one phase brings over what the other forgets; so here rsync's reading counts for both.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from instep.core.filters import Filter, parse_rule
from instep.paths import RelPath
from instep.rules import Rule


class Selection:
    """Rules and patterns; both may change while it runs."""

    def __init__(self) -> None:
        self._rules: list[bytes] = []
        self._patterns: dict[bytes, tuple[Rule, ...]] = {}
        self._filter: Filter | None = None
        self.says_something = False
        """Whether there is any rule or pattern; names that instep makes are left out in any case."""

    @property
    def patterns(self) -> list[bytes]:
        """The patterns, in the order they were given."""
        return list(self._patterns)

    @property
    def lines(self) -> Sequence[bytes]:
        """The filter's rules as lines: ``+ PATTERN`` or ``- PATTERN``."""
        return self._rules

    @property
    def rules(self) -> tuple[Rule, ...]:
        """All of it, in order of precedence."""
        found = [rule for line in self._rules for rule in _parsed(line)]
        return (*found, *(rule for rules in self._patterns.values() for rule in rules))

    def exclude(self, pattern: bytes) -> None:
        """Leave out what matches.

        Raises:
            UsageError: a rule that cannot be honoured.
        """
        self._patterns[pattern] = _parsed(pattern)
        self._changed()

    def include_again(self, pattern: bytes) -> bool:
        """Take a pattern back; False if it was not there."""
        was_there = self._patterns.pop(pattern, None) is not None
        self._changed()
        return was_there

    def append(self, line: bytes) -> bool:
        """Add a rule at the end of the filter; False if it is none.

        Raises:
            UsageError: a rule that cannot be honoured.
        """
        found = re.fullmatch(rb"\s*([+-])\s*(.+)", line, re.DOTALL)
        if found is None:
            return False
        rule = found[1] + b" " + found[2]
        _parsed(rule)
        self._rules.append(rule)
        self._changed()
        return True

    def _changed(self) -> None:
        self._filter = None
        self.says_something = bool(self._rules or self._patterns)

    def excludes(self, path: RelPath, is_dir: bool) -> bool:  # noqa: FBT001  # called per event
        """Whether a path, or a directory above it, is left out."""
        if self._filter is None:
            self._filter = Filter(self.rules)
        return self._filter.excludes(path, is_dir)


def exclude_lines(text: bytes) -> list[bytes]:
    """The patterns in a file for ``excludeFrom``."""
    found = []
    for line in text.split(b"\n"):
        bare = line.lstrip()
        if bare and not bare.startswith((b"#", b"+")):
            pattern = bare[1:].lstrip() if bare.startswith(b"-") else bare
            if pattern:
                found.append(pattern)
    return list(dict.fromkeys(found))


def filter_lines(text: bytes) -> list[bytes]:
    """The lines of a file for ``filterFrom`` that say something."""
    return [line for line in text.split(b"\n") if line.strip() and not line.lstrip().startswith(b"#")]


def _parsed(line: bytes) -> tuple[Rule, ...]:
    return tuple(parse_rule(line, include_default=False, origin="exclude").rules)
