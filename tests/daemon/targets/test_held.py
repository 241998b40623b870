"""Deletions that wait for the operator's word, from the target's side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from instep.daemon.targets.target import Target
from instep.model import Batch, Change, Deletions, Held, Outcome
from instep.paths import RelPath, Scope
from tests.daemon.rig import EVERYTHING, Mirrored, TellingEngine, jump

HELD = Held(5000, 6000, (b"a", b"b"))


@dataclass
class HoldingEngine(TellingEngine):
    """Finds these when it compares the whole tree, unless they were confirmed."""

    finds: list[Held | None] = field(default_factory=list)
    full: list[bool] = field(default_factory=list)
    entries: int = 0

    def sync_now(self, batch: Batch) -> tuple[Outcome, Sequence[Change]]:
        outcome, rest = super().sync_now(batch)
        outcome.entries = self.entries
        if any(not change.path and change.scope is Scope.TREE for change in batch.changes):
            if batch.deletions is not Deletions.CONFIRMED and self.finds:
                outcome.held = self.finds.pop(0)
            if self.full and self.full.pop(0):
                outcome.full = "no space"
        return outcome, rest


def modes(engine: TellingEngine) -> list[Deletions]:
    return [batch.deletions for batch in engine.batches]


def held_by(target: Target) -> Held | None:
    return target.deletions.held


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if "deletions" in record.message]


def test_held_until_confirmed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")

    @jump
    async def _test() -> None:
        engine = HoldingEngine(finds=[HELD])
        mirrored = Mirrored(engine)
        target = mirrored.targets[0]
        await mirrored.open()
        assert not target.confirm()
        target.compare_all()
        target.kick()
        await mirrored.rest()
        assert target.deletions.held == HELD
        assert target.idle
        mirrored.dirty(b"x")
        await mirrored.rest()
        assert target.confirm()
        target.kick()
        await mirrored.rest()
        assert held_by(target) is None
        mirrored.dirty(b"y")
        await mirrored.rest()
        assert modes(engine) == [Deletions.LIMITED, Deletions.HELD, Deletions.CONFIRMED, Deletions.LIMITED]
        await mirrored.close()

    assert said(caplog) == ["deletions-held", "deletions-confirmed", "deletions-held-no-more"]
    (error,) = [record for record in caplog.records if record.levelname == "ERROR"]
    values = error.__dict__["fields"]
    assert (values["count"], values["of"], values["names"]) == (5000, 6000, [b"a", b"b"])


def test_every_comparison_asks_again_and_says_what_is_news(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")

    @jump
    async def _test() -> None:
        engine = HoldingEngine(finds=[HELD, HELD, Held(7, 8, ()), None])
        mirrored = Mirrored(engine)
        target = mirrored.targets[0]
        await mirrored.open()
        for _ in range(4):
            target.compare_all()
            target.kick()
            await mirrored.rest()
        assert target.deletions.held is None
        assert modes(engine) == [Deletions.LIMITED, *[Deletions.HELD] * 3]
        await mirrored.close()

    assert said(caplog) == ["deletions-held", "deletions-held", "deletions-held-no-more"]


@pytest.mark.parametrize("was_empty", [True, False])
def test_what_was_held_for_an_empty_source_is_looked_at_again_by_itself(was_empty: bool) -> None:
    @jump
    async def _test() -> None:
        engine = HoldingEngine(finds=[Held(3, 3, (), source_is_empty=was_empty), None])
        mirrored = Mirrored(engine)
        target = mirrored.targets[0]
        await mirrored.open()
        target.compare_all()
        target.kick()
        await mirrored.rest()
        assert held_by(target) is not None
        mirrored.dirty(b"x")
        await mirrored.rest()
        assert held_by(target) is not None  # Nothing came over, so the source may still be empty.
        engine.entries = 1
        mirrored.dirty(b"x")
        await mirrored.rest()
        assert (held_by(target) is None) is was_empty
        await mirrored.close()


def test_a_confirmation_holds_until_a_comparison_is_through() -> None:
    @jump
    async def _test() -> None:
        engine = HoldingEngine(finds=[HELD], full=[True, True, False])
        mirrored = Mirrored(engine)
        target = mirrored.targets[0]
        await mirrored.open()
        target.deletions.allow()
        mirrored.report(EVERYTHING)
        await mirrored.rest()
        assert modes(engine) == [Deletions.CONFIRMED] * 3
        assert engine.finds == [HELD]
        mirrored.dirty(b"x")
        assert modes(engine)[-1] is Deletions.LIMITED
        await mirrored.close()


def test_what_was_allowed_for_the_start_ends_with_it() -> None:
    """A start by the index may need no whole comparison."""

    @jump
    async def _test() -> None:
        engine = HoldingEngine(finds=[HELD])
        mirrored = Mirrored(engine)
        target = mirrored.targets[0]
        await mirrored.open()
        target.deletions.allow()
        mirrored.dirty(b"x")
        target.deletions.started()
        target.compare_all()
        target.kick()
        assert modes(engine) == [Deletions.CONFIRMED, Deletions.LIMITED]
        assert held_by(target) == HELD
        assert target.confirm()
        target.deletions.started()  # That is another word, and counts.
        target.kick()
        assert held_by(target) is None
        await mirrored.close()


def test_confirmed_while_a_comparison_that_cannot_know_is_under_way() -> None:
    """It holds them again; what counts is the one that begins after the word."""

    @jump
    async def _test() -> None:
        engine = HoldingEngine(finds=[HELD, HELD])
        mirrored = Mirrored(engine)
        target = mirrored.targets[0]
        await mirrored.open()
        target.compare_all()
        target.kick()
        before = engine.sync_now

        def confirmed_meanwhile(batch: Batch) -> tuple[Outcome, Sequence[Change]]:
            engine.sync_now = before  # type: ignore[method-assign]
            answer = before(batch)
            assert target.confirm()
            return answer

        engine.sync_now = confirmed_meanwhile  # type: ignore[method-assign]
        target.compare_all()
        target.kick()
        await mirrored.rest()
        assert modes(engine) == [Deletions.LIMITED, Deletions.HELD, Deletions.CONFIRMED]
        assert target.deletions.held is None
        await mirrored.close()


def test_held_on_a_full_target_is_said_too(caplog: pytest.LogCaptureFixture) -> None:
    @jump
    async def _test() -> None:
        engine = HoldingEngine(finds=[HELD] * 4, full=[True] * 3)
        mirrored = Mirrored(engine)
        await mirrored.open()
        mirrored.report(EVERYTHING)
        await mirrored.rest()
        assert mirrored.targets[0].deletions.held == HELD
        await mirrored.close()

    assert said(caplog) == ["deletions-held"]


def test_while_a_part_of_the_source_is_missing(caplog: pytest.LogCaptureFixture) -> None:
    @jump
    async def _test() -> None:
        engine = HoldingEngine(finds=[HELD, HELD])
        mirrored = Mirrored(engine)
        target = mirrored.targets[0]
        guard = target.deletions
        await mirrored.open()

        async def compare() -> Deletions:
            target.compare_all()
            target.kick()
            await mirrored.rest()
            return guard.mode

        seen: list[Deletions] = []
        guard.beware(missing=True)
        seen.append(await compare())  # Held.
        guard.beware(missing=False)
        seen.append(guard.mode)
        guard.beware(missing=True)
        seen.append(await compare())  # Held again.
        assert target.confirm()
        guard.beware(missing=False)
        seen.append(guard.mode)
        guard.beware(missing=True)  # Another one, which nobody has confirmed.
        seen += [guard.mode, await compare()]  # There is nothing to delete any more.
        guard.beware(missing=False)
        seen.append(await compare())
        guard.allow()
        guard.beware(missing=True)
        guard.started()
        seen.append(guard.mode)
        none = Deletions.NONE
        assert seen == [none, Deletions.HELD, none, Deletions.CONFIRMED, none, none, Deletions.LIMITED, none]
        assert modes(engine) == [none, none, none, Deletions.LIMITED]
        await mirrored.close()

    reasons = [str(record.__dict__["fields"]["reason"]) for record in caplog.records if record.levelname == "ERROR"]
    assert reasons[0].startswith("a part of the source is missing: ")


def test_what_is_hidden_is_passed_over() -> None:
    @jump
    async def _test() -> None:
        engine = TellingEngine()
        mirrored = Mirrored(engine)
        target = mirrored.targets[0]
        await mirrored.open()
        target.hides = lambda path: path.startswith(b"hidden")
        mirrored.dirty(b"hidden/a")
        await mirrored.rest()
        assert target.idle
        mirrored.dirty(b"b", b"hidden/c")
        target.look_again([Change(RelPath(b"hidden/d")), Change(RelPath(b"e"))])
        target.kick()
        await mirrored.rest()
        assert sorted(change.path for batch in engine.batches for change in batch.changes) == [b"b", b"e"]
        assert target.idle
        await mirrored.close()
