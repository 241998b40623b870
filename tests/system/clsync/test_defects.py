"""Each defect of clsync 0.4.5 that is known, by its number: the steps that show it there show the right thing here."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.frontends.lsyncd.daemon import contents
from tests.system.clsync.conftest import Start
from tests.system.clsync.programs import Clsync, Desk, Told
from tests.system.daemon_process import wait_until

FOLLOW = "-W@/src -S@/handler -w1 -t1 -ltest"
AT_ONCE = "-W@/src -S@/handler -w0 -t0 -T0 -ltest"
DIRECT = "-Mdirect -D@/dst"
RSYNC = "-Mrsyncdirect -W@/src -D@/dst -w0 -t0 -T0"
REAL_RSYNC = f"{RSYNC} --engine=handler"


def paths(told: list[Told]) -> set[str]:
    """Of mode direct."""
    return {word for run in told for word in run.words} - {"@/dst/"}


def can_limit_watches() -> bool:
    """Whether a process can be given few watches."""
    try:
        tried = subprocess.run(
            ["unshare", "-U", "-r", "sh", "-c", "echo 5 > /proc/sys/user/max_inotify_watches"],
            check=False,
            capture_output=True,
        )
    except OSError:
        return False
    return tried.returncode == 0


def equal(process: Clsync, what: str) -> None:
    process.wait(lambda: contents(process.desk.src) == contents(process.desk.dst), what)


@pytest.mark.parametrize("b", ["B-1"])
def test_lost_events_are_made_up_for(start: Start, desk: Desk, b: str) -> None:
    most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if most > 40_000:
        pytest.skip("fs.inotify.max_queued_events is large")
    names = {f"n{number}" for number in range(most // 2 + 100)}  # Each makes two events.
    process = start(f"{FOLLOW} -Mshell")
    process.runs(1)
    with process.asleep():
        for name in names:
            (desk.src / name).touch()
    process.said("Events were lost")

    runs = 2
    while not names <= {line.rpartition(" ")[2] for run in process.runs(runs)[1:] for line in run.include}:
        runs += 1


@pytest.mark.parametrize("b", ["B-2"])
def test_the_last_line_needs_no_end(start: Start, desk: Desk, b: str) -> None:
    (desk.top / "rules").write_text("+w^$\n+f^a$\n-*")
    assert start(f"{FOLLOW} {DIRECT} -R@/rules --only-initialsync").ended() == 0
    assert paths(desk.told()) == {"a"}


@pytest.mark.parametrize("options", [RSYNC, REAL_RSYNC], ids=["engine", "rsync"])
@pytest.mark.parametrize("b", ["B-3"])
def test_odd_names_arrive(start: Start, desk: Desk, b: str, options: str) -> None:
    process = start(options)
    equal(process, "the initial sync")
    for name in (
        rb"a\b",
        b"c]d",
        b"e[f",
        b"g*",
        b"h?",
        b"new\nline",
        b"\r",
        b"-rf",
        b"50%off",
        b"a%label%b",
        b"%",
        b" ",
    ):
        (desk.src / os.fsdecode(name)).write_bytes(name)
        (desk.src / "d" / os.fsdecode(name)).write_bytes(name)
    equal(process, "names with all kinds of signs")
    for path in [path for path in desk.src.rglob("*") if path.is_file()]:
        path.unlink()
    equal(process, "their removal")


@pytest.mark.parametrize("b", ["B-4"])
def test_percent_signs_and_dashes_in_names(start: Start, desk: Desk, b: str) -> None:
    process = start(f"{AT_ONCE} {DIRECT}")
    process.runs(1)
    desk.sh("touch % %x 50%off a%label%b ./-rf %PID% zz")
    process.tells("zz")
    assert paths(desk.told()) >= {"%", "%x", "50%off", "a%label%b", "./-rf", "%PID%"}


@pytest.mark.parametrize("b", ["B-5"])
def test_a_killed_handler_has_failed(start: Start, desk: Desk, b: str) -> None:
    desk.program("handler", "kill -9 $$")
    process = start(f"{FOLLOW} {DIRECT} --only-initialsync")
    assert process.ended() == 128 + 9
    assert "killed by signal 9" in process.text()


@pytest.mark.parametrize("b", ["B-6"])
def test_a_handler_that_takes_too_long_is_ended(start: Start, desk: Desk, b: str) -> None:
    desk.program("handler", "sleep 1000 & wait")
    process = start(f"{FOLLOW} {DIRECT} -k1 --only-initialsync")
    assert process.ended() == 62
    wait_until(lambda: not process.left(), "the end of what it started")


@pytest.mark.parametrize("b", ["B-7"])
def test_a_directory_that_left_reports_no_more(start: Start, desk: Desk, b: str) -> None:
    process = start(f"{AT_ONCE} {DIRECT}")
    process.runs(1)
    desk.sh("mv d @/out; touch zz1")
    before = len(process.tells("zz1"))
    desk.sh("touch @/out/b @/out/c; touch zz2")
    assert not {"d/b", "d/c", "d"} & paths(process.tells("zz2")[before:])


@pytest.mark.parametrize("b", ["B-7"])
def test_a_directory_in_the_place_of_another_is_watched(start: Start, desk: Desk, b: str) -> None:
    process = start(f"{AT_ONCE} {DIRECT}")
    process.runs(1)
    desk.sh("mv d e; mkdir d; touch zz1")
    process.tells("zz1")
    desk.sh("touch d/new e/b; touch zz2")
    process.tells("d/new")
    process.tells("e/b")


@pytest.mark.parametrize("b", ["B-8"])
def test_a_directory_that_cannot_be_watched_is_told_all_the_same(start: Start, desk: Desk, b: str) -> None:
    """Whoever has no watch left says so, and looks again later."""
    if os.geteuid() == 0:
        pytest.skip("root may read every directory")
    process = start(f"{AT_ONCE} {DIRECT}")
    process.runs(1)
    desk.sh("mkdir -m 0 closed; touch zz1")
    process.tells("zz1")
    process.said("closed")
    assert "closed" in paths(desk.told())
    desk.sh("chmod 700 closed; touch closed/in")
    process.tells("closed/in")


@pytest.mark.skipif(not can_limit_watches(), reason="needs user namespaces")
@pytest.mark.parametrize("b", ["B-8"])
def test_where_watches_run_out_it_is_said_and_nothing_is_lost(start: Start, desk: Desk, b: str) -> None:
    limited = ("unshare", "-U", "-r", "sh", "-c", 'echo 5 > /proc/sys/user/max_inotify_watches; exec "$@"', "sh")
    process = start(f"{AT_ONCE} {DIRECT} -u0 -g0", prefix=limited)
    process.runs(1)
    names = {f"n{number}" for number in range(8)}
    desk.sh(f"mkdir {' '.join(names)}; touch zz")
    process.tells("zz")
    process.said("watches")
    process.wait(lambda: names <= paths(desk.told()), "all of the new directories")
    desk.sh("touch a")
    process.wait(lambda: "a" in paths(desk.told()[1:]), "what is watched")


@pytest.mark.parametrize("b", ["B-9"])
def test_a_removed_file_has_no_signature(start: Start, desk: Desk, b: str) -> None:
    process = start(f"{AT_ONCE} {DIRECT} --modification-signature uid,gid")
    process.runs(1)
    for number, action in enumerate(["echo 1 > a", "rm a", "touch a"]):
        before = len(desk.told())
        desk.sh(f"{action}; touch zz{number}")
        assert "a" in paths(process.tells(f"zz{number}")[before:]), action


@pytest.mark.parametrize("b", ["B-10"])
def test_side_by_side_without_empty_runs(start: Start, desk: Desk, b: str) -> None:
    """While a path is busy others go on; the busy one comes after its run."""
    desk.program("handler", 'case " $* " in *" slow "*) while [ ! -e @/go ]; do sleep 0.05; done;; esac')
    process = start(f"{AT_ONCE} {DIRECT} -psafe --skip-initialsync")
    process.watching()
    desk.sh("touch slow")
    wait_until(lambda: len(desk.told()) == 1, "the slow run")
    desk.sh("echo 1 > slow; touch other")
    process.tells("other")
    (desk.top / "go").touch()
    process.wait(lambda: sum("slow" in run.words for run in desk.told()) >= 2, "the busy path's next run")
    assert all(set(run.words) - {"@/dst/"} for run in desk.told())
    assert all(run.iteration == "unset" for run in desk.told())


@pytest.mark.parametrize("b", ["B-11"])
def test_full_initialsync_outside_rsync_modes(start: Start, desk: Desk, b: str) -> None:
    assert start(f"{FOLLOW} {DIRECT} -F --only-initialsync").ended() == 0
    assert paths(desk.told()) == {".", "a", "d", "d/b"}


@pytest.mark.parametrize("b", ["B-12"])
def test_no_threshold_means_that_no_file_is_big(start: Start, desk: Desk, b: str) -> None:
    process = start(f"-W@/src -S@/handler -w0 -t0 -T1000 -B0 {DIRECT}")
    process.runs(1)
    desk.sh("echo 1 > a")
    process.wait(lambda: "a" in paths(desk.told()[1:]), "the file")


@pytest.mark.parametrize("b", ["B-13"])
def test_bad_rules_leave_the_old_ones_in_force(start: Start, desk: Desk, b: str) -> None:
    (desk.top / "rules").write_text("-*^secret\n")
    process = start(f"{AT_ONCE} {DIRECT} -R@/rules")
    process.runs(1)
    (desk.top / "rules").write_text("zzz\n")
    process.process.send_signal(signal.SIGHUP)
    process.said("stay in force")
    desk.sh("touch secret; touch zz")
    assert "secret" not in paths(process.tells("zz"))
    assert start(f"{AT_ONCE} {DIRECT} -Rmissing --only-initialsync").ended() == 2


@pytest.mark.parametrize("b", ["B-14"])
def test_no_copies_to_the_root_directory(start: Start, desk: Desk, b: str) -> None:
    assert start("-W@/src -S@/handler -Mdirect --only-initialsync").ended() == 22
    assert not desk.told()


@pytest.mark.parametrize("b", ["B-15"])
def test_no_list_stays(start: Start, desk: Desk, b: str) -> None:
    lists = desk.top / "lists"
    lists.mkdir(mode=0o700)
    ids = f"-u{os.geteuid()} -g{os.getegid()}"
    for mode in (DIRECT, "-Mshell", "-Mrsyncshell"):
        assert start(f"{FOLLOW} {mode} -L@/lists --only-initialsync {ids}").ended() == 0
        assert list(lists.iterdir()) == []


@pytest.mark.parametrize("b", ["B-16"])
def test_the_parent_says_how_the_start_went(start: Start, desk: Desk, b: str) -> None:
    assert start("-b -W@/src").ended() == 22
    lists = desk.top / "lists"
    lists.mkdir(mode=0o755)
    assert start(f"-b {FOLLOW} -Mshell -L@/lists").ended() == 13
    (desk.src / "file").touch()
    assert start(f"-b {FOLLOW} -Mshell --pid-file=@/src/file/pid").ended() != 0


@pytest.mark.parametrize("b", ["B-17"])
def test_a_status_file_anywhere(start: Start, desk: Desk, b: str) -> None:
    process = start(f"{FOLLOW} {DIRECT} --status-file=@/status --only-initialsync")
    assert process.ended() == 0
    if (desk.top / "status").exists():  # In a directory that whoever it became may not write to.
        assert "status" in process.text()


@pytest.mark.parametrize("b", ["B-18"])
def test_what_was_under_way_at_the_end_is_told_again(start: Start, desk: Desk, b: str) -> None:
    desk.program("handler", 'case " $* " in *" a "*) [ -e @/second ] || { : > @/second; sleep 1000; };; esac')
    process = start(f"{AT_ONCE} {DIRECT} --skip-initialsync")
    process.watching()
    desk.sh("echo 1 > a")
    wait_until((desk.top / "second").exists, "the run")
    assert process.stop(signal.SIGTERM) == 0
    assert [set(run.words) for run in desk.told()] == [{"a", "@/dst/"}] * 2


@pytest.mark.parametrize("b", ["B-19"])
def test_handlers_start_with_clean_signals(start: Start, desk: Desk, b: str) -> None:
    desk.program("handler", "grep -E '^Sig(Blk|Ign)' /proc/self/status > @/signals")
    assert start(f"{FOLLOW} {DIRECT} --only-initialsync").ended() == 0
    _, blocked, _, ignored = (desk.top / "signals").read_text().split()
    # 32 and 33 are the C library's own; no program can say how they are treated.
    assert [int(each, 16) & ~(0b11 << 31) for each in (blocked, ignored)] == [0, 0]


@pytest.mark.parametrize("b", ["B-20"])
def test_the_mask_of_a_recursive_call(start: Start, desk: Desk, b: str) -> None:
    assert start(f"{FOLLOW} -Msimple --have-recursive-sync --only-initialsync").ended() == 0
    assert [run.words for run in desk.told()] == [("sync", "test", "1073742080", "@/src")]


@pytest.mark.parametrize("b", ["B-21"])
def test_quotes_in_the_last_argument(start: Start, desk: Desk, b: str) -> None:
    options = ["-W@/src", "-S@/handler", "-Mdirect", "--only-initialsync", "-L@/lists"]
    options += [f"-u{os.geteuid()}", f"-g{os.getegid()}", r'----=a "b c" "d\"e"']
    assert start(options).ended() == 0
    assert [run.words for run in desk.told()] == [("a", "b c", 'd"e')]


@pytest.mark.parametrize("b", ["B-22"])
def test_the_label_of_the_same_block(start: Start, desk: Desk, b: str) -> None:
    (desk.top / "conf").write_text(
        f"[default]\nstatus-file = {desk.top}/%label%.status\nlabel = web\npid-file = {desk.top}/%label%.pid\n"
    )
    start(f"-W@/src -S@/handler {DIRECT} -H@/conf").runs(1)
    assert (desk.top / "web.pid").exists()
    assert (desk.top / "web.status").exists()


@pytest.mark.parametrize("b", ["B-24"])
@pytest.mark.parametrize("options", [RSYNC, REAL_RSYNC], ids=["engine", "rsync"])
def test_a_renamed_directory_leaves_nothing_behind(start: Start, desk: Desk, b: str, options: str) -> None:
    desk.sh("mkdir out; touch out/f")
    process = start(options)
    equal(process, "the initial sync")
    desk.sh("mv d e; mv out @/out")
    equal(process, "a renamed one, and one that left")


@pytest.mark.parametrize("b", ["B-25"])
@pytest.mark.parametrize("options", ["-w1 -t1 -T1", "-w1 -t1 -T1 --engine=handler"], ids=["engine", "rsync"])
def test_what_rules_reject_in_a_new_directory_stays_here(start: Start, desk: Desk, b: str, options: str) -> None:
    (desk.top / "rules").write_text("-f\\.h$\n")
    process = start(f"-Mrsyncdirect -W@/src -D@/dst {options} -R@/rules")
    equal(process, "the initial sync")
    desk.sh("mkdir n")
    desk.sh("touch n/b.h n/b.c")
    process.wait((desk.dst / "n/b.c").exists, "the new directory")
    assert not (desk.dst / "n/b.h").exists()


@pytest.mark.parametrize("b", ["B-26"])
def test_what_failed_is_told_again(start: Start, desk: Desk, b: str) -> None:
    desk.program("handler", 'case " $* " in *" a "*) [ -e @/well ] || { : > @/well; exit 7; };; esac')
    process = start(f"{AT_ONCE} {DIRECT} --skip-initialsync --ignore-failures")
    process.watching()
    desk.sh("echo 1 > a")
    process.wait(lambda: sum("a" in run.words for run in desk.told()) >= 2, "another run for it")
    assert process.stop() == 0


@pytest.mark.parametrize("b", ["B-27"])
@pytest.mark.parametrize("option", ["-CFOO", "--inherit-capabilities", "--forget-privthread-info"])
def test_no_option_crashes_it(start: Start, desk: Desk, b: str, option: str) -> None:
    process = start(f"{FOLLOW} {DIRECT} --only-initialsync {option}")
    assert process.ended() == (0 if option.startswith("--forget") else 22)
    assert "Traceback" not in process.text()


@pytest.mark.parametrize("b", ["B-28"])
def test_programs_are_looked_up_in_path_first(start: Start, desk: Desk, b: str) -> None:
    shutil.copy(desk.handler, desk.top / "true")
    assert start(f"-W@/src -Strue {DIRECT} --only-initialsync").ended() == 0
    assert desk.told() == []


@pytest.mark.parametrize("b", ["B-23"])
def test_the_control_socket(start: Start, desk: Desk, b: str) -> None:
    """Values are set, any number of connections served, requests in one packet answered."""
    import socket

    process = start(f"{FOLLOW} {DIRECT} -t1000 --socket=@/socket")
    process.runs(1)
    for number in range(10):
        with socket.socket(socket.AF_UNIX) as line, line.makefile("rw") as file:
            line.connect(str(desk.top / "socket"))
            assert file.readline().startswith("0 0 0 ")
            file.write(f"1 211 label l{number}\n2 201\n3 250\n")
            file.flush()
            assert file.readline().startswith("1 311 ")
            assert file.readline().startswith(f"2 301 default\x03/ l{number}\x03/")
            assert file.readline().startswith("3 350 ")
            assert file.read() == ""
    desk.sh("touch new")
    ctl = [sys.executable, "-c", "from instep.commands import clsyncctl; raise SystemExit(clsyncctl())"]
    subprocess.run([*ctl, "-s", str(desk.top / "socket"), "set", "delay-collect", "0"], check=True)
    process.tells("new")
    subprocess.run([*ctl, "-s", str(desk.top / "socket"), "die"], check=True)
    assert process.ended() == 0
