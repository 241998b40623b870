"""A real rsync daemon on 127.0.0.1 with one module, ``module``."""

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

    def __init__(self, base: Path, served: Path, *, password: str = "") -> None:
        base.mkdir(exist_ok=True)
        self.port = 0
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
            f"use chroot = no\nlog file = {self._log}\n{user}[module]\npath = {served}\nread only = no\n{secret}"
        )

    def start(self) -> None:
        """Start it and wait until it listens; on the port that it had, unless another has taken that."""
        for _ in range(20):
            if not self.port:
                with socket.socket() as taken:
                    taken.bind(("127.0.0.1", 0))
                    self.port = int(taken.getsockname()[1])
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
            wait_until(lambda process=process: process.poll() is not None or self._listens(), "rsync listens")  # type: ignore[misc]
            if process.poll() is None:
                return
            self.port = 0
        raise AssertionError(f"rsync does not start:\n{self._log.read_text()}")

    def stop(self) -> None:
        """End it with all that it serves."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _listens(self) -> bool:
        # Only its own log tells that it is this one that listens there.
        if b"listening on port" not in self._log.read_bytes():
            return False
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@contextlib.contextmanager
def serving(base: Path, served: Path, *, password: str = "") -> Iterator[RsyncDaemon]:
    """A started daemon."""
    server = RsyncDaemon(base, served, password=password)
    try:
        server.start()
        yield server
    finally:
        server.stop()
