"""What the kernel remembers of files: let it be forgotten, so that the disk itself is read."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Sequence

from instep.engines.native.small import READ
from instep.linux.openat import open_directory
from instep.model import Change
from instep.paths import Scope, is_below


class Distrusted:
    """What is to be read from the disk itself when it is compared next.

    It is forgotten right before that: a file may be on its way under a temporary name when a loss is told, and part of
    it be lost already. Filled by one thread, emptied by another.
    """

    def __init__(self) -> None:
        self._paths: dict[bytes, bool] = {}
        """And whether with all that is below."""

    def add(self, changes: Sequence[Change]) -> None:
        """These come back, each with its content to be compared."""
        self._paths |= {change.path: change.scope is Scope.TREE for change in changes}

    def concerns(self, changes: Sequence[Change]) -> bool:
        """Whether ``forget`` has anything to do before these are worked on. Of no cost while nothing was lost."""
        paths = self._paths
        return bool(paths) and any(change.path in paths or change.scope is Scope.TREE for change in changes)

    def forget(self, root: int, changes: Sequence[Change]) -> None:
        """What is about to be compared is forgotten. Blocks as long as it takes to open all these files."""
        trees = [change.path for change in changes if change.content and change.scope is Scope.TREE]
        entries = {change.path for change in changes if change.content}
        for path, below in list(self._paths.items()):
            if path in trees or is_below(path, trees) or (path in entries and not below):
                del self._paths[path]
                forget(root, path, below=below)


def forget(root: int, path: bytes, *, below: bool) -> None:
    """Forget the contents of this file below ``root``, and of all files in it if it is a directory and ``below``.

    Only what has been written to the disk, or was lost on the way there, can be forgotten. What is not there, or may
    not be read, is passed over. Never follows a link. Blocks.
    """
    parent, _, name = path.rpartition(b"/")
    todo = [path] if _forget_in(root, parent, [name or b"."]) and below else []
    while todo:
        path = todo.pop()
        todo += (path + b"/" + name if path else name for name in _forget_in(root, path, None))


def _forget_in(root: int, parent: bytes, names: list[bytes] | None) -> list[bytes]:
    """Forget what is in these files of a directory, or in all of them; the names of those that are directories."""
    found: list[bytes] = []
    with contextlib.suppress(OSError):
        directory = open_directory(root, parent)
        try:
            for name in map(os.fsencode, os.listdir(directory)) if names is None else names:
                with contextlib.suppress(OSError):
                    if _forget(directory, name):
                        found.append(name)
        finally:
            os.close(directory)
    return found


def _forget(directory: int, name: bytes) -> bool:
    """Whether it is a directory."""
    info = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if stat.S_ISREG(info.st_mode):
        opened = os.open(name, READ, dir_fd=directory)
        try:
            os.posix_fadvise(opened, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(opened)
    return stat.S_ISDIR(info.st_mode)
