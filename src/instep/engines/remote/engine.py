"""The remote engine: one agent over one connection; what is quick goes out in the caller's turn, answers come later."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import struct
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from instep.core.deletions import is_limited, limit_for
from instep.engines import ssh
from instep.engines.hardlinks import AGAIN_S, Inode, Links, lstat_named, was_touched
from instep.engines.mounted import Mounted
from instep.engines.remote import agent
from instep.engines.remote.connection import Connection, Far, NoPython, Wanted, over_ssh
from instep.engines.remote.contents import Contents
from instep.engines.remote.express import express
from instep.engines.remote.job import RACY_WAIT_S, Job, names_of
from instep.engines.remote.names import Large, Linked
from instep.engines.remote.owners import learn
from instep.engines.remote.pace import Pace
from instep.engines.remote.planning import plan_joined
from instep.engines.remote.pruning import delete_or_hold
from instep.engines.remote.request import Item, Task
from instep.engines.remote.session import LARGE_BYTES, Session, Settings
from instep.engines.remote.source import FEW, have_own_directory
from instep.engines.remote.stream import Sender
from instep.errors import TargetAway, TargetError
from instep.logs import fields
from instep.model import Batch, Change, Landmarks, Outcome, Postponed, Progress
from instep.paths import ROOT, RelPath, Scope
from instep.spec import Compress, MaxDelete

log = logging.getLogger(__name__)

PARALLEL = 32
"""Small changes on their way at once; each is answered after a round trip."""
LARGE_AT_ONCE = 2
READERS = 2
"""Threads that read the source for bulk."""
FLUSH_S = 120.0
JOINS_MAX = 4
"""So many times in a row names are joined that came to light when others were; then they wait for another try."""

__all__ = ["NoPython", "RemoteEngine", "Settings"]


class _Tie(NamedTuple):
    """What lasts as long as one connection does."""

    connection: Connection
    far: Far
    session: Session
    loop: asyncio.AbstractEventLoop


class RemoteEngine:
    """Keeps one directory of another machine in step with the source. See ``instep.ports.Engine``."""

    name = "remote"

    def __init__(
        self,
        target: bytes,
        *,
        source_fd: int,
        settings: Settings,
        max_delete: MaxDelete,
        big_wait_s: Callable[[int, Change, float], float],
        ssh_words: Sequence[bytes] = ssh.COMMAND,
        contents: Contents | None = None,
        compress: Compress = Compress.AUTO,
        command: Callable[[ssh.Place], Sequence[bytes]] | None = None,
        mounted: Mounted | None = None,
    ) -> None:
        """Not yet open.

        Args:
            target: ``host:path``, ``user@host:path`` or ``ssh://user@host:port/path``.
            source_fd: The source's root.
            settings: What is kept, and how.
            max_delete: How many names one comparison of the whole tree may delete.
            big_wait_s: How long a file of this size has still to wait.
            ssh_words: The ssh command with its own options.
            compress: Whether frames are packed.
            contents: Shared with the other engines of this mirror; None: nothing to share.
            command: What starts the agent, if not ssh.
            mounted: What is mounted in the source, shared as well; None: nothing that counts.
        """
        place = ssh.place(target)
        if place is None:
            raise TargetError(
                "bad-target",
                f"the target {os.fsdecode(target)} names no directory on a host that ssh reaches",
                fix="write host:/path or ssh://user@host:port/path",
            )
        self.progress = Progress()
        self.parallel = PARALLEL
        self.lost: Callable[[str], None] | None = None
        """See ``instep.ports.Attentive``."""
        self._address = target
        self._place = place
        self._source = source_fd
        self._settings = settings
        self._max_delete = max_delete
        self._big_wait_s = big_wait_s
        self._ssh_words = tuple(ssh_words)
        self._contents = contents
        self._mounted = mounted
        self._compress = compress
        self._command = command or self._over_ssh
        self._pace = Pace(settings.bandwidth_bytes_per_s)
        self._identity: tuple[int, int, int] | None = None
        self._tie: _Tie | None = None
        self._doubts = False
        self._whose = os.urandom(16)
        self._jobs: dict[int, tuple[Batch, Job]] = {}  # the batch is held so that its id stays its own
        self._links = Links(source_fd)
        self._joining: set[Inode] = set()
        self._joined = asyncio.Event()
        self._streams = 0
        self._cut: list[tuple[bytes, bytes]] = []
        self._reader = ThreadPoolExecutor(READERS, "instep-remote", have_own_directory)
        if self._pace.is_limited:
            self.parallel = 4

    def _over_ssh(self, place: ssh.Place) -> Sequence[bytes]:
        return over_ssh(self._ssh_words, place)

    async def open(self) -> bool:
        """Connect, send the agent over, and let it open the target, making its last component on the first call.

        Returns:
            Whether it is the directory that was left: then nothing below it needs to be compared anew.

        Raises:
            NoPython: there is none over there that could run the agent.
            TargetError: ssh refuses, or the target cannot be used.
            TargetAway: not reachable now.
        """
        await self._untie()
        first = self._identity is None
        settings = self._settings
        flags = (
            agent.MAY_MAKE_ROOT * (first and not settings.dry_run)
            | agent.MAY_DELETE * settings.delete
            | agent.PROTECTED * (bool(settings.rules) and not settings.delete_excluded)
            | agent.DRY * settings.dry_run
        )
        connection = Connection(self._place.host, self._compress)
        wanted = Wanted(self._place.path or b".", flags, settings.keep, settings.umask, self._whose)
        try:
            far = await connection.open(self._command(self._place), wanted)
        except BaseException:
            await connection.close()
            raise
        connection.lost = self.lost
        known = self._identity == far.identity
        if not first and not known:
            self._links = Links(self._source)
        self._identity = far.identity
        session = Session(self._source, settings, far, self._mounted)
        if settings.preserve.owner and settings.preserve.owner_names:
            try:
                session.numbers = await learn(connection)
            except BaseException:
                await connection.close()
                raise
        self._tie = _Tie(connection, far, session, asyncio.get_running_loop())
        if self._doubts:
            connection.doubt()
        return known

    def prepare(self) -> None:
        """Nothing takes long to start."""

    def sync_now(self, batch: Batch) -> tuple[Outcome, Sequence[Change]]:
        """Send what is quick to read; all changes are returned, for ``sync`` awaits the answers."""
        changes = batch.changes
        tie = self._tie
        if tie is None or tie.connection.gone:
            return Outcome(away=tie.connection.gone if tie is not None else "not connected"), ()
        if (
            len(changes) > FEW
            or self._pace.is_limited
            or self._settings.dry_run
            or any(change.scope is not Scope.ENTRY for change in changes)
        ):
            return Outcome(), changes
        try:
            # What is usual goes out first; what it takes to hear of it can wait.
            frame = express(tie.session, changes[0], self._contents) if len(changes) == 1 and not batch.moves else None
            if frame is not None:
                answer = tie.connection.request(frame.parts, frame.size, bulk=False)
                job = self._job(tie, batch)
                job.started(frame, answer)
            else:
                job = self._job(tie, batch)
                job.start()
        except TargetAway as away:
            return Outcome(away=str(away)), ()
        self._jobs[id(batch)] = (batch, job)
        return Outcome(), changes

    async def sync(self, batch: Batch) -> Outcome:
        """Await the answers for what was sent, and do the rest."""
        started = self._jobs.pop(id(batch), None)
        tie = self._tie
        if started is not None:
            job = started[1]
        elif tie is not None:
            job = self._job(tie, batch)
        else:
            return Outcome(away="not connected")
        settings = self._settings
        limited = settings.delete and not settings.dry_run and is_limited(batch, self._max_delete)
        job.producer.holds |= limited
        links = self._links
        for new, old in batch.moves.items():
            links.moved(old, new)
        job.looks_into_moved = links.misses_some
        links.review(batch.changes)
        parted = links.take_parted()
        try:
            await job.run()
            if limited and job.producer.extra:
                job.outcome.held = await delete_or_hold(job, limit_for(batch, self._max_delete))
                job.producer.holds = False
            if job.large:
                await self._large(job, batch)
            job.linked += _in_doubt(links, parted)
            if job.linked or links.has_lost:
                await self._linked(job, batch, parted)
            if self._cut:
                self._cut = await job.forget(self._cut)
            if job.producer.has_work:
                await job.run()
        except TargetAway as away:
            job.outcome.away = str(away)
        except (agent.ProtocolError, struct.error) as error:
            tie = self._tie
            if tie is not None:
                tie.connection.give_up(f"what came from there does not fit: {error}")
            job.outcome.away = f"what came from there does not fit: {error}"
        finally:
            if job.outcome.away:
                links.part(parted)
            self._cut += job.cut
            job.close()
        return job.outcome

    async def landmarks(self) -> Landmarks | None:
        """By what the open target is known again after a restart; None when that cannot be told."""
        tie = self._tie
        if tie is None:
            return None
        job = self._job(tie, Batch((), 0.0))
        try:
            listing = await job.listing(b"")
        except TargetAway:
            return None
        if listing is None:
            return None
        identity = b"%s\0%d:%d:%d" % (self._address, *tie.far.identity)
        return Landmarks(identity, frozenset(name for name in listing if name))

    def flush(self) -> None:
        """Let the far kernel write everything to its disk; see ``instep.ports.Engine``."""
        tie = self._tie
        if tie is None:
            raise TargetAway("there is no connection")
        try:
            asyncio.run_coroutine_threadsafe(tie.connection.flush(), tie.loop).result(FLUSH_S)
        except TimeoutError:
            raise TargetAway(f"its disk has not taken everything within {FLUSH_S:g} s") from None

    def distrust(self, changes: Sequence[Change]) -> None:  # noqa: ARG002  # the agent doubts all alike
        """Have the agent read from its disk itself from now on: this one, and any after it."""
        self._doubts = True
        tie = self._tie
        if tie is not None:
            tie.loop.call_soon_threadsafe(tie.connection.doubt)

    async def close(self) -> None:
        """Let go of the far side."""
        await self._untie()
        self._reader.shutdown(wait=True, cancel_futures=True)

    def _job(self, tie: _Tie, batch: Batch) -> Job:
        return Job(tie.connection, tie.session, batch, self.progress, self._contents, self._pace, self._reader)

    async def _untie(self) -> None:
        for _, job in self._jobs.values():
            job.close()
        self._jobs.clear()
        tie, self._tie = self._tie, None
        if tie is not None:
            await tie.connection.close()

    # -- large files ----------------------------------------------------------------------------------------------

    async def _large(self, job: Job, batch: Batch) -> None:
        """Send files that no frame holds. The largest get a batch of their own: they would keep others waiting."""
        now: list[Large] = []
        own = min(LARGE_BYTES, self._settings.large_bytes)
        large, job.large = job.large, []
        alone = len(large) <= LARGE_AT_ONCE and {RelPath(item.path) for item in large} == job.by_path.keys()
        for item in large:
            if job.producer.names.is_full:
                return
            if item.size < own or self._settings.dry_run:
                now.append(item)
                continue
            change = job.by_path.get(RelPath(item.path))
            wait_s = 0.0
            if change is None:
                change = Change(RelPath(item.path), content=True)
            elif not batch.flushing:
                wait_s = self._big_wait_s(item.size, change, batch.now_s)
            if wait_s > 0 or not alone:
                job.outcome.postponed.append(Postponed(change, wait_s))
            else:
                now.append(item)
        waiting = iter(now)
        await _all(self._take_turns(job, waiting) for _ in range(LARGE_AT_ONCE))

    async def _take_turns(self, job: Job, waiting: Iterator[Large]) -> None:
        for item in waiting:
            if self._settings.dry_run:
                job.outcome.entries += 1
                log.info("would-change", extra=fields(what=f"update {os.fsdecode(item.path)}"))
                continue
            self._streams = self._streams % 0xFFFFFF + 1
            await Sender(job, self._streams, item).run()

    # -- what has several names -----------------------------------------------------------------------------------

    async def _linked(self, job: Job, batch: Batch, parted: set[Inode]) -> None:
        """Bring over what has several names, and what of the kind is met on the way: directories may come along."""
        for _ in range(JOINS_MAX):
            await self._join(job, batch, parted)
            if not job.linked:
                return
        for item in job.linked:
            job.outcome.postponed.append(Postponed(self._change(job, item), RACY_WAIT_S))

    async def _join(self, job: Job, batch: Batch, parted: set[Inode]) -> None:
        """Make names one at the target, first looking for those that no report has told of.

        What turns out to have lost a name is added to ``parted``.
        """
        links = self._links
        for item in job.linked:
            links.note(item.path, item.inode)
        linked, job.linked = job.linked, []
        whole = any(change.path == ROOT and change.scope is Scope.TREE for change in batch.changes)
        wanted = {item.inode: item.names for item in linked if item.names and links.lacks(item.inode, item.names)}
        lost = links.has_lost
        complete = whole
        if wanted or lost:
            complete = await asyncio.to_thread(links.seek, wanted, job.session.filter, walked=whole)
        if complete:
            more = links.take_parted()
            parted |= more
            linked += _in_doubt(links, more)
        else:
            # Looked not long ago: once more when that is no burden.
            again = [self._change(job, item) for item in linked if item.inode in wanted]
            if lost:
                again.append(batch.changes[0])
            job.outcome.postponed += [Postponed(change, AGAIN_S) for change in again]
        groups = names_of(linked)
        async with self._alone(groups.keys()):
            await self._join_groups(job, groups)

    async def _join_groups(self, job: Job, groups: Mapping[Inode, bool]) -> None:
        links = self._links
        waiting: list[tuple[list[bytes], bool]] = []
        looks: list[tuple[bytes, Inode, os.stat_result | None]] = []
        for inode, content in groups.items():
            names = links.names(inode)
            if names and self._settings.dry_run:
                await plan_joined(job, names, content=content)
            elif names:
                # Where one was missing when others were joined to it, whatever it waits for must not hold them up.
                waiting.append((sorted(names, key=job.absent.__contains__), content))
                looks.append((names[0], inode, lstat_named(self._source, names[0], inode)))
        await self._lead(job, waiting)
        for name, inode, before in looks:
            after = lstat_named(self._source, name, inode)
            if before is not None and after is not None and was_touched(before, after):
                # Whoever worked on a report about its last name may have been faster, with newer content.
                job.racy(name)

    @contextlib.asynccontextmanager
    async def _alone(self, inodes: AbstractSet[Inode]) -> AsyncGenerator[None, None]:
        """Wait for whoever is at work on these: each of the two would join names to what the other replaces."""
        while not self._joining.isdisjoint(inodes):
            self._joined.clear()
            await self._joined.wait()
        self._joining |= inodes
        try:
            yield
        finally:
            self._joining -= inodes
            self._joined.set()

    async def _lead(self, job: Job, waiting: list[tuple[list[bytes], bool]]) -> None:
        """Of each of these groups bring one name over and join the others to it; where it fails, the next one leads."""
        producer = job.producer
        while waiting:
            producer.work.extend(Item(Task.NAME, names[0], content, leads=True) for names, content in waiting)
            await self._run_with_large(job)
            failed = {failure.change.path for failure in job.outcome.failures}
            left: list[tuple[list[bytes], bool]] = []
            for (leader, *others), content in waiting:
                if RelPath(leader) not in failed:
                    producer.link(leader, others)
                elif others and not producer.names.is_full:  # Without room for one there is none for any.
                    left.append((others, content))
            await self._run_with_large(job)
            waiting = left

    @staticmethod
    def _change(job: Job, item: Linked) -> Change:
        return job.by_path.get(RelPath(item.path)) or Change(RelPath(item.path))

    async def _run_with_large(self, job: Job) -> None:
        """Work off all there is; large files as well, without being put off."""
        await job.run()
        if job.large:
            large, job.large = job.large, []
            await _all(self._take_turns(job, iter([item])) for item in large)


def _in_doubt(links: Links, inodes: Iterable[Inode]) -> list[Linked]:
    """The known names of these, to be compared to the last byte; how many there are does not matter."""
    return [Linked(name, inode, 0, content=True) for inode in inodes for name in links.names(inode)]


async def _all(tasks: Iterable[Coroutine[None, None, None]]) -> None:
    """Run them side by side; the first that fails ends the others."""
    running = [asyncio.ensure_future(task) for task in tasks]
    try:
        await asyncio.gather(*running)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
