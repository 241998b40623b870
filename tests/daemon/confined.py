"""Runs a piece of a test in a process of its own, which may shut itself in as it likes."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from instep.linux import devices


def can_make_groups() -> bool:
    """Whether control groups in which devices are forbidden can be made here."""
    try:
        found = devices.hierarchies()
    except OSError:
        return False
    return bool(found) and os.geteuid() == 0 and all(os.access(each.group, os.W_OK) for each in found)


needs_groups = pytest.mark.skipif(not can_make_groups(), reason="needs control groups that it may change")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

PREAMBLE = """
import asyncio, dataclasses, errno, os, signal, socket, subprocess, sys
from instep.confinement import *
from instep.daemon.confine import Confining
from instep.engines.command.program import run
from instep.errors import CannotConfine
from instep.frontends.clsync import confinement
from instep.frontends.clsync.settings import *
from instep.model import *

def plan(watch_dir=b"/tmp", mode=Mode.SIMPLE, sync_handler=b"/bin/true", arguments=(), **more):
    settings = Settings(watch_dir, mode, sync_handler, arguments, None, False, **more)
    started = Identity(os.getuid(), os.getgid())
    return confinement.plan(settings, started=started, nobody=Identity(65534, 65534))

def confined(made):
    confining = Confining(made)
    confining.isolate()
    launcher = confining.lower()
    confining.seal()
    return launcher

def ran(launcher, *argv):
    end = asyncio.run(run(Program(argv, capture_bytes=1 << 16), umask=0o22, launcher=launcher))
    return f"{end.status} {end.output.decode()}{end.trouble}"

def print(*values, end="\\n", flush=False):
    # A whole line at a time: several processes may print, and Python may have been told not to buffer.
    sys.stdout.write(" ".join(map(str, values)) + end)
    sys.stdout.flush()

def status(*names):
    for line in open("/proc/self/status"):
        if line.split(":")[0] in names:
            print(line.strip().replace("\\t", " "))

def tried(function, *values):
    try:
        function(*values)
    except OSError as error:
        print(errno.errorcode[error.errno])
    else:
        print("done")
"""


def output_of(script: str, *arguments: str | os.PathLike[str], stdin: str | None = None) -> str:
    """What a script prints; it must end well."""
    ended = subprocess.run(
        [sys.executable, "-c", PREAMBLE + textwrap.dedent(script), *(os.fspath(each) for each in arguments)],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that every user can write to."""
    with tempfile.TemporaryDirectory(prefix="instep-test-") as path:
        os.chmod(path, 0o777)
        yield Path(path)


@pytest.fixture
def no_groups_left() -> Iterator[None]:
    """Removes the control groups that can be removed only when all processes in them have ended."""
    yield
    for hierarchy in devices.hierarchies():
        above = os.path.join(hierarchy.group, devices.NAME)
        with contextlib.suppress(OSError):
            devices._sweep(above)
            os.rmdir(above)
