"""What stands under a name below an open root: looked at through no link, and never outside."""

from __future__ import annotations

import os
import stat

from instep.linux.openat import open_directory
from instep.model import Aspect, Difference
from instep.paths import RelPath

_KINDS = {
    stat.S_IFREG: "a file",
    stat.S_IFDIR: "a directory",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a fifo",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}
_GRAINS = ((100, 100), (1000, 1000), (10**7, 10**7), (10**9, 10**7), (2 * 10**9, 10**7))
"""Steps in which file systems keep a modification time, and those in which they then keep the time of an inode."""


def kind_words(mode: int) -> str:
    """What it is."""
    return _KINDS.get(stat.S_IFMT(mode), "something")


def missing_words(mode: int) -> str:
    """That the target lacks it."""
    return f"missing: {kind_words(mode)}" + (" with all below it" if stat.S_ISDIR(mode) else "")


def extra_words(*, is_dir: bool) -> str:
    """That only the target has it."""
    return "only at the target" + (", with all below it" if is_dir else "")


def time_words(time_ns: int) -> str:
    """A time stamp."""
    return f"{time_ns // 10**9}.{time_ns % 10**9:09}"


def as_good_as_it_gets(ours_ns: int, theirs_ns: int, changed_ns: int) -> bool:
    """Whether the target's file system can only hold our modification time as the target has it.

    ``changed_ns``: the time of its inode there.
    """
    return any(theirs_ns == ours_ns - ours_ns % grain and changed_ns % mark == 0 for grain, mark in _GRAINS)


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
