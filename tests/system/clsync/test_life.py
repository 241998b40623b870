"""A whole life of the process: its files of state, signals, output, hooks, and when runs begin."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.processes import lives
from tests.system.clsync.conftest import Start
from tests.system.clsync.programs import CTL, Clsync, Desk
from tests.system.daemon_process import wait_until

DIRECT = "-W@/src -S@/handler -Mdirect -D@/dst -ltest"
AT_ONCE = f"{DIRECT} -w0 -t0 -T0"


def read(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def has_state(process: Clsync, state: str) -> None:
    path = process.desk.top / "status"
    process.wait(lambda: read(path) == state, f"state {state!r}")


# ---- files of state ----


def test_states_and_process_number(start: Start, desk: Desk) -> None:
    """Handlers find the state in their environment; at rest it says that it runs."""
    desk.program("handler", "while [ -e @/hold ]; do sleep 0.05; done")
    (desk.top / "hold").touch()
    process = start(f"{AT_ONCE} --status-file=@/status --pid-file=@/pid -d1 -u{os.geteuid()} -g{os.getegid()}")
    process.runs(1)
    has_state(process, "initsync")
    assert read(desk.top / "pid") == str(process.process.pid)
    (desk.top / "hold").unlink()
    has_state(process, "running")
    desk.sh("chmod 600 a")  # One event.
    process.tells("a")
    assert [(run.status, run.iteration) for run in process.runs(2)[:2]] == [("initsync", "1"), ("running", "2")]
    process.process.send_signal(signal.SIGHUP)
    process.said("state: rehashing")
    assert process.stop() == 0
    assert not (desk.top / "status").exists()
    assert not (desk.top / "pid").exists()


def test_a_failing_handler_shows_in_the_state(start: Start, desk: Desk) -> None:
    desk.program("handler", "[ -e @/well ] || exit 3")
    process = start(f"{AT_ONCE} --status-file=@/status -r0 -u{os.geteuid()} -g{os.getegid()}")
    has_state(process, "synchandler error")
    (desk.top / "well").touch()
    has_state(process, "running")
    assert desk.told()[-1].status == "synchandler error"
    assert process.stop() == 0


def test_a_dump(start: Start, desk: Desk) -> None:
    process = start(f"{DIRECT} -w0 -t1000 --dump-dir=@/src/../dump -u{os.geteuid()} -g{os.getegid()}")
    process.runs(1)
    watches = process.watches()
    desk.sh("touch a; mkdir n")
    process.wait(lambda: process.watches() > watches, "the new directory watched")
    process.process.send_signal(signal.SIGIO)
    process.wait((desk.top / "dump/queue/3").exists, "the dump")
    assert sorted(read(desk.top / "dump/queue/0").splitlines()) == ["+1\ta", "+1\tn"]
    assert read(desk.top / "dump/instance").startswith("status == ")
    process.process.send_signal(signal.SIGIO)
    process.said("Cannot dump")


def test_in_the_background(start: Start, desk: Desk) -> None:
    """The parent ends when everything is watched; the daemon goes on in a session of its own."""
    parent = start(f"{AT_ONCE} -b --pid-file=@/pid")
    assert parent.ended() == 0
    number = int(read(desk.top / "pid"))
    try:
        assert number != parent.process.pid
        assert os.getsid(number) != parent.process.pid
        wait_until(lambda: len(desk.told()) == 1, "the initial sync")
        desk.sh("echo 1 > a")
        wait_until(lambda: any("a" in run.words for run in desk.told()[1:]), "a run")
        os.kill(number, signal.SIGTERM)
        wait_until(lambda: not lives(number), "its end")
    finally:
        if lives(number):
            os.kill(number, signal.SIGKILL)


def test_handlers_of_the_background_are_as_clean(start: Start, desk: Desk) -> None:
    """Their streams are those of the start; B-19 holds there too."""
    desk.program(
        "handler", "grep -E '^Sig(Blk|Ign)' /proc/self/status >> @/f; readlink /proc/self/fd/0 /proc/self/fd/2 >> @/f"
    )
    parent = start(f"{AT_ONCE} --background --only-initialsync --exit-hook=@/handler")
    assert parent.ended() == 0
    wait_until(lambda: len(read(desk.top / "f").split("\n")) == 9, "the handler and the hook")
    _, blocked, _, ignored, stdin, stderr = read(desk.top / "f").split()[:6]
    # 32 and 33 are the C library's own; no program can say how they are treated.
    assert [int(each, 16) & ~(0b11 << 31) for each in (blocked, ignored)] == [0, 0]
    assert (stdin, stderr) == (f"{desk.top}/log0.in", f"{desk.top}/log0")


@pytest.mark.parametrize("where", ["given", "temporary"])
def test_lists_that_are_to_stay(start: Start, desk: Desk, where: str) -> None:
    """With the directory that was made for them."""
    given = "-L@/lists" if where == "given" else ""
    (desk.top / "tmp").mkdir()
    process = start(
        f"-W@/src -S@/handler -Mrsyncshell -U --only-initialsync {given} -u{os.geteuid()} -g{os.getegid()}",
        environment={"TMPDIR": str(desk.top / "tmp")},
    )
    assert process.ended() == 0
    lists = desk.top / "lists" if where == "given" else next((desk.top / "tmp").iterdir())
    assert lists.name.startswith("lists" if where == "given" else "clsync-")
    assert {path.name.split(".")[1]: path.read_text() for path in lists.iterdir()} == {
        "clsync-list": "/***\n",
        "clsync-exclist": "",
    }


@pytest.mark.parametrize("made", [False, True])
@pytest.mark.parametrize("mode", ["-Mrsyncdirect -D@/dst", "-Mrsyncdirect -D@/dst -- %RSYNC-ARGS% @/src/ @/dst/"])
def test_lists_in_the_watched_directory_stay_there(start: Start, desk: Desk, mode: str, made: bool) -> None:
    """They are nobody's change, and rsync does not copy them with the rest."""
    if not made:
        (desk.src / "lists").mkdir(mode=0o700)
        (desk.src / "lists/mine").touch()
    ids = f"-u{os.geteuid()} -g{os.getegid()}"
    process = start(f"-W@/src -w0 -t0 -T0 -L@/src/lists -U --status-file=@/status {ids} {mode}")
    has_state(process, "running")
    assert list((desk.src / "lists").glob(".clsync-*"))
    desk.sh("mkdir n; touch n/f")
    expected = ["a", "b", "d", "f", *([] if made else ["lists", "mine"]), "n"]
    # There may be a temporary file for a moment.
    process.wait(lambda: sorted(path.name for path in desk.dst.rglob("*")) == expected, "a new directory")


# ---- signals ----


def test_the_whole_again(start: Start, desk: Desk) -> None:
    process = start(AT_ONCE)
    process.runs(1)
    desk.sh("chmod 600 a")  # One event.
    process.wait(lambda: any("a" in run.words for run in desk.told()[1:]), "a run")
    count = len(desk.told())
    process.process.send_signal(signal.SIGUSR2)
    told = process.runs(count + 1)
    assert {".", "a", "d", "d/b"} <= set(told[-1].words)
    assert told[-1].iteration == "1"


def test_other_settings_by_a_signal(start: Start, desk: Desk) -> None:
    (desk.top / "conf").write_text("[default]\ndelay-collect = 1000\n[now]\ndelay-collect = 0\nlabel = changed\n")
    process = start(
        "-W@/src -S@/handler -Mdirect -D@/dst -w0 -H@/conf --custom-signals=40:now -- %label% %INCLUDE-LIST%"
    )
    process.runs(1)
    desk.sh("touch new")
    process.process.send_signal(40)
    told = process.tells("new")
    assert told[0].words[0] == "nolabel"
    assert told[-1].words[0] == "changed"
    (desk.top / "conf").write_text("[now]\nretries = x\n")
    process.process.send_signal(40)
    process.said("stay in force")
    desk.sh("touch other")
    process.tells("other")


def test_rules_are_read_again(start: Start, desk: Desk) -> None:
    (desk.top / "rules").write_text("-*^secret\n")
    process = start(f"{AT_ONCE} -R@/rules -d1")
    process.runs(1)
    desk.sh("touch secret1 zz1")
    process.tells("zz1")
    (desk.top / "rules").write_text("-*^other\n")
    process.process.send_signal(signal.SIGHUP)
    process.said("state: rehashing")
    desk.sh("touch secret2 other zz2")
    told = {word for run in process.tells("zz2") for word in run.words}
    assert told & {"secret1", "secret2", "other"} == {"secret2"}


def test_a_handler_is_asked_to_end_and_the_second_time_killed(start: Start, desk: Desk) -> None:
    desk.program("handler", "trap '' TERM; : > @/deaf; while :; do sleep 0.1; done")
    process = start(AT_ONCE)
    wait_until((desk.top / "deaf").exists, "a handler that does not hear it")
    process.process.send_signal(signal.SIGTERM)
    process.process.send_signal(signal.SIGINT)
    assert process.ended() == 0


# ---- when ----


def test_instant_is_instant(start: Start, desk: Desk) -> None:
    """clsync takes up to a second where something happened within the last one."""
    process = start(AT_ONCE)
    process.runs(1)
    took_s = []
    for number in range(10):
        began_s = time.monotonic()
        desk.sh(f"touch n{number}")
        process.wait(lambda: any(f"n{number}" in run.words for run in desk.told()), "a run")  # noqa: B023
        took_s.append(time.monotonic() - began_s)
    assert min(took_s) < 0.5


def test_runs_keep_their_distance(start: Start, desk: Desk) -> None:
    """What is written all the time is told each delay-sync, and what is big later."""
    desk.program("handler", 'date +%s.%N >> "@/times"')
    desk.sh("echo 12345678901234 > big")  # Its size counts when it is told of, so it is there before.
    process = start(f"{DIRECT} -w1 -t1 -T5 -B10 --skip-initialsync")
    process.watching()
    (desk.src / "small").touch()
    desk.sh("echo 1 >> big")

    def big_told() -> bool:
        (desk.src / "small").touch()
        return any("big" in run.words for run in desk.told())

    wait_until(big_told, "the big file")
    times_s = [float(line) for line in read(desk.top / "times").split()]
    assert "small" in desk.told()[0].words
    assert "big" not in desk.told()[0].words
    assert len(times_s) - 2 <= times_s[-1] - times_s[0], "a second apart; the first may have been late"


def test_a_standby_file_holds_everything_up(start: Start, desk: Desk) -> None:
    """Events go on being read; they are told when the file is gone."""
    (desk.top / "hold").touch()
    process = start(f"{AT_ONCE} --standby-file=@/hold --status-file=@/status")
    has_state(process, "hold on")
    desk.sh("touch new")
    assert desk.told() == []
    (desk.top / "hold").unlink()
    told = {word for run in process.tells("new") for word in run.words}
    assert {".", "a", "d", "d/b", "new"} <= told


def test_events_are_read_while_a_handler_runs(start: Start, desk: Desk) -> None:
    """A directory that came and went meanwhile leaves no gap: what is in it is watched as it is made."""
    desk.program("handler", 'case " $* " in *" slow "*) while [ ! -e @/go ]; do sleep 0.05; done;; esac')
    process = start(f"{AT_ONCE} --skip-initialsync")
    process.watching()
    desk.sh("touch slow")
    process.tells("slow")
    watches = process.watches()
    desk.sh("mkdir -p n/m")
    process.wait(lambda: process.watches() == watches + 2, "the new directories watched")
    desk.sh("touch n/m/f")
    (desk.top / "go").touch()
    process.tells("n/m/f")


# ---- side by side ----


@pytest.mark.parametrize(("threading", "count"), [("full", 2), ("safe", 1), ("off", 1)])
def test_runs_side_by_side(start: Start, desk: Desk, threading: str, count: int) -> None:
    """One path, changed while its run is under way."""
    desk.program("handler", 'case " $* " in *" a "*) while [ ! -e @/go ]; do sleep 0.05; done;; esac')
    process = start(f"{AT_ONCE} -p{threading} --skip-initialsync")
    process.watching()
    desk.sh("echo 1 > a")
    process.runs(1)
    desk.sh("echo 2 > a; touch zz")
    if threading != "off":
        process.tells("zz")
    if threading == "full":
        process.runs(count)
    told = sum("a" in run.words for run in desk.told())
    assert told == count if count == 1 else told >= count
    (desk.top / "go").touch()
    process.tells("zz")
    process.wait(lambda: sum("a" in run.words for run in desk.told()) >= 2, "the path's next run")


# ---- output ----


@pytest.mark.parametrize(
    ("options", "out", "error"),
    [("", "", "Error: "), ("-Ystdout", "Error: ", ""), ("-q", "", ""), ("-v0", "", ""), ("-d1", "", "Error (pid: ")],
)
def test_where_messages_go(start: Start, desk: Desk, options: str, out: str, error: str) -> None:
    desk.program("handler", "exit 3")
    ended = subprocess.run(
        [sys.executable, "-c", "from instep.commands import clsync; raise SystemExit(clsync())", "-H/NULL/",
         *f"{options} {AT_ONCE}".replace("@", str(desk.top)).split()],
        check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert ended.returncode == 3
    for stream, start_of_line in ((ended.stdout, out), (ended.stderr, error)):
        lines = [line for line in stream.splitlines() if line.startswith("Error")]
        assert bool(lines) == bool(start_of_line), stream
        assert all(line.startswith(start_of_line) for line in lines), stream


# ---- talking to it ----


def ctl(desk: Desk, *words: str) -> dict[str, object]:
    ended = subprocess.run(
        [*CTL, "-j", "-s", str(desk.top / "socket"), *words], check=False, capture_output=True, text=True, timeout=60
    )
    answer = json.loads(ended.stdout)
    assert isinstance(answer, dict)
    return answer


def test_talking_to_it(start: Start, desk: Desk) -> None:
    process = start(f"{DIRECT} -t1000 -w0 --socket=@/socket --socket-mod=600 -u{os.geteuid()} -g{os.getegid()}")
    process.runs(1)
    assert (desk.top / "socket").stat().st_mode & 0o777 == 0o600
    assert ctl(desk, "info")["label"] == "test"
    desk.sh("touch new")
    assert ctl(desk, "dump", str(desk.top / "dump"))["ok"]
    assert ctl(desk, "dump", str(desk.top / "dump"))["ok"] is False
    assert ctl(desk, "set", "mode", "nonsense")["ok"] is False
    assert ctl(desk, "set", "delay-collect", "0")["ok"]
    process.tells("new")
    assert ctl(desk, "die")["ok"]
    assert process.ended() == 0
    assert not (desk.top / "socket").exists()


def test_lists_are_made_elsewhere_once_that_is_said(start: Start, desk: Desk) -> None:
    ids = f"-u{os.geteuid()} -g{os.getegid()}"
    process = start(f"-W@/src -S@/handler -Mshell -w0 -t0 -T0 --socket=@/socket --status-file=@/status {ids}")
    has_state(process, "running")
    (desk.top / "open").mkdir()
    (desk.top / "open").chmod(0o755)
    assert ctl(desk, "set", "lists-dir", str(desk.top / "open"))["ok"] is False
    assert ctl(desk, "set", "lists-dir", str(desk.top / "lists"))["ok"]
    assert ctl(desk, "set", "dont-unlink-lists", "1")["ok"]
    desk.sh("touch new")
    process.tells(" new")
    assert list((desk.top / "lists").glob(".clsync-list.*"))
    assert not list((desk.top / "open").iterdir())
    assert ctl(desk, "set", "exit-on-no-events", "1")["ok"]
    assert process.ended() == 0


# ---- an engine's run ----


@pytest.fixture
def slow(desk: Desk) -> Desk:
    """With an rsync in PATH that never ends by itself."""
    (desk.top / "bin").mkdir()
    rsync = desk.top / "bin/rsync"
    rsync.write_text("#!/bin/sh\n: > @/begun\nsleep 1000 & wait\n".replace("@", str(desk.top)))
    rsync.chmod(0o755)
    return desk


ENGINE = "-Mrsyncdirect -W@/src -D@/dst --engine=rsync -w0 -t0 -T0"


def by_path(desk: Desk) -> dict[str, str]:
    return {"PATH": f"{desk.top}/bin:{os.environ['PATH']}"}


def test_an_engine_s_run_takes_no_longer_than_it_may(start: Start, slow: Desk) -> None:
    process = start(f"{ENGINE} -k1", environment=by_path(slow))
    assert process.ended() == 62
    assert "took more than 1 s" in process.text()
    wait_until(lambda: not process.left(), "the end of what it started")


def test_an_engine_s_run_does_not_hold_up_the_end(start: Start, slow: Desk) -> None:
    """It may be finished; the second time all ends at once."""
    process = start(ENGINE, environment=by_path(slow))
    wait_until((slow.top / "begun").exists, "the run")
    process.process.send_signal(signal.SIGTERM)
    process.process.send_signal(signal.SIGINT)
    assert process.ended() == 0
    process.said("Not synced, as the last run was ended")
    wait_until(lambda: not process.left(), "the end of what it started")
