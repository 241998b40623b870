"""Work for several workers: in shares of neighbours, and what they find goes out again."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import cast

from instep.engines.mounted import Mounted
from instep.engines.native.sharing import JOB_PATHS, Sharing
from instep.engines.native.tally import Tally
from instep.engines.native.worker import BRING, WALK
from instep.model import Change
from instep.paths import LEARNED_BYTES_MAX, ROOT, Learned, RelPath, Scope
from instep.serving import Values
from instep.workers import Pool


class Workers:
    """A pool that answers as it was told to, and remembers what it was given."""

    def __init__(self, size: int, answers: Sequence[Tally] = ()) -> None:
        self.size = size
        self.given: list[Values] = []
        self.busiest = 0
        self._answers = list(answers)
        self._busy = 0

    async def run(self, job: Values) -> Values:
        self.given.append(job)
        self._busy += 1
        self.busiest = max(self.busiest, self._busy)
        await asyncio.sleep(0)
        self._busy -= 1
        return (self._answers.pop(0) if self._answers else Tally()).as_tuple()


def share(workers: Workers, *changes: Change, total: Tally | None = None) -> tuple[Tally, list[Tally]]:
    heard: list[Tally] = []
    total = Tally() if total is None else total
    source = os.open("/", os.O_RDONLY)
    try:
        sharing = Sharing(cast("Pool", workers), Mounted(source), heard.append)
        asyncio.run(sharing.bring(changes, total, holds=False))
    finally:
        os.close(source)
    return total, heard


def entries(count: int) -> list[Change]:
    return [Change(RelPath(b"%05d" % number)) for number in range(count)]


def test_neighbours_stay_together() -> None:
    workers = Workers(2)
    changes = entries(3 * JOB_PATHS)
    share(workers, *reversed(changes))
    assert [job[0] for job in workers.given] == [BRING] * 3
    assert sorted(path for job in workers.given for path, _, _ in job[1]) == [change.path for change in changes]
    for job in workers.given:
        paths = [path for path, _, _ in job[1]]
        assert paths == sorted(paths)
        assert len(paths) == JOB_PATHS
    assert workers.busiest == 2


def test_few_are_not_split_up() -> None:
    workers = Workers(2)
    share(workers, *entries(16))
    assert len(workers.given) == 1


def test_the_whole_tree_is_walked_and_what_is_found_in_it_too() -> None:
    found = Tally(files=1, levels=[(b"a", True, False), (b"b", False, True)])
    workers = Workers(2, [found])
    total, heard = share(workers, Change(ROOT, Scope.TREE, is_dir=True))
    assert [(job[0], job[1]) for job in workers.given] == [
        (WALK, [(b"", True, False)]),
        (WALK, [(b"b", 0, True)]),
        (WALK, [(b"a", 1, False)]),
    ]
    assert (total.files, total.levels) == (1, [])
    assert [tally.files for tally in heard] == [1, 0, 0]


def test_what_was_left_by_others_is_walked() -> None:
    workers = Workers(2)
    total, _ = share(workers, total=Tally(levels=[(b"left", True, True)]))
    assert [job[1] for job in workers.given] == [[(b"left", 1, True)]]
    assert total.levels == []


def test_too_much_to_be_remembered_is_not() -> None:
    page: Learned = (b"d", 0, b"x" * (LEARNED_BYTES_MAX // 2 + 1), [])
    total, _ = share(Workers(1, [Tally(learned=[page]), Tally(learned=[page])]), *entries(JOB_PATHS + 1))
    assert total.learned == [page]
