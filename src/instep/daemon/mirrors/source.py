"""The directory that is mirrored: open, and under its name as long as nothing is mounted, or moved, over it."""

from __future__ import annotations

import asyncio
import os

from instep.core.retry import backoff_s
from instep.errors import SourceError

RETRY_MAX_S = 10.0


class Source:
    """One source, held open until ``close``."""

    def __init__(self, path: bytes) -> None:
        """Open it.

        Raises:
            SourceError: it cannot be opened.
        """
        self.path = path
        try:
            self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise SourceError(
                "no-such-source",
                f"cannot open the source directory {os.fsdecode(path)}: {error.strerror}",
                fix="give an existing directory that you may read",
            ) from error
        info = os.fstat(self.fd)
        self._identity = (info.st_dev, info.st_ino)

    def is_there(self) -> bool:
        """Whether the path still names the directory that is open; a new stat each time.

        An unmounted source is an empty directory: believing it would empty every target.
        """
        try:
            info = os.stat(self.path)
        except OSError:
            return False
        return (info.st_dev, info.st_ino) == self._identity

    async def back(self) -> None:
        """Wait until it is there, for ever."""
        tries = 0
        while not self.is_there():
            tries += 1
            await asyncio.sleep(min(RETRY_MAX_S, backoff_s(tries)))

    def close(self) -> None:
        """Let go of it; may be called twice."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
