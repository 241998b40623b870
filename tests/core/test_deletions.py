"""How much may be deleted, and when that has to be known before."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instep.core.deletions import holds, is_limited, limit_for
from instep.model import Batch, Change, Deletions
from instep.paths import ROOT, RelPath, Scope
from instep.spec import MaxDelete

WHOLE = Change(ROOT, Scope.TREE, content=False)
OTHERS = (Change(ROOT, Scope.LIST), Change(ROOT), Change(RelPath(b"d"), Scope.TREE))


@given(st.floats(0, 99.9), st.integers(0, 10_000), st.integers(0, 1_000_000), st.integers(0, 1_000_000))
def test_the_larger_of_share_and_number(percent: float, least: int, kept: int, gone: int) -> None:
    limit = MaxDelete(percent, least)
    share = (kept + gone) * percent / 100
    if abs(gone - share) > 1:  # Nobody minds one name more or less where rounding decides.
        assert (gone <= limit.most(kept, source=kept + 1)) == (gone <= least or gone <= share)


@pytest.mark.parametrize("limit", [MaxDelete(100), MaxDelete(100, math.inf), MaxDelete(0, math.inf)])
def test_no_limit(limit: MaxDelete) -> None:
    assert limit.is_off
    assert limit.most(0, source=0) == limit.most(0, source=1) == math.inf
    assert not is_limited(Batch((WHOLE,), 0.0), limit)


def test_the_default_is_half_and_a_thousand() -> None:
    limit = MaxDelete()
    assert limit.most(0, source=1) == limit.most(1000, source=1000) == 1000
    assert limit.most(5000, source=5000) == 5000


def test_an_empty_source_deletes_nothing() -> None:
    assert MaxDelete().most(0, source=0) == MaxDelete(99, 10**9).most(0, source=0) == 0


def test_only_whole_comparisons_are_limited() -> None:
    limit = MaxDelete()
    assert is_limited(Batch((WHOLE,), 0.0), limit)
    assert is_limited(Batch((WHOLE,), 0.0, deletions=Deletions.HELD), limit)
    assert not is_limited(Batch((WHOLE,), 0.0, deletions=Deletions.CONFIRMED), limit)
    assert not is_limited(Batch(OTHERS, 0.0), limit)
    assert is_limited(Batch((*OTHERS, WHOLE), 0.0), limit)


def test_with_a_part_of_the_source_missing_none_may_go() -> None:
    limit = MaxDelete()
    missing = Batch((WHOLE,), 0.0, deletions=Deletions.NONE)
    assert is_limited(missing, limit)
    assert limit_for(missing, limit).most(10_000, source=10_000) == 0
    assert limit_for(Batch((WHOLE,), 0.0), limit) == limit
    assert [mode for mode in Deletions if holds(Batch(OTHERS, 0.0, deletions=mode))] == [
        Deletions.HELD,
        Deletions.NONE,
    ]
