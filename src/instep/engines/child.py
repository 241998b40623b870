"""A child that is spoken with: what it says on its standard error, and its end.

Fact (CPython 3.11.7, ``asyncio/base_subprocess.py``): ``Process.wait`` returns once the child has ended *and* each pipe
that asyncio made for it has. ssh's own children (a ProxyCommand, what that leaves in the background) have its standard
error too, so whoever waits for an ssh that was killed may wait for them, for ever; so does ``create_subprocess_exec``
itself when it is cancelled. So the standard error is a pipe that asyncio does not know of.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal

READ_BYTES = 1 << 16


class Stderr:
    """Reads all and keeps a part: a full pipe would stop the child. In the loop's thread; never blocks.

    ``write`` goes to the child, and is to be closed (``started``) as soon as that has it.
    """

    def __init__(self, bytes_max: int, *, latest: bool = False) -> None:
        """Must be made while the loop runs, and closed. Of more than ``bytes_max`` the start is kept, or the latest."""
        self._read, self.write = os.pipe()
        self._bytes_max = bytes_max
        self._latest = latest
        self._kept = bytearray()
        self._ended = asyncio.Event()
        os.set_blocking(self._read, False)
        asyncio.get_running_loop().add_reader(self._read, self._readable)

    def started(self) -> None:
        """The child has its end, or will never be; may be called twice."""
        if self.write >= 0:
            os.close(self.write)
            self.write = -1

    async def said(self, within_s: float) -> bytes:
        """What it said, once nobody can say more, but no later than after so many seconds."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ended.wait(), within_s)
        return self.so_far

    @property
    def so_far(self) -> bytes:
        """What it said, as far as it was read."""
        return bytes(self._kept)

    def close(self) -> None:
        """Hear no more; may be called twice."""
        self.started()
        if self._read >= 0:
            asyncio.get_running_loop().remove_reader(self._read)
            os.close(self._read)
            self._read = -1
            self._ended.set()

    def _readable(self) -> None:
        try:
            data = os.read(self._read, READ_BYTES)
        except BlockingIOError:
            return
        if self._latest:
            self._kept += data
            del self._kept[: -self._bytes_max]
        else:
            self._kept += data[: self._bytes_max - len(self._kept)]
        if not data:
            self.close()


async def end(process: asyncio.subprocess.Process, within_s: float, *, ask: bool = True) -> None:
    """Let it end by itself or, if it is to be asked, by SIGTERM; kill it when it does not, or the wait is cancelled.

    It has to lead a group of its own (``start_new_session``), for what it has started is killed with it. Takes twice
    ``within_s`` at most.
    """
    if ask and process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
    try:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), within_s)
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode is None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), within_s)
