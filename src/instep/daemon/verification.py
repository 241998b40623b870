"""The ``instep verify`` command: all targets, one after the other, with repair where that is asked for."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from instep.core.changelog import ChangeLog
from instep.core.filters import Filter
from instep.daemon.build import build_verifier
from instep.daemon.indexes.turns import Turn
from instep.daemon.locks import TargetLocks
from instep.daemon.mirrors.mountpoints import MountGuard
from instep.daemon.mirrors.source import Source
from instep.daemon.run import run_units
from instep.daemon.state import StateDirectory, kept_apart, open_state
from instep.daemon.targets.target import State, Target
from instep.daemon.targets.targets import Built, build_targets
from instep.daemon.targets.verify import AGAIN_MAX, Look, changes_of
from instep.errors import TargetAway
from instep.logs import fields
from instep.model import Aspect, Difference, Verified
from instep.paths import RelPath
from instep.ports import Verifier
from instep.spec import TargetSpec, VerificationSpec

log = logging.getLogger(__name__)


class Listener(Protocol):
    """Whoever asked for a verification, and wants to hear of it."""

    def differs(self, target: str, one: Difference) -> None:
        """A name differs; with repair it is tried now."""

    def left(self, target: str, one: Difference) -> None:
        """A name still differs after the repair."""

    def verified(self, target: str, result: Verified) -> None:
        """A target has been compared whole."""


def run_verification(spec: VerificationSpec, listener: Listener) -> int:
    """Verify all targets; 0 when nothing differs (any more). Blocks; owns the process's signals meanwhile.

    Raises:
        OperatorError: it cannot work as asked.
    """
    ended = run_units(lambda umask: [Verification(spec, listener, umask=umask)])
    return 128 + ended.signal if ended.signal else ended.status


class Verification:
    """One run over all targets; a unit of a process."""

    def __init__(self, spec: VerificationSpec, listener: Listener, *, umask: int) -> None:
        self._spec = spec
        self._listener = listener
        self._umask = umask
        self._settled = asyncio.Event()
        self._work: asyncio.Task[bool] | None = None
        self._mounts: MountGuard | None = None
        self._state: StateDirectory | None = None

    async def run(self) -> int:
        """0 when all targets equal the source in the end, else 1."""
        mirror = replace(kept_apart(self._spec.mirror), once=True)
        source = Source(mirror.source)
        locks: TargetLocks | None = None
        if self._spec.repair:
            state = self._state = open_state(mirror)
            locks = TargetLocks(mirror, state)
            self._mounts = MountGuard.of(mirror, source.fd, Filter(mirror.rules), state)
        built = Built(
            mirror,
            source.fd,
            changelog=ChangeLog(),
            settled=self._settled.set,
            clock=time.monotonic,
            umask=self._umask,
            locks=locks,
            mounted=None if self._mounts is None else self._mounts.mounted,
        )
        self._work = asyncio.create_task(self._all(built))
        try:
            return 0 if await self._work else 1
        except asyncio.CancelledError:
            return 1
        finally:
            self._work.cancel()
            await asyncio.gather(self._work, return_exceptions=True)
            if self._mounts is not None:
                self._mounts.close()
            if locks is not None:
                locks.close()
            source.close()

    def stop(self) -> None:
        """End now: there is nothing that would be lost."""
        self.end()

    def end(self) -> None:
        """End now; what is being repaired is left as it was or is done, never half."""
        if self._work is not None:
            self._work.cancel()

    def crashed(self) -> None:
        """It cannot be trusted any more."""
        self.end()

    def reload(self) -> None:
        """Nothing is read again."""

    def log_status(self) -> None:
        """What it finds is told at once."""

    def resync(self) -> None:
        """It compares everything anyway."""

    def confirm(self) -> None:
        """Nothing is held: what it repairs is told one by one."""

    async def _all(self, built: Built) -> bool:
        equal = True
        targets: Sequence[Target | None] = [None] * len(built.spec.targets)
        if self._spec.repair:
            targets = repaired = build_targets(built)
            if self._mounts is not None:
                self._mounts.keep(repaired)
        for spec, target in zip(built.spec.targets, targets, strict=True):
            name = os.fsdecode(spec.address)
            try:
                result = await self._one(built, spec, target)
            except TargetAway as away:
                log.error(  # noqa: TRY400  # the reason says all there is
                    "target-away",
                    extra=fields(target=name, reason=str(away), now="it is not verified"),
                )
                equal = False
                continue
            self._listener.verified(name, result)
            equal = equal and result.differences == result.repaired
        return equal

    async def _one(self, built: Built, spec: TargetSpec, target: Target | None) -> Verified:
        verifier = build_verifier(built, spec, checksum=self._spec.checksum)
        look = Look(verifier)
        extra: list[Difference] = []
        try:
            await verifier.open()
            if target is not None:
                await target.open()
                if self._state is not None:
                    Turn(replace(built.spec, targets=(spec,)), self._state).begin()
                if built.spec.force_delete:
                    target.deletions.allow()
            async with contextlib.aclosing(look.differences()) as found:
                async for some in found:
                    for one in some:
                        self._listener.differs(os.fsdecode(spec.address), one)
                    if target is not None:
                        extra += [one for one in some if one.what is Aspect.EXTRA]
                        rest = [one for one in some if one.what is not Aspect.EXTRA]
                        target.look_again([change for one in rest for change in changes_of(one)])
                        look.result.repaired += await self._repair(target, verifier, rest)
            if target is not None and extra:
                target.compare_all()
                look.result.repaired += await self._repair(target, verifier, extra)
        finally:
            await verifier.close()
            if target is not None:
                await target.close()
        return look.result

    async def _repair(self, target: Target, verifier: Verifier, some: Sequence[Difference]) -> int:
        """Let what is pending be done, and look again; how many of these names are equal now."""
        if not some:
            return 0
        if self._mounts is not None:
            self._mounts.look(())
        while True:
            self._settled.clear()
            target.kick()
            if target.served:
                break
            await self._settled.wait()
        if target.state is not State.READY:
            raise TargetAway(target.reason)
        left: dict[RelPath, Difference] = {}
        for at in range(0, len(some), AGAIN_MAX):
            left.update((one.path, one) for one in await verifier.again(some[at : at + AGAIN_MAX]))
        for one in left.values():
            self._listener.left(target.name, one)
        return len(some) - len(left)
