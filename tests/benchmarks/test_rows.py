"""Each row runs, and says something of instep; how fast is not judged here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.sshd import why_unavailable

TOP = Path(__file__).parents[2]


def bench(*arguments: str, limit_s: float = 110) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=False, timeout=limit_s)


def test_one_row_gives_a_figure_of_ours(tmp_path: Path) -> None:
    done = bench("fanout", "--quick", "--json", "--dir", str(tmp_path), "--write", str(tmp_path / "page.md"))
    assert done.returncode == 0, done.stderr
    (line,) = json.loads(done.stdout)["lines"]
    assert line["samples"]["instep"][0] > 0
    assert "one small change" in (tmp_path / "page.md").read_text()
    assert os.listdir(tmp_path) == ["page.md"]


def test_an_unknown_row_is_refused_with_the_list() -> None:
    done = bench("nosuch")
    assert done.returncode == 2
    assert "latency" in done.stderr


def test_a_place_that_is_not_there_is_refused(tmp_path: Path) -> None:
    done = bench("fanout", "--quick", "--dir", str(tmp_path / "none"))
    assert done.returncode == 2
    assert "is not a directory" in done.stderr


def test_a_tool_that_does_not_start_fails_the_run(tmp_path: Path) -> None:
    done = bench("fanout", "--quick", "--dir", str(tmp_path), "--instep", "false")
    assert done.returncode == 1
    assert "instep ended with 1" in done.stderr


# Each row is a long program; `make test` plays a few that share most of what there is, the soak all.
ALL = os.environ.get("INSTEP_SIZES") == "full"
ROWS = ["first", "burst", "big", "rename", "rsync-bulk", "start", "storm", "restart"]
FAR_ROWS = [["far-agent"], ["far-latency"], ["far-burst", "far-restart"], ["far-fanout"], ["far-big", "far-shift"]]


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS if ALL else ROWS[:1])
def test_a_row_runs(row: str, tmp_path: Path) -> None:
    done = bench(row, "--quick", "--json", "--dir", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert all(line["samples"]["instep"] for line in json.loads(done.stdout)["lines"])


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("rows", FAR_ROWS if ALL else FAR_ROWS[:1])
def test_rows_with_a_far_host_run(rows: list[str], tmp_path: Path) -> None:
    if (missing := why_unavailable()) is not None:
        pytest.skip(missing)
    done = bench(*rows, "--quick", "--json", "--dir", str(tmp_path), limit_s=380)
    assert done.returncode == 0, done.stderr
    assert all(line["samples"]["instep"] for line in json.loads(done.stdout)["lines"])


def test_the_demo_plays_to_its_end() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.demo"], cwd=TOP, capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "never" not in done.stdout
