"""``python -m benchmarks``: measures the rows asked for, and prints one table."""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import time

from rich.console import Console

from benchmarks import (
    big,
    bulk,
    by_rsync,
    dropin,
    dropin_lsyncd,
    fanout,
    far_bulk,
    far_live,
    flood,
    latency,
    peers,
    rest,
    restarting,
    starting,
    storm,
)
from benchmarks.bench import ROWS, Bench
from benchmarks.cpu import cpu_meter
from benchmarks.places import places
from benchmarks.table import Line, as_json, brief, markdown, show

_MODULES = (
    *(latency, bulk, big, storm, flood, by_rsync, starting, restarting, fanout, rest, dropin, dropin_lsyncd),
    *(far_live, far_bulk),
)
"""Imported for the rows that they register."""


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0 when all was measured, 1 when a row failed; a missed reach is shown, not a failure."""
    options = _parse(arguments)
    if options.list:
        for row in ROWS.values():
            print(f"{row.name:<12} {row.title}")
        return 0
    if options.instep:
        peers.instep_command[:] = shlex.split(options.instep)
    # An installed instep has its modules compiled; with this each start would compile them again.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    # Ended from outside, it still unmounts and stops all that it started.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    console = Console(stderr=True)
    lines: list[Line] = []
    failed = False
    with places(options.dir, image_bytes=(1 << 29 if options.quick else 6 << 30)) as found:
        bench = Bench(found, options.rounds or (1 if options.quick else 3), options.quick)
        for name in options.rows or list(ROWS):
            begin_s = time.monotonic()
            console.print(f"[bold]{name}[/]: {ROWS[name].title} …", highlight=False)
            try:
                for line in ROWS[name].measure(bench):
                    lines.append(line)
                    console.print(f"  {brief(line)}", highlight=False, markup=False, soft_wrap=True)
            except peers.DidNotStart as error:
                failed = True
                console.print(f"[red]{name} failed:[/] {error}", highlight=False)
            console.print(f"  {time.monotonic() - begin_s:.0f} s", style="dim", highlight=False)
        facts = _facts(bench)
    if options.json:
        print(as_json(lines, facts))
    else:
        # A pipe has no width; 80 columns would fold every cell.
        show(lines, Console(width=None if sys.stdout.isatty() else 170))
        print("\n".join(facts))
    if options.write:
        with open(options.write, "w", encoding="utf-8") as page:
            page.write(markdown(lines, facts))
    return int(failed)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="instep beside its peers")
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"which rows: {', '.join(ROWS)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="little work, one round: shows that it runs, not how fast")
    parser.add_argument("--rounds", type=int, help="how often each tool has its turn (default 3)")
    parser.add_argument("--dir", help="measure in this directory only (default: tmpfs, and an ext4 image when root)")
    parser.add_argument("--json", action="store_true", help="every figure of every round, on standard output")
    parser.add_argument("--write", metavar="FILE", help="write the table as Markdown, e.g. docs/benchmarks.md")
    parser.add_argument("--instep", metavar="COMMAND", help="measure this instep instead, of an older checkout say")
    parser.add_argument("--list", action="store_true", help="list the rows")
    options = parser.parse_args(arguments)
    if options.dir is not None and not os.path.isdir(options.dir):
        parser.error(f"--dir: {options.dir} is not a directory; make it, or name another")
    if unknown := [name for name in options.rows if name not in ROWS]:
        parser.error(f"no such row: {', '.join(unknown)}; there are {', '.join(ROWS)}")
    return options


def _facts(bench: Bench) -> list[str]:
    """What the figures depend on."""
    meter = cpu_meter()
    kind = meter.kind
    system = f"{platform.system()} {platform.release()}"
    where = ", ".join(place.name for place in bench.places)
    meter.close()
    asked = (("lsyncd", "-version"), ("clsync", "-V"), ("rsync", "--version"), ("cp", "--version"))
    versions = [_version(*argv) for argv in asked]
    return [
        f"{time.strftime('%Y-%m-%d')}, {system}, {os.cpu_count()} CPUs ({_processor()})",
        f"Python {platform.python_version()}; {'; '.join(filter(None, versions))}",
        f"{bench.rounds} round(s), the tools in turn in each; on {where}; CPU by {kind}",
        *(["quick: little work, so the figures say nothing"] if bench.quick else []),
    ]


def _version(program: str, option: str) -> str:
    if not shutil.which(program):
        return f"no {program}"
    said = subprocess.run([program, option], capture_output=True, check=False, text=True, errors="replace")
    first = (said.stdout or said.stderr).strip().splitlines()[:1]
    return f"{program}: {first[0].removeprefix('Info: ')}" if first else program


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as info:
            return next(line.partition(":")[2].strip() for line in info if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()


if __name__ == "__main__":
    sys.exit(main())
