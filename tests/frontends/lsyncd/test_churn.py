"""Random changes, fast, on every kind of sync at once: in the end every target equals the source."""

from __future__ import annotations

import os
import random
import shutil
import time
from pathlib import Path

import pytest

from tests.frontends.lsyncd.conftest import Start

FULL = os.environ.get("INSTEP_SIZES") == "full"
OPERATIONS = int(os.environ.get("OPERATIONS", "2000" if FULL else "40"))
LATER_S = 5 if FULL else 0.5

# The checksum option keeps a sync from being a plain mirror. It is also what makes rsync see a second write of the same
# size within one second.
CONFIG = """
settings{ nodaemon=true }
for name, delay in pairs{ now=0, soon=LATER } do
    sync{ default.rsync, source="@/s", target="@/t/rsync-" .. name, delay=delay, maxProcesses=name == "now" and 2 or 1,
        rsync={ checksum=true } }
    sync{ default.direct, source="@/s", target="@/t/direct-" .. name, delay=delay, rsync={ checksum=true } }
    sync{ default.rsync, source="@/s", target="@/t/fast-" .. name, delay=delay }
    sync{ default.rsync, source="@/s", target="there:@/t/ssh-" .. name, delay=delay, rsync={ compress=true } }
    sync{ default.rsyncssh, source="@/s", host="there", targetdir="@/t/far-" .. name, delay=delay,
        rsync={ checksum=true } }
end
"""


def operate(source: Path, chance: random.Random) -> None:
    """Make, write, rename or remove something, somewhere."""
    directories = [path for path in source.rglob("*") if path.is_dir()] + [source]
    files = [path for path in source.rglob("*") if path.is_file()]
    where = chance.choice(directories)
    name = f"{chance.choice('abcdef')}{chance.randrange(9)}"
    match chance.choice(["file", "file", "write", "directory", "move", "move-directory", "remove", "remove-directory"]):
        case "file":
            if not (where / name).is_dir():
                (where / name).write_text(f"{chance.random()}")
        case "write" if files:
            chance.choice(files).write_text(f"{chance.random()}")
        case "directory":
            if not (where / name).exists():
                (where / name / "in").mkdir(parents=True)
                (where / name / "in" / "file").write_text(name)
        case "move" if files:
            if not (where / name).is_dir():
                chance.choice(files).rename(where / name)
        case "move-directory":
            moved = chance.choice(directories)
            if moved != source and moved not in (where, *where.parents) and not (where / name).exists():
                moved.rename(where / name)
        case "remove" if files:
            chance.choice(files).unlink()
        case "remove-directory":
            gone = chance.choice(directories)
            if gone != source and len(files) > 20:
                shutil.rmtree(gone)
        case _:
            pass


@pytest.mark.slow
@pytest.mark.timeout(900 if FULL else 120)
@pytest.mark.usefixtures("server")
def test_churn(start: Start, source: Path, tmp_path: Path) -> None:
    seed = int(os.environ.get("SEED", time.time_ns() % 1_000_000 if FULL else 1))
    print(f"SEED={seed}")
    chance = random.Random(seed)
    (tmp_path / "t").mkdir()
    for _ in range(50):
        operate(source, chance)
    daemon = start(config=CONFIG.replace("LATER", str(LATER_S)))
    targets = [
        tmp_path / "t" / f"{kind}-{when}"
        for kind in ("rsync", "direct", "fast", "ssh", "far")
        for when in ("now", "soon")
    ]
    for target in targets:
        daemon.wait(target.is_dir, f"the start of {target.name}")
    for _ in range(OPERATIONS):
        operate(source, chance)
        time.sleep(
            chance.choice([0, 0, 0, 0.005, 0.02, 0.5 if FULL else 0])
        )  # not a wait: changes come at any moment of a transfer
    for target in targets:
        daemon.equal(source, target)
    assert daemon.stop() == 143
