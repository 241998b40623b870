"""What nothing else may touch while batches are on their way."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from instep.daemon.targets.flights import Flight, Flights
from instep.model import Batch, Change
from instep.paths import RelPath, Scope, is_within

paths = st.lists(st.sampled_from([b"a", b"b", b"aa"]), max_size=4).map(lambda parts: RelPath(b"/".join(parts)))
changes = st.builds(Change, paths, st.sampled_from(Scope))
batches = st.builds(
    Batch,
    st.lists(changes, min_size=1, max_size=3).map(tuple),
    st.just(0.0),
    moves=st.dictionaries(paths, paths, max_size=1),
)


def flight(batch: Batch) -> Flight:
    made = Flight(0, batch, [], from_log=True)
    made.reach(batch)
    return made


def expected(some: Sequence[Batch], change: Change) -> bool:
    """By the words of the docstring."""
    for batch in some:
        for path in (*(at.path for at in batch.changes), *batch.moves.values()):
            if is_within(path, change.path):
                return True
        trees = [at.path for at in batch.changes if at.scope is not Scope.ENTRY]
        if any(is_within(change.path, tree) for tree in (*trees, *batch.moves.values())):
            return True
    return False


@given(st.lists(batches, max_size=4), st.lists(changes, max_size=6), st.data())
def test_what_overlaps(some: list[Batch], asked: list[Change], data: st.DataObject) -> None:
    flights = Flights()
    in_air = {number: flight(batch) for number, batch in enumerate(some)}
    for one in in_air.values():
        flights.add(one)
    while True:
        assert len(flights) == len(in_air)
        assert set(flights) == set(in_air.values())
        for change in asked:
            assert flights.overlap(change) == expected([some[number] for number in in_air], change)
        if not in_air:
            break
        flights.remove(in_air.pop(data.draw(st.sampled_from(sorted(in_air)))))


def test_a_batch_of_the_whole_tree_is_in_the_way_of_all() -> None:
    flights = Flights()
    flights.add(flight(Batch((Change(RelPath(b""), Scope.TREE),), 0.0)))
    assert b"" in flights.trees
    assert flights.overlap(Change(RelPath(b"x/y")))
