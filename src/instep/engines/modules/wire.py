"""What goes between the daemon and the process of a module, over one pair of SOCK_SEQPACKET sockets.

Requests are cut into pieces, each a record that begins with 1, or 0 for the last. Answers are one record each: a
letter, numbers, and two texts with a NUL between. Numbers have 4 bytes, native order. In a request a text is its
length, the bytes and a NUL; an absent one is a length of 2^32 - 1. The other end is ``host.c`` of the sharedobject
engine, or ``host.py`` of the pymodule engine; an empty request asks it to wind up and end.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

PIECE_BYTES = 32768
RECORD_BYTES_MAX = 65536
"""A record goes whole or not at all, and has room in a socket's default buffer."""
TEXT_BYTES_MAX = 60000

CRITICAL, ERROR, WARNING, INFO, DEBUG_BASE = range(5)
"""Levels of messages; debug level n is DEBUG_BASE + n."""

NUMBER = struct.Struct("=I")
SIGNED = struct.Struct("=i")
FLAG = struct.Struct("=II")
"""Index and value."""
EVENT = struct.Struct("=IIiiI")
"""Mask, flags, what it was, what it is, length of the path; the path and a NUL follow."""
RECURSIVE = 1
"""The only flag."""
_MESSAGE = struct.Struct("=ii")
_ABSENT = 0xFFFFFFFF


class Done(NamedTuple):
    """A function returned; init and deinit too, also where there is none."""

    status: int


class Unusable(NamedTuple):
    """The module cannot be used; the process ends."""

    why: str
    """``load``, or ``function``: it lacks the one that is needed."""
    text: str


class Message(NamedTuple):
    """What the module has to say to people."""

    level: int
    errno: int
    function: str
    text: str


def text(value: bytes | None) -> bytes:
    """A text in a request."""
    return NUMBER.pack(_ABSENT) if value is None else NUMBER.pack(len(value)) + value + b"\0"


def pieces(request: bytes) -> Iterator[bytes]:
    """The records that a request goes in."""
    for start in range(0, len(request) or 1, PIECE_BYTES):
        more = start + PIECE_BYTES < len(request)
        yield (b"\1" if more else b"\0") + request[start : start + PIECE_BYTES]


def answer(record: bytes) -> Done | Unusable | Message:
    """What a record from the module's process says."""
    kind, rest = record[:1], record[1:]
    if kind == b"D":
        return Done(SIGNED.unpack(rest)[0])
    texts = rest[_MESSAGE.size if kind == b"L" else 0 :].decode(errors="backslashreplace")
    first, _, second = texts.partition("\0")
    if kind == b"L":
        level, errno = _MESSAGE.unpack_from(rest)
        return Message(level, errno, first, second)
    return Unusable(first, second)


def encode_done(status: int) -> bytes:
    """The record of a Done."""
    return b"D" + SIGNED.pack(status)


def encode_unusable(why: str, text: str) -> bytes:
    """The record of an Unusable."""
    return b"X" + why.encode() + b"\0" + _shortened(text)


def encode_message(level: int, function: str, text: str) -> bytes:
    """The record of a Message."""
    return b"L" + _MESSAGE.pack(level, 0) + function.encode(errors="replace") + b"\0" + _shortened(text)


class Request:
    """Takes a request apart, in its order."""

    def __init__(self, request: bytes) -> None:
        self._bytes = request
        self._at = 0

    def number(self) -> int:
        """The next unsigned number."""
        return self._unpack(NUMBER)[0]

    def signed(self) -> int:
        """The next signed number."""
        return self._unpack(SIGNED)[0]

    def text(self) -> bytes:
        """The next text, which is there."""
        found = self.text_or_none()
        assert found is not None
        return found

    def text_or_none(self) -> bytes | None:
        """The next text; None: absent."""
        length = self.number()
        return None if length == _ABSENT else self._take(length)

    def event(self) -> tuple[bytes, int, bool, int, int]:
        """The next event: path, mask, whether recursive, what it was, what it is."""
        mask, flags, old, new, length = self._unpack(EVENT)
        return self._take(length), mask, bool(flags & RECURSIVE), old, new

    def _unpack(self, form: struct.Struct) -> tuple[int, ...]:
        values = form.unpack_from(self._bytes, self._at)
        self._at += form.size
        return values

    def _take(self, length: int) -> bytes:
        start = self._at
        self._at += length + 1
        return self._bytes[start : start + length]


def _shortened(text: str) -> bytes:
    """The end is what counts of a traceback."""
    return text.encode(errors="backslashreplace")[-TEXT_BYTES_MAX:]
