"""What a target's disk lost of what was given to it: from when that is told until that very thing has arrived.

The kernel tells of such a loss once, and goes on showing what is lost as if it were there. So what may be lost is
distrusted: the disk itself is asked when it comes back, and until then no other good news counts for it.
"""

from __future__ import annotations

from collections.abc import Collection

from instep.index.journal import Touched, merged
from instep.model import Change
from instep.paths import ROOT, RelPath, Scope, is_below

DISTRUSTED_MAX = 10_000
"""If more paths than this may be lost, all are taken to be."""
EVERYTHING: Touched = {ROOT: Scope.TREE}


class Losses:
    """Pure; true while anything is lost."""

    def __init__(self) -> None:
        self.in_a_row = 0
        """How often the disk told of a loss since it last took all it was given."""
        self._is_known = False
        self._lost: Touched = {}

    def __bool__(self) -> bool:
        return bool(self._lost)

    def told(self) -> bool:
        """The disk told of a loss; whether that is news to the operator, until all is well again."""
        self.in_a_row += 1
        was_known, self._is_known = self._is_known, True
        return not was_known

    def add(self, question: Touched) -> list[Change]:
        """Any of this may be lost; returned as what is to be compared to the last byte."""
        if len(question) > DISTRUSTED_MAX:
            question = EVERYTHING
        self._lost = merged(self._lost, question)
        return _again(question)

    def changes(self) -> list[Change]:
        """All that may be lost."""
        return _again(self._lost)

    def arrived(
        self,
        paths: Collection[bytes],
        trees: Collection[bytes],
        pending: Collection[bytes],
        covering: Collection[bytes],
    ) -> bool:
        """The disk took these paths and trees, but for what is ``pending``; whether with that all is well.

        ``covering``: what of ``pending`` stands for all that is below it.
        """
        self.in_a_row = 0
        if not self._lost:
            return False
        for path, scope in list(self._lost.items()):
            if path in pending or is_below(path, covering):
                continue
            whole = path in trees or is_below(path, trees)
            if whole or (path in paths and scope is not Scope.TREE):
                del self._lost[path]
                if scope is Scope.TREE:
                    tops = (path,)
                    self._lost |= {
                        one: Scope.TREE if one in covering else Scope.ENTRY for one in pending if is_below(one, tops)
                    }
        self._is_known = self._is_known and bool(self._lost)
        return not self._lost


def _again(question: Touched) -> list[Change]:
    return [Change(RelPath(path), scope, content=True, is_dir=scope is Scope.TREE) for path, scope in question.items()]
