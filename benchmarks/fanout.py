"""One source, sixteen targets."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator

from benchmarks.bench import Bench, row
from benchmarks.measure import Arrivals, holds, median
from benchmarks.peers import INSTEP, Mirror
from benchmarks.table import Line, Reach
from benchmarks.trees import clear

_TARGETS = 16


@row("fanout", "16 local targets, one small change to all")
def fanout(bench: Bench) -> Iterator[Line]:
    place = bench.places[0]
    line = Line(f"one small change until all {_TARGETS} targets have it, p50", "ms", place.name)
    line.reaches = (Reach(1 / 50, "rsync"),)
    line.note = "rsync: sixteen rsync -a at once"
    source = f"{place.path}/s"
    targets = [f"{place.path}/t{number}" for number in range(_TARGETS)]
    for _ in range(bench.rounds):
        clear(source, *targets)
        with Arrivals(targets) as arrivals:
            with Mirror(INSTEP, source, *targets) as mirror:
                mirror.rested_usage_s()
                line.add("instep", _until_all(source, targets, arrivals, by_rsync=False, changes=bench.size(100, 10)))
            line.add("rsync", _until_all(source, targets, arrivals, by_rsync=True, changes=bench.size(10, 2)))
    clear(source, *targets)
    yield line


def _until_all(source: str, targets: list[str], arrivals: Arrivals, *, by_rsync: bool, changes: int) -> float:
    latencies: list[float] = []
    for number in range(changes):
        content = b"%d" % number * (number + 1)
        begin_s = time.monotonic()
        with open(f"{source}/f", "wb", buffering=0) as file:
            file.write(content)
        started = (
            [subprocess.Popen(["rsync", "-a", f"{source}/", f"{target}/"]) for target in targets] if by_rsync else []
        )
        left = list(targets)

        def reached(left: list[str] = left, content: bytes = content) -> bool:
            while left and holds(f"{left[-1]}/f", content):
                left.pop()
            return not left

        latencies.append(1e3 * (arrivals.wait(reached, 20) - begin_s))
        for process in started:
            process.wait(20)
        time.sleep(0.03)
    return median(latencies)
