"""One small change at a time: how soon it arrives, what it costs, and whether it arrives at all."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator, Sequence

from benchmarks.bench import Bench, row
from benchmarks.measure import NEVER, Arrivals, holds, median, percentile, wait_until
from benchmarks.peers import CLSYNC, INSTEP, LSYNCD, Mirror, Tool, available
from benchmarks.places import Place
from benchmarks.table import Line, Reach
from benchmarks.trees import clear

_FILES = 50
_GAP_S = 0.06
"""Between two changes: rsync stays for 47 ms after its work is done, and lsyncd waits for it."""


@row("latency", "write → content at the target, and CPU per change")
def latency(bench: Bench) -> Iterator[Line]:
    for place in bench.places:
        ram = place is bench.places[0]
        half = Line(
            "write → content at target, p50", "ms", place.name, reaches=(Reach(1 / 15 if ram else 1 / 10, "lsyncd"),)
        )
        tail = Line("write → content at target, p99", "ms", place.name, reaches=(Reach(1 / 6, "lsyncd"),))
        cpu = Line("CPU per such change, children included", "ms", place.name, reaches=(Reach(1 / 25, "lsyncd"),))
        for _ in range(bench.rounds):
            for tool in available(INSTEP, LSYNCD, CLSYNC):
                # clsync takes a second for each.
                changes = bench.size(200, 20) if tool is not CLSYNC else bench.size(12, 3)
                latencies, cpu_s = one_at_a_time(tool, place, changes=changes)
                half.add(tool.name, 1e3 * median(latencies))
                tail.add(tool.name, 1e3 * percentile(latencies, 0.99))
                cpu.add(tool.name, 1e3 * cpu_s / changes)
        yield half
        yield tail
        yield cpu


def one_at_a_time(
    tool: Tool,
    place: Place,
    *,
    changes: int,
    far: bool = False,
    in_place: bool = False,
    gap_s: float = _GAP_S,
    options: Sequence[str] = (),
) -> tuple[list[float], float]:
    """Seconds until each of some changes arrived, and the CPU seconds of all; ``in_place``: as ``Arrivals``."""
    source, target = f"{place.path}/s", f"{place.far if far else place.path}/t"
    clear(source, target)
    for number in range(_FILES):
        with open(f"{source}/f{number}", "wb") as file:
            file.write(b"-" * 900)
    pause = random.Random(3)
    latencies: list[float] = []
    with Mirror(tool, source, target, options=options) as mirror, Arrivals(target, in_place=in_place) as arrivals:
        wait_until(lambda: holds(f"{target}/f{_FILES - 1}", b"-" * 900), 10)
        used_s = mirror.rested_usage_s()
        for number in range(changes):
            # Another size each time: rsync's quick check takes equal size within one second for equal content.
            name, content = f"f{number % _FILES}", b"%08d" % number * (125 + number % 7) + b"." * (number // _FILES)
            begin_s = time.monotonic()
            _overwrite(f"{source}/{name}", content)
            there = f"{target}/{name}"
            latencies.append(arrivals.wait(lambda there=there, content=content: holds(there, content), 10) - begin_s)  # type: ignore[misc]
            if gap_s:
                time.sleep(gap_s * pause.uniform(0.8, 1.2))
        return latencies, mirror.rested_usage_s() - used_s


def _overwrite(path: str, content: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.write(fd, content)
    os.close(fd)


@row("rewrite", "same-size rewrite within the same second")
def rewrite(bench: Bench) -> Iterator[Line]:
    place = bench.places[0]
    line = Line("same-size rewrites in the same second lost, of 12", "lost", place.name, reaches=(Reach(0),))
    for tool in available(INSTEP, LSYNCD, CLSYNC):
        line.add(tool.name, _lost_rewrites(tool, place))
    yield line
    line = Line("… through the rsync engine", "lost", place.name, reaches=(Reach(0),))
    line.add("instep", _lost_rewrites(INSTEP, place, options=["--engine", "rsync"]))
    yield line


def _lost_rewrites(tool: Tool, place: Place, *, options: Sequence[str] = (), tries: int = 12) -> float:
    source, target = f"{place.path}/s", f"{place.path}/t"
    clear(source, target)
    names = [f"f{number}" for number in range(tries)]
    with Mirror(tool, source, target, options=options):
        # From the start of a second on, there is time for both writes in it; 20 ms, for file times lag by up to a tick.
        time.sleep(1.02 - time.time() % 1)
        for name in names:
            _overwrite(f"{source}/{name}", b"aaa")
        second = int(os.stat(f"{source}/{names[0]}").st_mtime)
        if wait_until(lambda: all(holds(f"{target}/{name}", b"aaa") for name in names), 10) == NEVER:
            return tries
        for name in names:
            _overwrite(f"{source}/{name}", b"bbb")
            if int(os.stat(f"{source}/{name}").st_mtime) != second:
                # It was too slow to be tried within one second: the second write gets a time in that second, as a
                # program that sets times would do.
                os.utime(f"{source}/{name}", ns=(second * 10**9, second * 10**9 + 999_000_000))
        wait_until(lambda: all(holds(f"{target}/{name}", b"bbb") for name in names), 4, 0.01)
        return sum(not holds(f"{target}/{name}", b"bbb") for name in names)
