"""File systems mounted in the source, and those that are missing: in their place is what they had covered.

Mostly that is an empty directory, and believing it would empty that place at every target. So nothing in it is brought
over until there is a file system again, its directory is gone as well, or the operator confirms it; and till then no
comparison with a target deletes anything. Which ones there were is remembered, for they may be missing at the next
start; without a state directory it is not.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Sequence

from instep.core.filters import Filter
from instep.daemon.state import StateDirectory, places_key
from instep.daemon.target import Target
from instep.linux.openat import has_directory
from instep.logs import fields
from instep.monitors.mount_watch import MountWatch
from instep.paths import RelPath, is_within
from instep.spec import MirrorSpec

log = logging.getLogger(__name__)

SAID_S = 1.0
"""Who unmounts a file system often removes its place as well, right after that: then there is nothing to say."""


class MountGuard:
    """Keeps a mirror's targets from losing what is on file systems that are missing; lives in its loop."""

    def __init__(
        self, spec: MirrorSpec, source: int, filters: Filter, state: StateDirectory | None, targets: Sequence[Target]
    ) -> None:
        """``source``: a descriptor of the source's root, which stays the caller's."""
        memory = None if state is None else state.path(f"{places_key(spec)}.mounts")
        self.points = MountPoints(source, lambda point: not filters.excludes(point, True), memory)
        self._targets = targets
        self._told: set[RelPath] = set()
        self._saying: asyncio.TimerHandle | None = None
        if spec.force_delete:
            self.points.forget()
        if self.points.missing:
            self._heed()
            self._say()

    def look(self) -> None:
        """To be called before what was reported is acted upon; 1 us where nothing was mounted or unmounted."""
        if self.points.look():
            self._heed()
            self._saying = asyncio.get_running_loop().call_later(SAID_S, self._say)

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

    def _hides(self, path: RelPath) -> bool:
        """Whether a path is in the place of something missing; a target asks before each batch."""
        before = len(self.points.missing)
        hidden = self.points.hides(path)
        if len(self.points.missing) != before:
            asyncio.get_running_loop().call_soon(self._one_is_gone)
        return hidden

    def _one_is_gone(self) -> None:
        self._heed()
        self._say()

    def _heed(self) -> None:
        missing = bool(self.points.missing)
        for target in self._targets:
            target.hides = self._hides if missing else None
            target.deletions.beware(missing=missing)
            if target.deletions.held is not None and not missing:
                target.compare_all()

    def _say(self) -> None:
        told, self._told = self._told, set(self.points.missing)
        for path in sorted(self._told - told):
            log.error(
                "file-system-missing",
                extra=fields(
                    path=path,
                    now="nothing is changed there at any target, and no comparison with one deletes anything",
                    fix=f"mount it again; if it is not to come back: kill -s RTMIN+1 {os.getpid()},"
                    " or start once with --force-delete",
                ),
            )
        for path in sorted(told - self._told):
            log.info("file-system-missing-no-more", extra=fields(path=path))


class MountPoints:
    """The places of file systems below one source, as far as they count for its targets."""

    def __init__(self, source: int, counts: Callable[[RelPath], bool], memory: bytes | None) -> None:
        """Look which there are, and which there were.

        Args:
            source: A descriptor of the source's root, which stays the caller's.
            counts: Whether what is mounted there is brought over.
            memory: A file of ours in the state directory.
        """
        self.missing: set[RelPath] = set()
        self._source = source
        self._counts = counts
        self._memory = memory
        self._watch: MountWatch | None = None
        with contextlib.suppress(OSError):  # No /proc: then nobody can tell.
            self._watch = MountWatch(source)
        self._remembered = self._recall()
        self._known = {point for point in self._remembered if counts(point)}
        self._update()

    def look(self) -> bool:
        """Look again, for 1 us where nothing was mounted or unmounted; whether others are missing than before."""
        if self._watch is None or not self._watch.changed():
            return False
        before = set(self.missing)
        self._update()
        return self.missing != before

    def forget(self) -> Sequence[RelPath]:
        """Those that are missing are not to come back; which that were."""
        gone = sorted(self.missing)
        self._known -= self.missing
        self.missing.clear()
        self._remember()
        return gone

    def close(self) -> None:
        """Look no more; may be called twice."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def hides(self, path: RelPath) -> bool:
        """Whether a path is in the place of what is missing. A place that is gone by now is missed no more."""
        for point in self.missing:
            if is_within(path, point):
                if has_directory(self._source, point):
                    return True
                self.missing.discard(point)  # It was removed after the file system was.
                self._known.discard(point)
                self._remember()
                return False
        return False

    def _update(self) -> None:
        mounted = set() if self._watch is None else {point for point in self._watch.points() if self._counts(point)}
        self.missing = {point for point in self._known - mounted if has_directory(self._source, point)}
        self._known = mounted | self.missing
        self._remember()

    # -- memory ---------------------------------------------------------------------------------------------------

    def _recall(self) -> set[RelPath]:
        if self._memory is None or self._watch is None:
            return set()
        try:
            with open(self._memory, "rb") as file:
                return {RelPath(point) for point in file.read().split(b"\0") if point}
        except OSError:
            return set()

    def _remember(self) -> None:
        if self._memory is None or self._known == self._remembered:
            return
        self._remembered = set(self._known)
        anew = self._memory + b".new"
        try:
            with open(anew, "wb") as file:
                file.write(b"".join(point + b"\0" for point in sorted(self._known)))
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
