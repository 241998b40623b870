"""What is told to handlers: changed paths with what the kernel called the changes, OR-ed over a window of time.

Facts: the bits are those of inotify(7), as clsync passes them on; object types and flags have clsync's numbers.
"""

from __future__ import annotations

import enum

from instep.paths import RelPath


class ObjectType(enum.IntEnum):
    """What a path was or is."""

    UNKNOWN = 0
    ABSENT = 1
    FILE = 2
    """Anything but a directory."""
    DIRECTORY = 3


class Entry:
    """One path of a run. Mutable while it is collected; made once for each path, so it is kept small."""

    __slots__ = ("absolute", "mask", "new", "old", "path", "recursive")

    def __init__(
        self,
        path: RelPath,
        mask: int,
        old: ObjectType,
        new: ObjectType,
        *,
        recursive: bool = False,
        absolute: bool = False,
    ) -> None:
        self.path = path
        self.mask = mask
        """Of all events since it is collected, with IN_ISDIR."""
        self.old = old
        """What it was before the first of them."""
        self.new = new
        """What it is after the last."""
        self.recursive = recursive
        """It stands for everything below it as well."""
        self.absolute = absolute
        """It is told with its absolute path: a recursive call."""
