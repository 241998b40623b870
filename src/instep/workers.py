"""Worker processes for bulk work that would hold up the loop: started when first needed, ended after a while of rest.

A worker is a bare interpreter that inherits some descriptors and runs ``instep.serving``. It ends when its stdin does.
"""

from __future__ import annotations

import asyncio
import logging
import marshal
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence

from instep.logs import fields
from instep.serving import LENGTH, Values

log = logging.getLogger(__name__)

IDLE_S = 30.0
END_S = 5.0
_LIBRARY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_START = "import sys; sys.path.insert(0, sys.argv.pop()); from {module} import main; main()"


class WorkerDied(Exception):
    """A worker process ended in the middle of a job, or could not be started; the job counts as not done."""


class Pool:
    """A fixed number of workers; ``run`` gives a job to a free one. Used from one loop.

    Args:
        module: Whose ``main`` a worker runs; that calls ``serve``.
        descriptors: What it inherits; its arguments are their numbers.
        greeting: What it is told first.
        size: How many there are at most.
    """

    def __init__(self, module: str, descriptors: Sequence[int], greeting: Values, size: int) -> None:
        self.size = max(1, size)
        self._module = module
        self._descriptors = tuple(descriptors)
        self._greeting = greeting
        self._idle: list[Process] = []
        self._all: set[Process] = set()
        self._free = asyncio.Semaphore(self.size)
        self._rest: asyncio.TimerHandle | None = None
        self._closed = False
        self._ends: set[asyncio.Task[int]] = set()  # of every process that was started and has not ended
        self._start_failed = False

    async def run(self, job: Values) -> Values:
        """The answer to a job, as soon as a worker was free for it and has done it.

        Raises:
            WorkerDied: killed, crashed, or not started; a new worker takes its place at the next call.
        """
        async with self._free:
            if self._rest is not None:
                self._rest.cancel()
                self._rest = None
            worker = self._idle.pop() if self._idle else await self._start()
            try:
                answer = await self._ask(worker, job)
            except BaseException:
                self._kill(worker)
                raise
            self._idle.append(worker)
            if len(self._idle) == len(self._all) and not self._closed:
                self._rest = asyncio.get_running_loop().call_later(IDLE_S, self._retire)
            return answer

    async def warm(self) -> None:
        """Start all workers now, side by side. One that cannot be started is started again when it is needed."""
        missing = self.size - len(self._all)
        started = await asyncio.gather(*(self._start() for _ in range(missing)), return_exceptions=True)
        for worker in started:
            if isinstance(worker, Process):
                self._idle.append(worker)
            elif not isinstance(worker, WorkerDied):
                raise worker

    async def close(self) -> None:
        """End the workers; waits until they are gone."""
        self._closed = True
        if self._rest is not None:
            self._rest.cancel()
        for worker in list(self._all):
            self._kill(worker)
        if self._ends:  # Also of those that were killed or sent home before: none may outlive the loop.
            _, still = await asyncio.wait(self._ends, timeout=END_S)
            for end in still:
                end.cancel()

    async def _start(self) -> Process:
        try:
            worker = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                "-S",
                "-c",
                _START.format(module=self._module),
                *map(str, self._descriptors),
                _LIBRARY,
                stdin=PIPE,
                stdout=PIPE,
                pass_fds=self._descriptors,
                limit=1 << 20,
                start_new_session=True,
            )
        except OSError as error:
            reason = f"cannot start a worker process: {error.strerror or error}"
            if not self._start_failed:
                self._start_failed = True
                log.error(  # noqa: TRY400  # the reason says all there is
                    "worker-not-started",
                    extra=fields(
                        reason=reason,
                        program=sys.executable,
                        now="what needs it is tried again",
                        fix="look at the limits on processes, memory and open files, and whether Python was replaced",
                    ),
                )
            raise WorkerDied(reason) from error
        self._start_failed = False
        self._all.add(worker)
        end = asyncio.get_running_loop().create_task(worker.wait())
        self._ends.add(end)
        end.add_done_callback(self._ends.discard)
        self._send(worker, self._greeting)
        return worker

    async def _ask(self, worker: Process, job: Values) -> Values:
        self._send(worker, job)
        assert worker.stdin is not None
        assert worker.stdout is not None
        try:
            await worker.stdin.drain()
            (length,) = LENGTH.unpack(await worker.stdout.readexactly(LENGTH.size))
            reply = await worker.stdout.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            status = await worker.wait()
            log.error(  # noqa: TRY400  # the status says all there is
                "worker-died",
                extra=fields(status=status, now="its paths are tried again", fix="look for a killer: memory limit?"),
            )
            raise WorkerDied(f"a worker process ended with status {status}") from error
        answer = marshal.loads(reply)  # noqa: S302  # from our own child, over a pipe
        assert isinstance(answer, tuple)
        return answer

    @staticmethod
    def _send(worker: Process, value: Values) -> None:
        body = marshal.dumps(value)
        assert worker.stdin is not None
        worker.stdin.write(LENGTH.pack(len(body)) + body)

    def _kill(self, worker: Process) -> None:
        self._all.discard(worker)
        if worker in self._idle:
            self._idle.remove(worker)
        # Kills it, and closes its pipes: a reply that nobody reads would keep ``wait`` from ever returning.
        worker._transport.close()  # type: ignore[attr-defined]  # noqa: SLF001  # a Process has no close of its own

    def _retire(self) -> None:
        self._rest = None
        for worker in list(self._idle):
            assert worker.stdin is not None
            worker.stdin.close()  # It ends by itself when its stdin does.
            self._all.discard(worker)
        self._idle.clear()
