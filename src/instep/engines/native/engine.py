"""The native engine: what is done at once in the loop, what goes to workers, what to a thread of its own.

A small file goes from report to target in the caller's turn. Bulk (many paths, trees) goes to worker processes, two of
which outrun ``cp -a``. Large files go to threads (copying releases the interpreter lock), so that they never stand
between small ones. Files with several names are done last, where all names are known.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from instep.core.deletions import holds, is_limited, limit_for
from instep.engines.hardlinks import Links
from instep.engines.mounted import Mounted
from instep.engines.native.cache import Distrusted, forget
from instep.engines.native.content import SMALL_BYTES, Brake, Cancelled
from instep.engines.native.joining import Joiner
from instep.engines.native.moves import move
from instep.engines.native.place import Place
from instep.engines.native.pruning import delete_now, judge, without_repeats
from instep.engines.native.session import Session, Settings
from instep.engines.native.sharing import Sharing
from instep.engines.native.small import LastRead, express
from instep.engines.native.stretch import Stretch
from instep.engines.native.tally import Tally
from instep.engines.native.telling import tell
from instep.engines.native.tree import count_entries, level
from instep.engines.native.worker import settings_as_tuple
from instep.linux.fanotify import heed_everywhere
from instep.linux.libc import sync_file_system
from instep.logs import fields
from instep.model import Batch, Change, Failure, Landmarks, Outcome, Postponed, Progress
from instep.paths import ROOT, RelPath, Scope, is_within
from instep.records import record
from instep.spec import MaxDelete
from instep.workers import Pool, WorkerDied

log = logging.getLogger(__name__)

NOW_PATHS = 64
"""More changes than this at once are bulk."""
NOW_BYTES = 1 << 20
NOW_ENTRIES = 128
"""A directory with more entries than this, to be filled or removed, is bulk."""
NOW_S = 0.010
"""The loop is not held longer than about this."""
LARGE_AT_ONCE = 2
JOINING_AT_ONCE = 2
_ENTRY = Scope.ENTRY  # Python 3.11 takes 0.25 us to get a member from its class.


class NativeEngine:
    """Keeps one local target directory in step with the source. See ``instep.ports.Engine``."""

    name = "native"
    parallel = 8

    def __init__(
        self,
        target: bytes,
        *,
        source_fd: int,
        settings: Settings,
        max_delete: MaxDelete,
        big_wait_s: Callable[[int, Change, float], float],
        workers: int = 2,
        last_read: LastRead | None = None,
        mounted: Mounted | None = None,
    ) -> None:
        """``last_read``, ``mounted``: what the native engines of one mirror share; None for one that is alone."""
        self.progress = Progress()
        self._place = Place(target, dry_run=settings.dry_run)
        self._source = source_fd
        throttled = settings.bandwidth_bytes_per_s != float("inf")
        # Throttled, everything passes one worker: two would make two streams of that rate.
        self._workers = 1 if throttled else workers
        self._settings = settings._replace(
            token=settings.token or os.urandom(4).hex(),
            large_bytes=float("inf") if throttled else settings.large_bytes,
        )
        self._all_later = throttled or settings.dry_run
        preserve = settings.preserve
        wanted = preserve.owner and preserve.mode and preserve.times
        self._last_read = last_read
        self._mounted = Mounted(source_fd) if mounted is None else mounted
        self._may_express = wanted and settings.inplace_bytes >= SMALL_BYTES
        self._big_wait_s = big_wait_s
        self._max_delete = max_delete
        self._links = Links(source_fd)
        self._joiner = Joiner(self._links)
        self._distrusted = Distrusted()
        self._owed: list[tuple[bytes, bool, bool]] = []  # directories made in sync_now that sync has to fill
        self._brake = Brake(float("inf"))
        self._now: Session | None = None
        self._pool: Pool | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._joining: ThreadPoolExecutor | None = None
        self._warm: asyncio.Task[None] | None = None
        self._group = -1

    async def open(self) -> bool:
        """Open the target, making its last component on the very first call.

        Returns:
            Whether it is the directory that was left: then nothing below it needs to be compared anew.
        """
        first = not self._place.was_open
        fd = self._place.find()
        await self._shut()
        known = self._place.take(fd)
        self._brake.stopping = False
        self._begin()
        if not first and not known:
            self._links = Links(self._source)
            self._joiner = Joiner(self._links)
        return known

    def _begin(self) -> None:
        """What works on the open target; its processes start when they are needed."""
        descriptors = (self._source, self._place.fd) + ((self._group,) if self._group >= 0 else ())
        self._now = Session(
            self._source,
            self._place.fd,
            self._settings,
            self._group,
            removes_max=NOW_ENTRIES,
            mounted=self._mounted,
        )
        self._pool = Pool("instep.engines.native.worker", descriptors, settings_as_tuple(self._settings), self._workers)

    def hush(self, group: int) -> None:
        """See ``instep.ports.Discreet``."""
        self._group = group
        if self._pool is not None:
            self._begin()

    def prepare(self) -> None:
        """A whole comparison is coming: let the workers start meanwhile."""
        assert self._pool is not None
        self._warm = asyncio.get_running_loop().create_task(self._pool.warm())

    def sync_now(self, batch: Batch) -> tuple[Outcome, Sequence[Change]]:
        """Do what is quick; the rest is for ``sync``. Blocks for about NOW_S at most."""
        changes = batch.changes
        outcome = Outcome()
        session = self._now
        assert session is not None
        if len(changes) > NOW_PATHS or self._all_later or self._distrusted.concerns(changes):
            return outcome, changes
        away = self._place.away()
        if away:
            outcome.away = away
            return outcome, ()
        now_s = time.monotonic()
        if len(changes) == 1 and self._may_express and not batch.moves:
            change = changes[0]
            if change.content and change.scope is _ENTRY and change.path and change.path not in self._links.paths:
                read = express(session, change, now_s, self._last_read)
                if read is not None:
                    outcome.files = outcome.entries = 1
                    outcome.bytes_copied = size = read.st_size
                    self.progress.files += 1
                    self.progress.bytes_copied += size
                    if self._settings.learns:
                        outcome.learned_names[change.path] = record(read)
                    return outcome, ()
        until_s = now_s + NOW_S
        limited, limit = self._is_limited(batch), limit_for(batch, self._max_delete)
        stretch = Stretch(session, holds=limited or holds(batch))
        tally = stretch.tally
        left: list[Change] = []
        done = 0
        try:
            for change in changes:
                done += 1
                moved = bool(batch.moves) and self._moved(session, stretch, batch, change)
                if moved and change.scope is Scope.TREE:
                    stretch.bring(change.path, self._scope_of_moved(), content=False)
                else:
                    stretch.bring(change.path, change.scope, content=change.content and not moved)
                if tally.levels:
                    if len(tally.levels) > 1 or not self._walk_now(session, tally):
                        left.append(change)
                        # By then they are no news any more: the change alone might not look into them.
                        self._owed += [
                            (path, content, False)
                            for path, content, _ in tally.levels
                            if change.scope is not Scope.TREE or not is_within(path, change.path)
                        ]
                        tally.levels = []
                elif tally.large:
                    left.append(change)
                    tally.large = []
                if tally.extra:
                    if (
                        limited
                        and change not in left
                        and not delete_now(session, tally, limit, most=NOW_ENTRIES, content=change.content)
                    ):
                        left.append(change)
                        tally.full, tally.failures, tally.racy, tally.linked = "", [], [], []  # Found again.
                    tally.extra = []
                if time.monotonic() > until_s or tally.bytes_copied > NOW_BYTES:
                    break
        finally:
            stretch.finish()
        left += changes[done:]
        self._links.review(changes[:done])
        if tally.linked or self._links.has_parted or self._links.has_lost:
            self._joiner.note(tally.linked)
            linked, tally.linked = tally.linked, []
            joined, later, again = self._joiner.bring_now(session, linked)
            tally.add(joined)
            for item in later:
                # Its other names have to be looked for, or a thread is at work on that file: it takes a while.
                dirty = next((change for change in changes if change.path == item[0]), None)
                if dirty is None:
                    outcome.postponed.append(Postponed(Change(RelPath(item[0]), content=item[4]), 0.0))
                elif dirty not in left:
                    left.append(dirty)
            if not left and again:
                left.append(changes[0])  # At least somebody has to come again for what a name was lost of.
            if tally.levels:
                # A directory that one of the names is in was found missing at the target: it has to be filled.
                self._owed += [(path, content, False) for path, content, _ in tally.levels]
                tally.levels = []
                left += [change for change in changes if change not in left][:1]
        self._count(tally)
        named = tally.failures or tally.racy or tally.unsure
        tell(outcome, tally, {change.path: change for change in changes} if named else {})
        return outcome, left

    async def sync(self, batch: Batch) -> Outcome:
        """Do the batch in workers and threads."""
        outcome = Outcome()
        away = self._place.away()
        if away:
            outcome.away = away
            return outcome
        session, pool = self._now, self._pool
        assert session is not None
        assert pool is not None
        if self._distrusted.concerns(batch.changes):
            await asyncio.to_thread(self._distrusted.forget, self._place.fd, batch.changes)
        sharing = Sharing(pool, self._mounted, self._heard)
        by_path = {change.path: change for change in batch.changes}
        total = Tally()
        limited = self._is_limited(batch)
        spares = limited or holds(batch)
        stretch = Stretch(session, holds=spares)
        rest: list[Change] = []
        try:
            for change in batch.changes:
                if self._moved(session, stretch, batch, change):
                    stretch.bring(change.path, self._scope_of_moved(), content=False)
                else:
                    rest.append(change)
        finally:
            total.add(stretch.finish())
        owed, self._owed = self._owed, []
        total.levels += owed
        done = False
        try:
            if total.levels:
                # By themselves: a change may lead into the same directories, and two at one are in each other's way.
                await sharing.bring((), total, holds=spares)
            await sharing.bring(rest, total, holds=spares)
            if limited and total.extra:
                full, content = total.full, by_path[ROOT].content
                jobs, held = await judge(pool, total, limit_for(batch, self._max_delete), content=content)
                outcome.held = held
                await sharing.bring((), total, holds=False, more=jobs)
                without_repeats(total)
                if full and held is None:
                    # There is room now: what did not fit gets another try, and most of what is said of it is void.
                    total.full, total.failures, total.racy, total.large, total.linked = "", [], [], [], []
                    await sharing.bring(rest, total, holds=False)
            await self._in_threads(batch, session, total, by_path, outcome)
            if total.levels:
                # Directories that a thread found missing at the target; what in them is for threads comes next.
                await sharing.bring((), total, holds=spares)
                found = [path for path, _ in total.large] + [path for path, *_ in total.linked]
                outcome.postponed += [Postponed(Change(RelPath(path)), 0.0) for path in found]
            done = not total.full
        except WorkerDied as error:
            if self._group >= 0:
                heed_everywhere(self._group)  # It may have ended between hushing a directory and showing it.
            # A directory may have been made and not filled: only a TREE is sure to look into it.
            outcome.failures += [
                Failure(Change(change.path, Scope.TREE, content=change.content), str(error)) for change in batch.changes
            ]
        finally:
            if not done:
                self._owed += owed
        if self._settings.dry_run:
            for line in total.planned:
                log.info("would-change", extra=fields(what=line))
        tell(outcome, total, by_path)
        return outcome

    async def landmarks(self) -> Landmarks | None:
        """See ``instep.ports.Engine``."""
        return self._place.landmarks()

    def flush(self) -> None:
        """Sync the target's file system; may take as long as its disk."""
        sync_file_system(self._place.fd)

    def distrust(self, changes: Sequence[Change]) -> None:
        """See ``instep.ports.Engine``. Takes as long as it takes to open all these files."""
        self._distrusted.add(changes)
        for change in changes:  # Now too: until they come back some may have been renamed.
            forget(self._place.fd, change.path, below=change.scope is Scope.TREE)

    async def close(self) -> None:
        """Stop copies and workers, let go of the target."""
        await self._shut()

    # -- bulk ---------------------------------------------------------------------------------------------------

    def _is_limited(self, batch: Batch) -> bool:
        """Whether deletions have to be counted before any of them is made."""
        settings = self._settings
        return settings.delete and not settings.dry_run and is_limited(batch, self._max_delete)

    async def _in_threads(
        self, batch: Batch, session: Session, total: Tally, by_path: dict[RelPath, Change], outcome: Outcome
    ) -> None:
        if total.full:
            return
        loop = asyncio.get_running_loop()
        tasks: list[asyncio.Future[Tally]] = []
        large, total.large = total.large, []
        linked, total.linked = total.linked, []
        whole = ROOT in by_path and by_path[ROOT].scope is Scope.TREE
        joins = bool(linked or self._links.paths or self._links.has_parted or self._links.has_lost)
        if not large and not joins:
            return
        if large and self._threads is None:
            self._threads = ThreadPoolExecutor(LARGE_AT_ONCE, "instep-large")
        # A large file among others would keep their paths busy until it is copied: it gets a batch of its own.
        alone = {RelPath(path) for path, _ in large} == by_path.keys()
        places = LARGE_AT_ONCE if alone else 0
        for path, size in large:
            change = by_path.get(RelPath(path))
            wait_s = 0.0
            if change is None:
                change = Change(RelPath(path))
            elif not batch.flushing:
                wait_s = self._big_wait_s(size, change, batch.now_s)
            if wait_s > 0 or not places:
                outcome.postponed.append(Postponed(change, wait_s))
                continue
            places -= 1
            tasks.append(loop.run_in_executor(self._threads, self._bring_large, path))
        if joins:
            if self._joining is None:
                self._joining = ThreadPoolExecutor(JOINING_AT_ONCE, "instep-joining")
            own = functools.partial(self._own_session, session)
            seek = functools.partial(self._joiner.seek_and_bring, own, linked, batch.changes, walked=whole)
            tasks.append(loop.run_in_executor(self._joining, seek))
        for tally in await asyncio.gather(*tasks):
            self._count(tally)
            total.add(tally)

    def _own_session(self, session: Session | None = None) -> Session:
        """One for a thread, which can be stopped in the middle of a file; this one if it is such a one."""
        if session is None or session.brake is None:
            session = Session(self._source, self._place.fd, self._settings, self._group, mounted=self._mounted)
            session.brake = self._brake
        return session

    def _bring_large(self, path: bytes) -> Tally:
        stretch = Stretch(self._own_session())
        try:
            stretch.bring(path, Scope.ENTRY, content=True, leave=False)
        except Cancelled:
            stretch.tally.failures.append((path, "the copy was interrupted", False))
        return stretch.finish()

    # -- small things -------------------------------------------------------------------------------------------

    def _moved(self, session: Session, stretch: Stretch, batch: Batch, change: Change) -> bool:
        old = batch.moves.get(change.path) if batch.moves else None
        if old is None:
            return False
        moved = move(session, stretch, old, change.path)
        if moved and self._links.paths:
            self._links.moved(old, change.path)
        return moved

    def _scope_of_moved(self) -> Scope:
        """What is left to do for a directory that was renamed: it may hold a name that a search has missed."""
        return Scope.TREE if self._links.misses_some else Scope.ENTRY

    def _walk_now(self, session: Session, tally: Tally) -> bool:
        """Look into a small new directory at once; False when there is more to it."""
        top, tally.levels = tally.levels, []
        todo, entries = list(top), 0
        while todo:
            path, content, fresh = todo.pop()
            entries += count_entries(session, path, NOW_ENTRIES + 1)
            if entries > NOW_ENTRIES:
                tally.levels = [*todo, (path, content, fresh)]
                return False
            todo += level(session, path, tally, content=content, fresh=fresh)
        if tally.large:
            tally.large, tally.levels = [], top  # Found again by whoever walks there next.
            return False
        return True

    def _heard(self, tally: Tally) -> None:
        """A worker has done its part."""
        self._joiner.note(tally.linked)
        self._count(tally)

    def _count(self, tally: Tally) -> None:
        progress = self.progress
        progress.files += tally.files
        progress.bytes_copied += tally.bytes_copied
        progress.entries += tally.compared
        progress.directories += tally.directories

    async def _shut(self) -> None:
        self._brake.stopping = True
        if self._warm is not None:
            self._warm.cancel()
            await asyncio.wait((self._warm,))
            if not self._warm.cancelled() and (error := self._warm.exception()) is not None:
                log.error("engine-crashed", exc_info=error, extra=fields(now="what needs workers is tried again"))
            self._warm = None
        for threads in (self._threads, self._joining):
            if threads is not None:
                threads.shutdown(wait=True, cancel_futures=True)
        self._threads = self._joining = None
        if self._pool is not None:
            await self._pool.close()
            self._pool = None
        self._place.close()
