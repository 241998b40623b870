"""The worker's side of ``instep.workers``: jobs come in on stdin, answers go out on stdout.

Apart from there because a worker is started for a piece of work: what the pool needs (asyncio, for one) would take as
long to import as a thousand files to copy.

Frames both ways: u32 length, then a value by marshal, since both ends are one program and one interpreter.
"""

from __future__ import annotations

import marshal
import os
import signal
import struct
from collections.abc import Callable
from typing import Any, BinaryIO

LENGTH = struct.Struct("=I")

Values = tuple[Any, ...]
"""Plain values, as marshal takes them."""


def serve(prepare: Callable[[Values], Callable[[Values], Values]]) -> None:
    """The worker's side: greeted once, then a job after the other, until stdin ends. Owns the process."""
    # The terminal's Ctrl-C goes to the whole group: only the daemon decides when to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.umask(0)  # Modes are given exactly.
    stdin = os.fdopen(0, "rb", buffering=1 << 18)
    try:
        work = prepare(_receive(stdin))
    except EOFError:
        return
    while True:
        try:
            job = _receive(stdin)
        except EOFError:
            return
        answer = marshal.dumps(work(job))
        view = memoryview(LENGTH.pack(len(answer)) + answer)
        try:
            while view:
                view = view[os.write(1, view) :]
        except BrokenPipeError:
            return


def _receive(stream: BinaryIO) -> Values:
    read = stream.read
    head = read(LENGTH.size)
    if len(head) < LENGTH.size:
        raise EOFError
    (length,) = LENGTH.unpack(head)
    body = read(length)
    if len(body) < length:
        raise EOFError
    value = marshal.loads(body)  # noqa: S302  # from our own parent, over a pipe
    assert isinstance(value, tuple)
    return value
