"""The lsyncd command as a process: what each kind of sync does, signals, exit codes, log, status."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.frontends.lsyncd.conftest import Start
from tests.frontends.lsyncd.daemon import OURS, contents, wrapper
from tests.processes import lives
from tests.system.daemon_process import wait_until


def churn(source: Path) -> None:
    """Some of everything."""
    (source / "n/m").mkdir(parents=True)
    (source / "n/m/z").write_text("z")
    (source / "a").write_text("other")
    (source / "d").rename(source / "e")
    (source / "x]").write_text("bracket")
    (source / "q[1]").write_text("class")
    (source / "link").symlink_to("nowhere")


def test_three_ways_and_the_fast_road_follow(start: Start, source: Path, tmp_path: Path) -> None:
    daemon = start(
        config="""
        settings{ nodaemon=true, statusFile="@/status", statusInterval=0 }
        sync{ default.rsync, source="@/s", target="@/slow", delay=0.2, rsync={ update=true, archive=true } }
        sync{ default.rsync, source="@/s", target="@/fast", delay=0.2, rsync={ archive=true } }
        sync{ default.direct, source="@/s", target="@/direct", delay=0 }
        """
    )
    rsync = f"{source}/ -> {tmp_path}"
    for name, way in (("slow", f"{rsync}/slow/"), ("fast", f"{rsync}/fast/"), ("direct", f'"{source}/"')):
        daemon.said(f"Normal: Startup of {way} finished{':' if name == 'direct' else '.'}")
        daemon.equal(source, tmp_path / name)
    churn(source)
    for name in ("slow", "fast", "direct"):
        daemon.equal(source, tmp_path / name)
    subprocess.run(["rm", "-r", source / "n", source / "e"], check=True)
    (source / "a").unlink()
    for name in ("slow", "fast", "direct"):
        daemon.equal(source, tmp_path / name)
    assert "Calling rsync with filter-list of new/modified files/dirs" in daemon.text()
    daemon.wait(lambda: (tmp_path / "status").read_text().count("There are 0 delays") == 3, "the status of all three")
    assert daemon.stop() == 143
    assert "--- TERM signal, fading ---" in daemon.text()


def test_a_stop_brings_over_what_is_pending(start: Start, source: Path, tmp_path: Path) -> None:
    daemon = start("-nodaemon", "-pidfile", f"{tmp_path}/pid", "-delay", "600", "-rsync", "s", f"{tmp_path}/t")
    daemon.said("finished.")
    assert int((tmp_path / "pid").read_text()) == daemon.process.pid, "also in the foreground"
    (source / "a").write_text("other")
    assert daemon.stop() == 143
    assert contents(source) == contents(tmp_path / "t")
    assert not (tmp_path / "pid").exists()


def test_a_dead_target_stops_no_other_and_is_told_of_once(start: Start, source: Path, tmp_path: Path) -> None:
    daemon = start(
        "-nodaemon", "-delay", "0", "-rsync", "s", "rsync://127.0.0.1:1/none/", "-rsync", "s", f"{tmp_path}/t"
    )
    daemon.said("target-away")
    (source / "a").write_text("other")
    daemon.equal(source, tmp_path / "t")
    assert daemon.text().count("target-away") == 1
    daemon.kill()


def test_direct_step_by_step(start: Start, source: Path, tmp_path: Path) -> None:
    """With each step to be seen, direct runs its own programs; links are copied as links all the same."""
    daemon = start("-nodaemon", "-log", "Exec", "-log", "Delay", "-delay", "0.05", "-direct", "s", f"{tmp_path}/t")
    daemon.said("finished: 0")
    (source / "n").mkdir()
    (source / "n/z").write_text("z")
    daemon.equal(source, tmp_path / "t")
    (source / "n").rename(source / "k")
    (source / "a").unlink()
    daemon.equal(source, tmp_path / "t")
    assert "Delay: New Create: /n/\n" in daemon.text()
    assert re.search(r"Delay: (New )?Create: /n/z", daemon.text())
    assert f"mkdir [--] [{tmp_path}/t//n/]" in daemon.text()
    assert f"cp [-p] [--] [{source}//n/z] [{tmp_path}/t//n/]" in daemon.text()
    assert daemon.stop(signal.SIGINT) == 130


def test_nothing_is_deleted_or_written_through_links(start: Start, source: Path, tmp_path: Path) -> None:
    daemon = start("-nodaemon", "-log", "Exec", "-delay", "0", "-direct", "s", f"{tmp_path}/t")
    daemon.said("finished: 0")
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "b").write_text("not ours")
    (tmp_path / "t/d").rename(tmp_path / "away")
    (tmp_path / "t/d").symlink_to(victim)
    (source / "d/b").write_text("new")
    daemon.said(f"A link, or a file, at the target is in the way of {tmp_path}/t//d/b")
    subprocess.run(["rm", "-r", source / "d"], check=True)
    daemon.equal(source, tmp_path / "t")
    assert contents(victim) == {"b": b"not ours"}


def test_a_wrapper_gets_rsyncs_words(start: Start, source: Path, tmp_path: Path) -> None:
    wrapper(tmp_path / "bin/wrap", tmp_path / "calls")
    daemon = start(
        config="""
        settings{ nodaemon=true, inotifyMode="CloseWrite or Modify" }
        sync{ default.rsync, source="@/s", target="@/t", delay=0.5, exclude={"*.o"}, rsync={ binary="@/bin/wrap" } }
        """
    )
    daemon.said("finished.")
    (source / "f").write_text("f")
    (source / "f.o").write_text("f")
    daemon.wait((tmp_path / "t/f").exists, "the file")
    first, *rest = [eval(line) for line in (tmp_path / "calls").read_text().splitlines()]  # repr of plain values
    assert first[0][:3] == ["--exclude-from=-", "--delete", "--ignore-errors"]
    assert sorted(first[0][3]) == sorted("-lts")
    assert first[0][4:] == ["-r", f"{source}/", f"{tmp_path}/t/"]
    assert first[1] == b"*.o"
    assert rest[0][1] == b"/f\0/"
    assert rest[0][0][1:] == [
        "-r", "--delete", "--ignore-errors", "--force", "--from0", "--include-from=-", "--exclude=*", f"{source}/",
        f"{tmp_path}/t/",
    ]  # fmt: skip
    assert not (tmp_path / "t/f.o").exists()


LAYERS = """
settings{ nodaemon=true, statusFile="@/status", statusInterval=1 }
local function note(...) local f = io.open("@/notes", "a"); f:write(table.concat({...}, " "), "\\n"); f:close() end
-- Commands as text: a binary and a shell; names with quotes are safe.
sync{ source="@/s", target="@/t/", delay=0.05, onCreate="touch ^targetPathname && echo C ^pathname >> @/shell",
    onModify="/bin/sh -c 'exit 3'", onDelete=[[^echo "D $0" ^o.pathname >> @/shell]], onMove="echo V ^o.path ^d.path >> @/shell" }
-- Functions for events.
sync{ source="@/s", delay=0, onCreate=function(event)
    note("create", event.etype, event.pathname, event.basename, event.pathdir, tostring(event.isdir), event.status)
    event.mine = "kept"
    spawnShell(event, "test -e \\"$1\\"", event.sourcePathname)
  end, collect=function(agent, code)
    if agent.etype ~= "Init" then note("collect", agent.etype, agent.path, tostring(rawget(agent, "mine")), tostring(code)) end
    if agent.isdir and not rawget(agent, "again") then agent.again = true; return "again" end
  end }
-- The whole action.
sync{ source="@/s", delay=0.2, init=function(event) event.inlet.createBlanketEvent(); note("init", event.etype); event.inlet.discardEvent(event) end,
  action=function(inlet)
    local event = inlet.getEvent()
    if event.etype == "Blanket" then inlet.discardEvent(event); return end
    local list = inlet.getEvents(function(e) return e.etype ~= "Blanket" end)
    local paths = list.getPaths(function(etype, path, path2) return etype .. path, path2 end)
    note("list", tostring(list.isList), tostring(#paths > 0), paths[1])
    spawn(list, "/bin/cat", "<", table.concat(paths, "\\n"))
  end }
alarm(now() + 0.1, function(at, extra) note("alarm", extra) end, "extra")
"""


def test_configurations_of_all_layers(start: Start, source: Path, tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    daemon = start(config=LAYERS)
    daemon.wait(lambda: "alarm extra" in notes(tmp_path), "the alarm")
    (source / 'it\'s "x" $y').write_text("")
    (source / "dir").mkdir()
    daemon.wait((tmp_path / "t" / 'it\'s "x" $y').exists, "the touched file")
    daemon.wait(lambda: notes(tmp_path).count("collect Create dir/ kept 0") == 2, "the retry")
    daemon.wait(lambda: "list true true " in notes(tmp_path), "the list")
    daemon.said("Failure with Modify on")
    (source / "a").unlink()
    (source / "d/b").rename(source / "d/c")
    daemon.wait(lambda: "V d/b d/c" in shell(tmp_path) and "D sh a" in shell(tmp_path), "delete and move")
    assert 'C it\'s "x" $y' in shell(tmp_path)
    assert 'create Create it\'s "x" $y it\'s "x" $y  false wait' in notes(tmp_path)
    assert "create Create dir dir  true wait" in notes(tmp_path)
    assert notes(tmp_path).startswith("init Init\n") or "\ninit Init\n" in notes(tmp_path)
    daemon.wait((tmp_path / "status").exists, "the status file")
    daemon.wait(lambda: "There are 0 delays" in (tmp_path / "status").read_text(), "an empty queue in the status file")
    status = (tmp_path / "status").read_text()
    assert status.startswith("Lsyncd status report at ")
    assert f"Sync1 source={source}/\n" in status
    assert "Filtering:\n  nothing." in status
    assert (tmp_path / "notes").stat().st_mode & 0o022 == 0, "functions work under the user's umask"
    assert daemon.stop() == 143, "a failing command has not ended the daemon"


def notes(top: Path) -> str:
    return (top / "notes").read_text() if (top / "notes").exists() else ""


def shell(top: Path) -> str:
    return (top / "shell").read_text() if (top / "shell").exists() else ""


def lsyncd(*words: str, cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*OURS, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd
    )


def test_how_it_ends_when_it_cannot_begin(source: Path, tmp_path: Path) -> None:
    pytest.importorskip("lupa")
    (tmp_path / "bad.lua").write_text("settings{ nodaemon=true }\nboo(")
    (tmp_path / "term.lua").write_text("terminate(7)")
    (tmp_path / "run.lua").write_text(
        f'settings{{ nodaemon=true }}\nsync{{ source="{source}", onStartup=function(e)\n  newglobal = 1\nend }}'
    )
    cases = (
        (["nope.lua"], 255, "Error: Cannot find config file at "),
        (["bad.lua"], 255, "bad.lua:2: "),
        (["term.lua"], 7, ""),
        (["run.lua"], 255, "run.lua:3: Lsyncd does not allow GLOBALS to be created on the fly"),
        (["-log", "x"], 255, "'x' is not a valid logging category"),
        (["-nodaemon", "-logfile", "/no/where", "-rsync", "s", "t"], 255, "Cannot open logfile [/no/where]!"),
        (["-rsync", "/none", "t"], 255, "Cannot access source directory: /none"),
        (["-nodaemon", "-rsync", "s", "/dev/null/t"], 255, 'Terminating since "insist" is not set'),
    )
    processes = [lsyncd(*words, cwd=tmp_path) for words, _, _ in cases]
    try:
        for process, (words, status, said) in zip(processes, cases, strict=True):
            _, err = process.communicate(timeout=60)
            assert (process.returncode, said in err) == (status, True), (words, err)
    finally:
        for process in processes:
            process.kill()
            process.wait()


FAILING = """#!/bin/sh
n=$(cat TOP/count 2>/dev/null || echo 0); echo $((n + 1)) > TOP/count
case $n in $KILL) kill -9 $$;; $FAIL) exit $CODE;; esac
exec rsync "$@"
"""


@pytest.mark.parametrize(("code", "kill"), [("23", "9"), ("12", "9"), ("0", "1")])
def test_what_could_not_be_transferred_is_tried_again(
    start: Start, source: Path, tmp_path: Path, code: str, kill: str
) -> None:
    """Also after code 23, and after a signal: both pass for success with lsyncd, and the paths are forgotten."""
    (tmp_path / "bin").mkdir()
    script = FAILING.replace("TOP", str(tmp_path)).replace("$KILL", kill).replace("$FAIL", "1").replace("$CODE", code)
    (tmp_path / "bin/wrap").write_text(script)
    (tmp_path / "bin/wrap").chmod(0o755)
    daemon = start(
        config="""
        settings{ nodaemon=true }
        sync{ default.rsync, source="@/s", target="@/t", delay=0, rsync={ binary="@/bin/wrap" } }
        """
    )
    daemon.said("finished.")
    (source / "f").write_text("f")
    daemon.said("Retrying a list after exitcode = ")
    daemon.equal(source, tmp_path / "t")
    daemon.said("Finished a list after exitcode: 0")


def test_in_the_background_with_a_hangup(start: Start, source: Path, tmp_path: Path) -> None:
    """The foreground learns of a start that failed; a broken configuration at a hangup ends nothing."""
    config = tmp_path / "c.lua"
    good = f"""
        settings{{ logfile="{tmp_path}/lf", pidfile="{tmp_path}/pid", statusFile="{tmp_path}/st", statusInterval=0 }}
        sync{{ default.rsync, source="{source}", target="{tmp_path}/t", delay=0 }}
    """
    config.write_text(good)
    pytest.importorskip("lupa")
    first = subprocess.run([*OURS, str(config)], stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert first.returncode == 0, first.stderr
    pid = int((tmp_path / "pid").read_text())
    try:
        log = tmp_path / "lf"
        wait_until(lambda: "finished." in log.read_text(), "the start")
        second = subprocess.run([*OURS, str(config)], stderr=subprocess.PIPE, text=True, timeout=60, check=False)
        assert second.returncode == 255
        assert "Cannot use pidfile" in second.stderr
        config.write_text("boo(")
        os.kill(pid, signal.SIGHUP)
        wait_until(lambda: "going on with the configuration from before" in log.read_text(), "the complaint")
        wait_until(lambda: log.read_text().count("finished.") == 2, "the second start")
        config.write_text(good.replace('/t"', '/u"'))
        os.kill(pid, signal.SIGHUP)
        wait_until((tmp_path / "u/d/b").exists, "the new target")
        (source / "f").write_text("f")
        wait_until((tmp_path / "u/f").exists, "a change")
        wait_until(
            lambda: "There are 0 delays" in (tmp_path / "st").read_text(), "the status file, with nothing pending"
        )
        assert re.search(
            r"^\w{3} \w{3} [ \d]\d [\d:]{8} \d{4} Normal: --- Startup, daemonizing ---$", log.read_text(), re.MULTILINE
        )
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not lives(pid), "the end")
        assert not (tmp_path / "pid").exists()
    finally:
        if lives(pid):
            os.kill(pid, signal.SIGKILL)


def test_a_stop_waits_for_programs(start: Start, source: Path, tmp_path: Path) -> None:
    daemon = start(
        config=f"""
        settings{{ nodaemon=true }}
        sync{{ source="@/s", delay=0, onCreate=[[^exec {sys.executable} -c "import time, os
open('@/began', 'w')
while not os.path.exists('@/go'): time.sleep(0.01)
open('@/done', 'w')"]] }}
        """
    )
    daemon.said("Startup ---")
    wait_until(lambda: (source / "f").write_text("f") > 0 and _made(source, tmp_path), "the program")
    daemon.process.send_signal(signal.SIGTERM)
    daemon.said("waiting for 1 more child processes.")
    (tmp_path / "go").touch()
    assert daemon.process.wait(60) == 143
    assert (tmp_path / "done").exists()


def _made(source: Path, top: Path) -> bool:
    (source / "f").unlink()
    return (top / "began").exists()


def test_one_pass(source: Path, tmp_path: Path) -> None:
    pytest.importorskip("lupa")
    process = lsyncd(
        "-nodaemon", "-onepass", "-rsync", "s", f"{tmp_path}/t", "-rsync", "s", f"{tmp_path}/u", cwd=tmp_path
    )
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, out + err
    assert contents(source) == contents(tmp_path / "t") == contents(tmp_path / "u")
