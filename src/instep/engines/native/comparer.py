"""The comparing process: looks at both trees at the lowest priority, for one verifier.

Greeted with the settings and whether contents are compared; then each job is ``(None,)``, the next stretch, or
``([(path, other), …],)``, names to look at again. Every answer has the same form.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NamedTuple

from instep.engines.native.compare import Comparison
from instep.engines.native.session import Session
from instep.engines.native.worker import settings_of
from instep.linux.priority import step_back
from instep.model import Aspect, Difference
from instep.paths import RelPath
from instep.serving import Values, serve

STRETCH_ENTRIES = 5000
STRETCH_S = 0.1
"""Between two stretches others can ask, and be told."""

Row = tuple[bytes, int, str, bytes | None, tuple[int, ...], int]


class Answer(NamedTuple):
    """What came of one job."""

    entries: int
    done: bool
    rows: list[Row]


def row_of(one: Difference) -> Row:
    """A difference in plain values, for marshal."""
    return (one.path, one.what.value, one.text, one.other, one.source, one.changed_ns)


def difference_of(row: Row) -> Difference:
    """The counterpart of ``row_of``."""
    path, what, text, other, source, changed_ns = row
    return Difference(RelPath(path), Aspect(what), text, None if other is None else RelPath(other), source, changed_ns)


def main() -> None:
    """Serve jobs until stdin ends."""
    step_back()
    source, target = int(sys.argv[1]), int(sys.argv[2])

    def prepare(greeting: Values) -> Callable[[Values], Values]:
        settings, checksum = greeting
        comparison = Comparison(Session(source, target, settings_of(settings)), checksum=checksum)

        def work(job: Values) -> Values:
            (asked,) = job
            found = comparison.step(STRETCH_ENTRIES, STRETCH_S) if asked is None else comparison.again(asked)
            return tuple(Answer(comparison.entries, comparison.done, [row_of(one) for one in found]))

        return work

    serve(prepare)
