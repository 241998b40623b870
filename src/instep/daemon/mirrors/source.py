"""The directory that is mirrored: open, and under its name as long as nothing is mounted, or moved, over it."""

from __future__ import annotations

import asyncio
import os

from instep.core.retry import backoff_s
from instep.errors import SourceError
from instep.linux.mounts import mount_id_of

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

    async def back(self, tries: int = 0) -> bool:
        """Wait until it is there, for ever; ``tries``: so many were in vain, and it is not looked for at once.

        Returns:
            Whether the same mount shows it. If not ``fd``, under its old number, is of the new one from now on: what is
            mounted below that could not be seen from the old one.
        """
        same = None if tries else self._open_anew()
        while same is None:
            tries += 1
            await asyncio.sleep(min(RETRY_MAX_S, backoff_s(tries)))
            same = self._open_anew()
        return same

    def _open_anew(self) -> bool | None:
        """Whether the same mount shows it; None when it is not there."""
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            info = os.fstat(fd)
            if (info.st_dev, info.st_ino) != self._identity:
                return None
            same = mount_id_of(fd) == mount_id_of(self.fd)
            if not same:
                os.dup2(fd, self.fd, inheritable=False)
            return same
        finally:
            os.close(fd)

    def close(self) -> None:
        """Let go of it; may be called twice."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
