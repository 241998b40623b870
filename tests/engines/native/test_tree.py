"""Comparing directories level by level, with others at work in the same places."""

from __future__ import annotations

import os
from typing import Any

import pytest

from instep.engines.native import tree
from instep.engines.native.sharing import Sharing
from instep.paths import Scope
from tests.engines.native.rig import Rig, write


@pytest.mark.parametrize("times", [1, 2, 9])
def test_a_directory_that_is_replaced_while_it_is_filled(rig: Rig, times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As another worker does that filled it out of sight: what was written into the old one is gone with it."""
    os.mkdir(rig.s(b"d"))
    write(rig.s(b"d/f"))
    os.mkdir(rig.d(b"d"))
    inside = tree._level
    replaced = 0

    def replacing(session: Any, source: int, target: int, path: bytes, *rest: Any, **named: Any) -> None:
        nonlocal replaced
        if path == b"d" and replaced < times:
            replaced += 1
            os.rmdir(rig.d(b"d"))
            os.mkdir(rig.d(b"d"))
        inside(session, source, target, path, *rest, **named)

    monkeypatch.setattr(tree, "_level", replacing)
    outcome = rig.bring(b"d", scope=Scope.TREE)
    if times < tree.LOOKS:
        rig.clean(outcome)
    else:
        assert [(failure.change.path, failure.change.scope) for failure in outcome.failures] == [(b"d", Scope.TREE)]
        monkeypatch.setattr(tree, "_level", inside)
        rig.clean(rig.bring(b"d", scope=Scope.TREE))


def test_a_large_new_directory_is_filled_once(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the loop began and left is done before the change itself is looked at again: never both at a time."""
    os.mkdir(rig.s(b"d"))
    for number in range(1000):
        os.mkdir(rig.s(b"d/%d" % number))
    together: list[tuple[bool, bool]] = []
    inside = Sharing.bring

    async def seen(self: Sharing, changes: Any, total: Any, **named: Any) -> None:
        together.append((bool(total.levels), bool(changes)))
        await inside(self, changes, total, **named)

    monkeypatch.setattr(Sharing, "bring", seen)
    rig.clean(rig.bring(b"d", scope=Scope.LIST))
    assert (True, False) in together
    assert (True, True) not in together
