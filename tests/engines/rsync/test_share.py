"""One run as two side by side: nothing twice, nothing left out, no directory in both."""

from __future__ import annotations

import asyncio
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instep.engines.rsync import process, share
from instep.engines.rsync.command import Style
from instep.engines.rsync.plan import Run
from instep.engines.rsync.share import CHANGES_MIN, shares
from tests.engines.rsync.places import Place, assert_done, batch, entry, run, tree

ANEW = Style(ignore_times=True)


def a_run(members: dict[bytes, int], style: Style = ANEW) -> Run:
    """``members``: each with how many changes it serves."""
    return Run(style, {name: [entry(name)] * count for name, count in members.items()})


def is_below(path: bytes, top: bytes) -> bool:
    return path == top or path.startswith(top + b"/")


_part = st.sampled_from([b"a", b"b", b"a-b", b"a b", b"c"])
_names = st.builds(
    lambda parts, slash: b"/".join(parts) + slash,
    st.lists(_part, min_size=1, max_size=4),
    st.sampled_from([b"", b"/"]),
)


@given(st.dictionaries(_names, st.integers(1, CHANGES_MIN), max_size=12))
def test_each_name_in_one_share_and_no_directory_in_two(members: dict[bytes, int]) -> None:
    whole = a_run(members)
    parts = shares(whole)
    assert sum(len(part.members) for part in parts) == len(members)
    assert {name: len(changes) for part in parts for name, changes in part.members.items()} == members
    if len(parts) == 2:
        here, there = ({name.rpartition(b"/")[0] for name in part.members} for part in parts)
        assert not any(is_below(a, b) or is_below(b, a) for a in here for b in there)
        smaller = min(sum(map(len, part.members.values())) for part in parts)
        assert smaller >= share.SHARE_MIN * sum(members.values())


def test_even_shares() -> None:
    first, second = shares(a_run({b"top/%d/" % number: 100 for number in range(40)}))
    assert (len(first.members), len(second.members)) == (20, 20)
    assert first.style == second.style == ANEW


@pytest.mark.parametrize(
    "whole",
    [
        a_run({b"a/": 10, b"b/": 10}),
        a_run({b"a/": CHANGES_MIN}),
        a_run({b"a/": CHANGES_MIN, b"b/": 10}),
        a_run({b"": CHANGES_MIN, b"b/": CHANGES_MIN}),
        a_run({b"a": CHANGES_MIN, b"b/": CHANGES_MIN}),
        a_run({b"a": CHANGES_MIN, b"b": CHANGES_MIN}, Style(recurse=True)),
        a_run({b"a/": CHANGES_MIN, b"b/": CHANGES_MIN}, Style(prune=True, limited=True)),
    ],
)
def test_what_one_rsync_does_alone(whole: Run) -> None:
    assert shares(whole) == [whole]


def planted(place: Place) -> list[bytes]:
    paths = []
    for number in range(6):
        (place.source / f"top/{number}").mkdir(parents=True)
        for count in range(4):
            (place.source / f"top/{number}/{count}").write_bytes(b"x")
            paths.append(b"top/%d/%d" % (number, count))
    return paths


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The lists of the rsyncs that were started; a few changes are shared out already."""
    monkeypatch.setattr(share, "CHANGES_MIN", 2)
    seen: list[bytes] = []
    start = process.run

    async def noting(*args: object, listing: bytes, **others: object) -> process.Exit:
        if b"probe" not in listing:
            seen.append(listing)
        return await start(*args, listing=listing, **others)  # type: ignore[arg-type]

    monkeypatch.setattr(process, "run", noting)
    return seen


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one processor")
def test_two_rsyncs_bring_one_batch_over(place: Place, runs: list[bytes]) -> None:
    paths = planted(place)
    place.sync(place.engine(), tree())
    del runs[:]
    for path in paths:
        (place.source / path.decode()).write_bytes(b"yy")
    outcome = place.sync(place.engine(), *map(entry, paths))
    assert_done(outcome)
    assert (outcome.files, outcome.bytes_copied) == (len(paths), 2 * len(paths))
    assert len(runs) == 2
    place.assert_equal()


def test_names_of_one_file_stay_together(place: Place, runs: list[bytes]) -> None:
    paths = planted(place)
    (place.source / "top/5/link").hardlink_to(place.source / "top/0/0")
    assert_done(place.sync(place.engine(), entry(b"top"), *map(entry, paths), entry(b"top/5/link")))
    assert len(runs) == 1
    assert (place.target / "top/5/link").samefile(place.target / "top/0/0")


def test_cancelled_together(place: Place, runs: list[bytes]) -> None:
    paths = planted(place)

    async def cancelled() -> None:
        engine = place.engine()
        await engine.open()
        await engine.sync(batch(tree()))
        working = asyncio.create_task(engine.sync(batch(*map(entry, paths))))
        started = len(runs)
        while len(runs) == started:  # noqa: ASYNC110  # the engine tells nobody
            await asyncio.sleep(0.001)
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
        # Nothing is left that would be in the way of the next.
        assert_done(await engine.sync(batch(*map(entry, paths))))
        await engine.close()

    run(cancelled())
    place.assert_equal()
