"""Whole daemons over a real sshd: in step, live, and what happens to logins."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.conftest import Start
from tests.system.daemon_process import wait_until
from tests.system.sshd import Sshd

ENGINES = ["rsync", "remote"]


def fill(root: Path, size_bytes: int = 100) -> None:
    for number in range(3):
        (root / f"d{number}").mkdir(parents=True, exist_ok=True)
        for each in range(5):
            (root / f"d{number}" / f"f{each}").write_bytes(os.urandom(size_bytes))


def beside_local(engine: str) -> list[str]:
    """The option that gives far targets this engine where there are local ones as well."""
    return [] if engine == "remote" else [f"--engine={engine}"]


@pytest.mark.parametrize("engine", ENGINES)
def test_live_changes_of_every_sort(start: Start, sshd: Sshd, source: Path, target: Path, engine: str) -> None:
    fill(source)
    (source / "link").symlink_to("d0/f0")
    os.link(source / "d0/f0", source / "d0/hard")
    os.mkfifo(source / "fifo")
    (source / "d1/f1").chmod(0o4751)
    os.utime(source / "d1/f2", ns=(1, 1_234_567_890_123_456_789))
    os.setxattr(source / "d1/f3", "user.a", b"1")
    daemon = start("--ssh", sshd.ssh, source, f"there:{target}", f"--engine={engine}")
    daemon.wait_following()
    daemon.wait_equal(source, target)

    (source / "d0/f1").write_text("changed")
    (source / "d1/new").write_text("new")
    daemon.wait_equal(source, target)
    (source / "d1").rename(source / "moved")
    (source / "d2/f0").rename(source / "moved/f0-too")
    daemon.wait_equal(source, target)
    shutil.rmtree(source / "d2")
    (source / "link").unlink()
    (source / "fifo").unlink()
    (source / "fifo").mkdir()
    daemon.wait_equal(source, target)
    (source / "moved").chmod(0o700)
    (source / "moved/f4").chmod(0o600)
    os.setxattr(source / "moved/f3", "user.a", b"2")
    if os.geteuid() == 0:
        os.chown(source / "moved/f4", 12345, 54321)
    (source / "big").write_bytes(os.urandom(20_000_000))
    daemon.wait_equal(source, target)
    with (source / "big").open("r+b") as file:
        file.seek(10_000_000)
        file.write(b"changed in the middle")
    (source / b"odd \xff\n* name".decode("utf-8", "surrogateescape")).write_text("odd")
    daemon.wait_equal(source, target)
    assert daemon.stop() == 0
    assert not [name for name in os.listdir(target) if name.startswith(".")]
    assert not daemon.events("target-away"), daemon.text()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_second_start_finds_what_changed_meanwhile(
    start: Start, sshd: Sshd, source: Path, target: Path, engine: str
) -> None:
    fill(source)
    arguments = ["--ssh", sshd.ssh, source, f"there:{target}", f"--engine={engine}"]
    assert start(*arguments, "--once").ended() == 0
    (source / "d0/f0").write_text("while down")
    (source / "d1").rename(source / "moved")
    shutil.rmtree(source / "d2")
    (target / "stray").write_text("nobody's")
    daemon = start(*arguments, "--initial-sync=full")
    daemon.wait_following()
    daemon.wait_equal(source, target)
    assert daemon.stop() == 0


def test_without_python_there_rsync_serves(start: Start, sshd: Sshd, source: Path, target: Path) -> None:
    sshd.offer_only("rsync")
    fill(source)
    daemon = start("--ssh", sshd.ssh, source, f"there:{target}")
    assert "python3" in str(daemon.wait_event("engine-fallback")["reason"])
    daemon.wait_following()
    (source / "d0/f0").write_text("changed")
    daemon.wait_equal(source, target)
    assert daemon.stop() == 0


@pytest.mark.parametrize("engine", ENGINES)
def test_logins_that_are_refused_are_refused_with_the_words_of_ssh(
    start: Start, sshd: Sshd, source: Path, target: Path, engine: str
) -> None:
    fill(source)
    arguments = ["--ssh", sshd.ssh, source, f"there:{target}", f"--engine={engine}"]
    sshd.refuse()
    daemon = start(*arguments)
    assert daemon.ended() == 2
    assert "Permission denied (publickey)" in daemon.text()
    sshd.authorize()
    sshd.change_host_key()
    sshd.stop()
    sshd.start()
    daemon = start(*arguments)
    assert daemon.ended() == 2
    assert "Host key verification failed" in daemon.text()
    assert not target.exists()


def test_a_login_that_is_refused_at_a_second_start_ends_it_as_well(
    start: Start, sshd: Sshd, source: Path, target: Path
) -> None:
    # Then the comparison with the index is under way already.
    fill(source)
    arguments = ["--ssh", sshd.ssh, source, f"there:{target}"]
    assert start(*arguments, "--once").ended() == 0
    (source / "new").write_text("new")
    sshd.refuse()
    daemon = start(*arguments)
    assert daemon.ended() == 2
    assert "Permission denied (publickey)" in daemon.text()
    assert daemon.events("index")[0]["used"] is True
    sshd.authorize()
    assert start(*arguments, "--once").ended() == 0
    assert (target / "new").read_text() == "new"


def test_a_login_that_is_refused_later_leaves_the_rest_running(
    start: Start, sshd: Sshd, source: Path, shm: Path
) -> None:
    fill(source)
    daemons = []
    for engine in ENGINES:
        here, there = shm / f"here-{engine}", shm / f"there-{engine}"
        daemon = start("--ssh", sshd.ssh, source, here, f"there:{there}", *beside_local(engine))
        daemons.append((daemon, here, there))
    for daemon, _, there in daemons:
        daemon.wait_following()
        daemon.wait_equal(source, there)
    sshd.change_host_key()
    sshd.stop()
    sshd.start()
    (source / "d0/f0").write_text("meanwhile")
    for daemon, here, _ in daemons:
        daemon.wait_equal(source, here)
        said = daemon.wait_event("target-refused")
        assert "Host key verification failed" in str(said["reason"])
        assert said["fix"]
    (source / "d0/f1").write_text("still running")
    for daemon, here, _ in daemons:
        daemon.wait_equal(source, here)
    sshd.trust()
    for daemon, _, there in daemons:
        daemon.wait_event("target-back")
        daemon.wait_equal(source, there)
        assert daemon.stop() == 0


@pytest.mark.parametrize("engine", ["remote"])
def test_chain(start: Start, sshd: Sshd, source: Path, shm: Path, engine: str) -> None:
    fill(source)
    middle, end = shm / "middle", shm / "end"
    middle.mkdir()
    second = start("--ssh", sshd.ssh, middle, f"there:{end}", f"--engine={engine}")
    second.wait_following()
    first = start("--ssh", sshd.ssh, source, f"there:{middle}", f"--engine={engine}")
    first.wait_following()
    second.wait_equal(source, end)
    (source / "d0/f0").write_text("through both")
    (source / "d1").rename(source / "moved")
    (source / "d2/f3").unlink()
    second.wait_equal(source, end)
    assert first.stop() == 0
    assert second.stop() == 0


def test_a_key_that_only_lets_the_agent_receive(
    start: Start, sshd: Sshd, source: Path, target: Path, shm: Path
) -> None:
    fill(source)
    target.mkdir()
    sshd.force(f"{sys.executable} -m instep agent --root {target} --receive-only")
    daemon = start("--ssh", sshd.ssh, source, f"there:{target}")
    daemon.wait_following()
    (source / "d0/f0").write_text("changed")
    (source / "d1").rename(source / "moved")
    daemon.wait_equal(source, target)
    assert daemon.stop() == 0
    # Whatever else is asked for: nothing is run, and nothing is written outside.
    assert sshd.run(f"touch {shm}/ran").stdout == ""
    other = start("--ssh", sshd.ssh, source, f"there:{shm}/other")
    wait_until(lambda: other.process.poll() is not None or bool(other.events("target-away")), "it is refused")
    other.kill()
    assert sorted(os.listdir(shm)) == ["source", "target"]
    answer = subprocess.run(
        [sys.executable, "-m", "instep", "check", "--format=json", "--ssh", sshd.ssh, f"there:{target}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert json.loads(answer.stdout)["engine"] == "remote", answer.stdout + answer.stderr


def offer_only_python(sshd: Sshd) -> None:
    """Let sessions find no other program; what ``offer_only`` would find may be a script that needs more of them."""
    sshd.force(f'PATH={sshd.base}/far; export PATH; eval "$SSH_ORIGINAL_COMMAND"')


@pytest.mark.parametrize("there", ["python3", "rsync"])
def test_verifying_needs_no_more_over_there_than_mirroring(
    start: Start, sshd: Sshd, source: Path, target: Path, there: str
) -> None:
    if there == "rsync":
        sshd.offer_only("rsync")
    else:
        offer_only_python(sshd)
    fill(source)
    address = f"there:{target}"
    assert start("--ssh", sshd.ssh, source, address, "--once").ended() == 0
    (target / "d1/f1").write_text("edited there")
    words = [sys.executable, "-m", "instep", "verify", "--state-dir=none", "--format=json", "--ssh", sshd.ssh]
    words += [str(source), address]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert "d1/f1" in {row.get("path") for row in rows}
    assert rows[-1]["event"] == "verified"


def test_a_running_mirror_heals_what_is_edited_at_its_far_target(
    start: Start, sshd: Sshd, source: Path, target: Path
) -> None:
    offer_only_python(sshd)
    fill(source)
    daemon = start("--ssh", sshd.ssh, source, f"there:{target}", "--verify=every=200ms,checksum")
    daemon.wait_following()
    daemon.wait_event("verified", differences=0)
    (target / "d0/f0").write_text("edited there")
    (target / "extra").mkdir()
    daemon.wait_equal(source, target)
    daemon.wait_event("differs", path="d0/f0")
    assert daemon.stop() == 0
