"""What systemd is told."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from instep.linux.sdnotify import VARIABLE, Notifier


@pytest.mark.parametrize("abstract", [False, True])
def test_what_is_told(tmp_path: Path, abstract: bool) -> None:
    name = f"instep-test-{os.getpid()}"
    address = f"@{name}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as service:
        service.bind(f"\0{name}" if abstract else address)
        service.settimeout(60)
        environ = {VARIABLE: address, "OTHER": "1"}
        notifier = Notifier.take(environ)
        assert environ == {"OTHER": "1"}
        notifier.status("initsync\nREADY=1")
        notifier.ready("running")
        notifier.stopping()
        notifier.close()
        notifier.close()
        notifier.status("late")
        assert [service.recv(4096) for _ in range(3)] == [
            b"STATUS=initsync READY=1", b"READY=1\nSTATUS=running", b"STOPPING=1\nSTATUS=ending",
        ]  # fmt: skip


@pytest.mark.parametrize(
    "address", [None, "", "relative", "vsock:2:1", "/nonexistent/notify", "/" + "x" * 200, "/a\0b"]
)
def test_nobody_listens(address: str | None) -> None:
    before = len(os.listdir("/proc/self/fd"))
    notifier = Notifier(address)
    notifier.ready("running")
    notifier.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_manager_that_does_not_read_or_is_gone_stops_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as service:
        service.bind(path)
        notifier = Notifier(path)
        for _ in range(5000):
            notifier.status("running")
    notifier.stopping()
    notifier.close()


def test_it_works_in_another_root_and_children_do_not_have_it(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    program = """
import os, subprocess, sys
from instep.linux.sdnotify import Notifier
notifier = Notifier.take(os.environ)
os.unlink(sys.argv[1])  # as good as another root
look = "import os; print('NOTIFY_SOCKET' in os.environ, any('socket:' in os.readlink(f'/proc/self/fd/{n}') for n in range(3, 64) if os.path.islink(f'/proc/self/fd/{n}')))"
subprocess.run([sys.executable, "-c", look], close_fds=False, check=True)
notifier.ready("running")
"""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as service:
        service.bind(path)
        service.settimeout(60)
        said = subprocess.run(
            [sys.executable, "-c", program, path],
            env={**os.environ, VARIABLE: path}, stdout=subprocess.PIPE, text=True, check=True,
        )  # fmt: skip
        assert said.stdout == "False False\n"
        assert service.recv(100) == b"READY=1\nSTATUS=running"
