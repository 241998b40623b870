"""A target: nothing that was reported is ever lost, no two batches touch the same path, nothing is tried in a hurry."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instep.core.timing import CALM_PATHS, STORM_QUIET_S
from instep.daemon.targets.target import AWAY_RETRY_MAX_S, State
from instep.model import Report
from instep.paths import RelPath, Scope
from tests.daemon.rig import Behaviour, Mirrored, TellingEngine, jump, paths_of

Test = Callable[[], Coroutine[Any, Any, None]]


def on_a_jumping_clock(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Let pytest run a coroutine function without fixtures."""

    def run() -> None:
        jump(test)

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


def later(takes_s: float = 5.0, **others: Any) -> Behaviour:
    return Behaviour(takes_s=takes_s, **others)


async def mirrored(*behaviours: Behaviour, parallel: int = 3, **others: Any) -> tuple[Mirrored, TellingEngine]:
    engine = TellingEngine(list(behaviours), parallel=parallel)
    mirror = Mirrored(engine, **others)
    await mirror.open()
    return mirror, engine


async def finish(mirror: Mirrored) -> None:
    await mirror.rest()
    for engine in mirror.engines:
        assert mirror.owed(engine) == []
    await mirror.close()


# -- what may run side by side ---------------------------------------------------------------------------------------


@on_a_jumping_clock
async def test_paths_apart_go_side_by_side() -> None:
    mirror, engine = await mirrored(later(), later())
    mirror.dirty(b"a")
    mirror.dirty(b"b")
    assert paths_of(engine.batches) == [[b"a"], [b"b"]]
    await finish(mirror)


@on_a_jumping_clock
async def test_a_path_that_is_worked_on_waits_for_the_end_of_it() -> None:
    mirror, engine = await mirrored(later(5.0))
    mirror.dirty(b"a")
    began_s = mirror.loop.time()
    await asyncio.sleep(1)
    mirror.dirty(b"a", b"b")
    assert paths_of(engine.batches) == [[b"a"], [b"b"]]
    await finish(mirror)
    assert paths_of(engine.batches) == [[b"a"], [b"b"], [b"a"]]
    assert engine.starts_s[2] - began_s == pytest.approx(5.0)


@on_a_jumping_clock
async def test_what_is_below_or_above_a_path_that_is_worked_on_waits_too() -> None:
    for first, second in (
        (Report(RelPath(b"d"), Scope.TREE), Report(RelPath(b"d/e/f"))),
        (Report(RelPath(b"d/e/f")), Report(RelPath(b"d"))),
        (Report(RelPath(b"")), Report(RelPath(b""), Scope.TREE)),
        (Report(RelPath(b"d/e")), Report(RelPath(b""), Scope.TREE)),
    ):
        mirror, engine = await mirrored(later())
        mirror.report(first)
        mirror.report(second)
        assert len(engine.batches) == 1
        await finish(mirror)
        assert paths_of(engine.batches)[1] == [second.path]


@on_a_jumping_clock
async def test_an_entry_of_a_directory_holds_back_nothing_below_it() -> None:
    mirror, engine = await mirrored(later())
    mirror.report(Report(RelPath(b"d"), content=False, is_dir=True))
    mirror.dirty(b"d/f")
    assert paths_of(engine.batches) == [[b"d"], [b"d/f"]]
    await finish(mirror)


@on_a_jumping_clock
async def test_reports_of_a_waiting_path_are_merged() -> None:
    mirror, engine = await mirrored(later())
    mirror.dirty(b"a")
    mirror.report(Report(RelPath(b"a"), Scope.TREE, content=False))
    mirror.report(Report(RelPath(b"a"), content=True))
    await finish(mirror)
    (again,) = engine.batches[1].changes
    assert (again.path, again.scope, again.content) == (b"a", Scope.TREE, True)


@on_a_jumping_clock
async def test_a_path_that_fails_while_it_was_reported_again_keeps_both() -> None:
    mirror, engine = await mirrored(later(fails=1))
    mirror.report(Report(RelPath(b"a"), Scope.TREE, content=False))
    mirror.report(Report(RelPath(b"a"), content=True))
    await finish(mirror)
    (again,) = engine.batches[1].changes
    assert (again.scope, again.content) == (Scope.TREE, True)


@on_a_jumping_clock
async def test_no_more_batches_than_the_engine_can_run() -> None:
    mirror, engine = await mirrored(*[later()] * 5, parallel=2)
    for path in (b"a", b"b", b"c", b"d"):
        mirror.dirty(path)
    assert paths_of(engine.batches) == [[b"a"], [b"b"]]
    await finish(mirror)


# -- failures --------------------------------------------------------------------------------------------------------


@on_a_jumping_clock
async def test_a_failure_is_tried_again_with_growing_pauses() -> None:
    mirror, engine = await mirrored(*[Behaviour(at_once=9, fails=1)] * 5)
    mirror.dirty(b"a")
    await finish(mirror)
    pauses = [after - before for before, after in zip(engine.starts_s, engine.starts_s[1:], strict=False)]
    assert len(pauses) == 5
    assert pauses == pytest.approx([1, 2, 4, 8, 16], rel=0.11)


@on_a_jumping_clock
async def test_a_new_report_of_a_failing_path_is_tried_at_once() -> None:
    mirror, engine = await mirrored(*[Behaviour(at_once=9, fails=1)] * 5)
    mirror.report(Report(RelPath(b"a"), Scope.TREE))
    await asyncio.sleep(10)
    before = len(engine.batches)
    mirror.report(Report(RelPath(b"a"), content=False))
    (change,) = engine.batches[before].changes
    assert (change.scope, change.content) == (Scope.TREE, True), "and it asks for what failed as well"
    await finish(mirror)


def test_a_comparison_of_the_whole_takes_along_what_fails(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        mirror, engine = await mirrored(*[Behaviour(at_once=9, fails=1)] * 5)
        mirror.dirty(b"d/a")
        await asyncio.sleep(20)
        target = mirror.targets[0]
        assert [waiter.change.path for waiter in target.room.failing()] == [b"d/a"]
        engine.behaviours.clear()
        tried = len(engine.batches)
        target.compare_all()
        target.kick()
        assert len(engine.batches) == tried + 1
        assert not list(target.room.failing())
        await finish(mirror)

    caplog.set_level("INFO")
    jump(test)
    assert [record.message for record in caplog.records].count("path-well-again") == 1


@on_a_jumping_clock
async def test_put_off_is_not_failing() -> None:
    mirror, engine = await mirrored(Behaviour(at_once=9, postponed=1), Behaviour(at_once=9, postponed=1))
    mirror.dirty(b"a")
    assert not list(mirror.targets[0].room.failing())
    await finish(mirror)
    assert [start_s - engine.starts_s[0] for start_s in engine.starts_s] == pytest.approx([0, 2, 4])


@on_a_jumping_clock
async def test_who_watches_the_mounts_is_asked_before_it_is_tried_again() -> None:
    mirror, engine = await mirrored(Behaviour(at_once=9, postponed=1, unsure=True), Behaviour(at_once=9, postponed=1))
    asked: list[int] = []
    mirror.targets[0].unsure = lambda: asked.append(len(engine.batches))
    mirror.dirty(b"a")
    await finish(mirror)
    assert asked == [1]


# -- moves -----------------------------------------------------------------------------------------------------------


MOVE = Report(RelPath(b"new"), Scope.TREE, is_dir=True, moved_from=RelPath(b"old"))


@on_a_jumping_clock
async def test_a_clean_move_is_given_as_one() -> None:
    mirror, engine = await mirrored()
    mirror.report(MOVE)
    assert dict(engine.batches[0].moves) == {b"new": b"old"}
    await finish(mirror)


@on_a_jumping_clock
async def test_no_move_while_something_of_the_old_name_is_dirty_failing_or_in_the_air() -> None:
    for behaviour in (later(), Behaviour(at_once=9, fails=1), Behaviour(at_once=9, postponed=1)):
        for path in (b"old", b"old/below"):
            mirror, engine = await mirrored(behaviour)
            mirror.dirty(path)
            mirror.changelog.drained()
            mirror.report(MOVE)
            assert not any(batch.moves for batch in engine.batches), (behaviour, path)
            await finish(mirror)


@on_a_jumping_clock
async def test_no_move_that_was_noted_while_what_had_been_kept_aside_is_worked_on() -> None:
    """A comparison of the whole tree stands in no slot of the log."""
    mirror, engine = await mirrored(later())
    mirror.targets[0].compare_all()
    mirror.targets[0].kick()
    mirror.changelog.drained()
    mirror.report(MOVE)
    await mirror.rest()
    assert len(engine.batches) == 2
    assert not engine.batches[1].moves
    mirror.changelog.drained()
    mirror.report(MOVE)
    assert engine.batches[2].moves, "it is over"
    await finish(mirror)


@on_a_jumping_clock
async def test_a_move_is_not_repeated() -> None:
    """Half done and done again, it would take what stands under the old name by then."""
    for first in (
        Behaviour(at_once=9, fails=2),
        Behaviour(at_once=9, postponed=2),
        Behaviour(at_once=9, away=True),
        Behaviour(at_once=9, full=True),
        later(fails=2),
        later(full=True),
        later(raises=True),
        later(crashes=True),
    ):
        mirror, engine = await mirrored(first)
        mirror.report(MOVE)
        await finish(mirror)
        assert len(engine.batches) > 1
        assert engine.batches[0].moves
        assert not any(batch.moves for batch in engine.batches[1:]), first


# -- a target in trouble ---------------------------------------------------------------------------------------------


@on_a_jumping_clock
async def test_a_full_target_is_tried_again_with_pauses_even_when_it_says_so_at_once() -> None:
    mirror, engine = await mirrored(*[Behaviour(at_once=9, full=True)] * 4)
    mirror.dirty(b"a")
    assert mirror.targets[0].state is State.FULL
    assert len(engine.batches) == 1
    mirror.dirty(b"b")
    assert len(engine.batches) == 1
    await finish(mirror)
    pauses = [after - before for before, after in zip(engine.starts_s, engine.starts_s[1:], strict=False)]
    assert pauses == pytest.approx([1, 2, 4, 8], rel=0.11)
    assert paths_of(engine.batches)[1] == [b"a", b"b"]


@on_a_jumping_clock
async def test_a_full_target_rests_even_when_something_else_was_due_before() -> None:
    full = Behaviour(at_once=9, full=True)
    mirror, engine = await mirrored(full, full, full, Behaviour(at_once=9, postponed=1), full, full)
    mirror.dirty(b"a")
    await asyncio.sleep(7.5)  # The fourth try is over: one path waits for two seconds.
    assert len(engine.batches) == 4
    mirror.dirty(b"b")
    assert mirror.targets[0].state is State.FULL
    await finish(mirror)
    assert engine.starts_s[5] - engine.starts_s[4] == pytest.approx(8, rel=0.11)


@on_a_jumping_clock
async def test_several_batches_that_run_full_together_count_once() -> None:
    mirror, engine = await mirrored(*[later(full=True)] * 3)
    for path in (b"a", b"b", b"c"):
        mirror.dirty(path)
    await finish(mirror)
    assert engine.starts_s[3] - engine.starts_s[0] == pytest.approx(6, rel=0.11)


@on_a_jumping_clock
async def test_what_still_fits_does_not_mean_that_there_is_room_again() -> None:
    full = Behaviour(at_once=9, full=True)
    mirror, engine = await mirrored(later(1, full=True), later(2), full, full)
    mirror.dirty(b"big")
    mirror.dirty(b"small")
    await finish(mirror)
    since_s = [start_s - engine.starts_s[0] for start_s in engine.starts_s]
    assert since_s[2:] == pytest.approx([2, 4, 8], rel=0.11)


@on_a_jumping_clock
async def test_an_away_target_is_opened_again_and_gets_everything_anew() -> None:
    mirror, engine = await mirrored(Behaviour(at_once=9, away=True))
    engine.open_fails = 3
    mirror.dirty(b"a", b"b")
    target = mirror.targets[0]
    assert target.state is State.AWAY
    assert target.pending() == 2
    assert len(engine.batches) == 1
    mirror.dirty(b"c")
    await finish(mirror)
    assert paths_of(engine.batches)[1:] == [[b"a", b"b", b"c"]]
    assert 7 * 0.9 < engine.starts_s[1] - engine.starts_s[0] < 4 * AWAY_RETRY_MAX_S


@on_a_jumping_clock
async def test_a_target_that_comes_back_as_another_is_compared() -> None:
    mirror, engine = await mirrored(Behaviour(at_once=9, away=True))
    engine.knows = False
    mirror.dirty(b"a")
    await finish(mirror)
    whole = [change for batch in engine.batches[1:] for change in batch.changes if not change.path]
    assert [change.scope for change in whole] == [Scope.TREE]


@on_a_jumping_clock
async def test_away_and_full_at_once_is_away() -> None:
    """The timer of the full one must not start batches while the target is being opened."""
    mirror, engine = await mirrored(later(1, away=True), later(2, full=True))
    engine.open_fails = 3
    mirror.dirty(b"a")
    mirror.dirty(b"b")
    await asyncio.sleep(6)
    assert mirror.targets[0].state is State.AWAY
    assert len(engine.batches) == 2
    await finish(mirror)


@on_a_jumping_clock
async def test_what_waits_for_a_flight_outlives_the_end_of_another() -> None:
    """What was reported of a path while it is worked on waits; the path coming back must not take its place."""
    back, breaks = Behaviour(takes_s=0.5, postponed=1), Behaviour(raises=True)
    engine = TellingEngine([back, breaks], knows=True)
    mirror = Mirrored(engine)
    await mirror.open()
    mirror.report(Report(RelPath(b"a"), content=False))
    mirror.dirty(b"a")
    mirror.dirty(b"b")
    await mirror.rest()
    assert mirror.owed(engine) == []
    await mirror.close()


@on_a_jumping_clock
async def test_nothing_starts_while_paused() -> None:
    mirror, engine = await mirrored()
    mirror.targets[0].paused = True
    mirror.dirty(b"a")
    await asyncio.sleep(100)
    assert engine.batches == []
    mirror.targets[0].paused = False
    mirror.targets[0].kick()
    await finish(mirror)


@on_a_jumping_clock
async def test_a_slow_target_holds_back_no_other() -> None:
    slow, quick = TellingEngine([later(100.0)], parallel=1), TellingEngine()
    mirror = Mirrored(slow, quick)
    await mirror.open()
    for path in (b"a", b"b", b"a"):
        mirror.dirty(path)
    assert paths_of(quick.batches) == [[b"a"], [b"b"], [b"a"]]
    assert paths_of(slow.batches) == [[b"a"]]
    await finish(mirror)


# -- pace ------------------------------------------------------------------------------------------------------------


@on_a_jumping_clock
async def test_a_path_rests_first_and_goes_at_once_when_flushing() -> None:
    mirror, engine = await mirrored(quiet_s=5.0)
    mirror.dirty(b"a")
    assert engine.batches == []
    await asyncio.sleep(6)
    assert paths_of(engine.batches) == [[b"a"]]
    mirror.dirty(b"b")
    mirror.targets[0].flushing = True
    mirror.targets[0].kick()
    assert paths_of(engine.batches) == [[b"a"], [b"b"]]
    assert engine.batches[1].flushing
    await finish(mirror)


@on_a_jumping_clock
async def test_flushing_does_not_hurry_what_fails() -> None:
    mirror, engine = await mirrored(Behaviour(at_once=9, fails=1))
    mirror.dirty(b"a")
    mirror.targets[0].flushing = True
    mirror.targets[0].kick()
    assert len(engine.batches) == 1
    mirror.targets[0].flushing = False
    mirror.targets[0].kick()
    await finish(mirror)


@on_a_jumping_clock
async def test_batches_keep_their_distance() -> None:
    mirror, engine = await mirrored(spacing_s=3.0)
    for path in (b"a", b"b", b"c"):
        mirror.dirty(path)
    await finish(mirror)
    assert paths_of(engine.batches) == [[b"a"], [b"b", b"c"]]
    assert engine.starts_s[1] - engine.starts_s[0] == pytest.approx(3.0)


@on_a_jumping_clock
async def test_a_loop_that_was_busy_does_not_take_silence_for_a_pause() -> None:
    """A storm goes on while a batch ends: what has come by then is heard before the next one starts."""
    mirror, engine = await mirrored(later(0.5), parallel=1)
    mirror.dirty(*(b"a%d" % number for number in range(CALM_PATHS + 1)))
    mirror.dirty(*(b"b%d" % number for number in range(CALM_PATHS)))
    mirror.unread = [Report(RelPath(b"c"))]
    await finish(mirror)
    assert len(engine.batches) == 2
    assert engine.starts_s[1] - engine.starts_s[0] == pytest.approx(0.5 + STORM_QUIET_S)
    assert len(engine.batches[1].changes) == CALM_PATHS + 1


# -- all together ----------------------------------------------------------------------------------------------------

NAMES = [b"", b"a", b"a/b", b"a/b/c", b"a/d", b"e", b"e/f", b"g"]
paths = st.sampled_from(NAMES).map(RelPath)
plain = st.builds(Report, paths, st.sampled_from(Scope), st.booleans(), is_dir=st.booleans(), moved_from=st.none())
moved = st.builds(
    lambda pair, scope: Report(pair[0], scope, moved_from=pair[1]),
    st.tuples(paths, paths).filter(lambda pair: pair[0] != pair[1] and b"" not in pair),
    st.sampled_from([Scope.ENTRY, Scope.TREE]),
)
steps = st.lists(st.one_of(plain, plain, moved, st.floats(0, 5), st.none()), max_size=25)
behaviours = st.lists(
    st.builds(
        Behaviour,
        at_once=st.sampled_from([0, 0, 1, 99]),
        takes_s=st.sampled_from([0.0, 0.5, 3.0]),
        fails=st.sampled_from([0, 0, 0, 1, 99]),
        postponed=st.sampled_from([0, 0, 0, 1, 99]),
        away=st.sampled_from([False] * 9 + [True]),
        raises=st.sampled_from([False] * 9 + [True]),
        full=st.sampled_from([False] * 9 + [True]),
        crashes=st.sampled_from([False] * 19 + [True]),
    ),
    max_size=12,
)


@settings(max_examples=300, deadline=None)
@given(steps, behaviours, behaviours, st.integers(1, 3), st.sampled_from([0.0, 1.0]), st.booleans())
def test_nothing_is_ever_lost(
    steps: list[Report | float | None],
    one: list[Behaviour],
    other: list[Behaviour],
    parallel: int,
    quiet_s: float,
    knows: bool,
) -> None:

    async def live() -> None:
        engines = [TellingEngine(list(plan), parallel=parallel, knows=knows) for plan in (one, other)]
        mirror = Mirrored(*engines, quiet_s=quiet_s)
        await mirror.open()
        for step in steps:
            if step is None:
                mirror.changelog.drained()
            elif isinstance(step, Report):
                mirror.report(step)
            else:
                await asyncio.sleep(step)
        await mirror.rest()
        for engine in engines:
            assert mirror.owed(engine) == []
        assert len(mirror.changelog) == 0
        await mirror.close()

    jump(live)
