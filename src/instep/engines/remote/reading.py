"""Our side of a large file: what is to be read of it, and when. Blocks; but for ``rested`` it belongs in a thread."""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections.abc import Callable, Iterable, Iterator

from instep.engines.remote import agent
from instep.engines.remote.shifted import Piece

CHUNK_BYTES = 256 << 10
REST_BYTES_PER_S, REST_MIN_S, REST_MAX_S, REST_TRIES = 64 << 30, 0.001, 0.02, 4
"""How long a large file is to rest before it is read: a hundredth of what it takes to read it."""
ZEROS = bytes(agent.BLOCK)


def differing(
    fd: int,
    offset: int,
    digests: list[bytes],
    info: os.stat_result,
    digest: Callable[[object], bytes],
    *,
    sparse: bool,
) -> list[Piece]:
    """The blocks from an offset on that have other digests than these; ``sparse``: zeros may be holes."""
    sparse = sparse and info.st_blocks * 512 < info.st_size
    pieces: list[Piece] = []
    buffer = bytearray(agent.BLOCK)
    view = memoryview(buffer)
    for theirs in digests:
        count = os.preadv(fd, [buffer], offset)
        count = min(count, info.st_size - offset)  # it may be growing
        if count <= 0:
            break
        ours = view[:count]
        if digest(ours) != theirs:
            # Read again when it is sent: memory stays bounded.
            pieces.append(Piece(offset, count, sparse and buffer[:count] == ZEROS[:count]))
        offset += count
        if count < agent.BLOCK:
            break
    return pieces


async def rested(fd: int) -> os.stat_result:
    """What an open file is, once nobody has written to it for a moment, if that comes soon.

    The first report of a change often comes in the midst of it, and then all was read in vain. The moment is a small
    part of what that takes; for all but the largest files none at all.
    """
    info = os.fstat(fd)
    pause_s = min(REST_MAX_S, info.st_size / REST_BYTES_PER_S)
    for _ in range(REST_TRIES):
        if pause_s < REST_MIN_S or not 0 <= time.time() - info.st_mtime < pause_s:
            break
        await asyncio.sleep(pause_s)
        info = os.fstat(fd)
    return info


def same(before: os.stat_result, after: os.stat_result) -> bool:
    """Whether an open file was not written to, nor changed in any other way, between these looks at it."""
    return (before.st_mtime_ns, before.st_ctime_ns, before.st_size) == (
        after.st_mtime_ns,
        after.st_ctime_ns,
        after.st_size,
    )


def within(pieces: Iterable[Piece], size: int) -> list[Piece]:
    """Nothing past the size that the agent was told: the file may have grown since."""
    return [piece._replace(length=min(piece.length, size - piece.offset)) for piece in pieces if piece.offset < size]


def extents(fd: int, offset: int, size: int, info: os.stat_result) -> Iterator[Piece]:
    """What has to be sent from an offset on up to ``size``; holes as such."""
    sparse = info.st_blocks * 512 < info.st_size
    while offset < size:
        start, end = offset, size
        if sparse:
            try:
                start = os.lseek(fd, offset, os.SEEK_DATA)
                end = min(size, os.lseek(fd, start, os.SEEK_HOLE))
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                start = end = size  # lseek(2): no data from here to the end
        start = min(start, size)
        if start > offset:
            yield Piece(offset, start - offset, is_hole=True)
        while start < end:
            count = min(CHUNK_BYTES, end - start)
            yield Piece(start, count)
            start += count
        offset = max(end, start)
