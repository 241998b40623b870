"""A process that makes trouble in a tree: ``python writers.py ROOT OUTSIDE SEED COUNT PAUSE_S``."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import sys
import time
from collections.abc import Callable

AT_FDCWD = -100
RENAME_EXCHANGE = 2
NAMES = (b"a", b"b", b"c", b"d\xff")
PIECE = 40_000


Act = Callable[[bytes, bytes], object]


def exchange(one: bytes, other: bytes) -> None:
    """renameat2(2) with RENAME_EXCHANGE."""
    rename = ctypes.CDLL(None, use_errno=True).renameat2
    if rename(AT_FDCWD, ctypes.c_char_p(one), AT_FDCWD, ctypes.c_char_p(other), RENAME_EXCHANGE) != 0:
        raise OSError(ctypes.get_errno(), "renameat2")


def disturb(root: bytes, outside: bytes, seed: int, count: int, pause_s: float) -> None:
    """Random operations on a small tree, so that names meet again and again."""
    draw = random.Random(seed)

    def place() -> bytes:
        return b"/".join([root, *(draw.choice(NAMES) for _ in range(draw.randint(1, 4)))])

    def away() -> bytes:
        return outside + b"/" + draw.choice(NAMES)

    def content() -> bytes:
        # Few sizes, so that equal sizes with other bytes are common; now and then more than one page.
        return draw.randbytes(draw.choice((0, 3, 3, 3, 8, 8, PIECE)))

    def write(path: bytes, flags: int) -> None:
        fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | flags, 0o644)
        try:
            os.write(fd, content())
        finally:
            os.close(fd)

    def grow(one: bytes, _: bytes) -> None:
        os.makedirs(one + b"/a/" + draw.choice(NAMES), exist_ok=True)
        write(one + b"/f", os.O_CREAT)

    def save(path: bytes) -> None:
        beside = path + b".new"
        write(beside, os.O_CREAT | os.O_TRUNC)
        os.rename(beside, path)

    def rewrite_keeping_time(path: bytes) -> None:
        info = os.lstat(path)
        if info.st_size:
            write(path, 0)
            os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns), follow_symlinks=False)

    def move_three(one: bytes, other: bytes) -> None:
        aside = one + b".aside"
        os.rename(one, aside)
        os.rename(other, one)
        os.rename(aside, other)

    def remove(one: bytes) -> None:
        # Not by shutil.rmtree or os.fwalk: they wait for ever at a FIFO that took a directory's name.
        if os.path.islink(one):
            return  # os.walk would follow it, and ".." leads to the target.
        for directory, _, names in os.walk(one, topdown=False):
            for name in names:
                with contextlib.suppress(OSError):
                    os.unlink(directory + b"/" + name)
            os.rmdir(directory)

    def fro(one: bytes, other: bytes) -> None:
        os.rename(one, other)
        os.rename(other, one)
        os.rename(one, other)

    table: list[tuple[int, Act]] = [
        (14, lambda one, _: os.mkdir(one)),
        (6, grow),
        (12, lambda one, _: write(one, os.O_CREAT)),
        (4, lambda one, _: write(one, os.O_APPEND)),
        (5, lambda one, _: save(one)),
        (4, lambda one, _: rewrite_keeping_time(one)),
        (6, lambda one, _: os.unlink(one)),
        (5, lambda one, _: os.rmdir(one)),
        (4, lambda one, _: remove(one)),
        (18, os.rename),
        (4, lambda one, _: os.rename(one, away())),
        (4, lambda one, _: os.rename(away(), one)),
        (4, exchange),
        (3, move_three),
        (4, fro),
        (4, lambda one, _: os.chmod(one, draw.choice((0o755, 0o700, 0o644, 0o4711)))),
        (3, lambda one, _: os.symlink(draw.choice((b"x", b"..", b"a", outside)), one)),
        (4, lambda one, other: os.link(one, other, follow_symlinks=False)),
        (2, lambda one, _: os.utime(one, ns=(0, draw.randint(0, 3) * 10**9), follow_symlinks=False)),
        (2, lambda one, _: os.truncate(one, draw.randint(0, 50))),
        (1, lambda one, _: os.mkfifo(one)),
        (1, lambda one, _: os.makedirs(away() + b"/a/b", exist_ok=True)),
    ]  # fmt: skip
    weights = [weight for weight, _ in table]
    for _ in range(count):
        (_, act), one, other = draw.choices(table, weights)[0], place(), place()
        with contextlib.suppress(OSError):
            act(one, other)
        if pause_s and draw.random() < 0.05:
            time.sleep(draw.random() * pause_s)


if __name__ == "__main__":
    disturb(os.fsencode(sys.argv[1]), os.fsencode(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]))
