"""When the deletions of a batch have to be counted before any of them is made, and how many may be."""

from __future__ import annotations

from instep.model import Batch, Deletions
from instep.paths import Scope
from instep.spec import MaxDelete

NONE_MAY_GO = MaxDelete(0, 0)


def is_limited(batch: Batch, limit: MaxDelete) -> bool:
    """Whether this batch compares the whole tree, under a limit that the operator did not lift for it."""
    if limit.is_off or batch.deletions is Deletions.CONFIRMED:
        return False
    return any(not change.path and change.scope is Scope.TREE for change in batch.changes)


def limit_for(batch: Batch, limit: MaxDelete) -> MaxDelete:
    """What counts for a batch that is limited."""
    return NONE_MAY_GO if batch.deletions is Deletions.NONE else limit


def holds(batch: Batch) -> bool:
    """Whether a batch that is not limited makes no deletion, save of names that were reported on their own."""
    return batch.deletions in (Deletions.HELD, Deletions.NONE)
