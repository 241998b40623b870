"""Our control socket with a pretended daemon behind it, in a thread; and the distribution's clsync with its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from instep.daemon.control import ControlServer, Conversation

DEADLINE_S = 60.0
CLSYNC = shutil.which("clsync", path="/usr/bin:/usr/local/bin")
"""clsync itself, not what stands in for it."""


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


@contextlib.contextmanager
def running_clsync() -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    """The distribution's clsync on an empty tree: its control socket, and its process."""
    assert CLSYNC is not None
    with tempfile.TemporaryDirectory(prefix="instep-test-") as name:
        top = Path(name)
        (top / "w").mkdir()
        words = [CLSYNC, "-H", "/NULL/", "-W", str(top / "w"), "-Mshell", "-S", "/bin/true", "--skip-initialsync"]
        words += ["-s", str(top / "sock"), "-l", "lab", f"-u{os.getuid()}", f"-g{os.getgid()}"]
        process = subprocess.Popen(words, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        try:
            wait_for(lambda: accepts(top / "sock") or process.poll() is not None)
            yield top / "sock", process
        finally:
            process.kill()
            process.wait()


def accepts(path: Path) -> bool:
    """Whether somebody listens; one of the eight connections that clsync has. It dies if its greeting is not read."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(DEADLINE_S)
        try:
            client.connect(bytes(path))
        except OSError:
            return False
        return client.recv(100).endswith(b"\n")


def wait_for(condition: Callable[[], bool]) -> None:
    """Look again and again."""
    deadline_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
