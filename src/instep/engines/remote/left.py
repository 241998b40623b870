"""Large files as they were left at the target: with their digests here, a change costs no reading over there.

Whether it still is that file, the agent says: a token stands for its inode, size and times.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from instep.engines.remote import agent

KEPT_BYTES = 4 << 20
"""Digests of 32 GiB."""


class Left(NamedTuple):
    """One file."""

    token: bytes
    digests: bytes
    """Of its blocks, one after the other."""

    def covers(self, size: int) -> bool:
        """Whether these are the digests of all blocks of a file of this size."""
        return len(self.digests) == -(-size // agent.BLOCK) * agent.DIGEST


class AsLeft:
    """A bounded memory of them, by path; lasts as long as the connection whose digests they are."""

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, Left] = OrderedDict()
        self._bytes = 0

    def take(self, path: bytes) -> Left | None:
        """What was left under this path; forgotten, for it is about to change."""
        left = self._kept.pop(path, None)
        if left is not None:
            self._bytes -= len(left.digests)
        return left

    def keep(self, path: bytes, left: Left, size: int) -> None:
        """Remember it, at the cost of what was left longest ago; not if ``size`` has blocks without digests."""
        self.take(path)
        if not left.covers(size) or len(left.digests) > KEPT_BYTES:
            return
        self._kept[path] = left
        self._bytes += len(left.digests)
        while self._bytes > KEPT_BYTES:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= len(oldest.digests)
