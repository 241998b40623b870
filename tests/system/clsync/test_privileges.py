"""Giving up rights, as the whole program: what is given up is gone, and what is to be done is still done."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.frontends.lsyncd.daemon import contents
from tests.processes import lives
from tests.system.clsync.conftest import Start
from tests.system.clsync.programs import Clsync, Desk
from tests.system.daemon_process import wait_until

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to give up"),
]

SHELL = "-Mshell -W@/src -S@/handler -w0 -t0 -T0 -ltest"
RSYNC = "-Mrsyncdirect -W@/src -D@/dst -w0 -t0 -T0"
NOBODY = "65534"
KEPT = 0xE4
"""DAC_READ_SEARCH, SETGID, SETUID, KILL."""


@pytest.fixture
def desk() -> Iterator[Desk]:
    """As usual, but strangers may pass through, as they may in real life; pytest closes its own directories to them."""
    with tempfile.TemporaryDirectory(prefix="instep-test-", dir="/tmp") as top:
        os.chmod(top, 0o755)
        desk = Desk(Path(top) / "desk", tree="mkdir d; touch a d/b")
        desk.top.chmod(0o755)
        yield desk


def facts(pid: int) -> dict[str, list[str]]:
    """Of /proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.split() for name, _, value in (line.partition(":") for line in lines)}


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def written(process: Clsync, name: str, count: int) -> list[str]:
    """The lines that the handler puts in a file, once all are there."""
    path = process.desk.top / name

    def lines() -> list[str]:
        return path.read_text().split("\n")[:-1] if path.exists() else []

    process.wait(lambda: len(lines()) >= count, f"{count} lines of the handler")
    return lines()


def in_step(process: Clsync, what: str) -> None:
    process.wait(lambda: contents(process.desk.src) == contents(process.desk.dst), what)


def test_by_default_it_goes_on_as_nobody_and_the_handler_as_root(start: Start, desk: Desk) -> None:
    desk.program("handler", "id -u > @/who; grep CapEff /proc/self/status >> @/who")
    process = start(f"{SHELL} -z@/pid --status-file @/state")
    process.runs(1)
    mine = facts(process.process.pid)
    assert mine["Uid"] == ["0", NOBODY, "0", NOBODY]
    assert int(mine["CapEff"][0], 16) == int(mine["CapPrm"][0], 16) == KEPT
    who, capabilities = written(process, "who", 2)
    assert who == "0"
    assert int(capabilities.split()[1], 16) & ~KEPT, "all of root's"
    assert (desk.top / "state").stat().st_uid == int(NOBODY)
    desk.sh("touch zz")
    process.tells("zz")


def test_the_handler_as_somebody_else(start: Start, desk: Desk) -> None:
    (desk.top / "record").chmod(0o777)
    desk.program("handler", "id -u > @/record/who; id -g >> @/record/who")
    process = start(f"{SHELL} --sync-handler-uid {NOBODY} --sync-handler-gid {NOBODY}")
    process.runs(1)
    assert written(process, "record/who", 2) == [NOBODY, NOBODY]


@pytest.mark.parametrize("options", ["--splitting=process --check-execvp-arguments", "--secure-splitting"])
def test_with_a_helper_the_process_itself_may_do_nothing(start: Start, desk: Desk, options: str) -> None:
    process = start(f"{RSYNC} {options} --status-file @/state")
    in_step(process, "the initial sync")
    mine = facts(process.process.pid)
    assert mine["Uid"] == [NOBODY] * 4
    assert int(mine["CapPrm"][0], 16) == int(mine["CapBnd"][0], 16) == 0
    assert mine["NoNewPrivs"] == ["1"]
    assert (mine["Seccomp"] == ["2"]) == ("secure" in options)
    (helper,) = children(process.process.pid)
    assert facts(helper)["Uid"][0] == "0"
    desk.sh("echo new > new; mkdir n; echo 1 > n/f; mv d e; rm a")
    in_step(process, "what changed since")
    process.process.terminate()
    assert process.ended() == 0
    wait_until(lambda: not lives(helper), "the end of the helper")


def test_without_its_helper_it_ends(start: Start, desk: Desk) -> None:
    process = start(f"{SHELL} --splitting=process")
    process.runs(1)
    (helper,) = children(process.process.pid)
    os.kill(helper, 9)
    assert process.ended() == 1
    assert "helper" in process.text()


def test_rules_are_read_again_by_the_helper_too(start: Start, desk: Desk) -> None:
    (desk.top / "rules").write_text("-d^no$\n")
    process = start(f"{SHELL} --splitting=process -R@/rules --status-file @/state")
    process.runs(1)
    state = desk.top / "state"
    process.wait(lambda: state.read_text() == "running", "the end of the initial sync")
    (desk.top / "rules").write_text("-d^never$\n")
    process.process.send_signal(1)
    process.wait(lambda: state.read_text() == "rehashing", "the signal")
    desk.sh("mkdir no; touch no/in")
    process.tells(" no/in")


def test_the_network_is_gone_for_all(start: Start, desk: Desk) -> None:
    desk.program("handler", "ls /sys/class/net > /dev/null; cat /proc/net/dev > @/net")
    process = start(f"{SHELL} --detach-network=everywhere")
    process.runs(1)
    lines = written(process, "net", 3)[2:]
    assert all(line.split()[0] == "lo:" for line in lines)
    assert not any(int(line.split()[1]) for line in lines)


def test_another_root(start: Start, desk: Desk) -> None:
    """The watched directory has its whole path in there; nothing else of the system is to be seen."""
    root = desk.top / "root"
    inside = root / str(desk.src).lstrip("/")
    inside.mkdir(parents=True)
    (inside / "f").touch()
    process = start("-Msimple -W@/src -S /nothing --chroot @/root --skip-initialsync --ignore-failures")
    there = Path(f"/proc/{process.process.pid}")
    process.wait(lambda: (there / "cwd").resolve() == inside, "the watched directory")
    assert (there / "root").resolve() == root
