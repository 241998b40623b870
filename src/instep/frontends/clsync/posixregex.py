r"""POSIX extended regular expressions, as expressions of Python's ``re`` that match in the same places.

Facts (regcomp(3) and regex(7); where they are silent, found by asking glibc 2.36, and held by the tests):

- Only whether an expression matches somewhere is kept, not how long the match is: the rest differs by design.
- clsync never sets a locale, so a character is a byte, ``[a-z]`` goes by value, and only ASCII is in a class.
- glibc has ``\w \W \s \S \b \B \< \> \` \'`` and ``\1`` to ``\9`` in extended expressions too; any other
  escaped character is itself. In brackets a backslash is a backslash.
- ``^`` and ``$`` are anchors wherever they stand, at the ends of the text alone, and cannot be repeated. A ``)`` that
  closes nothing, and a ``}``, are themselves. Alternatives may be empty. ``{,n}`` is ``{0,n}``.
"""

from __future__ import annotations

import re

REPEATS_MAX = 0x7FFF
NAME_MAX = 32


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


def _bad_count() -> BadExpression:
    return BadExpression(10, "what stands between '{' and '}' is no number, or no range of numbers")


def translate(expression: bytes, group: bytes = b"g") -> bytes:
    """The expression for ``re``, to be searched without flags. Groups that are referred to get names.

    Args:
        expression: as regcomp(3) takes it with REG_EXTENDED.
        group: what those names begin with, so that several translations can stand in one expression.

    Raises:
        BadExpression: regcomp(3) would refuse it.
    """
    return _Parser(expression, group).whole()


_WORD = rb"[0-9A-Z_a-z]"
_EDGE_BEFORE = rb"(?<!" + _WORD + rb")(?=" + _WORD + rb")"
_EDGE_AFTER = rb"(?<=" + _WORD + rb")(?!" + _WORD + rb")"
_EDGE = rb"(?:" + _EDGE_BEFORE + rb"|" + _EDGE_AFTER + rb")"

# Written out, since Python's \b and \B differ from version to version for an empty text.
_ANCHORS = {
    b"^": rb"\A",
    b"$": rb"\Z",
    rb"\`": rb"\A",
    rb"\'": rb"\Z",
    rb"\<": _EDGE_BEFORE,
    rb"\>": _EDGE_AFTER,
    rb"\b": _EDGE,
    rb"\B": rb"(?!" + _EDGE + rb")",
}
_SETS = {rb"\w": _WORD, rb"\W": rb"[^0-9A-Z_a-z]", rb"\s": rb"[\t-\r ]", rb"\S": rb"[^\t-\r ]", b".": rb"[^\x00]"}
_REPEATS = {b"*": b"*", b"+": b"+", b"?": b"?"}


class _Parser:
    """Goes through one expression once, from left to right."""

    def __init__(self, text: bytes, group: bytes) -> None:
        self._text = text
        self._at = 0
        self._group = group
        self._groups = 0
        self._referable = frozenset[int]()
        self._referred = {int(found) for found in re.findall(rb"\\([1-9])", text)}

    def whole(self) -> bytes:
        try:
            return self._alternatives(nested=False)
        except RecursionError:
            raise BadExpression(12, "it is nested too deeply") from None

    def _token(self) -> bytes:
        """The character that stands here, with its backslash; empty at the end."""
        return self._text[self._at : self._at + (2 if self._text[self._at : self._at + 1] == b"\\" else 1)]

    def _alternatives(self, *, nested: bool) -> bytes:
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
                return b"|".join(branches)
            self._at += 1

    def _branch(self, *, nested: bool) -> bytes:
        pieces = []
        while (token := self._token()) not in (b"", b"|") and not (nested and token == b")"):
            if token in _REPEATS or token == b"{":
                raise BadExpression(13, f"there is nothing before '{token.decode()}' that could be repeated")
            if token in _ANCHORS:
                self._at += len(token)
                pieces.append(_ANCHORS[token])
            else:
                pieces.append(self._repeated(self._atom(token)))
        return b"".join(pieces)

    def _atom(self, token: bytes) -> bytes:
        self._at += len(token)
        if token == b"(":
            return self._parentheses()
        if token == b"[":
            return self._brackets()
        if token in _SETS:
            return _SETS[token]
        if token == b"\\":
            raise BadExpression(5, "it ends with a backslash")
        if token[:1] == b"\\" and token[1:] in b"123456789":
            if int(token[1:]) not in self._referable:
                raise BadExpression(6, f"'{token.decode()}' refers to parentheses that are not there")
            return b"(?P=" + self._group + token[1:] + b")"
        return re.escape(token[-1:])

    def _parentheses(self) -> bytes:
        self._groups += 1
        number = self._groups
        body = self._alternatives(nested=True)
        if self._token() != b")":
            raise BadExpression(8, "a '(' is not closed")
        self._at += 1
        self._referable |= {number}
        if number in self._referred:
            return b"(?P<%b%d>%b)" % (self._group, number, body)
        return b"(?:" + body + b")"

    def _repeated(self, atom: bytes) -> bytes:
        while (token := self._token()) in _REPEATS or token == b"{":
            self._at += 1
            repeat = _REPEATS[token] if token in _REPEATS else self._counts()
            # In parentheses: for Python a second mark after the first would mean something else.
            atom = b"(?:" + atom + b")" + repeat
        return atom

    # ---- {least,most} ----------------------------------------------------------------------------------------------

    def _counts(self) -> bytes:
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
        return b"{%d,}" % least if most is None else b"{%d,%d}" % (least, most)

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

    def _brackets(self) -> bytes:
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
        return _set(set(range(256)) - members if negated else members)

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


def _set(members: set[int]) -> bytes:
    """The set as Python writes it, which cannot be empty there."""
    if not members:
        return b"(?!)"
    ranges: list[tuple[int, int]] = []
    for byte in sorted(members):
        if ranges and ranges[-1][1] == byte - 1:
            ranges[-1] = (ranges[-1][0], byte)
        else:
            ranges.append((byte, byte))
    return b"[" + b"".join(b"\\x%02x-\\x%02x" % each for each in ranges) + b"]"


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
