"""What a piece of native work did, in a form that also travels between processes."""

from __future__ import annotations

from typing import Any

from instep.engines.native.extra import Extra
from instep.paths import Learned

LinkedName = tuple[bytes, int, int, int, bool]
"""(path, device, inode, number of names, whether the content may have been touched)"""


class Tally:
    """Counts, what failed, and what was left for others to do. Paths are relative to the roots."""

    # By hand: a worker would take longer to load dataclasses than to copy 1,000 files.
    __slots__ = (
        "bytes_copied",
        "compared",
        "deleted",
        "directories",
        "entries",
        "extra",
        "failures",
        "files",
        "full",
        "holds",
        "large",
        "learned",
        "levels",
        "linked",
        "planned",
        "present",
        "racy",
        "unsure",
    )

    def __init__(
        self,
        files: int = 0,
        bytes_copied: int = 0,
        entries: int = 0,
        compared: int = 0,
        deleted: int = 0,
        directories: int = 0,
        failures: list[tuple[bytes, str, bool]] | None = None,
        full: str = "",
        large: list[tuple[bytes, int]] | None = None,
        linked: list[LinkedName] | None = None,
        racy: list[bytes] | None = None,
        levels: list[tuple[bytes, bool, bool]] | None = None,
        planned: list[str] | None = None,
        present: int = 0,
        holds: bool = False,  # noqa: FBT001, FBT002  # by its name, or by all in order
        extra: list[Extra] | None = None,
        learned: list[Learned] | None = None,
        unsure: list[bytes] | None = None,
    ) -> None:
        """In the order of ``as_tuple``."""
        self.files = files
        self.bytes_copied = bytes_copied
        self.entries = entries
        """Created, changed or renamed."""
        self.compared = compared
        self.deleted = deleted
        self.directories = directories
        self.failures = failures or []
        """(path, reason, hard)"""
        self.full = full
        self.large = large or []
        """Left alone because of their size: regular files (path, bytes), directories to be removed (path, entries)."""
        self.linked = linked or []
        """Files with several names, left alone."""
        self.racy = racy or []
        """Copied whole, but the source changed meanwhile."""
        self.levels = levels or []
        """Directories still to be walked: (path, content, fresh)."""
        self.planned = planned or []
        """Dry run: what would have been done."""
        self.present = present
        """Names found in the target's directories."""
        self.holds = holds
        """Names that the source lacks are not deleted, but noted in ``extra``."""
        self.extra = extra or []
        self.learned = learned or []
        """Directories of the source that the target has just been given whole, as they were then."""
        self.unsure = unsure or []
        """Nothing was deleted there: what the source lacks may be on a file system that has just been unmounted."""

    def add(self, other: Tally) -> None:
        """Fold in another one."""
        self.files += other.files
        self.bytes_copied += other.bytes_copied
        self.entries += other.entries
        self.compared += other.compared
        self.deleted += other.deleted
        self.directories += other.directories
        self.failures += other.failures
        self.full = self.full or other.full
        self.large += other.large
        self.linked += other.linked
        self.racy += other.racy
        self.levels += other.levels
        self.planned += other.planned
        self.present += other.present
        self.extra += other.extra
        self.learned += other.learned
        self.unsure += other.unsure

    def as_tuple(self) -> tuple[Any, ...]:
        """Plain values for marshal."""
        return (
            self.files, self.bytes_copied, self.entries, self.compared, self.deleted, self.directories, self.failures,
            self.full, self.large, self.linked, self.racy, self.levels, self.planned, self.present, self.holds,
            self.extra, self.learned, self.unsure,
        )  # fmt: skip

    @classmethod
    def of(cls, values: tuple[Any, ...]) -> Tally:
        """The counterpart of ``as_tuple``."""
        return cls(*values)
