"""From exec to following, over a tree that is already equal."""

from __future__ import annotations

import time
from collections.abc import Iterator

from benchmarks.bench import Bench, row
from benchmarks.measure import Arrivals, holds
from benchmarks.peers import INSTEP, LSYNCD, Mirror, available, instep_once, run
from benchmarks.table import Line, Reach
from benchmarks.trees import clear, plant


@row("start", "start to following, 10,000 directories, 100,000 files")
def start(bench: Bench) -> Iterator[Line]:
    place = bench.places[0]
    directories, files = bench.size(10_000, 100), bench.size(100_000, 1_000)
    title = f"start again → first live change arrived, {files:,} files"
    line = Line(title, "s", place.name, reaches=(Reach(0.5, "lsyncd"),))
    line.note = "instep had run before and stopped, so it has an index; the last line is its very first start"
    plain = Line("… with --monitor inotify", "s", place.name, reaches=(Reach(0.5, "lsyncd"),))
    anew = Line("… all compared (--initial-sync full)", "s", place.name)
    source, target = f"{place.path}/s", f"{place.path}/t"
    clear(source, target)
    plant(f"{source}/top", directories=directories, files=files)
    run(["rsync", "-a", f"{source}/", f"{target}/"])
    instep_once(source, target)
    number = 0
    for _ in range(bench.rounds):
        for tool in available(INSTEP, LSYNCD):
            for options, into in (([], line), (["--monitor", "inotify"], plain), (["--initial-sync", "full"], anew)):
                if tool is not INSTEP and into is not line:
                    into.add(tool.name, line.samples[tool.name][-1])  # the same tool, the same start
                    continue
                number += 1
                name, content = f"change{number}", b"%d" % number
                with Arrivals(target) as arrivals, Mirror(tool, source, target, options=options) as mirror:
                    with open(f"{source}/{name}", "wb", buffering=0) as file:
                        file.write(content)
                    there = f"{target}/{name}"
                    at_s = arrivals.wait(lambda there=there, content=content: holds(there, content), 60)  # type: ignore[misc]
                    into.add(tool.name, at_s - mirror.started_s)
                    time.sleep(0.1)
    clear(source, target)
    yield line
    yield plain
    yield anew
