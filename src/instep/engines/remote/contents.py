"""What was read from the source a moment ago, for the other targets of the same mirror: each file is read once."""

from __future__ import annotations

import os
from collections import OrderedDict

KEPT_BYTES = 16 << 20

_Key = tuple[int, int, int, int, int, bool]


class Contents:
    """A bounded memory of small files, by what tells that they are unchanged; several engines' threads share it.

    Every method is one dictionary operation at a time under the interpreter's lock, and what is lost to a race of two
    is only a chance to save a read.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[_Key, tuple[bytes, bytes]] = OrderedDict()
        self._bytes = 0

    def get(self, info: os.stat_result, *, for_root: bool) -> tuple[bytes, bytes] | None:
        """Attributes (as a target gets them where we are root, or are not) and content, if they are at hand."""
        return self._kept.get(_key(info, for_root=for_root))

    def put(self, info: os.stat_result, head: bytes, data: bytes, *, for_root: bool) -> None:
        """Remember them."""
        kept = self._kept
        key = _key(info, for_root=for_root)
        if key in kept:
            return
        kept[key] = (head, data)
        self._bytes += len(data) + len(head)
        while self._bytes > KEPT_BYTES and len(kept) > 1:
            _, (old_head, old_data) = kept.popitem(last=False)
            self._bytes -= len(old_data) + len(old_head)


def _key(info: os.stat_result, *, for_root: bool) -> _Key:
    return info.st_dev, info.st_ino, info.st_mtime_ns, info.st_ctime_ns, info.st_size, for_root
