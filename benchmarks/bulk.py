"""Many small files at once: created, removed, renamed, copied first."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator

from benchmarks.bench import Bench, row
from benchmarks.measure import NEVER, differences, wait_equal, wait_until
from benchmarks.peers import CLSYNC, INSTEP, LSYNCD, Mirror, Run, available, instep_once, run
from benchmarks.table import Line, Reach
from benchmarks.trees import clear, plant


@row("burst", "20,000 new files in 1,000 new directories, then rm -rf of them")
def burst(bench: Bench) -> Iterator[Line]:
    files, directories = bench.size(20_000, 400), bench.size(1_000, 20)
    for place in bench.places:
        made = Line(
            f"burst of {files:,} new files, first write → all there", "s", place.name, reaches=(Reach(1 / 4, "lsyncd"),)
        )
        cpu = Line("CPU of that burst", "s", place.name, reaches=(Reach(1 / 4, "lsyncd"), Reach(1.5, "cp -a")))
        gone = Line(f"rm -rf of {files:,} files, start → all gone", "s", place.name, reaches=(Reach(1 / 7, "lsyncd"),))
        source, target = f"{place.path}/s", f"{place.path}/t"
        floor_s = 0.0
        for _ in range(bench.rounds):
            for tool in available(INSTEP, LSYNCD, CLSYNC):
                clear(source, target)
                patience_s = bench.patience_s(tool.patience_s)
                with Mirror(tool, source, target) as mirror:
                    used_s = mirror.rested_usage_s()
                    begin_s = time.monotonic()
                    plant(f"{source}/top", directories=directories, files=files)
                    floor_s = max(floor_s, time.monotonic() - begin_s)
                    made.add(tool.name, wait_equal(source, target, patience_s) - begin_s)
                    cpu.add(tool.name, mirror.rested_usage_s() - used_s)
                    begin_s = time.monotonic()
                    subprocess.run(["rm", "-rf", f"{source}/top"], check=True)
                    top = f"{target}/top"
                    gone_s = wait_until(lambda top=top: not os.path.exists(top), patience_s)  # type: ignore[misc]
                    gone.add(tool.name, gone_s - begin_s)
            plant(f"{source}/top", directories=directories, files=files)
            cpu.add("cp -a", run(["cp", "-a", f"{source}/top", f"{target}/top"]).cpu_s)
            gone.note = f"two rm -rf at once, one of each side, take {_both_gone_s(source, target):.2f} s"
        made.note = f"making them takes up to {floor_s:.2f} s of it"
        clear(source, target)
        yield made
        yield cpu
        yield gone


def _both_gone_s(*tops: str) -> float:
    """What removing these takes at least: each by an rm of its own, at the same time."""
    begin_s = time.monotonic()
    removing = [subprocess.Popen(["rm", "-rf", f"{top}/top"]) for top in tops]
    for process in removing:
        process.wait()
    return time.monotonic() - begin_s


@row("rename", "rename of a directory of 20,000 files")
def rename(bench: Bench) -> Iterator[Line]:
    files = bench.size(20_000, 400)
    for place in bench.places:
        line = Line(f"rename of a directory of {files:,} files", "ms", place.name, reaches=(Reach(50),))
        copied = Line("… files copied instead of moved", "files", place.name, reaches=(Reach(0),))
        source, target = f"{place.path}/s", f"{place.path}/t"
        for _ in range(bench.rounds):
            for tool in available(INSTEP, LSYNCD, CLSYNC):
                clear(source, target)
                plant(f"{source}/before", directories=files // 20, files=files)
                patience_s = bench.patience_s(tool.patience_s)
                with Mirror(tool, source, target) as mirror:
                    wait_equal(source, target, 60)
                    mirror.rested_usage_s()
                    before = _stamps(f"{target}/before")
                    begin_s = time.monotonic()
                    os.rename(f"{source}/before", f"{source}/after")
                    old = f"{target}/before"
                    gone_s = wait_until(lambda old=old: not os.path.exists(old), patience_s, 0.0005)  # type: ignore[misc]
                    at_s = max(gone_s, wait_equal(source, target, patience_s)) if gone_s != NEVER else NEVER
                    # Walking both sides is no part of it, when all was there as soon as the old name was gone.
                    after = _stamps(f"{target}/after")
                    changed = sum(after.get(name) != stamp for name, stamp in before.items())
                    line.add(tool.name, 1e3 * ((gone_s if not changed else at_s) - begin_s))
                    copied.add(tool.name, changed)
                    if changed == 0 and (wrong := differences(source, target, content=False)):
                        copied.note = f"{tool.name} left a difference at {wrong[0]}"
        clear(source, target)
        yield line
        yield copied


def _stamps(top: str) -> dict[str, tuple[int, int]]:
    """Inode number and ctime of every file below; a copy has others.

    The number alone is not enough: ext4 gives that of a removed file to the next one.
    """
    found: dict[str, tuple[int, int]] = {}
    for here, _, names in os.walk(top):
        for name in names:
            stat = os.lstat(f"{here}/{name}")
            found[os.path.relpath(f"{here}/{name}", top)] = (stat.st_ino, stat.st_ctime_ns)
    return found


@row("first", "first copy of 100,000 small files")
def first(bench: Bench) -> Iterator[Line]:
    files = bench.size(100_000, 1_000)
    for place in bench.places:
        line = Line(f"first copy of {files:,} small files, start → all there", "s", place.name)
        line.reaches = (Reach(0.9, "cp -a"), Reach(0.5, "rsync"))
        line.note = "instep goes on from there, and follows"
        cpu = Line("CPU of it", "s", place.name)
        kept = Line("… until the disk has it, and the tool has ended", "s", place.name)
        kept.note = "instep: --once, which sees to that itself; the others: sync -f after them"
        source, target = f"{place.path}/s", f"{place.path}/t"
        clear(source, target)
        plant(f"{source}/top", directories=max(1, files // 100), files=files)
        for _ in range(bench.rounds):
            for name in ("instep", "cp -a", "rsync"):
                _clear_for_good(target)
                copied, kept_s = _first_copy(name, source, target)
                line.add(name, copied.wall_s)
                cpu.add(name, copied.cpu_s)
                kept.add(name, kept_s)
                if wrong := differences(source, target, content=False):
                    line.note = f"{name} left a difference at {wrong[0]}"
        clear(source, target)
        shutil.rmtree(source)
        yield line
        yield cpu
        yield kept


def _first_copy(name: str, source: str, target: str) -> tuple[Run, float]:
    """The copy alone, and the seconds until it is on the disk as well."""
    if name == "instep":
        with Mirror(INSTEP, source, target) as mirror:
            copied = Run(time.monotonic() - mirror.started_s, mirror.rested_usage_s())
        _clear_for_good(target)
        return copied, instep_once(source, target).wall_s
    if name == "cp -a":
        copied = run(["cp", "-a", f"{source}/.", target])
    else:
        copied = run(["rsync", "-a", f"{source}/", f"{target}/"])
    return copied, copied.wall_s + run(["sync", "-f", target]).wall_s


def _clear_for_good(target: str) -> None:
    """So that nobody has to wait for the disk because of those before."""
    clear(target)
    os.sync()
