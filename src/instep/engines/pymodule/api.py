"""What a Python module for mode ``py`` or ``rsyncpy`` has to do with: all that a user's module may import from here.

A module has one of the functions ``sync`` and ``rsync``, as its mode needs, and may have ``init`` and ``deinit``::

    from collections.abc import Sequence
    from instep.engines.pymodule.api import Event, Settings

    def init(settings: Settings) -> int | None: ...
    def sync(events: Sequence[Event]) -> int | None: ...
    def rsync(include_list: bytes, exclude_list: bytes | None) -> int | None: ...
    def deinit() -> int | None: ...

None and 0 are success, any other int is an exit code, 1 to 255. An exception is a failure, code 1, and its traceback
goes to the log; ``sys.exit(n)`` is the code n. What is written with ``logging`` goes to the daemon's log, what is
printed where the daemon's own output goes. ``rsync`` gets the paths of files for rsync's ``--include-from`` and
``--exclude-from``; the second is None with ``rsync-prefer-include``.

The module runs in a process of its own, in the watched directory: a crash fails one call, and the module is loaded
anew. With ``threading`` on there is such a process for each call that goes on at the same time. TERM and INT go to all
that the module has started, and raise KeyboardInterrupt in the function that is being called.
"""

from __future__ import annotations

import enum
from typing import NamedTuple


class Kind(enum.IntEnum):
    """What a path was, or is."""

    UNKNOWN = 0
    ABSENT = 1
    FILE = 2
    """Anything but a directory."""
    DIRECTORY = 3


class Event(NamedTuple):
    """One path that changed."""

    path: bytes
    """Below the watched directory, which itself is ``b""``; absolute in a recursive call."""
    mask: int
    """What happened, as bits of inotify(7), of all events since the last call."""
    recursive: bool
    """It stands for everything below it as well."""
    old: Kind
    """What it was before the first of the events."""
    new: Kind
    """What it is after the last."""


class Settings(NamedTuple):
    """What the daemon was told."""

    watch_dir: bytes
    """Absolute."""
    destination_dir: bytes | None
    """An absolute path, or an address of another machine; None: not given."""
    label: bytes
    lists_dir: bytes | None
    retries: int
    """Tries for each call; 0: for ever."""
    debug: int
    """The level; 0: off."""
    parallel: bool
    """There may be several processes of this module at a time."""
