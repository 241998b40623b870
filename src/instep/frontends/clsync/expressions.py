"""What a regular expression consists of, and how Python's ``re`` would have it written."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from typing import NamedTuple

WORD = frozenset(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz")
"""The bytes that words are made of."""


class OneOf(NamedTuple):
    """One byte of these."""

    members: frozenset[int]


class Place(enum.Enum):
    """A condition on where something stands."""

    START = "start"
    END = "end"
    WORD_START = "word-start"
    WORD_END = "word-end"
    EDGE = "edge"
    NO_EDGE = "no-edge"


class Chain(NamedTuple):
    """One after the other."""

    parts: tuple[Node, ...]


class Choice(NamedTuple):
    """One of several."""

    branches: tuple[Node, ...]


class Repeat(NamedTuple):
    """The same again and again."""

    body: Node
    least: int
    most: int | None
    """None: no limit."""


class Group(NamedTuple):
    """Parentheses that something refers to."""

    number: int
    body: Node


class Reference(NamedTuple):
    """What a group matched, once more."""

    number: int


Node = OneOf | Place | Chain | Choice | Repeat | Group | Reference


def python(node: Node, group: bytes = b"g") -> bytes:
    """The expression for ``re``, to be searched without flags. Groups that are referred to get names.

    Args:
        node: the expression.
        group: what those names begin with, so that several expressions can stand in one.
    """
    match node:
        case OneOf(members):
            return re.escape(bytes(members)) if len(members) == 1 else _set(members)
        case Place():
            return _PLACES[node]
        case Chain(parts):
            return b"".join(python(part, group) for part in parts)
        case Choice(branches):
            return b"(?:" + b"|".join(python(branch, group) for branch in branches) + b")"
        case Repeat(body, least, most):
            # In parentheses: for Python a second mark after the first would mean something else.
            times = _TIMES.get((least, most)) or (b"{%d,}" % least if most is None else b"{%d,%d}" % (least, most))
            return b"(?:" + python(body, group) + b")" + times
        case Group(number, body):
            return b"(?P<%b%d>%b)" % (group, number, python(body, group))
        case Reference(number):
            return b"(?P=%b%d)" % (group, number)


def groups(node: Node) -> int:
    """How many groups are referred to."""
    return isinstance(node, Group) + sum(map(groups, _parts(node)))


def may_be_slow(node: Node) -> bool:
    """Whether the time that Python's search takes may grow by powers of the length of a text.

    It tries all ways in which something can be repeated, and there are that many where each turn can go several ways.
    """
    if isinstance(node, Repeat) and node.most != 1 and _varies(node.body):
        return True
    return any(map(may_be_slow, _parts(node)))


def _varies(node: Node) -> bool:
    varies = isinstance(node, Choice) or (isinstance(node, Repeat) and node.least != node.most)
    return varies or any(map(_varies, _parts(node)))


def _parts(node: Node) -> tuple[Node, ...]:
    match node:
        case Chain(several) | Choice(several):
            return several
        case Repeat() | Group():
            return (node.body,)
        case _:
            return ()


_WORD = rb"[0-9A-Z_a-z]"
_WORD_START = rb"(?<!" + _WORD + rb")(?=" + _WORD + rb")"
_WORD_END = rb"(?<=" + _WORD + rb")(?!" + _WORD + rb")"
_EDGE = rb"(?:" + _WORD_START + rb"|" + _WORD_END + rb")"

# Written out, since Python's \b and \B differ from version to version for an empty text.
_PLACES = {
    Place.START: rb"\A",
    Place.END: rb"\Z",
    Place.WORD_START: _WORD_START,
    Place.WORD_END: _WORD_END,
    Place.EDGE: _EDGE,
    Place.NO_EDGE: rb"(?!" + _EDGE + rb")",
}
_TIMES: Mapping[tuple[int, int | None], bytes] = {(0, None): b"*", (1, None): b"+", (0, 1): b"?"}


def _set(members: frozenset[int]) -> bytes:
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
