"""What a front end produces and the daemon runs: frozen descriptions of mirrors. No defaults are repeated elsewhere."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from instep.rules import Preserve, Rule


class EngineName(enum.Enum):
    """A way to a target; ``AUTO``: native for a local directory, remote where ssh leads, rsync for the rest."""

    AUTO = "auto"
    NATIVE = "native"
    REMOTE = "remote"
    RSYNC = "rsync"


class Compress(enum.Enum):
    """Whether what goes to another machine is packed."""

    AUTO = "auto"
    ON = "on"
    OFF = "off"


class MonitorName(enum.Enum):
    """A kernel facility; ``AUTO`` takes the best that works here."""

    AUTO = "auto"
    FANOTIFY = "fanotify"
    INOTIFY = "inotify"
    POLL = "poll"


class InitialSync(enum.Enum):
    """What happens to the targets when a mirror starts."""

    AUTO = "auto"
    """By the index where it can be believed, else all is compared."""
    FULL = "full"
    """All is compared."""
    INDEX = "index"
    """By the index, or not at all."""
    NONE = "none"
    """The targets are taken to be equal."""


class Pace(NamedTuple):
    """When a changed path is due. All in seconds and bytes."""

    quiet_s: float = 0.0
    """A path is due once unchanged for this long; 0 means at once."""
    hold_s: float = 10.0
    """… or this long after its first change, even if it never rests."""
    big_bytes: float = math.inf
    """From this size on a file has its own pace."""
    big_quiet_s: float = 5.0
    big_hold_s: float = 60.0
    spacing_s: float = 0.0
    """At least this long between the starts of two batches of one target."""


class RuleSource(NamedTuple):
    """One filter option as it was given: a rule, or a pattern file."""

    include: bool
    """What a pattern without ``+`` or ``-`` in front means."""
    text: bytes
    """The rule, or the absolute path of the file."""
    is_file: bool = False


class MaxDelete(NamedTuple):
    """How many names one comparison of the whole tree may delete at a target: the larger of the two.

    An empty source says none: so looks one that is not mounted, or was lost, however few names its target has.
    """

    percent: float = 50.0
    """Of the names that the target holds."""
    least: float = 1000
    """So many in any case."""

    @property
    def is_off(self) -> bool:
        """There is no limit."""
        return self.percent >= 100 or math.isinf(self.least)

    def most(self, kept: int, *, source: int) -> float:
        """So many may be deleted where ``kept`` names stay, and the source has ``source`` names."""
        if self.is_off:
            return math.inf
        if not source:
            return 0
        return max(self.least, kept * self.percent / (100 - self.percent))


class Rounds(NamedTuple):
    """How often a running mirror compares its targets, whatever was reported."""

    every_s: float
    """From the end of one comparison to the start of the next."""
    checksum: bool = False
    """Contents too, not only what a listing shows."""


class TargetSpec(NamedTuple):
    """One target."""

    address: bytes
    """A local directory (absolute, no trailing slash) or what rsync takes: ``host:/path``, ``rsync://…``,
    ``host::module/path``."""
    engine: EngineName = EngineName.AUTO

    @property
    def is_local(self) -> bool:
        """Whether the address is a directory of this machine. As rsync has it: no colon before the first slash."""
        return b":" not in self.address.partition(b"/")[0]

    @property
    def is_daemon(self) -> bool:
        """Whether the address is an rsync daemon's: ``rsync://…``, or two colons before the first slash."""
        host_port = self.address.partition(b"/")[0]
        after_host = host_port.rpartition(b"]")[2].partition(b":")[2]
        return self.address.startswith(b"rsync://") or after_host.startswith(b":")


@dataclass(frozen=True, slots=True)
class MirrorSpec:
    """One source and its targets, with all that was asked for."""

    source: bytes
    """Absolute path of a directory, no trailing slash."""
    targets: tuple[TargetSpec, ...]
    monitor: MonitorName = MonitorName.AUTO
    pace: Pace = field(default_factory=Pace)
    rules: tuple[Rule, ...] = ()
    rule_sources: tuple[RuleSource, ...] = ()
    """What ``rules`` was made from, in the order given; the files in it are read again on SIGHUP."""
    preserve: Preserve = field(default_factory=Preserve)
    delete: bool = True
    delete_excluded: bool = False
    max_delete: MaxDelete = field(default_factory=MaxDelete)
    force_delete: bool = False
    """The first comparison may delete as much as it finds."""
    one_file_system: bool = False
    initial_sync: InitialSync = InitialSync.AUTO
    verify: Rounds | None = None
    """None: only what is reported, and what the comparison at start finds."""
    once: bool = False
    dry_run: bool = False
    bandwidth_bytes_per_s: float = math.inf
    inplace_bytes: float = math.inf
    """From this size on a changed file is patched in place instead of replaced: fast, but not atomic."""
    compress: Compress = Compress.AUTO
    """For the remote engine."""
    rsync_args: tuple[bytes, ...] = ()
    rsync_program: bytes = b"rsync"
    """A name to be looked up in PATH, or an absolute path."""
    ssh: tuple[bytes, ...] = (b"ssh",)
    """The ssh command with its own options, as words."""
    password_file: bytes = b""
    """Absolute path of a file whose first line is the password for rsync daemons; empty: none is sent."""
    workers: int = 2
    """Processes that copy in bulk for the native engine."""
    poll_s: float = 2.0
    """Time between two scans of the poll monitor."""
    state_dir: bytes = b""
    """Absolute path of the directory for what is remembered between two runs; empty: nothing is."""
    state_needed: bool = False
    """It was asked for by name: not being able to use it is an error."""


class VerificationSpec(NamedTuple):
    """One comparison of a mirror's targets with its source."""

    mirror: MirrorSpec
    checksum: bool = False
    """Contents too, not only what a listing shows."""
    repair: bool = False
    """What differs is brought in step."""


class ModuleKind(enum.Enum):
    """What a module of functions is written in."""

    SHARED_OBJECT = "shared-object"
    """C, or anything else with clsync's binary interface."""
    PYTHON = "python"


class ModuleSpec(NamedTuple):
    """A module with functions that act on changes, and what it is told at its start."""

    kind: ModuleKind
    path: bytes
    """Absolute."""
    takes_lists: bool
    """Its function ``rsync`` is called, with the paths of two lists; else ``sync``, with the changed paths."""
    watch_dir: bytes
    """Absolute; its processes start there."""
    destination_dir: bytes | None = None
    label: bytes = b""
    lists_dir: bytes | None = None
    retries: int = 1
    flags: Mapping[int, int] = MappingProxyType({})
    """clsync's options by the numbers that modules know them by."""
    processes: int = 1
    """How many calls may go on at once: each has a process of its own. 1: one process for life, unless it crashes."""
