"""What holds for files with several names whichever engine writes them, at once or in its own time."""

from __future__ import annotations

import math
import os
import subprocess
import tempfile
from collections.abc import Iterator

import pytest

from instep.paths import Scope
from tests.engines.linking import searched_until
from tests.engines.native.rig import Rig as NativeRig
from tests.engines.native.rig import read, well, write
from tests.engines.remote.rig import Rig as RemoteRig

Rig = NativeRig | RemoteRig
both_roads = pytest.mark.parametrize("now", [True, False], ids=["now", "later"])


@pytest.fixture(params=[NativeRig, RemoteRig], ids=["native", "remote"])
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    """An open engine."""
    base = tempfile.mkdtemp(prefix="instep-links-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
    before = os.umask(0)  # as the daemon runs
    try:
        with request.param(os.fsencode(base)) as made:
            yield made
    finally:
        os.umask(before)
        subprocess.run(["rm", "-rf", base], check=True)


@both_roads
def test_written_through_a_new_name_that_goes_before_the_others_were_found(rig: Rig, now: bool) -> None:
    os.mkdir(rig.s(b"d"))
    write(rig.s(b"d/first"), b"old")
    rig.clean(rig.tree())
    os.link(rig.s(b"d/first"), rig.s(b"second"))
    searched_until(rig.engine._links, math.inf)
    assert rig.bring(b"second", now=now).postponed
    write(rig.s(b"second"), b"new")
    os.unlink(rig.s(b"second"))
    os.mkdir(rig.s(b"another"))
    assert [again.change.path for again in rig.bring(b"second", now=now).postponed] == [b"second"]
    well(rig.bring(b"another", now=now))  # One that comes again is enough.
    searched_until(rig.engine._links, 0.0)
    rig.clean(rig.bring(b"second", now=now))
    assert read(rig.d(b"d/first")) == b"new"
    well(rig.bring(b"second", now=now))


@both_roads
def test_a_name_in_a_directory_that_moved_while_another_was_outside(rig: Rig, now: bool) -> None:
    """What was looked for in vain says nothing of a name that has gone elsewhere since."""
    os.mkdir(rig.s(b"d"))
    write(rig.s(b"a"), b"old")
    os.link(rig.s(b"a"), rig.s(b"d/b"))
    os.link(rig.s(b"a"), rig.src + b".outside")
    try:
        rig.clean(rig.tree())
        os.rename(rig.s(b"d"), rig.s(b"e"))
        rig.clean(rig.bring(b"e", b"d", scope=Scope.TREE, content=False, moves={b"e": b"d"}, now=now))
        write(rig.s(b"a"), b"new")
        rig.clean(rig.bring(b"a", now=now))
        assert read(rig.d(b"e/b")) == b"new"
    finally:
        os.unlink(rig.src + b".outside")
