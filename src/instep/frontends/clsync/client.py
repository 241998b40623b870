"""A client of the control socket of ``clsync``: instep's, or clsync 0.4.5 itself.

::

    from instep.frontends.clsync.client import Client

    with Client("/run/clsync/web.sock") as clsync:
        print(clsync.version(), clsync.info().label)
        clsync.set("delay-sync", "5")
        clsync.dump("/tmp/web-dump")

Each call blocks until it is answered, at most ``timeout_s``. One client is for one thread. Nothing is needed but the
standard library and the right to write to the socket.
"""

from __future__ import annotations

import os
import socket
import struct
from types import TracebackType
from typing import Final, NamedTuple, Self

from instep.frontends.clsync.protocol import (
    LINE_BYTES_MAX,
    PROTOCOL,
    STRING_END,
    Id,
    Message,
    Version,
    message,
    parse,
    string,
)
from instep.linux.unixsocket import address

_CREDENTIALS: Final = struct.Struct("iii")
_READ_BYTES: Final = 4096


class ClientError(Exception):
    """Something asked of a daemon was not done."""


class NoDaemon(ClientError):
    """Nobody listens at this path, or who does speaks another language, or went away without a word."""


class TimedOut(ClientError):
    """The daemon did not answer in time; the connection is closed, for a late answer would be taken for another's."""


class Failed(ClientError):
    """The daemon refused, or tried and failed."""

    def __init__(self, text: str, number: int = 0) -> None:
        super().__init__(text)
        self.errno = number
        """Why; 0 where that was not told."""


class Info(NamedTuple):
    """Which daemon it is."""

    block: str
    """Of the configuration file."""
    label: str
    pid: int
    """Of the process that made the socket; 0: it is in another container."""


class Client:
    """One connection; a context manager."""

    def __init__(self, path: str | bytes | os.PathLike[str] | os.PathLike[bytes], *, timeout_s: float = 10.0) -> None:
        """Connect.

        Args:
            path: of the socket.
            timeout_s: for each step, from connecting to an answer.

        Raises:
            NoDaemon: there is none.
            TimedOut: there is one, and it does not answer.
        """
        self._path = os.fsencode(path)
        self._number = 0
        self._input = b""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            self._socket.settimeout(timeout_s)
            self._connect()
        except BaseException:
            self._socket.close()
            raise

    def version(self) -> Version:
        """What runs; instep answers as clsync 0.4.5 does.

        Raises:
            ClientError: no answer.
        """
        words = self._ask(Id.GET_VERSION, answer=Id.VERSION).words()
        try:
            return Version(int(words[0]), int(words[1]), words[2].decode(errors="replace") if len(words) > 2 else "")
        except (IndexError, ValueError):
            raise self._strange() from None

    def info(self) -> Info:
        """Which daemon it is.

        Raises:
            ClientError: no answer.
        """
        found, _ = self._ask(Id.GET_INFO, answer=Id.INFO).strings()
        if len(found) < 2:
            raise self._strange()
        size = _CREDENTIALS.size
        pid: int = _CREDENTIALS.unpack(self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))[0]
        return Info(os.fsdecode(found[0]), os.fsdecode(found[1]), pid)

    def dump(self, path: str | bytes | os.PathLike[str] | os.PathLike[bytes]) -> None:
        """Have a dump written to a directory that does not exist yet.

        Args:
            path: of the directory, as the daemon sees it; where it is relative, from the watched directory.

        Raises:
            Failed: it was not written; ``errno`` says why.
            ClientError: no answer.
        """
        # Not as a string: clsync would take the end of it as part of the path.
        self._ask(Id.DUMP, _storable(os.fsencode(path)), answer=Id.DUMPED)

    def set(self, option: str, value: str | bytes) -> None:
        """Change an option of the running daemon. clsync 0.4.5 itself says yes, and does something else.

        Args:
            option: its long name, without dashes.
            value: the new one; empty: the default.

        Raises:
            Failed: there is no such option, or it cannot be set to this now; nothing was changed.
            ClientError: no answer.
        """
        arguments = b" ".join(string(_storable(os.fsencode(each))) for each in (option, value))
        self._ask(Id.SET, arguments, answer=Id.DONE_SET)

    def die(self) -> None:
        """Have the daemon end as after SIGTERM; returns when it has begun to. The connection is closed.

        Raises:
            ClientError: it did not take notice.
        """
        self._send(message(self._next(), Id.DIE))
        try:
            while self._receive():
                pass
        finally:
            self.close()

    def close(self) -> None:
        """Hang up; may be called twice."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _connect(self) -> None:
        try:
            with address(self._path) as name:
                self._socket.connect(name)
        except TimeoutError:
            raise self._late() from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise NoDaemon(f"no daemon answers at '{os.fsdecode(self._path)}': {reason}") from error
        greeting = parse(self._line())
        if greeting is None or greeting.id != Id.NEGOTIATE or greeting.words()[:1] != [b"%d" % PROTOCOL]:
            raise self._strange()

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _ask(self, id_: Id, arguments: bytes = b"", *, answer: Id) -> Message:
        number = self._next()
        self._send(message(number, id_, arguments))
        while True:
            got = parse(self._line())
            if got is None:
                raise self._strange()
            if got.number != number or got.id == Id.PROMPT:
                continue  # clsync asks for a login after every answer, if it was told to need none
            if got.id == answer:
                return got
            if got.id == Id.FAILED:
                raise _failure(got)
            raise Failed(os.fsdecode(got.rest.rpartition(b":")[2] if b":" in got.rest else got.rest))

    def _send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except TimeoutError:
            self.close()
            raise self._late() from None
        except OSError as error:
            raise NoDaemon(f"the daemon at '{os.fsdecode(self._path)}' is gone: {error.strerror}") from error

    def _line(self) -> bytes:
        while b"\n" not in self._input:
            if len(self._input) > 2 * LINE_BYTES_MAX:
                raise self._strange()
            data = self._receive()
            if not data:
                raise NoDaemon(f"the daemon at '{os.fsdecode(self._path)}' hung up")
            self._input += data
        line, _, self._input = self._input.partition(b"\n")
        return line

    def _receive(self) -> bytes:
        try:
            return self._socket.recv(_READ_BYTES)
        except TimeoutError:
            self.close()
            raise self._late() from None
        except ConnectionResetError:
            return b""
        except OSError as error:
            raise NoDaemon(f"the daemon at '{os.fsdecode(self._path)}' is gone: {error.strerror}") from error

    def _late(self) -> TimedOut:
        return TimedOut(f"the daemon at '{os.fsdecode(self._path)}' does not answer")

    def _strange(self) -> NoDaemon:
        return NoDaemon(f"what listens at '{os.fsdecode(self._path)}' does not speak clsync's protocol")


def _storable(value: bytes) -> bytes:
    if b"\n" in value or b"\0" in value or STRING_END[:1] in value:
        raise Failed("a line end, a NUL or a control-C cannot be told over this socket")
    return value


def _failure(got: Message) -> Failed:
    found, _ = got.strings()
    code, _, reason = (found[2] if len(found) > 2 else b"").partition(b" ")
    number = int(code) if code.isdigit() else 0
    return Failed(os.fsdecode(reason) or os.strerror(number), number)
