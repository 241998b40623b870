"""The two small files that tell others how the process is: its state, and its number.

Facts (observed): neither text has a line end. A path that is a link is followed. The state's file is made before
the process gives up its rights, and given to the user that it goes on as; that user may not write to the directory.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import logging
import os
import stat
from typing import Final

from instep.logs import fields
from instep.paths import TEMPORARY_PREFIX, TEMPORARY_SUFFIX

log = logging.getLogger(__name__)

_MODE: Final = 0o666
"""Less the umask."""
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NOT_ALLOWED: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


class State(enum.Enum):
    """What the process is at, by the names that others read."""

    STARTING = "starting"
    INITSYNC = "initsync"
    RUNNING = "running"
    SYNCHANDLER_ERROR = "synchandler error"
    REHASHING = "rehashing"
    THREAD_GC = "thread gc"
    HOLD_ON = "hold on"
    PREEXIT = "preexit"
    TERMINATING = "terminating"
    EXITING = "exiting"


class _OwnFile:
    """A file of ours, reachable after the rights to its path are gone; blocks no longer than the disk does."""

    def __init__(self, path: bytes, owner: tuple[int, int] | None) -> None:
        """Make or open it, with a mode by the umask.

        Raises:
            OSError: that cannot be.
        """
        self.path = path
        head, self.name = os.path.split(path)
        self.directory = os.open(head or b".", _DIRECTORY)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
        try:
            try:
                self.fd = os.open(path, flags | os.O_EXCL, _MODE)
            except FileExistsError:
                # Whose it is stays: the path may be a link that somebody laid to a file which is not to be given away.
                self.fd = os.open(path, flags, _MODE)
                owner = None
        except BaseException:
            os.close(self.directory)
            raise
        if owner is not None:
            with contextlib.suppress(OSError):  # Whoever may not give it away keeps it.
                os.fchown(self.fd, *owner)

    def write(self, text: bytes) -> None:
        """Make this its whole content, in place; others may see it empty for a moment."""
        if stat.S_ISREG(os.fstat(self.fd).st_mode):
            os.ftruncate(self.fd, 0)
            os.pwrite(self.fd, text, 0)
        else:
            os.write(self.fd, text)

    def is_replaceable(self) -> bool:
        """Whether another file under its name would be the same to all: no link leads to it, and no other name."""
        return self._is_named(follow_symlinks=False) and os.fstat(self.fd).st_nlink == 1

    def _is_named(self, *, follow_symlinks: bool) -> bool:
        mine = os.fstat(self.fd)
        try:
            there = os.stat(self.name, dir_fd=self.directory, follow_symlinks=follow_symlinks)
        except OSError:
            return False
        return stat.S_ISREG(mine.st_mode) and (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)

    def replace(self, text: bytes) -> None:
        """Make this its whole content in one step; mode and owner stay.

        Raises:
            OSError: the directory does not allow it, or the disk is full. The file is as it was.
        """
        old = os.fstat(self.fd)
        temporary = TEMPORARY_PREFIX + b"%d-state" % os.getpid() + TEMPORARY_SUFFIX
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=self.directory)  # of a namesake that was killed
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(temporary, flags, 0o600, dir_fd=self.directory)
        try:
            with contextlib.suppress(OSError):
                # ext4 writes out at once what replaces a file, unless its blocks are there already (measured: a third).
                os.posix_fallocate(fd, 0, len(text))
            os.write(fd, text)
            if (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(fd, old.st_uid, old.st_gid)
            os.fchmod(fd, stat.S_IMODE(old.st_mode))
            os.rename(temporary, self.name, src_dir_fd=self.directory, dst_dir_fd=self.directory)
        except BaseException:
            os.close(fd)
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=self.directory)
            raise
        os.close(self.fd)
        self.fd = fd

    def unlink(self) -> None:
        """Remove its name, unless that is somebody else's meanwhile.

        Raises:
            OSError: the directory does not allow it.
        """
        if self._is_named(follow_symlinks=True):
            os.unlink(self.name, dir_fd=self.directory)

    def close(self) -> None:
        """Let go of it."""
        os.close(self.fd)
        os.close(self.directory)


class StatusFile:
    """Holds the name of the process's state; others read it at any time, and always find a whole one.

    Where the directory does not let the file be replaced, it is rewritten in place, as clsync does.
    """

    def __init__(self, path: bytes, *, owner: tuple[int, int] | None = None) -> None:
        """Make it; called while the process has its rights and its umask.

        Args:
            path: where.
            owner: the user and group that the process goes on as.

        Raises:
            OSError: it cannot be made.
        """
        self._file: _OwnFile | None = _OwnFile(path, owner)
        self._replaces = self._file.is_replaceable()
        self._told = False

    def announce(self, state: State) -> None:
        """Say what the process is at; trouble is logged once, and stops nothing."""
        file = self._file
        if file is None:
            return
        text = state.value.encode()
        try:
            if not (self._replaces and self._replace(file, text)):
                file.write(text)
            self._told = False
        except OSError as error:
            if not self._told:
                self._told = True
                log.warning(
                    "status-file-not-written",
                    extra=fields(path=file.path, reason=error.strerror, now="it does not show the state"),
                )

    def _replace(self, file: _OwnFile, text: bytes) -> bool:
        try:
            file.replace(text)
        except OSError as error:
            if error.errno in _NOT_ALLOWED:
                self._replaces = False
            return False
        return True

    def remove(self) -> None:
        """Take it away at the end, if that is allowed; may be called twice."""
        file, self._file = self._file, None
        if file is None:
            return
        try:
            file.unlink()
        except OSError as error:
            log.warning("status-file-left", extra=fields(path=file.path, reason=error.strerror))
        finally:
            file.close()


class PidFile:
    """Holds the decimal number of the process that made this object."""

    def __init__(self, path: bytes, *, owner: tuple[int, int] | None = None) -> None:
        """Make it; called by the process that stays, when it is in the background.

        Args:
            path: where.
            owner: the user and group that it is given to.

        Raises:
            OSError: it cannot be made.
        """
        self._text = b"%d" % os.getpid()
        self._file: _OwnFile | None = _OwnFile(path, owner)
        try:
            self._file.write(self._text)
        except BaseException:
            self._file.close()
            raise

    def remove(self) -> None:
        """Take it away at the end; empty it where that is not allowed. Nothing is done if it is somebody else's now.

        May be called twice; a process that was forked off leaves it alone.
        """
        file, self._file = self._file, None
        if file is None:
            return
        with contextlib.suppress(OSError):
            if self._text == b"%d" % os.getpid() == os.pread(file.fd, len(self._text) + 1, 0):
                with contextlib.suppress(OSError):
                    file.unlink()
                os.ftruncate(file.fd, 0)  # for those to whom the name is still there
        file.close()
