"""The target directory of a native engine: open, and under its name as long as nothing else has that."""

from __future__ import annotations

import errno
import os

from instep.errors import TargetAway, TargetError
from instep.linux.openat import DIRECTORY
from instep.model import Landmarks


class Place:
    """One target directory; it is found under its path, and known again by its inode."""

    def __init__(self, path: bytes, *, dry_run: bool) -> None:
        """Not yet open. ``dry_run``: it is not made, and need not be there."""
        self.path = path
        self.fd = -1
        """The directory, as long as it is open."""
        self._dry_run = dry_run
        self._identity: tuple[int, int] | None = None

    @property
    def was_open(self) -> bool:
        """Whether it was found before."""
        return self._identity is not None

    def find(self) -> int:
        """A descriptor of what has the path now, for ``take``; on the very first call its last component is made.

        Raises:
            TargetError: It can't be what the operator meant.
            TargetAway: It is not there, for now.
        """
        first = not self.was_open
        if first and not self._dry_run:
            self._make()
        try:
            return os.open(self.path, DIRECTORY & ~os.O_NOFOLLOW)
        except OSError as error:
            if first and error.errno == errno.ENOTDIR:
                raise TargetError(
                    "target-not-a-directory",
                    f"the target {os.fsdecode(self.path)} is not a directory",
                    fix="name a directory",
                ) from error
            if not (first and self._dry_run and error.errno == errno.ENOENT):
                raise TargetAway(f"{os.fsdecode(self.path)}: {error.strerror}") from error
            return _nowhere()

    def take(self, fd: int) -> bool:
        """Work in this directory from now on; False if it is another one than before, or the first."""
        info = os.fstat(fd)
        known = self._identity == (info.st_dev, info.st_ino)
        self._identity = (info.st_dev, info.st_ino)
        self.fd = fd
        return known

    def away(self) -> str | None:
        """Why the path does not name the directory that is open any more, if so; a new stat each time."""
        if self._dry_run:
            return None
        try:
            theirs = os.stat(self.path)
        except OSError as error:
            return f"the target {os.fsdecode(self.path)}: {error.strerror}"
        if (theirs.st_dev, theirs.st_ino) != self._identity:
            return f"the target {os.fsdecode(self.path)} is another directory than before"
        return None

    def landmarks(self) -> Landmarks | None:
        """The inode and file system of the root, and its names."""
        try:
            volume, info = os.fstatvfs(self.fd), os.fstat(self.fd)
            names = frozenset(map(os.fsencode, os.listdir(self.fd)))
        except OSError:
            return None
        return Landmarks(b"%x:%x" % (volume.f_fsid, info.st_ino), names)

    def close(self) -> None:
        """Let go of it; may be called twice."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _make(self) -> None:
        try:
            os.mkdir(self.path, 0o755)
        except FileExistsError:
            pass
        except OSError as error:
            raise TargetError(
                "target-not-writable",
                f"cannot make the target directory {os.fsdecode(self.path)}: {error.strerror}",
                fix="make it, or choose a directory that you may write to",
            ) from error


def _nowhere() -> int:
    """An empty directory that no path leads to: stands for the target that a dry run must not make."""
    import tempfile  # noqa: PLC0415  # a tenth of a start, for what is seldom done

    path = tempfile.mkdtemp(prefix="instep-")
    fd = os.open(path, DIRECTORY)
    os.rmdir(path)
    return fd
