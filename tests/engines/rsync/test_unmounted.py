"""A file system that has been unmounted a moment ago: rsync is not started on what it held."""

from __future__ import annotations

import shutil

import pytest

from instep.engines.mounted import MISSING, Mount
from instep.model import Deletions
from tests.engines.rsync.places import Place, assert_done, entry, tree

GONE: Mount = (1 << 30, b"disk")
"""No mount has that id."""


@pytest.fixture
def emptied(place: Place) -> Place:
    """What was on the disk is at the target, and the disk is not in the source."""
    for name in ("disk/d/f", "disk/f", "beside/f"):
        (place.source / name).parent.mkdir(parents=True, exist_ok=True)
        (place.source / name).touch()
    place.sync(place.engine(), tree())
    shutil.rmtree(place.source / "disk" / "d")
    (place.source / "disk" / "f").unlink()
    shutil.rmtree(place.source / "beside")
    return place


def test_what_it_held_is_put_off(emptied: Place) -> None:
    changes = [entry(b"disk/f"), tree(b"disk/d"), tree(b"disk"), tree(), entry(b"beside")]
    for change in changes:
        outcome = emptied.sync(emptied.engine(mounts=[GONE]), change)
        if change.path == b"beside":
            assert_done(outcome)
        else:
            assert outcome.unsure
            assert [put_off.change for put_off in outcome.postponed] == [change]
    outcome = emptied.sync(emptied.engine(mounts=[GONE]), *changes[:2], entry(b"beside"))
    assert [put_off.change for put_off in outcome.postponed] == changes[:2]
    assert all((emptied.target / "disk" / name).exists() for name in ("f", "d/f"))
    assert not (emptied.target / "beside").exists()


def test_where_nothing_is_deleted_it_is_all_the_same(emptied: Place) -> None:
    assert_done(emptied.sync(emptied.engine(mounts=[GONE], delete=False), tree()))


def test_what_is_known_to_be_missing_is_heeded_by_who_made_the_batch(emptied: Place) -> None:
    """Unless that was a moment before it was known."""
    before = [entry(b"disk/f"), tree(b"disk/d"), tree()]
    for change in before:
        outcome = emptied.sync(emptied.engine(mounts=[(MISSING, b"disk")]), change)
        assert outcome.unsure
        assert [put_off.change for put_off in outcome.postponed] == [change]
    engine = emptied.engine(mounts=[(MISSING, b"disk")])
    outcome = emptied.sync(engine, tree(), entry(b"beside"), deletions=Deletions.NONE)
    assert (outcome.unsure, outcome.postponed) == (False, [])
    assert outcome.held is not None
    assert all((emptied.target / "disk" / name).exists() for name in ("f", "d/f"))
