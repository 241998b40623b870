"""Whose turn it was last at a target."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from instep.daemon.indexes.turns import Turn
from instep.daemon.state import StateDirectory
from instep.rules import Rule
from instep.spec import MirrorSpec, TargetSpec


@pytest.fixture
def state(tmp_path: Path) -> StateDirectory:
    return StateDirectory(bytes(tmp_path / "state"))


def spec_of(target: bytes, source: bytes = b"/source") -> MirrorSpec:
    return MirrorSpec(source, (TargetSpec(target),))


def test_each_mirror_of_a_target_ends_the_turn_of_the_one_before(state: StateDirectory, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    here, elsewhere = spec_of(bytes(tmp_path / "target")), spec_of(b"host:/target")
    ours = Turn(here, state)
    assert not ours.was_ours()
    ours.begin()
    assert ours.was_ours()
    for other in (
        replace(here, rules=(Rule(include=False, pattern=b"x"),)),
        replace(here, source=b"/other"),
        spec_of(bytes(tmp_path / "link"), b"/other"),
    ):
        Turn(elsewhere, state).begin()
        assert Turn(here, state).was_ours()
        Turn(other, state).begin()
        assert not ours.was_ours()
        ours.begin()
    assert Turn(elsewhere, state).was_ours()


def test_where_it_cannot_be_written_nobody_is_believed(state: StateDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = Turn(spec_of(b"host:/target"), state), Turn(spec_of(b"host:/target", b"/other"), state)
    ours.begin()

    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    theirs.begin()
    assert not theirs.was_ours()
    assert not ours.was_ours()
