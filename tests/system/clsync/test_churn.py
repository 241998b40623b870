"""Whatever happens in the tree, both sides are equal at rest: by an engine of ours, and by rsync with lists."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.system import writers
from tests.system.clsync.conftest import Start
from tests.system.clsync.programs import Desk

AT_ONCE = "-w0 -t0 -T0"
CALM = "-w1 -t1 -T1"


@pytest.mark.parametrize(
    "options",
    [
        AT_ONCE,
        CALM,
        # What vanishes, or is made unreadable for a moment, is nothing to give up for.
        f"{AT_ONCE} --engine=handler --ignore-failures",
        f"{CALM} --engine=handler --ignore-failures --rsync-inclimit=50",
    ],
    ids=["engine-at-once", "engine-calm", "rsync-at-once", "rsync-calm"],
)
def test_churn(start: Start, desk: Desk, options: str) -> None:
    process = start(f"-Mrsyncdirect -W@/src -D@/dst {options}")
    outside = desk.top / "outside"
    outside.mkdir()
    # rsync itself takes equal size and time for equal content.
    look = "-aHni" if "handler" in options else "-aHnic"
    equal = ["rsync", look, "--delete", f"{desk.src}/", f"{desk.dst}/"]

    def is_equal() -> bool:
        return not subprocess.run(equal, check=False, capture_output=True).stdout

    process.wait(is_equal, "the initial sync")
    for seed in (1, 2):
        subprocess.run(
            [sys.executable, writers.__file__, desk.src, outside, str(seed), "400", "0.003"], check=True, timeout=60
        )
        process.wait(is_equal, f"both sides equal after seed {seed}")
    assert process.stop() == 0
