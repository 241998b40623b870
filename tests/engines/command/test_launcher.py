"""A thread that is somebody else, and programs that it starts."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest

from instep.engines.command.launcher import Launcher
from instep.engines.command.program import run
from instep.model import Program

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

SHOWN = (b"sh", b"-c", b"echo $(id -u) $(id -ru) $(id -g) $(id -G) $(umask) $(pwd)")


def test_only_the_thread_changes() -> None:
    launcher = Launcher(1, 2, groups=(2, 3))
    try:
        assert launcher.call(os.getresuid) == (1, 1, 1)
        assert launcher.call(os.getgroups) == [2, 3]
        assert os.getresuid() == (0, 0, 0)
        seen: list[int] = []
        thread = threading.Thread(target=lambda: seen.append(os.geteuid()))
        thread.start()
        thread.join()
        assert seen == [0]
        end = asyncio.run(run(Program(SHOWN, capture_bytes=100, directory=b"/"), umask=0o27, launcher=launcher))
        assert end.output == b"1 1 2 2 3 0027 /\n"
    finally:
        launcher.close()


def test_what_it_may_not_become_is_an_error() -> None:
    launcher = Launcher(1, 1)
    try:
        with pytest.raises(PermissionError):
            launcher.call(lambda: Launcher(0, 0))
    finally:
        launcher.close()


def test_errors_of_a_start_are_the_caller_s(tmp_path: Path) -> None:
    launcher = Launcher(1, 1)
    try:
        end = asyncio.run(run(Program((b"/no/such",)), umask=0, launcher=launcher))
        assert (end.status, end.trouble) == (127, "No such file or directory")
        (tmp_path / "x").touch(mode=0o644)
        end = asyncio.run(run(Program((os.fsencode(tmp_path / "x"),)), umask=0, launcher=launcher))
        assert (end.status, end.trouble) == (127, "Permission denied")
    finally:
        launcher.close()
