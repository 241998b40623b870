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
ROUNDS = 50
TOPS = [f"d{number}" for number in range(5)] + [f"moved{number}" for number in range(10, ROUNDS + 1, 10)]

WRITER = """
import os, sys
directory, sizes, rounds = sys.argv[1], [int(size) for size in sys.argv[2].split(",")], int(sys.argv[3])
number = 0
while number < rounds or not os.path.exists(sys.argv[4]):
    number += 1
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
    if number % 10 == 0 and number <= rounds:
        os.rename(f"{directory}/d1", f"{directory}/moved{number}")
"""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("engine", ENGINES)
def test_a_reader_sees_whole_versions(start: Start, source: Path, target: Path, tmp_path: Path, engine: str) -> None:
    daemon = start(source, target, f"--engine={engine}")
    daemon.wait_following()
    sizes = ",".join(str(size) for size in SIZES)
    enough = tmp_path / "enough"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, source, sizes, str(ROUNDS), enough])
    # By their names: a listing meets directories that move or go while it is made.
    watched = [target / str(size) for size in SIZES]
    watched += [target / top / f"f{number}" for top in TOPS for number in range(3)]
    reads = 0
    versions: set[bytes] = set()
    try:
        while writer.poll() is None:
            for path in watched:
                try:
                    content = path.read_bytes()
                except OSError:
                    continue  # Not there yet, or moved.
                reads += 1
                first = content[:UNIT]
                assert len(first) == UNIT, f"{path} is empty"
                assert content == first * (len(content) // UNIT), f"{path} is a mix"
                # The size belongs to the version as well.
                if path.name.isdigit():
                    assert len(content) == (int(path.name) + int(first) % 7 * 100) // UNIT * UNIT, f"{path} is cut off"
                versions.add(first)
            if reads > 20 and len(versions) > 2:
                enough.touch()  # It goes on until then, however quick it is.
    finally:
        writer.kill()
        status = writer.wait()
    assert status == 0
    print(f"{reads} reads, {len(versions)} versions")
    daemon.wait_equal(source, target)
    assert not leftovers(target)
    assert daemon.stop() == 0
