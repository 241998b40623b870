"""Running lsyncd processes under test: ours, and the distribution's where it is installed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.system.daemon_process import DEADLINE_S, wait_until
from tests.system.sshd import end_with_parent

OURS = (sys.executable, "-c", "from instep.commands import lsyncd; raise SystemExit(lsyncd())")
DEBIANS = shutil.which("lsyncd", path="/usr/bin:/usr/local/bin")


class Daemon:
    """One process, in a session of its own, its output in a file."""

    def __init__(self, top: Path, words: Sequence[str], *, program: Sequence[str] = OURS, name: str = "log") -> None:
        self.log = top / name
        path = [str(top / "bin"), os.environ["PATH"]]
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                [*program, *words],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=top,
                env={**os.environ, "PATH": ":".join(path), "TOP": str(top)},
                start_new_session=True,
                preexec_fn=end_with_parent,  # noqa: PLW1509  # it takes no lock
            )

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def wait(self, done: Callable[[], bool], what: str, deadline_s: float = DEADLINE_S) -> None:
        def there() -> bool:
            if done():
                return True
            code = self.process.poll()
            assert code is None or done(), f"ended with {code} before {what}:\n{self.text()}"
            return False

        try:
            wait_until(there, what, deadline_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.text()[-6000:]}") from None

    def said(self, text: str, count: int = 1) -> None:
        """Wait for a line with this text."""
        self.wait(lambda: self.text().count(text) >= count, f"{text!r} in the log")

    def equal(self, source: Path, target: Path, ignore: Sequence[str] = ()) -> None:
        """Wait until names, types and contents are the same."""
        self.wait(
            lambda: target.is_dir() and contents(source, ignore) == contents(target, ignore),
            f"{target} equal to {source}",
        )

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(DEADLINE_S)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def contents(top: Path, ignore: Sequence[str] = ()) -> dict[str, object]:
    """What is there, without times and modes."""
    found: dict[str, object] = {}
    with contextlib.suppress(OSError):
        for path in sorted(top.rglob("*")):
            name = str(path.relative_to(top))
            if path.name in ignore:
                continue
            if path.is_symlink():
                found[name] = os.readlink(path)
            elif path.is_dir():
                found[name] = None
            else:
                with contextlib.suppress(OSError):
                    found[name] = path.read_bytes()
    return found


def wrapper(path: Path, log: Path) -> None:
    """A program that notes its words and its standard input, then does what rsync does."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(
        f"#!{sys.executable}\n"
        "import os, subprocess, sys\n"
        "text = b'' if os.isatty(0) else sys.stdin.buffer.read()\n"
        f"with open({str(log)!r}, 'ab') as log: log.write(repr((sys.argv[1:], text)).encode() + b'\\n')\n"
        "sys.exit(subprocess.run(['rsync', *sys.argv[1:]], input=text).returncode)\n"
    )
    path.chmod(0o755)
