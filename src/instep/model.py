"""The values that travel through instep, from the kernel's report to the target's outcome.

Nothing of ours but ``paths`` is imported here, and nothing here does I/O. Paths are bytes: names on disk need not be
valid text. Times that end in ``_s`` are seconds on a monotonic clock, unless a name says otherwise.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from instep.paths import Learned, RelPath, Scope


class Report(NamedTuple):
    """What a monitor says: look at this path again. States a fact about *where*, never about *what*.

    A report may name something already gone or not yet there. The source is read when the path is synced, so
    reports need no order among themselves; only ``moved_from`` and ``content`` are hints, and both are dropped
    whenever in doubt.
    """

    path: RelPath
    scope: Scope = Scope.ENTRY
    content: bool = True
    """False only when the kernel said that nothing but attributes (mode, owner, times, xattrs) changed, or for a
    whole comparison in which equal size and time may be believed (start-up, overflow)."""
    is_dir: bool = False
    """Whether the kernel called it a directory. A hint for the filter."""
    moved_from: RelPath | None = None
    """The name it had before, when the kernel paired both ends. Reports the old name as well: one report stands for
    both."""


class EventReport(Report):
    """A report with what the kernel called it, for those who act on events; made only by monitors asked for them.

    Kernels merge events, and events may be late or missing after a loss of precision: for state, only the path counts.
    A rename whose two ends were paired is one report, under the new name, with ``moved_from``.
    """

    mask: int = 0
    """The bits of inotify(7), without IN_ISDIR; of a paired rename IN_MOVED_FROM and IN_MOVED_TO."""


class Change:
    """One dirty path in the change log; made and merged by the log alone."""

    __slots__ = ("clean_for", "content", "due_s", "first_s", "is_dir", "last_s", "moved_from", "path", "scope", "seq")

    def __init__(
        self,
        path: RelPath,
        scope: Scope = Scope.ENTRY,
        *,
        content: bool = True,
        is_dir: bool = False,
        now_s: float = 0.0,
    ) -> None:
        self.path = path
        self.scope = scope
        self.content = content
        self.is_dir = is_dir
        self.moved_from: RelPath | None = None
        self.clean_for = 0  # bit n set: for cursor n nothing was pending under moved_from when the move was noted
        self.seq = -1
        self.first_s = now_s
        self.last_s = now_s
        self.due_s = now_s

    def __repr__(self) -> str:
        moved = f" from {self.moved_from!r}" if self.moved_from is not None else ""
        return f"<{self.scope.name} {self.path!r}{moved}{'' if self.content else ' attributes'} #{self.seq}>"


class Deletions(enum.Enum):
    """Which names that the source lacks may be deleted for one batch; a name reported on its own always is."""

    LIMITED = "limited"
    """All, if a comparison of the whole tree finds no more than the limit."""
    HELD = "held"
    """None: an earlier comparison found too many, and nobody has confirmed them yet. Another one counts anew."""
    NONE = "none"
    """None, however few a comparison finds: a part of the source is missing."""
    CONFIRMED = "confirmed"
    """All."""


@dataclass(slots=True)  # not frozen: that costs 2 us, and one is made for every change
class Batch:
    """What is due now for one target. No path in it lies below a TREE of the same batch that covers it."""

    changes: tuple[Change, ...]
    now_s: float
    flushing: bool = False
    """The daemon is about to stop: big files are not put off any more."""
    moves: Mapping[RelPath, RelPath] = field(default_factory=dict)
    """New name -> old name, for changes that may be done as a rename: this target is known to hold under the old name
    what the source held there before it was moved. An engine may ignore them: both names are dirty anyway."""
    deletions: Deletions = Deletions.LIMITED


class Failure(NamedTuple):
    """One path that could not be brought over this time; it is tried again with backoff."""

    change: Change
    reason: str
    """Operator's words: what failed on which side, with the system's own text."""
    hard: bool = False
    """A retry is not expected to help (name too long, not permitted): still retried, at the slowest pace."""


class Postponed(NamedTuple):
    """One path to look at again after ``wait_s``: a big file that has not rested, or one that changed while read."""

    change: Change
    wait_s: float
    racy: bool = False
    """The copy at the target is whole, but the source changed while it was read."""


@dataclass(frozen=True, slots=True)
class Held:
    """Deletions that a comparison of the whole tree found, and that were not made because there are too many."""

    count: int
    """Names that the source lacks; what is below a directory counts."""
    of: int
    """Names found at the target, these included."""
    sample: tuple[bytes, ...]
    """Some of them: the topmost."""
    counted: bool = True
    """False: the counting was stopped, there are more."""
    source_is_empty: bool = False
    """However few they are, none is deleted."""


@dataclass(slots=True)
class Outcome:
    """What became of a batch. Every change that is not named in it is done (or had vanished, which is as good)."""

    failures: list[Failure] = field(default_factory=list)
    postponed: list[Postponed] = field(default_factory=list)
    away: str | None = None
    """Why the whole target cannot be served now. Then nothing of the batch counts as done."""
    full: str | None = None
    """The target has no space (or quota) left. Then nothing of the batch counts as done."""
    files: int = 0
    """Regular files whose content was brought over."""
    bytes_copied: int = 0
    entries: int = 0
    """Everything created, changed or renamed, files included."""
    deleted: int = 0
    held: Held | None = None
    """All of the batch was done, save these deletions."""
    learned: list[Learned] = field(default_factory=list)
    """Directories of the source that the target was given whole, as they were then."""
    learned_names: dict[bytes, bytes] = field(default_factory=dict)
    """The same of single names: what ``records`` has of them."""
    unsure: bool = False
    """Some of what was postponed was not found in the source, where a file system may have just been unmounted."""

    def add(self, other: Outcome) -> None:
        """Fold the outcome of another part of the same batch into this one."""
        self.failures += other.failures
        self.postponed += other.postponed
        self.away = self.away or other.away
        self.full = self.full or other.full
        self.files += other.files
        self.bytes_copied += other.bytes_copied
        self.entries += other.entries
        self.deleted += other.deleted
        self.held = self.held or other.held
        self.learned += other.learned
        self.learned_names.update(other.learned_names)
        self.unsure = self.unsure or other.unsure


class Landmarks(NamedTuple):
    """By what a target is known again."""

    identity: bytes
    """Stays the same as long as it is the same directory of the same file system, or the same address."""
    names: frozenset[bytes]
    """What stands in its root."""


@dataclass(slots=True)
class Progress:
    """Running totals of an engine's work, read by the progress bar; the engine only ever adds to them."""

    files: int = 0
    bytes_copied: int = 0
    entries: int = 0
    """Entries compared or brought over."""
    directories: int = 0


class MonitorStatus(NamedTuple):
    """What a monitor can say of itself for the status report."""

    watches: int
    """Kernel watches or marks held."""
    events: int
    """Kernel events read since start."""
    overflows: int
    trouble: tuple[str, ...] = ()
    """What is not watched now, and why; empty when all is well."""


class Aspect(enum.Flag):
    """In what the two sides of one name differ."""

    MISSING = enum.auto()
    """The target lacks the name; of a directory also everything below it."""
    EXTRA = enum.auto()
    """The target has a name that the source has not."""
    TYPE = enum.auto()
    SIZE = enum.auto()
    CONTENT = enum.auto()
    """Same size, other bytes."""
    LINK_TEXT = enum.auto()
    """Where a symbolic link leads."""
    DEVICE = enum.auto()
    MODE = enum.auto()
    OWNER = enum.auto()
    TIME = enum.auto()
    XATTRS = enum.auto()
    ACL = enum.auto()
    HARD_LINK = enum.auto()
    """Two names are one file on one side only."""
    UNREADABLE = enum.auto()
    """One side cannot be read, so nothing is known."""

    @property
    def words(self) -> list[str]:
        """The name of each, for logs and scripts."""
        return [str(each.name).lower().replace("_", "-") for each in type(self) if each in self]


class Difference(NamedTuple):
    """One name that a comparison found to differ."""

    path: RelPath
    what: Aspect
    text: str
    """In words, both sides where they are known."""
    other: RelPath | None = None
    """For HARD_LINK: the other name."""
    source: tuple[int, ...] = ()
    """What the name was in the source when it was looked at: equal tuples, the same object unchanged. Empty: absent."""
    changed_ns: int = 0
    """When the source was last changed there, by the wall clock of its file system: the name, or, where that is absent,
    the directory that would hold it. 0: not known."""


class Program(NamedTuple):
    """A program to be run for somebody's configuration: exactly these words, no shell unless it is one of them."""

    argv: tuple[bytes, ...]
    stdin: bytes | None = None
    """What it reads; None: our own standard input."""
    environment: Mapping[bytes, bytes] = MappingProxyType({})
    """In addition to our own."""
    output: bytes | None = None
    """The file that what it prints is appended to; None: where our own output goes."""
    capture_bytes: int = 0
    """How much of what it prints is kept for whoever asked for it, instead of being passed on."""
    timeout_s: float = float("inf")
    """After so long it is asked to end, and killed if it does not."""
    directory: bytes | None = None
    """Where it starts; None: where we are."""
    files: tuple[ListFile, ...] = ()
    user: int | None = None
    """What it runs as; None: as we do."""
    group: int | None = None


class ListFile(NamedTuple):
    """A file that is made for one run, and removed after it unless it is to be kept."""

    path: bytes
    content: bytes
    keep: bool = False


class Told(NamedTuple):
    """One path as the function of a module is told of it."""

    path: bytes
    mask: int
    recursive: bool
    old: int
    """What it was: 0 unknown, 1 absent, 2 no directory, 3 a directory."""
    new: int


class Call(NamedTuple):
    """A function of a module that was loaded for somebody's configuration, to be called."""

    events: tuple[Told, ...] = ()
    """For ``sync``."""
    include: bytes | None = None
    """For ``rsync``: the path of the list; None: ``sync`` is called."""
    exclude: bytes | None = None
    files: tuple[ListFile, ...] = ()
    timeout_s: float = float("inf")
    """After so long the process that runs it is killed."""
    environment: Mapping[bytes, bytes] = MappingProxyType({})
    """What differs from our own while it runs."""


class Bring(NamedTuple):
    """A batch for an engine that works for a handler."""

    batch: Batch
    timeout_s: float = float("inf")
    """After so long it is broken off."""


class Interrupt(NamedTuple):
    """A signal to something that runs, and all that it started."""

    number: int
    """The handler's number for it."""
    signal: int


Work = Program | Call | Bring | Interrupt
"""What a handler may ask for: a program, a function, an engine's work, or that one of these be interrupted."""


class ProgramEnd(NamedTuple):
    """How a program, or what stands in its place, ended."""

    status: int
    """The exit status; 128 + N when signal N ended it, 127 when it could not be started: as shells have it."""
    signal: int = 0
    trouble: str = ""
    """Why it could not be started."""
    errno: int = 0
    """The same as the kernel has it, where it was the kernel that did not start it."""
    output: bytes = b""
    timed_out: bool = False
    failed: tuple[RelPath, ...] = ()
    """The paths that were not brought over, where that is known of single ones."""


@dataclass(slots=True)
class Verified:
    """What came of comparing one target with the source."""

    entries: int = 0
    """Names compared."""
    differences: int = 0
    repaired: int = 0
    """Of these, brought in step since."""
    changing: int = 0
    """Names that changed in the source whenever they were looked at: not judged."""
    seconds: float = 0.0
