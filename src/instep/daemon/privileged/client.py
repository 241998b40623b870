"""The daemon's side: starts the helper, and offers what it does as a monitor, looks, and programs that run."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import socket
from collections.abc import Callable, Sequence
from typing import Protocol

from instep import errors
from instep.daemon.confine import Confining
from instep.daemon.privileged import protocol
from instep.daemon.privileged.helper import Helper
from instep.engines.command.listfiles import list_files
from instep.engines.command.program import CANNOT_START, Interruption
from instep.engines.command.signals import clean_for_programs
from instep.errors import CannotConfine
from instep.logs import fields
from instep.model import MonitorStatus, Program, ProgramEnd, Report
from instep.ports import Monitor, Place

log = logging.getLogger(__name__)

ANSWER_BYTES_MAX = 1 << 31
_HELPER = "the helper that keeps the rights"
_GONE = _HELPER + " has ended"


class Ask(Protocol):
    """Puts a question to the helper."""

    def __call__(self, what: str, path: bytes = b"", descriptors: list[int] | None = None) -> object:
        """The answer. Blocks.

        Raises:
            CannotConfine: the helper has ended.
        """


def start_helper(confining: Confining, place: Place, *, reload: Callable[[], None] | None = None) -> PrivilegedClient:
    """Fork the helper, which keeps the rights; call this before there are threads, a loop, or fewer rights.

    Args:
        confining: of a plan with a ``split``; the process is isolated already, and so is the helper.
        place: what the helper watches, and where it looks; its ``ignore`` is called in the helper.
        reload: called in the helper when ``PrivilegedClient.reload`` is: reads again what ``ignore`` goes by.

    Raises:
        CannotConfine: the helper cannot be what it is to be.
    """
    ours = socket.socketpair(), socket.socketpair()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            for near, _ in ours:
                near.close()
            status = _serve(confining, place, reload, ours[0][1], ours[1][1])
        except BaseException:
            log.exception("helper-crashed", extra=fields(now="the daemon ends", fix="please report it"))
        finally:
            logging.shutdown()
            os._exit(status)
    for _, far in ours:
        far.close()
    client = PrivilegedClient(pid, ours[0][0], ours[1][0])
    client.wait_until_ready()
    return client


def _serve(
    confining: Confining,
    place: Place,
    reload: Callable[[], None] | None,
    asks: socket.socket,
    runs: socket.socket,
) -> int:
    """Be the helper; the exit status."""
    assert confining.plan.split is not None
    clean_for_programs()
    try:
        launcher = confining.become_helper()
    except CannotConfine as error:
        asks.sendall(protocol.frame(protocol.encode((error.what, error.status, error.fix))))
        return 1
    helper = Helper(confining.plan.split, place, asks=asks, runs=runs, launcher=launcher, reload=reload)
    asks.sendall(protocol.frame(protocol.encode(None)))
    return asyncio.run(helper.serve())


class PrivilegedClient:
    """What the helper does, for the side that has no rights. Used in the loop's thread; ``open`` in the loop."""

    def __init__(self, pid: int, asks: socket.socket, runs: socket.socket) -> None:
        """Take over both sockets."""
        self.pid = pid
        self._asks = asks
        self._runs = runs
        self._to_helper: asyncio.StreamWriter | None = None
        self._answers: asyncio.Task[None] | None = None
        self._ends: dict[int, asyncio.Future[ProgramEnd]] = {}
        self._next = 0
        self._gone: Callable[[], None] | None = None
        self._closing = False

    def wait_until_ready(self) -> None:
        """Blocks until the helper serves.

        Raises:
            CannotConfine: it cannot.
        """
        try:
            failed = self._answer()
        except EOFError as error:
            raise CannotConfine("helper-gone", _GONE, status=1, fix="see what it said before") from error
        if failed is not None:
            assert isinstance(failed, tuple)
            what, number, fix = failed
            raise CannotConfine("cannot-split", f"{what} (in {_HELPER})", status=number, fix=fix)

    # ---- looks ----

    def look(self, path: bytes) -> os.stat_result | None:
        """What lstat says below the watched directory, through no link; None when nothing is there to be seen. Blocks.

        Raises:
            CannotConfine: the helper has ended.
        """
        return protocol.decode_look(self._ask("look", path))

    def listed(self, path: bytes) -> list[tuple[bytes, bool]]:
        """The names in a directory below the watched one, in order, and whether each is a directory.

        There are none where it cannot be listed. Blocks, and raises as ``look``.
        """
        answer = self._ask("list", path)
        assert isinstance(answer, list)
        return answer

    def is_there(self) -> bool:
        """Whether the watched directory still stands under its path; blocks, and raises as ``look``."""
        return bool(self._ask("there"))

    def reload(self) -> None:
        """Have the helper read again what decides what is watched; raises as ``look``."""
        self._ask("reload")

    def sight(self) -> RemoteSight:
        """The place as the helper sees it."""
        return RemoteSight(self, RemoteMonitor(self._ask))

    # ---- programs ----

    async def open(self, gone: Callable[[], None]) -> None:
        """Begin to listen; ``gone`` is called when the helper ends though nobody asked it to."""
        self._gone = gone
        reader, self._to_helper = await asyncio.open_unix_connection(sock=self._runs)
        self._answers = asyncio.get_running_loop().create_task(self._listen(reader))

    async def __call__(
        self, program: Program, *, umask: int, started: Callable[[Interruption], None] | None = None
    ) -> ProgramEnd:
        """Have a program run to its end, as ``engines.command.program.run`` does; its list files are made here."""
        assert self._to_helper is not None
        assert self._answers is not None
        if self._answers.done():
            return ProgramEnd(CANNOT_START, trouble=_GONE)
        number = self._next
        self._next += 1
        try:
            with list_files(program.files, umask=umask):
                end: asyncio.Future[ProgramEnd] = asyncio.get_running_loop().create_future()
                self._ends[number] = end
                self._to_helper.write(protocol.frame(protocol.encode_start(number, program, umask)))
                if started is not None:
                    started(functools.partial(self._interrupt, number))
                return await end
        except OSError as error:
            return ProgramEnd(CANNOT_START, trouble=f"cannot make its list: {error.strerror}")
        finally:
            self._ends.pop(number, None)

    def _interrupt(self, number: int, signal_number: int) -> None:
        assert self._to_helper is not None
        if number in self._ends:
            self._to_helper.write(protocol.frame(protocol.encode_interrupt(number, signal_number)))

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                (length,) = protocol.LENGTH.unpack(await reader.readexactly(protocol.LENGTH.size))
                number, *told = protocol.decode(await reader.readexactly(length))
                end = self._ends.get(number)
                if end is not None and not end.done():
                    status, by_signal, trouble, refused, timed_out = told
                    end.set_result(ProgramEnd(status, by_signal, trouble, refused, timed_out=timed_out))
        except (asyncio.IncompleteReadError, OSError):
            pass
        for end in self._ends.values():
            if not end.done():
                end.set_result(ProgramEnd(CANNOT_START, trouble=_GONE))
        if not self._closing:
            log.error("helper-gone", extra=fields(what=_GONE, now="the daemon ends", fix="see what it said before"))
            if self._gone is not None:
                self._gone()

    async def close(self) -> None:
        """Let the helper end, which ends what still runs; waits for it."""
        self._closing = True
        self._asks.close()
        if self._answers is not None:
            self._answers.cancel()
        if self._to_helper is None:
            self._runs.close()
        else:
            self._to_helper.close()
            with contextlib.suppress(OSError):
                await self._to_helper.wait_closed()
        await asyncio.to_thread(self._bury)

    def _bury(self) -> None:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)

    # ---- asking ----

    def _ask(self, what: str, path: bytes = b"", descriptors: list[int] | None = None) -> object:
        try:
            self._asks.sendall(protocol.frame(protocol.encode_ask(what, path)))
            return self._answer(descriptors)
        except (EOFError, OSError) as error:
            raise CannotConfine(
                "helper-gone", _GONE, status=1, now="the daemon ends", fix="see what it said before"
            ) from error

    def _answer(self, descriptors: list[int] | None = None) -> object:
        begun = b""
        if descriptors is not None:
            begun, found, _, _ = socket.recv_fds(self._asks, 1, 1, socket.MSG_CMSG_CLOEXEC)
            descriptors += found
            if not begun:
                raise EOFError
        return protocol.decode(protocol.receive(self._asks, ANSWER_BYTES_MAX, begun=begun))


class RemoteSight:
    """A place (``daemon.sight.Sight``) with the helper's eyes."""

    def __init__(self, client: PrivilegedClient, monitor: RemoteMonitor) -> None:
        self.monitor: Monitor = monitor
        self.is_there = client.is_there
        self.listed = client.listed

    def open(self) -> None:
        """Have the helper watch; raises as ``RemoteMonitor.start``."""
        self.monitor.start()

    def close(self) -> None:
        """Have it watch no more."""
        self.monitor.close()


class RemoteMonitor:
    """A monitor (``ports.Monitor``) whose kernel queue is the helper's; what is waited for is the queue itself."""

    name = "inotify"

    def __init__(self, ask: Ask) -> None:
        self.drained = False
        self._ask = ask
        self._fd = -1
        self._wake_s: float | None = None
        self._status = MonitorStatus(0, 0, 0)

    def start(self) -> None:
        """Have the helper watch.

        Raises:
            ToolMissing, SourceError: as the monitor there says.
        """
        descriptors: list[int] = []
        failed = self._ask("start", descriptors=descriptors)
        if failed is not None:
            assert isinstance(failed, tuple)
            name, code, what, now, fix = failed
            raise getattr(errors, name)(code, what, now=now, fix=fix)
        (self._fd,) = descriptors

    def fileno(self) -> int:
        """Readable when the helper has something to read."""
        return self._fd

    def read(self) -> Sequence[Report]:
        """What the helper reads now."""
        answer = self._ask("read")
        assert isinstance(answer, tuple)
        reports, self.drained, self._wake_s, status = answer
        self._status = MonitorStatus(*status)
        return [protocol.decode_report(report) for report in reports]

    def wake_s(self) -> float | None:
        """As the monitor there said last."""
        return self._wake_s

    def status(self) -> MonitorStatus:
        """As of the last ``read``."""
        return self._status

    def close(self) -> None:
        """Have the helper watch no more."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            with contextlib.suppress(CannotConfine):
                self._ask("close")
