"""Files without a name, to be a program's standard input."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from typing import IO


@contextlib.contextmanager
def memory_file(content: bytes) -> Iterator[int]:
    """A descriptor from which just this can be read; in memory where the kernel can, else in a temporary file."""
    with anonymous_file() as file:
        file.write(content)
        file.seek(0)
        yield file.fileno()


def anonymous_file() -> IO[bytes]:
    """An empty file without a name, to be closed by the caller."""
    try:
        return os.fdopen(os.memfd_create("instep", os.MFD_CLOEXEC), "w+b")
    except (AttributeError, OSError):
        return tempfile.TemporaryFile()
