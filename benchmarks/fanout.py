"""One source, sixteen targets."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from benchmarks.bench import Bench, row
from benchmarks.measure import NEVER, Arrivals, holds, median, wait_until
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
        with Mirror(INSTEP, source, *targets) as mirror:
            mirror.rested_usage_s()
            line.add("instep", until_all(source, targets, bench.size(100, 10)))

        def by_rsync() -> list[subprocess.Popen[bytes]]:
            return [subprocess.Popen(["rsync", "-a", f"{source}/", f"{target}/"]) for target in targets]

        line.add("rsync", until_all(source, targets, bench.size(10, 2), by_rsync))
    clear(source, *targets)
    yield line


def until_all(
    source: str, targets: Sequence[str], changes: int, bring: Callable[[], list[subprocess.Popen[bytes]]] = list
) -> float:
    """The median of the milliseconds until one changed file is at all targets.

    Args:
        source: The tree of one file ``f``.
        targets: Copies of it.
        changes: How many, one after the other.
        bring: Starts the programs that bring one over; none where a daemon does.
    """
    latencies: list[float] = []
    # Woken by one of the targets alone, so as to be in nobody's way; from then on the others are looked at.
    with Arrivals(targets[-1]) as arrivals:
        for number in range(changes):
            content = b"%d" % number * (number + 1)
            begin_s = time.monotonic()
            with open(f"{source}/f", "wb", buffering=0) as file:
                file.write(content)
            started = bring()
            arrivals.wait(partial(_are_of, len(content), targets[-1:]), 20)
            latencies.append(1e3 * (wait_until(partial(_are_of, len(content), targets), 20, 0.0001) - begin_s))
            for process in started:
                process.wait(20)
            if not all(holds(f"{target}/f", content) for target in targets):
                return NEVER
            time.sleep(0.03)
    return median(latencies)


def _are_of(size: int, targets: Sequence[str]) -> bool:
    """Whether the file is of this size at all targets; the last one is looked at first."""
    try:
        return all(os.stat(f"{target}/f").st_size == size for target in reversed(targets))
    except FileNotFoundError:
        return False
