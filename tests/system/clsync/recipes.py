"""Running command lines as they stand in documents: by a shell, with our commands on its PATH."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from tests.original_clsync import Record
from tests.system.daemon_process import DEADLINE_S, wait_until

COMMANDS = {"clsync": "clsync", "clsync-actionscript": "clsync_actionscript"}


class Kitchen:
    """A directory for one recipe; ``@/`` in every text is its path."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.programs = top / "programs"
        self.programs.mkdir(parents=True)
        (top / "record").mkdir()
        self._record = Record(top / "record")
        for name, function in COMMANDS.items():
            self.program(
                name,
                f"exec '{sys.executable}' -c 'from instep.commands import {function} as it; raise SystemExit(it())' \"$@\"",
            )
        self._started: list[subprocess.Popen[bytes]] = []

    def text(self, text: str) -> str:
        return text.replace("@/", f"{self.top}/")

    def program(self, name: str, script: str) -> Path:
        """A program on the PATH."""
        path = self.programs / name
        path.write_text("#!/bin/sh\n" + self.text(script) + "\n")
        path.chmod(0o755)
        return path

    def recorder(self, name: str, then: str = "") -> Path:
        """One that writes down its words."""
        return self._record.handler(self.programs / name, self.text(then))

    def told(self) -> list[list[str]]:
        """The words of each run of what writes them down."""
        runs = self._record.runs()
        return [[word.decode().replace(str(self.top), "@") for word in run.arguments] for run in runs]

    def tree(self, **files: str) -> None:
        """Make files; ``__`` in a name is a slash."""
        for name, content in files.items():
            path = self.top / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)

    def start(
        self, recipe: str, *, cwd: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Begin to cook."""
        number = len(self._started)
        with (self.top / f"out{number}").open("wb") as out, (self.top / f"err{number}").open("wb") as error:
            process = subprocess.Popen(
                ["sh", "-c", self.text(recipe)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=error,
                cwd=cwd or self.top,
                env={
                    **os.environ,
                    "PATH": f"{self.programs}:{os.environ['PATH']}",
                    "HOME": str(self.top),
                    "KITCHEN": str(self.top),
                    **(environment or {}),
                },
                start_new_session=True,
            )
        self._started.append(process)
        return process

    @contextlib.contextmanager
    def asleep(self, process: subprocess.Popen[bytes]) -> Iterator[None]:
        """It sees what happens meanwhile in one piece, however slow we are."""
        os.killpg(process.pid, signal.SIGSTOP)
        yield
        os.killpg(process.pid, signal.SIGCONT)

    def run(self, recipe: str, **more: object) -> int:
        """Cook to the end; the exit status."""
        process = self.start(recipe, **more)  # type: ignore[arg-type]
        try:
            return process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still runs: {self.said()}") from None

    def said(self) -> str:
        """All that was printed."""
        paths = sorted((*self.top.glob("out*"), *self.top.glob("err*")))
        return "".join(path.read_text(errors="replace") for path in paths)

    def wait(self, done: Callable[[], bool], what: str) -> None:
        """Wait for a condition."""
        try:
            wait_until(done, what)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.said()}\n{self.told()}") from None

    def pids(self) -> list[int]:
        """Everything that was started here, also what went into the background."""
        found = []
        mark = f"KITCHEN={self.top}".encode()
        for path in Path("/proc").iterdir():
            if re.fullmatch(r"[0-9]+", path.name):
                with contextlib.suppress(OSError):
                    if mark in (path / "environ").read_bytes().split(b"\0"):
                        found.append(int(path.name))
        return found

    def close(self) -> None:
        """End all of it."""
        while pids := self.pids():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        for process in self._started:
            process.wait()  # What has ended by itself has no environment to be found by.
