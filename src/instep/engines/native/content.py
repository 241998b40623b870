"""Bytes from one open file to another.

Facts, measured: read and write win below 1 MiB, copy_file_range above (it reflinks by itself on btrfs and xfs);
copy_file_range fills holes on tmpfs and ext4, so sparse files go extent by extent; ``bytearray == bytearray`` is
memcmp. FICLONE is ioctl 0x40049409 (linux/fs.h).
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable

SMALL_BYTES = 1 << 20
CHUNK_BYTES = 1 << 18
STRIDE_BYTES = 1 << 26
"""So much is copied by one system call: between two of them a copy can be cancelled."""
CLONE_MIN_BYTES = 1 << 26
FICLONE = 0x40049409

_NOT_BY_KERNEL = frozenset({errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM, errno.EBADF})


class Cancelled(Exception):
    """The copy was asked to stop; nothing has been published."""


class Brake:
    """Holds a copy to a rate, and stops it. Blocks the calling thread or process."""

    def __init__(self, bytes_per_s: float) -> None:
        self.bytes_per_s = bytes_per_s
        self.stopping = False
        self._free_s = 0.0

    def passed(self, count: int) -> None:
        """So many bytes went by; sleeps as long as they may take.

        Raises:
            Cancelled: when asked to stop.
        """
        if self.stopping:
            raise Cancelled
        if self.bytes_per_s < float("inf"):
            now_s = time.monotonic()
            self._free_s = max(self._free_s, now_s) + count / self.bytes_per_s
            if self._free_s > now_s:
                time.sleep(self._free_s - now_s)


def copy(source: int, target: int, info: os.stat_result, *, sparse: bool, brake: Brake | None) -> int:
    """Copy all of ``source`` (at offset 0, as fstat said ``info``) into the empty ``target``; how many bytes it took.

    A file that shrinks meanwhile is copied up to where it ends; the caller sees by another fstat that it changed.
    """
    size = info.st_size
    if size < SMALL_BYTES and brake is None and not (sparse and size > 4096 and info.st_blocks * 512 < size):
        data = os.read(source, size + 1)
        if data:
            written = os.write(target, data)
            if written < len(data):
                _write_all(target, data[written:])
            if len(data) > size:
                return len(data) + _copy_rest(source, target)
        return len(data)
    if size >= SMALL_BYTES and (brake is None or brake.bytes_per_s == float("inf")) and _clone(source, target):
        return size
    if sparse and info.st_blocks * 512 < size:
        return _copy_extents(source, target, size, brake)
    return _copy_range(source, target, 0, size, brake)


def same(one: int, other: int, size: int) -> bool:
    """Whether two files, both read from their start, hold the same ``size`` bytes and no more."""
    if size < CHUNK_BYTES:
        return os.pread(one, size + 1, 0) == os.pread(other, size + 1, 0)
    here, there = bytearray(CHUNK_BYTES), bytearray(CHUNK_BYTES)
    offset = 0
    while True:
        count = os.preadv(one, [here], offset)
        if os.preadv(other, [there], offset) != count:
            return False
        if not count:
            return True
        if count == CHUNK_BYTES:
            if here != there:
                return False
        elif here[:count] != there[:count]:
            return False
        offset += count


def patch(source: int, target: int, size: int, brake: Brake | None) -> int:
    """Make ``target`` equal to ``source`` by writing only the blocks that differ; how many bytes were written."""
    here, there = bytearray(CHUNK_BYTES), bytearray(CHUNK_BYTES)
    view = memoryview(here)
    offset = written = 0
    while offset < size:
        count = os.preadv(source, [here], offset)
        if not count:
            break
        got = os.preadv(target, [there], offset)
        if got != count or (here != there if count == CHUNK_BYTES else here[:count] != there[:count]):
            done = 0
            while done < count:
                done += os.pwrite(target, view[done:count], offset + done)
            written += count
        offset += count
        if brake is not None:
            brake.passed(count)
    os.ftruncate(target, offset)
    return written


def clone(source: int, target: int) -> bool:
    """Share the extents of ``source`` with the empty ``target`` if the file system can (btrfs, xfs, …)."""
    return _clone(source, target)


def _clone(source: int, target: int) -> bool:
    try:
        fcntl.ioctl(target, FICLONE, source)
    except OSError as error:
        if error.errno in _NOT_BY_KERNEL or error.errno in (errno.ENOTTY, errno.ETXTBSY):
            return False
        raise
    return True


def _copy_rest(source: int, target: int) -> int:
    total = 0
    while data := os.read(source, CHUNK_BYTES):
        _write_all(target, data)
        total += len(data)
    return total


def _write_all(target: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(target, view) :]


def _copy_extents(source: int, target: int, size: int, brake: Brake | None) -> int:
    os.ftruncate(target, size)
    offset = total = 0
    while offset < size:
        try:
            start = os.lseek(source, offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # lseek(2): no data from here to the end
                break
            raise
        offset = os.lseek(source, start, os.SEEK_HOLE)
        total += _copy_range(source, target, start, min(offset, size), brake)
    return total


def _copy_range(source: int, target: int, start: int, end: int, brake: Brake | None) -> int:
    offset = start
    stride = STRIDE_BYTES if brake is None or brake.bytes_per_s == float("inf") else CHUNK_BYTES
    step: Callable[[int, int, int, int], int] = _by_kernel
    while offset < end:
        try:
            count = step(source, target, min(stride, end - offset), offset)
        except OSError as error:
            if step is _by_kernel and error.errno in _NOT_BY_KERNEL:
                step = _by_hand
                continue
            raise
        if count == 0:
            break
        offset += count
        if brake is not None:
            brake.passed(count)
    return offset - start


def _by_kernel(source: int, target: int, count: int, offset: int) -> int:
    return os.copy_file_range(source, target, count, offset, offset)


def _by_hand(source: int, target: int, count: int, offset: int) -> int:
    data = os.pread(source, min(count, CHUNK_BYTES), offset)
    done = 0
    while done < len(data):
        done += os.pwrite(target, data[done:] if done else data, offset + done)
    return len(data)
