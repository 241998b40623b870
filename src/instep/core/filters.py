"""rsync's include/exclude patterns, and regular expressions, compiled once to a verdict per path.

Facts (rsync(1) "PATTERN MATCHING RULES"; where the page is silent, found by asking rsync 3.5.0, and held by the tests):

- The first matching rule decides; no match includes; below an excluded directory nothing is looked at.
- A pattern with a slash (other than the last byte) or with ``**`` is matched against the path from any component
  boundary on, with a leading slash from the root on; any other pattern is matched against the last component.
- Without ``*``, ``?`` or ``[`` a pattern is literal and a backslash stands for itself.
- Two stars or more are one ``**``. A pattern that *begins* with ``**/`` also matches at the root, ``/**/x`` does not.
- A directory is compared with ``x/***`` as ``dir/``, so that ``x`` itself matches too.
- A class never matches a slash, yet a slash in it counts: an unanchored ``[/]`` without ``**`` cannot match.
- An unclosed class, an unknown ``[:name:]`` or a lone backslash at the end of a wildcard pattern: never matches.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from instep.errors import UsageError
from instep.paths import ROOT, TEMPORARY_PREFIX, TEMPORARY_SUFFIX, RelPath, is_within_temporary
from instep.rules import Rule

DIRECTORIES_MAX = 50_000
"""Directories whose verdict is remembered; past it they are forgotten, all at once. About 10 MB (guessed)."""


class Filter:
    """A verdict per path. Names that instep makes while it writes are excluded under any rules."""

    __slots__ = ("_by_name", "_directories", "_match_directory", "_match_other", "is_trivial")

    def __init__(self, rules: Sequence[Rule]) -> None:
        patterns = [
            (rule.include, _Pattern(rule.pattern) if rule.searched_in is None else _Expression(rule))
            for rule in rules
            if rule.pattern or rule.searched_in is not None
        ]
        self.is_trivial = not patterns
        """There are no rules."""
        self._by_name = all(pattern.by_name for _, pattern in patterns)
        self._match_directory = _compile(patterns, is_dir=True, by_name=self._by_name).fullmatch
        self._match_other = _compile(patterns, is_dir=False, by_name=self._by_name).fullmatch
        self._directories: dict[bytes, bool] = {ROOT: False}

    @property
    def by_name_only(self) -> bool:
        """No verdict depends on more than the last component: moving a directory changes none below it."""
        return self._by_name

    def excludes(self, path: RelPath, is_dir: bool) -> bool:  # noqa: FBT001  # called per event
        """Whether the path, or a directory above it, is excluded. The root never is."""
        if self.is_trivial:
            return is_within_temporary(path)
        parent, _, name = path.rpartition(b"/")
        above = self._directories.get(parent)
        if above is None:
            above = self._excludes_directory(parent)
        if above or not path:
            return above
        found = (self._match_directory if is_dir else self._match_other)(name if self._by_name else path)
        return found is not None and found.lastindex is not None

    def leaves_out(self, path: bytes, *, is_dir: bool) -> bool:
        """Whether a rule excludes what stands at this path; a report may have been of another kind of thing.

        Temporary names are nothing to it.
        """
        return not self.is_trivial and self.excludes(RelPath(path), is_dir)

    def excludes_entry(self, parent: RelPath, name: bytes, is_dir: bool) -> bool:  # noqa: FBT001  # called per entry
        """Whether ``name`` in the directory ``parent`` is excluded, the directory being known not to be."""
        if self.is_trivial:
            return name.startswith(TEMPORARY_PREFIX) and name.endswith(TEMPORARY_SUFFIX)
        subject = name if self._by_name or not parent else parent + b"/" + name
        found = (self._match_directory if is_dir else self._match_other)(subject)
        return found is not None and found.lastindex is not None

    def _excludes_directory(self, path: bytes) -> bool:
        """The verdict for a directory, from the nearest one above that is remembered downwards."""
        known = self._directories
        if len(known) >= DIRECTORIES_MAX:
            known.clear()
            known[ROOT] = False
        unknown = []
        here = path
        while (excluded := known.get(here)) is None:
            unknown.append(here)
            here = here.rpartition(b"/")[0]
        for below in reversed(unknown):
            if not excluded:
                found = self._match_directory(below.rpartition(b"/")[2] if self._by_name else below)
                excluded = found is not None and found.lastindex is not None
            known[below] = excluded
        return excluded


def _compile(
    patterns: Iterable[tuple[bool, _Pattern | _Expression]], *, is_dir: bool, by_name: bool
) -> re.Pattern[bytes]:
    """One expression for all rules: alternatives are tried in order; an empty group marks those that exclude.

    Order only counts between rules that decide differently, so neighbours that agree share the search for a
    component to begin at: a hundred patterns with a slash cost a tenth of what they cost apart (measured).
    """
    own = re.escape(TEMPORARY_PREFIX) + b"[^/]*" + re.escape(TEMPORARY_SUFFIX)
    bodies = [(False, _LAST, own)]
    for include, pattern in patterns:
        body = pattern.body(is_dir=is_dir)
        if body is not None:
            bodies.append((include, pattern.start, body))
    alternatives = []
    for include, agreeing in itertools.groupby(bodies, key=lambda body: body[0]):
        by_start: dict[bytes, list[bytes]] = {}
        for _, start, body in agreeing:
            by_start.setdefault(b"" if by_name else start, []).append(body)
        for start, group in by_start.items():
            alternatives.append(start + b"(?:" + b"|".join(group) + b")" + (b"" if include else b"()"))
    return re.compile(b"|".join(alternatives), re.DOTALL)


# ---- one pattern ---------------------------------------------------------------------------------------------------

_LAST = rb"(?>.*/|)"  # up to the last component; atomic, since no other start can match a pattern without slashes
_ANY_START = rb"(?:.*/)?"  # any component boundary

_STAR = b"[^/]*"
_STARS = b".*"
_SLASH = b"/"
_ONE = b"[^/]"


class _Pattern:
    """A pattern, taken apart."""

    __slots__ = ("_anchored", "_directory_too", "_stars_first", "_tokens", "by_name", "directories_only")

    def __init__(self, text: bytes) -> None:
        self.directories_only = text.endswith(b"/")
        body = text[:-1] if self.directories_only else text
        wild = re.search(rb"[*?[]", body) is not None
        crosses = wild and b"**" in body
        self.by_name = b"/" not in body and not crosses
        self._anchored = body.startswith(b"/")
        self._stars_first = body.startswith(b"**")
        self._directory_too = wild and body.endswith(b"***")
        body = body[1:] if self._anchored else body
        tokens = _tokens(body) if wild else [re.escape(body)] if body else None
        if wild and tokens and not self._anchored and not crosses and tokens.count(_SLASH) != body.count(b"/"):
            tokens = None  # A slash in a class: rsync compares one component too many.
        self._tokens = tokens

    @property
    def start(self) -> bytes:
        """What stands before the body where it is matched against a path."""
        if self.by_name:
            return _LAST
        return b"" if self._anchored or (self._tokens or [b""])[0] == _STARS else _ANY_START

    def body(self, *, is_dir: bool) -> bytes | None:
        """What has to match to the end, from a place that ``start`` leads to; None: nothing does."""
        tokens = self._tokens
        if not tokens or (self.directories_only and not is_dir):
            return None
        body = _join(tokens, virtual_slash=self._stars_first)
        if is_dir and self._directory_too and len(tokens) > 2 and tokens[-2] == _SLASH:
            body += b"|" + _join(tokens[:-2], virtual_slash=self._stars_first)
        return body


class _Expression:
    """A regular expression, in the terms of a pattern."""

    __slots__ = ("_body", "_directories", "_others")

    by_name = False
    start = b""

    def __init__(self, rule: Rule) -> None:
        self._body = b"(?s:.*?)(?:" + rule.pattern + b")(?s:.*)"
        self._directories = rule.searched_in in ("directories", "all")
        self._others = rule.searched_in in ("others", "all")

    def body(self, *, is_dir: bool) -> bytes | None:
        """What has to match the whole path; None: the rule is not about such objects."""
        return self._body if (self._directories if is_dir else self._others) else None


def _join(tokens: Sequence[bytes], *, virtual_slash: bool) -> bytes:
    """The tokens as one expression in which a star is not tried again where that cannot help.

    Once the text between two stars is found, the second star can take whatever a later find would have skipped,
    unless it may not cross a slash that the first one, or the text, takes. So backtracking stays polynomial in
    the few places where it is needed at all.
    """
    stars = [index for index, token in enumerate(tokens) if token in (_STAR, _STARS)]
    if not stars:
        return b"".join(tokens)
    parts = [*tokens[: stars[0]]]
    for index, following in zip(stars, [*stars[1:], None], strict=True):
        chunk = list(tokens[index + 1 : following])
        star = tokens[index]
        if index == 0 and virtual_slash and chunk[:1] == [_SLASH]:
            star, lazy = _ANY_START, b"(?:.*?/)??"
            del chunk[0]
        else:
            lazy = star + b"?"
        text = b"".join(chunk)
        if following is not None and (tokens[following] == _STARS or (star == _STAR and _SLASH not in chunk)):
            parts.append(b"(?>" + lazy + text + b")")
        else:
            parts.append(star + text)
    return b"".join(parts)


def _tokens(body: bytes) -> list[bytes] | None:
    """The expressions for each part of a wildcard pattern; None: it can never match."""
    tokens = []
    at = 0
    while at < len(body):
        byte = body[at : at + 1]
        at += 1
        if byte == b"*":
            end = at
            while body[end : end + 1] == b"*":
                end += 1
            tokens.append(_STARS if end > at else _STAR)
            at = end
        elif byte == b"?":
            tokens.append(_ONE)
        elif byte == b"[":
            found = _class(body, at)
            if found is None:
                return None
            members, at = found
            tokens.append(b"[" + b"".join(b"\\x%02x" % member for member in sorted(members)) + b"]")
        elif byte == b"\\":
            if at == len(body):
                return None
            tokens.append(re.escape(body[at : at + 1]))
            at += 1
        else:
            tokens.append(_SLASH if byte == b"/" else re.escape(byte))
    return tokens


_CLASSES = {
    b"alnum": r"[0-9A-Za-z]",
    b"alpha": r"[A-Za-z]",
    b"blank": r"[ \t]",
    b"cntrl": r"[\x00-\x1f\x7f]",
    b"digit": r"[0-9]",
    b"graph": r"[!-~]",
    b"lower": r"[a-z]",
    b"print": r"[ -~]",
    b"punct": r"[!-/:-@\[-`{-~]",
    b"space": r"[ \t-\r]",
    b"upper": r"[A-Z]",
    b"xdigit": r"[0-9A-Fa-f]",
}


def _class(body: bytes, at: int) -> tuple[set[int], int] | None:
    """The bytes that the class beginning at ``at`` (after the bracket) matches, and where it ends."""
    negated = body[at : at + 1] in (b"!", b"^")
    at += negated
    members: set[int] = set()
    previous = -1  # the first byte of a possible range
    first = True
    while first or body[at : at + 1] != b"]":
        first = False
        if at >= len(body):
            return None
        byte = body[at]
        if byte == 0x5C:  # a backslash
            at += 1
            if at >= len(body):
                return None
            previous = body[at]
            members.add(previous)
        elif byte == 0x2D and previous >= 0 and body[at + 1 : at + 2] not in (b"", b"]"):  # a hyphen
            at += 1
            if body[at] == 0x5C:
                at += 1
                if at >= len(body):
                    return None
            members.update(range(previous, body[at] + 1))
            previous = -1
        elif body[at : at + 2] == b"[:":
            end = body.find(b"]", at + 2)
            if end < 0:
                return None
            if body[end - 1 : end] == b":" and end - 1 >= at + 2:
                named = _CLASSES.get(body[at + 2 : end - 1])
                if named is None:
                    return None
                members.update(member for member in range(128) if re.match(named, chr(member)))
                previous = -1
                at = end
            else:
                members.add(byte)
                previous = byte
        else:
            members.add(byte)
            previous = byte
        at += 1
    if negated:
        members = set(range(1, 256)) - members
    members.discard(0x2F)  # a slash
    return (members, at + 1) if members else None


_SPECIAL = re.compile(rb"[\[*?\\]")


def anchored(path: bytes) -> bytes:
    """A pattern that matches this very path below the root.

    A backslash escapes only in patterns that hold one of ``*?[``; in others it is itself (exclude.c, rule_matches).
    """
    if not any(wild in path for wild in (b"*", b"?", b"[")):
        return b"/" + path
    return b"/" + _SPECIAL.sub(rb"\\\g<0>", path)


def anchored_tree(path: bytes) -> bytes:
    """A pattern that matches this very directory and everything below it."""
    return b"/" + _SPECIAL.sub(rb"\\\g<0>", path) + b"/***"


# ---- rules as text -------------------------------------------------------------------------------------------------


class RuleText(NamedTuple):
    """What stood in a pattern file or in one option."""

    rules: tuple[Rule, ...]
    clears: bool
    """A lone ``!`` stood in it: what was given before it does not count."""


# Lines that are a rule of rsync's --filter language, but that a list of patterns would take for an odd file name.
_FILTER_RULE = re.compile(
    rb"(?:[-+],?[/!Csrpx]+|[.:],?[-+CenwW/!srpx]*|[PRHS]"
    rb"|(?:merge|dir-merge|protect|risk|hide|show|include|exclude|clear)(?:,\S*)?)[ ]\S"
)


def parse_rule(line: bytes, *, include_default: bool, origin: str) -> RuleText:
    """The rule in one ``--include``/``--exclude`` option or line of a pattern file, as rsync reads it there.

    Raises:
        UsageError: a kind of rule that instep does not have, or one without a pattern.
    """
    if line == b"!":
        return RuleText((), clears=True)
    if not line:
        return RuleText((), clears=False)
    if line[:2] in (b"+ ", b"- "):
        include, pattern = line[:1] == b"+", line[2:]
        if not pattern:
            raise UsageError("empty-rule", f"{origin}: {_shown(line)} has no pattern", fix="give one, or drop the rule")
    else:
        include, pattern = include_default, line
        if _FILTER_RULE.match(line):
            raise UsageError(
                "unsupported-rule",
                f"{origin}: {_shown(line)} is a rule that instep does not have: only patterns to include or exclude",
                fix=f"drop it; if it is the name of a file, write {_shown(b'+ ' if include_default else b'- ', line)}",
            )
    if b"\0" in pattern:
        raise UsageError(
            "bad-pattern", f"{origin}: {_shown(pattern)} holds a NUL byte, which no name can", fix="drop it"
        )
    return RuleText((Rule(include=include, pattern=pattern, origin=origin),), clears=False)


def parse_rule_text(text: bytes, *, include_default: bool, origin: str) -> RuleText:
    """The rules of a pattern file; each one's origin is ``ORIGIN:LINE``.

    Raises:
        UsageError: see ``parse_rule``; it names the line.
    """
    rules: list[Rule] = []
    clears = False
    for number, line in enumerate(re.split(rb"\r\n|\n|\r", text), 1):
        if line.startswith((b"#", b";")):
            continue
        found = parse_rule(line, include_default=include_default, origin=f"{origin}:{number}")
        if found.clears:
            clears = True
            rules.clear()
        rules += found.rules
    return RuleText(tuple(rules), clears)


def parse_rules(text: bytes, include_default: bool, origin: str) -> tuple[Rule, ...]:  # noqa: FBT001
    """The rules of a pattern file, where nothing came before it that a ``!`` in it could clear."""
    return parse_rule_text(text, include_default=include_default, origin=origin).rules


def _shown(*parts: bytes) -> str:
    text = b"".join(parts)
    return "'" + "".join(chr(b) if 32 <= b < 127 else f"\\x{b:02x}" for b in text) + "'"
