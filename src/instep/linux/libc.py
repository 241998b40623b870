"""The C library, loaded on first use, so that importing costs nothing and works on every system."""

from __future__ import annotations

import ctypes
import errno
import functools
import os


@functools.cache
def libc() -> ctypes.CDLL:
    """The running process's C library. Calls release the GIL; ``ctypes.get_errno`` holds their errno."""
    return ctypes.CDLL(None, use_errno=True)


def failure(path: bytes | None = None) -> OSError:
    """The OSError for the errno that the last call left."""
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), path)


def lacks(symbol: str) -> bool:
    """Whether this C library has no such function."""
    try:
        getattr(libc(), symbol)
    except (AttributeError, OSError):
        return True
    return False


NOT_SUPPORTED = frozenset({errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM, errno.EXDEV, errno.ENODEV})
"""What kernels answer when a facility is not there, not for this file system, or not for this user."""


def sync_file_system(fd: int) -> None:
    """syncfs(2): let all that was written to this file system reach its disk. Does nothing where there is no such call.

    Raises:
        OSError: something written since this descriptor was opened, or since the last call with it, is lost. Told once,
            since Linux 5.8. What is lost may still be read, from memory, as if it had arrived (tried on ext4, on a disk
            that promised more room than it had).
    """
    if libc().syncfs(fd) < 0 and ctypes.get_errno() not in NOT_SUPPORTED:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
