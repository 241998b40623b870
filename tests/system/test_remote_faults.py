"""Far targets that are cut off, stalled, restarted, full or gone: at rest equal, and nobody else waits."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.system import rsyncd, writers
from tests.system.conftest import Start
from tests.system.proxy import Proxy
from tests.system.sshd import Sshd
from tests.system.test_remote import ENGINES, beside_local, fill

Mount = Callable[..., Path]


def ssh_options(sshd: Sshd) -> list[str]:
    return ["--ssh", sshd.ssh]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_storm_over_a_wire_that_is_cut_again_and_again(
    start: Start, sshd: Sshd, source: Path, shm: Path, target: Path, engine: str
) -> None:
    outside = shm / "outside"
    outside.mkdir()
    proxy = sshd.proxy("wire")
    daemon = start(*ssh_options(sshd), source, f"wire:{target}", f"--engine={engine}")
    daemon.wait_following()
    draw = random.Random(engine)
    writer = subprocess.Popen([sys.executable, writers.__file__, source, outside, "7", "1200", "0.004"])
    try:
        for _ in range(4):
            proxy.cut_after(draw.randrange(200, 60_000))
            # What there is to be sent may end before the wire does.
            until_s = time.monotonic() + 1.0
            while not proxy.is_cut() and time.monotonic() < until_s:
                time.sleep(0.01)
            proxy.cut()
            time.sleep(draw.random() / 5)
            proxy.heal()
        assert writer.wait(60) == 0
    finally:
        writer.kill()
        writer.wait()
    # A known limit of the rsync engine (README): names that meet again in a moved directory may stay two files.
    daemon.wait_equal(source, target, links=engine != "rsync")
    assert daemon.stop() == 0


@pytest.mark.parametrize("engine", ["remote"])
def test_a_big_file_over_a_wire_that_is_cut(start: Start, sshd: Sshd, source: Path, target: Path, engine: str) -> None:
    proxy = sshd.proxy("wire")
    daemon = start(*ssh_options(sshd), source, f"wire:{target}", f"--engine={engine}")
    daemon.wait_following()
    proxy.cut_after(12_000_000)
    (source / "big").write_bytes(os.urandom(30_000_000))
    (source / "small").write_text("behind it")
    daemon.wait_event("target-away")
    proxy.heal()
    daemon.wait_event("target-back")
    daemon.wait_equal(source, target)
    assert daemon.stop() == 0
    assert sorted(os.listdir(target)) == ["big", "small"]


@pytest.mark.parametrize("engine", ["remote"])
def test_a_server_that_is_killed_and_started_again(
    start: Start, sshd: Sshd, source: Path, shm: Path, engine: str
) -> None:
    fill(source)
    here, there = shm / "here", shm / "there"
    daemon = start(*ssh_options(sshd), source, here, f"there:{there}", *beside_local(engine))
    daemon.wait_following()
    daemon.wait_equal(source, there)
    sshd.stop()
    (source / "d0/f0").write_text("while it was down")
    (source / "d1").rename(source / "moved")
    shutil.rmtree(source / "d2")
    daemon.wait_equal(source, here)
    daemon.wait_event("target-away", target=f"there:{there}")
    (source / "more").write_text("more")
    sshd.start()
    daemon.wait_event("target-back")
    daemon.wait_equal(source, there)
    assert daemon.events("target-away", target=str(here)) == []
    assert daemon.stop() == 0


@pytest.mark.parametrize("engine", ["remote"])
def test_a_host_that_is_down_at_start(start: Start, sshd: Sshd, source: Path, target: Path, engine: str) -> None:
    fill(source)
    sshd.stop()
    daemon = start(*ssh_options(sshd), source, f"there:{target}", f"--engine={engine}")
    said = daemon.wait_event("target-away")
    assert "Connection refused" in str(said["reason"])
    daemon.wait_following()
    (source / "new").write_text("new")
    sshd.start()
    daemon.wait_event("target-back")
    daemon.wait_equal(source, target)
    assert daemon.stop() == 0


def test_once_is_not_done_while_the_host_is_down_though_nothing_differs(
    start: Start, sshd: Sshd, source: Path, target: Path
) -> None:
    fill(source)
    arguments = [*ssh_options(sshd), source, f"there:{target}", "--once"]
    assert start(*arguments).ended() == 0
    sshd.stop()
    daemon = start(*arguments)
    assert daemon.ended() == 1
    assert daemon.events("index")[0]["used"] is True
    assert daemon.events("target-away")


@pytest.mark.parametrize("engine", ENGINES)
def test_a_stalled_host_costs_the_others_nothing(
    start: Start, sshd: Sshd, source: Path, shm: Path, engine: str
) -> None:
    fill(source)
    near, far = shm / "near", shm / "far"
    proxy = sshd.proxy("wire")
    daemon = start(*ssh_options(sshd), source, f"there:{near}", f"wire:{far}", f"--engine={engine}")
    daemon.wait_following()
    daemon.wait_equal(source, near)
    daemon.wait_equal(source, far)
    proxy.stall()
    for number in range(5):
        (source / "d0" / f"f{number}").write_text(f"while it hangs {number}")
        daemon.wait_equal(source, near)
    (source / "big").write_bytes(os.urandom(10_000_000))
    daemon.wait_equal(source, near)
    proxy.heal()
    daemon.wait_equal(source, far)
    assert daemon.stop() == 0


def test_stopping_with_a_stalled_host_takes_no_longer(start: Start, sshd: Sshd, source: Path, shm: Path) -> None:
    fill(source)
    proxy = sshd.proxy("wire")
    targets = {engine: shm / engine for engine in ENGINES}
    daemons = {
        start(*ssh_options(sshd), source, f"wire:{target}", f"--engine={engine}"): target
        for engine, target in targets.items()
    }
    for daemon, target in daemons.items():
        daemon.wait_following()
        daemon.wait_equal(source, target)
    proxy.stall()
    (source / "new").write_text("new")
    for daemon in daemons:
        daemon.tell(signal.SIGTERM)
    for daemon in daemons:
        assert daemon.ended() == 0
        assert daemon.events("target-left-behind")


@pytest.mark.parametrize("engine", ["remote"])
def test_a_root_that_is_removed_over_there(start: Start, sshd: Sshd, source: Path, shm: Path, engine: str) -> None:
    fill(source)
    mount = shm / "mount"
    mount.mkdir()
    target = mount / "target"
    daemon = start(*ssh_options(sshd), source, f"there:{target}", f"--engine={engine}")
    daemon.wait_following()
    daemon.wait_equal(source, target)
    # The parent goes too: one missing component is made anew by rsync.
    mount.rename(shm / "aside")
    (source / "d0/f0").write_text("while it was gone")
    (source / "d1/f1").unlink()
    daemon.wait_event("target-away")
    assert not mount.exists()
    (shm / "aside").rename(mount)
    daemon.wait_event("target-back")
    daemon.wait_equal(source, target)
    assert daemon.stop() == 0


@pytest.mark.root
@pytest.mark.parametrize("engine", ["remote"])
def test_a_disk_that_is_full_over_there(
    start: Start, sshd: Sshd, source: Path, shm: Path, mounted: Mount, engine: str
) -> None:
    mount = mounted(shm / "small", "size=2M")
    target = mount / "target"
    target.mkdir()
    (mount / "ballast").write_bytes(bytes(1 << 20))
    fill(source)
    daemon = start(*ssh_options(sshd), source, f"there:{target}", f"--engine={engine}")
    daemon.wait_following()
    daemon.wait_equal(source, target)
    # In one piece: half of it, if that had already arrived, and the whole have no room beside each other.
    (shm / "big").write_bytes(os.urandom(1_400_000))
    (shm / "big").rename(source / "big")
    daemon.wait_event("target-full")
    (source / "d0/f0").write_text("while it was full")
    (mount / "ballast").unlink()
    daemon.wait_event("target-has-space-again")
    daemon.wait_equal(source, target)
    assert daemon.stop() == 0


@pytest.mark.parametrize("engine", ENGINES)
def test_what_serves_us_over_there_is_killed(start: Start, sshd: Sshd, source: Path, target: Path, engine: str) -> None:
    fill(source)
    daemon = start(*ssh_options(sshd), source, f"there:{target}", f"--engine={engine}")
    daemon.wait_following()
    daemon.wait_equal(source, target)
    for round_ in range(2):
        (source / "big").write_bytes(os.urandom(4_000_000))
        for pid in sshd.sessions():
            try:
                os.kill(pid, 9)
            except ProcessLookupError:
                continue
        (source / "d0/f0").write_text(f"round {round_}")
        daemon.wait_equal(source, target)
    assert daemon.stop() == 0


@pytest.mark.parametrize("engine", ["auto", "remote"])
def test_a_connection_that_ends_while_nothing_happens_is_opened_again(
    start: Start, sshd: Sshd, source: Path, target: Path, engine: str
) -> None:
    fill(source)
    daemon = start(*ssh_options(sshd), source, f"there:{target}", f"--engine={engine}")
    daemon.wait_following()
    daemon.wait_equal(source, target)
    for pid in sshd.sessions():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 9)
    # Nothing changes meanwhile.
    assert "connection" in str(daemon.wait_event("target-away")["reason"])
    assert daemon.wait_event("target-back")["compared_anew"] is False
    (source / "d0/f0").write_text("changed")
    daemon.wait_equal(source, target)
    assert len(daemon.events("target-away")) == 1
    assert daemon.stop() == 0


# -- rsync daemons -----------------------------------------------------------------------------------------------------

SECRET = "swordfish"


def test_an_rsync_daemon_behind_a_wire_that_is_cut(start: Start, source: Path, shm: Path, tmp_path: Path) -> None:
    there, password = shm / "there", tmp_path / "password"
    there.mkdir()
    password.write_text(f"{SECRET}\n")
    password.chmod(0o600)
    fill(source)
    with rsyncd.serving(tmp_path / "rsyncd", there, password=SECRET) as server, Proxy(server.port) as proxy:
        address = f"rsync://somebody@127.0.0.1:{proxy.port}/module"
        daemon = start(source, address, "--password-file", password)
        daemon.wait_following()
        daemon.wait_equal(source, there)
        proxy.cut()
        (source / "d0/f0").write_text("while it was cut")
        (source / "d1/f1").unlink()
        daemon.wait_event("target-away")
        proxy.heal()
        daemon.wait_event("target-back")
        daemon.wait_equal(source, there)
        server.pause()
        (source / "d0/f1").write_text("while it was down")
        daemon.wait_event("target-away", count=2)
        server.start()
        proxy.upstream(server.port)
        daemon.wait_equal(source, there)
        assert daemon.stop() == 0
        assert SECRET not in daemon.text()
