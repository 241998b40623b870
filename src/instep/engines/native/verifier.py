"""Verifying a target on this machine: a process of its own compares, at a priority of its own."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Sequence

from instep.engines.native.comparer import Answer, difference_of
from instep.engines.native.session import Settings
from instep.engines.native.worker import settings_as_tuple
from instep.errors import TargetAway
from instep.linux.openat import DIRECTORY
from instep.model import Difference
from instep.workers import Pool, WorkerDied

_COMPARER = "instep.engines.native.comparer"


class NativeVerifier:
    """Compares one local target with the source. See ``instep.ports.Verifier``."""

    def __init__(self, target: bytes, *, source_fd: int, settings: Settings, checksum: bool) -> None:
        self.entries = 0
        self._target_path = target
        self._source = source_fd
        self._settings = settings
        self._checksum = checksum
        self._target = -1
        self._process: Pool | None = None

    async def open(self) -> None:
        """Open the target, which has to be there."""
        try:
            self._target = os.open(self._target_path, DIRECTORY & ~os.O_NOFOLLOW)
        except OSError as error:
            raise TargetAway(f"cannot open the target {os.fsdecode(self._target_path)}: {error.strerror}") from error
        greeting = (settings_as_tuple(self._settings), self._checksum)
        self._process = Pool(_COMPARER, (self._source, self._target), greeting, size=1)

    async def differences(self) -> AsyncGenerator[Sequence[Difference], None]:
        """Stretch by stretch."""
        done = False
        while not done:
            answer = await self._ask(None)
            done = answer.done
            yield [difference_of(row) for row in answer.rows]

    async def again(self, suspects: Sequence[Difference]) -> Sequence[Difference]:
        """Look at these names once more."""
        answer = await self._ask([(one.path, one.other) for one in suspects])
        return [difference_of(row) for row in answer.rows]

    async def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            await process.close()
        if self._target >= 0:
            os.close(self._target)
            self._target = -1

    async def _ask(self, asked: list[tuple[bytes, bytes | None]] | None) -> Answer:
        process = self._process
        assert process is not None
        try:
            answer = Answer(*await process.run((asked,)))
        except WorkerDied as error:
            raise TargetAway(str(error)) from error
        # After it, for an empty mount point in place of the target seems to lack everything.
        self._check_target()
        self.entries = answer.entries
        return answer

    def _check_target(self) -> None:
        """Make sure that the target path still names the directory that is open.

        Raises:
            TargetAway: it does not.
        """
        shown = os.fsdecode(self._target_path)
        try:
            info, ours = os.stat(self._target_path), os.fstat(self._target)
        except OSError as error:
            raise TargetAway(f"the target {shown}: {error.strerror}") from error
        if (info.st_dev, info.st_ino) != (ours.st_dev, ours.st_ino):
            raise TargetAway(f"the target {shown} is another directory than before")
