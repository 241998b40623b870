"""One source and one target as two open directories, with what was asked for: shared by all native work."""

from __future__ import annotations

import itertools
import math
import os
from typing import NamedTuple

from instep.core.filters import Filter
from instep.engines.mounted import Mounted
from instep.engines.native.attributes import Attributes
from instep.engines.native.content import Brake
from instep.linux.openat import open_directory
from instep.paths import TEMPORARY_PREFIX, TEMPORARY_SUFFIX
from instep.rules import Preserve, Rule

LARGE_BYTES = 8 << 20
"""From this size on a copy does not belong between small ones: it gets a thread of its own."""


class Settings(NamedTuple):
    """What all parts of a native engine need to know; travels to the worker processes."""

    preserve: Preserve
    rules: tuple[Rule, ...] = ()
    delete: bool = True
    delete_excluded: bool = False
    one_file_system: bool = False
    dry_run: bool = False
    """See ``spec.MirrorSpec``."""
    inplace_bytes: float = math.inf
    large_bytes: float = LARGE_BYTES
    bandwidth_bytes_per_s: float = math.inf
    learns: bool = False
    """Whether somebody wants to know what was read in the source (``Outcome.learned``)."""
    umask: int = 0o022
    """The user's, for modes that are not preserved. The processes that write run with an umask of 0."""
    token: str = ""
    """Marks this daemon's temporary names, so that only those of dead ones are swept."""


class Session:
    """Two root descriptors, and how to work between them. The descriptors belong to the caller."""

    def __init__(
        self,
        source: int,
        target: int,
        settings: Settings,
        group: int = -1,
        *,
        removes_max: float = math.inf,
        mounted: Mounted | None = None,
    ) -> None:
        """Begin.

        Args:
            source: The root of the source.
            target: The root of the target.
            settings: What was asked for.
            group: The fanotify group that listens on the target's file system too; -1 where there is none.
            removes_max: Directories with more below them than this are left to others to remove.
            mounted: What is mounted in the source; None: nothing that counts.
        """
        self.source = source
        self.target = target
        self.settings = settings
        self.group = group
        self.removes_max = removes_max
        self.mounted = Mounted(source) if mounted is None else mounted
        self.filter = Filter(settings.rules)
        self.filters_nothing = self.filter.is_trivial
        self.attributes = Attributes(settings.preserve, umask=settings.umask)
        throttled = settings.bandwidth_bytes_per_s < math.inf
        self.brake = Brake(settings.bandwidth_bytes_per_s) if throttled else None
        self.device = os.fstat(source).st_dev
        self._mark = TEMPORARY_PREFIX + settings.token.encode() + b"-%x-" % os.getpid()
        self._numbers = itertools.count()
        self._own = TEMPORARY_PREFIX + settings.token.encode() + b"-"

    def temporary(self) -> bytes:
        """A name that no one else uses, and that never syncs."""
        return b"%s%x%s" % (self._mark, next(self._numbers), TEMPORARY_SUFFIX)

    def is_stale_temporary(self, name: bytes) -> bool:
        """Left behind by a daemon, or by a worker of ours, that was killed."""
        if not (name.startswith(TEMPORARY_PREFIX) and name.endswith(TEMPORARY_SUFFIX)):
            return False
        if not name.startswith(self._own):
            return True
        try:
            process = int(name[len(self._own) :].partition(b"-")[0], 16)
        except ValueError:
            return True  # Not made by us, in spite of its name.
        return not os.path.exists(f"/proc/{process}")

    def directories(self) -> Directories:
        """Descriptors of directory pairs for one stretch of work."""
        return Directories(self.source, self.target)

    def excludes(self, parent: bytes, name: bytes, *, is_dir: bool) -> bool:
        """Whether the filter leaves out this entry of an included directory."""
        return self.filter.excludes_entry(parent, name, is_dir)  # type: ignore[arg-type]  # parent is a RelPath


class Directories:
    """Descriptors of the same directory on both sides, opened beneath the roots without following any link.

    Kept for one stretch of work only: a directory held open longer could be moved out of the root meanwhile, and a
    write through its descriptor would land outside.
    """

    def __init__(self, source: int, target: int) -> None:
        self._roots = (source, target)
        self._sources: dict[bytes, int] = {}
        self._targets: dict[bytes, int] = {}

    def source(self, path: bytes) -> int:
        """The source directory. OSError as ``open_directory``."""
        if not path:
            return self._roots[0]
        fd = self._sources.get(path)
        if fd is None:
            if len(self._sources) >= 128:
                self._drop(self._sources)
            fd = self._sources[path] = open_directory(self._roots[0], path)
        return fd

    def target(self, path: bytes) -> int:
        """The target directory. OSError as ``open_directory``."""
        if not path:
            return self._roots[1]
        fd = self._targets.get(path)
        if fd is None:
            if len(self._targets) >= 128:
                self._drop(self._targets)
            fd = self._targets[path] = open_directory(self._roots[1], path)
        return fd

    def forget_target(self, path: bytes) -> None:
        """A target directory was renamed or removed: nothing at or below it may be used any more."""
        below = path + b"/"
        for known in [known for known in self._targets if known == path or known.startswith(below)]:
            os.close(self._targets.pop(known))

    def close(self) -> None:
        """Let go of all."""
        self._drop(self._sources)
        self._drop(self._targets)

    @staticmethod
    def _drop(fds: dict[bytes, int]) -> None:
        for fd in fds.values():
            os.close(fd)
        fds.clear()


def join(parent: bytes, name: str | bytes) -> bytes:
    """A path of two parts; the name may come from ``os.scandir`` of a descriptor, which gives text."""
    name = os.fsencode(name)
    return parent + b"/" + name if parent else name


def reason_of(error: OSError, what: str) -> str:
    """What failed, in the operator's words."""
    return f"{what}: {error.strerror or error}"
