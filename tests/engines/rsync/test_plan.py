"""Which runs a batch becomes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from instep.engines.rsync.command import Style
from instep.engines.rsync.plan import SMALL_BYTES, Run, plan
from instep.engines.rsync.source import Crowd, Kind, Seen
from instep.model import Change
from instep.paths import RelPath, Scope
from tests.engines.rsync.places import entry, names, tree


def seen(change: Change, kind: Kind = Kind.FILE, size: int = 1, path: bytes | None = None) -> Seen:
    return Seen(change, change.path if path is None else path, kind, size)


def planned(
    *found: Seen, crowds: dict[bytes, Crowd] | None = None, delete: bool = True, missing_args: bool = True
) -> list[Run]:
    return plan(found, crowds or {}, delete=delete, missing_args=missing_args)


def lists(runs: list[Run]) -> dict[Style, bytes]:
    return {run.style: run.listing() for run in runs}


NAMED = Style(ignore_times=True)
BELIEVED = Style()
ANEW = Style(recurse=True, ignore_times=True, prune=True)
COMPARED = Style(recurse=True, prune=True)
LEVEL = Style(prune=True)
LEVEL_ANEW = Style(ignore_times=True, prune=True)


def test_changed_and_lost_names_share_a_run() -> None:
    runs = planned(seen(entry(b"#a")), seen(entry(b"d/b"), Kind.GONE), seen(entry(b"d"), Kind.DIRECTORY))
    assert lists(runs) == {NAMED: b"./#a\0./d/b\0./d\0"}


def test_an_empty_run_is_not_started() -> None:
    assert planned() == []


def test_attributes_alone_are_not_copied() -> None:
    assert lists(planned(seen(entry(b"a", content=False)))) == {BELIEVED: b"./a\0"}


def test_few_bytes_of_attributes_join_a_run_that_copies_anyway() -> None:
    small = seen(entry(b"a", content=False), size=SMALL_BYTES)
    large = seen(entry(b"a", content=False), size=SMALL_BYTES + 1)
    assert lists(planned(small, seen(entry(b"b")))) == {NAMED: b"./b\0./a\0"}
    assert lists(planned(large, seen(entry(b"b")))) == {NAMED: b"./b\0", BELIEVED: b"./a\0"}


def test_names_join_directories_that_are_brought_anew() -> None:
    runs = planned(seen(names(b"d", content=True), Kind.DIRECTORY), seen(entry(b"f")), seen(entry(b"g"), Kind.GONE))
    assert lists(runs) == {LEVEL_ANEW: b"./d/\0./f\0./g\0"}


def test_a_tree_takes_files_along_but_no_directories() -> None:
    runs = planned(seen(tree(b"t", content=True), Kind.DIRECTORY), seen(entry(b"f")), seen(entry(b"d"), Kind.DIRECTORY))
    assert lists(runs) == {BELIEVED: b"./d\0", ANEW: b"./t\0./f\0"}


def test_a_tree_that_is_believed_is_compared() -> None:
    assert lists(planned(seen(tree(b"t"), Kind.DIRECTORY))) == {COMPARED: b"./t\0"}


def test_the_root_by_scope() -> None:
    assert lists(planned(seen(tree(), Kind.DIRECTORY))) == {COMPARED: b"./\0"}
    assert lists(planned(seen(names(), Kind.DIRECTORY))) == {LEVEL: b"./\0"}
    assert lists(planned(seen(entry(b""), Kind.DIRECTORY))) == {Style(root_only=True): b"./\0"}


def test_the_root_comes_with_any_name() -> None:
    root = entry(b"")
    (run,) = planned(seen(root, Kind.DIRECTORY), seen(entry(b"a")))
    assert root in run.changes()
    assert run.listing() == b"./a\0"


def test_a_list_of_what_is_no_directory_is_an_entry() -> None:
    assert lists(planned(seen(names(b"l", content=True), Kind.OTHER))) == {NAMED: b"./l\0"}


def test_an_ancestor_in_the_way_is_listed_once_for_all() -> None:
    runs = planned(*(seen(entry(b"g/%d" % i), Kind.GONE, path=b"g") for i in range(3)))
    assert lists(runs) == {NAMED: b"./g\0"}
    assert len(runs[0].changes()) == 3


def test_an_ancestor_that_came_back_is_brought_whole() -> None:
    assert lists(planned(seen(entry(b"g/x"), Kind.DIRECTORY, path=b"g"))) == {ANEW: b"./g\0"}


def test_without_missing_args_the_parent_is_listed() -> None:
    runs = planned(seen(entry(b"d/x"), Kind.GONE), seen(entry(b"y"), Kind.GONE), missing_args=False)
    assert lists(runs) == {LEVEL: b"./d/\0./\0"}


def test_under_rules_a_lost_directory_is_deleted_through_its_parent() -> None:
    change = Change(RelPath(b"d/x"), is_dir=True)
    runs = plan(
        [seen(change, Kind.GONE), seen(entry(b"y"), Kind.GONE)], {}, delete=True, missing_args=True, filtered=True
    )
    assert lists(runs) == {NAMED: b"./y\0", LEVEL: b"./d/\0"}


def test_lists_of_directories_come_last() -> None:
    runs = planned(seen(names(b"d"), Kind.DIRECTORY), seen(entry(b"d/x")), seen(tree(b"d/t"), Kind.DIRECTORY))
    assert [run.style for run in runs] == [NAMED, COMPARED, LEVEL]


def test_a_mostly_changed_directory_is_listed_instead_of_its_names() -> None:
    found = [seen(entry(b"d/%d" % i)) for i in range(70)]
    assert lists(planned(*found, crowds={b"d": Crowd(100, False, 0)})) == {LEVEL_ANEW: b"./d/\0"}
    assert set(lists(planned(*found, crowds={b"d": Crowd(101, False, 0)}))) == {NAMED}
    assert set(lists(planned(*found, crowds={b"d": Crowd(100, False, 1 << 30)}))) == {NAMED}
    assert set(lists(planned(*found, crowds={b"d": Crowd(100, True, 0)}))) == {NAMED}


def test_a_third_of_lost_names_lists_the_directory() -> None:
    found = [seen(entry(b"d/%d" % i), Kind.GONE) for i in range(65)] + [seen(entry(b"d/new"))]
    assert lists(planned(*found, crowds={b"d": Crowd(194, False, 0)})) == {NAMED: b"./d/new\0", LEVEL: b"./d/\0"}
    assert set(lists(planned(*found, crowds={b"d": Crowd(195, False, 0)}))) == {NAMED}


@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"", b"a", b"d", b"d/a", b"d/b", b"d/e/f"]),
            st.sampled_from(Scope),
            st.booleans(),
            st.sampled_from(Kind),
        ),
        unique_by=lambda t: t[0],
    ),
    st.booleans(),
    st.booleans(),
)
def test_every_change_is_in_exactly_one_run(
    drawn: list[tuple[bytes, Scope, bool, Kind]], delete: bool, missing_args: bool
) -> None:
    found = [Seen(Change(RelPath(p), s, content=c), p, k if p else Kind.DIRECTORY, 1 << 19) for p, s, c, k in drawn]
    runs = plan(found, {b"d": Crowd(3, False, 0)}, delete=delete, missing_args=missing_args)
    done = [change for run in runs for change in run.changes()]
    assert len(done) == len(set(map(id, done)))
    assert set(map(id, done)) == {id(one.change) for one in found}
    for run in runs:
        for one in found:
            if one.change in run.changes() and one.kind is Kind.FILE and one.change.content:
                assert run.style.ignore_times


def test_without_deletions_a_name_that_went_changes_its_directory() -> None:
    top, below = seen(entry(b"a"), Kind.GONE), seen(entry(b"d/b"), Kind.GONE)
    (run,) = planned(top, delete=False)
    assert (run.style.root_only, [*run.members]) == (True, [b""])
    (run,) = planned(top, below, delete=False)  # The root comes with any name below it.
    assert (run.style.recurse, run.style.prune, [*run.members]) == (False, False, [b"d"])


def test_halves_hold_everything_once() -> None:
    (run,) = planned(*(seen(entry(b"%d" % i)) for i in range(5)))
    one, two = run.parts(())
    assert one.changes() + two.changes() == run.changes()
    assert one.members
    assert two.members
    assert run.parts(set(run.members)) == (one, two)


def test_what_is_blamed_is_a_part_of_its_own() -> None:
    (run,) = planned(*(seen(entry(b"%d" % i)) for i in range(5)))
    one, two = run.parts({b"1", b"3", b"other"})
    assert [*two.members] == [b"1", b"3"]
    assert [*one.members] == [b"0", b"2", b"4"]
