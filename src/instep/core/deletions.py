"""When the deletions of a batch have to be counted before any of them is made."""

from __future__ import annotations

from instep.model import Batch, Deletions
from instep.paths import Scope
from instep.spec import MaxDelete


def is_limited(batch: Batch, limit: MaxDelete) -> bool:
    """Whether this batch compares the whole tree, under a limit that the operator did not lift for it."""
    if limit.is_off or batch.deletions is Deletions.CONFIRMED:
        return False
    return any(not change.path and change.scope is Scope.TREE for change in batch.changes)
