"""A UNIX socket that others talk to a daemon by. What is said is the affair of a conversation, given from outside.

Nothing that a client does costs more than a little memory: it is read from only when it has taken its answers, and
the one that has been silent longest makes room when there are too many.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import stat
from collections.abc import Callable
from typing import Final, Protocol

from instep.errors import OperatorError
from instep.linux.unixsocket import address
from instep.logs import fields
from instep.paths import TEMPORARY_PREFIX, TEMPORARY_SUFFIX

log = logging.getLogger(__name__)

CONNECTIONS_MAX: Final = 256
READ_BYTES: Final = 4096
"""So much is asked at once; answers to it are the bound of what is kept for one client."""
BACKLOG: Final = 64
RETRY_S: Final = 1.0
"""When there is no descriptor left for another connection."""
_NO_ROOM: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Conversation(Protocol):
    """One connection's talk, without the socket."""

    @property
    def greeting(self) -> bytes:
        """What is sent first."""

    @property
    def ended(self) -> bool:
        """Nothing more is taken in; the connection is closed when all answers are sent."""

    def feed(self, data: bytes) -> bytes:
        """Take in what came; the answers to it. Keeps a bounded part of what has no answer yet."""


class ControlServer:
    """Listens, and leads a conversation with each who connects."""

    def __init__(self, path: bytes, converse: Callable[[], Conversation]) -> None:
        """Nothing is done yet.

        Args:
            path: where the socket is.
            converse: begins a conversation.
        """
        self._path = path
        self._converse = converse
        self._socket: socket.socket | None = None
        self._made: tuple[int, int] | None = None
        self._connections: dict[_Connection, None] = {}
        """The one that spoke last comes last."""
        self._retry: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def open(self, *, mode: int, owner: tuple[int, int] | None = None) -> None:
        """Make the socket. It appears under its name only with its mode and owner, and listening.

        A socket that is there, of a process that is gone or not, is replaced.

        Args:
            mode: its permissions, whatever the umask; who may write may connect.
            owner: user and group that it is given to.

        Raises:
            OperatorError: it cannot be made there.
        """
        try:
            self._refuse_others()
            self._make(mode, owner)
        except OSError as error:
            raise OperatorError(
                "control-socket",
                f"the control socket '{os.fsdecode(self._path)}' cannot be made: {error.strerror}",
                fix="see that its directory is there and may be written, or name another path",
            ) from error

    def _refuse_others(self) -> None:
        try:
            there = os.lstat(self._path)
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(there.st_mode):
            raise OperatorError(
                "control-socket-occupied",
                f"the control socket cannot be made: '{os.fsdecode(self._path)}' is there, and no socket",
                fix="remove it, or name another path",
            )

    def _make(self, mode: int, owner: tuple[int, int] | None) -> None:
        head, _ = os.path.split(self._path)
        temporary = os.path.join(head, TEMPORARY_PREFIX + b"%d-socket" % os.getpid() + TEMPORARY_SUFFIX)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            with address(temporary) as name:
                server.bind(name)
            if owner is not None:
                os.chown(temporary, *owner, follow_symlinks=False)
            os.chmod(temporary, mode)
            server.listen(BACKLOG)
            info = os.lstat(temporary)
            os.rename(temporary, self._path)
        except BaseException:
            server.close()
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        self._socket = server
        self._made = (info.st_dev, info.st_ino)

    def start(self) -> None:
        """Serve, in the loop that runs."""
        assert self._socket is not None
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket.fileno(), self._accept)

    def close(self) -> None:
        """Hang up, and remove the socket if it is still ours and that is allowed; may be called twice."""
        server, self._socket = self._socket, None
        if server is None:
            return
        if self._retry is not None:
            self._retry.cancel()
        if self._loop is not None:
            self._loop.remove_reader(server.fileno())
        server.close()
        for connection in list(self._connections):
            connection.close()
        try:
            there = os.lstat(self._path)
            if (there.st_dev, there.st_ino) == self._made:
                os.unlink(self._path)
        except FileNotFoundError:
            pass
        except OSError as error:
            log.warning("control-socket-left", extra=fields(path=self._path, reason=error.strerror))

    def _accept(self) -> None:
        assert self._socket is not None
        assert self._loop is not None
        try:
            client, _ = self._socket.accept()
        except OSError as error:
            if error.errno in _NO_ROOM:
                # The connection goes on waiting, so the socket stays readable: looking again at once is all we did.
                self._loop.remove_reader(self._socket.fileno())
                self._retry = self._loop.call_later(RETRY_S, self.start)
            return
        client.setblocking(False)
        if len(self._connections) >= CONNECTIONS_MAX:
            next(iter(self._connections)).close()
        connection = _Connection(client, self._converse(), self._loop, self._spoke, self._gone)
        self._connections[connection] = None
        connection.greet()

    def _spoke(self, connection: _Connection) -> None:
        del self._connections[connection]
        self._connections[connection] = None

    def _gone(self, connection: _Connection) -> None:
        self._connections.pop(connection, None)


class _Connection:
    """Waits for one thing at a time: for what the client says, or for it to take what it is answered."""

    def __init__(
        self,
        client: socket.socket,
        conversation: Conversation,
        loop: asyncio.AbstractEventLoop,
        spoke: Callable[[_Connection], None],
        gone: Callable[[_Connection], None],
    ) -> None:
        self._socket = client
        self._conversation = conversation
        self._loop = loop
        self._spoke = spoke
        self._gone = gone
        self._output = b""
        self._last = False
        self._closed = False

    def greet(self) -> None:
        """Begin."""
        self._output = self._conversation.greeting
        self._send()

    def close(self) -> None:
        """Hang up; may be called twice."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._socket.fileno())
        self._loop.remove_writer(self._socket.fileno())
        self._socket.close()
        self._gone(self)

    def _receive(self) -> None:
        try:
            data = self._socket.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        self._spoke(self)
        try:
            self._output = self._conversation.feed(data) if data else b""
        except BaseException:
            self.close()
            raise
        self._last = not data or self._conversation.ended
        self._send()

    def _send(self) -> None:
        if self._closed:
            return  # What was asked for ended everything.
        try:
            sent = self._socket.send(self._output) if self._output else 0
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close()
            return
        self._output = self._output[sent:]
        fd = self._socket.fileno()
        if self._output:
            self._loop.remove_reader(fd)
            self._loop.add_writer(fd, self._send)
        elif self._last:
            self.close()
        else:
            self._loop.remove_writer(fd)
            self._loop.add_reader(fd, self._receive)
