"""Whether the source is there: while it is not, nothing is touched at any target."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from instep.daemon.mirrors.source import Source
from instep.logs import fields

log = logging.getLogger(__name__)


class Presence:
    """Of the source of one mirror; lives in the loop."""

    def __init__(self, source: Source, *, away: Callable[[], None], back: Callable[[], None]) -> None:
        """``away`` is called when it goes, ``back`` when it is there again, open anew."""
        self.is_away = False
        self.is_elsewhere = False
        """It is back by way of another mount than before: who has the old one open does not see all of it."""
        self._source = source
        self._away = away
        self._back = back
        self._waiting: asyncio.Task[None] | None = None

    def check(self) -> bool:
        """Whether the source's path still names the directory that is open: one stat. If not, begin to wait for it."""
        if self.is_away:
            return False
        if self._source.is_there():
            return True
        self.miss()
        return False

    def miss(self, why: str = "") -> None:
        """Begin to wait for it; ``why``: it could not be opened by its name, and is not looked for at once."""
        if self.is_away:
            return  # It has been said.
        self.is_away = True
        self._away()
        reason = {"reason": why} if why else {}
        log.error(
            "source-away",
            extra=fields(
                source=self._source.path,
                **reason,
                now="nothing is changed at any target until it is back",
                fix="mount or restore it; to mirror another directory under this name, restart instep",
            ),
        )
        self._waiting = asyncio.get_running_loop().create_task(self._wait(1 if why else 0))

    async def _wait(self, tries: int) -> None:
        self.is_elsewhere = not await self._source.back(tries)
        log.warning("source-back", extra=fields(source=self._source.path, now="everything is compared anew"))
        self._back()

    def close(self) -> None:
        """Wait no longer."""
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
