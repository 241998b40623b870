"""What has several names, from the first of them to the last: who shares an inode with whom on which side."""

from __future__ import annotations

import os

from instep.engines.remote import agent
from instep.linux.look import difference
from instep.model import Aspect, Difference
from instep.paths import RelPath

Inode = tuple[int, ...]
_Known = dict[Inode, tuple[bytes, Inode, int]]


class Twins:
    """What was met in one comparison."""

    def __init__(self) -> None:
        self._ours: _Known = {}
        self._theirs: _Known = {}

    def note(self, path: bytes, ours: Inode, names: int, theirs: agent.Entry) -> tuple[bytes, bool] | None:
        """The name seen before that shares its file on one side only, and whether that is the source's.

        Args:
            path: A name of a file, on both sides.
            ours: Device and inode.
            names: How many it has here.
            theirs: What the target has.
        """
        there = (theirs.st_ino,)
        apart = _note(self._ours, path, ours, names, there)
        joined = _note(self._theirs, path, there, theirs.st_nlink, ours)
        if apart is not None:
            return apart, True
        return None if joined is None else (joined, False)


def _note(known: _Known, path: bytes, this: Inode, names: int, that: Inode) -> bytes | None:
    """The first name of this file, if what stands for it on the other side is another file than for this name."""
    if names < 2:
        return None
    first, across, left = known.get(this, (path, that, names))
    if left > 1:
        known[this] = (first, across, left - 1)
    else:
        known.pop(this, None)  # All its names have been seen.
    return first if across != that else None


def linked(path: bytes, other: bytes, joined: bool, ours: os.stat_result, one: Difference | None) -> Difference:  # noqa: FBT001
    """That two names are one file on one side only (``joined``: the source's), with what else differs."""
    shown = os.fsdecode(other)
    words = f"the same file as {shown}, " + ("but not at the target" if joined else "but only at the target")
    if one is None:
        return difference(path, Aspect.HARD_LINK, words, ours, other=other)
    return one._replace(what=one.what | Aspect.HARD_LINK, text=f"{one.text}; {words}", other=RelPath(other))
