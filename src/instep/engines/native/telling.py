"""What became of a batch, told of what its pieces of work did."""

from __future__ import annotations

from collections.abc import Mapping

from instep.engines.mounted import UNSURE_WAIT_S
from instep.engines.native.tally import Tally
from instep.model import Change, Failure, Outcome, Postponed
from instep.paths import RelPath, Scope

RACY_WAIT_S = 1.0
"""No less than ``hardlinks.AGAIN_S``."""


def tell(outcome: Outcome, tally: Tally, by_path: Mapping[RelPath, Change]) -> None:
    """Add a tally to an outcome. ``by_path``: the changes of the batch; what is named beside these was found below."""
    outcome.files += tally.files
    outcome.bytes_copied += tally.bytes_copied
    outcome.entries += tally.entries
    outcome.deleted += tally.deleted
    outcome.learned += tally.learned
    if tally.full:
        outcome.full = tally.full
    for path, reason, hard in tally.failures:
        change = by_path.get(RelPath(path))
        if change is None or change.scope is not Scope.TREE:
            # It may be a directory that was made and could not be filled: the change alone would not look into it.
            change = Change(RelPath(path), Scope.TREE, content=change is None or change.content)
        outcome.failures.append(Failure(change, reason, hard))
    for path in tally.racy:
        change = by_path.get(RelPath(path)) or Change(RelPath(path))
        outcome.postponed.append(Postponed(change, RACY_WAIT_S, racy=True))
    for path in tally.unsure:
        change = by_path.get(RelPath(path)) or Change(RelPath(path), Scope.TREE)
        outcome.postponed.append(Postponed(change, UNSURE_WAIT_S))
        outcome.unsure = True
