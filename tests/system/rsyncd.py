"""A real rsync daemon on 127.0.0.1 with a module, ``module``."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.system.sshd import end_with_parent, wait_until


class RsyncDaemon:
    """The server; with a password, ``somebody`` is let in by it, and nobody else."""

    def __init__(self, base: Path, served: Path, *, password: str = "", more: str = "") -> None:
        """``more``: other modules, as in rsyncd.conf(5)."""
        base.mkdir(exist_ok=True)
        # Held for good, so that nobody else is given the port while the server is down. A socket that does not listen is
        # in nobody's way who also sets SO_REUSEADDR, as rsync does.
        self._held = socket.socket()
        self._held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._held.bind(("127.0.0.1", 0))
        self.port = int(self._held.getsockname()[1])
        self._log = base / "rsyncd.log"
        self._config = base / "rsyncd.conf"
        self._process: subprocess.Popen[bytes] | None = None
        user = "uid = 0\ngid = 0\n" if os.geteuid() == 0 else ""
        secret = ""
        if password:
            secrets = base / "rsyncd.secrets"
            secrets.write_text(f"somebody:{password}\n")
            secrets.chmod(0o600)
            secret = f"auth users = somebody\nsecrets file = {secrets}\n"
        self._config.write_text(
            f"use chroot = no\nlog file = {self._log}\n{user}[module]\npath = {served}\nread only = no\n{secret}{more}"
        )

    def start(self) -> None:
        """Start it and wait until it listens."""
        self._log.write_bytes(b"")
        process = self._process = subprocess.Popen(
            [
                *("rsync", "--daemon", "--no-detach", f"--port={self.port}"),
                *(f"--config={self._config}", "--address=127.0.0.1"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=end_with_parent,  # noqa: PLW1509  # it takes no lock
        )
        wait_until(lambda: process.poll() is not None or self._listens(), "rsync listens")
        assert process.poll() is None, f"rsync does not start:\n{self._log.read_text()}"

    def pause(self) -> None:
        """End it with all that it serves; it may be started again."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """The same for good."""
        self.pause()
        self._held.close()

    def _listens(self) -> bool:
        # Only its own log tells that it is this one that listens there.
        if b"listening on port" not in self._log.read_bytes():
            return False
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@contextlib.contextmanager
def serving(base: Path, served: Path, *, password: str = "", more: str = "") -> Iterator[RsyncDaemon]:
    """A started daemon."""
    server = RsyncDaemon(base, served, password=password, more=more)
    try:
        server.start()
        yield server
    finally:
        server.stop()
