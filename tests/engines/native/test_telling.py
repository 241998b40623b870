"""What is told of a tally: each path by the change that asked for it, or by one that will look there."""

from __future__ import annotations

from instep.engines.mounted import UNSURE_WAIT_S
from instep.engines.native.tally import Tally
from instep.engines.native.telling import RACY_WAIT_S, tell
from instep.model import Change, Outcome
from instep.paths import RelPath, Scope

TREE = Change(RelPath(b"tree"), Scope.TREE, content=False, is_dir=True)
FILE = Change(RelPath(b"file"), content=False)


def told(tally: Tally) -> Outcome:
    outcome = Outcome()
    tell(outcome, tally, {change.path: change for change in (TREE, FILE)})
    return outcome


def shown(change: Change) -> tuple[bytes, Scope, bool]:
    return change.path, change.scope, change.content


def test_counts() -> None:
    outcome = told(Tally(files=1, bytes_copied=2, entries=3, deleted=4, full="no space"))
    assert (outcome.files, outcome.bytes_copied, outcome.entries, outcome.deleted) == (1, 2, 3, 4)
    assert outcome.full == "no space"
    assert not outcome.unsure


def test_what_failed_is_looked_at_as_a_whole() -> None:
    """It may be a directory that was made, and could not be filled."""
    outcome = told(Tally(failures=[(b"tree", "a", False), (b"file", "b", True), (b"tree/below", "c", False)]))
    assert [(*shown(failure.change), failure.reason, failure.hard) for failure in outcome.failures] == [
        (b"tree", Scope.TREE, False, "a", False),
        (b"file", Scope.TREE, False, "b", True),
        (b"tree/below", Scope.TREE, True, "c", False),
    ]


def test_what_is_put_off() -> None:
    outcome = told(Tally(racy=[b"file", b"tree/below"], unsure=[b"tree", b"tree/gone"]))
    assert [(*shown(put_off.change), put_off.wait_s, put_off.racy) for put_off in outcome.postponed] == [
        (b"file", Scope.ENTRY, False, RACY_WAIT_S, True),
        (b"tree/below", Scope.ENTRY, True, RACY_WAIT_S, True),
        (b"tree", Scope.TREE, False, UNSURE_WAIT_S, False),
        (b"tree/gone", Scope.TREE, True, UNSURE_WAIT_S, False),
    ]
    assert outcome.unsure
