"""Telling systemd how the service is (sd_notify(3)), with nothing but a datagram.

Facts: ``NOTIFY_SOCKET`` names a UNIX datagram socket, by an absolute path, or by ``@`` and a name in the abstract
namespace. A message is lines of ``NAME=value``. Whoever has the variable speaks for the service, so children must not.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import MutableMapping
from typing import Final

VARIABLE: Final = "NOTIFY_SOCKET"


class Notifier:
    """Says how the service is, to whoever started it; says nothing where nobody asked. Never blocks, never fails."""

    def __init__(self, address: str | None) -> None:
        """Connect, so that a change of root or user later makes no difference.

        Args:
            address: as in ``NOTIFY_SOCKET``; None: nobody listens.
        """
        self._socket: socket.socket | None = None
        if address is None or address[:1] not in ("/", "@"):
            return
        name = "\0" + address[1:] if address.startswith("@") else address
        service = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            service.connect(name.encode(errors="surrogateescape"))
        except (OSError, ValueError):
            service.close()
        else:
            self._socket = service

    @classmethod
    def take(cls, environ: MutableMapping[str, str]) -> Notifier:
        """The one that the environment asks for; the variable is removed, so that no child speaks for the service."""
        return cls(environ.pop(VARIABLE, None))

    def ready(self, status: str) -> None:
        """The service is up."""
        self._send("READY=1", f"STATUS={_line(status)}")

    def status(self, status: str) -> None:
        """What it is at, in words."""
        self._send(f"STATUS={_line(status)}")

    def stopping(self) -> None:
        """The service is going down."""
        self._send("STOPPING=1", "STATUS=ending")

    def close(self) -> None:
        """Say nothing more; may be called twice."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, *lines: str) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):  # A service manager that is gone or busy stops nothing.
                self._socket.send("\n".join(lines).encode(errors="replace"))


def _line(text: str) -> str:
    return text.replace("\n", " ")
