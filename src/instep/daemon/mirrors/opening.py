"""The targets of one mirror while they are being opened: what is far away may take a minute, or for ever."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Sequence

from instep.daemon.targets.target import Target


class EndedEarly(Exception):
    """The mirror is to end, and has not begun to watch."""


class Opening:
    """Lives in the loop, from ``begin`` to ``close``."""

    def __init__(self, failed: Callable[[BaseException], None]) -> None:
        """``failed``: a target can never be opened."""
        self.opened: dict[Target, asyncio.Future[None]] = {}
        """Done when it is open, or away; fails with EndedEarly, or for the reason that it can never be opened."""
        self._failed = failed
        self._tasks: list[asyncio.Task[None]] = []

    async def begin(self, targets: Sequence[Target], near: Sequence[bool]) -> None:
        """Begin to open all; those that are ``near``, on this machine, take no time, and are open when this returns."""
        loop = asyncio.get_running_loop()
        for target in targets:
            target.claim()  # What is done before a far one is open is done to its index.
        for target in targets:
            task = loop.create_task(target.open())
            opened = self.opened[target] = loop.create_future()
            task.add_done_callback(functools.partial(self._is_open, opened))
            self._tasks.append(task)
        await asyncio.gather(*(task for task, is_near in zip(self._tasks, near, strict=True) if is_near))

    def end_early(self) -> None:
        """Have nobody wait any longer."""
        for opened in self.opened.values():
            if not opened.done():
                opened.set_exception(EndedEarly())
                opened.exception()  # Maybe nobody does.

    async def close(self) -> None:
        """Cancel what is not done."""
        unfinished = [task for task in self._tasks if not task.done()]
        for task in unfinished:
            task.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)

    def _is_open(self, opened: asyncio.Future[None], task: asyncio.Task[None]) -> None:
        if task.cancelled():
            opened.cancel()
        elif (error := task.exception()) is None:
            if not opened.done():
                opened.set_result(None)
        else:
            # It is raised where the target is waited for, if it is, or else at the end of all.
            if not opened.done():
                opened.set_exception(error)
                opened.exception()
            self._failed(error)
