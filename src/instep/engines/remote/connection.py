"""One connection to an agent: starts it, speaks in frames, notices when it is gone.

Frames are written without waiting as far as the pipe takes them; what it does not take goes out when it can. Every
frame is answered in the order in which they were sent. All in the loop's thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import functools
import inspect
import os
import struct
import time
import zlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from instep.engines import ssh
from instep.engines.child import Stderr, end
from instep.engines.remote import agent
from instep.engines.remote.flow import Flow
from instep.errors import TargetAway, TargetError, ToolMissing
from instep.records import CLOCK_LAG_NS
from instep.spec import Compress

PIPE_BYTES = 1 << 20
F_SETPIPE_SZ = 1031
READ_BYTES = 1 << 18
NOISE_MAX = 64 << 10
"""So much may a login shell say before the agent does."""
HELLO_S = 60.0
BEAT_S = 5.0
DEAD_S = 20.0
"""An agent that says nothing for so long, though it was asked, is gone."""
END_S = 5.0
"""So long the agent, or what carries it, may take to end; then it is killed."""
LISTING_MAX = 256 << 20
COMPRESS_BELOW = {agent.COMPRESSED: 20e6, agent.ZSTD: 60e6}
"""Bytes per second below which packing pays for sure: zlib takes 150 MB/s, zstd three times as much, in a thread that
has other work as well."""
COMPRESS_FROM = 512
STDERR_MAX = 8192
UNUSABLE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EROFS, errno.EINVAL, errno.EPROTO})
"""Why a root cannot be opened or made at the first try, and never will as things are."""
FEW_PARTS = 8
TOO_OLD, NO_PYTHON = 97, 127

_STUB = (
    b"import sys;sys.version_info<(3,8)and sys.exit(97);import zlib;b=sys.stdin.buffer;"
    b'exec(zlib.decompress(b.read(int(b.read(24)[15:23],16))),{"__name__":"instep-agent"})'
)


class NoPython(TargetError):
    """There is no python3 over there, or one that is too old: only rsync can serve the target."""


class Reply(NamedTuple):
    """The answer to a frame."""

    results: list[tuple[int, int, bytes]]
    parts: dict[int, bytearray]


@dataclass(slots=True)
class _Pending:
    future: asyncio.Future[Reply]
    bulk: int
    sent_s: float
    parts: dict[int, bytearray] = field(default_factory=dict)
    held: int = 0
    opens_first: bool | None = None
    """It opens the root, for the first time or not; None: it does something else."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the agent is asked to serve."""

    path: bytes
    flags: int
    keep: int
    umask: int
    whose: bytes = bytes(16)
    """The same for all agents of one engine, of which the latest ends those before; of no use if it only looks."""


@dataclass(frozen=True, slots=True)
class Far:
    """What the agent said of itself and its root."""

    is_root: bool
    identity: tuple[int, int, int]
    """Device, inode and time of birth of its root."""
    ahead_ns: int
    """Add it to a time of our clock, and its clock had not come further then."""
    digest: Callable[[object], bytes]


def remote_command(python: bytes = b"python3") -> bytes:
    """What the far shell is given: one line, without anything that a shell of any kind would take for its own."""
    return b"exec " + python + b" -S -E -c '" + _STUB + b"'"


def over_ssh(words: Sequence[bytes], place: ssh.Place) -> list[bytes]:
    """What starts an agent at a place. ``words``: the ssh command with its own options."""
    return [*ssh.command(words, port=place.port), b"--", place.host, remote_command()]


@functools.cache
def bootstrap() -> bytes:
    """What is sent first: a line of 24 bytes that tells the length of the packed source, and that."""
    packed = zlib.compress(inspect.getsource(agent).encode())
    return agent.BOOT % len(packed) + packed


class Connection:
    """Frames to and from one agent process."""

    def __init__(self, host: bytes, compress: Compress) -> None:
        """Not yet open. ``host`` is for messages."""
        self._host = host
        self.flow = Flow()
        self._compress = compress
        self.gone = ""
        """Why there is no connection any more."""
        self.lost: Callable[[str], None] | None = None
        """Told why, when the connection ends by itself."""
        self.signed: dict[int, Callable[[bytes], None]] = {}
        """Who wants to know what is signed, by stream."""
        self._process: asyncio.subprocess.Process | None = None
        self._out = self._in = -1
        self._queue: deque[memoryview] = deque()
        self._pending: dict[int, _Pending] = {}
        self._number = 0
        self._buffer = bytearray()
        self._heard_s = 0.0
        self._beat: asyncio.TimerHandle | None = None
        self._beat_due_s = 0.0
        self._greeting: asyncio.Future[bytes] | None = None
        self._room: asyncio.Event = asyncio.Event()
        self._stderr: Stderr | None = None
        self._incompressible = 0
        self._pack: Callable[[bytes], bytes] = _deflate
        self._packed_kind = agent.COMPRESSED

    # -- start and end --------------------------------------------------------------------------------------------

    async def open(self, argv: Sequence[bytes], wanted: Wanted) -> Far:
        """Start the agent and let it open its root.

        Raises:
            NoPython: there is none, or it is older than 3.8.
            TargetError: ssh cannot log in, and never will as things are; the root cannot be used.
            TargetAway: not reachable now.
        """
        out_read, self._out = os.pipe()
        self._in, in_write = os.pipe()
        for fd in (self._out, self._in):
            os.set_blocking(fd, False)
            with contextlib.suppress(OSError):
                fcntl.fcntl(fd, F_SETPIPE_SZ, PIPE_BYTES)
        stderr = self._stderr = Stderr(STDERR_MAX, latest=True)
        try:
            self._process = await asyncio.create_subprocess_exec(
                *argv, stdin=out_read, stdout=in_write, stderr=stderr.write, start_new_session=True
            )
        except OSError as error:
            raise ToolMissing(
                "no-ssh", f"cannot start {os.fsdecode(argv[0])}: {error.strerror}", fix="install OpenSSH's client"
            ) from error
        finally:
            os.close(out_read)
            os.close(in_write)
            stderr.started()
        loop = asyncio.get_running_loop()
        self._greeting = loop.create_future()
        self._heard_s = time.monotonic()
        loop.add_reader(self._in, self._readable)
        self._write(bootstrap())
        try:
            hello = await asyncio.wait_for(asyncio.shield(self._greeting), HELLO_S)
        except TimeoutError:
            raise TargetAway(f"nothing was heard for {HELLO_S:g} s after connecting") from None
        return await self._begin(hello, wanted)

    async def _begin(self, hello: bytes, wanted: Wanted) -> Far:
        protocol, is_root, abilities, _, sha256, blake2b = agent.HELLO_BODY.unpack(hello)
        if protocol != agent.PROTOCOL:
            raise TargetError(
                "agent-version",
                f"the agent over there speaks version {protocol} of the protocol, and here it is {agent.PROTOCOL}",
                fix="install the same version of instep on both sides, or let the agent be sent over",
            )
        abilities &= _abilities()
        if abilities & agent.HAS_ZSTD:
            self._pack, self._packed_kind = agent.packer(), agent.ZSTD
        if abilities & agent.HAS_XXHASH:
            algorithm = agent.XXH3
        else:
            slowest = {
                agent.SHA256: min(sha256, _speed(agent.SHA256)),
                agent.BLAKE2B: min(blake2b, _speed(agent.BLAKE2B)),
            }
            algorithm = max(slowest, key=slowest.__getitem__)
        key = os.urandom(8)
        body = agent.OPEN_BODY.pack(
            agent.PROTOCOL, wanted.flags, wanted.keep, wanted.umask, algorithm, key, wanted.whose
        )
        if self.gone:  # What came right behind the greeting was no answer to anything.
            raise TargetAway(self.gone)
        began_ns = time.time_ns()
        future = self._expect(0)
        self._pending[self._number].opens_first = bool(wanted.flags & agent.MAY_MAKE_ROOT)
        self._write(agent.frame(agent.OPEN, self._number, body + wanted.path))
        try:
            reply = await asyncio.wait_for(future, HELLO_S)
        except TimeoutError:
            raise TargetAway(f"the agent has not opened its root within {HELLO_S:g} s") from None
        device, inode, born_ns, far_ns = agent.OPENED_BODY.unpack(reply.results[0][2])
        self._next_beat()
        return Far(
            is_root=bool(is_root),
            identity=(device, inode, born_ns),
            ahead_ns=far_ns - began_ns + CLOCK_LAG_NS,
            digest=agent.hasher(algorithm, key),
        )

    def give_up(self, why: str) -> None:
        """Speak no more with it."""
        self._end(why)

    async def close(self) -> None:
        """End the agent and whatever carries it."""
        self.lost = None
        self._end("closed")
        process, self._process = self._process, None
        try:
            if process is not None:
                await end(process, END_S)
        finally:
            if self._stderr is not None:
                self._stderr.close()

    # -- speaking -------------------------------------------------------------------------------------------------

    def request(self, parts: Sequence[bytes], size: int, *, bulk: bool) -> asyncio.Future[Reply]:
        """Send a frame of operations; the future is the answer, or TargetAway.

        Args:
            parts: The body.
            size: Its length.
            bulk: It counts for the window; ``room`` was waited for.
        """
        if self.gone:
            raise TargetAway(self.gone)
        kind = agent.BATCH
        if size >= COMPRESS_FROM and self._packs():
            packed = self._packed(parts, size)
            if packed is not None:
                parts, size, kind = (packed,), len(packed), kind | self._packed_kind
        future = self._expect(size if bulk else 0)
        head = agent.HEADER.pack(size, kind, self._number)
        if bulk:
            self.flow.sent(size)
        if len(parts) <= FEW_PARTS and not self._queue:
            self._write_parts(head, parts)
        else:
            self._write(b"".join((head, *parts)))
        return future

    def _write_parts(self, head: bytes, parts: Sequence[bytes]) -> None:
        """Write without putting them together first; worth it where one of them is large."""
        pieces = [head, *parts]
        try:
            count = os.writev(self._out, pieces)
        except BlockingIOError:
            count = 0
        except OSError:
            return  # The end of its output says what happened.
        for piece in pieces:
            if count < len(piece):
                self._queue.append(memoryview(piece)[count:])
                count = 0
            else:
                count -= len(piece)
        if self._queue:
            asyncio.get_running_loop().add_writer(self._out, self._writable)

    async def flush(self) -> None:
        """Let what was written over there reach the disk.

        Raises:
            TargetAway: the connection is gone.
            OSError: something is lost.
        """
        if self.gone:
            raise TargetAway(self.gone)
        future = self._expect(0)
        self._write(agent.frame(agent.SYNC, self._number, b""))
        for _, status, payload in (await future).results:
            if status == agent.FAILED:
                number = agent.FAILURE.unpack(payload)[0]
                raise OSError(number, os.strerror(number))

    def doubt(self) -> None:
        """What the far kernel remembers of files is not to be believed any more. In the loop; nothing is awaited."""
        if not self.gone:
            self._write(agent.frame(agent.DOUBT, 0, b""))

    async def room(self) -> None:
        """Wait until the window lets more bulk out.

        Raises:
            TargetAway: the connection is gone.
        """
        while self.flow.is_full and not self.gone:
            self._room.clear()
            await self._room.wait()
        if self.gone:
            raise TargetAway(self.gone)

    def _packs(self) -> bool:
        if self._compress is Compress.AUTO:
            return 0 < self.flow.bytes_per_s < COMPRESS_BELOW[self._packed_kind]
        return self._compress is Compress.ON

    def _packed(self, parts: Sequence[bytes], size: int) -> bytes | None:
        if self._incompressible:
            self._incompressible -= 1
            return None
        packed = self._pack(b"".join(parts))
        if len(packed) > size * 0.9:
            self._incompressible = 16
            return None
        return packed

    def _expect(self, bulk: int) -> asyncio.Future[Reply]:
        self._number = self._number + 1 & 0xFFFFFFFF
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._pending[self._number] = _Pending(future, bulk, time.monotonic())
        return future

    def _write(self, data: bytes) -> None:
        if self._queue:
            self._queue.append(memoryview(data))
            return
        try:
            count = os.write(self._out, data)
        except BlockingIOError:
            count = 0
        except OSError:
            return  # The end of its output says what happened.
        if count < len(data):
            self._queue.append(memoryview(data)[count:])
            asyncio.get_running_loop().add_writer(self._out, self._writable)

    def _writable(self) -> None:
        queue = self._queue
        try:
            while queue:
                view = queue[0]
                count = os.write(self._out, view)
                if count < len(view):
                    queue[0] = view[count:]
                    return
                queue.popleft()
        except BlockingIOError:
            return
        except OSError:
            queue.clear()
        asyncio.get_running_loop().remove_writer(self._out)

    # -- listening ------------------------------------------------------------------------------------------------

    def _readable(self) -> None:
        try:
            data = os.read(self._in, READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._ended()
            return
        self._heard_s = time.monotonic()
        self._buffer += data
        try:
            if self._greeting is not None and not self._greeting.done():
                self._greet()
            self._parse()
        except (agent.ProtocolError, struct.error, ValueError) as error:
            self._end(f"what came from there is no answer of an agent: {error}")

    def _greet(self) -> None:
        at = self._buffer.find(agent.MAGIC)
        if at < 0:
            if len(self._buffer) > NOISE_MAX:
                raise agent.ProtocolError("only noise")
            return
        end = at + len(agent.MAGIC) + agent.HEADER.size + agent.HELLO_BODY.size
        if len(self._buffer) < end:
            return
        assert self._greeting is not None
        self._greeting.set_result(bytes(self._buffer[end - agent.HELLO_BODY.size : end]))
        del self._buffer[:end]

    def _parse(self) -> None:
        if self._greeting is not None and not self._greeting.done():
            return
        buffer, size = self._buffer, agent.HEADER.size
        at = 0
        while len(buffer) - at >= size:
            length, kind, number = agent.HEADER.unpack_from(buffer, at)
            if length > agent.FRAME_MAX:
                raise agent.ProtocolError("too long a frame")
            if len(buffer) - at - size < length:
                break
            body = bytes(buffer[at + size : at + size + length])
            at += size + length
            self._take(kind, number, body)
        del buffer[:at]

    def _take(self, kind: int, number: int, body: bytes) -> None:
        if kind == agent.PONG:
            return
        if kind == agent.SIGNED:
            handler = self.signed.get(number)
            if handler is not None:
                handler(body)
            return
        pending = self._pending.get(number)
        if kind == agent.PART and pending is not None:
            pending.held += len(body)
            if pending.held > LISTING_MAX:
                raise agent.ProtocolError("too long a listing")
            pending.parts.setdefault(struct.unpack_from("<I", body)[0], bytearray()).extend(body[4:])
            return
        if kind == agent.REFUSED:
            self._refused(number, body)
            return
        if pending is None or kind not in (agent.ACK, agent.OPENED):
            raise agent.ProtocolError("an answer to nothing")
        del self._pending[number]
        results = [(0, agent.OK, body)] if kind == agent.OPENED else list(agent.results(body))
        self._settle(pending)
        if not pending.future.done():
            pending.future.set_result(Reply(results, pending.parts))

    def _settle(self, pending: _Pending) -> None:
        if pending.bulk:
            self.flow.acknowledged(pending.bulk, pending.sent_s, time.monotonic())
            self._room.set()

    def _refused(self, number: int, body: bytes) -> None:
        pending = self._pending.pop(number, None)
        if pending is None:
            raise agent.ProtocolError(body[:200].decode("utf-8", "backslashreplace"))
        self._settle(pending)
        number = 0
        if pending.opens_first is not None:
            number, body = struct.unpack_from("<H", body)[0], body[2:]
        words = body.decode("utf-8", "backslashreplace")
        error: Exception = TargetAway(words)
        if pending.opens_first and number in UNUSABLE:
            error = TargetError(
                "target-not-usable",
                f"the target directory cannot be used: {words}",
                fix="name a directory that the far user may write to; all but its last component must be there",
            )
        if not pending.future.done():
            pending.future.set_exception(error)

    def _ended(self) -> None:
        """Its output is at an end: it is gone, or never was there; the process and its last words say why."""
        asyncio.get_running_loop().remove_reader(self._in)
        self._burying = asyncio.get_running_loop().create_task(self._bury())

    async def _bury(self) -> None:
        process = self._process
        if process is None:
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), 5)
        if self._stderr is not None:
            await self._stderr.said(1)
        self._end("", status=process.returncode)

    def _end(self, why: str, *, status: int | None = None) -> None:
        if self.gone:
            return
        error: Exception
        if why:
            error = TargetAway(why)
        else:
            error = self._reason(status)
            why = str(error) if isinstance(error, TargetAway) else error.args[0]
        self.gone = why
        loop = asyncio.get_running_loop()
        if self._beat is not None:
            self._beat.cancel()
        loop.remove_reader(self._in)
        loop.remove_writer(self._out)
        os.close(self._in)
        os.close(self._out)
        self._queue.clear()
        greeted = self._greeting is not None and self._greeting.done()
        if self._greeting is not None and not greeted:
            self._greeting.set_exception(error)
            self._greeting.exception()  # Somebody may have gone away meanwhile.
        for pending in self._pending.values():
            if not pending.future.done():
                pending.future.set_exception(TargetAway(why))
                pending.future.exception()
        self._pending.clear()
        self._room.set()
        if self.lost is not None:
            self.lost(why)

    def _reason(self, status: int | None) -> Exception:
        stderr = self._stderr.so_far if self._stderr is not None else b""
        words = ssh.said(stderr)
        if self._greeting is not None and self._greeting.done():
            return TargetAway(f"the connection was lost{': ' + words if words else ''}")
        if status == TOO_OLD:
            return NoPython("far-python-too-old", "the python3 over there is older than 3.8", fix="install a newer one")
        if status == NO_PYTHON or b"python3: not found" in stderr or b"python3: command not found" in stderr:
            return NoPython("far-python-missing", "there is no python3 over there", fix="install it, or use rsync")
        if status == ssh.OWN_FAILURE:
            return ssh.failure(self._host, status, stderr)
        return TargetAway(f"the agent did not start (exit status {status}){': ' + words if words else ''}")

    def _next_beat(self) -> None:
        self._beat_due_s = time.monotonic() + BEAT_S
        self._beat = asyncio.get_running_loop().call_later(BEAT_S, self._on_beat)

    def _on_beat(self) -> None:
        now_s = time.monotonic()
        if now_s - self._beat_due_s > BEAT_S:
            self._heard_s = now_s  # It was we who did not listen: stopped, or held up.
        silent_s = now_s - self._heard_s
        if silent_s > DEAD_S:
            self._end(f"no answer for {DEAD_S:g} s")
            process = self._process
            if process is not None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
            return
        self._next_beat()
        if not self._queue:
            # Also a sign of life for the agent, which ends when it hears nothing.
            self._write(agent.frame(agent.PING, 0, b""))


def _deflate(body: bytes) -> bytes:
    return zlib.compress(body, 1)


@functools.cache
def _abilities() -> int:
    return agent.abilities()


@functools.cache
def _speed(algorithm: int) -> int:
    return agent.speed(algorithm)
