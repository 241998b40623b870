"""The command lines and settings of lsyncd's own documents, under the distribution's lsyncd and under ours."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.frontends.lsyncd.conftest import Start
from tests.frontends.lsyncd.daemon import DEBIANS, OURS, Daemon
from tests.system.sshd import Sshd

pytestmark = pytest.mark.skipif(DEBIANS is None, reason="needs lsyncd")

SIDES = (("ours", OURS), ("theirs", (str(DEBIANS),)))


def plant(source: Path) -> None:
    (source / "d").mkdir(parents=True)
    (source / "d/b").write_text("b")
    (source / "a").write_text("a")


def churn(source: Path) -> None:
    (source / "new/in").mkdir(parents=True)
    (source / "new/in/file").write_text("file")
    (source / "a").write_text("longer")
    shutil.rmtree(source / "d")


def test_a_home_to_a_server(start: Start, tmp_path: Path, server: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    """To a share of a daemon's, to a directory in the home at a host, and to another disk."""
    server.force('cd $HOME && eval "$SSH_ORIGINAL_COMMAND"')
    for name, program in SIDES:
        top = tmp_path / name
        (top / "bin").mkdir(parents=True)
        (top / "bin/ssh").symlink_to(server.programs / "ssh")
        (top / "share").mkdir()
        user = "uid = 0\ngid = 0\n" if os.geteuid() == 0 else ""
        (top / "conf").write_text(f"use chroot = no\n{user}[share]\npath = {top}/share\nread only = no\n")
        # What rsync takes for a connection to the server.
        monkeypatch.setenv("RSYNC_CONNECT_PROG", f"rsync --config={top}/conf --daemon")
        backup = server.base / "home" / f"backup-{name}"
        ways = {
            top / "share": ("-rsync", f"{top}/share-home", "remotehost.org::share/"),
            backup: ("-rsyncssh", f"{top}/ssh-home", "there", f"{backup.name}/"),
            top / "disk": ("-direct", f"{top}/disk-home", f"{top}/disk"),
        }
        daemons = []
        for target, words in ways.items():
            plant(Path(words[1]))
            daemon = start("-nodaemon", "-delay", "0.3", *words, program=program, top=top)
            daemons.append((daemon, Path(words[1]), target))
        for daemon, source, target in daemons:
            daemon.equal(source, target)
            daemon.said("Startup of ")
            churn(source)
        for daemon, source, target in daemons:
            daemon.equal(source, target)
        for daemon, _, _ in daemons:
            assert daemon.stop() == 143


MODES = """settings{ nodaemon=true, inotifyMode="MODE" }
sync{ source="@/s", delay=0, maxProcesses=1, init=function(event) log("Normal", "begun") event.inlet.discardEvent(event) end,
    onModify="echo M ^pathname >> @/told", onCreate="echo C ^pathname >> @/told" }
"""
WHEN = {"CloseWrite": False, "Modify": True, "CloseWrite or Modify": True}
"""Whether it does so before it is closed."""


def test_when_a_write_counts(start: Start, tmp_path: Path) -> None:
    """As soon as something is written, or when the file is closed. One program runs at a time, in the order of events."""
    running: dict[tuple[str, str], tuple[Path, Daemon]] = {}
    for mode in WHEN:
        for name, program in SIDES:
            top = tmp_path / f"{mode.replace(' ', '-')}-{name}"
            plant(top / "s")
            running[mode, name] = top, start(config=MODES.replace("MODE", mode), program=program, top=top)
    for (mode, _), (top, daemon) in running.items():
        daemon.said("begun")
        with (top / "s/a").open("ab", buffering=0) as file:
            file.write(b"more")
            (top / "s/last").mkdir()
            told(daemon, top, "C last")
            assert ("M a\n" in (top / "told").read_text()) == WHEN[mode]
        (top / "s/closed").mkdir()
    for mode in WHEN:
        ours, theirs = (told(daemon, top, "C closed") for top, daemon in (running[mode, name] for name, _ in SIDES))
        assert ours == theirs
    for _, daemon in running.values():
        assert daemon.stop() == 143


def told(daemon: Daemon, top: Path, line: str) -> str:
    """All, once there is this line."""
    daemon.wait(lambda: f"{line}\n" in (top / "told").read_text(), line)
    return (top / "told").read_text()
