"""One rsync process: started, fed its list, read while it runs, waited for.

Facts: rsync local needs 47 ms until it has exited, 7 ms until the data is there. A memory file as standard input needs
no feeding; reading it byte by byte, as rsync does, costs what a pipe costs. The ssh master that a first run leaves
behind may hold the standard error open (OpenSSH before 8.5), so the exit is waited for, not the end of the pipes.
``asyncio``'s own child watcher starts a thread for each child before Python 3.12; a pidfd (Linux 5.3) needs none.
A file that becomes a FIFO between rsync's list and its open(2) holds the sender for ever, and no ``--timeout`` ends
that (measured, 3.5.0). Its handler for SIGCHLD is set without SA_RESTART: the signal breaks such an open(2) off with
EINTR, rsync says so and goes on with the next file.
When directories come and go under a local rsync with ``--recursive`` and a list, it happens (once in about a thousand
runs under a storm of renames, 3.2.7) that its three processes wait for one another for ever, each in poll or select.
So they do with ``--hard-links`` where one name of a file cannot be had because a directory is in its way, also those of
a far rsync; then they wake for ``--timeout``, and tell each other that they are alive.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from typing import NamedTuple, Self

from instep.engines.rsync.output import IN_THE_WAY
from instep.linux.memory import memory_file

STDERR_BYTES = 1 << 18
"""So much of the standard error is kept at its start; the last bytes, which name the reason, are always kept."""

PIPE_BYTES = 1 << 18
REST_S = 0.02
"""Four thousand lines fit into the pipe; rsync makes 60,000 in a second at the very best."""

F_SETPIPE_SZ = 1031
"""fcntl(2); ``fcntl.F_SETPIPE_SZ`` only since Python 3.10, and only on Linux."""

_CHUNK_BYTES = 1 << 18
ENDED_TOGETHER = (0, 23, 24, 25)
"""After these the first process has seen the others end; after any other, e.g. 11 for a full target, they may live on
for a while (measured, 3.2.7 and 3.5.0)."""

LOOK_S = 0.5
"""So often a long run is looked at for hanging."""

HUNG_S = 10.0
"""For so long none of its processes may have moved, before they count as waiting for one another. rsync itself wakes
every 60 s at the latest."""

STIRS_BYTES = 4096
"""A process that reads and writes no more than this in ``HUNG_S`` only tells the other side that it is alive."""

PATIENCE_S = 5.0
"""How long a process that was asked to end may take before it is killed."""


class Exit(NamedTuple):
    """How it ended."""

    status: int
    """The exit status; negative: the signal that killed it."""
    stderr: bytes
    hung: bool = False
    """Its processes waited for one another, and were ended."""


async def run(
    argv: Sequence[bytes],
    *,
    directory: bytes | None,
    listing: bytes,
    on_line: Callable[[bytes], None],
    keeps: Sequence[int] = (),
    alone: bool = False,
) -> Exit:
    """Run a program to its end. When cancelled, the program is ended first.

    Args:
        argv: program with its arguments.
        directory: where to run it; may be a magic link below /proc/self/fd.
        listing: its standard input.
        on_line: called with each line of its standard output, without the LF, in the loop's thread.
        keeps: descriptors of ours that it holds open until its end.
        alone: it talks to nobody but the processes that it starts; if all of these only wait, they are ended.
            Otherwise only after it has said ``IN_THE_WAY``.
    """
    with memory_file(listing) as stdin:
        # Its own session: an interrupt typed at the terminal is for the daemon alone, which then ends its children.
        process = subprocess.Popen(  # noqa: ASYNC220  # vfork and exec: 1 ms; a thread would cost more
            argv,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=directory,
            env={**os.environb, b"LC_ALL": b"C"},
            start_new_session=True,
            bufsize=0,
            pass_fds=keeps,
        )
    assert process.stdout is not None
    assert process.stderr is not None
    lines, errors = _Lines(on_line), _HeadAndTail()
    with _Reader(process.stdout.fileno(), lines.feed) as out, _Reader(process.stderr.fileno(), errors.feed) as err:
        try:
            with _Watch(process.pid, errors, alone=alone) as watch:
                await _exited(process)
            if process.returncode not in ENDED_TOGETHER:
                await _end(process, err)
        except BaseException:
            await _end(process, err)
            raise
        finally:
            out.drain()
            err.drain()
            process.stdout.close()
            process.stderr.close()
    lines.close()
    return Exit(process.returncode, errors.value(), watch.ended_it)


async def _exited(process: subprocess.Popen[bytes]) -> None:
    """Wait without a thread where the kernel allows."""
    loop = asyncio.get_running_loop()
    try:
        pidfd = os.pidfd_open(process.pid)
    except (AttributeError, OSError):
        # Shielded: a cancelled wait must not leave a thread that reaps the child behind our back.
        await asyncio.shield(loop.run_in_executor(None, process.wait))
        return
    gone = loop.create_future()

    def note() -> None:
        loop.remove_reader(pidfd)
        if not gone.done():
            gone.set_result(None)

    loop.add_reader(pidfd, note)
    try:
        await gone
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)
    process.wait()


class _Watch:
    """Frees a process that hangs at a FIFO (it is this very process that reads the source), or at its own children."""

    def __init__(self, pid: int, errors: _HeadAndTail, *, alone: bool) -> None:
        self._pid = pid
        self._errors = errors
        self._alone = alone
        self._loop = asyncio.get_running_loop()
        self._moved_bytes = -STIRS_BYTES - 1
        self._moved_s = 0.0
        self._still: Sequence[tuple[int, bytes]] | None = None
        self._since_s = 0.0
        self.ended_it = False

    def __enter__(self) -> Self:
        self._timer = self._loop.call_later(LOOK_S, self._look)
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        with contextlib.suppress(OSError):
            if _waits_in(self._pid) in (b"wait_for_partner", b"fifo_open"):
                os.kill(self._pid, signal.SIGCHLD)
        if (self._alone and self._hangs()) or (IN_THE_WAY in self._errors and self._idles()):
            self.ended_it = True
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._pid, signal.SIGTERM)
            return
        self._timer = self._loop.call_later(LOOK_S, self._look)

    def _hangs(self) -> bool:
        """Whether all of its processes have waited in poll or select since they were first seen to, long ago."""
        still = _still(self._pid)
        if still is None or still != self._still:
            self._still, self._since_s = still, self._loop.time()
            return False
        return self._loop.time() - self._since_s >= HUNG_S

    def _idles(self) -> bool:
        """Whether it has hardly read or written anything since it was first seen to idle, long ago."""
        moved = _moved_bytes(self._pid)
        if moved - self._moved_bytes > STIRS_BYTES:
            self._moved_bytes, self._moved_s = moved, self._loop.time()
        return self._loop.time() - self._moved_s >= HUNG_S


def _moved_bytes(pid: int) -> int:
    """What a process has read and written so far."""
    try:
        with open(f"/proc/{pid}/io", "rb") as file:
            return sum(int(line.split()[1]) for line in file if line.startswith((b"rchar", b"wchar")))
    except OSError:
        return 0  # It has ended.


def _waits_in(pid: int) -> bytes:
    """The kernel's function in which a process sleeps."""
    with open(f"/proc/{pid}/wchan", "rb") as file:
        return file.read()


def _still(pid: int) -> Sequence[tuple[int, bytes]] | None:
    """A process with all below it, and how often each slept; None unless there are several, all in poll or select.

    Not one that sleeps for something else: a slow disk or a stopped process is nobody's fault here.
    """
    found: list[tuple[int, bytes]] = []
    todo = [pid]
    try:
        while todo:
            each = todo.pop()
            if not _waits_in(each).startswith((b"poll_schedule_timeout", b"do_select", b"do_poll")):
                return None
            with open(f"/proc/{each}/status", "rb") as status:
                found.append((each, b"".join(line for line in status if b"ctxt_switches" in line)))
            with open(f"/proc/{each}/task/{each}/children", "rb") as children:
                todo += map(int, children.read().split())
    except OSError:
        return None  # It has ended, or this kernel does not tell.
    return found if len(found) > 1 else None


async def _end(process: subprocess.Popen[bytes], err: _Reader) -> None:
    """End it with all it started: a half left alive could put an old file over what the next run brings.

    rsync removes its temporary files when asked politely. Its processes all hold the standard error, so the end of
    that tells that they are gone. An ssh master holds it as well, for as long as a silent host lets it wait: then it
    is their process group that tells, and where nobody reaps orphans, patience ends the wait.
    """
    if process.poll() is None:
        # All of them: an ssh whose host is silent does not notice that its rsync has ended.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(_exited(process), PATIENCE_S)
    until_s = asyncio.get_running_loop().time() + PATIENCE_S
    while process.returncode is not None and not err.drained() and _has_members(process.pid):
        if asyncio.get_running_loop().time() > until_s:
            break
        await asyncio.sleep(0.005)
    else:
        if process.returncode is not None:
            return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _has_members(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


class _Reader:
    """Reads one pipe, a good deal at a time: rsync writes line by line, and to wake for each costs more than rsync."""

    def __init__(self, fd: int, feed: Callable[[bytes], None]) -> None:
        self._fd = fd
        self._feed = feed
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._ended = False

    def __enter__(self) -> Self:
        os.set_blocking(self._fd, False)
        with contextlib.suppress(OSError):  # EPERM past /proc/sys/fs/pipe-user-pages-soft: then it stays 64 KiB
            fcntl.fcntl(self._fd, F_SETPIPE_SZ, PIPE_BYTES)
        self._loop.add_reader(self._fd, self._ready)
        return self

    def __exit__(self, *_: object) -> None:
        self.drain()

    def _ready(self) -> None:
        """Take what is there, then look away for a while."""
        self._loop.remove_reader(self._fd)
        if self._take():
            self._timer = self._loop.call_later(REST_S, self._loop.add_reader, self._fd, self._ready)

    def _take(self) -> bool:
        """Read all there is; False at the end of the stream."""
        while True:
            try:
                data = os.read(self._fd, _CHUNK_BYTES)
            except BlockingIOError:
                return True
            if not data:
                self._ended = True
                return False
            self._feed(data)
            if len(data) < _CHUNK_BYTES:
                return True

    def drained(self) -> bool:
        """Whether the last holder of the other end has let go of it; takes what is there."""
        return self._ended or not self._take()

    def drain(self) -> None:
        """Take what is left and stop reading."""
        if self._fd < 0:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._fd)
        while True:
            try:
                data = os.read(self._fd, _CHUNK_BYTES)
            except BlockingIOError:
                break
            if not data:
                break
            self._feed(data)
        self._fd = -1


class _Lines:
    """Cuts a stream into lines."""

    def __init__(self, on_line: Callable[[bytes], None]) -> None:
        self._on_line = on_line
        self._rest = b""

    def feed(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._on_line(line)

    def close(self) -> None:
        if self._rest:
            self._on_line(self._rest)
            self._rest = b""


class _HeadAndTail:
    """Keeps the start and the end of a stream."""

    def __init__(self) -> None:
        self._head = b""
        self._tail = b""

    def feed(self, data: bytes) -> None:
        room = STDERR_BYTES - len(self._head)
        self._head += data[:room]
        self._tail = (self._tail + data[room:])[-STDERR_BYTES:]

    def __contains__(self, words: bytes) -> bool:
        return words in self._head or words in self._tail

    def value(self) -> bytes:
        return self._head + self._tail
