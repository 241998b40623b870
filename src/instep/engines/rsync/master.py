"""One ssh connection, kept for all rsyncs of a target: a handshake takes 200 ms, a run over a kept connection 14.

Facts (OpenSSH 9.2): the master makes its control socket once it is logged in. A client whose master is gone makes a
connection of its own, so a run under way is not lost by that. A master that waits in the background by ControlPersist
would outlive a killed daemon; one in the foreground is a child, and ends with its parent (``linux.prctl``).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import Sequence

from instep.engines import ssh
from instep.engines.child import Stderr, end
from instep.errors import TargetAway, TargetError
from instep.linux.prctl import ending_with_us
from instep.linux.sshsockets import private_directory

LOGIN_S = 60.0
"""ssh gives up by itself on a host that does not answer; this is for one that answers and then says no more."""

STEP_S = 0.01
END_S = 5.0
"""So long it may take to end; then it is killed."""
SAID_S = 1.0
"""So long its last words are waited for once it has ended: what it has started may live on, and could say more."""
_STDERR_BYTES = 1 << 16


class Master:
    """A logged-in ssh that others share through its socket; made anew when it was lost."""

    def __init__(self, words: Sequence[bytes], host: bytes, port: int | None = None) -> None:
        self._words = words
        self._host = host
        self._port = port
        self._directory: bytes | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._stderr: Stderr | None = None
        self._making = asyncio.Lock()

    @property
    def alive(self) -> bool:
        """Whether the connection is there, as far as known."""
        return self._process is not None and self._process.returncode is None

    def client(self) -> list[bytes]:
        """The ssh command that goes over this connection."""
        return [*ssh.command(self._words, port=self._port), *_path(self._socket()), b"-o", b"ControlMaster=no"]

    async def open(self) -> None:
        """Be logged in; returns at once when it is still so.

        Raises:
            TargetAway: the host cannot be reached now.
            TargetError: it does not let us in, or there is no place for the socket.
        """
        async with self._making:
            if self.alive:
                return
            await self._drop()
            try:
                await self._log_in()
            except BaseException:
                await self._drop()
                raise

    async def close(self) -> None:
        """End the connection, and remove the socket's directory; may be called twice."""
        await self._drop()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    async def _log_in(self) -> None:
        path = self._socket()
        argv = [
            *ssh.command(self._words, port=self._port),
            *(b"-M", b"-N", *_path(path), b"-o", b"ControlPersist=no", b"-o", b"RemoteCommand=none"),
            *(b"--", self._host),
        ]
        stderr = self._stderr = Stderr(_STDERR_BYTES)
        try:
            process = self._process = await asyncio.create_subprocess_exec(
                *ending_with_us(argv),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=stderr.write,
                start_new_session=True,
            )
        finally:
            stderr.started()
        until_s = time.monotonic() + LOGIN_S
        while not _is_there(path):
            if process.returncode is not None:
                raise ssh.failure(self._host, process.returncode, await stderr.said(SAID_S))
            if time.monotonic() > until_s:
                raise TargetAway(f"ssh is not logged in to {os.fsdecode(self._host)} after {LOGIN_S:g} s")
            await asyncio.sleep(STEP_S)

    async def _drop(self) -> None:
        """End what is left of the process, and clear its socket away; takes some ``END_S`` at most."""
        process, self._process = self._process, None
        stderr, self._stderr = self._stderr, None
        try:
            if process is not None:
                await end(process, END_S)
        finally:
            if stderr is not None:
                stderr.close()
            if self._directory is not None:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._directory + b"/s")

    def _socket(self) -> bytes:
        if self._directory is None or not _is_there(self._directory):
            self._directory = private_directory()
            if self._directory is None:
                raise TargetError(
                    "no-place-for-socket", "no directory for ssh's socket", fix="set TMPDIR to a short path"
                )
        return self._directory + b"/s"


def _is_there(path: bytes) -> bool:
    return os.path.lexists(path)


def _path(socket: bytes) -> tuple[bytes, bytes]:
    return b"-o", b"ControlPath=" + socket.replace(b"%", b"%%")
