"""The pipeline: when runs begin, what they tell, what becomes of failures, and how it ends."""

from __future__ import annotations

import errno
import signal
from dataclasses import replace
from typing import Any

import pytest

from instep.errors import UsageError
from instep.frontends.clsync.rules import Rules
from instep.frontends.clsync.settings import Mode, Settings, Threading
from instep.linux.inotify import IN_CLOSE_WRITE, IN_CREATE, IN_DELETE, IN_MODIFY, IN_MOVED_FROM, IN_MOVED_TO
from instep.model import Program, ProgramEnd
from instep.paths import RelPath
from tests.frontends.clsync.simulation import PretendedTree, Simulation, settings

FOLLOWED: dict[str, Any] = {"skip_initialsync": True}
QUICK: dict[str, Any] = {"delay_sync_s": 0, "delay_collect_s": 0, "delay_collect_bigfile_s": 0}

TIMES = [
    # clsync's own run times are given where they differ: it looks at most once a second.
    (5, 1, [2.0, 2.5, 12.2, 20.3], [5.0, 13.2, 21.3]),
    (10, 1, [4.0, 5.5, 25.0], [10.0, 26.0]),  # 10.5
    (1, 5, [3.0, 5.0, 15.0], [8.0, 20.0]),
    (3, 3, [4.0, 5.5, 9.0, 10.5], [7.0, 12.0]),  # 12.5
    (0, 0, [3.0, 3.4, 8.0], [3.0, 3.4, 8.0]),  # 4.0
]


@pytest.mark.parametrize(("sync_s", "collect_s", "events_s", "runs_s"), TIMES)
def test_when_runs_begin(sync_s: int, collect_s: int, events_s: list[float], runs_s: list[float]) -> None:
    rig = Simulation(settings(delay_sync_s=sync_s, delay_collect_s=collect_s, **FOLLOWED))
    for at_s in events_s:
        rig.event(at_s, b"f")
    assert rig.run(until_s=60) == pytest.approx(runs_s, abs=0.05)


def test_continuous_writing_puts_nothing_off() -> None:
    rig = Simulation(settings(delay_sync_s=1, delay_collect_s=3, **FOLLOWED))
    for number in range(80):
        rig.event(2.0 + number * 0.2, b"f", IN_MODIFY)
    began_s = rig.run(until_s=16)
    assert began_s[:4] == pytest.approx([5.0, 8.2, 11.4, 14.6], abs=0.05)


def test_big_files_wait_longer() -> None:
    tree = PretendedTree(big=11, small=1)
    given = settings(delay_sync_s=1, delay_collect_s=1, delay_collect_bigfile_s=8, threshold_bigfile=10, **FOLLOWED)
    rig = Simulation(given, tree=tree)
    rig.event(3.0, b"big", IN_CLOSE_WRITE)
    rig.event(3.1, b"small", IN_CLOSE_WRITE)
    assert rig.run(until_s=60) == pytest.approx([4.1, 11.0], abs=0.05)
    assert rig.paths == [[b"small"], [b"big"]]
    # A threshold of 0 makes no file big.
    rig = Simulation(replace(given, threshold_bigfile=0), tree=tree)
    rig.event(3.0, b"big", IN_CLOSE_WRITE)
    assert rig.run(until_s=60) == pytest.approx([4.0], abs=0.05)


def test_the_initial_sync_is_at_once_and_counts() -> None:
    rig = Simulation(settings(**QUICK), tree=PretendedTree(d=None, **{"d/f": 1}))
    rig.event(5.0, b"d/f", IN_MODIFY)
    rig.event(6.0, b"n", IN_CREATE, is_dir=True)
    rig.event(9.0, b"d/f", IN_MODIFY)
    rig.run(until_s=20)
    assert rig.paths == [[b"", b"d", b"d/f"], [b"d/f"], [b"n"], [b"d/f"]]
    assert [iteration for iteration, _ in rig.made.told] == [1, 2, 4, 5]
    assert rig.statuses == ["initsync", "running"]


def test_a_renamed_directory_is_told_under_both_names() -> None:
    tree = PretendedTree(e=None, **{"e/f": 1})
    rig = Simulation(settings(**QUICK, **FOLLOWED), tree=tree)
    rig.event(5.0, b"e", IN_MOVED_FROM | IN_MOVED_TO, is_dir=True, moved_from=b"d")
    rig.run(until_s=20)
    assert rig.paths == [[b"d", b"e", b"e/f"]]


def test_events_that_were_lost_are_made_up_for() -> None:
    rig = Simulation(settings(**QUICK, **FOLLOWED), tree=PretendedTree(a=1, b=2))
    rig.at(3.0, lambda: rig.handler.lost(0, rig.now_s))
    rig.run(until_s=20)
    assert rig.paths == [[b"", b"a", b"b"]]


@pytest.mark.parametrize("ends", [True, False])
def test_events_that_were_lost_may_end_it(ends: bool) -> None:
    """Not before everything was told again."""
    given = settings(**QUICK, **FOLLOWED, exit_on_sync_skipping=ends, exit_hook=b"/hook")
    rig = Simulation(given, tree=PretendedTree(a=1))
    rig.at(3.0, lambda: rig.handler.lost(0, rig.now_s))
    rig.event(5.0, b"a")
    rig.run(until_s=20)
    assert rig.paths == ([[b"", b"a"], [b"/hook", b"nolabel"]] if ends else [[b"", b"a"], [b"a"]])
    assert rig.handler.exit_status == (0 if ends else None)


def test_rules_decide() -> None:
    tree = PretendedTree(web=None, **{"web/index.c": 1, "web/index.h": 1})
    rig = Simulation(settings(**QUICK), tree=tree, rules=b"-f\\.h$")
    rig.event(5.0, b"web/index.h", IN_MODIFY)
    rig.event(6.0, b"web/index.c", IN_MODIFY)
    rig.run(until_s=20)
    assert rig.paths == [[b"", b"web", b"web/index.c"], [b"web/index.c"]]


def test_simple_mode_tells_each_event_at_once_and_in_turn() -> None:
    rig = Simulation(settings(Mode.SIMPLE, **FOLLOWED), takes_s=0.1)
    for at_s, mask in ((2.0, IN_CREATE), (2.0, IN_MODIFY), (2.0, IN_CLOSE_WRITE), (2.5, IN_DELETE)):
        rig.event(at_s, b"f", mask)
    assert rig.run(until_s=20) == pytest.approx([2.0, 2.1, 2.2, 2.5], abs=0.01)
    assert rig.at_once == 1


# ---- failures ----


def failing(times: int, end: ProgramEnd) -> Any:
    left = [times]

    def ends(_: object) -> ProgramEnd:
        left[0] -= 1
        return end if left[0] >= 0 else ProgramEnd(0)

    return ends


@pytest.mark.parametrize(
    ("end", "status"),
    [
        (ProgramEnd(23), 23),
        (ProgramEnd(137, signal=9), 137),
        (ProgramEnd(127, trouble="No such file or directory", errno=2), 2),
        (ProgramEnd(127, trouble="Permission denied", errno=13), 13),
        (ProgramEnd(127, trouble="cannot make its list: No space left on device"), 127),
        (ProgramEnd(143, signal=15, timed_out=True), 62),
    ],
)
def test_a_failure_ends_it_with_its_code(end: ProgramEnd, status: int) -> None:
    rig = Simulation(settings(**QUICK, exit_hook=b"/hook"), ends=failing(1, end), tree=PretendedTree(a=1))
    rig.run(until_s=20)
    assert rig.handler.exit_status == status
    assert rig.statuses[-1] == "synchandler error"
    assert len(rig.runs) == 1, "no hook after a failure"


@pytest.mark.parametrize(("mode", "code", "good"), [
    (Mode.SHELL, 23, True), (Mode.SHELL, 24, False), (Mode.RSYNCDIRECT, 24, True), (Mode.SHELL, 5, False),
])  # fmt: skip
def test_codes_that_count_as_success(mode: Mode, code: int, good: bool) -> None:
    given = settings(mode, **QUICK, ignore_exitcode=frozenset({23}))
    rig = Simulation(given, ends=failing(1, ProgramEnd(code)))
    rig.run(until_s=20)
    assert (rig.handler.exit_status is None) == good


def test_tries_pause_for_delay_sync() -> None:
    given = settings(**{**QUICK, "delay_sync_s": 3}, retries=3)
    rig = Simulation(given, ends=failing(2, ProgramEnd(1)))
    assert rig.run(until_s=60) == pytest.approx([0.0, 3.0, 6.0], abs=0.01)
    assert rig.handler.exit_status is None
    assert rig.statuses == ["initsync", "synchandler error", "running"]
    assert Simulation(given, ends=failing(9, ProgramEnd(7))).run(until_s=60) == pytest.approx([0, 3, 6], abs=0.01)
    for_ever = Simulation(replace(given, retries=0), ends=failing(10_000, ProgramEnd(7)))
    assert len(for_ever.run(until_s=300)) == 101


def test_further_tries_are_told_the_state() -> None:
    told = []

    def end(program: Program) -> ProgramEnd:
        told.append(program.environment.get(b"CLSYNC_STATUS"))
        return ProgramEnd(1 if len(told) == 1 else 0)

    Simulation(settings(**QUICK, retries=3), ends=end).run(until_s=60)
    assert told == [None, b"synchandler error"]


def test_ignored_failures_are_told_again_later() -> None:
    given = settings(**QUICK, **FOLLOWED, ignore_failures=True)
    rig = Simulation(given, ends=failing(2, ProgramEnd(1)))
    rig.event(2.0, b"f")
    rig.event(2.0, b"g")
    began_s = rig.run(until_s=60)
    assert len(began_s) == 3
    assert rig.paths == [[b"f", b"g"]] * 3
    assert 0.8 < began_s[1] - began_s[0] <= 1
    assert 1.6 < began_s[2] - began_s[1] <= 2


def test_only_what_an_engine_left_out_is_told_again() -> None:
    given = settings(**QUICK, **FOLLOWED, ignore_failures=True)
    rig = Simulation(given, ends=failing(1, ProgramEnd(23, trouble="no", failed=(RelPath(b"g"),))))
    rig.event(2.0, b"f")
    rig.event(2.0, b"g")
    rig.run(until_s=60)
    assert rig.paths == [[b"f", b"g"], [b"g"]]


def test_parts_follow_each_other_and_fail_alone() -> None:
    given = settings(**QUICK, **FOLLOWED, retries=2)
    failures = [ProgramEnd(0), ProgramEnd(1), ProgramEnd(0), ProgramEnd(0)]
    rig = Simulation(given, ends=lambda _: failures.pop(0), part_max=1)
    for name in (b"a", b"b", b"c"):
        rig.event(2.0, name)
    rig.run(until_s=60)
    assert rig.paths == [[b"a"], [b"b"], [b"b"], [b"c"]]
    assert rig.handler.iteration == 1


def test_lists_that_cannot_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, "no space")

    rig = Simulation(settings(**QUICK))
    with monkeypatch.context() as patch:
        patch.setattr(rig.made, "of", fails)
        rig.run(until_s=5)
    assert rig.handler.exit_status == errno.ENOSPC
    rig = Simulation(settings(**QUICK, ignore_failures=True))
    with monkeypatch.context() as patch:
        patch.setattr(rig.made, "of", fails)
        rig.at(4.0, patch.undo)
        rig.run(until_s=60)
    assert rig.paths == [[b""]]


# ---- ends ----


def test_term_interrupts_what_runs_and_flushes_what_waits() -> None:
    given = settings(delay_sync_s=30, delay_collect_s=30, exit_hook=b"/hook", pre_exit_hook=b"/pre")
    rig = Simulation(given, takes_s=2.0, tree=PretendedTree(a=1))
    rig.event(1.0, b"b")
    rig.signal(1.5, signal.SIGTERM)
    rig.event(1.6, b"late")
    rig.run(until_s=60)
    assert rig.interrupts == [(1.5, signal.SIGTERM)]
    assert rig.paths == [[b"", b"a"], [b"", b"a", b"b"], [b"/hook", b"nolabel"]]
    assert rig.handler.exit_status == 0
    assert rig.statuses[-2:] == ["terminating", "exiting"]


def test_a_handler_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Simulation(settings(), takes_s=100.0)
    monkeypatch.setattr(rig.handler, "finished", lambda *_: None)
    rig.signal(1.0, signal.SIGTERM)
    rig.run(until_s=20)
    assert rig.interrupts == [(1.0, signal.SIGTERM), (6.0, signal.SIGKILL)]


def test_codes_of_an_engine_count_as_success_too(capsys: pytest.CaptureFixture[str]) -> None:
    """They are rsync's, and whoever had rsync run names them; why it failed is not lost."""
    end = ProgramEnd(23, trouble="f: not permitted", failed=(RelPath(b"f"),))
    for codes, status in (({0, 23}, 0), ({0, 24}, 23)):
        given = settings(only_initialsync=True, ignore_exitcode=frozenset(codes))
        rig = Simulation(given, ends=lambda _: end)
        rig.made.by_engine = True
        rig.run()
        assert rig.handler.exit_status == status
        assert "f: not permitted" in capsys.readouterr().err


@pytest.mark.parametrize(("takes_s", "ended_s"), [(10.0, 11.0), (1000.0, 32.0)])
def test_an_engine_s_run_may_be_finished_after_term(takes_s: float, ended_s: float) -> None:
    """It is no program that could be asked to end, and begun anew it would only do the same again."""
    rig = Simulation(settings(), takes_s=takes_s)
    rig.made.by_engine = True
    rig.signal(2.0, signal.SIGTERM)
    assert rig.run() == [0.0]
    assert rig.interrupts == ([] if takes_s < 30 else [(32.0, signal.SIGTERM)])
    assert rig.handler.exit_status == 0
    assert rig.now_s == pytest.approx(ended_s, abs=1.1)


def test_a_second_term_leaves_at_once() -> None:
    rig = Simulation(settings(**FOLLOWED), takes_s=100.0)
    rig.event(1.0, b"f")
    rig.signal(2.0, signal.SIGTERM)
    rig.signal(3.0, signal.SIGTERM)
    rig.run(until_s=20)
    assert rig.interrupts == [(3.0, signal.SIGKILL)]
    assert rig.handler.exit_status == 0
    assert len(rig.runs) == 1


def test_the_last_run_has_its_time_and_no_more() -> None:
    given = settings(delay_sync_s=30, delay_collect_s=30, exit_hook=b"/hook")
    rig = Simulation(given, takes_s=100.0)
    rig.signal(1.0, signal.SIGTERM)
    assert rig.run(until_s=60) == pytest.approx([0.0, 1.0, 31.0])
    assert rig.interrupts == [(1.0, signal.SIGTERM), (31.0, signal.SIGTERM)]
    assert rig.paths[2] == [b"/hook", b"nolabel"]
    assert not rig.handler.running or rig.handler.exit_status is None


def test_quit_waits_for_what_runs_then_flushes_and_calls_both_hooks() -> None:
    given = settings(delay_sync_s=30, delay_collect_s=30, exit_hook=b"/hook", pre_exit_hook=b"/pre")
    rig = Simulation(given, takes_s=2.0)
    rig.event(1.0, b"f")
    rig.signal(1.5, signal.SIGQUIT)
    rig.event(4.5, b"made by the hook")
    assert rig.run(until_s=60) == [0.0, 2.0, 4.0, 6.0, 8.0]
    assert not rig.interrupts
    assert rig.paths[1:] == [[b"f"], [b"/pre", b"nolabel"], [b"made by the hook"], [b"/hook", b"nolabel"]]
    assert rig.statuses[-2:] == ["preexit", "exiting"] or "preexit" in rig.statuses


def test_no_tries_for_ever_once_it_is_to_end() -> None:
    given = settings(**{**QUICK, "delay_sync_s": 3}, retries=0)
    rig = Simulation(given, ends=failing(10_000, ProgramEnd(7)))
    rig.signal(1.0, signal.SIGQUIT)
    rig.run(until_s=60)
    assert rig.handler.exit_status == 7
    assert len(rig.runs) == 2


def test_exit_on_no_events() -> None:
    given = settings(delay_sync_s=30, delay_collect_s=30, exit_on_no_events=True, pre_exit_hook=b"/pre")
    rig = Simulation(given, takes_s=2.0)
    rig.event(1.0, b"f")
    rig.event(3.0, b"g")
    assert rig.run(until_s=60) == [0.0, 2.0, 4.0, 6.0]
    assert rig.paths[1:] == [[b"f"], [b"g"], [b"/pre", b"nolabel"]]
    assert rig.handler.exit_status == 0


def test_exit_on_no_events_may_be_asked_for_later() -> None:
    given = settings(delay_sync_s=30, delay_collect_s=30, pre_exit_hook=b"/pre", custom_signals={10: "leave"})
    rig = Simulation(given, takes_s=2.0)
    rig.blocks["leave"] = {"exit_on_no_events": True}
    rig.event(5.0, b"f")
    rig.signal(6.0, 10)
    rig.event(7.0, b"g")
    assert rig.run(until_s=60) == [0.0, 6.0, 8.0, 10.0]
    assert rig.paths[1:] == [[b"f"], [b"g"], [b"/pre", b"nolabel"]]
    assert rig.handler.exit_status == 0


@pytest.mark.parametrize(("limit", "runs"), [(1, 1), (2, 1), (3, 2), (4, 3)])
def test_max_iterations(limit: int, runs: int) -> None:
    rig = Simulation(settings(**QUICK, max_iterations=limit))
    for number in range(9):
        rig.event(1.0 + number, b"f")
    rig.run(until_s=60)
    assert rig.handler.exit_status == 0
    assert len(rig.runs) == runs


def test_only_the_initial_sync() -> None:
    rig = Simulation(settings(only_initialsync=True, exit_hook=b"/hook"), tree=PretendedTree(a=1))
    assert not rig.handler.places
    rig.run()
    assert rig.paths == [[b"", b"a"], [b"/hook", b"nolabel"]]
    assert rig.handler.exit_status == 0


# ---- what holds runs up ----


def test_the_standby_file_holds_everything_up() -> None:
    rig = Simulation(settings(**QUICK, standby_file=b"/standby"), tree=PretendedTree(a=1))
    rig.standby = True
    rig.event(2.0, b"b")

    def release() -> None:
        rig.standby = False

    rig.at(5.5, release)
    assert rig.run(until_s=20) == pytest.approx([6.0], abs=0.01)
    assert rig.paths == [[b"", b"a", b"b"]]
    assert "hold on" in rig.statuses
    assert rig.statuses[-1] == "running"


def test_runs_side_by_side_share_no_path_where_that_is_wanted() -> None:
    given = settings(**QUICK, **FOLLOWED, threading=Threading.SAFE)
    rig = Simulation(given, takes_s=4.0)
    for at_s, path in ((1.0, b"a"), (2.0, b"a"), (2.0, b"b"), (3.0, b"c")):
        rig.event(at_s, path)
    assert rig.run(until_s=60) == pytest.approx([1.0, 2.0, 3.0, 5.0], abs=0.01)
    assert rig.paths == [[b"a"], [b"b"], [b"c"], [b"a"]]
    assert rig.at_once == 3
    assert rig.made.told[0][0] is None, "an iteration has no meaning here"
    full = Simulation(replace(given, threading=Threading.FULL), takes_s=4.0)
    for at_s in (1.0, 2.0, 3.0):
        full.event(at_s, b"a")
    assert full.run(until_s=60) == pytest.approx([1.0, 2.0, 3.0], abs=0.01)


# ---- signals ----


def test_rules_are_read_again_and_bad_ones_change_nothing() -> None:
    rig = Simulation(settings(**QUICK, **FOLLOWED), rules=b"-fold")

    def bad(_: Settings) -> Rules:
        raise UsageError("rules", "bad")

    rig.read_rules = bad
    rig.signal(1.0, signal.SIGHUP)
    rig.event(2.0, b"old")
    rig.event(2.0, b"new")
    rig.run(until_s=20)
    assert rig.paths == [[b"new"]]
    assert "rehashing" in rig.statuses


@pytest.mark.parametrize("recursive", [False, True])
def test_in_simple_mode_a_walk_counts_when_all_of_it_was_told(recursive: bool) -> None:
    """However busy it is: what happens meanwhile is told after it. A recursive call counts as a run."""
    tree = PretendedTree(a=1, d=None, n=None, **{"n/f": 1})
    rig = Simulation(settings(Mode.SIMPLE, **QUICK, have_recursive_sync=recursive), tree=tree, takes_s=1.0)
    for number in range(6):
        rig.event(0.5 + number, b"a", IN_MODIFY)
    rig.event(3.2, b"n", IN_CREATE, is_dir=True)
    rig.run(until_s=30)
    told = [(words[0].decode(), iteration) for (_, words), (iteration, _) in zip(rig.runs, rig.made.told, strict=True)]
    if recursive:
        assert told[:2] == [("", 0), ("a", 1)]
        assert {iteration for _, iteration in told[1:]} == {1}
        return
    whole = [("", 0), ("a", 0), ("d", 0), ("n", 0), ("n/f", 0)]
    assert told == [*whole, ("a", 1), ("a", 1), ("a", 1), ("n", 1), ("a", 2), ("a", 2), ("a", 2)]
    assert rig.statuses == ["initsync", "running"]


def test_all_is_told_again_from_the_first_iteration_on() -> None:
    rig = Simulation(settings(**QUICK), tree=PretendedTree(a=1), takes_s=2.0)
    rig.event(5.0, b"a")
    rig.signal(6.0, signal.SIGUSR2)
    rig.event(20.0, b"a")
    rig.run(until_s=40)
    assert rig.paths == [[b"", b"a"], [b"a"], [b"", b"a"], [b"a"]]
    assert [iteration for iteration, _ in rig.made.told] == [1, 2, 1, 2]


def test_a_signal_that_only_wakes_does_nothing() -> None:
    rig = Simulation(settings(**QUICK, **FOLLOWED))
    rig.signal(1.0, signal.SIGSTKFLT)
    rig.event(2.0, b"a")
    rig.run(until_s=20)
    assert rig.paths == [[b"a"]]
    assert rig.statuses == ["running"]


def test_other_signals() -> None:
    given = settings(**QUICK, custom_signals={10: "louder"}, dump_dir=b"/dump")
    rig = Simulation(given, tree=PretendedTree(a=1))
    rig.blocks["louder"] = {"debug": 5}
    rig.signal(1.0, signal.SIGUSR2)
    rig.signal(2.0, signal.SIGUSR1)
    rig.signal(3.0, signal.SIGIO)
    rig.run(until_s=20)
    assert rig.paths == [[b"", b"a"]] * 2
    assert [iteration for iteration, _ in rig.made.told] == [1, 1]
    assert rig.handler.settings.debug == 5
    assert rig.dumps == [b"/dump"]
