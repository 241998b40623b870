"""The process that a Python module runs in: nothing of the daemon's is here, nothing of the module's is there."""

from __future__ import annotations

import contextlib
import importlib.machinery
import importlib.util
import logging
import os
import signal
import socket
import stat
import sys
import traceback
from collections.abc import Callable, Mapping
from types import FrameType, ModuleType

from instep.engines.modules import wire
from instep.engines.pymodule.api import Event, Kind, Settings

_KINDS = tuple(Kind)
_DEBUG, _THREADING = ord("d"), ord("p")
_FUNCTIONS = ("sync", "rsync")


class _ToDaemon(logging.Handler):
    """Has what the module logs told by the daemon."""

    def __init__(self, peer: socket.socket) -> None:
        super().__init__()
        self._peer = peer

    def emit(self, record: logging.LogRecord) -> None:
        """Send it."""
        levels = ((50, wire.CRITICAL), (40, wire.ERROR), (30, wire.WARNING), (20, wire.INFO))
        level = next((ours for least, ours in levels if record.levelno >= least), wire.DEBUG_BASE + 1)
        try:
            self._peer.send(wire.encode_message(level, record.funcName or record.name, self.format(record)))
        except OSError:
            self.handleError(record)


class _Host:
    """Loads one module, and calls its functions when told to."""

    def __init__(self, peer: socket.socket) -> None:
        self._peer = peer
        self._pid = os.getpid()
        self._calling = False
        self._functions: dict[str, Callable[..., object]] = {}

    def run(self) -> None:
        """Until told to end, or the daemon is gone."""
        signal.signal(signal.SIGTERM, self._interrupted)
        signal.signal(signal.SIGINT, self._interrupted)
        setup = self._request()
        if setup is None or not self._set_up(wire.Request(setup)):
            return
        while (request := self._request()) is not None:
            if not request:
                self._answer(self._try("deinit"))
                return
            self._answer(self._call(wire.Request(request)))

    def _set_up(self, request: wire.Request) -> bool:
        path = request.text()
        wanted = _FUNCTIONS[request.number()]
        label, watch_dir = request.text(), request.text()
        destination_dir, lists_dir = request.text_or_none(), request.text_or_none()
        retries = request.signed()
        flags = {request.number(): request.signed() for _ in range(request.number())}
        debug = flags.get(_DEBUG, 0)
        logging.basicConfig(
            level=logging.DEBUG if debug else logging.INFO, format="%(message)s", handlers=[_ToDaemon(self._peer)]
        )
        try:
            module = _load(path)
        except BaseException:  # noqa: BLE001  # whatever it is, it is the module's, and told
            self._peer.send(wire.encode_unusable("load", _traceback()))
            return False
        for name in (wanted, "init", "deinit"):
            function = getattr(module, name, None)
            if callable(function):
                self._functions[name] = function
        if wanted not in self._functions:
            self._peer.send(wire.encode_unusable("function", wanted))
            return False
        parallel = bool(flags.get(_THREADING, 0))
        settings = Settings(watch_dir, destination_dir, label, lists_dir, retries, debug, parallel)
        self._answer(self._try("init", settings))
        return True

    def _call(self, request: wire.Request) -> int:
        environment = {request.text(): request.text() for _ in range(request.number())}
        before = {name: os.environb.get(name) for name in environment}
        name = _FUNCTIONS[request.number()]
        arguments: tuple[object, ...]
        if name == "rsync":
            arguments = (request.text(), request.text_or_none())
        else:
            arguments = ([_event(request) for _ in range(request.number())],)
        _set(environment)
        status = self._try(name, *arguments)
        _set(before)
        return status

    def _try(self, name: str, *arguments: object) -> int:
        """The exit code of a function; 0 where there is none, unless it had to be there."""
        function = self._functions.get(name)
        if function is None:
            return 0
        try:
            try:
                self._calling = True
                returned = function(*arguments)
            finally:
                self._calling = False
            status = _code(name, returned)
        except KeyboardInterrupt as interrupt:
            status = 128 + (interrupt.args[0] if interrupt.args else signal.SIGINT)
        except SystemExit as end:
            status = _exit_code(name, end)
        except BaseException:  # noqa: BLE001  # as above
            self._peer.send(wire.encode_message(wire.ERROR, name, _traceback()))
            status = 1
        if os.getpid() != self._pid:
            os._exit(status)  # a child of the module came back; the answer is its parent's
        return status

    def _interrupted(self, number: int, _: FrameType | None) -> None:
        if self._calling:
            self._calling = False  # once: a second one must not hit the clean-up after the first
            raise KeyboardInterrupt(number)

    def _request(self) -> bytes | None:
        """The next request; None when the daemon is gone."""
        whole = bytearray()
        while True:
            piece = self._peer.recv(wire.RECORD_BYTES_MAX)
            if not piece:
                return None
            whole += piece[1:]
            if not piece[0]:
                return bytes(whole)

    def _answer(self, status: int) -> None:
        self._peer.send(wire.encode_done(status))


def _load(path: bytes) -> ModuleType:
    name = os.fsdecode(os.path.basename(path)).partition(".")[0]
    loader = importlib.machinery.SourceFileLoader(name, os.fsdecode(path))
    spec = importlib.util.spec_from_loader(name, loader, origin=os.fsdecode(path))
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    # What lies beside it can be imported, after all that Python brings; not where anybody can put something.
    beside = os.path.dirname(path)
    if not os.stat(beside).st_mode & stat.S_IWOTH:
        sys.path.append(os.fsdecode(beside))
    sys.modules[name] = module
    loader.exec_module(module)
    return module


def _event(request: wire.Request) -> Event:
    path, mask, recursive, old, new = request.event()
    return Event(path, mask, recursive, _KINDS[old], _KINDS[new])


def _set(environment: Mapping[bytes, bytes | None]) -> None:
    for name, value in environment.items():
        if value is None:
            os.environb.pop(name, None)
        else:
            os.environb[name] = value


def _code(name: str, returned: object) -> int:
    if returned is None:
        return 0
    if isinstance(returned, int) and not isinstance(returned, bool):  # True could mean either
        return returned if 0 <= returned <= 255 else 255
    raise TypeError(f"{name} returned {returned!r}: None or an exit code is expected")


def _exit_code(name: str, end: SystemExit) -> int:
    if end.code is None or isinstance(end.code, int):
        return _code(name, end.code)
    logging.getLogger(name).error("%s", end.code)
    return 1


def _traceback() -> str:
    """What is being handled, without our own part of it."""
    kind, value, trace = sys.exc_info()
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith((__file__, "<frozen importlib")):
        trace = trace.tb_next
    return "".join(traceback.format_exception(kind, value, trace)).rstrip()


def main() -> None:
    """Serve the daemon at the other end of the descriptor that is the first argument."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE}:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    with socket.socket(fileno=int(sys.argv.pop(1))) as peer, contextlib.suppress(ConnectionError):  # the daemon is gone
        peer.set_inheritable(False)
        _Host(peer).run()
