"""Sockets that have a path, whatever the length of it.

Facts (unix(7)): an address holds 108 bytes, the NUL included. A longer path can be told through a descriptor of its
directory. Connecting needs the right to write to the socket; ECONNREFUSED means that nobody listens to it any more.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from typing import Final

ADDRESS_BYTES_MAX: Final = 107


@contextlib.contextmanager
def address(path: bytes) -> Iterator[bytes]:
    """What to call the socket in bind(2) and connect(2), for as long as the context lasts.

    Raises:
        OSError: the path is too long, and its directory cannot be opened; or its last part alone is too long.
    """
    if len(path) <= ADDRESS_BYTES_MAX:
        yield path
        return
    head, name = os.path.split(path)
    directory = os.open(head or b".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        short = b"/proc/self/fd/%d/" % directory + name
        if len(short) > ADDRESS_BYTES_MAX:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), path)
        yield short
    finally:
        os.close(directory)
