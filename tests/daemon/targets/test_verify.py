"""From first looks to differences that are sure, and what a running mirror makes of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

import pytest

from instep.core.changelog import ChangeLog
from instep.daemon.targets.target import Target
from instep.daemon.targets.verify import DOUBTS_MAX, LOGGED_MAX, Look, changes_of, keep_verifying
from instep.errors import TargetAway
from instep.model import Aspect, Difference, Report
from instep.paths import RelPath, Scope
from instep.spec import Rounds
from tests.daemon.rig import TellingEngine, jump


def differs(name: bytes, what: Aspect = Aspect.SIZE) -> Difference:
    return Difference(RelPath(name), what, "words", source=() if what is Aspect.EXTRA else (1,))


@dataclass
class Teller:
    """A verifier that tells what it was told to; what is in ``healed`` differs at the first look alone."""

    stretches: list[list[Difference]] = field(default_factory=list)
    healed: set[bytes] = field(default_factory=set)
    away: str = ""
    entries: int = 0
    opened: int = 0
    closed: int = 0
    asked: list[int] = field(default_factory=list)

    async def open(self) -> None:
        self.opened += 1
        if self.away:
            raise TargetAway(self.away)

    async def differences(self) -> AsyncGenerator[Sequence[Difference], None]:
        for some in self.stretches:
            self.entries += len(some)
            yield some

    async def again(self, suspects: Sequence[Difference]) -> Sequence[Difference]:
        self.asked.append(len(suspects))
        return [one for one in suspects if one.path not in self.healed]

    async def close(self) -> None:
        self.closed += 1


def now_s() -> float:
    return asyncio.get_running_loop().time()


async def sure(look: Look) -> list[bytes]:
    return [one.path async for some in look.differences() for one in some]


def test_what_heals_and_what_is_known_is_left_out() -> None:
    async def test() -> None:
        teller = Teller([[differs(b"a"), differs(b"healed")], [], [differs(b"known"), differs(b"b")]], {b"healed"})
        look = Look(teller, ignore=lambda one: one.path == b"known", clock=now_s)
        assert await sure(look) == [b"a", b"b"]
        assert (look.result.entries, look.result.differences, look.result.changing) == (4, 2, 0)
        assert teller.asked == [3]

    jump(test)


def test_doubts_are_bounded() -> None:
    async def test() -> None:
        stretches = [[differs(b"%d" % (at + each)) for each in range(5000)] for at in range(0, 2 * DOUBTS_MAX, 5000)]
        look = Look(Teller(stretches), clock=now_s)
        most = 0
        found = 0
        async for some in look.differences():
            found += len(some)
            most = max(most, len(look._doubts))
        assert found == 2 * DOUBTS_MAX
        assert most <= DOUBTS_MAX + 5000

    jump(test)


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (differs(b"a", Aspect.MODE | Aspect.TIME), [(b"a", Scope.ENTRY, False)]),
        (differs(b"a", Aspect.XATTRS), [(b"a", Scope.ENTRY, True)]),
        (differs(b"a", Aspect.MODE | Aspect.CONTENT), [(b"a", Scope.ENTRY, True)]),
        (differs(b"a", Aspect.MISSING), [(b"a", Scope.TREE, True)]),
        (differs(b"a", Aspect.TYPE), [(b"a", Scope.TREE, True)]),
        (
            differs(b"a", Aspect.HARD_LINK)._replace(other=RelPath(b"b")),
            [(b"a", Scope.ENTRY, True), (b"b", Scope.ENTRY, True)],
        ),
        (differs(b"a", Aspect.UNREADABLE), []),
        (differs(b"a", Aspect.EXTRA), []),
    ],
)
def test_what_mends_a_difference(one: Difference, expected: list[tuple[bytes, Scope, bool]]) -> None:
    assert [(change.path, change.scope, change.content) for change in changes_of(one)] == expected


# -- beside a mirror ---------------------------------------------------------------------------------------------------


class Verified:
    """One target of a mirror, verified once a minute on a clock that jumps."""

    def __init__(self) -> None:
        self.log = ChangeLog(quiet_s=36000.0, hold_s=72000.0)
        self.engine = TellingEngine()
        self.target = Target("there", self.engine, self.log, spacing_s=0.0, settled=lambda: None, clock=now_s)

    async def rounds(self, *tellers: Teller) -> None:
        """Let as many rounds go by as there are tellers, and one more."""
        await self.target.open()
        left = [*tellers, Teller(away="enough")]
        verifying = asyncio.ensure_future(
            keep_verifying(self.target, lambda: left.pop(0), Rounds(60.0), self.target.kick, clock=now_s)
        )
        try:
            while left:  # noqa: ASYNC110  # waiting takes no time here
                await asyncio.sleep(1.0)
        finally:
            verifying.cancel()
            await asyncio.gather(verifying, return_exceptions=True)
            await self.target.close()


def logged(caplog: pytest.LogCaptureFixture, event: str) -> list[dict[str, object]]:
    return [getattr(record, "fields", {}) for record in caplog.records if record.message == event]


def test_what_differs_is_brought_in_step_and_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "instep")

    async def test() -> None:
        mirror = Verified()
        teller = Teller(
            [[differs(b"a", Aspect.MODE), differs(b"new", Aspect.MISSING), differs(b"x", Aspect.UNREADABLE)]]
        )
        await mirror.rounds(teller, Teller())
        assert {(done.path, done.scope, done.content) for done in mirror.engine.done} == {
            (b"a", Scope.ENTRY, False),
            (b"new", Scope.TREE, True),
        }
        assert (teller.opened, teller.closed) == (1, 1)

    jump(test)
    first, second = logged(caplog, "verified")
    assert (first["entries"], first["differences"], second["differences"]) == (3, 3, 0)
    assert [each["path"] for each in logged(caplog, "differs")] == [b"a", b"new", b"x"]


def test_what_is_too_much_goes_by_way_of_a_whole_comparison() -> None:
    async def test() -> None:
        mirror = Verified()
        await mirror.rounds(Teller([[differs(b"a", Aspect.EXTRA)], [differs(b"b", Aspect.EXTRA)]]), Teller())
        assert [(done.path, done.scope) for done in mirror.engine.done] == [(b"", Scope.TREE)]

    jump(test)


def test_what_is_pending_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "instep")

    async def test() -> None:
        mirror = Verified()
        mirror.log.note(Report(RelPath(b"tree"), Scope.TREE), now_s())
        mirror.log.note(Report(RelPath(b"dir/entry")), now_s())
        pending = [b"tree", b"tree/x/y", b"dir/entry"]
        sure = [b"dir/entry/x", b"tre", b"dir/other"]
        teller = Teller([[differs(name) for name in (*pending, *sure)], [differs(b"dir", Aspect.TIME)]])
        await mirror.rounds(teller)

    jump(test)
    assert {each["path"] for each in logged(caplog, "differs")} == {b"dir/entry/x", b"tre", b"dir/other"}


def test_a_flood_is_logged_in_part(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "instep")

    async def test() -> None:
        await Verified().rounds(Teller([[differs(b"%d" % each) for each in range(3 * LOGGED_MAX)]]))

    jump(test)
    assert len(logged(caplog, "differs")) == LOGGED_MAX
    assert logged(caplog, "verified")[0]["differences"] == 3 * LOGGED_MAX


def test_a_round_that_cannot_be_finished_is_followed_by_another(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "instep")

    async def test() -> None:
        broken = Teller(away="gone")
        await Verified().rounds(broken, Teller())
        assert broken.closed == 1

    jump(test)
    assert logged(caplog, "verify-broken-off")[0]["reason"] == "gone"
    assert len(logged(caplog, "verified")) == 1


class Deaf(Teller):
    """Cancelled while it is opened it tells of something else, as Python before 3.12 may have it do."""

    async def open(self) -> None:
        self.opened += 1
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            raise TargetAway("closed") from None


def test_a_cancellation_that_gets_lost_on_the_way_ends_it_all_the_same() -> None:
    """A mirror that is closed waits for it."""

    async def test() -> None:
        mirror, deaf = Verified(), Deaf()
        await mirror.target.open()
        keeping = asyncio.ensure_future(
            keep_verifying(mirror.target, lambda: deaf, Rounds(1.0), mirror.target.kick, clock=now_s)
        )
        await asyncio.sleep(2)
        assert deaf.opened == 1
        keeping.cancel()
        await asyncio.wait({keeping}, timeout=500)
        assert keeping.cancelled()
        assert deaf.opened == 1
        await mirror.target.close()

    jump(test)
