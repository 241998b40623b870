"""What the engine tells of what the target holds already, or was just sent: what the index would read in the source."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from instep.core.filters import Filter
from instep.engines.remote.learned import page
from instep.index.scan import EVER, Scanner
from instep.records import record
from instep.rules import Rule
from tests.engines.remote.rig import Rig, write
from tests.engines.remote.test_below import bring_later, plant

EXCLUDES = (Rule(include=False, pattern=b"*.o"),)


def test_of_equal_directories_it_is_what_a_survey_finds(tmp_path: Path) -> None:
    with Rig(os.fsencode(tmp_path), learns=True, rules=EXCLUDES) as rig:
        plant(rig)
        write(rig.s(b"odd \xff\n"), b"x")
        os.symlink(b"f", rig.s(b"wide/d001/link"))
        os.mkfifo(rig.s(b"wide/fifo"))
        bring_later(rig)
        for path in (b"left.o", b"wide/.instep-1-1.tmp"):
            write(rig.s(path), b"x")
        rig.tree()
        learned = rig.tree().learned
        assert len({path for path, *_ in learned}) == len(learned)
        found = Scanner(rig.source_fd, Filter(EXCLUDES), one_file_system=False).survey(
            [(b"", EVER)], entries_max=1 << 30
        )
        texts = {path: text for path, _, text in found.directories}
        assert {path: text for path, _, text, _ in learned} == texts
        inner = {path: {other for other in texts if other and other.rpartition(b"/")[0] == path} for path in texts}
        assert {path: set(below) for path, _, _, below in learned} == inner


@pytest.mark.parametrize("make", [lambda path: write(path, b"x"), os.mkfifo])
def test_what_differs_or_is_looked_at_again_is_not_claimed(tmp_path: Path, make: Callable[[bytes], None]) -> None:
    with Rig(os.fsencode(tmp_path), learns=True) as rig:
        plant(rig)
        make(rig.s(b"wide/d001/one"))
        os.link(rig.s(b"wide/d001/one"), rig.s(b"wide/d002/two"))
        bring_later(rig)
        write(rig.d(b"wide/d003/f"), b"another")
        outcome = rig.tree()
        assert outcome.files == 1
        claimed = {path for path, *_ in outcome.learned}
        assert not claimed & {b"wide/d001", b"wide/d002", b"wide/d003"}
        assert b"wide/d004" in claimed


def test_of_a_small_file_it_is_what_was_sent(tmp_path: Path) -> None:
    with Rig(os.fsencode(tmp_path), learns=True) as rig:
        os.mkdir(rig.s(b"d"))
        write(rig.s(b"d/f"), b"new")
        rig.tree()
        write(rig.s(b"d/f"), b"newer")
        assert rig.bring(b"d/f").learned_names == {b"d/f": record(os.lstat(rig.s(b"d/f")))}


def test_nobody_asked(tmp_path: Path) -> None:
    with Rig(os.fsencode(tmp_path)) as rig:
        plant(rig)
        bring_later(rig)
        assert not rig.tree().learned
        write(rig.s(b"f"), b"new")
        assert not rig.bring(b"f").learned_names


@pytest.mark.parametrize("late_ns", [0, 1])
def test_what_changed_while_it_was_read_is_not_claimed(tmp_path: Path, late_ns: int) -> None:
    write(os.fsencode(tmp_path / "f"), b"x")
    info = (tmp_path / "f").lstat()
    assert (page(b"", info.st_ctime_ns + late_ns, {"f": info}, hard_links=True) is not None) == bool(late_ns)
