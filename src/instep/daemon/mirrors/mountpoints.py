"""File systems mounted in the source, and those that are missing: in their place is what they had covered.

Mostly that is an empty directory, and believing it would empty that place at every target. So nothing in it is brought
over until there is a file system again, its directory is gone as well, or the operator confirms it; and till then no
comparison with a target deletes anything. Which ones there were is remembered, for they may be missing at the next
start; without a state directory it is not.

A directory above such a place may be renamed, as a whole with the emptiness in it. So the place is followed, and what a
target still has under the old name stays there until nothing is missing any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import Self

from instep.core.filters import Filter
from instep.daemon.state import StateDirectory, places_key
from instep.daemon.targets.deletions import how_to_confirm
from instep.daemon.targets.target import Target
from instep.engines.mounted import MISSING, Mounted
from instep.linux.handles import path_of
from instep.linux.mount_watch import MountWatch
from instep.linux.openat import has_directory, open_directory
from instep.logs import fields
from instep.model import Report
from instep.paths import RelPath, is_within
from instep.spec import MirrorSpec

log = logging.getLogger(__name__)

_NOT_HELD = -1
"""In the place of a descriptor, where what is missing is known by its path alone."""

SAID_S = 1.0
"""Who unmounts a file system often removes its place as well, right after that: then there is nothing to say."""


class MountGuard:
    """Keeps a mirror's targets from losing what is on file systems that are missing; lives in its loop."""

    def __init__(
        self, spec: MirrorSpec, source: int, filters: Filter, state: StateDirectory | None, known: AbstractSet[bytes]
    ) -> None:
        """Begin with what is mounted, was at the last end, and is ``known`` from elsewhere.

        ``source``: a descriptor of the source's root, which stays the caller's.
        """
        memory = None if state is None else state.path(f"{places_key(spec)}.mounts")
        self.points = MountPoints(source, lambda point: not filters.excludes(point, True), memory, known)
        if spec.force_delete:
            self.points.forget()
        self._stays = not spec.once
        self._targets: Sequence[Target] = ()
        self._told: set[RelPath] = set()
        self._saying: asyncio.TimerHandle | None = None

    @classmethod
    def of(
        cls,
        spec: MirrorSpec,
        source: int,
        filters: Filter,
        state: StateDirectory | None,
        known: AbstractSet[bytes] = frozenset(),
    ) -> Self | None:
        """One for a mirror that needs it; the arguments are those of the class."""
        if not spec.delete or spec.max_delete.is_off or spec.one_file_system:
            return None
        return cls(spec, source, filters, state, known)

    @property
    def mounted(self) -> Mounted:
        """What engines go by."""
        return self.points.mounted

    def keep(self, targets: Sequence[Target]) -> None:
        """Guard these from now on, which go by ``mounted``."""
        self._targets = targets
        for target in targets:
            target.unsure = self._look_again
        if self.points.missing:
            self._heed()
            self._say()

    def look(self, reports: Sequence[Report]) -> None:
        """To be called before these are acted upon; 1 us where nothing was mounted or unmounted."""
        self._look(renamed=bool(self.points.known) and any(report.is_dir for report in reports))

    def confirm(self) -> bool:
        """What is missing is not to come back, so it is to go at the targets; False when nothing is missing."""
        if not self.points.forget():
            return False
        self._heed()
        self._say()
        for target in self._targets:
            target.deletions.allow()
            target.compare_all()
        return True

    def close(self) -> None:
        """Watch no more."""
        if self._saying is not None:
            self._saying.cancel()
        self.points.close()

    def _look_again(self) -> None:
        """An engine did not find all as it was to be: whatever the reason is, it is known after this."""
        self._look(renamed=True)

    def _look(self, *, renamed: bool) -> None:
        if self.points.look(renamed=renamed):
            self._heed()
            self._saying = asyncio.get_running_loop().call_later(SAID_S, self._say)

    def _hides(self, path: RelPath) -> bool:
        """Whether a path is in the place of something missing; a target asks before each batch."""
        before = set(self.points.missing)
        hidden = self.points.hides(path)
        if self.points.missing != before:
            asyncio.get_running_loop().call_soon(self._another_is_missing)
        return hidden

    def _another_is_missing(self) -> None:
        self._heed()
        self._say()

    def _heed(self) -> None:
        missing = bool(self.points.missing)
        passed_over = self.points.left_behind()
        for target in self._targets:
            target.hides = self._hides if missing else None
            target.deletions.beware(missing=missing)
            if not missing and (target.deletions.held is not None or passed_over):
                target.compare_all()

    def _say(self) -> None:
        told, self._told = self._told, set(self.points.missing)
        for path in sorted(self._told - told):
            log.error(
                "file-system-missing",
                extra=fields(
                    path=path,
                    now="nothing is changed there at any target, and no comparison with one deletes anything",
                    fix=f"mount it again; if it is not to come back: {how_to_confirm(stays=self._stays)}",
                ),
            )
        for path in sorted(told - self._told):
            log.info("file-system-missing-no-more", extra=fields(path=path))


class MountPoints:
    """The places of file systems below one source, as far as they count for its targets."""

    def __init__(
        self,
        source: int,
        counts: Callable[[RelPath], bool],
        memory: bytes | None,
        remembered: AbstractSet[bytes] = frozenset(),
    ) -> None:
        """Look which there are, and which there were.

        Args:
            source: A descriptor of the source's root, which stays the caller's.
            counts: Whether what is mounted there is brought over.
            memory: A file of ours in the state directory.
            remembered: That of others, who looked at this source before.
        """
        self.mounted = Mounted(source)
        """The same for those who look up names."""
        self.known: set[RelPath] = set()
        """What is mounted, and what is missing."""
        self._missing: dict[RelPath, int] = {}  # with the directory in that place
        self._mounts: set[tuple[int, RelPath]] = set()  # what is mounted
        self._left: set[RelPath] = set()  # where they were before a directory above them was renamed
        self._source = source
        self._device = os.fstat(source).st_dev
        self._counts = counts
        self._memory = memory
        self._watch: MountWatch | None = None
        with contextlib.suppress(OSError):  # No /proc: then nobody can tell.
            self._watch = MountWatch(source)
        self.remembered = self._recall()
        """The places known; those with a slash before them are such that were left."""
        for line in self.remembered | remembered:
            if line.startswith(b"/"):
                self._left.add(RelPath(line[1:]))
            elif counts(RelPath(line)):
                self.known.add(RelPath(line))
        self._update()
        self.left_behind()  # Where nothing is missing any more, the start finds out what is left of that.

    @property
    def missing(self) -> AbstractSet[RelPath]:
        """The places of those that are missing."""
        return self._missing.keys()

    def look(self, *, renamed: bool = False) -> bool:
        """Look again, for 1 us where nothing was mounted or unmounted; whether others are missing than before.

        ``renamed``: a directory may have been, and the places are other ones.
        """
        if self._watch is None or not (self._watch.changed() or renamed):
            return False
        before = set(self._missing)
        if renamed:
            self._watch.refresh()
            for point in before:
                self._follow(point)
        self._update()
        return self._missing.keys() != before

    def forget(self) -> Sequence[RelPath]:
        """Those that are missing are not to come back; which that were."""
        gone = sorted(self._missing)
        for point in gone:
            self._drop(point)
        self._remember()
        return gone

    def left_behind(self) -> bool:
        """Whether nothing is missing any more, and what was passed over under older names is due; asked once."""
        if self._missing or not self._left:
            return False
        self._left.clear()
        self._remember()
        return True

    def close(self) -> None:
        """Look no more; may be called twice."""
        self.mounted.close()
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        for point, fd in self._missing.items():
            if fd != _NOT_HELD:
                os.close(fd)
                self._missing[point] = _NOT_HELD

    def hides(self, path: RelPath) -> bool:
        """Whether nothing is to be done about a path: it is in the place of what is missing, or was in that place.

        A place that is gone by now is missed no more.
        """
        for point in list(self._missing):
            if is_within(path, point) or is_within(point, path):
                self._follow(point)
        if any(is_within(path, point) for point in self._missing):
            return True
        return any(
            not has_directory(self._source, path)
            if is_within(point, path)
            else is_within(path, point) and not self._stands(path)
            for point in self._left
        )

    def _update(self) -> None:
        mounts = set() if self._watch is None else self._watch.mounts
        self._mounts = {mount for mount in mounts if self._counts(mount[1])}
        mounted = {point for _, point in self._mounts}
        for point in mounted & self._missing.keys():
            self._drop(point)
        for point in self.known - mounted - self._missing.keys():
            with contextlib.suppress(OSError):
                self._missing[point] = self._open(point)
        self.known = mounted | self._missing.keys()
        self._remember()

    def _open(self, point: RelPath) -> int:
        """Hold the directory in that place, to know it again under another name.

        Only on the source's own file system, which is in use anyhow: another could not be unmounted.
        """
        fd = open_directory(self._source, point)
        if os.fstat(fd).st_dev == self._device:
            return fd
        os.close(fd)
        return _NOT_HELD

    def _follow(self, point: RelPath) -> None:
        """See where the place of something missing is by now."""
        fd = self._missing[point]
        if fd == _NOT_HELD:
            if not has_directory(self._source, point):
                self._drop(point)
                self._remember()
            return
        try:
            here = self._place_of(fd)
        except OSError:
            return  # Its path is longer than the kernel tells.
        if here == point:
            return
        if here is None or here in self._missing:
            self._drop(point)
        else:
            del self._missing[point]
            self._missing[here] = fd
            self.known.discard(point)
            self.known.add(here)
            self._left.add(point)
            self._left.discard(here)
        self._remember()

    def _place_of(self, directory: int) -> RelPath | None:
        """Where in the source a directory is; None where it is removed, or outside, or does not count any more."""
        root, here = path_of(self._source), path_of(directory)
        if root is None or here is None:
            return None
        root = root.rstrip(b"/") + b"/"
        if not here.startswith(root):
            return None
        place = RelPath(here[len(root) :])
        return place if self._counts(place) and has_directory(self._source, place) else None

    def _stands(self, path: RelPath) -> bool:
        parent, _, name = path.rpartition(b"/")
        try:
            above = open_directory(self._source, parent)
        except OSError:
            return False
        try:
            os.stat(name, dir_fd=above, follow_symlinks=False)
        except OSError:
            return False
        finally:
            os.close(above)
        return True

    def _drop(self, point: RelPath) -> None:
        fd = self._missing.pop(point)
        if fd != _NOT_HELD:
            os.close(fd)
        self.known.discard(point)

    # -- memory ---------------------------------------------------------------------------------------------------

    def _recall(self) -> AbstractSet[bytes]:
        """What was ``remembered`` at the last end."""
        if self._memory is None or self._watch is None:
            return set()
        try:
            with open(self._memory, "rb") as file:
                return set(filter(None, file.read().split(b"\0")))
        except OSError:
            return set()

    def _remember(self) -> None:
        """To be called after each change to what is known."""
        self.mounted.mounts = (*self._mounts, *((MISSING, point) for point in self._missing))
        now: set[bytes] = {*self.known, *(b"/" + point for point in self._left)}
        before, self.remembered = self.remembered, now
        if self._memory is None or now == before:
            return
        anew = self._memory + b".new"
        try:
            with open(anew, "wb") as file:
                file.write(b"".join(line + b"\0" for line in sorted(now)))
            os.replace(anew, self._memory)
        except OSError as error:
            log.warning(
                "mounts-not-remembered",
                extra=fields(
                    path=self._memory,
                    reason=error.strerror,
                    now="a file system that is missing at the next start will not be missed",
                ),
            )
