"""What the engine tells of directories that it brought over whole: just what the index would read there."""

from __future__ import annotations

import os
import time
from types import SimpleNamespace

import pytest

from instep.core.filters import Filter
from instep.engines.native import tree
from instep.index.scan import EVER, Scanner
from instep.paths import Scope
from instep.records import record
from instep.rules import Rule
from tests.engines.native.rig import Rig, write

EXCLUDES = (Rule(include=False, pattern=b"*.o"),)


def plant(rig: Rig) -> None:
    """A directory with all sorts of names, older than what is done next."""
    for path in (b"d/e/f/g", b"d/empty"):
        os.makedirs(rig.s(path))
    for path in (b"d/a", b"d/odd \xff\n", b"d/e/x", b"d/e/f/y", b"d/e/left.o", b"d/.instep-1-1.tmp"):
        write(rig.s(path))
    os.symlink(b"a", rig.s(b"d/link"))
    os.mkfifo(rig.s(b"d/e/fifo"))
    os.utime(rig.s(b"d/a"), ns=(1, 2))
    rest(rig.s(b"d"))


def rest(top: bytes) -> None:
    """Wait until the clock is past all that is there."""
    newest = max(os.lstat(os.path.join(here, name)).st_ctime_ns for here, _, names in os.walk(top) for name in names)
    deadline_s = time.monotonic() + 60
    while time.time_ns() <= newest:
        assert time.monotonic() < deadline_s


@pytest.mark.parametrize("now", [True, False], ids=["at once", "by workers"])
def test_it_is_what_a_survey_finds(base: bytes, now: bool) -> None:
    with Rig(base, learns=True, rules=EXCLUDES) as rig:
        plant(rig)
        outcome = rig.bring(b"d", scope=Scope.TREE, now=now)
        assert not outcome.failures
        scanner = Scanner(rig.source_fd, Filter(EXCLUDES), one_file_system=False)
        found = scanner.survey([(b"d", EVER)], entries_max=1 << 30)
        assert {path: text for path, _, text, _ in outcome.learned} == {
            path: text for path, _, text in found.directories
        }
        below = {path: set(paths) for path, _, _, paths in outcome.learned}
        assert below == {
            b"d": {b"d/e", b"d/empty"},
            b"d/e": {b"d/e/f"},
            b"d/e/f": {b"d/e/f/g"},
            b"d/e/f/g": set(),
            b"d/empty": set(),
        }


@pytest.mark.parametrize("path", [b"f", b"g/f"])
def test_of_a_single_file_it_is_what_was_read(base: bytes, path: bytes) -> None:
    with Rig(base, learns=True) as rig:
        os.mkdir(rig.s(b"g"))
        os.mkdir(rig.d(b"g"))
        write(rig.s(path))
        assert rig.bring(path).learned_names == {path: record(os.lstat(rig.s(path)))}
        assert not rig.bring(path).learned_names  # Nothing was read, for it is there.


def test_nobody_asked(base: bytes) -> None:
    with Rig(base) as rig:
        plant(rig)
        assert not rig.bring(b"d", scope=Scope.TREE).learned
        write(rig.s(b"f"))
        assert not rig.bring(b"f").learned_names


def test_what_was_touched_just_now_is_not_claimed(base: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    with Rig(base, learns=True) as rig:
        plant(rig)
        newest = os.lstat(rig.s(b"d/e/x")).st_ctime_ns
        monkeypatch.setattr(tree, "time", SimpleNamespace(time_ns=lambda: newest))
        learned = {path for path, *_ in rig.bring(b"d", scope=Scope.TREE).learned}
        assert b"d/e" not in learned


def test_what_was_left_for_later_is_not_claimed(base: bytes) -> None:
    with Rig(base, learns=True) as rig:
        plant(rig)
        os.link(rig.s(b"d/e/x"), rig.s(b"d/e/other"))
        rest(rig.s(b"d"))
        outcome = rig.bring(b"d", scope=Scope.TREE)
        assert b"d/e" not in {path for path, *_ in outcome.learned}
        assert not outcome.failures


def test_what_stood_at_the_target_before_is_not_claimed(base: bytes) -> None:
    with Rig(base, learns=True) as rig:
        plant(rig)
        os.mkdir(rig.d(b"d"))
        learned = {path for path, *_ in rig.bring(b"d", scope=Scope.TREE).learned}
        assert b"d" not in learned
        assert b"d/e" in learned
