"""What the kernel remembers of files: let it be forgotten, so that the disk itself is read."""

from __future__ import annotations

import contextlib
import os
import stat

from instep.engines.native.small import READ
from instep.linux.openat import DIRECTORY, open_directory


def forget(root: int, path: bytes, *, below: bool) -> None:
    """Forget the contents of this file below ``root``, and of all files in it if it is a directory and ``below``.

    Only what has been written to the disk, or was lost on the way there, can be forgotten. What is not there, or may
    not be read, is passed over. Never follows a link. Blocks.
    """
    parent, _, name = path.rpartition(b"/")
    with contextlib.suppress(OSError):
        directory = open_directory(root, parent)
        try:
            _forget(directory, name or b".", below=below)
        finally:
            os.close(directory)


def _forget(directory: int, name: bytes, *, below: bool) -> None:
    info = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if stat.S_ISREG(info.st_mode):
        opened = os.open(name, READ, dir_fd=directory)
        try:
            os.posix_fadvise(opened, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(opened)
    elif stat.S_ISDIR(info.st_mode) and below:
        inner = os.open(name, DIRECTORY, dir_fd=directory)
        try:
            for each in os.listdir(inner):
                with contextlib.suppress(OSError):
                    _forget(inner, os.fsencode(each), below=True)
        finally:
            os.close(inner)
