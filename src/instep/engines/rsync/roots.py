"""The two directories that rsync works between, and whether they still are the ones that they were.

To rsync an empty mount point is a tree in which all was deleted, and a target that is missing is one to be made; so
both are looked at before each batch, and rsync is given both as descriptors: what their names lead to by then is not
its business.
"""

from __future__ import annotations

import logging
import os

from instep.engines.rsync.command import Address, Reach
from instep.errors import TargetAway, TargetError
from instep.linux.libc import sync_file_system
from instep.linux.openat import DIRECTORY, has_directory
from instep.logs import fields

log = logging.getLogger(__name__)


class Roots:
    """The source, and the target as far as it is a directory here. Every method blocks as long as the disk does."""

    def __init__(self, source: bytes, source_fd: int, at: Address) -> None:
        """Nothing is looked at before ``open_target``."""
        self.source_fd = source_fd
        self.directory = b"/proc/self/fd/%d" % source_fd
        """Where rsync starts. By the descriptor, not by name: a root renamed or mounted over between the check and the
        run is still the one that was looked at."""
        self.target = at.path or b"/"
        self.target_is_here = at.reach is Reach.LOCAL
        self.spellings = _spellings(source, at)
        """Both roots as rsync may write them in its messages, longest first."""
        self._source = source
        self._target_id: tuple[int, int] | None = None

    @property
    def target_inode(self) -> int:
        """The target directory's; 0 of one that is not here."""
        return 0 if self._target_id is None else self._target_id[1]

    def open_target(self, *, make: bool, dry_run: bool) -> bool:
        """Look at a target on this machine; ``make`` it where there is none, but not in a dry run.

        Returns:
            False when it is another directory than before.

        Raises:
            TargetAway: it cannot be used now.
            TargetError: it is no directory.
        """
        before = self._target_id
        shown = os.fsdecode(self.target)
        try:
            try:
                info = os.stat(self.target)
            except FileNotFoundError:
                if dry_run:
                    self._target_id = None
                    return before is None
                if not make:
                    raise  # What was there before may be a file system that is not mounted now: never fill its place.
                os.mkdir(self.target)
                log.info("target-created", extra=fields(path=self.target))
                info = os.stat(self.target)
        except OSError as error:
            raise TargetAway(f"cannot use the target directory {shown}: {error.strerror}") from error
        if not os.path.isdir(self.target):
            raise TargetError(
                "target-not-a-directory", f"the target {shown} is not a directory", fix="name a directory"
            )
        self._target_id = (info.st_dev, info.st_ino)
        return before == self._target_id

    def trouble(self) -> str | None:
        """Why rsync must not be let loose; None when it may."""
        try:
            here, there = os.fstat(self.source_fd), os.stat(self._source)
        except OSError as error:
            return f"source {os.fsdecode(self._source)}: {error.strerror}"
        if (here.st_dev, here.st_ino) != (there.st_dev, there.st_ino):
            return f"source {os.fsdecode(self._source)} is not the directory any more that it was at start"
        if self._target_id is not None:
            try:
                info = os.stat(self.target)
            except OSError as error:
                return f"target {os.fsdecode(self.target)}: {error.strerror}"
            if (info.st_dev, info.st_ino) != self._target_id:
                return f"target {os.fsdecode(self.target)} is not the directory any more that it was"
        return None

    def has_directory(self, path: bytes) -> bool:
        """Whether the source has a directory there, and on the whole way to it."""
        return has_directory(self.source_fd, path)

    def target_descriptor(self) -> int:
        """A descriptor of the target, for the caller to close; -1 where it is not here, or another than it was."""
        if self._target_id is None:
            return -1
        try:
            fd = os.open(self.target, DIRECTORY & ~os.O_NOFOLLOW)
        except OSError:
            return -1
        info = os.fstat(fd)
        if (info.st_dev, info.st_ino) == self._target_id:
            return fd
        os.close(fd)
        return -1

    def flush(self) -> None:
        """Sync the file system of a target on this machine; a far one looks after itself.

        Raises:
            TargetAway: it cannot be opened.
            OSError: its disk lost something that was written.
        """
        if not self.target_is_here:
            return
        try:
            fd = os.open(self.target, DIRECTORY & ~os.O_NOFOLLOW)
        except OSError as error:
            raise TargetAway(f"cannot open it: {error.strerror}") from error
        try:
            sync_file_system(fd)
        finally:
            os.close(fd)


def _spellings(source: bytes, at: Address) -> tuple[bytes, ...]:
    roots = {source, os.path.realpath(source)}
    if at.path:
        roots.add(at.path)
        if at.reach is Reach.LOCAL:
            roots.add(os.path.realpath(at.path))
    return tuple(sorted(roots, key=len, reverse=True))
