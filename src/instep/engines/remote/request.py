"""What is to be done about which path, and the frames that it becomes."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import NamedTuple

from instep.engines.remote import agent
from instep.paths import Learned

FRAME_BYTES = 256 << 10
FRAME_OPERATIONS = 128


class Task(enum.IntEnum):
    """What to do about one path."""

    NAME = 0
    """Bring this one name in step."""
    WHOLE = 1
    """The same; a directory with all that is below it."""
    ENTRIES = 2
    """The same; of a directory the names in it, and what is new."""
    WRITE = 3
    """Send this file whole, whatever the target has."""
    FRESH = 4
    """Fill this directory, which the target has only just got."""
    CHECK = 5
    """Compare this directory, and those below it."""
    CHECK_ENTRIES = 6
    """Compare this directory alone."""
    DIFFER = 7
    """Bring this directory in step with its listing at hand, and those below it."""
    DIFFER_ENTRIES = 8
    """The same without those below it."""
    ATTRIBUTES = 9
    """The attributes of this directory."""
    BELOW = 10
    """Compare the directories below this one, many at a time; itself it is equal."""
    UNFILLED = 11
    """As NAME, where FRESH found no directory: one waits out of sight at the target to be filled; not for ever."""


class Item(NamedTuple):
    """One path to be worked on."""

    task: Task
    path: bytes
    content: bool = True
    """Its content may have been touched though size and time agree."""
    tries: int = 0
    listing: Mapping[bytes, agent.Entry] | None = None
    names: tuple[bytes, ...] = ()
    """BELOW: the subdirectories to begin with. NAME: what this one is joined to."""
    leads: bool = False
    """It may have other names, and is brought over all the same: those are dealt with by whoever asked for it."""


class Sent(NamedTuple):
    """One operation on its way, and why it was sent."""

    code: int
    path: bytes
    item: Item
    size: int = 0
    """Bytes of content in it; of CHECK: entries."""
    racy: bool = False
    """The source changed while it was read."""
    below: tuple[bytes, ...] = ()
    """CHECK: the directories in it. BELOW: the paths of those that are compared."""
    rest: tuple[bytes, ...] = ()
    """BELOW: the paths of those that are next."""
    learned: tuple[Learned, ...] = ()
    """CHECK, BELOW: what is known of these directories, should they be equal."""
    record: bytes = b""
    """PUT: what is remembered of the file, once the target has it."""


class Frame:
    """Operations for one frame, gathered."""

    __slots__ = ("_directory", "is_weighty", "operations", "parts", "serial", "size")

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.operations: list[Sent] = []
        self.size = 0
        self.serial = 0
        """Which one of its job it is, once it was sent."""
        self.is_weighty = False
        """It says little and asks for much: nothing else should wait for that."""
        self._directory: bytes | None = None

    @property
    def is_full(self) -> bool:
        """No more should go into it."""
        return self.is_weighty or self.size >= FRAME_BYTES or len(self.operations) >= FRAME_OPERATIONS

    def enter(self, directory: bytes, item: Item) -> None:
        """What follows is about names in this directory."""
        if directory != self._directory:
            self.add(Sent(agent.CD, directory, item), directory)
            self._directory = directory

    def add(self, sent: Sent, name: bytes, *rest: bytes, flags: int = 0) -> None:
        """One operation; ``rest`` in pieces."""
        length = 0
        for piece in rest:
            length += len(piece)
        head = agent.OPERATION.pack(sent.code, flags, len(name), length) + name
        self.parts.append(head)
        self.parts += rest
        self.operations.append(sent)
        self.size += len(head) + length
        if sent.code == agent.MOVE:
            self._directory = None  # The agent lets go of its directory before it renames one.
