"""Deletions that a whole comparison put off: made if they are few enough, else held.

The directories that they stand in are compared once more: meanwhile the source may have changed, and on a file system
that does not tell cases apart a name that is too much may be the very one that was just written.
"""

from __future__ import annotations

import sys

from instep.engines.native.extra import count_below, survey
from instep.engines.native.session import Session
from instep.engines.native.tally import Tally
from instep.engines.native.tree import walk
from instep.engines.native.worker import COUNT, PRUNE
from instep.model import Held
from instep.serving import Values
from instep.spec import MaxDelete
from instep.workers import Pool

COUNTED_LEAST = 100_000
"""Names to delete are counted at least so far, for whoever has to decide: a tenth of a second."""
COUNT_PATHS = 2000
PRUNE_PATHS = 512


def delete_now(session: Session, tally: Tally, limit: MaxDelete, *, most: int, content: bool) -> bool:
    """Make the deletions that ``tally`` has put off; False, and nothing done, when they are too many or it is full."""
    found = survey(tally.extra)
    count = found.names + count_below(session, found.below, most)
    if count > min(most, limit.most(tally.present - found.names, source=tally.compared)) or tally.full:
        return False
    tally.holds = False
    walk(session, [(path, content, False) for path in found.places], tally, entries_max=sys.maxsize, deep=False)
    tally.holds = True
    return True


async def judge(pool: Pool, total: Tally, limit: MaxDelete, *, content: bool) -> tuple[list[Values], Held | None]:
    """The jobs that make the deletions that ``total`` has put off, or what is to be said of them.

    Raises:
        WorkerDied: while it counted.
    """
    found = survey(total.extra)
    total.extra = []
    kept = total.present - found.names
    most = limit.most(kept, source=total.compared)
    enough = max(most, COUNTED_LEAST)
    count = found.names
    for at in range(0, len(found.below), COUNT_PATHS):
        if count > enough:
            break
        count += Tally.of(
            await pool.run((COUNT, found.below[at : at + COUNT_PATHS], enough - count, False, ()))
        ).present
    if count > most:
        return [], Held(count, kept + count, found.sample, counted=count <= enough, source_is_empty=not total.compared)
    levels = [(path, content, False) for path in found.places]
    share = max(1, min(PRUNE_PATHS, -(-len(levels) // pool.size)))
    return [(PRUNE, levels[at : at + share], 0, False) for at in range(0, len(levels), share)], None


def without_repeats(total: Tally) -> None:
    """What the first look at a directory left for others, the second one did too: let it stand there once."""
    total.large = list(dict(total.large).items())
    total.linked = list({item[0]: item for item in total.linked}.values())
    total.failures = list({item[0]: item for item in total.failures}.values())
