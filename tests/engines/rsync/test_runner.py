"""rsync at work: deletions that it counts before they are made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from instep.engines.rsync.command import Style
from instep.engines.rsync.output import deletions_stopped, names_listed
from instep.engines.rsync.plan import ONLY_MAX, Run
from instep.model import Change, Deletions
from instep.paths import ROOT, RelPath, Scope
from instep.rules import Rule
from instep.spec import MaxDelete
from tests.engines.rsync.places import Place, assert_done

WHOLE = Change(ROOT, Scope.TREE, content=False)
NONE = MaxDelete(0, 0)


def fill(place: Place, directories: int = 3) -> set[str]:
    for number in range(directories):
        below = place.target / f"d{number}" / "sub"
        below.mkdir(parents=True)
        (below / "file").touch()
    return names(place.target)


def names(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*")}


def test_what_rsync_says() -> None:
    assert names_listed(b"Number of files: 1,234,567 (reg: 1,234,000, dir: 567)") == 1_234_567
    assert names_listed(b"Number of files: 4") == 4
    assert names_listed(b"Number of created files: 5 (reg: 5)") == 0
    assert deletions_stopped(b"x\nDeletions stopped due to --max-delete limit (1234 skipped)\nrsync error: y") == 1234
    assert deletions_stopped(b"cannot delete non-empty directory: Deletions stopped due to") == 0


def test_too_many_are_held_and_all_else_is_done(place: Place) -> None:
    full = fill(place)
    (place.target / "way" / "below").mkdir(parents=True)  # In the way of a file: that is no deletion.
    for name in ("way", "new"):
        (place.source / name).write_text("content")
    engine = place.engine(max_delete=NONE)
    for _ in range(2):
        outcome = place.sync(engine, WHOLE)
        assert_done(outcome)
        assert outcome.held is not None
        # Those below what stood in the way may be counted, too.
        assert outcome.held.count in (9, 10)
        assert outcome.held.of - outcome.held.count in (0, 1, 2)
        assert set(outcome.held.sample[:3]) == {b"d0", b"d1", b"d2"}
        assert names(place.target) == full | {"way", "new"}
        assert (place.target / "way").read_text() == "content"
    outcome = place.sync(engine, WHOLE, deletions=Deletions.CONFIRMED)
    assert_done(outcome)
    assert outcome.held is None
    assert outcome.deleted == 9
    place.assert_equal()


def test_as_many_as_allowed_go_at_once(place: Place) -> None:
    fill(place, 1)
    for number in range(2):
        for root in (place.source, place.target):
            (root / f"kept{number}").write_text("")
    outcome = place.sync(place.engine(max_delete=MaxDelete(50, 0)), WHOLE)
    assert_done(outcome)
    assert outcome.held is None
    assert outcome.deleted == 3
    place.assert_equal()


def test_nothing_to_delete_takes_one_run(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    (place.source / "file").write_text("content")
    engine = place.engine(max_delete=NONE)
    runs: list[Style] = []
    start = engine._runner._start

    async def noted(argv: object, run: Run, *rest: object) -> object:
        runs.append(run.style)
        return await start(argv, run, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(engine._runner, "_start", noted)
    for _ in range(2):
        outcome = place.sync(engine, WHOLE)
        assert_done(outcome)
        assert outcome.held is None
    assert [style.limited for style in runs] == [True, True]
    place.assert_equal()


@pytest.mark.parametrize("strange", ["plain", "we*ird[1]?", "back\\slash", "back\\sl*sh", "new\nline", "#x", " -f"])
@pytest.mark.parametrize("missing_args", [True, False])
def test_what_is_reported_goes_while_others_are_held(
    place: Place, monkeypatch: pytest.MonkeyPatch, strange: str, missing_args: bool
) -> None:
    """Neither the rest of its directory nor names that look alike."""
    kept = fill(place)
    for name in (strange, "dir"):
        (place.target / "d0" / name / "deep").mkdir(parents=True)
        (place.target / "d0" / name / "deep" / "file").touch()
    (place.target / "d0" / "other").touch()
    kept |= {"d0/other"}
    (place.source / "d0").mkdir()
    engine = place.engine(max_delete=NONE)

    async def probe(_: bytes) -> bool:
        engine._runner.abilities = replace(engine._runner.abilities, missing_args=missing_args)
        return False

    if not missing_args:  # Where it works, the real probe finds out.
        monkeypatch.setattr(engine._runner, "_probe", probe)
    changes = [Change(RelPath(f"d0/{name}".encode()), is_dir=True) for name in (strange, "dir")]
    outcome = place.sync(engine, *changes, deletions=Deletions.HELD)
    assert_done(outcome)
    assert names(place.target) == kept


def test_not_one_goes_while_a_part_of_the_source_is_missing(place: Place) -> None:
    kept = fill(place, 1)
    (place.source / "other").touch()
    outcome = place.sync(place.engine(max_delete=MaxDelete()), WHOLE, deletions=Deletions.NONE)
    assert_done(outcome)
    assert outcome.held is not None
    assert outcome.held.count == 3
    assert names(place.target) == kept | {"other"}
    assert_done(place.sync(place.engine(max_delete=MaxDelete()), WHOLE))
    assert names(place.target) == {"other"}


@pytest.mark.parametrize("mode", [Deletions.HELD, Deletions.NONE])
def test_a_list_of_names_is_no_report_of_each(place: Place, mode: Deletions) -> None:
    kept = fill(place)
    (place.source / "d0" / "sub").mkdir(parents=True)
    engine = place.engine(max_delete=NONE)
    for path, scope in ((b"", Scope.LIST), (b"d0/sub", Scope.LIST), (b"d0", Scope.TREE)):
        outcome = place.sync(engine, Change(RelPath(path), scope, is_dir=True), deletions=mode)
        assert_done(outcome)
        assert outcome.held is None
        assert names(place.target) == kept


def test_excluded_names_do_not_count(place: Place) -> None:
    fill(place)
    rules = (Rule(include=False, pattern=b"/d*"),)
    outcome = place.sync(place.engine(max_delete=NONE, rules=rules), WHOLE)
    assert_done(outcome)
    assert outcome.held is None
    outcome = place.sync(place.engine(max_delete=NONE, rules=rules, delete_excluded=True), WHOLE)
    assert outcome.held is not None
    assert outcome.held.count == 9


def test_no_limit_costs_nothing(place: Place) -> None:
    fill(place)
    for engine in (
        place.engine(max_delete=MaxDelete(100)),
        place.engine(max_delete=NONE, delete=False),
        place.engine(max_delete=NONE, dry_run=True),
    ):
        assert place.sync(engine, WHOLE).held is None
    assert names(place.target) == set()


def test_a_run_that_spares() -> None:
    run = Run(Style(prune=True), {b"d/": ()})
    assert [each.style.prune for each in run.sparing([])] == [False]
    gone = [b"%d" % number for number in range(ONLY_MAX + 1)]
    assert [len(each.only) for each in run.sparing(gone)] == [ONLY_MAX, 1]
    whole = Run(Style(), {b"x": ()})
    assert list(whole.sparing(gone)) == [whole]
