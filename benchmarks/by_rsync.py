"""The rsync engine: many files in one go, and one change at a time."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

from benchmarks.bench import Bench, row
from benchmarks.latency import one_at_a_time
from benchmarks.measure import NEVER, Sizes, differences, median, wait_until
from benchmarks.peers import INSTEP, Mirror, run
from benchmarks.table import Line, Reach
from benchmarks.trees import clear, plant, rewrite_all


@row("rsync-bulk", "100,000 changed files through the rsync engine")
def rsync_bulk(bench: Bench) -> Iterator[Line]:
    place = bench.places[0]
    source, target = f"{place.path}/s", f"{place.far}/t"
    for files in (20_000, 50_000, 100_000) if not bench.quick else (500,):
        line = Line(f"{files:,} changed files through the rsync engine", "s", place.name)
        line.reaches = (Reach(1.2, "rsync"),)
        line.note = (
            "instep is stopped while they change, then all are due at once; rsync: one rsync -a of the same files; "
            "the target is on another file system, as those of the rsync engine are"
        )
        clear(source, target)
        plant(f"{source}/top", directories=max(1, files // 100), files=files)
        run(["rsync", "-a", f"{source}/", f"{target}/"])
        options = ["--engine", "rsync", "--initial-sync", "none"]
        for number in range(bench.size(min(bench.rounds, 2), 1)):
            with Mirror(INSTEP, source, target, options=options) as mirror:
                mirror.rested_usage_s()
                mirror.process.send_signal(signal.SIGSTOP)
                rewrite_all(f"{source}/top", b"i" * (2 * number + 1))
                sizes = Sizes(source, target)
                begin_s = time.monotonic()
                mirror.process.send_signal(signal.SIGCONT)
                at_s = wait_until(sizes.complete, 120, 0.01)
                line.add("instep", at_s - begin_s if not differences(source, target) else NEVER)
            rewrite_all(f"{source}/top", b"r" * (2 * number + 2))
            line.add("rsync", run(["rsync", "-a", f"{source}/", f"{target}/"]).wall_s)
        yield line
    clear(source, target)


@row("rsync-rate", "one small change at a time through the rsync engine")
def rsync_rate(bench: Bench) -> Iterator[Line]:
    place = bench.places[0]
    line = Line("one change after the other through the rsync engine", "batches/s", place.name)
    line.reaches = (Reach(60, at_least=True),)
    for _ in range(bench.rounds):
        latencies, _ = one_at_a_time(INSTEP, place, changes=bench.size(300, 20), gap_s=0, options=["--engine", "rsync"])
        line.add("instep", len(latencies) / sum(latencies))
        line.note = f"p50 {1e3 * median(latencies):.1f} ms from write to content"
    yield line
