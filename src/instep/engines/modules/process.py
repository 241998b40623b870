"""One process that a module runs in: asked one thing at a time, watched, ended when its time is over.

Facts: it leads a process group of its own, so that a signal reaches it with what it started. Its end is known from its
pidfd, not from the socket: a child of the module may hold that open. The group is signalled before its leader is
reaped, so that the number cannot belong to anybody else.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from instep.engines.command.program import GRACE_S
from instep.engines.modules import wire
from instep.engines.modules.wire import Done, Message, Unusable

log = logging.getLogger(__name__)

INFINITE = float("inf")
END_S = 5.0
"""How long deinit may take before the process is killed. Guessed."""
LAST_RECORDS_MAX = 4096
"""Of what is read when the process has ended: what it started may go on writing."""


@dataclass(frozen=True, slots=True)
class Died:
    """The process ended before it answered."""

    status: int
    """Its exit status; 128 + N when signal N ended it. Never 0: what is not answered is not done."""
    signal: int


@dataclass(frozen=True, slots=True)
class Start:
    """How the process is started; the number of its socket's descriptor replaces the argument SOCKET."""

    executable: bytes
    argv: Sequence[bytes]
    directory: bytes
    umask: int
    descriptors: tuple[int, ...] = ()
    """What it inherits beside the usual three."""


SOCKET = b"@SOCKET"


class ModuleProcess:
    """A running process. Used in the loop's thread."""

    def __init__(self, start: Start, tell: Callable[[Message], None]) -> None:
        """Start it.

        Args:
            start: what is started.
            tell: given what the module has to say, in order.

        Raises:
            OSError: it cannot be started.
        """
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._answer: asyncio.Future[Done | Unusable | Died] | None = None
        self._sending: asyncio.Task[None] | None = None
        self._killed = False
        self.ended: asyncio.Future[Died] = self._loop.create_future()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                number = b"%d" % theirs.fileno()
                self._process = subprocess.Popen(
                    [number if word == SOCKET else word for word in start.argv],
                    executable=start.executable,
                    cwd=start.directory,
                    umask=start.umask,
                    process_group=0,
                    pass_fds=(theirs.fileno(), *start.descriptors),
                )
        except BaseException:
            ours.close()
            raise
        self.pid = self._process.pid
        ours.setblocking(False)
        self._socket = ours
        self._loop.add_reader(ours.fileno(), self._read)
        self._watching = self._loop.create_task(self._watch())

    async def ask(self, request: bytes, *, timeout_s: float = INFINITE) -> tuple[Done | Unusable | Died, bool]:
        """The answer to a request, and whether it took too long: then its group was asked to end, and killed at last.

        When cancelled, the process is of no use any more: see ``kill``.
        """
        assert self._answer is None, "one at a time"
        self._answer = self._loop.create_future()
        if self.ended.done():
            self._answer.set_result(self.ended.result())
        self._sending = self._loop.create_task(self._send(request))
        try:
            for number, patience_s in ((0, timeout_s), (signal.SIGTERM, GRACE_S), (signal.SIGKILL, INFINITE)):
                if number:
                    self.signal(number)
                done, _ = await asyncio.wait([self._answer], timeout=None if patience_s == INFINITE else patience_s)
                if done:
                    return self._answer.result(), number != 0
        finally:
            self._answer = None
            self._sending.cancel()
        raise AssertionError("waiting for ever has ended")

    def signal(self, number: int) -> None:
        """Send a signal to the process, and to all in its group."""
        if not self.ended.done():
            self._killed |= number == signal.SIGKILL
            with contextlib.suppress(ProcessLookupError, PermissionError):  # the latter: children of another user only
                os.killpg(self.pid, number)

    @property
    def was_killed(self) -> bool:
        """By us."""
        return self._killed

    async def end(self) -> Done | Unusable | Died:
        """Have deinit called, and the process ended; its answer. Kills it if that takes too long."""
        answer, _ = await self.ask(b"", timeout_s=END_S)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self.ended), END_S)
        await self.kill()
        return answer

    async def kill(self) -> None:
        """End the process now, if it has not ended, and wait for that."""
        self.signal(signal.SIGKILL)
        await self._watching

    async def _send(self, request: bytes) -> None:
        with contextlib.suppress(OSError):  # It ended, and that is seen elsewhere.
            for piece in wire.pieces(request):
                await self._loop.sock_sendall(self._socket, piece)

    def _read(self, records_max: int = 64) -> None:
        """Take what has come, and no more than would hold up the loop."""
        for _ in range(records_max):
            try:
                record = self._socket.recv(wire.RECORD_BYTES_MAX)
            except BlockingIOError:
                return
            except OSError:
                record = b""
            if not record:
                self._loop.remove_reader(self._socket.fileno())  # The pidfd tells the rest.
                return
            answer = wire.answer(record)
            if isinstance(answer, Message):
                self._tell(answer)
            elif self._answer is not None and not self._answer.done():
                self._answer.set_result(answer)

    async def _watch(self) -> None:
        """Wait for its end, and clean up after it."""
        await self._exit()
        self._read(LAST_RECORDS_MAX)
        if self._answer is not None and not self._answer.done():
            self.signal(signal.SIGTERM)  # What it started has nobody left to look after it.
        code = self._process.wait()
        died = Died(128 - code if code < 0 else code or 1, max(0, -code))
        if self._sending is not None:
            self._sending.cancel()  # Before its descriptor becomes somebody else's.
            await asyncio.wait([self._sending])
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        self.ended.set_result(died)
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(died)

    async def _exit(self) -> None:
        """Return when it has ended and is not reaped; without a thread where the kernel allows."""
        try:
            pidfd = os.pidfd_open(self.pid)
        except (AttributeError, OSError):
            flags = os.WEXITED | os.WNOWAIT
            await self._loop.run_in_executor(None, os.waitid, os.P_PID, self.pid, flags)
            return
        gone = self._loop.create_future()
        self._loop.add_reader(pidfd, lambda: None if gone.done() else gone.set_result(None))
        try:
            await gone
        finally:
            self._loop.remove_reader(pidfd)
            os.close(pidfd)
