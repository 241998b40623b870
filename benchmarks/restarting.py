"""Starting again over a tree in which nothing changed, and what it costs to be able to."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterator

from benchmarks.bench import Bench, row
from benchmarks.peers import instep_once, run
from benchmarks.table import Line, Reach
from benchmarks.trees import clear, plant
from instep.core.filters import Filter
from instep.index.ledger import Ledger
from instep.index.scan import Scanner
from instep.model import Change
from instep.paths import RelPath
from instep.records import record


@row("restart", "restart with an index, 1,000,000 files unchanged")
def restart(bench: Bench) -> Iterator[Line]:
    place = bench.places[0]
    files = bench.size(1_000_000, 1_000)
    line = Line(f"--once again, {files:,} files unchanged", "s", place.name, reaches=(Reach(0.7, "rsync"),))
    cpu = Line("CPU of it", "s", place.name)
    source, target = f"{place.path}/s", f"{place.path}/t"
    clear(source, target)
    plant(f"{source}/top", directories=max(1, files // 100), files=files)
    instep_once(source, target)
    for _ in range(bench.rounds):
        ours = instep_once(source, target)
        theirs = run(["rsync", "-a", "--delete", f"{source}/", f"{target}/"])
        for name, taken in (("instep", ours), ("rsync", theirs)):
            line.add(name, taken.wall_s)
            cpu.add(name, taken.cpu_s)
    clear(source, target)
    yield line
    yield cpu


@row("index", "what the index costs per change")
def index(bench: Bench) -> Iterator[Line]:
    """In this process: noted in the journal, looked at in the source if need be, written to the database."""
    place = bench.places[0]
    files = bench.size(20_000, 1_000)
    source = f"{place.path}/s"
    clear(source)
    plant(source, directories=files // 20, files=files)
    changes = [
        Change(RelPath(os.fsencode(os.path.relpath(f"{here}/{name}", source))))
        for here, _, names in os.walk(source)
        for name in names
    ]
    engine_tells = Line("index, CPU per change, as with the native engine", "µs", place.name, reaches=(Reach(5),))
    engine_tells.note = "the native engine hands over what it saw of a file that it copied; others do not"
    looked_at = Line("… looked at again in the source", "µs", place.name, reaches=(Reach(5),))
    stats = {change.path: os.lstat(os.path.join(os.fsencode(source), change.path)) for change in changes}
    fd = os.open(source, os.O_RDONLY | os.O_DIRECTORY)
    scanner = Scanner(fd, Filter(()), one_file_system=False)
    ledger = Ledger(os.fsencode(f"{place.path}/index"))
    ledger.begin({}, whole=False)
    # As in a daemon that is following: what lives already is not walked by the collector (``Mirror._check``), and this
    # is not the first commit of the process.
    gc.collect()
    gc.freeze()
    for line in [engine_tells, looked_at] * max(bench.rounds, bench.size(5, 1)):
        before_s = time.process_time()
        for change in changes:
            ledger.touch((change,), ())
            if line is engine_tells:
                ledger.learn((), {change.path: record(stats[change.path])})
        commit = ledger.take()
        ledger.start_writing(())
        look, seen = commit.singles()
        ledger.finish(scanner.singles(look, seen=seen), (), (), whole=None)
        ledger.settle()
        line.add("instep", 1e6 * (time.process_time() - before_s) / len(changes))
        assert len(commit.began) == len(changes)
    gc.unfreeze()
    ledger.close(clean=True)
    os.close(fd)
    clear(source)
    for name in os.listdir(place.path):
        if name.startswith("index"):
            os.unlink(f"{place.path}/{name}")
    yield engine_tells
    yield looked_at
