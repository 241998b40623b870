"""Where what handlers ask for is done: programs run, functions of modules called, an engine put to work."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from typing import Protocol

from instep.engines.command.launcher import Launcher
from instep.engines.command.program import Interruption
from instep.engines.command.program import begin as begin_program
from instep.model import Bring, Call, Interrupt, Program, ProgramEnd


class Programs(Protocol):
    """Runs programs."""

    async def __call__(
        self, program: Program, *, umask: int, started: Callable[[Interruption], None] | None = None
    ) -> ProgramEnd:
        """Run one to its end; ``started`` is given what sends signals to it and to all that it started."""


class Helper(Programs, Protocol):
    """Runs them with rights that this process has not."""

    async def open(self, gone: Callable[[], None]) -> None:
        """Get ready; ``gone`` is called when it ends by itself."""

    async def close(self) -> None:
        """Let it end."""


class Module(Protocol):
    """A loaded module whose functions are called."""

    async def open(self) -> None:
        """Load it.

        Raises:
            OperatorError: it cannot be, or does not want to.
        """

    async def call(self, call: Call, *, started: Callable[[Interruption], None] | None = None) -> ProgramEnd:
        """Call one function to its end; ``started`` as for programs."""

    async def close(self) -> None:
        """Let it wind up."""


class Brings(Protocol):
    """An engine with its target, for a handler."""

    async def bring(self, work: Bring, *, started: Callable[[Interruption], None] | None = None) -> ProgramEnd:
        """Bring the paths of a batch in step; failures are in the end. ``started`` as for programs."""

    async def close(self) -> None:
        """Let go of the target."""


class Workshop:
    """Does one handler's work. Used in the loop's thread."""

    def __init__(
        self,
        *,
        umask: int,
        is_our_umask: bool = False,
        launcher: Launcher | None = None,
        helper: Helper | None = None,
        module: Module | None = None,
        engine: Brings | None = None,
    ) -> None:
        """Nothing is started.

        Args:
            umask: what programs get.
            is_our_umask: this process works with the same one.
            launcher: what starts programs for this process; None: it does so itself.
            helper: what runs programs instead of this process.
            module: for a handler that asks for calls.
            engine: for one that asks for batches.
        """
        self._umask = umask
        self._helper = helper
        self._begin = functools.partial(begin_program, umask=umask, is_our_umask=is_our_umask, launcher=launcher)
        self._module = module
        self._engine = engine
        self._interruptions: dict[int, Interruption] = {}

    @property
    def running(self) -> int:
        """How many programs run."""
        return len(self._interruptions)

    async def open(self, gone: Callable[[], None]) -> None:
        """Get ready; ``gone`` is called when nothing can be done any more.

        Raises:
            OperatorError: the module cannot be used.
        """
        if self._helper is not None:
            await self._helper.open(gone)
        if self._module is not None:
            await self._module.open()

    def begin(self, number: int, work: Program | Call | Bring) -> Coroutine[None, None, ProgramEnd]:
        """Do one thing; what is to be awaited for its end. A program that this process starts is started at once."""
        started = functools.partial(self._interruptions.__setitem__, number)
        if self._helper is None and isinstance(work, Program):
            return self._until(number, self._begin(work, started=started))
        return self._until(number, self._run(work, started))

    async def _until(self, number: int, end: Coroutine[None, None, ProgramEnd]) -> ProgramEnd:
        try:
            return await end
        finally:
            self._interruptions.pop(number, None)

    async def _run(self, work: Program | Call | Bring, started: Callable[[Interruption], None]) -> ProgramEnd:
        if isinstance(work, Bring):
            assert self._engine is not None
            return await self._engine.bring(work, started=started)
        if isinstance(work, Call):
            assert self._module is not None
            return await self._module.call(work, started=started)
        assert self._helper is not None
        return await self._helper(work, umask=self._umask, started=started)

    def interrupt(self, what: Interrupt) -> None:
        """Send a signal to what runs under this number and all that it started; nothing if it has ended."""
        interruption = self._interruptions.get(what.number)
        if interruption is not None:
            interruption(what.signal)

    async def close(self) -> None:
        """Let go of everything."""
        if self._module is not None:
            await self._module.close()
        if self._engine is not None:
            await self._engine.close()
        if self._helper is not None:
            await self._helper.close()
