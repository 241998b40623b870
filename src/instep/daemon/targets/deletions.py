"""The deletions of one target that wait for the operator's word, and what it may delete meanwhile."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

from instep.logs import fields
from instep.model import Change, Deletions, Held, Outcome
from instep.paths import Scope

log = logging.getLogger(__name__)


def how_to_confirm(*, stays: bool) -> str:
    """What the operator has to do. ``stays``: this process will be there to be told."""
    if stays:
        return f"kill -s RTMIN+1 {os.getpid()}, or start once with --force-delete"
    return "give it --force-delete once"


class DeletionGuard:
    """Lives in the loop. An engine holds deletions (``Outcome.held``); here they are remembered, said and confirmed."""

    def __init__(self, target: str, *, stays: bool = True) -> None:
        """``stays``: this process goes on when all is done, so it can be told."""
        self.held: Held | None = None
        """What waits to be confirmed."""
        self.mode = Deletions.LIMITED
        """What the next batch may delete."""
        self._target = target
        self._stays = stays
        self._usual = Deletions.LIMITED  # the mode while nothing is held, nothing allowed

    def allow(self) -> None:
        """The next comparison of the whole tree may delete what it finds."""
        self.mode = Deletions.CONFIRMED

    def started(self) -> None:
        """The start is over, and with it what was allowed for it alone."""
        if self.mode is Deletions.CONFIRMED and self.held is None:
            self.mode = self._usual

    def beware(self, *, missing: bool) -> None:
        """A part of the source is missing, so no comparison may delete anything; or none is any more."""
        self._usual = Deletions.NONE if missing else Deletions.LIMITED
        if missing:
            self.mode = Deletions.NONE  # Whoever confirmed did not know of it.
        elif self.mode is not Deletions.CONFIRMED:
            self.mode = Deletions.LIMITED if self.held is None else Deletions.HELD

    def confirm(self) -> bool:
        """The operator wants them: the next comparison makes them. False when nothing is held."""
        if self.held is None:
            return False
        log.info("deletions-confirmed", extra=fields(target=self._target, now="the whole tree is compared"))
        self.allow()
        return True

    def weigh(self, changes: Sequence[Change], mode: Deletions, outcome: Outcome) -> bool:
        """A batch that was started in this mode ended; needed where it held deletions, or the mode is not LIMITED.

        Returns:
            Whether the tree has to be compared again: the source was empty, and no longer is.
        """
        held = outcome.held
        if held is None:
            whole = any(not change.path and change.scope is Scope.TREE for change in changes)
            if not whole or outcome.away or outcome.full or mode is not self.mode:
                return not whole and self.held is not None and self.held.source_is_empty and outcome.entries > 0
            if self.held is not None:
                log.info("deletions-held-no-more", extra=fields(target=self._target, deleted=outcome.deleted))
            self.held, self.mode = None, self._usual
            return False
        if held != self.held:
            more = "" if held.counted else "more than "
            reason = f"the source lacks {more}{held.count} of the {more}{held.of} names at the target"
            log.error(
                "deletions-held",
                extra=fields(
                    target=self._target,
                    count=held.count,
                    counted=held.counted,
                    of=held.of,
                    names=list(held.sample),
                    reason=self._why(held) + reason,
                    now="none of them is deleted; all else is brought over",
                    fix="is the source what it should be, and mounted? If so: "
                    f"{how_to_confirm(stays=self._stays)}; the limit is --max-delete",
                ),
            )
        self.held = held
        if self.mode is not Deletions.CONFIRMED or mode is Deletions.CONFIRMED:
            # Otherwise they were confirmed while this one was under way.
            self.mode = Deletions.HELD if self._usual is Deletions.LIMITED else self._usual
        return False

    def _why(self, held: Held) -> str:
        if held.source_is_empty:
            return "the source is empty: "
        return "a part of the source is missing: " if self._usual is Deletions.NONE else ""
