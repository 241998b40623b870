"""What of a large file stands somewhere else at the target: both sides cut theirs into chunks at the same time."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Iterator

from instep.engines.remote import agent
from instep.engines.remote.shifted import LOOK_BYTES, Chunk, Chunks, Piece, choose, unpack_chunks
from instep.errors import TargetAway

SAMPLES, SAMPLE_BYTES = 8, 64 << 10
CHUNKS_MAX = 1 << 19
"""A file that is cut has fewer; who tells of more fills our memory."""


class Unreadable(Exception):
    """The target could not read its version, or not write what is made of it."""

    def __init__(self, number: int) -> None:
        """``number``: why."""
        super().__init__(os.strerror(number))
        self.number = number


def cut_for(fd: int, offset: int, size: int) -> agent.Cut:
    """How to cut our file from an offset on. Reads some of it; OSError when that cannot be done."""
    step = max(SAMPLE_BYTES, (size - offset) // SAMPLES)
    return choose([os.pread(fd, SAMPLE_BYTES, at) for at in range(offset, size, step)][:SAMPLES], size)


async def match(
    ours: Iterator[Chunk], offset: int, theirs: Chunks, signed: Callable[[], Awaitable[bytes]]
) -> list[Piece] | None:
    """What our file is made of from an offset on; None when both have nothing in common, as far as was looked.

    Args:
        ours: Cuts our file, in a thread.
        offset: Where that begins.
        theirs: Filled with the target's chunks.
        signed: Awaits the next frame of these.

    Raises:
        TargetAway: The connection is lost.
        Unreadable: The target could not read its version.
        OSError: Ours cannot be read.
    """
    found: list[Chunk] = []
    stop = threading.Event()
    cutting = asyncio.get_running_loop().run_in_executor(None, _cut, ours, found, stop)
    try:
        start, looked = theirs.end, False
        while True:
            body = await signed()
            _, kind, number = agent.SIGNED_BODY.unpack_from(body)
            if number:
                raise Unreadable(number)
            theirs.add(unpack_chunks(body[agent.SIGNED_BODY.size :]))
            if theirs.count > CHUNKS_MAX:
                raise TargetAway("the agent told of more chunks than there can be")
            if kind & agent.LAST:
                break
            if not looked and theirs.end - start >= LOOK_BYTES:
                enough = list(found)
                looked = cutting.done() or sum(length for length, _ in enough) >= LOOK_BYTES
                if looked and not theirs.have_any(enough):
                    return None
        await cutting
        pieces = list(theirs.plan(found, offset))
        return pieces if any(piece.there >= 0 for piece in pieces) else None
    finally:
        stop.set()
        await asyncio.gather(cutting, return_exceptions=True)


def _cut(chunks: Iterator[Chunk], found: list[Chunk], stop: threading.Event) -> None:
    """Cut our file until there is no more of it, or none is wanted."""
    for chunk in chunks:
        found.append(chunk)
        if stop.is_set():
            return


def copy_operation(number: int, piece: Piece) -> bytes:
    """Have the target take a piece from its own version; of no length: and say when all of that is done."""
    where = agent.STREAM.pack(number, piece.offset)
    return agent.operation(agent.COPY, 0, b"", where + agent.COPIED.pack(max(0, piece.there), piece.length))
