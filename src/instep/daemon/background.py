"""Going into the background, with a verdict for whoever waits in the foreground."""

from __future__ import annotations

import os
from collections.abc import Callable


def detach(untold: int, *, keeps_ties: bool = False) -> Callable[[int], None]:
    """Go on in a child that has no terminal; the parent waits to be told how the start went, and exits with that.

    Must be called before there are threads or an event loop.

    Args:
        untold: the parent's exit status if the child ends before it told.
        keeps_ties: the child stays in its directory and keeps its standard streams; else it works in ``/``.

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
    if not keeps_ties:
        os.chdir("/")

    def tell(status: int) -> None:
        os.write(writer, bytes([status & 0xFF]))
        os.close(writer)
        if keeps_ties:
            return
        null = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):
            os.dup2(null, stream)
        os.close(null)

    return tell
