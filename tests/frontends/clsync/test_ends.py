"""What the end of a run means."""

from __future__ import annotations

from typing import Any

import pytest

from instep.frontends.clsync import ends
from instep.frontends.clsync.settings import Mode
from instep.model import ProgramEnd
from tests.frontends.clsync.simulation import settings

RSYNC = {"mode": Mode.RSYNCDIRECT}


@pytest.mark.parametrize(
    ("end", "given", "good"),
    [
        (ProgramEnd(0), {}, True),
        (ProgramEnd(5), {}, False),
        (ProgramEnd(5), {"ignore_exitcode": frozenset({0, 5})}, True),
        (ProgramEnd(24), RSYNC, True),
        (ProgramEnd(24), {"mode": Mode.RSYNCSHELL}, False),
        (ProgramEnd(137, signal=9), {"ignore_exitcode": frozenset({0, 137})}, False),
        (ProgramEnd(0, timed_out=True), {}, False),
        (ProgramEnd(127, trouble="No such file", errno=2), {"ignore_exitcode": frozenset({0, 127})}, False),
    ],
)
def test_success(end: ProgramEnd, given: dict[str, Any], good: bool) -> None:
    assert ends.is_good(end, settings(**given), by_engine=False) is good


def test_success_of_an_engine() -> None:
    end = ProgramEnd(23, trouble="f: not permitted")
    for codes, good in (({0}, False), ({0, 23}, True), ({0, 24}, False)):
        assert ends.is_good(end, settings(ignore_exitcode=frozenset(codes)), by_engine=True) is good


@pytest.mark.parametrize(
    ("end", "why", "status", "of_one"),
    [
        (ProgramEnd(5), "exit code 5", 5, 255),
        (ProgramEnd(137, signal=9), "killed by signal 9", 137, 255),
        (ProgramEnd(143, signal=15, timed_out=True), "took more than 86400 s, and was ended", 62, 62),
        (ProgramEnd(127, trouble="No such file", errno=2), "No such file", 2, 255),
        (ProgramEnd(256), "exit code 256", 1, 255),
    ],
)
def test_failure(end: ProgramEnd, why: str, status: int, of_one: int) -> None:
    assert ends.why(end, settings()) == why
    assert [ends.exit_status(end, single=single) for single in (False, True)] == [status, of_one]
