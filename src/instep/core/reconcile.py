"""What has to be done so that one name at the target equals the source: pure, from what lstat said of both.

Same size and same time is not same content. Files swapped by rename keep both, and so does a rewrite within one clock
tick. Two facts settle it without reading: the monitor said that the content was touched (``content``), or the source's
inode changed (ctime) after the target's copy was last written, for the kernel stamps both clocks itself. Then the
contents are compared. What this cannot tell by itself: directories swapped while nobody watched hold files whose own
inodes did not change.
"""

from __future__ import annotations

import enum
import os
import stat
from typing import Protocol

DIRECTORY_STAYS = "a directory stands there, and --no-delete forbids to remove it"
"""Why a name could not be brought over, in the operator's words."""


class Step(enum.IntEnum):
    """What to do with one name."""

    KEEP = 0
    """In step."""
    ATTRIBUTES = 1
    """Same content for sure; mode, owner or time differ."""
    COMPARE = 2
    """Looks equal, but may differ in content."""
    WRITE = 3
    """Bring the content over: a new file, another size or time, another link text or device."""
    REPLACE = 4
    """Something of another type stands there: it has to go."""


_KEEP, _ATTRIBUTES, _COMPARE, _WRITE, _REPLACE = Step
"""Python 3.11 takes 0.25 us to get a member from its class, and ``step`` is asked of every file."""


class Looked(Protocol):
    """As much of an lstat as is judged, wherever it was made."""

    @property
    def st_mode(self) -> int:
        """Type and permissions."""

    @property
    def st_uid(self) -> int:
        """Owner."""

    @property
    def st_gid(self) -> int:
        """Group."""

    @property
    def st_size(self) -> int:
        """Bytes."""

    @property
    def st_rdev(self) -> int:
        """Which device it is."""

    @property
    def st_mtime_ns(self) -> int:
        """When the content was changed."""

    @property
    def st_ctime_ns(self) -> int:
        """When the inode was changed, by its own kernel."""


def step(source: os.stat_result, target: Looked | None, *, content: bool) -> Step:
    """The step for one name that the source holds.

    Args:
        source: lstat of the name in the source.
        target: lstat of the name in the target, None if absent.
        content: whether the content may have been touched even though size and time agree.

    Symbolic links need their texts compared by the caller (COMPARE); a directory's content is not judged here.
    """
    if target is None:
        return _WRITE
    mode = source.st_mode
    if (
        not content
        and source.st_size == target.st_size
        and source.st_mtime_ns == target.st_mtime_ns
        and source.st_ctime_ns < target.st_ctime_ns
        and mode == target.st_mode
        and source.st_uid == target.st_uid
        and source.st_gid == target.st_gid
        and mode & 0o170000 == stat.S_IFREG
    ):
        return _KEEP  # By far the most frequent answer, so it comes first.
    kind = stat.S_IFMT(mode)
    if kind != stat.S_IFMT(target.st_mode):
        return _REPLACE
    if kind == stat.S_IFREG:
        if source.st_size != target.st_size:
            return _WRITE
        if source.st_mtime_ns != target.st_mtime_ns:
            # A file system with coarser times cannot hold the source's: then only the content can tell.
            coarse = target.st_mtime_ns % 1_000_000 == 0 and source.st_mtime_ns // 10**9 == target.st_mtime_ns // 10**9
            return _COMPARE if coarse else _WRITE
        if content or source.st_ctime_ns >= target.st_ctime_ns:
            return _COMPARE
    elif kind == stat.S_IFLNK:
        return _COMPARE
    elif kind in (stat.S_IFCHR, stat.S_IFBLK) and source.st_rdev != target.st_rdev:
        return _WRITE
    if mode != target.st_mode or source.st_uid != target.st_uid or source.st_gid != target.st_gid:
        return _ATTRIBUTES
    if source.st_mtime_ns != target.st_mtime_ns:
        return _ATTRIBUTES
    return _KEEP
