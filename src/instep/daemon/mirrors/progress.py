"""The progress of the first comparison, for whoever draws it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import Callable, Sequence
from typing import Protocol

from instep.model import Progress

TICK_S = 0.2


class Observer(Protocol):
    """Whoever draws the progress of the first comparison."""

    def initial_sync_started(self, progresses: Sequence[tuple[str, Progress]]) -> None:
        """It begins; the progress objects grow from now on."""

    def totals(self, entries: int, bytes_total: int) -> None:
        """How much there is in the source, as far as counted."""

    def tick(self) -> None:
        """Draw anew; called some times a second."""

    def initial_sync_done(self) -> None:
        """It is over."""

    def closed(self) -> None:
        """The mirror ends."""


async def draw(observer: Observer, source: int, done: Callable[[], bool]) -> None:
    """Let the observer draw some times a second until all is in step; the source is counted in a thread meanwhile."""
    counting = asyncio.get_running_loop().run_in_executor(None, _count, source, observer.totals)
    try:
        while not done():
            observer.tick()
            await asyncio.sleep(TICK_S)
    finally:
        counting.cancel()


def _count(root: int, tell: Callable[[int, int], None]) -> None:
    """Count the source for the progress bar; in a thread, only where somebody looks."""
    entries = bytes_total = 0
    try:
        for _, directories, files, fd in os.fwalk(".", dir_fd=root):
            entries += len(directories) + len(files)
            for name in files:
                with contextlib.suppress(OSError):
                    info = os.stat(name, dir_fd=fd, follow_symlinks=False)
                    if stat.S_ISREG(info.st_mode):
                        bytes_total += info.st_size
            tell(entries, bytes_total)
    except OSError:
        return  # The source went away; the mirror finds that out by itself.
