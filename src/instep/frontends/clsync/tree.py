"""Looking at the watched tree: through one descriptor of its root, never through a symbolic link."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from instep.linux.openat import DIRECTORY, listed
from instep.paths import ROOT, RelPath


class Tree(Protocol):
    """What can be asked about the watched tree; here, or of a helper that has the rights."""

    def look(self, path: RelPath) -> os.stat_result | None:
        """What stands there, as lstat(2) has it; None: nothing, or it cannot be told."""

    def listed(self, path: RelPath) -> Sequence[tuple[bytes, bool]]:
        """The names in a directory, each with whether it is a directory; none where it cannot be read."""


class LocalTree:
    """A tree that this process may read."""

    def __init__(self, root: bytes) -> None:
        """OSError as open(2)."""
        self._root = os.open(root, DIRECTORY)

    def look(self, path: RelPath) -> os.stat_result | None:
        """See ``Tree``; about 2 us."""
        try:
            return os.stat(path or b".", dir_fd=self._root, follow_symlinks=False)
        except OSError:
            return None

    def listed(self, path: RelPath) -> Sequence[tuple[bytes, bool]]:
        """See ``Tree``; in the order of the names."""
        return listed(self._root, path)

    def close(self) -> None:
        """Let go of the root."""
        os.close(self._root)


def below(tree: Tree, top: RelPath, enters: Callable[[RelPath], bool]) -> Iterator[tuple[RelPath, bool]]:
    """Everything below a directory, each name with whether it is a directory; a directory comes before its content.

    Args:
        tree: where to look.
        top: the directory; it is not among what comes.
        enters: whether to look into this directory.
    """
    todo = [top]
    while todo:
        here = todo.pop()
        inside = []
        for name, is_dir in tree.listed(here):
            path = RelPath(here + b"/" + name if here != ROOT else name)
            yield path, is_dir
            if is_dir and enters(path):
                inside.append(path)
        todo += reversed(inside)
