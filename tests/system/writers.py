"""A process that makes trouble in a tree: ``python writers.py ROOT OUTSIDE SEED COUNT PAUSE_S``.

It never follows a link, whoever plants it at whatever moment: below the root only single names are used, each relative
to the descriptor of a directory that was reached without links. What it does stays in ROOT and OUTSIDE.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import sys
import time
from collections.abc import Callable, Sequence

AT_FDCWD = -100
RENAME_EXCHANGE = 2
NAMES = (b"a", b"b", b"c", b"d\xff")
PIECE = 40_000
MODES = (0o755, 0o700, 0o644 if os.geteuid() == 0 else 0o750, 0o4711)
"""Directories too may get them: whoever is not root has to be able to read and search those."""
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

Act = Callable[[bytes, bytes], object]


def exchange(one: bytes, other: bytes) -> None:
    """renameat2(2) with RENAME_EXCHANGE."""
    rename = ctypes.CDLL(None, use_errno=True).renameat2
    if rename(AT_FDCWD, ctypes.c_char_p(one), AT_FDCWD, ctypes.c_char_p(other), RENAME_EXCHANGE) != 0:
        raise OSError(ctypes.get_errno(), "renameat2")


def descend(top: bytes, names: Sequence[bytes]) -> bytes:
    """The path of the last name by the descriptor of its directory, which the caller closes by ``let_go``."""
    here = os.open(top, DIRECTORY)
    for name in names[:-1]:
        try:
            below = os.open(name, DIRECTORY, dir_fd=here)
        finally:
            os.close(here)
        here = below
    return b"/proc/self/fd/%d/%s" % (here, names[-1])


def let_go(path: bytes) -> None:
    """The counterpart of ``descend``."""
    os.close(int(path.split(b"/")[4]))


def remove_tree(path: bytes) -> None:
    """Remove a directory with all below; not by shutil.rmtree, which waits for ever at a FIFO that took its name."""
    fd = os.open(path, DIRECTORY)
    try:
        for name in os.listdir(b"/proc/self/fd/%d" % fd):
            below = b"/proc/self/fd/%d/%s" % (fd, name)
            try:
                os.unlink(below)
            except IsADirectoryError:
                with contextlib.suppress(OSError):
                    remove_tree(below)
            except OSError:
                continue
    finally:
        os.close(fd)
    os.rmdir(path)


def disturb(root: bytes, outside: bytes, seed: int, count: int, pause_s: float) -> None:
    """Random operations on a small tree, so that names meet again and again."""
    draw = random.Random(seed)

    def place() -> list[bytes]:
        return [draw.choice(NAMES) for _ in range(draw.randint(1, 4))]

    def away() -> bytes:
        return outside + b"/" + draw.choice(NAMES)

    def content() -> bytes:
        # Few sizes, so that equal sizes with other bytes are common; now and then more than one page.
        return draw.randbytes(draw.choice((0, 3, 3, 3, 8, 8, PIECE)))

    def on_file(path: bytes, flags: int, act: Callable[[int], object]) -> None:
        fd = os.open(path, os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC | flags, 0o644)
        try:
            act(fd)
        finally:
            os.close(fd)

    def write(path: bytes, flags: int) -> None:
        on_file(path, os.O_WRONLY | flags, lambda fd: os.write(fd, content()))

    def grow(one: bytes, _: bytes) -> None:
        name = draw.choice(NAMES)
        with contextlib.suppress(FileExistsError):
            os.mkdir(one)
        for names in ([b"a"], [b"a", name]):
            path = descend(one, names)
            try:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(path)
            finally:
                let_go(path)
        path = descend(one, [b"f"])
        try:
            write(path, os.O_CREAT)
        finally:
            let_go(path)

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

    def fro(one: bytes, other: bytes) -> None:
        os.rename(one, other)
        os.rename(other, one)
        os.rename(one, other)

    def take_the_place(one: bytes, other: bytes) -> None:
        """What was there for a moment, with what came into the other meanwhile, is soon told from it no more."""
        os.mkdir(other)
        path = descend(one, [draw.choice(NAMES)])
        try:
            write(path, os.O_CREAT)
        finally:
            let_go(path)
        os.rmdir(other)
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
        (4, lambda one, _: remove_tree(one)),
        (18, os.rename),
        (4, lambda one, _: os.rename(one, away())),
        (4, lambda one, _: os.rename(away(), one)),
        (4, exchange),
        (3, move_three),
        (4, fro),
        (4, take_the_place),
        (4, lambda one, _: on_file(one, os.O_RDONLY, lambda fd: os.fchmod(fd, draw.choice(MODES)))),
        (3, lambda one, _: os.symlink(draw.choice((b"x", b"..", b"a", outside)), one)),
        (4, lambda one, other: os.link(one, other, follow_symlinks=False)),
        (2, lambda one, _: os.utime(one, ns=(0, draw.randint(0, 3) * 10**9), follow_symlinks=False)),
        (2, lambda one, _: on_file(one, os.O_WRONLY, lambda fd: os.ftruncate(fd, draw.randint(0, 50)))),
        (1, lambda one, _: os.mkfifo(one)),
        (1, lambda one, _: os.makedirs(away() + b"/a/b", exist_ok=True)),
    ]  # fmt: skip
    weights = [weight for weight, _ in table]
    for _ in range(count):
        (_, act), names, others = draw.choices(table, weights)[0], place(), place()
        with contextlib.suppress(OSError), contextlib.ExitStack() as opened:
            one = descend(root, names)
            opened.callback(let_go, one)
            other = descend(root, others)
            opened.callback(let_go, other)
            act(one, other)
        if pause_s and draw.random() < 0.05:
            time.sleep(draw.random() * pause_s)


if __name__ == "__main__":
    top, beside, number, operations, pause = sys.argv[1:6]
    disturb(os.fsencode(top), os.fsencode(beside), int(number), int(operations), float(pause))
