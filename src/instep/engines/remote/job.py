"""One batch on its way: frames out, answers in, and what follows from the answers, until nothing is left.

Answers come in the order of the frames, so the oldest one is always the one to wait for.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import logging
import os
import stat
import struct
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor

from instep.core.deletions import holds
from instep.core.filters import Filter
from instep.core.reconcile import DIRECTORY_STAYS
from instep.engines.mounted import UNSURE_WAIT_S
from instep.engines.remote import agent
from instep.engines.remote.connection import Connection, Reply
from instep.engines.remote.contents import Contents
from instep.engines.remote.names import Large, Linked
from instep.engines.remote.pace import Pace
from instep.engines.remote.request import Frame, Item, Sent, Task
from instep.engines.remote.session import Session, join
from instep.engines.remote.source import Producer
from instep.errors import TargetAway
from instep.linux.openat import open_directory
from instep.logs import fields
from instep.model import Batch, Change, Failure, Outcome, Postponed, Progress
from instep.paths import LEARNED_BYTES_MAX, Learned, RelPath, Scope

log = logging.getLogger(__name__)

TRIES_MAX = 4
RACY_WAIT_S = 1.0

_HARD = frozenset({errno.EPERM, errno.ENAMETOOLONG, errno.EINVAL, errno.EROFS, errno.EBUSY, errno.EXDEV})
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_CANNOT_LINK = frozenset({errno.EXDEV, errno.EMLINK, errno.EPERM, errno.EOPNOTSUPP})
"""Other file systems over there, a full inode, somebody else's, or no such thing as hard links: then they are two."""
_NO_LEADER = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE})
"""What the name was to be joined to is not there, or is something else: its directory has only just come, say."""
_TASKS = {Scope.ENTRY: Task.NAME, Scope.LIST: Task.ENTRIES, Scope.TREE: Task.WHOLE}


class Job:
    """Works off one batch."""

    def __init__(
        self,
        connection: Connection,
        session: Session,
        batch: Batch,
        progress: Progress,
        contents: Contents | None,
        pace: Pace,
        reader: Executor,
    ) -> None:
        self.outcome = Outcome()
        self.large: list[Large] = []
        self.linked: list[Linked] = []
        self.cut: list[tuple[bytes, bytes]] = []
        """Large files whose transfer was cut, and under what name the agent keeps what came of them."""
        self.absent: set[bytes] = set()
        """Names that the target did not have when others were to be joined to them."""
        self.looks_into_moved = False
        """Whether a directory that was renamed may hold a name that a search has missed."""
        self.kept = 0
        """Names that the target has and keeps, as far as it was compared."""
        self.compared = 0
        """Names of the source that were looked at."""
        self.connection = connection
        self.session = session
        self.producer = Producer(session, contents)
        self.by_path = {change.path: change for change in batch.changes}
        self.progress = progress
        self.pace = pace
        self._reader = reader
        self._outstanding: deque[tuple[asyncio.Future[Reply], Frame]] = deque()
        self._moves: list[tuple[RelPath, Change]] = []
        self._mended: dict[bytes, int] = {}
        self._sent = 0
        self._learned_bytes = 0
        items = []
        for change in batch.changes:
            old = batch.moves.get(change.path) if batch.moves else None
            if old is not None and session.settings.delete and not session.settings.dry_run:
                self._moves.append((old, change))
            else:
                items.append(Item(_TASKS[change.scope], change.path, change.content))
        self.producer.holds = holds(batch)
        items.reverse()  # worked off from the end
        self.producer.work.extend(items)

    # -- frames ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Send the first frame, in the caller's turn: for a few names that is all there is."""
        if self._moves:
            self._send_moves()
        frame = self.producer.fill(times=True)
        self.take_found()
        if frame.operations:
            self._send(frame, bulk=False)

    def started(self, frame: Frame, answer: asyncio.Future[Reply]) -> None:
        """All of it is on its way already, in this one frame."""
        self.producer.work.clear()
        self._sent = frame.serial = 1
        self._outstanding.append((answer, frame))

    async def run(self) -> None:
        """Go on until nothing is left. TargetAway when the connection is lost."""
        if self._moves:
            self._send_moves()
        producer, connection = self.producer, self.connection
        loop = asyncio.get_running_loop()
        while True:
            while producer.has_work and not connection.flow.is_full and not (self._outstanding and self._waits()):
                if producer.is_quick:
                    frame = producer.fill(times=True)
                    self.take_found()
                    if frame.operations:
                        self._send(frame, bulk=True)
                    await self.pace.passed(frame.size)
                    continue
                frame = await loop.run_in_executor(self._reader, self._fill)
                self.take_found()
                if frame.operations:
                    await self.pace.passed(frame.size)
                    self._send(frame, bulk=True)
            if self._outstanding:
                future, frame = self._outstanding.popleft()
                await self._answered(frame, await future)
            elif producer.has_work:
                await connection.room()
            else:
                return

    def close(self) -> None:
        """Forget about it."""
        self.producer.close()
        for future, _ in self._outstanding:
            future.cancel()
        self._outstanding.clear()

    def _fill(self) -> Frame:
        return self.producer.fill(times=False)

    def _waits(self) -> bool:
        """Only times of directories are left to set: they go last, when nothing more can touch those."""
        return not self.producer.is_busy

    def _send(self, frame: Frame, *, bulk: bool) -> None:
        self._sent += 1
        frame.serial = self._sent
        future = self.connection.request(frame.parts, frame.size, bulk=bulk)
        self._outstanding.append((future, frame))

    def take_found(self) -> None:
        """Note what the producer has met besides what went into frames."""
        found, progress = self.producer.found, self.progress
        self.compared += found.compared
        progress.entries += found.compared
        progress.directories += found.directories
        found.compared = found.directories = 0
        self.kept += found.kept
        found.kept = 0
        for path, reason in found.failures:
            self.failed(path, reason)
        found.failures.clear()
        for line in found.planned:
            log.info("would-change", extra=fields(what=line))
        self.outcome.entries += len(found.planned)
        found.planned.clear()
        self.large += found.large
        found.large.clear()
        self.linked += found.linked
        found.linked.clear()
        for path in found.unsure:
            change = self.by_path.get(RelPath(path)) or Change(RelPath(path), Scope.TREE)
            self.outcome.postponed.append(Postponed(change, UNSURE_WAIT_S))
            self.outcome.unsure = True
        found.unsure.clear()

    # -- moves ----------------------------------------------------------------------------------------------------

    def _send_moves(self) -> None:
        """Renames go first: what is done to the old names would be in their way."""
        frame = Frame()
        moves, self._moves = self._moves, []
        for old, change in moves:
            item = Item(_TASKS[change.scope], change.path, change.content)
            info = self._movable(old, change.path)
            if info is None:
                self.producer.work.append(item)
                continue
            rest = agent.MOVED.pack(len(change.path), info.st_mode, info.st_size, info.st_mtime_ns) + change.path
            frame.add(Sent(agent.MOVE, old, item), old, rest)
            for path in (old, change.path):
                self.producer.found.touched[path.rpartition(b"/")[0]] = None
        if frame.operations:
            self._send(frame, bulk=False)

    def _movable(self, old: RelPath, new: RelPath) -> os.stat_result | None:
        """What the source holds under the new name, if a rename at the target can bring that about."""
        session = self.session
        parent, _, name = new.rpartition(b"/")
        try:
            fd = open_directory(session.source, parent)
            try:
                info = os.stat(name, dir_fd=fd, follow_symlinks=False)
            finally:
                os.close(fd)
        except OSError:
            return None
        is_dir = stat.S_ISDIR(info.st_mode)
        rules: Filter = session.filter
        if not session.filters_nothing and (
            rules.excludes(old, is_dir) or rules.excludes(new, is_dir) or (is_dir and not rules.by_name_only)
        ):
            return None
        if not is_dir and (not stat.S_ISREG(info.st_mode) or info.st_nlink > 1):
            return None
        return info

    # -- answers --------------------------------------------------------------------------------------------------

    async def _answered(self, frame: Frame, reply: Reply) -> None:
        outcome, progress = self.outcome, self.progress
        statuses = {index: (status, payload) for index, status, payload in reply.results}
        if statuses and max(statuses) >= len(frame.operations):
            raise TargetAway("the agent answered what it was not asked")
        lost: str | None = None
        files = count = 0
        for index, sent in enumerate(frame.operations):
            status, payload = statuses.get(index, (agent.OK, b""))
            code = sent.code
            if code == agent.CD:
                lost = None if status == agent.OK else self._no_directory(frame, sent, status, payload)
                continue
            if lost is not None and code not in (agent.CHECK, agent.BELOW, agent.MOVE):
                if lost and code not in (agent.DELETE, agent.SELF):
                    self.failed(sent.path, lost)
                continue
            if status != agent.OK:
                await self._exception(sent, status, payload, reply.parts.get(index))
                continue
            if code == agent.PUT:
                if sent.record:
                    outcome.learned_names[sent.path] = sent.record
                if payload:
                    continue  # It had this content already.
                files += 1
                count += sent.size
                if sent.racy:
                    self.racy(sent.path)
            elif code in (agent.NODE, agent.LINK) and payload:
                continue  # It was there already.
            elif code == agent.MKDIR:
                self._made(sent, new=bool(payload))
            elif code == agent.DELETE:
                outcome.deleted += struct.unpack("<I", payload)[0] if payload else 0
                continue
            elif code == agent.SELF:
                outcome.entries += len(payload)
                continue
            elif code == agent.CHECK:
                self.kept += sent.size
                self._learn(sent.learned)
                if sent.below and sent.item.task is not Task.CHECK_ENTRIES:
                    self.producer.check_below(sent.path, sent.below)
                continue
            elif code == agent.BELOW:
                self._equal_below(sent, payload)
                continue
            elif code == agent.MOVE:
                self._moved(sent)
            if code != agent.MKDIR or payload:
                outcome.entries += 1
        outcome.files += files
        outcome.bytes_copied += count
        progress.files += files
        progress.bytes_copied += count

    def _made(self, sent: Sent, *, new: bool) -> None:
        item, work = sent.item, self.producer.work
        if item.task is Task.FRESH:
            if not new:
                work.append(item._replace(task=Task.CHECK))  # Somebody was quicker: there may be more in it.
        elif new:
            work.append(item._replace(task=Task.FRESH, content=True))
        elif item.task is Task.NAME:
            self.producer.found.touched[sent.path] = None  # Read when they are sent: another job may be at work in it.
        else:
            work.append(item._replace(task=Task.CHECK if item.task is Task.WHOLE else Task.CHECK_ENTRIES))

    def _equal_below(self, sent: Sent, payload: bytes) -> None:
        """Many directories were compared at once, and are equal; those below them come next."""
        producer, work = self.producer, self.producer.work
        if not payload:
            self.kept += sent.size  # Else some are counted where they are looked at by themselves.
        producer.doubt = max(0, producer.doubt - 1)
        open_: set[bytes] = set()
        for (number,) in struct.iter_unpack("<H", payload):
            if number >= len(sent.below):
                raise TargetAway("the agent answered what it was not asked")
            # Its files may have been changed after the copies were made.
            open_.add(sent.below[number])
            work.append(Item(Task.CHECK_ENTRIES, sent.below[number], content=False))
        self._learn(one for one in sent.learned if one[0] not in open_)
        self._compare_below(sent.rest)

    def _learn(self, learned: Iterable[Learned]) -> None:
        """Of these directories the target holds just what was read."""
        for one in learned:
            if self._learned_bytes < LEARNED_BYTES_MAX:
                self._learned_bytes += len(one[2])
                self.outcome.learned.append(one)

    def _unequal_below(self, sent: Sent) -> None:
        """Something in them differs: each by itself, as far as it was begun, and the others as before."""
        self.producer.doubt += 1
        begun = [path for path in sent.below if path.rpartition(b"/")[0] == sent.path]
        self._compare_below([path for path in sent.rest if path.rpartition(b"/")[0] == sent.path])
        self.producer.work.extend(Item(Task.CHECK, path, content=False) for path in reversed(begun))

    def _compare_below(self, paths: Sequence[bytes]) -> None:
        """These next, the last one first: what is in one directory together."""
        for above, some in itertools.groupby(paths, lambda path: path.rpartition(b"/")[0]):
            names = [path.rpartition(b"/")[2] for path in some]
            self.producer.check_below(above, names[::-1])

    def _moved(self, sent: Sent) -> None:
        # Its times and mode may be others by now; what is below a directory came along.
        self.producer.work.append(sent.item if self.looks_into_moved else sent.item._replace(task=Task.NAME))

    async def _exception(self, sent: Sent, status: int, payload: bytes, part: bytearray | None) -> None:
        item, path, work = sent.item, sent.path, self.producer.work
        if sent.code == agent.BELOW:
            self._unequal_below(sent)
            return
        if sent.code == agent.MOVE:
            work.append(item)  # The long way; the old name has a change of its own.
        elif status == agent.WANTED:
            work.append(item._replace(task=Task.WRITE, content=True))
        elif status == agent.LISTING and sent.code == agent.CHECK:
            listing = agent.unpack_listing(bytes(part or b"") + payload)
            task = Task.DIFFER_ENTRIES if item.task is Task.CHECK_ENTRIES else Task.DIFFER
            work.append(item._replace(task=task, listing=listing))
        elif status == agent.OCCUPIED:
            deletes = sent.code == agent.DELETE
            # A directory that is excluded itself stays with all there is in it.
            gone = not (deletes and self.session.filter.leaves_out(path, is_dir=True)) and await self.clear(path)
            self.producer.found.touched[path.rpartition(b"/")[0]] = None  # Its time was sent before that.
            if not deletes:
                if gone:
                    self._again(sent)
                else:
                    self.failed(path, "cannot bring over: a directory stands there that cannot be removed")
        elif status == agent.FAILED:
            number, place = agent.FAILURE.unpack(payload)
            if sent.code == agent.CHECK and number in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                self._again(sent)
            elif sent.code == agent.LINK and number in _CANNOT_LINK:
                work.append(item._replace(leads=True))  # By itself; the next comparison tries again.
            elif sent.code == agent.LINK and number in _NO_LEADER:
                self.absent.update(item.names)
                work.append(item)  # Noted once more, with what else came along: all of that is joined next.
            elif sent.code == agent.DELETE and not self.session.settings.delete:
                pass  # It stays, as it should; only what waited out of sight had to go.
            else:
                self.error(path, number, place)
        else:
            raise TargetAway("the agent gave an answer that does not fit")

    def _again(self, sent: Sent) -> None:
        """Do it once more: what was in its way is gone, or what should have been there was not."""
        item = sent.item
        if item.tries >= TRIES_MAX:
            self.failed(sent.path, "cannot bring over: the target changes all the time")
            return
        if sent.code == agent.CHECK:
            item = Item(Task.WHOLE, sent.path, item.content, item.tries)
        elif item.task is Task.FRESH:
            item = item._replace(task=Task.WHOLE)
        self.producer.work.append(item._replace(tries=item.tries + 1))

    def _no_directory(self, frame: Frame, sent: Sent, status: int, payload: bytes) -> str:
        """The target lacks a directory on the way: bring over the topmost one that is missing, with all below it.

        Returns:
            Why that would not help; empty when it will.
        """
        if status == agent.FAILED:
            return f"cannot open the target directory: {os.strerror(agent.FAILURE.unpack(payload)[0])}"
        if status != agent.NO_DIRECTORY:
            raise TargetAway("the agent gave an answer that does not fit")
        there = struct.unpack("<H", payload)[0]
        path = sent.path
        at = path.find(b"/", there + 1 if there else 0)
        missing = path if at < 0 else path[:at]
        known = self._mended.get(missing)
        if known is None:
            self._mended[missing] = self._sent
            self.producer.work.append(Item(Task.WHOLE, missing))
        elif frame.serial > known:
            return "cannot bring over: its directory at the target goes away again and again"
        return ""

    # -- what went wrong ------------------------------------------------------------------------------------------

    def error(self, path: bytes, number: int, place: int) -> None:
        """An operation failed over there."""
        text = os.strerror(number)
        if number in _FULL:
            self.outcome.full = self.outcome.full or text
            self.producer.names.is_full = True
        if place == agent.AT_MOUNT:
            reason = "cannot delete at the target: a file system is mounted there"
        elif place == agent.AT_DELETE:
            reason = f"cannot delete at the target: {text}"
        elif number == errno.EISDIR and not self.session.settings.delete:
            reason = f"cannot bring over: {DIRECTORY_STAYS}"
        else:
            reason = f"cannot bring over: {text}"
        self.failed(path, reason, hard=number in _HARD)

    def failed(self, path: bytes, reason: str, *, hard: bool = False) -> None:
        """This path could not be brought over."""
        change = self.by_path.get(RelPath(path))
        if change is None or change.scope is not Scope.TREE:
            # It may be a directory that was made and could not be filled: the change alone would not look into it.
            change = Change(RelPath(path), Scope.TREE, content=change is None or change.content)
        self.outcome.failures.append(Failure(change, reason, hard))

    def racy(self, path: bytes) -> None:
        """The copy may hold parts of two versions."""
        change = self.by_path.get(RelPath(path)) or Change(RelPath(path))
        self.outcome.postponed.append(Postponed(change, RACY_WAIT_S, racy=True))

    async def forget(self, cut: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """Remove what came of transfers that were cut, where the file was dealt with since; those still to come."""
        later = {failure.change.path for failure in self.outcome.failures}
        later |= {put_off.change.path for put_off in self.outcome.postponed}
        frame = Frame()
        left = []
        for path, partial in cut:
            if path in later or not self._covers(path):
                left.append((path, partial))
                continue
            item = Item(Task.NAME, path)
            parent = path.rpartition(b"/")[0]
            frame.enter(parent, item)
            frame.add(Sent(agent.DELETE, path, item), partial)
            self.producer.found.touched[parent] = None
        if frame.operations:
            await self.connection.request(frame.parts, frame.size, bulk=False)
        return left

    def _covers(self, path: bytes) -> bool:
        here = RelPath(path)
        while here not in self.by_path:
            if not here:
                return False
            here = RelPath(here.rpartition(b"/")[0])
        return here == path or self.by_path[here].scope is not Scope.ENTRY

    # -- what must stay -------------------------------------------------------------------------------------------

    async def clear(self, path: bytes) -> bool:
        """Remove a directory at the target but for what the filter excludes; whether nothing had to stay."""
        listing = await self.listing(path)
        if listing is None:
            return True
        session = self.session
        frame = Frame()
        gone = True
        for name, entry in listing.items():
            if not name:
                continue
            below = join(path, name)
            is_dir = stat.S_ISDIR(entry.st_mode)
            if session.excludes(path, name, is_dir=is_dir):
                gone = False
            elif is_dir:
                gone &= await self.clear(below)
            else:
                item = Item(Task.NAME, below)
                frame.enter(path, item)
                frame.add(Sent(agent.DELETE, below, item), name)
        if frame.operations:
            gone &= await self._plainly(frame)
        if gone:
            parent, _, name = path.rpartition(b"/")
            item = Item(Task.NAME, path)
            frame = Frame()
            frame.enter(parent, item)
            frame.add(Sent(agent.DELETE, path, item), name)
            gone = await self._plainly(frame)
        return gone

    async def listing(self, path: bytes) -> dict[bytes, agent.Entry] | None:
        """What the target has in a directory, and under no name that itself; None when it has no such directory."""
        frame = Frame()
        frame.add(Sent(agent.CHECK, path, Item(Task.CHECK, path)), path)
        reply = await self.connection.request(frame.parts, frame.size, bulk=False)
        for index, status, payload in reply.results:
            if status == agent.LISTING:
                return agent.unpack_listing(bytes(reply.parts.get(index, b"")) + payload)
        return None

    async def _plainly(self, frame: Frame) -> bool:
        """Send deletions; whether all of them came to pass."""
        reply = await self.connection.request(frame.parts, frame.size, bulk=False)
        well = True
        for index, status, payload in reply.results:
            if index >= len(frame.operations):
                raise TargetAway("the agent answered what it was not asked")
            if status == agent.OK:
                self.outcome.deleted += struct.unpack("<I", payload)[0] if len(payload) == 4 else 0
            elif status == agent.FAILED:
                self.error(frame.operations[index].path, *agent.FAILURE.unpack(payload))
                well = False
            elif status != agent.NO_DIRECTORY:
                well = False
        return well


def names_of(items: Sequence[Linked]) -> dict[tuple[int, int], bool]:
    """Each thing with several names, and whether the content of one of them may have been touched."""
    found: dict[tuple[int, int], bool] = {}
    for item in items:
        found[item.inode] = found.get(item.inode, False) or item.content
    return found
