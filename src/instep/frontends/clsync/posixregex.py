r"""POSIX extended regular expressions, read as regcomp(3) reads them.

Facts (regcomp(3) and regex(7); where they are silent, found by asking glibc 2.36, and held by the tests):

- Only whether an expression matches somewhere counts here, not how long the match is.
- clsync never sets a locale, so a character is a byte, ``[a-z]`` goes by value, and only ASCII is in a class.
- glibc has ``\w \W \s \S \b \B \< \> \` \'`` and ``\1`` to ``\9`` in extended expressions too; any other
  escaped character is itself. In brackets a backslash is a backslash.
- ``^`` and ``$`` are anchors wherever they stand, at the ends of the text alone, and cannot be repeated. A ``)`` that
  closes nothing, and a ``}``, are themselves. Alternatives may be empty. ``{,n}`` is ``{0,n}``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from instep.frontends.clsync.expressions import WORD, Chain, Choice, Group, Node, OneOf, Place, Reference, Repeat

REPEATS_MAX = 0x7FFF
NAME_MAX = 32
DEPTH_MAX = 60
"""Parentheses in parentheses, repeats of repeats; regcomp has no such limit. Ours, so that nothing recurses too far."""


class BadExpression(ValueError):
    """An expression that regcomp(3) refuses."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        """regcomp's number for it, from glibc's regex.h."""


def _no_such_element() -> BadExpression:
    return BadExpression(3, "between '[.' and '.]', or '[=' and '=]', stands not exactly one character")


def _open_bracket() -> BadExpression:
    return BadExpression(7, "a '[' is not closed")


def _bad_range() -> BadExpression:
    return BadExpression(11, "a range in brackets does not go from a lower to a higher character")


def _too_deep() -> BadExpression:
    return BadExpression(12, "it is nested too deeply")


def _bad_count() -> BadExpression:
    return BadExpression(10, "what stands between '{' and '}' is no number, or no range of numbers")


def parse(expression: bytes) -> Node:
    """The expression, taken apart.

    Args:
        expression: as regcomp(3) takes it with REG_EXTENDED.

    Raises:
        BadExpression: regcomp(3) would refuse it.
    """
    return _Parser(expression).whole()


_ANY = frozenset(range(256))
_SPACE = frozenset(b"\t\n\v\f\r ")
_ATOMS: Mapping[bytes, Node] = {
    b".": OneOf(_ANY - {0}),
    rb"\w": OneOf(WORD),
    rb"\W": OneOf(_ANY - WORD),
    rb"\s": OneOf(_SPACE),
    rb"\S": OneOf(_ANY - _SPACE),
}
_ANCHORS = {
    b"^": Place.START,
    b"$": Place.END,
    rb"\`": Place.START,
    rb"\'": Place.END,
    rb"\<": Place.WORD_START,
    rb"\>": Place.WORD_END,
    rb"\b": Place.EDGE,
    rb"\B": Place.NO_EDGE,
}
_REPEATS: Mapping[bytes, tuple[int, int | None]] = {b"*": (0, None), b"+": (1, None), b"?": (0, 1)}


class _Parser:
    """Goes through one expression once, from left to right."""

    def __init__(self, text: bytes) -> None:
        self._text = text
        self._at = 0
        self._groups = 0
        self._depth = 0
        self._referable = frozenset[int]()
        self._referred = {int(found) for found in re.findall(rb"\\([1-9])", text)}

    def whole(self) -> Node:
        return self._alternatives(nested=False)

    def _token(self) -> bytes:
        """The character that stands here, with its backslash; empty at the end."""
        return self._text[self._at : self._at + (2 if self._text[self._at : self._at + 1] == b"\\" else 1)]

    def _alternatives(self, *, nested: bool) -> Node:
        before = self._referable
        after = before
        branches = []
        while True:
            # What a branch closes can only be referred to behind all of them.
            self._referable = before
            branches.append(self._branch(nested=nested))
            after |= self._referable
            if self._token() != b"|":
                self._referable = after
                return branches[0] if len(branches) == 1 else Choice(tuple(branches))
            self._at += 1

    def _branch(self, *, nested: bool) -> Node:
        parts: list[Node] = []
        while (token := self._token()) not in (b"", b"|") and not (nested and token == b")"):
            if token in _REPEATS or token == b"{":
                raise BadExpression(13, f"there is nothing before '{token.decode()}' that could be repeated")
            if token in _ANCHORS:
                self._at += len(token)
                parts.append(_ANCHORS[token])
            else:
                parts.append(self._repeated(self._atom(token)))
        return parts[0] if len(parts) == 1 else Chain(tuple(parts))

    def _atom(self, token: bytes) -> Node:
        self._at += len(token)
        if token == b"(":
            return self._parentheses()
        if token == b"[":
            return self._brackets()
        if token in _ATOMS:
            return _ATOMS[token]
        if token == b"\\":
            raise BadExpression(5, "it ends with a backslash")
        if token[:1] == b"\\" and token[1:] in b"123456789":
            if int(token[1:]) not in self._referable:
                raise BadExpression(6, f"'{token.decode()}' refers to parentheses that are not there")
            return Reference(int(token[1:]))
        return OneOf(frozenset(token[-1:]))

    def _parentheses(self) -> Node:
        self._groups += 1
        number = self._groups
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise _too_deep()
        body = self._alternatives(nested=True)
        self._depth -= 1
        if self._token() != b")":
            raise BadExpression(8, "a '(' is not closed")
        self._at += 1
        self._referable |= {number}
        return Group(number, body) if number in self._referred else body

    def _repeated(self, atom: Node) -> Node:
        times = 0
        while (token := self._token()) in _REPEATS or token == b"{":
            times += 1
            if times > DEPTH_MAX:
                raise _too_deep()
            self._at += 1
            atom = Repeat(atom, *(_REPEATS[token] if token in _REPEATS else self._counts()))
        return atom

    # ---- {least,most} ----------------------------------------------------------------------------------------------

    def _counts(self) -> tuple[int, int | None]:
        least, ended_by = self._count()
        if least is None:
            if ended_by != b",":
                raise _bad_count()
            least = 0
        most: int | None = least
        if ended_by == b",":
            most, ended_by = self._count()
        if ended_by != b"}" or (most is not None and least > most):
            raise _bad_count()
        if (least if most is None else most) > REPEATS_MAX:
            raise BadExpression(15, f"it repeats something more than {REPEATS_MAX} times")
        return least, most

    def _count(self) -> tuple[int | None, bytes]:
        """One number, None if there is none, and what ends it."""
        digits = b""
        while (token := self._token()) != b"}" and token[-1:] != b",":
            if not token:
                raise BadExpression(9, "a '{' is not closed")
            self._at += len(token)
            digits += token
        self._at += len(token)
        if digits and not digits.isdigit():
            raise _bad_count()
        return (int(digits[:10]) if digits else None), token[-1:]

    # ---- [brackets] ------------------------------------------------------------------------------------------------

    def _brackets(self) -> Node:
        text = self._text
        negated = text[self._at : self._at + 1] == b"^"
        self._at += negated
        if self._at == len(text):
            raise BadExpression(2, "it ends with a '['")
        members: set[int] = set()
        first = True
        while first or text[self._at : self._at + 1] != b"]":
            kind, low = self._element(hyphen_too=first)
            first = False
            if kind in b":=":
                members.update(_members(kind, low))
                continue
            if self._at == len(text):
                raise _open_bracket()
            rest = text[self._at : self._at + 2]
            if rest[:1] == b"-" and rest[1:2] != b"]":
                self._at += 1
                end, high = self._element(hyphen_too=True)
                if end in b":=":
                    raise _bad_range()
                members.update(_range(low, high))
            else:
                members.update(_members(b"=", low))
        self._at += 1
        return OneOf(_ANY - members if negated else frozenset(members))

    def _element(self, *, hyphen_too: bool) -> tuple[bytes, bytes]:
        """What stands here between brackets: a character, after ``.``, or the name after one of ``.=:``."""
        text = self._text
        here = text[self._at : self._at + 3]
        if not here:
            raise _open_bracket()
        if here[:2] in (b"[.", b"[=", b"[:"):
            end = text.find(here[1:2] + b"]", self._at + 2)
            name = text[self._at + 2 : end]
            if end < 0 or len(name) >= NAME_MAX:
                raise _open_bracket()
            self._at = end + 2
            return here[1:2], name
        if here[:1] == b"-" and not hyphen_too and here[1:2] != b"]":
            raise _bad_range()
        self._at += 1
        return b".", here[:1]


def _range(low: bytes, high: bytes) -> range:
    if len(low) != 1 or len(high) != 1:
        raise _no_such_element()
    if low > high:
        raise _bad_range()
    return range(low[0], high[0] + 1)


def _members(kind: bytes, name: bytes) -> bytes:
    """The bytes of a class, or the one that has this name."""
    if kind == b":":
        if name not in _CLASSES:
            raise BadExpression(4, "there is no character class of that name")
        return bytes(byte for byte in range(128) if re.match(_CLASSES[name], bytes([byte])))
    if len(name) != 1:
        raise _no_such_element()
    return name


_CLASSES = {
    b"alnum": rb"[0-9A-Za-z]",
    b"alpha": rb"[A-Za-z]",
    b"blank": rb"[ \t]",
    b"cntrl": rb"[\x00-\x1f\x7f]",
    b"digit": rb"[0-9]",
    b"graph": rb"[!-~]",
    b"lower": rb"[a-z]",
    b"print": rb"[ -~]",
    b"punct": rb"[!-/:-@\[-`{-~]",
    b"space": rb"[ \t-\r]",
    b"upper": rb"[A-Z]",
    b"xdigit": rb"[0-9A-Fa-f]",
}
