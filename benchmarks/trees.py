"""The trees that the rows work on."""

from __future__ import annotations

import os
import random
import shutil

SMALL = 1000


def plant(top: str, *, directories: int, files: int, size: int = SMALL) -> None:
    """``files`` files of ``size`` bytes, spread over ``directories`` directories below ``top``."""
    share, more = divmod(files, directories)
    block = random.Random(1).randbytes(size)
    os.makedirs(top, exist_ok=True)
    for number in range(directories):
        here = f"{top}/d{number:05}"
        os.mkdir(here)
        for count in range(share + (number < more)):
            fd = os.open(f"{here}/f{count:05}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            os.write(fd, block)
            os.close(fd)


def plant_directories(top: str, count: int) -> None:
    """``count`` empty directories, a hundred side by side at each level."""
    os.makedirs(top, exist_ok=True)
    level = [top]
    while count > 0:
        below: list[str] = []
        for here in level:
            for number in range(min(100, count)):
                os.mkdir(f"{here}/d{number:02}")
                below.append(f"{here}/d{number:02}")
            count -= min(100, count)
            if count <= 0:
                return
        level = below


def rewrite_all(top: str, suffix: bytes) -> int:
    """Give every file below ``top`` another content and size; the number of files."""
    changed = 0
    block = random.Random(2).randbytes(SMALL) + suffix
    for here, _, names in os.walk(top):
        for name in names:
            fd = os.open(f"{here}/{name}", os.O_WRONLY | os.O_TRUNC)
            os.write(fd, block)
            os.close(fd)
            changed += 1
    return changed


def clear(*tops: str) -> None:
    """Empty these directories, or make them."""
    for top in tops:
        shutil.rmtree(top, ignore_errors=True)
        os.makedirs(top, exist_ok=True)
