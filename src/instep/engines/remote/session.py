"""What all parts of one remote engine need to know."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

from instep.core.filters import Filter
from instep.engines.mounted import Mounted
from instep.engines.remote import agent
from instep.engines.remote.connection import Far
from instep.engines.remote.left import AsLeft
from instep.engines.remote.owners import Numbers
from instep.linux.openat import open_directory
from instep.paths import RelPath
from instep.rules import Preserve, Rule

LARGE_BYTES = 8 << 20
"""From this size on a file is not brought over among others."""
INLINE_BYTES = 512 << 10
"""Below this size a file travels in one frame."""
DELTA_BYTES = 4 << 20
"""From this size on only what differs is sent, if the target has an older version."""
VERIFY_BYTES = 8 << 10
"""From this size on a digest is sent first, where the content is most likely equal."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What was asked for."""

    preserve: Preserve
    rules: tuple[Rule, ...] = ()
    delete: bool = True
    delete_excluded: bool = False
    one_file_system: bool = False
    dry_run: bool = False
    inplace_bytes: float = math.inf
    large_bytes: float = LARGE_BYTES
    bandwidth_bytes_per_s: float = math.inf
    umask: int = 0o022
    learns: bool = False
    """Whether somebody wants to know what was read in the source (``Outcome.learned``)."""

    @property
    def keep(self) -> int:
        """What is kept, as the agent is told."""
        preserve = self.preserve
        return (
            agent.KEEP_OWNER * preserve.owner
            | agent.KEEP_MODE * preserve.mode
            | agent.KEEP_TIMES * preserve.times
            | agent.KEEP_XATTRS * preserve.xattrs
            | agent.KEEP_ACLS * preserve.acls
            | agent.KEEP_SPARSE * preserve.sparse
        )


class Session:
    """The source's root, what was asked for, and whom it is for."""

    def __init__(self, source: int, settings: Settings, far: Far, mounted: Mounted | None = None) -> None:
        """``mounted``: what is mounted in the source; None: nothing that counts."""
        self.source = source
        self.mounted = Mounted(source) if mounted is None else mounted
        self.settings = settings
        self.far = far
        self.left = AsLeft()
        self.filter = Filter(settings.rules)
        self.filters_nothing = self.filter.is_trivial
        self.protects = not self.filters_nothing and not settings.delete_excluded
        """Names at the target may have to stay though the source has none of them."""
        self.keep = settings.keep
        self.device = os.fstat(source).st_dev
        self.looks_at_xattrs = bool(self.keep & (agent.KEEP_XATTRS | agent.KEEP_ACLS))
        self.owners = far.is_root and settings.preserve.owner
        self.numbers: Numbers | None = None
        """What the owners here have for numbers over there; None: the same."""

    def excludes(self, parent: bytes, name: bytes, *, is_dir: bool) -> bool:
        """Whether the filter leaves out this entry of an included directory."""
        return self.filter.excludes_entry(RelPath(parent), name, is_dir)

    def open(self, directory: bytes) -> int:
        """A descriptor of a directory of the source. OSError as ``open_directory``."""
        return open_directory(self.source, directory)

    def attributes(self, info: os.stat_result, xattrs: bytes = b"") -> bytes:
        """The attributes as an operation carries them."""
        return self.owned(self.raw_attributes(info, xattrs))

    def owned(self, attributes: bytes) -> bytes:
        """Attributes with the numbers that their owners have over there."""
        return attributes if self.numbers is None else self.numbers.put_in(attributes)

    def owner(self, entry: agent.Entry | os.stat_result) -> tuple[int, int]:
        """User and group over there of what is in the source."""
        own = entry.st_uid, entry.st_gid
        return own if self.numbers is None else self.numbers.of(*own)

    def raw_attributes(self, info: os.stat_result, xattrs: bytes = b"") -> bytes:
        """The attributes with the numbers that their owners have here: all targets share them."""
        return (
            agent.ATTRIBUTES.pack(
                info.st_mode, info.st_uid, info.st_gid, info.st_atime_ns, info.st_mtime_ns, len(xattrs)
            )
            + xattrs
        )

    def xattrs(self, where: int | str) -> bytes:
        """The xattrs that are kept, packed. OSError when what is looked at is gone."""
        if not self.looks_at_xattrs:
            return b""
        found = agent.xattrs_of(where, self.keep, is_root=self.far.is_root)
        return agent.pack_xattrs(found) if found else b""


def join(parent: bytes, name: bytes) -> bytes:
    """A path of two parts."""
    return parent + b"/" + name if parent else name
