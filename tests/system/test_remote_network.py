"""A whole daemon and a machine with a network of its own, whose cable is pulled out."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.conftest import Start
from tests.system.network import FAR, NEEDS_NETWORKS, Cable, cabled
from tests.system.sshd import Sshd, serving
from tests.system.test_remote import fill

pytestmark = NEEDS_NETWORKS


@pytest.fixture
def cable() -> Iterator[Cable]:
    with cabled() as cable:
        yield cable


@pytest.fixture
def server(cable: Cable, tmp_path: Path) -> Iterator[Sshd]:
    with serving(tmp_path / "sshd", addresses=(FAR,), near=cable.near, far=cable.far) as server:
        yield server


def test_a_cable_that_is_pulled_out_and_plugged_in_again(
    start: Start, cable: Cable, server: Sshd, source: Path, target: Path
) -> None:
    fill(source)
    (source / "large").write_bytes(os.urandom(8_000_000))
    # Its own way of noticing, in two seconds instead of fifteen; what the user says of ssh counts first.
    ssh = f"{server.ssh} -o ServerAliveInterval=1 -o ServerAliveCountMax=2"
    daemon = start("--ssh", ssh, source, f"there:{target}", "--engine=remote")
    daemon.wait_following()
    daemon.wait_equal(source, target)
    cable.pull_out()
    (source / "d0/f0").write_text("while it was out")
    (source / "d1").rename(source / "moved")
    shutil.rmtree(source / "d2")
    (source / "more").write_bytes(os.urandom(100_000))
    daemon.wait_event("target-away")
    before = cable.sent_bytes()
    cable.plug_in()
    assert daemon.wait_event("target-back")["compared_anew"] is False
    daemon.wait_equal(source, target)
    assert cable.sent_bytes() - before < 2_000_000
    assert daemon.stop() == 0
    assert not [name for name in os.listdir(target) if name.startswith(".")]
