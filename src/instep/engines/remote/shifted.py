"""Whether the content of a large file has shifted, and how to make it of what the target has. Pure.

Blocks at fixed offsets find what was changed in place. After bytes are put in near the start of a file none of them is
equal any more, and all of the rest would be sent. Then both sides cut their versions into chunks where the content
itself says so (``agent.Cut``): most of these are the same, wherever they stand, and only the others are sent.

Not rsync, though it could do the same: it would need a login of its own and a shell over there, which a key for one
directory does not give, and a second way to write that is as careful as the agent is.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from instep.engines.remote import agent

STRETCH_BYTES = 1 << 20
"""So long must a stretch be in which most blocks differ before anything else is suspected …"""
STRETCH_PART = 16
"""… and the rest of the file at most so many times as long, for that is what the suspicion costs to look at."""
WORTH_BYTES = 2 << 20
"""Less than this is sent, wherever it may come from."""
LARGEST = 64 << 30
"""Larger files are not cut into chunks: there would be too many of them, or too large ones."""
AVERAGE_LEAST, AVERAGE_MOST = 8 << 10, 512 << 10
CHUNKS = 1 << 14
"""A file has about so many, once that makes them longer than the least average: rsync has as many blocks at 256 MiB."""
LOOK_BYTES = 64 << 20
"""With so much of both versions cut, and nothing in common, it is another file."""
MARKS, MARK_BYTES = 8, 128
"""So many bytes are tried that occur about once in so many."""
PLACE_BYTES = 1024
"""A chunk may end at about one in so many places."""
OFF_MAX = 3.0
"""A part that is so much off (as a logarithm) is lost, however much more it is."""
MASK_BITS_MAX = 5
"""Taking even fewer of the places would cost more than shorter chunks do."""


class Piece(NamedTuple):
    """A stretch of a file."""

    offset: int
    length: int
    is_hole: bool = False
    there: int = -1
    """Where it stands in the target's version; -1: it has to be sent."""


Chunk = tuple[int, bytes]
"""Length and digest."""


class Suspicion:
    """Holds differing blocks back while they lie so dense that they may only have shifted."""

    def __init__(self, size: int) -> None:
        """``size`` is our file's."""
        self._size = size
        self._held: list[Piece] = []
        self._held_bytes = 0
        self.shifted_from = -1
        """Where the stretch begins from which on most differs; -1 as long as there is no such thing."""

    def sift(self, differing: Sequence[Piece], compared: int) -> list[Piece]:
        """What is to be sent of the blocks that were found to differ, all before ``compared`` being compared."""
        self._held += differing
        self._held_bytes += sum(piece.length for piece in differing)
        if not self._held:
            return []
        begin = self._held[0].offset
        length = compared - begin
        if self._held_bytes * 4 < length * 3:
            return self.release()
        rest = self._size - begin
        if WORTH_BYTES <= rest <= LARGEST and length >= max(STRETCH_BYTES, rest / STRETCH_PART):
            self.shifted_from = begin
            self._held.clear()
        return []

    def release(self) -> list[Piece]:
        """What was held back is to be sent after all."""
        held, self._held, self._held_bytes = self._held, [], 0
        return held


def worth_a_look(rest: int) -> bool:
    """Whether so much of a file is looked for at the target, where that has something to look in."""
    return WORTH_BYTES <= rest <= LARGEST


def choose(samples: Sequence[bytes], size: int) -> agent.Cut:
    """Where to cut a file of this size with content like this: so that chunks are neither too long nor too short.

    A chunk may end after a certain byte and one of some others, which is found at the speed of memory, and does so for
    one such place in so many, by a checksum, which is not. How often these bytes occur depends on the content, so they
    and how many places are taken are chosen by that: noise, text and records fall into chunks of about the same length.
    """
    average = AVERAGE_LEAST
    while average < AVERAGE_MOST and average * CHUNKS < size:
        average *= 2
    often = Counter(b"".join(samples))
    total = often.total() or 1
    wanted = total / max(1, len(samples)) / PLACE_BYTES
    found: list[tuple[float, int, bytes, float]] = []
    for mark in sorted(often, key=lambda byte: abs(math.log(often[byte] * MARK_BYTES / total)))[:MARKS]:
        follows = _some_of(mark, samples, total / PLACE_BYTES)
        if not follows:
            continue
        search = re.compile(re.escape(bytes((mark,))) + b"[" + re.escape(follows) + b"]", re.DOTALL)
        # In each part by itself: a file may hold content of several kinds.
        counts = [len(search.findall(sample)) for sample in samples]
        off = sum(min(OFF_MAX, abs(math.log((count or 0.1) / wanted))) for count in counts)
        found.append((off, mark, follows, sum(min(count, 4 * wanted) for count in counts)))
    _, mark, follows, seen = min(found, default=(0.0, 0, b"\1", 0.0))
    places = seen / total * (average - average // 4)
    bits = min(MASK_BITS_MAX, max(0, round(math.log2(places)))) if places > 0 else 0
    return agent.Cut(mark, follows, (1 << bits) - 1, average // 4, average * 4)


def _some_of(mark: int, samples: Sequence[bytes], wanted: float) -> bytes:
    """So many of the bytes that come after this one that the pairs are about as often as wanted."""
    often: Counter[int] = Counter()
    for sample in samples:
        often.update(part[0] for part in sample.split(bytes((mark,)))[1:] if part)
    chosen = bytearray()
    for byte in sorted(often, key=lambda byte: (byte * 151 + mark) % 256):
        if often[byte] <= wanted:
            chosen.append(byte)
            wanted -= often[byte]
    if not chosen and often:
        chosen.append(min(often, key=lambda byte: (often[byte], byte)))
    return bytes(chosen)


class Chunks:
    """The target's chunks, as they become known."""

    def __init__(self, start: int) -> None:
        self.end = start
        self._list: list[tuple[int, bytes, int]] = []
        self._index: dict[bytes, int] = {}

    @property
    def count(self) -> int:
        """How many are known."""
        return len(self._list)

    def add(self, chunks: Iterable[Chunk]) -> None:
        """The next ones."""
        for length, digest in chunks:
            self._index.setdefault(digest, len(self._list))
            self._list.append((length, digest, self.end))
            self.end += length

    def have_any(self, chunks: Iterable[Chunk]) -> bool:
        """Whether any of these is among them."""
        return any(digest in self._index for _, digest in chunks)

    def plan(self, ours: Iterable[Chunk], offset: int) -> Iterator[Piece]:
        """What our file is made of from an offset on: neighbours are one piece. Its chunks must be in their order."""
        piece = Piece(offset, 0)
        following = -1
        for length, digest in ours:
            # Of several that are equal the one after the last is best: then both are one stretch.
            if not (0 <= following < len(self._list) and self._list[following][1] == digest):
                following = self._index.get(digest, -1)
            there = -1
            if following >= 0:
                there = self._list[following][2]
                following += 1
            joins = there == (piece.there + piece.length if piece.there >= 0 else -1)
            if joins:
                piece = piece._replace(length=piece.length + length)
                continue
            if piece.length:
                yield piece
            piece = Piece(piece.offset + piece.length, length, there=there)
        if piece.length:
            yield piece


def unpack_chunks(packed: bytes) -> list[Chunk]:
    """The chunks of a SIGNED frame.

    Raises:
        agent.ProtocolError: these are none.
    """
    each = agent.CHUNK.size + agent.DIGEST
    if len(packed) % each:
        raise agent.ProtocolError("cut short")
    found = []
    for at in range(0, len(packed), each):
        (length,) = agent.CHUNK.unpack_from(packed, at)
        found.append((length, packed[at + agent.CHUNK.size : at + each]))
    return found
