"""Somebody reads the target while it is written: each file is one version, from its first byte to its last."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.conftest import Start
from tests.system.faults import ENGINES, leftovers

SIZES = (300, 60_000, 900_000, 9 << 20)
"""What goes at once, in one piece, in several, and by a thread of its own."""
UNIT = 12

WRITER = """
import os, sys
directory, sizes, rounds = sys.argv[1], [int(size) for size in sys.argv[2].split(",")], int(sys.argv[3])
for number in range(1, rounds + 1):
    for size in sizes:
        path = f"{directory}/{size}"
        # Now longer, now shorter: a tail of the version before would show.
        with open(path + ".new", "wb") as file:
            file.write(b"%011d\\n" % number * ((size + number % 7 * 100) // 12))
        os.rename(path + ".new", path)
        os.makedirs(f"{directory}/d{number % 5}", exist_ok=True)
        with open(f"{directory}/d{number % 5}/f.new", "wb") as file:
            file.write(b"%011d\\n" % number * 5000)
        os.rename(f"{directory}/d{number % 5}/f.new", f"{directory}/d{number % 5}/f{number % 3}")
    if number % 10 == 0:
        os.rename(f"{directory}/d1", f"{directory}/moved{number}")
"""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("engine", ENGINES)
def test_a_reader_sees_whole_versions(start: Start, source: Path, target: Path, engine: str) -> None:
    daemon = start(source, target, f"--engine={engine}")
    daemon.wait_following()
    sizes = ",".join(str(size) for size in SIZES)
    writer = subprocess.Popen([sys.executable, "-c", WRITER, source, sizes, "80"])
    reads = 0
    versions: set[bytes] = set()
    try:
        while writer.poll() is None:
            for path in (*(target / str(size) for size in SIZES), *target.glob("*/f?")):
                try:
                    content = path.read_bytes()
                except OSError:
                    continue  # Moved since it was listed.
                reads += 1
                first = content[:UNIT]
                assert len(first) == UNIT, f"{path} is empty"
                assert content == first * (len(content) // UNIT), f"{path} is a mix"
                # The size belongs to the version as well.
                if path.name.isdigit():
                    assert len(content) == (int(path.name) + int(first) % 7 * 100) // UNIT * UNIT, f"{path} is cut off"
                versions.add(first)
    finally:
        writer.kill()
    assert writer.wait() == 0
    print(f"{reads} reads, {len(versions)} versions")
    assert reads > 20
    assert len(versions) > 2
    daemon.wait_equal(source, target)
    assert not leftovers(target)
    assert daemon.stop() == 0
