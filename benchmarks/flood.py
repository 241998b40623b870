"""More events than the kernel's queue holds, and as many as one writer can make."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator

from benchmarks.bench import Bench, row
from benchmarks.measure import wait_equal
from benchmarks.peers import INSTEP, Mirror
from benchmarks.table import Line, Reach
from benchmarks.trees import clear

_INOTIFY = ("--monitor", "inotify")
_OVERFLOW = b"inotify-overflow"


@row("overflow", "20,000 files created while instep is stopped; the inotify queue holds 16,384 events")
def overflow(bench: Bench) -> Iterator[Line]:
    place = bench.places[0]
    files = bench.size(20_000, 500)
    line = Line(f"{files:,} files created while stopped, SIGCONT → equal", "s", place.name, reaches=(Reach(3.0),))
    source, target = f"{place.path}/s", f"{place.path}/t"
    overflows = 0
    for _ in range(bench.rounds):
        clear(source, target)
        os.mkdir(f"{source}/d")
        with Mirror(INSTEP, source, target, options=_INOTIFY) as mirror:
            os.kill(mirror.process.pid, signal.SIGSTOP)
            for number in range(files):
                os.close(os.open(f"{source}/d/f{number}", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))
            os.kill(mirror.process.pid, signal.SIGCONT)
            begin_s = time.monotonic()
            line.add("instep", wait_equal(source, target, 60) - begin_s)
            overflows += mirror.log().count(_OVERFLOW)
    line.note = f"the queue overflowed {overflows} time(s) in {bench.rounds} round(s)"
    clear(source, target)
    yield line


_WRITER = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
enum { FILES = 500 };
int main(int count, char **words) {
    static int open_files[FILES];
    long number, events = atol(words[2]);
    struct timespec begin, end;
    if (count != 3 || chdir(words[1])) return 2;
    for (number = 0; number < FILES; number++) {
        char name[20];
        snprintf(name, sizeof name, "f%ld", number);
        open_files[number] = open(name, O_CREAT | O_RDWR, 0644);
        if (open_files[number] < 0) return 3;
    }
    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (number = 0; number < events; number++)  /* never the same file twice in a row: such events merge */
        if (ftruncate(open_files[number % FILES], 1 + number / FILES % 100)) return 4;
    clock_gettime(CLOCK_MONOTONIC, &end);
    printf("%.0f\n", events / (end.tv_sec - begin.tv_sec + (end.tv_nsec - begin.tv_nsec) / 1e9));
    return 0;
}
"""


@row("intake", "events of one C writer, as fast as it can, by inotify")
def intake(bench: Bench) -> Iterator[Line]:
    place = bench.places[0]
    events = bench.size(1_000_000, 20_000)
    made = Line(f"one C writer makes {events:,} events, instep follows", "1/s", place.name)
    lost = Line("… overflows of the inotify queue", "times", place.name, reaches=(Reach(0),))
    rest = Line("… end → equal", "s", place.name)
    if shutil.which("cc") is None:
        made.note = "not measured: there is no C compiler"
        yield made
        return
    source, target = f"{place.path}/s", f"{place.path}/t"
    with tempfile.TemporaryDirectory(prefix="instep-bench-") as scratch:
        program = f"{scratch}/writer"
        subprocess.run(["cc", "-O2", "-o", program, "-xc", "-"], input=_WRITER, text=True, check=True)
        for _ in range(bench.rounds):
            clear(source, target)
            with Mirror(INSTEP, source, target, options=_INOTIFY) as mirror:
                done = subprocess.run([program, source, str(events)], check=True, capture_output=True, text=True)
                end_s = time.monotonic()
                made.add("instep", float(done.stdout))
                rest.add("instep", wait_equal(source, target, 60) - end_s)
                lost.add("instep", mirror.log().count(_OVERFLOW))
    with open("/proc/sys/fs/inotify/max_queued_events", encoding="ascii") as limit:
        lost.note = f"fs.inotify.max_queued_events is {int(limit.read()):,}"
    clear(source, target)
    yield made
    yield lost
    yield rest
