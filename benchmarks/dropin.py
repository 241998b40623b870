"""clsync's own command lines, by clsync and by the command that stands in for it."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial

from benchmarks.bench import Bench, row
from benchmarks.latency import one_at_a_time
from benchmarks.measure import NEVER, Arrivals, holds, median, percentile, wait_equal, wait_until
from benchmarks.peers import Mirror, Tool
from benchmarks.places import Place
from benchmarks.table import Line, Reach
from benchmarks.trees import clear, plant

_OURS = (sys.executable, "-c", "import sys; from instep.commands import clsync; sys.exit(clsync())")
_INSTANT = ("-w0", "-t0", "-T0", "-Mrsyncdirect")
_CALM = ("-w1", "-t1", "-T1", "-Mrsyncdirect")


def _words(program: Sequence[str], options: Sequence[str], source: str, targets: Sequence[str]) -> list[str]:
    return [*program, *options, "-H", "/NULL/", "-W", source, "-D", targets[0]]


def _both(*options: str) -> list[Tool]:
    """The same command line for both programs; ours under the name that the table has for it."""
    tools = [Tool("instep", partial(_words, _OURS, options), None)]
    if os.path.exists("/usr/bin/clsync"):
        tools.append(Tool("clsync", partial(_words, ("/usr/bin/clsync",), options), None))
    return tools


@row("clsync-instant", "clsync drop-in: -w0 -t0 -T0 -Mrsyncdirect, one change at a time")
def instant(bench: Bench) -> Iterator[Line]:
    place = bench.places[0]
    half = Line("clsync drop-in, instant: write → content at target, p50", "ms", place.name)
    half.reaches = (Reach(0.05, "clsync"),)
    tail = Line("… p99", "ms", place.name)
    for _ in range(bench.rounds):
        for tool in _both(*_INSTANT):
            # clsync takes a second for each.
            changes = bench.size(200, 20) if tool.name == "instep" else bench.size(12, 3)
            latencies, _ = one_at_a_time(tool, place, changes=changes)
            half.add(tool.name, 1e3 * median(latencies))
            tail.add(tool.name, 1e3 * percentile(latencies, 0.99))
    yield half
    yield tail


@row("clsync-burst", "clsync drop-in: -w1 -t1 -T1, 20,000 new files")
def burst(bench: Bench) -> Iterator[Line]:
    files, directories = bench.size(20_000, 400), bench.size(1_000, 20)
    for place in bench.places:
        wall = Line(f"clsync drop-in, {files:,} new files with -w1 -t1 -T1", "s", place.name)
        wall.reaches = (Reach(1.0, "clsync"),)
        cpu = Line("… CPU", "s", place.name, reaches=(Reach(1.0, "clsync"),))
        source, target = f"{place.path}/s", f"{place.path}/t"
        for _ in range(bench.rounds):
            for tool in _both(*_CALM):
                clear(source, target)
                with Mirror(tool, source, target) as mirror:
                    time.sleep(1.5)  # The last run was a while ago, for both.
                    used_s = mirror.rested_usage_s()
                    begin_s = time.monotonic()
                    plant(f"{source}/top", directories=directories, files=files)
                    wall.add(tool.name, wait_equal(source, target, 60) - begin_s)
                    cpu.add(tool.name, mirror.rested_usage_s() - used_s)
        clear(source, target)
        yield wall
        yield cpu


@row("clsync-simple", "clsync drop-in: -Msimple, programs started in a second")
def simple(bench: Bench) -> Iterator[Line]:
    place = bench.places[0]
    count = bench.size(2_000, 50)
    line = Line(f"clsync drop-in, -Msimple: handlers run one after the other, {count:,} of them", "/s", place.name)
    line.reaches = (Reach(0.8, "clsync", at_least=True),)
    cpu = Line("… CPU of the tool and its handlers, each", "ms", place.name)
    handler = shutil.which("true") or "/bin/true"
    source, target = f"{place.path}/s", f"{place.path}/t"
    for _ in range(bench.rounds):
        for tool in _both("-Msimple", "-S", handler, "--skip-initialsync"):
            clear(source, target)
            rate, used_s = _rate(tool, place, source, target, count)
            line.add(tool.name, rate)
            cpu.add(tool.name, 1e3 * used_s / count)
    yield line
    yield cpu


def _rate(tool: Tool, place: Place, source: str, target: str, count: int) -> tuple[float, float]:
    """Handlers run in a second, and the CPU of all. The last one says that it ran by a file of its own."""
    with tempfile.TemporaryDirectory(prefix="bench-", dir=place.path) as own:
        script = f"{own}/handler"
        with open(script, "w", encoding="utf-8") as file:
            # The shell is only for the last: a builtin, and no process of its own, for the others.
            file.write(f"#!/bin/sh\ncase $4 in */last) : > {own}/done;; */first) : > {own}/ready;; esac\n")
        os.chmod(script, 0o755)
        argv = tool.argv
        changed = Tool(
            tool.name,
            lambda source, targets: [script if word.endswith("/true") else word for word in argv(source, targets)],
            b"",
        )
        with Mirror(changed, source, target) as mirror:
            _wait_watching(mirror, source, f"{own}/ready")
            used_s = mirror.rested_usage_s()
            begin_s = time.monotonic()
            for number in range(count - 1):
                os.symlink("x", f"{source}/f{number}")  # One event each.
            os.symlink("x", f"{source}/last")
            end_s = wait_until(lambda: os.path.exists(f"{own}/done"), 120)
            taken_s = end_s - begin_s
            return (0.0 if end_s == NEVER else count / taken_s), mirror.rested_usage_s() - used_s


def _wait_watching(mirror: Mirror, source: str, ready: str) -> None:
    """Return once an event was handled."""
    end_s = time.monotonic() + 30
    while not os.path.exists(ready) and time.monotonic() < end_s and mirror.process.poll() is None:
        os.symlink("x", f"{source}/first")
        wait_until(lambda: os.path.exists(ready), 0.5)
        os.unlink(f"{source}/first")


@row("clsync-start", "clsync drop-in: start-up to following, 10,000 directories")
def start(bench: Bench) -> Iterator[Line]:
    place = bench.places[0]
    directories = bench.size(10_000, 100)
    line = Line(f"clsync drop-in, start → first live change arrived, {directories:,} directories", "s", place.name)
    line.reaches = (Reach(1.0, "clsync"),)
    source, target = f"{place.path}/s", f"{place.path}/t"
    clear(source, target)
    plant(f"{source}/top", directories=directories, files=directories)
    plant(f"{target}/top", directories=directories, files=directories)
    number = 0
    for _ in range(bench.rounds):
        for tool in _both(*_INSTANT, "--skip-initialsync"):
            number += 1
            name, content = f"change{number}", b"%d" % number
            with Arrivals(target) as arrivals, Mirror(tool, source, target, wait=False) as mirror:
                at_s = NEVER
                # Nobody says when it follows: write until one arrives.
                while at_s == NEVER and time.monotonic() < mirror.started_s + 60:
                    with open(f"{source}/{name}", "wb", buffering=0) as file:
                        file.write(content)
                    at_s = arrivals.wait(partial(holds, f"{target}/{name}", content), 0.02)
                line.add(tool.name, at_s - mirror.started_s)
    clear(source, target)
    yield line
