"""lsyncd's own command lines and configurations, by lsyncd and by the command that stands in for it."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial

from benchmarks.bench import Bench, row
from benchmarks.latency import one_at_a_time
from benchmarks.measure import median, percentile, wait_equal, wait_until
from benchmarks.peers import Mirror, Tool
from benchmarks.places import Place
from benchmarks.table import Line, Reach
from benchmarks.trees import clear, plant

_OURS = (sys.executable, "-c", "import sys; from instep.commands import lsyncd; sys.exit(lsyncd())")
_THEIRS = "/usr/bin/lsyncd"
_STEPS = ("-log", "Exec")
"""Whoever wants to see the programs gets them run: nothing is left to a plain mirror."""


def _words(program: Sequence[str], options: Sequence[str], kind: str, source: str, targets: Sequence[str]) -> list[str]:
    return [*program, "-nodaemon", *options, kind, source, targets[0]]


def _both(kind: str, *options: str) -> list[Tool]:
    """The same command line for both programs; ours under the name that the table has for it."""
    tools = [Tool("instep", partial(_words, _OURS, options, kind), b"finished")]
    if os.path.exists(_THEIRS):
        tools.append(Tool("lsyncd", partial(_words, (_THEIRS,), options, kind), b"finished"))
    return tools


@row("lsyncd-instant", "lsyncd drop-in: -delay 0, one change at a time, on each of its roads")
def instant(bench: Bench) -> Iterator[Line]:
    place = bench.places[0]
    changes = bench.size(100, 10)
    for name, tools, reach in (
        ("-rsync", _both("-rsync", "-delay", "0"), Reach(1.0, "lsyncd")),
        ("-rsync, step by step", _both("-rsync", "-delay", "0", *_STEPS), Reach(1.0, "lsyncd")),
        ("-direct", _both("-direct", "-delay", "0"), Reach(0.3, "lsyncd")),
        ("-direct, step by step", _both("-direct", "-delay", "0", *_STEPS), Reach(1.0, "lsyncd")),
    ):
        half = Line(f"lsyncd drop-in, {name} -delay 0: write → content at target, p50", "ms", place.name)
        half.reaches = (reach,)
        tail = Line("… p99", "ms", place.name)
        cpu = Line("… CPU of each", "ms", place.name)
        in_place = name.startswith("-direct")  # by cp
        for _ in range(bench.rounds):
            for tool in tools:
                latencies, used_s = one_at_a_time(tool, place, changes=changes, in_place=in_place)
                half.add(tool.name, 1e3 * median(latencies))
                tail.add(tool.name, 1e3 * percentile(latencies, 0.99))
                cpu.add(tool.name, 1e3 * used_s / changes)
        yield half
        yield tail
        yield cpu


@row("lsyncd-burst", "lsyncd drop-in: 20,000 new files at once, on both roads")
def burst(bench: Bench) -> Iterator[Line]:
    files, directories = bench.size(20_000, 400), bench.size(1_000, 20)
    place = bench.places[0]
    source, target = f"{place.path}/s", f"{place.path}/t"
    for name, options, reach in (
        ("-delay 0", ("-delay", "0"), 0.25),
        ("-delay 1", ("-delay", "1"), 0.25),
        ("-delay 1, step by step", ("-delay", "1", *_STEPS), 1.0),
    ):
        wall = Line(f"lsyncd drop-in, {files:,} new files with -rsync {name}", "s", place.name)
        wall.reaches = (Reach(1.0, "lsyncd"),)
        cpu = Line("… CPU", "s", place.name, reaches=(Reach(reach, "lsyncd"),))
        for _ in range(bench.rounds):
            for tool in _both("-rsync", *options):
                clear(source, target)
                with Mirror(tool, source, target) as mirror:
                    used_s = mirror.rested_usage_s()
                    begin_s = time.monotonic()
                    plant(f"{source}/top", directories=directories, files=files)
                    wall.add(tool.name, wait_equal(source, target, 120) - begin_s)
                    cpu.add(tool.name, mirror.rested_usage_s() - used_s)
        clear(source, target)
        yield wall
        yield cpu


_ONE_LIST = """
settings{ nodaemon = true }
sync{
    source = "SOURCE", delay = 1, maxDelays = 1000000,
    onStartup = "/bin/true",
    action = function(inlet)
        local list = inlet.getEvents()
        local last = 0
        list.getPaths(function(_, path) last = path == "/last" and 1 or last; return path end)
        spawn(list, "/bin/sh", "-c", last == 1 and ": > DONE" or ":")
    end,
}
"""


@row("lsyncd-queue", "lsyncd drop-in: CPU of a queue of pending changes, acted on as one list")
def queue(bench: Bench) -> Iterator[Line]:
    place = bench.places[0]
    counts = (bench.size(8_000, 400), bench.size(100_000, 1_000))
    for count in counts:
        line = Line(f"lsyncd drop-in, {count:,} pending changes: CPU until they are done", "s", place.name)
        line.reaches = (Reach(2.0),) if count >= 100_000 else (Reach(0.5, "lsyncd"),)
        for _ in range(bench.rounds):
            for tool in _both("-rsync"):
                if tool.name == "instep" or count <= 8_000:  # lsyncd: the square of it, so many minutes
                    line.add(tool.name, _cpu_of_queue(tool, place, count))
        yield line


def _cpu_of_queue(tool: Tool, place: Place, count: int) -> float:
    source, target = f"{place.path}/s", f"{place.path}/t"
    clear(source, target)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=place.path) as own:
        done, config = f"{own}/done", f"{own}/config.lua"
        with open(config, "w", encoding="utf-8") as file:
            file.write(_ONE_LIST.replace("SOURCE", source).replace("DONE", done))
        program = _OURS if tool.name == "instep" else (_THEIRS,)
        configured = Tool(tool.name, lambda *_: [*program, config], b"finished")
        with Mirror(configured, source, target) as mirror:
            used_s = mirror.rested_usage_s()
            for number in range(count):
                os.symlink("x", f"{source}/f{number}")  # One event each.
                if number % 1_000 == 0:
                    time.sleep(0.02)  # Both read the kernel's queue of 16,384 events in time.
            os.symlink("x", f"{source}/last")
            wait_until(lambda: os.path.exists(done), 120)
            used_s = mirror.rested_usage_s() - used_s
    with contextlib.suppress(FileNotFoundError):
        clear(source, target)
    return used_s
