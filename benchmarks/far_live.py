"""Far targets, one small change at a time: how soon it arrives over there."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterator

from benchmarks.bench import Bench, row
from benchmarks.fanout import until_all
from benchmarks.hosts import LSYNCD_KEPT, Host, far_host
from benchmarks.latency import one_at_a_time
from benchmarks.measure import Arrivals, holds, median, percentile, wait_until
from benchmarks.peers import Mirror
from benchmarks.table import Line, Reach
from benchmarks.trees import clear

_ONE_WAY_S = 0.005
_TARGETS = 16


@row("far-latency", "write → content on a far host (loopback sshd)")
def far_latency(bench: Bench) -> Iterator[Line]:
    with far_host() as host:
        half, tail = _latencies(bench, host, "write → content on a far host")
    half.reaches = (Reach(1 / 150, "lsyncd"), Reach(1 / 15, LSYNCD_KEPT))
    yield half
    yield tail


@row("far-rtt", "the same at 10 ms round trip")
def far_rtt(bench: Bench) -> Iterator[Line]:
    with far_host() as host:
        host.at_a_distance(_ONE_WAY_S)
        half, tail = _latencies(bench, host, "write → content at 10 ms round trip")
    half.reaches = (Reach(1e3 * _ONE_WAY_S + 1),)
    half.note = "over a proxy that holds everything for 5 ms each way"
    yield half
    yield tail


def _latencies(bench: Bench, host: Host, title: str) -> tuple[Line, Line]:
    place = bench.places[0]
    half, tail = (Line(f"{title}, {which}", "ms", place.name) for which in ("p50", "p99"))
    with host.kept() as kept:
        tools = [(host.instep(), bench.size(200, 10))]
        if shutil.which("lsyncd"):
            tools += [(host.lsyncd(), bench.size(40, 2)), (host.lsyncd(kept=kept), bench.size(100, 3))]
        for _ in range(bench.rounds):
            for tool, changes in tools:
                latencies, _ = one_at_a_time(tool, place, changes=changes, far=True)
                half.add(tool.name, 1e3 * median(latencies))
                tail.add(tool.name, 1e3 * percentile(latencies, 0.99))
    return half, tail


@row("far-fanout", "16 far targets, one small change to all")
def far_fanout(bench: Bench) -> Iterator[Line]:
    place = bench.places[0]
    line = Line(f"one small change until all {_TARGETS} far targets have it, p50", "ms", place.name)
    line.reaches = (Reach(1 / 50, "rsync"),)
    line.note = "rsync: sixteen rsync -a at once over one kept connection"
    count = bench.size(_TARGETS, 4)
    source = f"{place.path}/s"
    targets = [f"{place.far}/t{number}" for number in range(count)]
    with far_host() as host, host.kept() as kept:
        for _ in range(bench.rounds):
            clear(source, *targets)
            with Mirror(host.instep(number="-"), source, *targets) as mirror:
                mirror.rested_usage_s()
                line.add("instep", until_all(source, targets, bench.size(100, 5)))

            def by_rsync() -> list[subprocess.Popen[bytes]]:
                return [
                    subprocess.Popen(["rsync", "-a", "-e", f"{kept}/ssh", f"{source}/", f"{host.name}:{each}/"])
                    for each in targets
                ]

            line.add("rsync", until_all(source, targets, bench.size(10, 2), by_rsync))
    clear(source, *targets)
    yield line


@row("far-lane", "a small change while a 1 GiB file is on its way")
def far_lane(bench: Bench) -> Iterator[Line]:
    place = bench.places[0]
    size = bench.size(1 << 30, 1 << 26)
    half = Line(f"write → content on a far host while a {size >> 20} MiB file streams, p50", "ms", place.name)
    tail = Line(half.title.replace("p50", "p99"), "ms", place.name, reaches=(Reach(20),))
    source, target = f"{place.path}/s", f"{place.far}/t"
    dice = random.Random(7)
    with far_host() as host:
        for _ in range(bench.rounds):
            clear(source, target, f"{place.path}/aside")
            with open(f"{place.path}/aside/big", "wb") as file:
                file.writelines(dice.randbytes(1 << 24) for _ in range(size >> 24))
            with Mirror(host.instep(), source, target) as mirror, Arrivals(target) as arrivals:
                mirror.rested_usage_s()
                os.rename(f"{place.path}/aside/big", f"{source}/big")
                latencies: list[float] = []
                while not os.path.exists(f"{target}/big") and len(latencies) < 2000:
                    content = b"%d" % len(latencies) * 50
                    begin_s = time.monotonic()
                    with open(f"{source}/small", "wb", buffering=0) as file:
                        file.write(content)
                    latencies.append(
                        arrivals.wait(lambda content=content: holds(f"{target}/small", content), 20) - begin_s  # type: ignore[misc]
                    )
                    time.sleep(0.01)
                wait_until(lambda: os.path.exists(f"{target}/big"), 60)
            half.add("instep", 1e3 * median(latencies))
            tail.add("instep", 1e3 * percentile(latencies, 0.99))
            tail.note = f"{len(latencies)} changes"
    clear(source, target, f"{place.path}/aside")
    yield half
    yield tail
