"""A handler that is also told when descriptors of its own can be read or written."""

from __future__ import annotations

import asyncio
import functools

from instep.daemon.handlers.following import sight_of
from instep.daemon.handlers.handled import Handled
from instep.daemon.handlers.workshop import Workshop
from instep.ports import Observer


class Observed(Handled):
    """A unit of the process: a handler whose descriptors are watched too."""

    def __init__(self, handler: Observer, workshop: Workshop) -> None:
        """Nothing is started."""
        super().__init__(handler, workshop, see=sight_of)
        self._observer = handler
        self._watched: set[tuple[int, bool]] = set()

    def _act(self, read: int = -1) -> None:
        super()._act(read)
        if self._ended is None or self._ended.done():
            return
        wanted = {
            (fd, writable)
            for fd, both in self._observer.observed.items()
            for writable, is_wanted in zip((False, True), both, strict=True)
            if is_wanted
        }
        for fd, writable in self._watched - wanted:
            self._leave(fd, writable=writable)
        for fd, writable in wanted - self._watched:
            self._watch(fd, writable=writable)

    def _watch(self, fd: int, *, writable: bool) -> None:
        loop = asyncio.get_running_loop()
        add = loop.add_writer if writable else loop.add_reader
        try:
            add(fd, functools.partial(self._told, fd, writable=writable))
        except (OSError, ValueError) as error:
            # EPERM: epoll does not take regular files, which can always be read; EBADF.
            self._observer.unwatchable(fd, getattr(error, "strerror", None) or str(error))
        else:
            self._watched.add((fd, writable))

    def _leave(self, fd: int, *, writable: bool) -> None:
        loop = asyncio.get_running_loop()
        (loop.remove_writer if writable else loop.remove_reader)(fd)
        self._watched.discard((fd, writable))

    def _told(self, fd: int, *, writable: bool) -> None:
        self._observer.ready(fd, writable=writable)
        self._act()

    def _close(self) -> None:
        for fd, writable in list(self._watched):
            self._leave(fd, writable=writable)
        super()._close()
