"""Going into the background, with a verdict for whoever waits in the foreground."""

from __future__ import annotations

import os
from collections.abc import Callable


def detach(untold: int) -> Callable[[int], None]:
    """Go on in a child that has no terminal; the parent waits to be told how the start went, and exits with that.

    Must be called before there are threads or an event loop. The child works in ``/``.

    Args:
        untold: the parent's exit status if the child ends before it told.

    Returns:
        In the child: what tells the parent its exit status, and turns the standard streams to /dev/null.
    """
    reader, writer = os.pipe()
    if os.fork():
        os.close(writer)
        with os.fdopen(reader, "rb") as verdict:
            told = verdict.read(1)
        os._exit(told[0] if told else untold)
    os.close(reader)
    os.setsid()
    if os.fork():
        os._exit(0)  # Only a process that leads no session can never get a terminal again.
    os.chdir("/")

    def tell(status: int) -> None:
        os.write(writer, bytes([status & 0xFF]))
        os.close(writer)
        null = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):
            os.dup2(null, stream)
        os.close(null)

    return tell
