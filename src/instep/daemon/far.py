"""What serves a target that ssh reaches: the agent where python3 runs it, else rsync. Decided by the first open."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Sequence

from instep.engines.remote.connection import NoPython
from instep.logs import fields
from instep.model import Batch, Change, Difference, Landmarks, Outcome
from instep.ports import Attentive, Engine, Verifier

log = logging.getLogger(__name__)


class FarEngine:
    """Hands everything on to the engine that was found to serve. See ``instep.ports.Engine``."""

    def __init__(self, target: bytes, agent: Engine, otherwise: Callable[[], Engine]) -> None:
        """Not yet open.

        Args:
            target: The address, for messages.
            agent: What is tried first.
            otherwise: Makes what serves a target without python3.
        """
        self._target = target
        self.name = agent.name
        self.parallel = agent.parallel
        self.progress = agent.progress
        self._engine = agent
        self._otherwise = otherwise
        self._decided = False

    @property
    def lost(self) -> Callable[[str], None] | None:
        """Who is told when the connection ends by itself; only the agent's engine keeps one."""
        return self._engine.lost if isinstance(self._engine, Attentive) else None

    @lost.setter
    def lost(self, told: Callable[[str], None] | None) -> None:
        if isinstance(self._engine, Attentive):
            self._engine.lost = told

    @property
    def serving(self) -> Engine:
        """The engine that everything goes to."""
        return self._engine

    async def open(self) -> bool:
        """Open it; if there is no python3 over there, rsync instead, for good."""
        try:
            known = await self._engine.open()
        except NoPython as error:
            if self._decided:
                raise
            log.warning(
                "engine-fallback",
                extra=fields(target=self._target, reason=error.what, now="rsync serves it", fix=error.fix),
            )
            self._decided = True
            await self._engine.close()
            self._engine = engine = self._otherwise()
            engine.progress = self.progress  # whoever draws it has it in hand
            self.name, self.parallel = engine.name, engine.parallel
            return await self._engine.open()
        self._decided = True
        return known

    def prepare(self) -> None:
        """As the engine does."""
        self._engine.prepare()

    def sync_now(self, batch: Batch) -> tuple[Outcome, Sequence[Change]]:
        """As the engine does."""
        return self._engine.sync_now(batch)

    async def sync(self, batch: Batch) -> Outcome:
        """As the engine does."""
        return await self._engine.sync(batch)

    async def landmarks(self) -> Landmarks | None:
        """As the engine does."""
        return await self._engine.landmarks()

    def flush(self) -> None:
        """As the engine does."""
        self._engine.flush()

    def distrust(self, changes: Sequence[Change]) -> None:
        """As the engine does."""
        self._engine.distrust(changes)

    async def close(self) -> None:
        """As the engine does."""
        await self._engine.close()


class FarVerifier:
    """Hands everything on to the verifier that was found to work. See ``instep.ports.Verifier``."""

    def __init__(self, agent: Verifier, otherwise: Callable[[], Verifier]) -> None:
        """Not yet open; ``otherwise`` makes what compares a target without python3."""
        self.entries = 0
        self._verifier = agent
        self._otherwise = otherwise

    async def open(self) -> None:
        """Open it; if there is no python3 over there, rsync instead."""
        try:
            await self._verifier.open()
        except NoPython:
            await self._verifier.close()
            self._verifier = self._otherwise()
            await self._verifier.open()

    async def differences(self) -> AsyncGenerator[Sequence[Difference], None]:
        """As the verifier does."""
        async with contextlib.aclosing(self._verifier.differences()) as found:
            async for some in found:
                self.entries = self._verifier.entries
                yield some
        self.entries = self._verifier.entries

    async def again(self, suspects: Sequence[Difference]) -> Sequence[Difference]:
        """As the verifier does."""
        return await self._verifier.again(suspects)

    async def close(self) -> None:
        """As the verifier does."""
        await self._verifier.close()
