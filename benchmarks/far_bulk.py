"""Far targets, much at once: many files, a big file, a restart; and what the agent costs over there."""

from __future__ import annotations

import contextlib
import os
import random
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.bench import Bench, row
from benchmarks.big import arrived, change_for_both, fill, same_stat
from benchmarks.hosts import Host, far_host
from benchmarks.measure import NEVER, differences, wait_equal, wait_until
from benchmarks.peers import Mirror, run
from benchmarks.table import Line, Reach
from benchmarks.trees import clear, plant
from instep.engines.remote.agent import MAGIC
from instep.engines.remote.connection import bootstrap, remote_command

_PACKAGES = Path(sys.prefix) / "far"
"""Where `make bench` puts what the extra `far` names."""


@row("far-burst", "20,000 small files to a far host")
def far_burst(bench: Bench) -> Iterator[Line]:
    place = bench.places[0]
    files = bench.size(20_000, 300)
    live = Line(f"{files:,} small files moved in → all on a far host", "s", place.name, reaches=(Reach(0.7, "rsync"),))
    live.note = "rsync -a and tar | tar over a kept connection; instep follows already"
    once = Line("… --once, connecting included", "s", place.name, note="rsync: connects anew")
    memory = Line("memory of the agent after it", "MiB", place.name, reaches=(Reach(40),))
    source, target, aside = f"{place.path}/s", f"{place.far}/t", f"{place.path}/aside"
    with far_host() as host, host.kept() as kept:
        clear(aside)
        plant(f"{aside}/top", directories=max(1, files // 100), files=files)
        for _ in range(bench.rounds):
            clear(source, target)
            with Mirror(host.instep(), source, target) as mirror:
                mirror.rested_usage_s()
                begin_s = time.monotonic()
                os.rename(f"{aside}/top", f"{source}/top")
                live.add("instep", wait_equal(source, target, mirror.patience_s) - begin_s)
                mirror.rested_usage_s()
                memory.add("instep", _agent_bytes(host) / 2**20)
            clear(target)
            live.add("rsync", run(["rsync", "-a", "-e", f"{kept}/ssh", f"{source}/", f"{host.name}:{target}/"]).wall_s)
            clear(target)
            pipe = f"tar -C {source} -cf - top | {kept}/ssh {host.name} tar -C {target} -xf -"
            live.add("tar", run(["sh", "-c", pipe]).wall_s)
            clear(target)
            once.add("instep", _once(host, source, target))
            clear(target)
            fresh = f"{host.sshd.programs}/ssh"
            once.add("rsync", run(["rsync", "-a", "-e", fresh, f"{source}/", f"{host.name}:{target}/"]).wall_s)
            if wrong := differences(source, target, content=False):
                once.note = f"left a difference at {wrong[0]}"
            os.rename(f"{source}/top", f"{aside}/top")
    clear(source, target, aside)
    yield live
    yield once
    yield memory


def _once(host: Host, source: str, target: str, *options: str) -> float:
    return run(host.instep("--once", *options).argv(source, [target])).wall_s


def _agent_bytes(host: Host) -> int:
    """Resident memory of the agent, which is the session's python3."""
    for pid in host.sshd.sessions():
        with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
            if file.read().startswith(b"python3\0"):
                with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as status:
                    return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmRSS:"))
    return 0


@row("far-big", "1 GiB file on a far host, 100 random 4 KiB blocks changed")
def far_big(bench: Bench) -> Iterator[Line]:
    place = bench.places[0]
    size = bench.size(1 << 30, 1 << 26)
    title = f"{size >> 20} MiB file on a far host, 100 random blocks changed"
    patched = Line(f"{title}, in place", "s", place.name, reaches=(Reach(1, "rsync"),))
    patched.note = "rsync: -a --inplace over a kept connection; instep: --inplace-from 64M"
    by_xxhash = Line("… with xxhash on both sides", "s", place.name, reaches=(Reach(0.4, "rsync"),))
    by_xxhash.note = "on ours by instep[far]"
    atomic = Line(f"{title}, atomic (default)", "s", place.name, reaches=(Reach(1, "rsync"),))
    atomic.note = "rsync: -a over a kept connection"
    source, target = f"{place.path}/s", f"{place.far}/t"
    dice = random.Random(5)
    clear(source, target)
    fill(f"{source}/big", size)

    def measure(line: Line, ours: Sequence[str] = (), theirs: Sequence[str] = ()) -> None:
        to_rsync = [*theirs, "-e", f"{kept}/ssh", f"{source}/", f"{host.name}:{target}/"]
        change_for_both(line, Mirror(host.instep(*ours), source, target), to_rsync, size, dice)

    in_place = ["--inplace-from", "64M"], ["--inplace"]
    with far_host() as host, host.kept() as kept:
        for _ in range(bench.rounds):
            measure(patched, *in_place)
            measure(atomic)
        if _PACKAGES.exists():
            host.offer(str(_PACKAGES))
            for _ in range(bench.rounds):
                measure(by_xxhash, *in_place)
    clear(source, target)
    yield patched
    if by_xxhash.samples:
        yield by_xxhash
    yield atomic


@row("far-shift", "bytes put in near the start of a big file on a far host")
def far_shift(bench: Bench) -> Iterator[Line]:
    place = bench.places[0]
    size = bench.size(1 << 28, 1 << 24)
    title = f"{size >> 20} MiB file on a far host, 100 bytes put in near its start"
    took = Line(title, "s", place.name, note="rsync: -a over a kept connection")
    wire = Line("… on the wire, a login included", "KiB", place.name, reaches=(Reach(2, "rsync"),))
    source, target, aside = f"{place.path}/s", f"{place.far}/t", f"{place.path}/aside"
    with far_host() as host, host.kept() as kept:
        direct = host.name
        clear(source, target, aside)
        fill(f"{source}/big", size)
        for _ in range(bench.rounds):
            host.name = direct
            with Mirror(host.instep(), source, target) as mirror:
                wait_until(lambda: same_stat(f"{source}/big", f"{target}/big"), 120)
                mirror.rested_usage_s()
                begin_s = _put_in(source, aside)
                took.add("instep", arrived(f"{source}/big", f"{target}/big") - begin_s)
            _put_in(source, aside)
            rsync = ["rsync", "-a", f"{source}/"]
            took.add("rsync", run([*rsync, "-e", f"{kept}/ssh", f"{direct}:{target}/"]).wall_s)
            host.at_a_distance(0.0)
            for name in ("instep", "rsync"):
                _put_in(source, aside)
                before = host.wire_bytes()
                if name == "instep":
                    _once(host, source, target)
                else:
                    run([*rsync, "-e", f"{host.sshd.programs}/ssh", f"{host.name}:{target}/"])
                wire.add(name, (host.wire_bytes() - before) / 1024)
    clear(source, target, aside)
    yield took
    yield wire


def _put_in(source: str, aside: str) -> float:
    """Replace the file by one with some bytes more in it; when that was done."""
    with open(f"{source}/big", "rb") as old, open(f"{aside}/big", "wb") as new:
        new.write(old.read(1000) + random.randbytes(100))
        while data := old.read(1 << 24):
            new.write(data)
    begin_s = time.monotonic()
    os.rename(f"{aside}/big", f"{source}/big")
    return begin_s


@row("far-restart", "a second start with 100,000 unchanged files")
def far_restart(bench: Bench) -> Iterator[Line]:
    place = bench.places[0]
    files = bench.size(100_000, 500)
    compared = Line(f"second start, {files:,} unchanged files, all compared", "s", place.name)
    compared.reaches = (Reach(0.6, "rsync"),)
    wire = Line("… on the wire, beyond an empty tree", "KiB", place.name, reaches=(Reach(1000),))
    indexed = Line("… as it is by default, with its index", "s", place.name, reaches=(Reach(0.6, "rsync"),))
    wire_indexed = Line("… on the wire, beyond an empty tree", "KiB", place.name, reaches=(Reach(1),))
    source, target = f"{place.path}/s", f"{place.far}/t"
    empty = (f"{place.path}/s0", f"{place.far}/t0")
    with far_host() as host:
        clear(source, target, *empty)
        plant(f"{source}/top", directories=max(1, files // 10), files=files)
        rsync = ["rsync", "-a", "-e", f"{host.sshd.programs}/ssh"]
        run([*rsync, f"{source}/", f"{host.name}:{target}/"])
        ways: list[tuple[Line, Line, list[str]]] = [
            (compared, wire, ["--initial-sync=full"]),
            (indexed, wire_indexed, []),
        ]
        _once(host, source, target)
        for _ in range(bench.rounds):
            for line, _, options in ways:
                line.add("instep", _once(host, source, target, *options))
                line.add("rsync", run([*rsync, f"{source}/", f"{host.name}:{target}/"]).wall_s)
        as_much = [run(["rsync", "-aHAX", *rsync[2:], f"{source}/", f"{host.name}:{target}/"]).wall_s for _ in range(2)]
        compared.note = (
            "instep: --once --initial-sync full; rsync: -a, connecting as well; "
            f"-aHAX, which keeps as much as instep, takes {min(as_much):.2f} s"
        )
        host.at_a_distance(0.0)  # What counts bytes takes time itself. Another host: both get an index first.
        _once(host, source, target)
        _once(host, *empty)
        for _, line, options in ways:
            for name in ("instep", "rsync"):
                took: list[int] = []
                for here, there in (empty, (source, target)):
                    before = host.wire_bytes()
                    if name == "instep":
                        _once(host, here, there, *options)
                    else:
                        run([*rsync, f"{here}/", f"{host.name}:{there}/"])
                    took.append(host.wire_bytes() - before)
                line.add(name, max(0, took[1] - took[0]) / 1024)
    clear(source, target, *empty)
    yield compared
    yield wire
    yield indexed
    yield wire_indexed


@row("far-agent", "start of the agent, beyond ssh itself")
def far_agent(bench: Bench) -> Iterator[Line]:
    line = Line("agent: start → its first byte, beyond ssh itself", "ms", "", reaches=(Reach(150),))
    line.note = "the same ssh with echo is taken off"
    with far_host() as host:
        base = [*shlex.split(host.sshd.ssh), "-T", host.name]
        for _ in range(bench.size(10, 2)):
            alone_s = _first_byte([*base, "echo hello"], b"", b"hello")
            with_agent_s = _first_byte([*base, remote_command().decode()], bootstrap(), MAGIC)
            line.add("instep", max(0.0, 1e3 * (with_agent_s - alone_s)))
    yield line


def _first_byte(argv: list[str], sent: bytes, awaited: bytes) -> float:
    begin_s = time.monotonic()
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(sent)
    process.stdin.flush()
    data = b""
    while awaited not in data:
        got = os.read(process.stdout.fileno(), 4096)
        if not got:
            break
        data += got
    took_s = time.monotonic() - begin_s if awaited in data else NEVER
    process.stdin.close()
    process.stdout.close()
    process.terminate()
    process.wait(20)
    return took_s
