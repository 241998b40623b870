"""An ssh that never logs in."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path
from typing import Any

from tests.processes import lives
from tests.system.sshd import wait_until

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

    async def cancel(self, opening: asyncio.Future[Any], turns: int) -> None:
        """Cancel what has been given to the loop and opens it, so many turns later; it has ended by then."""
        for _ in range(turns):
            await asyncio.sleep(0)
        wait_until(lambda: len(self.pids()) == 2, "ssh has a child")  # The loop has other things to do meanwhile.
        opening.cancel()
        await asyncio.wait({opening}, timeout=30)
        assert opening.cancelled()
        assert not lives(self.pids()[0])

    def kill(self) -> None:
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
