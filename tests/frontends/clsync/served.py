"""Our control socket with a pretended daemon behind it, in a thread."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from instep.daemon.control import ControlServer, Conversation

DEADLINE_S = 60.0


@contextlib.contextmanager
def served(path: Path, converse: Callable[[], Conversation]) -> Iterator[None]:
    """Serve while the context lasts."""
    ready = threading.Event()
    stop: list[Callable[[], object]] = []

    async def serve() -> None:
        server = ControlServer(bytes(path), converse)
        server.open(mode=0o600)
        server.start()
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        stop.append(lambda: loop.call_soon_threadsafe(ended.set))
        ready.set()
        await ended.wait()
        server.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert ready.wait(DEADLINE_S)
        yield
    finally:
        stop[0]()
        thread.join()
