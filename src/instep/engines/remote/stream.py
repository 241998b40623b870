"""Large files: in pieces between which small changes pass, only what differs where the target has an older version.

The target signs its blocks while we compare them with ours in a thread, so both read at once; as long as it is the file
that we left there, the digests are known here, and only we read. A transfer that was cut is taken up again: the agent
keeps what it has under a name made from the source's identity, and signs that. Where the content has shifted (see
``shifted.py``), the agent makes the rest of what it has in other places, as far as it has that.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import itertools
import os
import stat
import struct
from collections import deque
from collections.abc import Iterator

from instep.engines.remote import agent
from instep.engines.remote.connection import Reply
from instep.engines.remote.job import Job
from instep.engines.remote.left import Left
from instep.engines.remote.matching import Unreadable, copy_operation, cut_for, match
from instep.engines.remote.names import READ, VANISHED, Large
from instep.engines.remote.reading import ZEROS, differing, extents, rested, same, within
from instep.engines.remote.request import Frame, Item, Sent, Task
from instep.engines.remote.session import DELTA_BYTES
from instep.engines.remote.shifted import Chunks, Piece, Suspicion, worth_a_look
from instep.errors import TargetAway

READ_AHEAD = 4
"""Pieces read in one go, in a thread."""
RACES_MAX = 3
SIGNED_MAX = 1 << 17
"""Frames of signatures that may wait for us: as many as 128 GiB have."""

COMPARED_AT_ONCE = 16 << 20
"""Bytes that one thread compares with digests at hand before what differs is sent."""
THREADS = min(4, os.cpu_count() or 1)

_UNKNOWN = bytes(agent.DIGEST)
_NOT_THIS = frozenset({errno.ENOENT, errno.ESTALE})
"""The file there is gone, another one, or one with a name that is none of ours: whatever it holds, it cannot stay."""


class Differs(Exception):
    """The target has another content than was expected."""


class Sender:
    """Sends one large file; used once."""

    def __init__(self, job: Job, number: int, large: Large) -> None:
        self._job = job
        self._number = number
        self._path = large.path
        self._only_compare = large.equal
        self._parent, _, self._name = large.path.rpartition(b"/")
        self._signed: asyncio.Queue[bytes] = asyncio.Queue()
        self._by_content: asyncio.Queue[bytes] = asyncio.Queue()
        self._sent_bytes = 0
        self._broken = False
        self._key = b""
        self._waiting: list[asyncio.Future[Reply]] = []
        self._digests: bytearray | None = None
        """Those of the target's blocks, as they are once all that was sent is written; None: not all are known."""

    async def run(self) -> None:
        """Bring the file over; what goes wrong is noted in the job. TargetAway when the connection is lost."""
        job = self._job
        try:
            directory = job.session.open(self._parent)
            try:
                fd = os.open(self._name, READ, dir_fd=directory)
            finally:
                os.close(directory)
        except OSError as error:
            if error.errno not in VANISHED:
                job.failed(self._path, f"cannot read the source: {error.strerror}")
            return  # Gone since: that has a report of its own.
        job.connection.signed[self._number] = self._take_signed
        try:
            await self._attempts(fd)
        except TargetAway:
            if self._key:
                job.cut.append((self._path, agent.partial_name(self._name, self._key)))
            raise
        except OSError as error:
            job.failed(self._path, f"cannot read the source: {error.strerror}")
        finally:
            os.close(fd)
            job.connection.signed.pop(self._number, None)

    async def _attempts(self, fd: int) -> None:
        job = self._job
        for left in range(RACES_MAX - 1, -1, -1):
            info = await rested(fd)
            if not stat.S_ISREG(info.st_mode):
                return
            try:
                if await self._attempt(fd, info, last=not left):
                    return
            except Differs:
                self._only_compare = False
                await self._quit()
        if not job.outcome.failures or job.outcome.failures[-1].change.path != self._path:
            job.failed(self._path, "cannot bring over: it is another one each time it is looked at")

    async def _attempt(self, fd: int, info: os.stat_result, *, last: bool) -> bool:
        job, session = self._job, self._job.session
        flags = agent.SIGN_ONLY if self._only_compare else 0
        if not flags:
            flags |= agent.SIGN * (info.st_size >= DELTA_BYTES)
            flags |= agent.INPLACE * (info.st_size >= session.settings.inplace_bytes)
        identity = (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)
        key = hashlib.blake2b(repr(identity).encode() + self._path, digest_size=agent.DIGEST).digest()
        self._key = key
        left = session.left.take(self._path)
        rest = struct.pack("<IQ", self._number, info.st_size) + key + (left.token if left is not None else _UNKNOWN)
        begun = await self._ask(agent.BEGIN, self._name, rest, flags=flags)
        if begun is None:
            return True  # Noted already.
        there, old_size = agent.BEGUN.unpack(begun)
        if there != agent.NOTHING_THERE and self._only_compare and old_size != info.st_size:
            raise Differs
        self._sent_bytes = 0
        self._digests = None
        offset = 0
        suspicion = Suspicion(info.st_size)
        if there == agent.AS_LEFT and left is not None and left.covers(old_size):
            offset = await self._compare_left(fd, info, left.digests, suspicion)
        elif there in (agent.SIGNED_SOON, agent.TAKEN_UP):
            offset = await self._compare(fd, info, suspicion)
        elif there != agent.NOTHING_THERE:
            raise TargetAway("the agent found what nobody left there")
        if (shifted := suspicion.shifted_from) >= 0:
            # AS_LEFT: what was not sent may not be copied over yet. TAKEN_UP: it may stand in front of that.
            offset = 0 if there == agent.AS_LEFT else shifted
            await self._match(fd, info, offset, shifted if there == agent.SIGNED_SOON else 0)
        elif offset < info.st_size:
            if self._only_compare:
                raise Differs
            if there == agent.TAKEN_UP and worth_a_look(info.st_size - offset):
                await self._match(fd, info, offset, 0)
            else:
                await self._send(extents(fd, offset, info.st_size, info), fd)
        well = await self._all_written()
        after = os.fstat(fd)
        for _ in range(RACES_MAX):
            if not well or same(info, after) or after.st_size != info.st_size or not self._knows_all(info.st_size):
                break
            # Written to meanwhile. What the target holds by now is known: we read it once more, and nobody else does.
            info = after
            last = True
            await self._compare_known(fd, info, None)
            well = await self._all_written()
            after = os.fstat(fd)
        if not well:
            await self._quit()
            return True
        unchanged = same(info, after)
        if not unchanged and not last:
            await self._quit()
            return False
        xattrs = session.xattrs(fd)
        head = struct.pack("<I", self._number) + session.attributes(info, xattrs)
        links = agent.LINKED if info.st_nlink > 1 else 0
        token = await self._ask(agent.END, self._name, head, flags=links)
        if token is None:
            return True
        if unchanged:
            self._remember(token, info.st_size)
        outcome, progress = job.outcome, job.progress
        if not self._only_compare:
            outcome.files += 1
            outcome.entries += 1
            outcome.bytes_copied += self._sent_bytes
            progress.files += 1
            progress.bytes_copied += self._sent_bytes
        job.producer.found.touched[self._parent] = None
        if not unchanged:
            job.racy(self._path)
        return True

    def _knows_all(self, size: int) -> bool:
        """Whether the digest of every block is known that the target holds, or will once all is written."""
        return self._digests is not None and len(self._digests) >= -(-size // agent.BLOCK) * agent.DIGEST

    def _remember(self, token: bytes, size: int) -> None:
        """How the file was left there, if that is known."""
        if token and self._digests is not None:
            length = -(-size // agent.BLOCK) * agent.DIGEST
            self._job.session.left.keep(self._path, Left(token, bytes(self._digests[:length])), size)

    # -- comparing ------------------------------------------------------------------------------------------------

    async def _compare_left(self, fd: int, info: os.stat_result, digests: bytes, suspicion: Suspicion) -> int:
        """The same by the digests at hand; returns when the agent has copied over what stays."""
        self._digests = bytearray(digests)
        await self._compare_known(fd, info, suspicion)
        if not self._broken and suspicion.shifted_from < 0:
            _, _, number = agent.SIGNED_BODY.unpack_from(await self._signed_body())
            if number:
                self._unreadable(number)
        return min(len(digests) // agent.DIGEST * agent.BLOCK, info.st_size)

    async def _compare_known(self, fd: int, info: os.stat_result, suspicion: Suspicion | None) -> None:
        """Send the blocks that are not what ``_digests`` says, compared in several threads ahead of what is sent."""
        loop = asyncio.get_running_loop()
        assert self._digests is not None
        digests, size = bytes(self._digests), agent.DIGEST
        known = [digests[at : at + size] for at in range(0, len(digests), size)]
        each = COMPARED_AT_ONCE // agent.BLOCK
        firsts = iter(range(0, len(known), each))

        def start(first: int) -> tuple[int, asyncio.Future[list[Piece]]]:
            some = known[first : first + each]
            return first, loop.run_in_executor(None, self._differing, fd, first * agent.BLOCK, some, info)

        running = deque(start(first) for first in itertools.islice(firsts, THREADS + 1))
        try:
            while running:
                first, comparing = running.popleft()
                pieces = await comparing
                running.extend(start(first) for first in itertools.islice(firsts, 1))
                if pieces and self._only_compare:
                    raise Differs
                if suspicion is not None:
                    pieces = suspicion.sift(pieces, min((first + each) * agent.BLOCK, info.st_size))
                await self._send(iter(pieces), fd)
                if self._broken or (suspicion is not None and suspicion.shifted_from >= 0):
                    return
        finally:
            await asyncio.gather(*(comparing for _, comparing in running), return_exceptions=True)
        if suspicion is not None:
            await self._send(iter(suspicion.release()), fd)

    async def _compare(self, fd: int, info: os.stat_result, suspicion: Suspicion) -> int:
        """Send the blocks that differ from those that the target signs; how far the signed ones reach in ours."""
        loop = asyncio.get_running_loop()
        self._digests = bytearray()
        offset = 0
        done = False
        while not done:
            bodies = [await self._signed_body()]
            while not self._signed.empty():
                bodies.append(self._signed.get_nowait())
            digests: list[bytes] = []
            for body in bodies:
                first, last, number = agent.SIGNED_BODY.unpack_from(body)
                if first * agent.BLOCK != offset + len(digests) * agent.BLOCK or done:
                    raise TargetAway("the agent signed what it was not asked")
                if number:
                    self._unreadable(number)
                    return info.st_size
                packed = body[agent.SIGNED_BODY.size :]
                digests += [packed[at : at + agent.DIGEST] for at in range(0, len(packed), agent.DIGEST)]
                done = bool(last)
            self._digests += b"".join(digests)
            pieces = await loop.run_in_executor(None, self._differing, fd, offset, digests, info)
            if pieces and self._only_compare:
                raise Differs
            offset += len(digests) * agent.BLOCK
            await self._send(iter(suspicion.sift(pieces, min(offset, info.st_size))), fd)
            if suspicion.shifted_from >= 0:
                return info.st_size
        await self._send(iter(suspicion.release()), fd)
        return min(offset, info.st_size)

    async def _match(self, fd: int, info: os.stat_result, offset: int, start: int) -> None:
        """Bring the file over from an offset on, sending only what the target has nowhere from ``start`` on."""
        loop, connection, digest = asyncio.get_running_loop(), self._job.connection, self._job.session.far.digest
        self._digests = None
        cut = await loop.run_in_executor(None, cut_for, fd, offset, info.st_size)
        answer = await self._ask(agent.CHUNKS, self._name, cut.pack(self._number, start))
        if answer is None:
            self._broken = True
            return
        old_size, anew = agent.CHUNKED.unpack(answer)
        begin = Piece(0, offset, there=0)
        pieces: list[Piece] | None = None
        if old_size:
            theirs = Chunks(start)
            try:
                pieces = await match(cut.of(fd, offset, digest), offset, theirs, self._chunks)
            except Unreadable as error:
                self._unreadable(error.number)
                return
            if pieces is None:
                await self._ask(agent.CHUNKS, self._name, struct.pack("<I", self._number))
        wanted = within(pieces or [Piece(offset, info.st_size - offset)], info.st_size)
        if anew and offset:
            wanted.insert(0, begin)  # What is equal there, or was patched already, is to be in the new file as well.
        for piece in wanted:
            if piece.there >= 0:
                operation = copy_operation(self._number, piece)
                await connection.room()
                self._waiting.append(connection.request((operation,), len(operation), bulk=True))
            else:
                await self._send(extents(fd, piece.offset, piece.offset + piece.length, info), fd)
        if pieces or (anew and offset):
            operation = copy_operation(self._number, Piece(info.st_size, 0))
            self._waiting.append(connection.request((operation,), len(operation), bulk=True))
            if await self._all_written():
                _, _, number = agent.SIGNED_BODY.unpack_from(await self._chunks())
                if number:
                    self._unreadable(number)

    def _unreadable(self, number: int) -> None:
        self._job.error(self._path, number, agent.AT_OPERATION)
        self._broken = True

    def _take_signed(self, body: bytes) -> None:
        queue = self._by_content if agent.SIGNED_BODY.unpack_from(body)[1] & agent.BY_CONTENT else self._signed
        if queue.qsize() > SIGNED_MAX:
            raise agent.ProtocolError("more signatures than there can be")
        queue.put_nowait(body)

    async def _chunks(self) -> bytes:
        return await self._signed_body(self._by_content)

    async def _signed_body(self, queue: asyncio.Queue[bytes] | None = None) -> bytes:
        """The next signatures; as often as not they are there already."""
        getting = asyncio.ensure_future((queue or self._signed).get())
        while not getting.done():
            await asyncio.wait((getting,), timeout=1.0)
            if self._job.connection.gone:
                getting.cancel()
                raise TargetAway(self._job.connection.gone)
        return getting.result()

    def _differing(self, fd: int, offset: int, digests: list[bytes], info: os.stat_result) -> list[Piece]:
        session = self._job.session
        return differing(fd, offset, digests, info, session.far.digest, sparse=session.settings.preserve.sparse)

    # -- sending --------------------------------------------------------------------------------------------------

    async def _send(self, pieces: Iterator[Piece], fd: int) -> None:
        loop, connection, pace = asyncio.get_running_loop(), self._job.connection, self._job.pace
        while True:
            some = await loop.run_in_executor(None, self._read, fd, pieces)
            if not some:
                return
            for offset, hole, data in some:
                where = agent.STREAM.pack(self._number, offset)
                if hole:
                    parts = [agent.operation(agent.HOLE, 0, b"", where + struct.pack("<Q", hole))]
                else:
                    parts = [agent.OPERATION.pack(agent.DATA, 0, 0, len(where) + len(data)) + where, data]
                size = sum(map(len, parts))
                await pace.passed(size)
                await connection.room()
                self._waiting.append(connection.request(parts, size, bulk=True))
                self._sent_bytes += len(data)
            if len(self._waiting) > 64 and not await self._all_written(keep=16):
                return

    def _read(self, fd: int, pieces: Iterator[Piece]) -> list[tuple[int, int, bytes]]:
        """The next few pieces: (offset, length of a hole, or else the bytes)."""
        found: list[tuple[int, int, bytes]] = []
        for piece in itertools.islice(pieces, READ_AHEAD):
            if piece.is_hole:
                found.append((piece.offset, piece.length, b""))
                self._note(piece.offset, ZEROS[: piece.length] if piece.length <= agent.BLOCK else None)
                continue
            data = os.pread(fd, piece.length, piece.offset)
            if not data:
                break  # It was cut short meanwhile: seen by whoever looks at it afterwards.
            found.append((piece.offset, 0, data))
            self._note(piece.offset, data)
        return found

    def _note(self, offset: int, data: bytes | None) -> None:
        """The target is to hold this: not what was compared, for the file may have been written to since."""
        digests, digest, size = self._digests, self._job.session.far.digest, agent.DIGEST
        if digests is None:
            return
        at = offset // agent.BLOCK * size
        if data is None or offset % agent.BLOCK or at > len(digests):
            self._digests = None
            return
        view = memoryview(data)
        for start in range(0, len(data), agent.BLOCK):
            digests[at : at + size] = digest(view[start : start + agent.BLOCK])
            at += size

    async def _all_written(self, keep: int = 0) -> bool:
        """Wait for what was sent; whether all of it was written. What was not is noted."""
        well = True
        while len(self._waiting) > keep:
            for _, status, payload in (await self._waiting.pop(0)).results:
                if status == agent.FAILED and well:
                    self._job.error(self._path, *agent.FAILURE.unpack(payload))
                well = False
        if not well:
            self._broken = True
        return not self._broken

    async def _ask(self, code: int, name: bytes, rest: bytes, *, flags: int = 0) -> bytes | None:
        """One operation in the file's directory, and its answer; None when it failed, which is noted."""
        job = self._job
        frame = Frame()
        item = Item(Task.NAME, self._path)
        frame.enter(self._parent, item)
        frame.add(Sent(code, self._path, item), name, rest, flags=flags)
        reply = await job.connection.request(frame.parts, frame.size, bulk=False)
        payload = b""
        for index, status, answer in reply.results:
            if status == agent.OK:
                payload = answer
            elif status == agent.NO_DIRECTORY:
                missing = frame.operations[0].path
                job.failed(missing or self._path, "cannot bring over: its directory is not at the target")
                return None
            elif status == agent.OCCUPIED and code == agent.END:
                job.failed(self._path, "cannot bring over: a directory stands there that cannot be removed")
                return None
            elif status == agent.FAILED:
                number, place = agent.FAILURE.unpack(answer)
                if number in _NOT_THIS and self._only_compare:
                    raise Differs
                if code != agent.ABORT:
                    job.error(self._path, number, place)
                return None
            else:
                raise TargetAway(f"the agent gave answer {status} to operation {index}, which does not fit")
        return payload

    async def _quit(self) -> None:
        """Let the agent forget about it."""
        self._waiting.clear()
        await self._ask(agent.ABORT, self._name, struct.pack("<I", self._number))
        self._signed, self._by_content = asyncio.Queue(), asyncio.Queue()
