"""The units of one process: told together, and ended together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol


class Unit(Protocol):
    """What a process runs beside others of its kind. All calls come from the loop's thread, and only enqueue."""

    async def run(self) -> int:
        """Work until it ends; the exit status it asks for.

        Raises:
            OperatorError: it cannot work as asked; nothing was changed.
        """

    def stop(self) -> None:
        """Finish what is running, then end."""

    def end(self) -> None:
        """End now."""

    def crashed(self) -> None:
        """A callback of the process failed, maybe one of this unit: trust nothing that is remembered."""

    def reload(self) -> None:
        """Read again what may be read again while it runs."""

    def log_status(self) -> None:
        """Say how things are."""

    def resync(self) -> None:
        """Compare everything."""

    def confirm(self) -> None:
        """The operator wants the deletions that are held."""


class Supervisor:
    """Several units as one: told together, ended together, with the worst of their exit statuses."""

    def __init__(self, units: Sequence[Unit]) -> None:
        self._units = units

    async def run(self) -> int:
        """Run all until the last has ended. One that cannot work as asked ends the others too.

        Raises:
            OperatorError: the first that one of them raised.
        """
        tasks = [asyncio.ensure_future(unit.run()) for unit in self._units]
        try:
            return max(await asyncio.gather(*tasks), default=0)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def stop(self) -> None:
        """Let all finish."""
        for unit in self._units:
            unit.stop()

    def end(self) -> None:
        """End all now."""
        for unit in self._units:
            unit.end()

    def crashed(self) -> None:
        """Nobody knows whose callback it was."""
        for unit in self._units:
            unit.crashed()

    def reload(self) -> None:
        """Let each read again what it may."""
        for unit in self._units:
            unit.reload()

    def log_status(self) -> None:
        """The status report of each."""
        for unit in self._units:
            unit.log_status()

    def resync(self) -> None:
        """Compare everything everywhere."""
        for unit in self._units:
            unit.resync()

    def confirm(self) -> None:
        """Delete what is held, wherever it is."""
        for unit in self._units:
            unit.confirm()
