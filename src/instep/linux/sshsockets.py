"""A place for ssh's control sockets.

Facts: a socket's path may have 107 bytes, and ssh adds 17 for a while; blanks, quotes and percent signs in it mean
something to ssh, or to rsync. ssh removes its socket when it ends, so a killed daemon leaves an empty directory.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time

SOCKET_PATH_BYTES = 80
PREFIX = b"instep-ssh-"
LEFT_S = 3600.0
"""An empty directory of ours that is older was left by a daemon that was killed."""


def private_directory() -> bytes | None:
    """A new directory of mode 0700 with a short path; None where there is no place for one."""
    for parent in (os.environb.get(b"XDG_RUNTIME_DIR"), os.fsencode(tempfile.gettempdir()), b"/tmp"):
        if not parent or not os.access(parent, os.W_OK | os.X_OK):
            continue
        if len(parent) <= SOCKET_PATH_BYTES - 20 and not any(char in parent for char in b" \"'\\\n"):
            _sweep(parent)
            return tempfile.mkdtemp(prefix=PREFIX, dir=parent)
    return None


def _sweep(parent: bytes) -> None:
    """Remove what killed daemons have left. One that is still in use without a connection is made anew when needed."""
    before_s = time.time() - LEFT_S
    with contextlib.suppress(OSError), os.scandir(parent) as entries:
        for entry in entries:
            if entry.name.startswith(PREFIX):
                with contextlib.suppress(OSError):  # gone already, or not empty
                    info = entry.stat(follow_symlinks=False)
                    if info.st_uid == os.geteuid() and info.st_mtime < before_s:
                        os.rmdir(entry.path)
