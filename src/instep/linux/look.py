"""What stands under a name below an open root: looked at through no link, and never outside."""

from __future__ import annotations

import os
import stat

from instep.linux.openat import open_directory
from instep.model import Aspect, Difference, RelPath


def look(root: int, path: bytes) -> os.stat_result | None:
    """Its lstat; None when there is nothing, or nothing that can be looked at."""
    parent, _, name = path.rpartition(b"/")
    try:
        fd = open_directory(root, parent)
    except OSError:
        return None
    try:
        return os.stat(name or b".", dir_fd=fd, follow_symlinks=False)
    except OSError:
        return None
    finally:
        os.close(fd)


def above_changed_ns(root: int, path: bytes) -> int:
    """When the closest directory above a missing name was last changed, by the file system's clock."""
    while path:
        path = path.rpartition(b"/")[0]
        info = look(root, path)
        if info is not None and stat.S_ISDIR(info.st_mode):
            return info.st_ctime_ns
    return 0


def difference(
    path: bytes, what: Aspect, words: str, ours: os.stat_result | None, *, above_ns: int = 0, other: bytes | None = None
) -> Difference:
    """A difference with the source's state.

    Args:
        path: The name.
        what: In what it differs.
        words: The same for people.
        ours: lstat in the source; None where it has no such name.
        above_ns: Where it has none: ``above_changed_ns``.
        other: The other name of a hard link.
    """
    state: tuple[int, ...] = ()
    if ours is not None:
        state = (ours.st_dev, ours.st_ino, ours.st_mode, ours.st_size, ours.st_mtime_ns, ours.st_ctime_ns)
        above_ns = ours.st_ctime_ns
    return Difference(RelPath(path), what, words, None if other is None else RelPath(other), state, above_ns)
