"""Names that are not found where a file system was mounted a moment ago stay at the target; by native and remote."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from instep.paths import ROOT, Scope
from tests.engines.native.rig import Rig as NativeRig
from tests.engines.native.rig import well
from tests.engines.remote.rig import Rig as RemoteRig

Rig = NativeRig | RemoteRig
GONE_MOUNT = ((1 << 30, b"disk"),)
"""No mount has that id."""


@pytest.fixture(params=[NativeRig, RemoteRig], ids=["native", "remote"])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    before = os.umask(0)
    with request.param(os.fsencode(tmp_path)) as made:
        yield made
    os.umask(before)


@pytest.fixture
def emptied(rig: Rig) -> Rig:
    """What was on the disk is at the target, and the disk is not in the source."""
    for path in (b"disk", b"disk/d", b"beside"):
        os.mkdir(rig.s(path))
    for path in (b"disk/f", b"disk/d/f", b"beside/f"):
        Path(os.fsdecode(rig.s(path))).touch()
    rig.clean(rig.tree())
    for path in (b"disk/f", b"disk/d/f", b"beside/f"):
        os.unlink(rig.s(path))
    for path in (b"disk/d", b"beside"):
        os.rmdir(rig.s(path))
    rig.mounted.mounts = GONE_MOUNT
    return rig


@pytest.mark.parametrize("now", [True, False])
@pytest.mark.parametrize("scope", list(Scope))
def test_a_name_that_is_not_found(emptied: Rig, now: bool, scope: Scope) -> None:
    rig = emptied
    outcome = rig.bring(b"disk/f", b"disk/d", b"beside", scope=scope, now=now)
    assert outcome.unsure
    assert {(put_off.change.path, put_off.change.scope) for put_off in outcome.postponed} == {
        (b"disk/f", scope),
        (b"disk/d", scope),
    }
    assert not outcome.failures
    assert os.path.exists(rig.d(b"disk/d/f"))
    assert os.path.exists(rig.d(b"disk/f"))
    assert not os.path.exists(rig.d(b"beside"))
    rig.mounted.mounts = ()
    rig.bring(*(put_off.change.path for put_off in outcome.postponed), now=now)
    rig.clean(rig.tree())


@pytest.mark.parametrize("now", [True, False])
@pytest.mark.parametrize("path", [b"disk", ROOT])
def test_a_directory_that_is_compared(emptied: Rig, now: bool, path: bytes) -> None:
    rig = emptied
    outcome = rig.bring(path, scope=Scope.TREE, now=now)
    assert outcome.unsure
    assert [(put_off.change.path, put_off.change.scope) for put_off in outcome.postponed] == [(b"disk", Scope.TREE)]
    assert os.path.exists(rig.d(b"disk/d/f"))
    assert os.path.exists(rig.d(b"disk/f"))
    assert os.path.exists(rig.d(b"beside")) == bool(path)
    rig.mounted.mounts = ()
    rig.clean(rig.bring(path, ROOT, scope=Scope.TREE, now=now))


@pytest.mark.parametrize("now", [True, False])
def test_a_directory_above_it_that_is_gone(emptied: Rig, now: bool) -> None:
    rig = emptied
    os.rmdir(rig.s(b"disk"))
    outcome = rig.tree(now=now)
    assert outcome.unsure
    assert [put_off.change.path for put_off in outcome.postponed] == [b"disk"]
    assert os.path.exists(rig.d(b"disk/d/f"))
    assert not os.path.exists(rig.d(b"beside"))


def test_elsewhere_nothing_is_in_doubt(emptied: Rig) -> None:
    outcome = emptied.bring(b"beside")
    well(outcome)
    assert not outcome.unsure
