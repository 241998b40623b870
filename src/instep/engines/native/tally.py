"""What a piece of native work did, in a form that also travels between processes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from instep.engines.native.extra import Extra

LinkedName = tuple[bytes, int, int, int, bool]
"""(path, device, inode, number of names, whether the content may have been touched)"""


@dataclass(slots=True)
class Tally:
    """Counts, what failed, and what was left for others to do. Paths are relative to the roots."""

    files: int = 0
    bytes_copied: int = 0
    entries: int = 0
    """Created, changed or renamed."""
    compared: int = 0
    deleted: int = 0
    directories: int = 0
    failures: list[tuple[bytes, str, bool]] = field(default_factory=list)
    """(path, reason, hard)"""
    full: str = ""
    large: list[tuple[bytes, int]] = field(default_factory=list)
    """Regular files left alone because of their size: (path, bytes)."""
    linked: list[LinkedName] = field(default_factory=list)
    """Files with several names, left alone."""
    racy: list[bytes] = field(default_factory=list)
    """Copied whole, but the source changed meanwhile."""
    levels: list[tuple[bytes, bool, bool]] = field(default_factory=list)
    """Directories still to be walked: (path, content, fresh)."""
    planned: list[str] = field(default_factory=list)
    """Dry run: what would have been done."""
    present: int = 0
    """Names found in the target's directories."""
    holds: bool = False
    """Names that the source lacks are not deleted, but noted in ``extra``."""
    extra: list[Extra] = field(default_factory=list)

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

    def as_tuple(self) -> tuple[Any, ...]:
        """Plain values for marshal."""
        return tuple(getattr(self, name) for name in self.__slots__)

    @classmethod
    def of(cls, values: tuple[Any, ...]) -> Tally:
        """The counterpart of ``as_tuple``."""
        return cls(*values)
