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


def sync_file_system(fd: int) -> None:
    """syncfs(2): let all that was written to this file system reach its disk. Errors are left to the next use."""
    libc().syncfs(fd)


NOT_SUPPORTED = frozenset({errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM, errno.EXDEV, errno.ENODEV})
"""What kernels answer when a facility is not there, not for this file system, or not for this user."""
