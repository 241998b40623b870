"""How far a process is to be shut in, and what the helper that keeps the rights does for it: values, nothing is done.

Nothing of ours is imported here. ``daemon.confine`` carries it out.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Detached(enum.Flag):
    """What of the system is no longer shared."""

    NETWORK = enum.auto()
    HOST_NAME = enum.auto()
    IPC = enum.auto()
    """Message queues, semaphores and shared memory that have names."""


NOT_DETACHED = Detached(0)


class RootChange(enum.Enum):
    """How the root directory is changed."""

    CHROOT = "chroot"
    PIVOT = "pivot"
    """The old root is gone, and the new one must be a mount point."""
    BIND = "bind"
    """The same, and it is made a mount point."""
    BIND_READ_ONLY = "bind-read-only"
    """The same, and nothing can be written in it, but to what is mounted below it."""


class Inheritance(enum.Enum):
    """Which capabilities programs inherit that are not run as root."""

    NONE = "none"
    UNTOUCHED = "untouched"
    KEPT = "kept"
    """Those that the process keeps."""
    ALL = "all"
    """Those that it was started with."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A user and a group, by number."""

    user: int
    group: int


@dataclass(frozen=True, slots=True)
class Split:
    """The helper that keeps the rights, so that the process itself can do without any."""

    identity: Identity
    """What it runs as."""
    network: bool
    """Whether the process beside it keeps the network."""
    environment: frozenset[bytes]
    """The variables that it lets a program be given."""
    vectors: tuple[bytes, ...] | None = None
    """Regular expressions for the words of programs that it starts, each word followed by a NUL; None: any program."""


@dataclass(frozen=True, slots=True)
class Confinement:
    """In the order in which it is done."""

    detached: Detached
    optional: Detached
    """Of these, what may fail: nobody asked for it."""
    mountpoints: tuple[bytes, ...]
    """Where something stays mounted; empty: everywhere."""
    root: bytes | None
    root_change: RootChange
    directory: bytes
    """Where the process stands then, a path in the new root."""
    identity: Identity
    """What the process becomes: in effect only, as long as it starts programs itself, else for good."""
    identity_optional: bool
    """It goes on as it is where that is not permitted: nobody asked for it."""
    capabilities: frozenset[str]
    """What is kept of what is there, by the process or by its helper."""
    inheritance: Inheritance
    programs: Identity
    """What programs run as."""
    split: Split | None
    system_calls: bool
    """Only those of a program that computes and talks to its files are left to it; only beside a helper."""
    devices: bool
    """Only a few can be opened."""
    device_group: bytes | None = None
    """The control group for that, a path below the one that the process is in; None: one of its own."""
    notices: tuple[str, ...] = ()
    """What is done otherwise than was asked for, in words."""
