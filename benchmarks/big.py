"""A big file of which little changes."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator, Sequence

from benchmarks.bench import Bench, row
from benchmarks.measure import NEVER, wait_until
from benchmarks.peers import INSTEP, Mirror, run
from benchmarks.table import Line, Reach
from benchmarks.trees import clear

_BLOCK = 4096
_CHUNK = 1 << 24


@row("big", "1 GiB file, 100 random 4 KiB blocks changed")
def big(bench: Bench) -> Iterator[Line]:
    place = bench.places[0]
    size = bench.size(1 << 30, 1 << 27)
    title = f"{size >> 20} MiB file, 100 random blocks changed"
    patched = Line(f"{title}, in place", "s", place.name, reaches=(Reach(0.35, "rsync"),))
    patched.note = (
        "rsync: -a --modify-window=-1 --inplace --no-whole-file; "
        "instep: --inplace-from 64M, live, from the first write on"
    )
    atomic = Line(f"{title}, atomic (default)", "s", place.name, note="rsync: -a --modify-window=-1 --no-whole-file")
    source, target = f"{place.path}/s", f"{place.path}/t"
    clear(source, target)
    fill(f"{source}/big", size)
    dice = random.Random(5)
    for _ in range(bench.rounds):
        for line, ours, theirs in (
            (patched, ["--inplace-from", "64M"], ["--inplace", "--no-whole-file"]),
            (atomic, [], ["--no-whole-file"]),
        ):
            mirror = Mirror(INSTEP, source, target, options=ours)
            change_for_both(line, mirror, [*theirs, f"{source}/", f"{target}/"], size, dice)
    clear(source, target)
    yield patched
    yield atomic


def change_for_both(line: Line, mirror: Mirror, to_rsync: Sequence[str], size: int, dice: random.Random) -> None:
    """How long ours takes for some changed blocks of the file ``big``, and then rsync, which is told this besides -a.

    Each once unmeasured: memory that a virtual machine touches for the first time costs several times more.
    """
    ours, theirs = f"{mirror.source}/big", f"{mirror.targets[0]}/big"
    with mirror:
        wait_until(lambda: same_stat(ours, theirs), 60)
        mirror.rested_usage_s()
        change(ours, size, dice)
        arrived(ours, theirs)
        mirror.rested_usage_s()
        begin_s = time.monotonic()
        change(ours, size, dice)
        line.add("instep", arrived(ours, theirs) - begin_s)
    # By default rsync takes equal size within one second for equal content, and would do nothing.
    command = ["rsync", "-a", "--modify-window=-1", *to_rsync]
    change(ours, size, dice)
    run(command)
    change(ours, size, dice)
    line.add("rsync", run(command).wall_s)


def fill(path: str, size: int) -> None:
    with open(path, "wb") as file:
        file.writelines(
            random.Random(offset).randbytes(min(_CHUNK, size - offset)) for offset in range(0, size, _CHUNK)
        )


def change(path: str, size: int, dice: random.Random) -> None:
    fd = os.open(path, os.O_WRONLY)
    for _ in range(100):
        os.pwrite(fd, dice.randbytes(_BLOCK), dice.randrange(size // _BLOCK) * _BLOCK)
    os.close(fd)


def same_stat(ours: str, theirs: str) -> bool:
    try:
        a, b = os.stat(ours), os.stat(theirs)
    except OSError:
        return False
    return (a.st_size, a.st_mtime_ns) == (b.st_size, b.st_mtime_ns)


def arrived(ours: str, theirs: str) -> float:
    """The time when size and time were equal, with the content, which is looked at afterwards."""
    end_s = time.monotonic() + 60
    while time.monotonic() < end_s:
        at_s = wait_until(lambda: same_stat(ours, theirs), 60, 0.001)
        if at_s == NEVER or _same_content(ours, theirs):
            return at_s
    return NEVER


def _same_content(ours: str, theirs: str) -> bool:
    with open(ours, "rb") as a, open(theirs, "rb") as b:
        while True:
            block = a.read(_CHUNK)
            if block != b.read(_CHUNK):
                return False
            if not block:
                return True
