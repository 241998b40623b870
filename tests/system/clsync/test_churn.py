"""Whatever happens in the tree, both sides are equal at rest: by an engine of ours, and by rsync with lists."""

from __future__ import annotations

import functools
import subprocess
import sys

from tests.system import writers
from tests.system.clsync.conftest import Start
from tests.system.clsync.programs import Desk

AT_ONCE = "-w0 -t0 -T0"
CALM = "-w1 -t1 -T1"
WAYS = {
    "engine-at-once": AT_ONCE,
    "engine-calm": CALM,
    # What vanishes, or is made unreadable for a moment, is nothing to give up for.
    "rsync-at-once": f"{AT_ONCE} --engine=handler --ignore-failures",
    "rsync-calm": f"{CALM} --engine=handler --ignore-failures --rsync-inclimit=50",
}


def test_churn(start: Start, desk: Desk) -> None:
    """In every way at once."""
    for way in WAYS:
        (desk.dst / way).mkdir()
    processes = {way: start(f"-Mrsyncdirect -W@/src -D@/dst/{way} {options}") for way, options in WAYS.items()}
    outside = desk.top / "outside"
    outside.mkdir()

    def is_equal(way: str) -> bool:
        # rsync itself takes equal size and time for equal content.
        look = "-aHni" if way.startswith("rsync") else "-aHnic"
        equal = ["rsync", look, "--delete", f"{desk.src}/", f"{desk.dst / way}/"]
        done = subprocess.run(equal, check=False, capture_output=True)
        return not (done.returncode or done.stdout)

    def wait(when: str) -> None:
        for way, process in processes.items():
            process.wait(functools.partial(is_equal, way), f"both sides equal {when}: {way}")

    wait("after the initial sync")
    for seed in (1, 2):
        subprocess.run(
            [sys.executable, writers.__file__, desk.src, outside, str(seed), "400", "0.003"], check=True, timeout=60
        )
        wait(f"after seed {seed}")
    for process in processes.values():
        assert process.stop() == 0
