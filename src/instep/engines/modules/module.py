"""A module with functions that act on changes: loaded, called, started anew after a crash, wound up."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable

from instep.engines.command.listfiles import list_files
from instep.engines.command.program import CANNOT_START, Interruption
from instep.engines.modules import requests, wire
from instep.engines.modules.check import check_module
from instep.engines.modules.process import Died, ModuleProcess, Start
from instep.engines.modules.wire import Done, Message, Unusable
from instep.errors import ModuleRefused, OperatorError
from instep.logs import fields
from instep.model import Call, ProgramEnd
from instep.spec import ModuleSpec

log = logging.getLogger(__name__)
saying = logging.getLogger(f"{__name__}.saying")
saying.setLevel(logging.DEBUG)  # What is wanted of it was chosen in the module's process, by clsync's levels.

UNLOADABLE = 255
NO_FUNCTION = 22
_LEVELS = {
    wire.CRITICAL: logging.CRITICAL,
    wire.ERROR: logging.ERROR,
    wire.WARNING: logging.WARNING,
    wire.INFO: logging.INFO,
}


class Module:
    """One module. Used in the loop's thread.

    It runs in processes of its own, one for each call that goes on at the same time; each has init called at its start
    and deinit at its end.
    """

    def __init__(self, spec: ModuleSpec, prepare: Callable[[], Start]) -> None:
        """Nothing is started.

        Args:
            spec: which, and what it is told.
            prepare: gives the program that loads it, which may have to be made first; blocks. Called once.
        """
        self._spec = spec
        self._prepare = prepare
        self._start: Start | None = None
        self._room = asyncio.Semaphore(spec.processes)
        self._idle: list[ModuleProcess] = []
        self._busy: set[ModuleProcess] = set()
        self._spoilt: set[ModuleProcess] = set()

    def prepare(self) -> None:
        """Do what needs the rights that we start with, and blocks up to some seconds; ``open`` does it otherwise.

        Raises:
            OperatorError: the file may not be loaded, or what loads it cannot be made.
        """
        if self._start is None:
            check_module(self._spec.path)
            self._start = self._prepare()

    async def open(self) -> None:
        """Load it and call its init, which may take as long as it likes.

        Raises:
            OperatorError: it cannot be loaded, or its init did not want to go on.
        """
        self.prepare()
        self._idle.append(await self._begin())

    async def call(self, call: Call, *, started: Callable[[Interruption], None] | None = None) -> ProgramEnd:
        """Call its ``sync`` or ``rsync`` with the list files it needs; waits for a process to be free.

        When cancelled, the process is killed with what it started: at ``close`` at the latest.

        Args:
            call: what is to be called, with what.
            started: given, as soon as it has a process, what sends a signal to that and to all that the module started
                there. Of TERM and INT a function in C learns only through the end of what it waits for; in Python they
                are a KeyboardInterrupt.
        """
        assert (call.include is not None) == self._spec.takes_lists
        async with self._room:
            try:
                with list_files(call.files, umask=self._made.umask):
                    return await self._call(call, started)
            except OSError as error:
                return ProgramEnd(CANNOT_START, trouble=f"cannot make its list: {error.strerror}")

    async def close(self) -> None:
        """Have deinit called, and all processes ended; what is still at work is killed."""
        idle, self._idle = self._idle, []
        await asyncio.gather(
            *(self._wind_up(process) for process in idle),
            *(process.kill() for process in self._busy | self._spoilt),
        )
        start, self._start = self._start, None
        for fd in () if start is None else start.descriptors:
            os.close(fd)

    @property
    def _made(self) -> Start:
        assert self._start is not None, "not open"
        return self._start

    async def _call(self, call: Call, started: Callable[[Interruption], None] | None) -> ProgramEnd:
        try:
            process = await self._free_process()
        except OperatorError as error:
            log.error(  # noqa: TRY400  # it says all there is
                "module-not-started",
                extra=fields(module=self._spec.path, reason=error.what, now="this call has failed", fix=error.fix),
            )
            return ProgramEnd(error.status if isinstance(error, ModuleRefused) else CANNOT_START, trouble=error.what)
        self._busy.add(process)
        if started is not None:
            started(lambda number: process.signal(number) if process in self._busy else None)
        try:
            answer, timed_out = await process.ask(requests.call(call), timeout_s=call.timeout_s)
        except BaseException:
            self._spoil(process)
            raise
        finally:
            self._busy.discard(process)
        if isinstance(answer, Done):
            self._idle.append(process)
            return ProgramEnd(_exit_status(answer.status), timed_out=timed_out)
        assert isinstance(answer, Died)
        if not process.was_killed:
            self._log_death(answer)
        return ProgramEnd(answer.status, signal=answer.signal, timed_out=timed_out)

    async def _free_process(self) -> ModuleProcess:
        """One that is idle, or a new one."""
        while self._idle:
            process = self._idle.pop()
            if not process.ended.done():
                return process
            self._log_death(process.ended.result())
        check_module(self._spec.path)
        return await self._begin()

    async def _begin(self) -> ModuleProcess:
        """Start a process and have the module loaded in it.

        Raises:
            ModuleRefused: it cannot be.
        """
        path = os.fsdecode(self._spec.path)
        try:
            process = ModuleProcess(self._made, self._tell)
        except OSError as error:
            what = f"cannot start the process for the module {path}: {error.strerror}"
            fix = "look at the rights, and at the limits on processes, memory and open files"
            raise ModuleRefused("module-not-started", what, status=error.errno or UNLOADABLE, fix=fix) from error
        try:
            answer, _ = await process.ask(requests.setup(self._spec))
        except BaseException:
            self._spoil(process)
            raise
        if answer == Done(0):
            return process
        await process.kill()
        raise self._refusal(answer)

    def _refusal(self, answer: Done | Unusable | Died) -> ModuleRefused:
        path = os.fsdecode(self._spec.path)
        match answer:
            case Done(status):
                what = f"the init function of the module {path} returned {status}"
                return ModuleRefused("module-init", what, status=_exit_status(status))
            case Unusable("function", name):
                what = f"the module {path} has no function {name}, which this mode calls"
                fix = "choose the other mode (so or rsyncso, py or rsyncpy), or add the function"
                return ModuleRefused("module-lacks-function", what, status=NO_FUNCTION, fix=fix)
            case Unusable(_, text):
                return ModuleRefused("module-unloadable", f"cannot load the module {path}: {text}", status=UNLOADABLE)
            case Died(status):
                return ModuleRefused("module-init", f"the module {path} {_ending(answer)} in its init", status=status)

    def _spoil(self, process: ModuleProcess) -> None:
        """It is in the middle of something that nobody waits for any more."""
        process.signal(signal.SIGKILL)
        self._spoilt.add(process)
        process.ended.add_done_callback(lambda _: self._spoilt.discard(process))

    async def _wind_up(self, process: ModuleProcess) -> None:
        answer = await process.end()
        if isinstance(answer, Died):
            what = "took too long and was killed" if process.was_killed else _ending(answer)
        elif answer == Done(0):
            return
        else:
            what = f"returned {answer.status}" if isinstance(answer, Done) else ""
        log.warning(
            "module-not-wound-up",
            extra=fields(module=self._spec.path, reason=f"its deinit {what}", now="it is ended all the same"),
        )

    def _log_death(self, died: Died) -> None:
        log.error(
            "module-died",
            extra=fields(
                module=self._spec.path,
                reason=f"it {_ending(died)}",
                now="what it was doing has failed; the next call has it loaded anew",
                fix="mend the module: its process is lost each time, and whatever it kept in memory",
            ),
        )

    def _tell(self, message: Message) -> None:
        """Pass on what the module says."""
        level = _LEVELS.get(message.level, logging.DEBUG)
        debug = message.level - wire.DEBUG_BASE if message.level >= wire.DEBUG_BASE else None
        number = message.errno if message.errno and level >= logging.ERROR else None
        for line in message.text.splitlines():  # of a traceback
            extra = fields(function=message.function, text=line, errno=number, debug=debug)
            saying.log(level, "module-says", extra=extra)


def _exit_status(returned: int) -> int:
    """What a process could end with; failure stays failure."""
    return returned & 0xFF or (255 if returned else 0)


def _ending(died: Died) -> str:
    if not died.signal:
        return f"ended its process (exit status {died.status})"
    try:
        name = signal.Signals(died.signal).name
    except ValueError:
        name = f"signal {died.signal}"
    return f"crashed: {name} ended its process"
