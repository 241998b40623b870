"""Speaking with an agent frame by frame, as our side does or never would."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Self

from instep.engines.remote import agent
from instep.engines.remote.connection import bootstrap, remote_command

HEAD = agent.ATTRIBUTES
EVERYTHING = 0x3F


def attributes(mode: int = 0o100644, *, mtime_ns: int = 10**18, xattrs: bytes = b"") -> bytes:
    """Attributes of an operation, owned by whoever runs this."""
    return HEAD.pack(mode, os.geteuid(), os.getegid(), mtime_ns, mtime_ns, len(xattrs)) + xattrs


class Peer:
    """An agent at the other end of two pipes."""

    def __init__(self, argv: Sequence[bytes] | None = None) -> None:
        self.process = subprocess.Popen(
            argv or [b"/bin/sh", b"-c", remote_command(os.fsencode(sys.executable))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self.number = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # It has ended before it took all that it was sent.
            self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(60)

    def send(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def receive(self) -> tuple[int, int, bytes] | None:
        """The next frame; None at the end."""
        assert self.process.stdout is not None
        head = self.process.stdout.read(agent.HEADER.size)
        if len(head) < agent.HEADER.size:
            return None
        length, kind, number = agent.HEADER.unpack(head)
        return kind, number, self.process.stdout.read(length)

    def hello(self) -> bytes:
        """Send the agent over, and hear its greeting."""
        self.send(bootstrap())
        assert self.process.stdout is not None
        assert self.process.stdout.read(len(agent.MAGIC)) == agent.MAGIC
        received = self.receive()
        assert received is not None
        assert received[0] == agent.HELLO
        return received[2]

    def open(
        self, root: bytes, flags: int = agent.MAY_DELETE, whose: bytes | None = None
    ) -> tuple[int, int, bytes] | None:
        """Open a root, for an engine of its own; what the agent says."""
        whose = os.urandom(16) if whose is None else whose
        body = agent.OPEN_BODY.pack(agent.PROTOCOL, flags, EVERYTHING, 0o022, agent.SHA256, b"\0" * 8, whose)
        self.send(agent.frame(agent.OPEN, 1, body + root))
        return self.receive()

    def batch(self, *operations: bytes) -> dict[int, tuple[int, bytes]]:
        """Have operations done; what is said of those that did not end plainly well."""
        self.number += 1
        self.send(agent.frame(agent.BATCH, self.number, b"".join(operations)))
        while True:
            received = self.receive()
            assert received is not None
            if received[0] == agent.ACK:
                assert received[1] == self.number
                return {index: (status, payload) for index, status, payload in agent.results(received[2])}
            assert received[0] in (agent.PART, agent.PONG, agent.SIGNED), received
