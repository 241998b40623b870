"""Starting and ending the tools that are compared, each at its fastest settings.

Facts: lsyncd's ``-delay 0`` and clsync's ``-w0 -t0 -T0`` are the shortest delays they take; clsync works in whole
seconds. lsyncd says ``Startup of … finished.`` on standard output after its first rsync; clsync says nothing, so it is
probed.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

from benchmarks.cpu import CpuMeter, cpu_meter, descendants
from benchmarks.measure import NEVER, holds, wait_until

READY_LIMIT_S = 120.0


class DidNotStart(Exception):
    """A tool ended, or did not follow within the bound."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A mirror daemon."""

    name: str
    argv: Callable[[str, Sequence[str]], list[str]]
    """The command for a source and its targets; options come before."""
    ready: bytes | None
    """What it writes to its log when it follows."""
    patience_s: float = 60.0
    """How long to wait for it before calling a state never reached."""


instep_command: list[str] = [sys.executable, "-m", "instep"]
"""How instep is started; ``--instep`` puts another one here, an older checkout say."""


@functools.cache
def state_directory() -> str:
    """Where instep keeps its indexes meanwhile: on the disk, as by default; removed at the end."""
    path = tempfile.mkdtemp(prefix="instep-bench-state-", dir="/var/tmp")
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def _instep_argv(source: str, targets: Sequence[str]) -> list[str]:
    return ["mirror", "--log-format", "json", "--state-dir", state_directory(), source, *targets]


INSTEP = Tool("instep", lambda source, targets: [*instep_command, *_instep_argv(source, targets)], b"following")
LSYNCD = Tool(
    "lsyncd", lambda source, targets: ["lsyncd", "-nodaemon", "-delay", "0", "-rsync", source, targets[0]], b"finished."
)
CLSYNC = Tool(
    "clsync",
    lambda source, targets: [
        *("clsync", "-w0", "-t0", "-T0", "-Mrsyncdirect", "-S", "rsync", "-H", "/NULL/"),
        *("-W", source, "-D", targets[0]),
    ],
    None,
    patience_s=20.0,
)
TOOLS = (INSTEP, LSYNCD, CLSYNC)


def available(*tools: Tool) -> list[Tool]:
    """Those that are installed; ours always is."""
    return [tool for tool in tools if tool is INSTEP or shutil.which(tool.name)]


class Mirror:
    """One running tool; a context that leaves nothing behind."""

    def __init__(self, tool: Tool, source: str, *targets: str, options: Sequence[str] = (), wait: bool = True) -> None:
        self.tool = tool
        self.source = source
        self.targets = targets
        self._options = tuple(options)
        self._wait = wait
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self.meter = cpu_meter()
            stack.callback(self.meter.close)
            self._log = stack.enter_context(tempfile.NamedTemporaryFile(prefix="instep-bench-log-"))
            argv = self.tool.argv(self.source, self.targets)
            if self.tool is INSTEP:
                place = argv.index("mirror") + 1
                argv[place:place] = self._options
            self.started_s = time.monotonic()
            self.process = start(argv, self.meter, self._log.fileno())
            stack.callback(self._stop)
            if self._wait:
                self.wait_ready()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def patience_s(self) -> float:
        return self.tool.patience_s

    def wait_ready(self) -> None:
        """Return once it follows: by its own word, or because a new file has arrived."""
        if self.tool.ready is not None:
            if wait_until(self._said_ready, READY_LIMIT_S) == NEVER:
                raise DidNotStart(f"{self.tool.name} did not follow within {READY_LIMIT_S:.0f} s:\n{self.log_tail()}")
            return
        probe = f"probe-{os.getpid()}"
        with open(f"{self.source}/{probe}", "wb") as file:
            file.write(b"probe")
        arrived_s = wait_until(lambda: self._alive() and holds(f"{self.targets[0]}/{probe}", b"probe"), READY_LIMIT_S)
        os.unlink(f"{self.source}/{probe}")
        if arrived_s == NEVER:
            raise DidNotStart(f"{self.tool.name} did not follow within {READY_LIMIT_S:.0f} s:\n{self.log_tail()}")
        wait_until(lambda: not os.path.exists(f"{self.targets[0]}/{probe}"), 5.0)

    def _said_ready(self) -> bool:
        assert self.tool.ready is not None
        return self._alive() and self.tool.ready in self.log()

    def _alive(self) -> bool:
        status = self.process.poll()
        if status is not None:
            raise DidNotStart(f"{self.tool.name} ended with {status}:\n{self.log_tail()}")
        return True

    def log(self) -> bytes:
        """All it has said so far."""
        with open(self._log.name, "rb") as file:
            return file.read()

    def log_tail(self) -> str:
        return self.log()[-1500:].decode(errors="backslashreplace")

    def pids(self) -> list[int]:
        """The process and all below it."""
        return [self.process.pid, *descendants(self.process.pid)]

    def rested_usage_s(self, limit_s: float = 10.0) -> float:
        """CPU time so far, once it uses no more."""
        end_s = time.monotonic() + limit_s
        before = self.meter.usage_s()
        while time.monotonic() < end_s:
            time.sleep(0.3)
            now = self.meter.usage_s()
            if now - before < 0.001:
                return now
            before = now
        return before

    def _stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(5)


def start(argv: Sequence[str], meter: CpuMeter, log_fd: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own, counted by the meter."""
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=log_fd,
        stderr=log_fd,
        start_new_session=True,
        preexec_fn=meter.enter,  # noqa: PLW1509  # there are no threads here
    )
    meter.watch(process.pid)
    return process


@dataclass(frozen=True, slots=True)
class Run:
    """What one run of a program to its end took."""

    wall_s: float
    cpu_s: float


def run(argv: Sequence[str], limit_s: float = 300.0) -> Run:
    """Run a program to its end.

    Raises:
        DidNotStart: it failed, with its own words.
    """
    meter = cpu_meter()
    try:
        with tempfile.TemporaryFile(prefix="instep-bench-log-") as log:
            begin_s = time.monotonic()
            process = start(argv, meter, log.fileno())
            try:
                status = process.wait(limit_s)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(5)
                return Run(NEVER, meter.usage_s())
            wall_s = time.monotonic() - begin_s
            if status != 0:
                log.seek(0)
                raise DidNotStart(
                    f"{argv[0]} ended with {status}:\n{log.read()[-1500:].decode(errors='backslashreplace')}"
                )
            return Run(wall_s, meter.usage_s())
    finally:
        meter.close()


def instep_once(source: str, target: str, *options: str) -> Run:
    """``instep mirror --once`` to its end."""
    argv = INSTEP.argv(source, [target])
    place = argv.index("mirror") + 1
    argv[place:place] = ["--once", *options]
    return run(argv)
