"""The same stranger amid a storm, for the roads of bulk: workers, whole directories, removals, moves.

Only the native engine: see ``test_escape``.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.system.compare import snapshot
from tests.system.conftest import Start
from tests.system.test_escape import swapping

NAMES = ("storm0", "storm1", "moved0", "moved1")

STORM = """
import os, shutil, sys, time
place, until = sys.argv[1], time.monotonic() + float(sys.argv[2])
number = 0
while time.monotonic() < until:
    number += 1
    work = f"{place}/work"  # nobody swaps this, so that the storm itself stays inside
    os.makedirs(f"{work}/sub")
    for each in range(80):
        for name in (f"{work}/n{each}", f"{work}/sub/victim{each}"):
            with open(name, "w") as file:
                file.write(f"{number}")
    name = f"{place}/storm{number % 2}"
    shutil.rmtree(name, ignore_errors=True)  # refuses links
    try:
        os.rename(work, name)
        os.rename(name, f"{place}/moved{number % 2}")
    except OSError:
        shutil.rmtree(work, ignore_errors=True)
"""


def test_links_planted_on_both_sides_in_a_storm(start: Start, source: Path, target: Path, shm: Path) -> None:
    outside = shm / "outside"
    (outside / "sub").mkdir(parents=True)
    for number in range(80):
        (outside / f"n{number}").write_text("precious")
        (outside / "sub" / f"victim{number}").write_text("precious")
    (outside / "only outside").write_text("secret")
    (source / "d").mkdir()
    before = snapshot(outside)
    daemon = start(source, target, "--engine=native")
    daemon.wait_following()
    running = [subprocess.Popen([sys.executable, "-c", STORM, source / "d", "3"])]
    running += [swapping(place / "d" / name, outside, 3) for place in (source, target) for name in NAMES]
    try:
        assert [each.wait(60) for each in running] == [0] * len(running)
    finally:
        for each in running:
            each.kill()
            each.wait()
    assert snapshot(outside) == before
    # The daemon is still at work: what goes away meanwhile is passed over, and links are not followed.
    leaked = [here for here, _, names, _ in os.fwalk(target) if "only outside" in names]
    assert not leaked, "content from outside the source was brought over"
    daemon.tell(signal.SIGUSR2)  # What the stranger left behind at the target is none of our reports.
    daemon.wait_equal(source, target)
    assert snapshot(outside) == before
    assert daemon.stop() == 0
