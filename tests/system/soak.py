"""Hours of work in minutes: ``python -m tests.system.soak [SECONDS]`` shows that nothing grows while daemons work.

Three daemons follow three trees, each by its own monitor and engine, while writers rage in all of them. Every few seconds the
writers pause, the target has to be equal, and what the daemon holds is written down: memory (its own, and with its
children, pages in common counted once), descriptors, threads, children. The last quarter must not exceed the second:
the first is for caches to fill. Exit status 1 when something grew or was lost.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from tests.system import writers
from tests.system.daemon_process import DaemonProcess
from tests.system.faults import below
from tests.system.sshd import serving, why_unavailable

ROADS = [("fanotify" if os.geteuid() == 0 else "inotify", "native"), ("inotify", "rsync"), ("inotify", "remote")]
"""The last one over a server for ssh on this machine; left out where there is none."""
ROUND_OPERATIONS = 1500
PAUSE_S = 0.02
REST_S = 1.0
"""After the last change, before what is held is read: rsync and its pipes are gone by then."""
GROWTH = 0.03
GROWTH_KIB = 1024
"""So much more memory is taken for noise of the allocator."""
THREADS = min(32, len(os.sched_getaffinity(0)) + 4) + 2
"""Of asyncio's pool, which makes them as they are needed and keeps them, the main one, and one of the index."""


@dataclass
class Held:
    """What a daemon holds at rest."""

    rss_kib: int
    all_pss_kib: int
    descriptors: int
    threads: int
    children: int


def held(daemon: DaemonProcess) -> Held:
    """The figures of this moment."""
    children = below(daemon.pid)
    pss_kib = 0
    for pid in (daemon.pid, *children):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as rollup:
            pss_kib += sum(int(line.split()[1]) for line in rollup if line.startswith("Pss:"))
    status = daemon.status()
    return Held(
        int(status["VmRSS"].split()[0]),
        pss_kib,
        len(os.listdir(f"/proc/{daemon.pid}/fd")),
        int(status["Threads"]),
        len(children),
    )


class Soaked:
    """One daemon with its trees."""

    def __init__(self, base: Path, monitor: str, engine: str, ssh: str | None = None) -> None:
        self.name = f"{monitor}, {engine}"
        self.engine = engine
        self.root, self.outside, self.target = base / "root", base / "outside", base / "target"
        for path in (self.root, self.outside):
            path.mkdir(parents=True)
        where = [str(self.target)] if ssh is None else ["--ssh", ssh, f"there:{self.target}"]
        arguments = [str(self.root), *where, f"--monitor={monitor}", f"--engine={engine}"]
        self.daemon = DaemonProcess(base / "log", arguments)
        self.samples: list[Held] = []

    def rage(self, seed: int) -> subprocess.Popen[bytes]:
        """Let a writer loose for some seconds."""
        options = [str(seed), str(ROUND_OPERATIONS), str(PAUSE_S)]
        return subprocess.Popen([sys.executable, writers.__file__, str(self.root), str(self.outside), *options])

    def rest(self) -> None:
        """Equality, then a sample."""
        self.daemon.wait_equal(self.root, self.target, links=self.engine != "rsync")
        time.sleep(REST_S)
        self.samples.append(held(self.daemon))

    def grown(self) -> list[str]:
        """What the last quarter holds more of than the second."""
        quarter = max(1, len(self.samples) // 4)
        found = []
        for field in fields(Held):
            before = [getattr(each, field.name) for each in self.samples[quarter : 2 * quarter]]
            after = [getattr(each, field.name) for each in self.samples[-quarter:]]
            if field.name.endswith("_kib"):
                limit = statistics.median(before) * (1 + GROWTH) + GROWTH_KIB
                if statistics.median(after) > limit:
                    found.append(f"{field.name}: {statistics.median(before):.0f}, then {statistics.median(after):.0f}")
            elif min(after) > max(*before, THREADS if field.name == "threads" else 0):
                found.append(f"{field.name}: {max(before)}, then {min(after)}")
        return found


def main(seconds: float) -> int:
    """Soak, with a line every minute; the exit status."""
    base = Path(tempfile.mkdtemp(prefix="instep-soak-", dir="/dev/shm"))
    seed = int(os.environ.get("INSTEP_SEED", random.SystemRandom().randrange(1_000_000)))
    print(f"INSTEP_SEED={seed}, {seconds:g} s")
    print(f"{'s':>6} {'rounds':>7}  {'daemon':<18}" + "".join(f"{field.name:>13}" for field in fields(Held)))
    all_soaked: list[Soaked] = []
    running: list[subprocess.Popen[bytes]] = []
    stack = contextlib.ExitStack()
    try:
        for monitor, engine in ROADS:
            if engine != "remote":
                all_soaked.append(Soaked(base / engine, monitor, engine))
            elif (missing := why_unavailable()) is None:
                server = stack.enter_context(serving(base / "sshd"))
                all_soaked.append(Soaked(base / engine, monitor, engine, server.ssh))
            else:
                print(f"without the remote engine: {missing}")
        began_s = told_s = time.monotonic()
        rounds = 0
        while (now_s := time.monotonic()) < began_s + seconds or rounds < 8:
            rounds += 1
            running = [each.rage(seed + rounds * len(ROADS) + number) for number, each in enumerate(all_soaked)]
            for writer in running:
                assert writer.wait(600) == 0
            for each in all_soaked:
                each.rest()
            if now_s >= told_s or rounds == 1:
                told_s = now_s + 60
                for each in all_soaked:
                    figures = "".join(f"{figure:>13,}" for figure in astuple(each.samples[-1]))
                    print(f"{now_s - began_s:>6.0f} {rounds:>7}  {each.name:<18}{figures}", flush=True)
        failed = False
        for each in all_soaked:
            each.daemon.stop()
            each.daemon.complain()
            grown = each.grown()
            failed = failed or bool(grown)
            print(f"{each.name}: {'; '.join(grown) if grown else 'flat'} over {len(each.samples)} rounds")
        return int(failed)
    finally:
        for writer in running:
            writer.kill()
            writer.wait()
        for each in all_soaked:
            each.daemon.kill()
        stack.close()
        shutil.rmtree(base, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else 1800.0))
