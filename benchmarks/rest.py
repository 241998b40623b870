"""What it costs to stand by: memory and wake-ups."""

from __future__ import annotations

import contextlib
import glob
import time
from collections.abc import Iterator

from benchmarks.bench import Bench, row
from benchmarks.peers import CLSYNC, INSTEP, LSYNCD, DidNotStart, Mirror, available
from benchmarks.table import Line, Reach
from benchmarks.trees import clear, plant_directories


@row("memory", "memory at rest, 100,000 directories")
def memory(bench: Bench) -> Iterator[Line]:
    place = bench.places[0]
    directories = bench.size(100_000, 1_000)
    source, target = f"{place.path}/s", f"{place.path}/t"
    options = {name: ["--initial-sync", "none", "--monitor", name] for name in ("fanotify", "inotify")}
    total = {name: Line(f"memory, {directories:,} directories, {name}", "MiB", place.name) for name in options}
    each = {name: Line(f"… per directory, {name}", "B", place.name) for name in options}
    each["fanotify"].reaches = (Reach(20),)
    each["inotify"].reaches = (Reach(350),)
    each["inotify"].note = "growth of resident memory over that with 10 directories, children included, by directory"
    small: dict[str, float] = {}
    for count in (10, directories):
        clear(source, target)
        plant_directories(source, count)
        for name, chosen in options.items():
            try:
                with Mirror(INSTEP, source, target, options=chosen) as mirror:
                    used = _resident_bytes(mirror)
            except DidNotStart as error:
                total[name].note = str(error).splitlines()[0]
                continue
            _note(total[name], each[name], "instep", used, small, count, directories)
    for name in options:
        yield total[name]
        yield each[name]
    clear(source, target)


def _note(total: Line, each: Line, tool: str, used: int, small: dict[str, float], count: int, directories: int) -> None:
    if count != directories:
        small[each.title] = used
        return
    total.add(tool, used / 2**20)
    each.add(tool, max(0.0, (used - small[each.title]) / directories))


def _resident_bytes(mirror: Mirror) -> int:
    """Proportional resident memory of the tool and its children, once it rests."""
    mirror.rested_usage_s()
    total = 0
    for pid in mirror.pids():
        with contextlib.suppress(OSError), open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as rollup:
            total += sum(int(line.split()[1]) << 10 for line in rollup if line.startswith("Pss:"))
    return total


@row("rest", "wake-ups at rest")
def rest(bench: Bench) -> Iterator[Line]:
    place = bench.places[0]
    watch_s = bench.size(10, 2)
    line = Line(f"wake-ups at rest, in {watch_s} s", "switches", place.name, reaches=(Reach(0),))
    cpu = Line(f"CPU at rest, in {watch_s} s", "ms", place.name)
    source, target = f"{place.path}/s", f"{place.path}/t"
    for tool in available(INSTEP, LSYNCD, CLSYNC):
        clear(source, target)
        plant_directories(source, 100)
        with Mirror(tool, source, target) as mirror:
            time.sleep(6)  # ours writes down what the target holds 5 s after it was brought over: that is no rest yet
            used_s = mirror.rested_usage_s()
            before = _voluntary_switches(mirror)
            time.sleep(watch_s)  # the time over which it should do nothing is the thing measured
            line.add(tool.name, _voluntary_switches(mirror) - before)
            cpu.add(tool.name, 1e3 * (mirror.meter.usage_s() - used_s))
    clear(source, target)
    yield line
    yield cpu


def _voluntary_switches(mirror: Mirror) -> int:
    count = 0
    for pid in mirror.pids():
        for path in glob.glob(f"/proc/{pid}/task/*/status"):
            with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as status:
                count += sum(int(line.split()[1]) for line in status if line.startswith("voluntary_ctxt_switches"))
    return count
