"""Paths, and how much is to be looked at there: what everything else speaks of.

Apart from ``model`` because a worker process, which is started for a piece of work, loads nothing that it can do
without: dataclasses alone would take it as long as 1,000 files (measured: half of its start).
"""

from __future__ import annotations

import enum
from collections.abc import Collection
from typing import NewType

RelPath = NewType("RelPath", bytes)
"""A path below the source root: no leading, trailing or doubled slash; ``b""`` is the root itself."""

ROOT = RelPath(b"")

Learned = tuple[bytes, int, bytes, list[bytes]]
"""What a directory of the source held when it was read: its path, when that began (ns, the system's clock), all of its
names as ``records`` has them, and the paths of the directories among these."""
LEARNED_BYTES_MAX = 32 << 20
"""So much of that is remembered for one batch, some 500,000 names; of the rest the index reads anew."""

TEMPORARY_PREFIX = b".instep-"
TEMPORARY_SUFFIX = b".tmp"


def is_temporary(name: bytes) -> bool:
    """True for the last component of a name that instep itself makes while it writes; such names never sync."""
    return name.startswith(TEMPORARY_PREFIX) and name.endswith(TEMPORARY_SUFFIX)


def is_within_temporary(path: bytes) -> bool:
    """True for a path that is such a name, or below one."""
    return path.find(TEMPORARY_PREFIX) >= 0 and any(is_temporary(name) for name in path.split(b"/"))


def is_within(path: bytes, above: bytes) -> bool:
    """Whether this is that path itself, or below it; all is below the root."""
    return not above or path == above or path.startswith(above + b"/")


def is_below(path: bytes, tops: Collection[bytes]) -> bool:
    """Whether one of these is above the path; the root is above all but itself."""
    while path and tops:
        path = path.rpartition(b"/")[0]
        if path in tops:
            return True
    return False


class Scope(enum.IntEnum):
    """How much has to be looked at again; a larger value includes the smaller ones."""

    ENTRY = 0
    """This one name: what it is now, or that it is gone (then with everything that was below it)."""
    LIST = 1
    """The names in this directory: what the source no longer has must go, what is new must come."""
    TREE = 2
    """Everything at and below this name."""
