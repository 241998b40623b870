"""Settings and rules that change while the program runs: what can be done is done from then on, the rest is refused."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.system.clsync.conftest import Start
from tests.system.clsync.programs import CTL, Clsync, Desk

IDS = f"-u{os.geteuid()} -g{os.getegid()}"
HANDLER = "-W@/src -S@/handler -Mshell -w0 -t0 -T0 --socket=@/socket --status-file=@/status"
ENGINE = "-W@/src -D@/dst -Mrsyncdirect -w0 -t0 -T0 --socket=@/socket --status-file=@/status"


def runs(process: Clsync) -> None:
    """Wait for the end of the initial sync."""
    status = process.desk.top / "status"
    process.wait(lambda: status.exists() and status.read_text() == "running", "state 'running'")


def ctl(desk: Desk, *words: str) -> subprocess.CompletedProcess[str]:
    command = [*CTL, "-s", str(desk.top / "socket"), *words]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)


def set_(desk: Desk, option: str, value: str) -> str:
    """What was said against it; empty: it was done."""
    ended = ctl(desk, "set", "--", option, value.replace("@", str(desk.top)))
    assert bool(ended.stderr) == bool(ended.returncode)
    return ended.stderr


@pytest.mark.parametrize(
    ("option", "value", "why"),
    [
        ("mode", "so", "module"),
        ("mode", "py", "module"),
        ("sync-handler", "@/nowhere", "No such file"),
        ("sync-handler", "no-such-program", "no program no-such-program"),
        ("sync-handler", "@/src", "is no file"),
        ("sync-handler", "@/src/a", "cannot be executed"),
        ("exit-hook", "@/nowhere", "No such file"),
        ("help", "1", "question"),
    ],
)
def test_what_cannot_be_used_is_refused(start: Start, desk: Desk, option: str, value: str, why: str) -> None:
    process = start(f"{HANDLER} {IDS}")
    runs(process)
    assert why in set_(desk, option, value)
    desk.sh("touch new")
    process.tells(" new")
    assert process.stop() == 0


def test_a_block_with_a_handler_that_is_not_there(start: Start, desk: Desk) -> None:
    """It is refused as a whole; what was refused once may be there the next time."""
    (desk.top / "conf").write_text(f"[now]\nsync-handler = {desk.top}/later\nlabel = changed\n")
    process = start(f"{HANDLER} {IDS} -H@/conf --custom-signals=40:now -ltest -- %label% %INCLUDE-LIST%")
    runs(process)
    process.process.send_signal(40)
    process.said("stay in force")
    desk.sh("touch new")
    assert process.tells("new")[-1].words[0] == "test"
    desk.program("later")
    process.process.send_signal(40)
    process.wait(lambda: "label: changed\n" in ctl(desk, "info").stdout, "the block's label")
    desk.sh("touch other")
    assert process.tells("other")[-1].words[0] == "changed"


def test_a_handler_that_may_still_come(start: Start, desk: Desk) -> None:
    """As at the start: where a failure does not end the program, it need not be there yet."""
    process = start(f"{HANDLER} {IDS} --ignore-failures")
    runs(process)
    assert not set_(desk, "sync-handler", "@/later")
    desk.sh("touch new")
    process.said("The handler failed")
    desk.program("later")
    process.tells(" new")


def test_a_rules_file_that_is_gone(start: Start, desk: Desk) -> None:
    """To the original everything is permitted then."""
    (desk.top / "rules").write_text("-*^secret\n")
    process = start(f"{HANDLER} {IDS} -R@/rules")
    runs(process)
    (desk.top / "rules").unlink()
    process.process.send_signal(signal.SIGHUP)
    process.said("stay in force")
    desk.sh("touch secret new")
    assert not any("secret" in line for run in process.tells(" new") for line in run.include)


def test_what_counts_at_the_start_alone_is_said(start: Start, desk: Desk) -> None:
    process = start(f"{HANDLER} {IDS}")
    runs(process)
    assert not set_(desk, "uid", "0")
    process.said("uid counts at the start alone; nothing is changed")


# ---- with an engine in the place of the handler ----


def test_other_rules_hold_for_whole_directories_too(start: Start, desk: Desk) -> None:
    """The engine was started for the rules of then: nothing that is rejected now may be brought over by it."""
    rules = desk.top / "rules"
    rules.write_text("-f^old/secret$\n")
    for name in ("secret", "fine"):
        (desk.top / "new").mkdir(exist_ok=True)
        (desk.top / "new" / name).touch()
    desk.sh("mkdir old; touch old/secret")
    process = start(f"{ENGINE} -R@/rules")
    runs(process)
    assert not (desk.dst / "old/secret").exists()
    rules.write_text("-f^new/secret$\n")
    process.process.send_signal(signal.SIGHUP)
    process.said("rsync is run from now on")
    desk.sh("mv @/new new; touch zz1")
    process.wait((desk.dst / "zz1").exists, "the step")
    process.wait((desk.dst / "new/fine").exists, "the new directory")
    assert not (desk.dst / "new/secret").exists()
    process.process.send_signal(signal.SIGUSR2)
    process.wait((desk.dst / "old/secret").exists, "what is permitted now")
    assert not (desk.dst / "new/secret").exists()
    rules.write_text("-f^old/secret$\n")
    process.process.send_signal(signal.SIGHUP)
    process.said("instep's engine does the work again")
    process.process.send_signal(signal.SIGUSR2)
    process.wait((desk.dst / "new/secret").exists, "what is permitted again")


def test_another_handler_takes_the_place_of_the_engine(start: Start, desk: Desk) -> None:
    process = start(ENGINE)
    runs(process)
    assert not set_(desk, "sync-handler", "@/handler")
    desk.sh("touch new")
    process.tells("/new")
    assert not (desk.dst / "new").exists()
    assert not set_(desk, "mode", "shell")
    desk.sh("touch other")
    assert process.tells(" other")[-1].words[0] == "synclist"
    assert process.stop() == 0


def test_an_engine_that_was_asked_for_stays(start: Start, desk: Desk) -> None:
    (desk.top / "rules").write_text("-f^secret\n")
    process = start(f"{ENGINE} --engine=native -R@/rules")
    runs(process)
    assert "--engine native cannot be used" in set_(desk, "dont-unlink-lists", "1")
    (desk.top / "rules").write_text("-w^d$\n")
    process.process.send_signal(signal.SIGHUP)
    process.said("the rules from before stay in force")
    desk.sh("touch secret new")
    process.wait((desk.dst / "new").exists, "a new file")
    assert not (desk.dst / "secret").exists()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to give up")
def test_a_helper_keeps_to_its_rules_file(start: Start, desk: Desk) -> None:
    """It has no part in what the process is told later."""
    process = start(f"{HANDLER} {IDS} --splitting=process")
    runs(process)
    assert "--splitting" in set_(desk, "rules-file", "@/rules")


# ---- what a start in the background says ----


@pytest.mark.parametrize(
    ("options", "status"), [("--pid-file=@/no/pid", 2), ("--status-file=@/src/a/status", 20), ("--socket=@/no/s", 2)]
)
@pytest.mark.parametrize("background", ["", "-b"])
def test_a_file_that_cannot_be_made(start: Start, desk: Desk, options: str, status: int, background: str) -> None:
    """The same exit status from the foreground and for whoever waits for the background; and which file it is."""
    process = start(f"-W@/src -S@/handler -Mshell {IDS} {options} {background}")
    assert process.ended() == status
    name, _, path = options.partition("=")
    assert path.replace("@", str(desk.top)) in process.text()
    assert name.removeprefix("--").replace("-", " ") in process.text()
    assert not Path(desk.record / "order").exists()
