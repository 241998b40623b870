"""The helper's side: does what it is asked for if that was configured, and ends when the daemon does.

It ends too, and says why, when it is asked for anything else: whoever asks is not what we started any more. What it
started gets a SIGTERM then, and a SIGKILL if that does not help: nobody is left to look after it, and the next daemon
would start the same again beside it.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import re
import signal
import socket
from collections.abc import Callable

from instep.confinement import Split
from instep.daemon.build import build_event_monitor
from instep.daemon.privileged import protocol
from instep.daemon.privileged.protocol import Ask, Start, Violation
from instep.engines.command.launcher import Launcher
from instep.engines.command.program import CANNOT_START, GRACE_S, Interruption, run
from instep.errors import OperatorError
from instep.linux.look import look
from instep.linux.openat import DIRECTORY, listed, still_names
from instep.linux.prctl import die_with_parent
from instep.logs import fields
from instep.model import Interrupt, ProgramEnd
from instep.ports import Monitor, Place

log = logging.getLogger(__name__)

PARENT_GONE = signal.SIGRTMIN
_LEFT_TO_THE_DAEMON = (
    signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM,
    signal.SIGIO,
)  # fmt: skip
"""They reach the helper when they are sent to the whole group; the daemon decides what comes of them."""


class Helper:
    """Serves one daemon over two sockets."""

    def __init__(
        self,
        split: Split,
        place: Place,
        *,
        asks: socket.socket,
        runs: socket.socket,
        launcher: Launcher | None,
        reload: Callable[[], None] | None,
    ) -> None:
        """Nothing is opened.

        Args:
            split: what is allowed.
            place: what is watched.
            asks: for questions.
            runs: for programs.
            launcher: what starts programs; None: this process.
            reload: reads again what ``place.ignore`` goes by.
        """
        self._split = split
        self._place = place
        self._asks = asks
        self._runs = runs
        self._launcher = launcher
        self._reload = reload
        self._vectors = (
            None if split.vectors is None else re.compile(b"|".join(b"(?:%s)" % one for one in split.vectors))
        )
        self._directories = {None, place.root}
        self._root = -1
        self._monitor: Monitor | None = None
        self._running: dict[int, Interruption] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._over: asyncio.Future[None] | None = None
        self._to_daemon: asyncio.StreamWriter | None = None

    async def serve(self) -> int:
        """Serve until the daemon ends; the exit status, which is 1 if it asked for what is not allowed."""
        loop = asyncio.get_running_loop()
        self._over = loop.create_future()
        for number in _LEFT_TO_THE_DAEMON:
            loop.add_signal_handler(number, lambda: None)
        loop.add_signal_handler(PARENT_GONE, self._finish)
        die_with_parent(PARENT_GONE)
        self._root = os.open(self._place.root, DIRECTORY)
        loop.add_reader(self._asks, self._asked)
        reader, self._to_daemon = await asyncio.open_unix_connection(sock=self._runs, limit=protocol.FRAME_BYTES_MAX)
        requests = loop.create_task(self._requests(reader))
        try:
            await self._over
        except Violation as violation:
            log.error(  # noqa: TRY400  # it says all there is
                "helper-refused",
                extra=fields(
                    what=f"the side without rights asked for {violation}",
                    now="the helper ends, and with it the daemon and the programs that run",
                    fix="if the configuration does ask for that, say so in a report; else look for an intruder",
                ),
            )
            return 1
        finally:
            requests.cancel()
            loop.remove_reader(self._asks)
            self._asks.close()
            self._to_daemon.transport.abort()
            await self._end_programs()
            if self._monitor is not None:
                self._monitor.close()
        return 0

    def _finish(self, failure: Exception | None = None) -> None:
        if self._over is None or self._over.done():
            return
        if failure is None:
            self._over.set_result(None)
        else:
            self._over.set_exception(failure)

    # ---- questions ----

    def _asked(self) -> None:
        """Answer the one question that has come; the daemon waits for it, so no failure may leave it waiting."""
        try:
            question = protocol.receive(self._asks, protocol.FRAME_BYTES_MAX)
        except (EOFError, OSError):
            self._finish()
            return
        except Violation as violation:
            self._finish(violation)
            return
        try:
            ask = protocol.decode_ask(question)
            answer = protocol.frame(protocol.encode(self._answer(ask)))
        except Exception as failure:  # noqa: BLE001  # raised again where the helper ends
            self._finish(failure)
            return
        try:
            if ask.what == "start" and self._monitor is not None:
                socket.send_fds(self._asks, [answer], [self._monitor.fileno()])
            else:
                self._asks.sendall(answer)
        except OSError:
            self._finish()

    def _answer(self, ask: Ask) -> object:
        match ask.what:
            case "read":
                return self._read()
            case "look":
                return protocol.encode_look(look(self._root, ask.path))
            case "list":
                return self._list(ask.path)
            case "there":
                return self._is_there()
            case "start":
                return self._start_monitor()
            case "close":
                if self._monitor is not None:
                    self._monitor.close()
                    self._monitor = None
            case _:
                if self._reload is not None:
                    self._reload()
        return None

    def _start_monitor(self) -> object:
        """Watch; None, or why that is not possible."""
        if self._monitor is not None:
            raise Violation("a second watch")
        monitor = build_event_monitor(self._place)
        try:
            monitor.start()
        except OperatorError as error:
            return (type(error).__name__, error.code, error.what, error.now, error.fix)
        self._monitor = monitor
        return None

    def _read(self) -> object:
        monitor = self._monitor
        if monitor is None:
            raise Violation("reports before it was watching")
        reports = [protocol.encode_report(report) for report in monitor.read()]
        status = monitor.status()
        return (
            reports,
            monitor.drained,
            monitor.wake_s(),
            (status.watches, status.events, status.overflows, status.trouble),
        )

    def _list(self, path: bytes) -> object:
        """Names in order, and whether each is a directory; none where it cannot be listed."""
        return listed(self._root, path)

    def _is_there(self) -> bool:
        return still_names(self._place.root, self._root)

    # ---- programs ----

    async def _requests(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                (length,) = protocol.LENGTH.unpack(await reader.readexactly(protocol.LENGTH.size))
                if length > protocol.FRAME_BYTES_MAX:
                    raise Violation("a frame that is too long")  # noqa: TRY301  # it ends here whoever says so
                request = protocol.decode_run(await reader.readexactly(length), environment=self._split.environment)
                if isinstance(request, Interrupt):
                    interrupt = self._running.get(request.number)
                    if interrupt is not None:
                        interrupt(request.signal)
                else:
                    self._check(request)
                    task = asyncio.get_running_loop().create_task(self._run(request))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
                    await asyncio.sleep(0)  # It runs when the next request is looked at, which may be to interrupt it.
        except (asyncio.IncompleteReadError, OSError):
            self._finish()
        except Exception as failure:  # noqa: BLE001  # raised again where the helper ends
            self._finish(failure)

    def _check(self, request: Start) -> None:
        if request.number in self._running:
            raise Violation("a number that is taken")
        if request.program.directory not in self._directories:
            raise Violation(f"a program in {request.program.directory!r}")
        if self._vectors is not None:
            words = b"".join(word + b"\0" for word in request.program.argv)
            if self._vectors.fullmatch(words) is None:
                shown = ", ".join(repr(os.fsdecode(word)) for word in request.program.argv[:8])
                raise Violation(f"a program that is not configured: {shown}")

    async def _run(self, request: Start) -> None:
        try:
            end = await run(
                request.program,
                umask=request.umask,
                launcher=self._launcher,
                started=functools.partial(self._running.__setitem__, request.number),
            )
        except Exception as error:  # noqa: BLE001  # one program's trouble is not the end of the others
            end = ProgramEnd(CANNOT_START, trouble=f"{type(error).__name__}: {error}")
        self._running.pop(request.number, None)
        assert self._to_daemon is not None
        told = (request.number, end.status, end.signal, end.trouble, end.errno, end.timed_out)
        self._to_daemon.write(protocol.frame(protocol.encode(told)))

    async def _end_programs(self) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            for interrupt in list(self._running.values()):
                interrupt(number)
            if self._tasks:
                await asyncio.wait(list(self._tasks), timeout=GRACE_S)
