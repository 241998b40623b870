"""The engine between two machines with networks of their own: what no proxy can do, for no packet tells of it."""

from __future__ import annotations

import asyncio
import os
import shlex
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from instep.errors import TargetAway
from instep.model import Batch, Change, Outcome
from instep.paths import RelPath
from tests.engines.remote.rig import Patience, Rig, well, write
from tests.engines.remote.test_faults import DEADLINE_S, partials, until, wait_until
from tests.processes import lives
from tests.system.network import FAR, FAR_TOO, NEEDS_NETWORKS, Cable, cabled
from tests.system.sshd import Sshd, serving
from tests.trees import assert_equal

pytestmark = NEEDS_NETWORKS

BIG = 24 << 20
FAULTS = {
    "the cable is pulled out": (Cable.pull_out, Cable.plug_in),
    "answers are lost": (Cable.lose_answers, Cable.find_answers),
}


@pytest.fixture
def cable() -> Iterator[Cable]:
    with cabled() as cable:
        yield cable


@pytest.fixture
def server(cable: Cable, tmp_path: Path) -> Iterator[Sshd]:
    with serving(tmp_path / "sshd", addresses=(FAR, FAR_TOO), near=cable.near, far=cable.far) as server:
        yield server


def rig_over(server: Sshd, base: Path, *, bandwidth_bytes_per_s: float = float("inf")) -> Rig:
    return Rig(
        os.fsencode(base),
        command=None,
        target=b"there:%s/dst" % os.fsencode(base),
        ssh_words=list(map(os.fsencode, shlex.split(server.ssh))),
        bandwidth_bytes_per_s=bandwidth_bytes_per_s,
    )


def changed(path: bytes) -> Batch:
    return Batch((Change(RelPath(path)),), time.monotonic())


def open_again(rig: Rig) -> bool:
    """As the daemon does: again and again, until it works."""
    until_s = time.monotonic() + DEADLINE_S
    reason = ""
    while time.monotonic() < until_s:
        try:
            return rig.run(rig.engine.open())
        except TargetAway as away:
            reason = str(away)
    raise AssertionError(reason)


@pytest.mark.parametrize("fault", FAULTS)
def test_silence_in_the_middle_of_a_large_file(
    cable: Cable, server: Sshd, tmp_path: Path, fault: str, patience: Patience
) -> None:
    harm, heal = FAULTS[fault]
    with rig_over(server, tmp_path, bandwidth_bytes_per_s=float(30 << 20)) as rig:
        write(rig.s(b"small"), b"first")
        rig.clean(rig.bring(b"small"))
        write(rig.s(b"big"), os.urandom(BIG))

        older = server.sessions()

        async def harmed() -> list[Outcome]:
            tasks = [asyncio.ensure_future(rig.engine.sync(changed(b"big")))]
            await until(
                lambda: any(os.stat(rig.d(name)).st_size > 4 << 20 for name in partials(rig)), "some of it arrived"
            )
            harm(cable)
            patience(0.6)
            write(rig.s(b"small"), b"on its way")
            tasks.append(asyncio.ensure_future(rig.engine.sync(changed(b"small"))))
            return await asyncio.gather(*tasks)

        for outcome in rig.run(harmed()):
            assert "no answer" in str(outcome.away)  # Nothing else has told of it.
        write(rig.s(b"small"), b"second")
        heal(cable)
        patience(DEADLINE_S)
        assert open_again(rig)
        well(rig.bring(b"small"))
        outcome = rig.bring(b"big")
        rig.clean(outcome)
        assert 0 < outcome.bytes_copied < BIG - (3 << 20)
        assert not partials(rig)
        # What comes late over the old connection does not outdo what was sent since.
        wait_until(lambda: not any(map(lives, older)), "the older agent ended, and all that belongs to it")
        assert_equal(rig.src, rig.dst)


@pytest.mark.parametrize("who", ["near", "far"])
def test_a_machine_that_gets_another_address(
    cable: Cable, server: Sshd, tmp_path: Path, who: str, patience: Patience
) -> None:
    move: Callable[[Cable], None] = {"near": Cable.move_near, "far": Cable.move_far}[who]
    with rig_over(server, tmp_path) as rig:
        write(rig.s(b"a"), b"a")
        rig.clean(rig.bring(b"a"))
        move(cable)
        patience(0.6)
        write(rig.s(b"a"), b"b")
        assert "no answer" in str(rig.bring(b"a").away)
        patience(DEADLINE_S)
        if who == "far":
            server.lead_to(FAR_TOO)
        assert open_again(rig)
        rig.clean(rig.bring(b"a"))


def test_very_small_packets(cable: Cable, server: Sshd, tmp_path: Path) -> None:
    cable.narrow(128)
    with rig_over(server, tmp_path) as rig:
        write(rig.s(b"large"), os.urandom(1_200_000))
        for number in range(50):
            write(rig.s(b"f%d" % number), b"%d" % number)
        rig.clean(rig.tree())
        write(rig.s(b"f1"), b"changed")
        rig.clean(rig.bring(b"f1"))
        rig.clean(rig.tree())
