"""A place as a handler's driver sees it: its monitor, and what is there."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Protocol

from instep.daemon.build import build_event_monitor
from instep.linux.openat import listed, still_names
from instep.paths import RelPath
from instep.ports import Monitor, Place


class Sight(Protocol):
    """One place; here, or with the eyes of a helper that has the rights."""

    monitor: Monitor

    def open(self) -> None:
        """Begin to watch.

        Raises:
            OperatorError: it cannot be watched.
        """

    def is_there(self) -> bool:
        """Whether the place still is the directory that is watched; an unmounted one is empty, and must not count."""

    def listed(self, path: RelPath) -> Sequence[tuple[bytes, bool]]:
        """The names in a directory, in order, each with whether it is a directory; none where it cannot be read."""

    def close(self) -> None:
        """Watch no more; may be called twice."""


class OwnSight:
    """With the rights of this process."""

    def __init__(self, place: Place) -> None:
        """Nothing is opened."""
        self.monitor = build_event_monitor(place)
        self._path = place.root
        self.root = -1
        """A descriptor of the place, while it is open."""

    def open(self) -> None:
        """See ``Sight``."""
        self.monitor.start()
        self.root = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def is_there(self) -> bool:
        """As above."""
        return still_names(self._path, self.root)

    def listed(self, path: RelPath) -> Sequence[tuple[bytes, bool]]:
        """As above."""
        return listed(self.root, path)

    def close(self) -> None:
        """As above."""
        self.monitor.close()
        if self.root >= 0:
            os.close(self.root)
            self.root = -1
