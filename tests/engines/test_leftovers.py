"""What a killed process left behind under a temporary name goes with the directory that it is in, whatever the rules."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from instep.paths import Scope
from instep.rules import Rule
from tests.engines.native.rig import Rig as NativeRig
from tests.engines.native.rig import write
from tests.engines.remote.rig import Rig as RemoteRig

Rig = NativeRig | RemoteRig
LEFT = b".instep-44c65117-4d15-4.tmp"
RULES = (Rule(include=False, pattern=b"c/"), Rule(include=False, pattern=b"*.o"))


@pytest.fixture
def base() -> Iterator[bytes]:
    path = tempfile.mkdtemp(prefix="instep-left-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
    yield os.fsencode(path)
    subprocess.run(["rm", "-rf", path], check=True)


@pytest.mark.parametrize("now", [True, False])
@pytest.mark.parametrize("makes_file", [True, False], ids=["file", "directory"])
@pytest.mark.parametrize("end", ["replaced", "removed"])
@pytest.mark.parametrize("make", [NativeRig, RemoteRig], ids=["native", "remote"])
def test_in_a_directory_that_goes(base: bytes, make: Callable[..., Any], end: str, makes_file: bool, now: bool) -> None:
    with make(base, rules=RULES) as rig:
        os.makedirs(rig.d(b"b/a"))
        left = rig.d(b"b/a/" + LEFT)
        if makes_file:
            write(left, b"half")
        else:
            os.mkdir(left)
            write(left + b"/file", b"whole")
        if end == "replaced":
            write(rig.s(b"b"), b"a file")
        outcome = rig.bring(b"b", now=now)
        assert not outcome.failures
        assert os.listdir(rig.dst) == [b"b"] * (end == "replaced")
        rig.clean(rig.tree())


@pytest.mark.parametrize("make", [NativeRig, RemoteRig], ids=["native", "remote"])
def test_in_a_directory_that_holds_what_is_excluded(base: bytes, make: Callable[..., Any]) -> None:
    """That stays, and nothing else."""
    with make(base, rules=RULES) as rig:
        os.makedirs(rig.d(b"b/a"))
        for name in (LEFT, b"main.o", b"main"):
            write(rig.d(b"b/a/" + name), b"x")
        outcome = rig.bring(b"b", scope=Scope.TREE)
        assert not outcome.failures
        assert os.listdir(rig.d(b"b/a")) == [b"main.o"]
