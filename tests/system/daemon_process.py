"""An instep process under test: started, waited for, told, ended; and always killed with all it started."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.system.compare import differences

DEADLINE_S = 60.0
STEP_S = 0.01

Event = dict[str, object]


def _holds(done: Callable[[], bool]) -> bool:
    try:
        return done()
    except (FileNotFoundError, NotADirectoryError, ProcessLookupError):
        return False  # A tree, or a process, that was looked at changed meanwhile: that is no answer yet.


def wait_until(done: Callable[[], bool], what: str, deadline_s: float = DEADLINE_S) -> float:
    """Wait for a condition; the seconds it took."""
    began_s = asked_s = time.monotonic()
    while not _holds(done):
        now_s = time.monotonic()
        assert now_s - began_s < deadline_s, f"not within {deadline_s:g} s: {what}"
        # Half of the time is left to those who are waited for, however long the answer takes.
        time.sleep(max(STEP_S, now_s - asked_s))
        asked_s = time.monotonic()
    return time.monotonic() - began_s


class DaemonProcess:
    """One ``instep mirror``, in a session of its own, with its log as events."""

    def __init__(
        self,
        log: Path,
        arguments: Sequence[str],
        *,
        prefix: Sequence[str] = (),
        program: Path | None = None,
        python: str = sys.executable,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.log = log
        self.arguments = arguments
        instep = [python, *(["-m", "instep"] if program is None else [str(program)])]
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(
                [
                    *(*prefix, *instep, "mirror", "--log-format=json", "--progress=never"),
                    # Another user could not make one there.
                    *("--state-dir", "none" if prefix else str(log.parent / "state"), *arguments),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
                env={**os.environ, **(environment or {})},
            )
        self.pid = self.process.pid

    # -- the log ------------------------------------------------------------------------------------------------

    def text(self) -> str:
        """All it has said."""
        return self.log.read_text(errors="replace")

    def events(self, name: str = "", **fields: object) -> list[Event]:
        """What it logged under this name, with these fields."""
        found: list[Event] = []
        for line in self.text().splitlines(keepends=True):
            if line.startswith("{") and line.endswith("\n"):
                event = json.loads(line)
                if name in ("", event["event"]) and all(event.get(key) == value for key, value in fields.items()):
                    found.append(event)
        return found

    def wait_event(self, name: str, *, count: int = 1, deadline_s: float = DEADLINE_S, **fields: object) -> Event:
        """The ``count``-th event of this name."""
        found: list[Event] = []

        def there() -> bool:
            found[:] = self.events(name, **fields)
            if len(found) >= count:
                return True
            if self.process.poll() is not None:
                found[:] = self.events(name, **fields)
                assert len(found) >= count, f"ended with {self.process.returncode} before {name}:\n{self.text()}"
            return len(found) >= count

        try:
            wait_until(there, name, deadline_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.text()[-4000:]}") from None
        return found[count - 1]

    def wait_following(self) -> None:
        """Wait for the end of the first comparison."""
        self.wait_event("following")

    # -- the trees ----------------------------------------------------------------------------------------------

    def wait_equal(
        self,
        source: Path,
        target: Path,
        *,
        deadline_s: float = DEADLINE_S,
        ignore: Sequence[str] = (),
        links: bool = True,
        deletions: bool = True,
    ) -> float:
        """Wait until the target equals the source; the seconds it took."""
        began_s = time.monotonic()
        pause_s = STEP_S
        while True:
            asked_s = time.monotonic()
            unequal = differences(source, target, ignore=ignore, links=links, deletions=deletions)
            took_s = time.monotonic() - began_s
            if not unequal:
                return took_s
            code = self.process.poll()
            assert code is None, f"ended with {code}:\n{self.text()[-4000:]}"
            assert took_s < deadline_s, (
                f"{target} does not equal {source} within {deadline_s:g} s:\n"
                + "\n".join(unequal[:20])
                + "\n"
                + self.text()[-4000:]
            )
            time.sleep(max(pause_s, time.monotonic() - asked_s))
            pause_s = min(0.2, pause_s * 1.3)

    # -- the end ------------------------------------------------------------------------------------------------

    def tell(self, number: signal.Signals) -> None:
        """Send a signal to the daemon, and only to it."""
        os.kill(self.pid, number)

    def failing(self) -> Event:
        """A path that is listed as failing; asked for again, as it may be out for another try just then."""
        asked_s = -1.0

        def told() -> bool:
            nonlocal asked_s
            if time.monotonic() > asked_s + 1.0:
                asked_s = time.monotonic()
                self.tell(signal.SIGUSR1)
            return bool(self.events("status-failing"))

        wait_until(told, "a failing path")
        return self.events("status-failing")[0]

    def ended(self, deadline_s: float = DEADLINE_S) -> int:
        """Its exit status, once it ends by itself."""
        try:
            return self.process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {deadline_s:g} s:\n{self.text()[-4000:]}") from None

    def stop(self, number: signal.Signals = signal.SIGTERM, deadline_s: float = DEADLINE_S) -> int:
        """Ask it to end; its exit status."""
        self.tell(number)
        return self.ended(deadline_s)

    def kill(self) -> None:
        """End it and everything it started, whatever state they are in."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()

    def complain(self) -> None:
        """Fail for what a daemon must never log."""
        text = self.text()
        assert "Traceback" not in text, text[-6000:]
        assert "engine-crashed" not in text, text[-6000:]

    # -- what it costs ------------------------------------------------------------------------------------------

    def status(self) -> dict[str, str]:
        """/proc/PID/status."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}

    def sleeps(self) -> int:
        """How often its threads went to sleep so far: each wake-up adds one."""
        total = 0
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            for line in (task / "status").read_text().splitlines():
                if line.startswith("voluntary_ctxt_switches:"):
                    total += int(line.split()[1])
        return total
