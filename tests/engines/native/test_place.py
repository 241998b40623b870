"""The target directory: made once, known again, and never taken for another."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from instep.engines.native.place import Place
from instep.errors import TargetAway, TargetError
from tests.engines.native.rig import Rig, read, well, write


@pytest.mark.parametrize("now", [True, False])
def test_one_that_goes_away(rig: Rig, now: bool) -> None:
    write(rig.s(b"f"))
    well(rig.bring(b"f", now=now))
    aside = os.path.join(rig.base, b"aside")
    os.rename(rig.dst, aside)
    write(rig.s(b"f"), b"later")
    assert rig.bring(b"f", now=now).away
    with pytest.raises(TargetAway):
        rig.run(rig.engine.open())
    assert not os.path.exists(rig.dst), "a target that was unmounted must not be made anew below the mount point"
    os.mkdir(rig.dst)
    assert rig.bring(b"f", now=now).away
    assert os.listdir(rig.dst) == []
    assert read(os.path.join(aside, b"f")) == b"content"
    assert rig.run(rig.engine.open()) is False
    rig.clean(rig.tree(now=now))
    os.rename(rig.dst, os.path.join(rig.base, b"second"))
    os.rename(os.path.join(rig.base, b"second"), rig.dst)
    assert rig.run(rig.engine.open()) is True


def place(path: Path, *, dry_run: bool = False) -> Place:
    return Place(bytes(path), dry_run=dry_run)


def test_its_last_component_is_made_at_the_first_time(tmp_path: Path) -> None:
    made = place(tmp_path / "target")
    assert made.take(made.find()) is False
    assert made.was_open
    assert made.away() is None
    found = made.landmarks()
    assert found is not None
    assert found.names == frozenset()
    made.close()
    made.close()
    assert made.landmarks() is None
    assert made.take(made.find()) is True
    made.close()


@pytest.mark.parametrize(
    ("where", "code"), [("no/such/parent", "target-not-writable"), ("file", "target-not-a-directory")]
)
def test_what_cannot_be_one(tmp_path: Path, where: str, code: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TargetError) as refused:
        place(tmp_path / where).find()
    assert refused.value.code == code


def test_a_dry_run_makes_nothing(tmp_path: Path) -> None:
    imagined = place(tmp_path / "target", dry_run=True)
    imagined.take(imagined.find())
    assert os.listdir(imagined.fd) == []
    assert imagined.away() is None
    imagined.close()
    assert list(tmp_path.iterdir()) == []
