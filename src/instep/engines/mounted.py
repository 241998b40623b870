"""The file systems mounted in the source: a name counts as gone only while what it was on is still there.

Who unmounts one does not wait until it has been noticed. What is looked up in it from then on is looked up in the
directory that it had covered, mostly an empty one: nothing of what is not found there may be deleted.
"""

from __future__ import annotations

import contextlib
import os
from _thread import allocate_lock  # A worker process would take longer to load threading than to copy ten files.
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import TYPE_CHECKING

from instep.paths import is_within

if TYPE_CHECKING:
    import asyncio

    from instep.linux.mount_watch import MountWatch

Mount = tuple[int, bytes]
"""Its id, and its mount point in the source."""

MISSING = -1
"""In the place of an id: what was mounted there is not."""

UNSURE_WAIT_S = 1.0
"""After this time a name is looked for again. By then it is known what is mounted."""


class Mounted:
    """What is mounted below one source, as far as it counts. May be asked by several threads."""

    def __init__(self, source: int) -> None:
        """``source``: a descriptor of the source's root, which stays the caller's."""
        self.mounts: Sequence[Mount] = ()
        """As last told by whoever watches over them. Replaced as a whole, never changed."""
        self._source = source
        self._watch: MountWatch | None = None
        self._lock = allocate_lock()

    def carries(self, path: bytes) -> bool:
        """Whether what a path stands on is still mounted: what was read there a moment ago is what it holds."""
        return self._are_there({mount for mount in self.mounts if is_within(path, mount[1])})

    def vouches(self, path: bytes) -> bool:
        """Whether a name that was not found a moment ago is gone: neither it nor what is mounted below was unmounted.

        2 us where something is or was mounted at it, above it or below it.
        """
        return self._are_there(set(self._near(path)))

    @contextlib.asynccontextmanager
    async def held(self, paths: Iterable[bytes], *, heeded: bool) -> AsyncIterator[Sequence[bytes]]:
        """What is mounted at these paths, above them or below them cannot be unmounted meanwhile, save lazily.

        Args:
            paths: What is going to be looked up.
            heeded: They were chosen by who knew what is missing.

        Yields:
            Those paths for which that comes too late, or which were chosen before something was known to be missing.
        """
        near = {path: {mount for mount in self._near(path) if not heeded or mount[0] != MISSING} for path in paths}
        points = {point for mounts in near.values() for number, point in mounts if number != MISSING}
        import asyncio  # noqa: PLC0415  # a worker process, which never comes here, would take a tenth of a second

        if not points:
            yield [path for path, mounts in near.items() if mounts]
            return
        # A server that does not answer must not hold up the loop.
        opening = asyncio.create_task(asyncio.to_thread(self._open, points))
        try:
            await asyncio.shield(opening)
            yield [path for path, mounts in near.items() if not self._are_there(mounts)]
        finally:
            opening.add_done_callback(_let_go)  # Cancelled, one need not wait for it.

    def close(self) -> None:
        """Let go of the mount table; may be called twice."""
        with self._lock:
            if self._watch is not None:
                self._watch.close()
                self._watch = None

    def _near(self, path: bytes) -> list[Mount]:
        return [mount for mount in self.mounts if is_within(path, mount[1]) or is_within(mount[1], path)]

    def _open(self, points: Iterable[bytes]) -> list[int]:
        held = []
        for point in points:
            with contextlib.suppress(OSError):
                held.append(os.open(point, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._source))
        return held

    def _are_there(self, mounts: set[Mount]) -> bool:
        if not mounts:
            return True
        with self._lock:
            try:
                if self._watch is None:
                    # A worker process that is never asked does not load it.
                    from instep.linux.mount_watch import MountWatch  # noqa: PLC0415

                    self._watch = MountWatch(self._source)
                self._watch.changed()
                if self._watch.mounts >= mounts:
                    return True
                self._watch.refresh()  # A directory above one may have been renamed, which nobody has told us.
            except OSError:
                return False  # No /proc any more.
            return self._watch.mounts >= mounts


def _let_go(opened: asyncio.Task[list[int]]) -> None:
    if opened.cancelled():
        return  # The whole process is ending.
    for fd in opened.result():
        os.close(fd)
