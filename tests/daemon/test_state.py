"""The state directory, and how it is kept out of a mirror."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest

from instep.core.filters import Filter
from instep.daemon.state import StateDirectory, kept_apart, mirror_key, open_state, places_key
from instep.errors import OperatorError
from instep.paths import RelPath
from instep.rules import Preserve, Rule
from instep.spec import MaxDelete, MirrorSpec, Pace, TargetSpec


def spec_of(tmp_path: Path, place: Path, **more: object) -> MirrorSpec:
    for name in ("source", "target"):
        (tmp_path / name).mkdir(exist_ok=True)
    return MirrorSpec(
        bytes(tmp_path / "source"),
        (TargetSpec(bytes(tmp_path / "target")),),
        state_dir=bytes(place),
        **more,  # type: ignore[arg-type]
    )


def code(error: pytest.ExceptionInfo[OperatorError]) -> str:
    assert error.value.exit_status == 2
    return error.value.code


def test_it_is_made_for_us_alone(tmp_path: Path) -> None:
    place = tmp_path / "a" / "b"
    made = StateDirectory(bytes(place))
    assert place.stat().st_mode & 0o777 == 0o700
    assert made.path("x") == bytes(place / "x")
    StateDirectory(bytes(place))


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777])
def test_others_may_not_write_to_it(tmp_path: Path, mode: int) -> None:
    place = tmp_path / "state"
    place.mkdir()
    place.chmod(mode)
    with pytest.raises(OperatorError) as caught:
        StateDirectory(bytes(place))
    assert code(caught) == "state-not-private"
    place.chmod(0o755)
    StateDirectory(bytes(place))


def test_it_belongs_to_us(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "state"
    place.mkdir()
    me = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: me + 1)
    with pytest.raises(OperatorError) as caught:
        StateDirectory(bytes(place))
    assert code(caught) == "state-not-private"
    assert "another user" in caught.value.what


def test_without_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """None is wanted, none is needed, or none can be made: only what was asked for by name has to be."""
    place = tmp_path / "state"
    assert open_state(replace(spec_of(tmp_path, place), state_dir=b"")) is None
    assert open_state(spec_of(tmp_path, place, dry_run=True)) is None
    assert not place.exists()

    def read_only(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "mkdir", read_only)
    assert open_state(spec_of(tmp_path, place)) is None
    assert [record.message for record in caplog.records] == ["no-state-directory"]
    with pytest.raises(OperatorError) as caught:
        open_state(spec_of(tmp_path, place, state_needed=True))
    assert code(caught) == "no-state-directory"


def test_the_key_changes_with_what_the_targets_hold(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, tmp_path / "state")
    same = [
        replace(spec, pace=Pace(quiet_s=3)),
        replace(spec, state_dir=b"/elsewhere", once=True, workers=9, max_delete=MaxDelete(1, 1), force_delete=True),
    ]
    assert {mirror_key(each) for each in same} == {mirror_key(spec)}
    others = [
        replace(spec, source=b"/other"),
        replace(spec, targets=(TargetSpec(b"/other"),)),
        replace(spec, rules=(Rule(include=False, pattern=b"x"),)),
        replace(spec, rules=(Rule(include=True, pattern=b"x"),)),
        replace(spec, preserve=Preserve(owner=False)),
        replace(spec, delete=False),
        replace(spec, delete_excluded=True),
        replace(spec, one_file_system=True),
        replace(spec, rsync_args=(b"--chmod=a+r",)),
    ]
    assert len({mirror_key(each) for each in [spec, *others]}) == len(others) + 1


def test_outside_both_trees_it_needs_no_rule(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, tmp_path / "state")
    assert kept_apart(spec) is spec
    assert kept_apart(replace(spec, state_dir=b"")).rules == ()


@pytest.mark.parametrize("side", ["source", "target"])
@pytest.mark.parametrize("name", ["state", "a/b", "we*ird[1]\\", "\\", "new\nline"])
def test_inside_a_tree_it_is_left_out_before_any_other_rule(tmp_path: Path, side: str, name: str) -> None:
    everything = Rule(include=True, pattern=b"*")
    spec = kept_apart(spec_of(tmp_path, tmp_path / side / name, rules=(everything,)))
    assert spec.rules[1:] == (everything,)
    filters = Filter(spec.rules)
    path = RelPath(os.fsencode(name))
    assert filters.excludes(path, is_dir=True)
    assert filters.excludes(RelPath(path + b"/below"), is_dir=False)
    assert not filters.excludes(RelPath(path + b"x"), is_dir=True)
    assert not filters.excludes(RelPath(b"x/" + path), is_dir=True)


def test_links_do_not_hide_it(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, tmp_path / "link" / "state")
    (tmp_path / "source" / "sub").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "source" / "sub")
    assert [rule.pattern for rule in kept_apart(spec).rules] == [b"/sub/state/"]


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    for name in ("source", "target"):
        with pytest.raises(OperatorError) as caught:
            kept_apart(spec_of(tmp_path, tmp_path / name))
        assert code(caught) == "state-is-root"
    with pytest.raises(OperatorError) as caught:
        kept_apart(spec_of(tmp_path, tmp_path / "target" / "state", delete_excluded=True))
    assert code(caught) == "state-inside-target"
    kept_apart(spec_of(tmp_path, tmp_path / "source" / "state", delete_excluded=True))


def test_the_places_are_the_same_with_any_options() -> None:
    one = MirrorSpec(b"/src", (TargetSpec(b"/dst"),))
    assert places_key(one) == places_key(replace(one, delete=False, rules=(Rule(include=False, pattern=b"x"),)))
    assert places_key(one) != places_key(replace(one, targets=(TargetSpec(b"/other"),)))
    assert places_key(one) != places_key(replace(one, source=b"/other"))
