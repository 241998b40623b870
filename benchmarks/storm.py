"""A storm of random operations, faster than anything can follow one by one."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator

from benchmarks.bench import Bench, row
from benchmarks.measure import differences, wait_equal
from benchmarks.peers import INSTEP, LSYNCD, Mirror, available
from benchmarks.table import Line, Reach
from benchmarks.trees import clear

_DIRECTORIES = 400
_NAMES = 30


@row("storm", "300,000 random operations in 400 directories")
def storm(bench: Bench) -> Iterator[Line]:
    operations = bench.size(300_000, 5_000)
    place = bench.places[0]
    line = Line(f"storm of {operations:,} operations, end → equal", "s", place.name, reaches=(Reach(0.5),))
    cpu = Line("CPU of that storm", "s", place.name, reaches=(Reach(0.7, "lsyncd"),))
    lost = Line("… paths left different for good", "files", place.name, reaches=(Reach(0),))
    source, target = f"{place.path}/s", f"{place.path}/t"
    for number in range(bench.size(min(bench.rounds, 2), 1)):
        for tool in available(INSTEP, LSYNCD):
            clear(source, target)
            for directory in range(_DIRECTORIES):
                os.mkdir(f"{source}/d{directory}")
            with Mirror(tool, source, target) as mirror:
                wait_equal(source, target, 20)
                used_s = mirror.rested_usage_s()
                begin_s = time.monotonic()
                subprocess.run(
                    [sys.executable, "-m", __name__, source, str(operations), str(number)], check=True, cwd=_TOP
                )
                end_s = time.monotonic()
                line.note = f"the storm itself takes {end_s - begin_s:.1f} s"
                # Contents are compared afterwards: lsyncd loses some, which is another line's matter.
                line.add(tool.name, max(0.0, wait_equal(source, target, 60, content=False) - end_s))
                cpu.add(tool.name, mirror.rested_usage_s(20) - used_s)
                lost.add(tool.name, len(differences(source, target, most=1_000_000)))
    clear(source, target)
    yield line
    yield cpu
    yield lost


_TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def rage(source: str, operations: int, seed: int) -> None:
    """Write, append, remove, rename at random; the same for the same seed."""
    dice = random.Random(seed)
    content = dice.randbytes(4096)
    for _ in range(operations):
        path = f"{source}/d{dice.randrange(_DIRECTORIES)}/f{dice.randrange(_NAMES)}"
        kind = dice.random()
        try:
            if kind < 0.55:
                flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if kind < 0.4 else os.O_APPEND)
                fd = os.open(path, flags, 0o644)
                os.write(fd, content[: dice.randrange(1, 2048)])
                os.close(fd)
            elif kind < 0.75:
                os.unlink(path)
            elif kind < 0.95:
                os.rename(path, f"{source}/d{dice.randrange(_DIRECTORIES)}/f{dice.randrange(_NAMES)}")
            else:
                os.chmod(path, dice.choice((0o600, 0o644, 0o640)))
        except FileNotFoundError:
            continue


if __name__ == "__main__":
    rage(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
