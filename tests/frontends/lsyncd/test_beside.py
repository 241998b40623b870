"""What works beside the events of a sync: schedules, tunnels, connections that are kept, descriptors."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from tests.frontends.lsyncd.conftest import Start
from tests.frontends.lsyncd.daemon import OURS, Daemon
from tests.processes import lives
from tests.system.daemon_process import wait_until
from tests.system.sshd import Sshd


def test_a_schedule_brings_everything_over_again(start: Start, source: Path, tmp_path: Path) -> None:
    """Also without an initial sync, and through a target that could not be reached at first."""
    (tmp_path / "blocked").write_text("no directory")
    daemon = start(
        "-log",
        "Info",
        config="""
        settings{ nodaemon=true }
        sync{ default.rsync, source="@/s", target="@/t", init=false, crontab={ "* * * * * *" } }
        sync{ default.rsync, source="@/s", target="@/blocked/t", delay=0, init=false, crontab={ "* * * * * *" } }
        sync{ source="@/s", init=false, crontab="*/1 * * * * *", onFull="echo full >> @/fulls" }
        """,
    )
    daemon.equal(source, tmp_path / "t")
    daemon.said("Crontab triggered full sync", 4)
    assert f"recursive full rsync: {source}/ -> {tmp_path}/t/" in daemon.text()
    (tmp_path / "t/a").unlink()
    (tmp_path / "t/extra").write_text("extra")
    daemon.equal(source, tmp_path / "t")
    daemon.wait((tmp_path / "fulls").exists, "the command")
    daemon.said("Retrying Full on ")
    (tmp_path / "blocked").unlink()
    (tmp_path / "blocked").mkdir()
    daemon.equal(source, tmp_path / "blocked/t")
    assert daemon.stop() == 143


TUNNELED = """
settings{ nodaemon=true, statusFile="@/status", statusInterval=0 }
local way = tunnel{
    command={ "sh", "-c", "echo $$ ^localport >> @/tunnels; exec sleep 1000" }, mode="pool", parallel=2, readyDelay=0.2,
    retryDelay=0, name="way",
}
sync{ default.rsync, source="@/s", target="@/t-${localport}", tunnel=way, delay=0.1 }
"""


def tunnels(top: Path) -> list[tuple[int, str]]:
    """The process number and port of each tunnel that was started."""
    lines = (top / "tunnels").read_text().splitlines() if (top / "tunnels").exists() else []
    return [(int(pid), port) for pid, port in (line.split() for line in lines if line.count(" ") == 1)]


def test_syncs_go_through_tunnels_that_are_up(start: Start, source: Path, tmp_path: Path) -> None:
    daemon = start(config=TUNNELED)
    daemon.said("Startup of ")
    daemon.wait(lambda: len(tunnels(tmp_path)) == 2, "both tunnels")
    made = tunnels(tmp_path)
    assert any((tmp_path / f"t-{port}/a").exists() for _, port in made)
    seen = 0
    while not all((tmp_path / f"t-{port}").exists() for _, port in made):
        seen += 1
        (source / f"turn{seen}").write_text("by the other")
        daemon.said("Finished a list", seen)
    for pid, _ in made:
        os.kill(pid, signal.SIGKILL)
    daemon.wait(lambda: len(tunnels(tmp_path)) >= 4, "new tunnels")
    (source / "new").write_text("new")
    daemon.wait(lambda: any((tmp_path / f"t-{port}/new").exists() for _, port in tunnels(tmp_path)[2:]), "its arrival")
    daemon.wait(lambda: "Tunnel: name=way status=UP\n" in (tmp_path / "status").read_text(), "the status")
    assert daemon.stop() == 143
    assert not any(lives(pid) for pid, _ in tunnels(tmp_path))


def children(daemon: Daemon) -> list[tuple[int, str]]:
    pids = Path(f"/proc/{daemon.process.pid}/task/{daemon.process.pid}/children").read_text().split()
    found = []
    for pid in pids:
        try:
            found.append((int(pid), Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")))
        except OSError:
            continue
    return found


def test_renames_at_a_far_target_share_one_connection(start: Start, source: Path, tmp_path: Path, server: Sshd) -> None:
    daemon = start(
        config="""
        settings{ nodaemon=true }
        sync{ default.rsyncssh, source="@/s", host="there", targetdir="@/t", delay=0 }
        """
    )
    daemon.equal(source, tmp_path / "t")

    def accepted() -> int:
        return server.log.read_text(errors="replace").count("Accepted publickey")

    def rename(number: int) -> int:
        """How many connections that took."""
        before = accepted()
        (source / "a" if number == 0 else source / f"a{number}").rename(source / f"a{number + 1}")
        daemon.said("Finished Move", number + 1)
        assert (tmp_path / f"t/a{number + 1}").read_text() == "a"
        return accepted() - before

    number, end_s = 0, time.monotonic() + 60
    while rename(number) > 0:
        assert time.monotonic() < end_s, daemon.text()
        number += 1
    (source / "b").write_text("rsync takes it too")
    before = accepted()
    daemon.equal(source, tmp_path / "t")
    assert accepted() == before
    ((master, words),) = [each for each in children(daemon) if "ControlPersist=no" in each[1]]
    place = Path(words.partition("ControlPath=")[2].split()[0]).parent
    assert place.stat().st_mode & 0o077 == 0
    before = accepted()
    os.kill(master, signal.SIGKILL)
    wait_until(lambda: not lives(master), "the end of the connection")
    rename(number + 1)
    assert accepted() > before, "without it each has its own"
    assert daemon.stop() == 143
    assert not place.exists()


OBSERVING = """
settings{ nodaemon=true }
sync{ source="@/s", init=false }
local pipe = io.open("/dev/fd/7", "r")
local function heard(fd)
    local line = pipe:read("l")
    log("Normal", "heard ", line, " on ", fd)
    if line == "enough" then nonobservefd(fd) end
end
observefd(7, heard)
observefd(8, nil, function(fd) log("Normal", "may write"); nonobservefd(fd) end)
observefd(9, heard)
"""


def test_descriptors_are_watched(start: Start, source: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "plain").write_text("")
    # The shell hands over three open files: a pipe for reading, the same for writing, and one that epoll refuses.
    script = f'exec 7<>"{pipe}" 8<>"{pipe}" 9<"{tmp_path}/plain"; exec "$@"'
    daemon = start(config=OBSERVING, program=("sh", "-c", script, "sh", *OURS))
    daemon.said("may write")
    daemon.said("Cannot observe the file descriptor 9")
    for line in ("one", "enough"):
        with pipe.open("w") as writer:
            writer.write(f"{line}\n")
        daemon.said(f"heard {line} on 7")
    (source / "x").write_text("still at work")
    assert daemon.stop() == 143
    assert daemon.text().count("may write") == 1
