"""Running clsync processes under test: ours, and the original where it is installed; and what they tell a handler."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.original_clsync import CLSYNC, Record, Run
from tests.system.daemon_process import DEADLINE_S, wait_until

OURS = (sys.executable, "-c", "from instep.commands import clsync; raise SystemExit(clsync())")
CTL = (sys.executable, "-c", "from instep.commands import clsyncctl; raise SystemExit(clsyncctl())")
THEIRS = (CLSYNC,)


class Told(NamedTuple):
    """One run of the handler."""

    status: str
    iteration: str
    words: tuple[str, ...]
    """Its arguments; a list file is LIST or EXCLIST."""
    include: tuple[str, ...]
    """The lines of the list, as they stand."""
    exclude: tuple[str, ...]


class Desk:
    """A directory with a tree to be watched (``src``), a place for copies (``dst``), and a handler that writes down."""

    def __init__(self, top: Path, *, tree: str = "", then: str = "") -> None:
        """Make it.

        Args:
            top: the directory; is made.
            tree: a shell script that makes the tree, run in ``src``.
            then: what the handler does in the end, in shell.
        """
        self.top = top
        self.src = top / "src"
        self.dst = top / "dst"
        self.record = top / "record"
        for path in (self.src, self.dst, self.record):
            path.mkdir(parents=True)
        self._record = Record(self.record)
        self.handler = self.program("handler", then)
        self.sh(tree)

    def program(self, name: str, then: str = "") -> Path:
        """A recording program."""
        return self._record.handler(self.top / name, then.replace("@", str(self.top)))

    def sh(self, script: str) -> None:
        """Run a script in the tree."""
        subprocess.run(
            ["sh", "-ec", script.replace("@", str(self.top))], cwd=self.src, check=True, stdin=subprocess.DEVNULL
        )

    def told(self) -> list[Told]:
        """The runs that the handler has written down, in the order of their ends."""
        return [self._told(run) for run in self._record.runs()]

    def _told(self, run: Run) -> Told:
        return Told(
            run.status.decode(),
            run.iteration.decode(),
            # Of a word that ends in a list, what stands before it is of no interest here.
            tuple(self._here(word.rpartition(b"=")[2] if word.endswith(b"LIST") else word) for word in run.arguments),
            tuple(self._here(line) for line in run.lists.get("list", ())),
            tuple(self._here(line) for line in run.lists.get("exclist", ())),
        )

    def _here(self, text: bytes) -> str:
        return text.replace(bytes(self.top), b"@").decode(errors="backslashreplace")


class Clsync:
    """One process, in a session of its own, its output in a file."""

    def __init__(
        self,
        desk: Desk,
        words: str | Sequence[str],
        *,
        program: Sequence[str] = OURS,
        name: str = "log",
        stdin: bytes = b"",
        environment: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
        cwd: Path | None = None,
    ) -> None:
        """Start it; ``@`` in a word is the desk's directory, and no configuration file is read but one that is named."""
        self.desk = desk
        self.log = desk.top / name
        parts = words.split() if isinstance(words, str) else list(words)
        parts = [part.replace("@", str(desk.top)) for part in parts]
        if not any(part.startswith(("-H", "--config-file")) for part in parts):
            parts.insert(0, "-H/NULL/")
        # For list directories, which are made by whoever it becomes, and left behind when it is killed.
        self._lists = tempfile.mkdtemp(prefix="clsync-lists-", dir="/tmp")
        os.chmod(self._lists, 0o777)
        given = desk.top / f"{name}.in"
        given.write_bytes(stdin)
        with self.log.open("wb") as out, given.open("rb") as source:
            self.process = subprocess.Popen(
                [*prefix, *program, *parts],
                stdin=source,
                stdout=out,
                stderr=out,
                cwd=cwd or desk.top,
                env={**os.environ, "TOP": str(desk.top), "TMPDIR": self._lists, **(environment or {})},
                start_new_session=True,
            )

    def text(self) -> str:
        """All it has said."""
        return self.log.read_text(errors="replace")

    def wait(self, done: Callable[[], bool], what: str, deadline_s: float = DEADLINE_S) -> None:
        """Wait for a condition, as long as the process is there."""

        def there() -> bool:
            if done():
                return True
            code = self.process.poll()
            assert code is None or done(), f"ended with {code} before {what}:\n{self.text()}"
            return False

        try:
            wait_until(there, what, deadline_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.text()[-6000:]}\n{self.desk.told()[-20:]}") from None

    def said(self, text: str, count: int = 1) -> None:
        """Wait for a text in its output."""
        self.wait(lambda: self.text().count(text) >= count, f"{text!r} in the output")

    def runs(self, count: int) -> list[Told]:
        """Wait for so many runs of the handler; all there are."""
        self.wait(lambda: len(self.desk.told()) >= count, f"{count} runs")
        return self.desk.told()

    def tells(self, text: str) -> list[Told]:
        """Wait until a run tells of this; all runs there are."""
        found: list[Told] = []

        def there() -> bool:
            found[:] = self.desk.told()
            return any(text in word for run in found for word in (*run.words, *run.include))

        self.wait(there, f"{text!r} told")
        return found

    def left(self) -> list[int]:
        """Everything with its environment that lives: itself, and what it started."""
        found = []
        mark = f"TMPDIR={self._lists}".encode()
        for path in Path("/proc").iterdir():
            if path.name.isdigit():
                with contextlib.suppress(OSError):
                    if mark in (path / "environ").read_bytes().split(b"\0"):
                        found.append(int(path.name))
        return found

    @contextlib.contextmanager
    def asleep(self) -> Iterator[None]:
        """It sees what happens meanwhile in one piece, however slow we are."""
        self.process.send_signal(signal.SIGSTOP)
        yield
        self.process.send_signal(signal.SIGCONT)

    def watches(self) -> int:
        """How many directories it watches."""
        count = 0
        for path in Path(f"/proc/{self.process.pid}/fdinfo").iterdir():
            with contextlib.suppress(OSError):
                count += path.read_text().count("\ninotify wd:")
        return count

    def watching(self) -> None:
        """Wait until it watches every directory of the tree."""
        most = 1 + sum(path.is_dir() and not path.is_symlink() for path in self.desk.src.rglob("*"))
        self.wait(lambda: self.watches() >= most, "all directories watched")

    def ended(self, deadline_s: float = DEADLINE_S) -> int:
        """Wait for its end; the exit status, less than 0 for a signal."""
        try:
            return self.process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still runs:\n{self.text()[-6000:]}\n{self.desk.told()[-20:]}") from None

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, and wait for the end."""
        self.process.send_signal(number)
        return self.ended()

    def kill(self) -> None:
        """End it with all it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        # A handler leads a group of its own, and would write on while its desk is cleared away.
        wait_until(lambda: not self._kill_left(), "the end of all it started")
        shutil.rmtree(self._lists, ignore_errors=True)

    def _kill_left(self) -> bool:
        """Whether there was anything to be killed."""
        left = self.left()
        for number in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        return bool(left)


@contextlib.contextmanager
def running(
    desk: Desk, words: str | Sequence[str], *, program: Sequence[str] = OURS, name: str = "log"
) -> Iterator[Clsync]:
    """A process that is killed in the end."""
    process = Clsync(desk, words, program=program, name=name)
    try:
        yield process
    finally:
        process.kill()
