"""An ssh that never logs in."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

NEVER_IN = ["{start}; wait", "trap '' TERM; {start}; while :; do wait; done"]
"""It goes on until it is asked to end, or killed."""


class FakeSsh:
    """An ssh that never logs in, and has a child with the same standard error, as one with a ProxyCommand has."""

    def __init__(self, place: Path, then: str) -> None:
        self.words = [os.fsencode(place / "ssh")]
        self._told = place / "pids"
        (place / "ssh").write_text(f"#!/bin/sh\n{then.format(start=f'sleep 300 & echo $$ $! > {self._told}')}\n")
        (place / "ssh").chmod(0o755)

    def pids(self) -> list[int]:
        """Of itself and its child, once it has come so far."""
        return [int(word) for word in self._told.read_text().split()] if self._told.exists() else []

    def kill(self) -> None:
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
