"""Comparing a target with the source until each difference is sure: by command, or now and then beside a mirror."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Callable, Sequence

from instep.core.doubt import Doubts
from instep.daemon.targets.target import State, Target
from instep.errors import OperatorError, TargetAway
from instep.logs import fields
from instep.model import Aspect, Change, Difference, Verified
from instep.paths import Scope
from instep.ports import Verifier
from instep.spec import Rounds

log = logging.getLogger(__name__)

DOUBTS_MAX = 20_000
"""More names than this are not kept in doubt: the comparison waits until some are settled."""
AGAIN_MAX = 1000
"""So many names are looked at again in one go."""
SETTLE_S = 5.0
"""During a comparison doubts are settled this often."""
TICK_NS = 20_000_000
"""The kernel stamps files with the time of its last tick: up to 10 ms ago."""
LOGGED_MAX = 100
"""Differences that are logged one by one in one round; the rest is only counted."""

_SEEN_BY_STAT = Aspect.MODE | Aspect.OWNER | Aspect.TIME
"""What an engine mends without being told to look closer."""


class Look:
    """One comparison of one target: what ``differences`` gives has been looked at more than once."""

    def __init__(
        self,
        verifier: Verifier,
        *,
        ignore: Callable[[Difference], bool] = lambda _: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``ignore`` tells the differences that are known, and being seen to."""
        self.result = Verified()
        self._verifier = verifier
        self._ignore = ignore
        self._clock = clock
        self._doubts = Doubts(time.time_ns() - TICK_NS)

    async def differences(self) -> AsyncGenerator[Sequence[Difference], None]:
        """What differs for sure, some at a time.

        Raises:
            TargetAway: the comparison could not be finished.
        """
        began_s = settled_s = self._clock()
        ignore, doubts, result = self._ignore, self._doubts, self.result
        async with contextlib.aclosing(self._verifier.differences()) as found:
            async for some in found:
                doubts.add([one for one in some if not ignore(one)], self._clock())
                if len(doubts) > DOUBTS_MAX or self._clock() - settled_s >= SETTLE_S:
                    while sure := await self._settle():
                        yield sure
                    while len(doubts) > DOUBTS_MAX:
                        yield await self._wait_and_settle()
                    settled_s = self._clock()
        while len(doubts):
            yield await self._wait_and_settle()
        result.entries, result.changing = self._verifier.entries, doubts.changing
        result.seconds = self._clock() - began_s

    async def _wait_and_settle(self) -> list[Difference]:
        due_s = self._doubts.due_s()
        assert due_s is not None
        await asyncio.sleep(max(0.0, due_s - self._clock()))
        return await self._settle()

    async def _settle(self) -> list[Difference]:
        """Look again at what is due for it."""
        doubts = self._doubts
        suspects = [one for one in doubts.take(self._clock(), AGAIN_MAX) if not self._ignore(one)]
        again = await self._verifier.again(suspects) if suspects else ()
        sure = [one for one in doubts.settle(again, self._clock(), time.time_ns()) if not self._ignore(one)]
        self.result.differences += len(sure)
        return sure


def changes_of(one: Difference) -> list[Change]:
    """What has to be looked at to mend a difference; nothing for what cannot be read.

    Nothing either for what the source lacks: deletions go by way of a comparison of the whole target, which counts them
    first, and makes none if there are too many.
    """
    if one.what in (Aspect.UNREADABLE, Aspect.EXTRA):
        return []
    whole = one.what & (Aspect.MISSING | Aspect.TYPE)
    paths = [one.path] if one.other is None else [one.path, one.other]
    content = one.what & _SEEN_BY_STAT != one.what
    return [Change(path, Scope.TREE if whole else Scope.ENTRY, content=content) for path in paths]


async def keep_verifying(
    target: Target,
    make: Callable[[], Verifier],
    rounds: Rounds,
    kick: Callable[[], None],
    *,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Compare a mirror's target again and again, for ever; what differs is brought in step at once.

    Args:
        target: It is left alone while it is away or full.
        make: Makes what compares; one for each round.
        rounds: How often, and how thoroughly.
        kick: Lets the targets of the mirror start what is due.
        clock: Monotonic seconds.
    """
    task = asyncio.current_task()
    assert task is not None
    while True:
        if task.cancelling():
            # Before Python 3.12 asyncio.wait_for swallows a cancellation that comes together with the result, and
            # asyncio.timeout is no better in a task that is being cancelled. Whoever cancelled this waits for its end.
            raise asyncio.CancelledError
        await asyncio.sleep(rounds.every_s)
        if target.state is not State.READY:
            continue
        try:
            await _round(target, make(), kick, clock)
        except (TargetAway, OperatorError) as error:
            log.warning(
                "verify-broken-off",
                extra=fields(target=target.name, reason=str(error), now="the next round begins anew"),
            )
        except Exception:
            # A defect here must not end the mirror, which is none the worse for it.
            log.exception("verify-crashed", extra=fields(target=target.name, now="the next round begins anew"))


async def _round(target: Target, verifier: Verifier, kick: Callable[[], None], clock: Callable[[], float]) -> None:
    logged = 0
    too_many = False

    def known(one: Difference) -> bool:
        if target.deletions.held is not None and one.what is Aspect.EXTRA:
            return True
        if target.hides is not None and target.hides(one.path):
            return True
        # A directory's time follows its names.
        return target.is_pending(one.path) or (one.what is Aspect.TIME and target.is_pending_in(one.path))

    look = Look(verifier, ignore=known, clock=clock)
    try:
        await verifier.open()
        async with contextlib.aclosing(look.differences()) as found:
            async for some in found:
                for one in some:
                    too_many |= one.what is Aspect.EXTRA
                    if logged < LOGGED_MAX:
                        logged += 1
                        log.warning(
                            "differs",
                            extra=fields(
                                target=target.name,
                                path=one.path,
                                what=one.what.words,
                                reason=one.text,
                                now="" if one.what is Aspect.UNREADABLE else "it is brought in step",
                            ),
                        )
                    target.look_again(changes_of(one))
                if some:
                    kick()
    finally:
        await verifier.close()
    if too_many:
        target.compare_all()
        kick()
    result = look.result
    log.info(
        "verified",
        extra=fields(
            target=target.name,
            entries=result.entries,
            differences=result.differences,
            changing=result.changing,
            seconds=round(result.seconds, 3),
        ),
    )
