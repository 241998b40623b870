"""Shell commands for ``os.execute`` and ``io.popen``: the Lua in lupa's wheels is built without POSIX and lacks them.

Both block, as they do in lsyncd.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from typing import Any, Final

Outcome = tuple[bytes, int]
"""``exit`` and a status, or ``signal`` and its number, as Lua tells them."""

_PLACE: Final = b"/proc/self/fd/%d"


class Shell:
    """Runs commands, and keeps those whose output or input is being read or written."""

    def __init__(self) -> None:
        self._running: dict[int, tuple[subprocess.Popen[bytes], int]] = {}

    def primitives(self) -> dict[str, Callable[..., Any]]:
        """What Lua may ask for."""
        return {"execute": self.execute, "popen": self.begin, "popened": self.opened, "pclose": self.end}

    def execute(self, command: bytes) -> Outcome:
        """Run a command to its end."""
        return _outcome(os.waitstatus_to_exitcode(os.system(command)))  # noqa: S605  # a shell is what is asked for

    def begin(self, command: bytes, mode: bytes) -> tuple[int, bytes]:
        """Start a command; its number, and a name under which the end of its pipe can be opened until ``opened``."""
        mine, its = os.pipe()
        if mode == b"w":
            mine, its = its, mine
        streams: dict[str, int] = {"stdin" if mode == b"w" else "stdout": its}
        try:
            process = subprocess.Popen(command, shell=True, **streams)  # type: ignore[call-overload]  # noqa: S602  # as above
        except OSError as error:
            os.close(mine)
            return -1, os.strerror(error.errno or 0).encode()
        finally:
            os.close(its)
        self._running[process.pid] = process, mine
        return process.pid, _PLACE % mine

    def opened(self, number: int) -> None:
        """Lua has the pipe in a file of its own."""
        os.close(self._running[number][1])

    def end(self, number: int) -> Outcome:
        """Wait for a command whose pipe Lua has closed."""
        return _outcome(self._running.pop(number)[0].wait())


def _outcome(code: int) -> Outcome:
    return (b"exit", code) if code >= 0 else (b"signal", -code)
