"""What of an object has to differ before it counts as changed: ``modification-signature``.

Facts (the manual page of clsync 0.4.5 and its observed behaviour): the chosen fields of lstat(2) are remembered from an
object's first event on; a later event with the same values is dropped. clsync goes on remembering what is deleted, and
then misses what is made anew under that name; here it is forgotten, with everything below it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from operator import attrgetter
from typing import Final

from instep.paths import ROOT, RelPath

FIELDS: Final = {
    "dev": "st_dev",
    "ino": "st_ino",
    "mode": "st_mode",
    "nlink": "st_nlink",
    "uid": "st_uid",
    "gid": "st_gid",
    "rdev": "st_rdev",
    "size": "st_size",
    "blksize": "st_blksize",
    "blocks": "st_blocks",
    "atime": "st_atime_ns",
    "mtime": "st_mtime_ns",
    "ctime": "st_ctime_ns",
}
"""From the names of fields to those of ``os.stat_result``."""


class Signatures:
    """The chosen fields of every object that had an event; about 300 bytes for each."""

    def __init__(self, fields: Iterable[str]) -> None:
        chosen = sorted(FIELDS[name] for name in fields)
        self.is_trivial = not chosen
        """No field was chosen: everything counts as changed."""
        self._values = attrgetter(*chosen) if chosen else None
        # By directory, so that one can be forgotten as a whole. Every directory here stands in its parent's names as
        # well, with None where it had no event itself.
        self._known: dict[bytes, dict[bytes, object]] = {}

    def is_new(self, path: RelPath, info: os.stat_result) -> bool:
        """Whether the object differs from what is remembered of it; remembers it."""
        if self._values is None:
            return True
        values = self._values(info)
        parent, _, name = path.rpartition(b"/")
        names = self._known.get(parent)
        if names is None:
            names = self._directory(parent)
        if names.get(name) == values:
            return False
        names[name] = values
        return True

    def forget(self, path: RelPath) -> None:
        """The object is gone, or stands under another name now, and all that was below it."""
        parent, _, name = path.rpartition(b"/")
        names = self._known.get(parent)
        if path == ROOT:
            self._known.clear()
        elif names is not None and name in names:
            del names[name]
            gone = [bytes(path)]
            while gone:
                above = gone.pop()
                gone += [above + b"/" + below for below in self._known.pop(above, ())]

    def _directory(self, path: bytes) -> dict[bytes, object]:
        """The names remembered in a directory, which is made known to those above it."""
        made: dict[bytes, object] = {}
        self._known[path] = made
        while path:
            parent, _, name = path.rpartition(b"/")
            above = self._known.get(parent)
            if above is not None:
                above.setdefault(name, None)
                break
            self._known[parent] = {name: None}
            path = parent
        return made
