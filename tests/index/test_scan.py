"""Comparing the source with an index, and surveying it: on real trees."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from instep.core.filters import Filter
from instep.index.scan import EVER, Finding, Findings, Scanner
from instep.index.store import Store
from instep.paths import Scope
from instep.records import GONE, UNKNOWN, is_directory, parse, record
from instep.rules import Rule

ENTRY, TREE = int(Scope.ENTRY), int(Scope.TREE)


class Desk:
    """A source, a scanner and an index of it."""

    def __init__(self, base: Path, rules: Sequence[Rule] = (), margin_ns: int = 0) -> None:
        self.source = base / "source"
        self.source.mkdir()
        self.fd = os.open(self.source, os.O_RDONLY | os.O_DIRECTORY)
        self.scanner = Scanner(self.fd, Filter(rules), one_file_system=False, margin_ns=margin_ns)
        self.store = Store(os.fsencode(base / "index"))

    def learn(self, began_ns: int = EVER) -> None:
        survey = self.scanner.survey([(b"", began_ns)], entries_max=1 << 30)
        assert not survey.levels
        with self.store.transaction():
            self.store.forget(b"")
            self.store.put_directories((path, text) for path, _, text in survey.directories)

    def compare(self, entries_max: int = 1 << 30) -> Findings:
        return self.scanner.compare([self.store], [b""], entries_max=entries_max)

    def close(self) -> None:
        self.store.close()
        os.close(self.fd)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    for directory in ("a", "a/b", "c"):
        (made.source / directory).mkdir()
        for name in ("f", "g"):
            (made.source / directory / name).write_text(name)
    (made.source / "link").symlink_to("a")
    yield made
    made.close()


def test_nothing_changed(desk: Desk) -> None:
    desk.learn()
    found = desk.compare()
    assert not found.reports
    assert not found.gone
    assert found.entries == 14  # ten names, four directories


def test_what_is_learnt_of_a_name_is_its_record(desk: Desk) -> None:
    odd = os.fsencode(desk.source) + b"/a/odd \xff\n"
    with open(odd, "wb") as file:
        file.write(b"odd")
    for path, _, text in desk.scanner.survey([(b"", EVER)], entries_max=1 << 30).directories:
        here = os.path.join(os.fsencode(desk.source), path)
        assert parse(text) == {name: record(os.lstat(os.path.join(here, name))) for name in os.listdir(here)}


def test_changes_are_found(desk: Desk) -> None:
    desk.learn()
    (desk.source / "a" / "f").write_text("F")
    (desk.source / "a" / "b" / "g").chmod(0o600)
    (desk.source / "c" / "f").unlink()
    (desk.source / "new").mkdir()
    (desk.source / "new" / "unseen").touch()
    (desk.source / "link").unlink()
    (desk.source / "link").mkdir()
    found = desk.compare()
    assert sorted(found.reports) == [
        (b"a/b/g", ENTRY, True, False),
        (b"a/f", ENTRY, True, False),
        (b"c", ENTRY, False, True),
        (b"link", TREE, True, True),
        (b"new", TREE, True, True),
    ]
    assert found.gone == [(b"c/f", ENTRY, True, False)]
    assert found.gone_entries == 1


def test_a_directory_that_is_another_one_is_reported_whole(desk: Desk) -> None:
    desk.learn()
    (desk.source / "a").rename(desk.source / "x")
    (desk.source / "c").rename(desk.source / "a")
    (desk.source / "x").rename(desk.source / "c")
    found = desk.compare()
    assert sorted(found.reports) == [(b"a", TREE, True, True), (b"c", TREE, True, True)]
    assert not found.gone


def test_what_is_gone_is_counted_with_all_below(desk: Desk) -> None:
    desk.learn()
    (desk.source / "a").rename(desk.source.parent / "outside")
    found = desk.compare()
    assert found.gone == [(b"a", ENTRY, True, True)]
    assert found.gone_entries == 6


def test_only_what_rested_since_the_batch_began_is_claimed(desk: Desk) -> None:
    late = desk.source / "c" / "late"
    others = (desk.source, *(path for path in desk.source.rglob("*") if path != desk.source / "c"))
    rested_ns = max(path.lstat().st_ctime_ns for path in others)
    began_ns = 0
    while began_ns <= rested_ns:  # Until the clock that stamps inodes has moved on.
        late.unlink(missing_ok=True)
        late.touch()
        began_ns = min(path.lstat().st_ctime_ns for path in (late.parent, late))
    desk.learn(began_ns)
    assert parse(desk.store.entries(b"c") or b"")[b"late"] == UNKNOWN
    assert is_directory(parse(desk.store.entries(b"") or b"")[b"c"])
    assert sorted(desk.compare().reports) == [(b"c", ENTRY, False, True), (b"c/late", ENTRY, True, False)]
    (desk.source / "c" / "late").unlink()
    assert (b"c/late", ENTRY, True, False) in desk.compare().gone  # The target may have got it all the same.
    (desk.source / "c" / "late").touch()
    paths = {b"c": (b"late", b"f"), b"": (b"gone", b"", b"a"), b"no/such": (b"x",)}
    began = {parent: dict.fromkeys(names, began_ns) for parent, names in paths.items()}
    assert desk.scanner.singles(began) == {
        b"c": {b"late": UNKNOWN, b"f": record((desk.source / "c" / "f").lstat())},
        b"": {b"gone": GONE, b"": record(desk.source.lstat()), b"a": record((desk.source / "a").lstat())},
        b"no/such": {b"x": GONE},
    }


def test_what_a_batch_saw_is_not_looked_at_again(desk: Desk) -> None:
    """As long as its directory is still there."""
    one = record((desk.source / "c" / "f").lstat())
    (desk.source / "c" / "f").unlink()
    seen = {b"c": {b"f": one}, b"no/such": {b"x": one}}
    assert desk.scanner.singles({b"c": {b"g": 1}, b"no/such": {b"y": 1}}, seen=seen) == {
        b"c": {b"f": one, b"g": UNKNOWN},
        b"no/such": {b"x": GONE, b"y": GONE},
    }


def test_a_directory_swapped_for_a_link_is_not_followed(desk: Desk) -> None:
    elsewhere = desk.source.parent / "some other"
    elsewhere.mkdir()
    (elsewhere / "f").touch()
    (desk.source / "led").symlink_to(elsewhere)
    assert desk.scanner.singles({b"led": {b"f": 1 << 62}}) == {b"led": {b"f": GONE}}


def test_it_stops_between_directories(desk: Desk) -> None:
    desk.learn()
    (desk.source / "a" / "b" / "f").write_text("F")
    levels, rounds = [b""], 0
    reports: list[Finding] = []
    while levels:
        found = desk.scanner.compare([desk.store], levels, entries_max=1)
        levels, reports, rounds = found.levels, reports + found.reports, rounds + 1
    assert reports == [(b"a/b/f", ENTRY, True, False)]
    assert rounds == 4


def test_what_is_excluded_does_not_exist(tmp_path: Path) -> None:
    desk = Desk(tmp_path, [Rule(include=False, pattern=b"*.o"), Rule(include=False, pattern=b"build/")])
    (desk.source / "build").mkdir()
    (desk.source / "build" / "x").touch()
    (desk.source / "x.o").touch()
    (desk.source / ".instep-1-2.tmp").touch()
    desk.learn()
    assert desk.store.entries(b"") == b""
    assert desk.store.entries(b"build") is None
    (desk.source / "x.o").unlink()
    assert not desk.compare().gone
    desk.close()


def test_two_targets_are_compared_at_once(desk: Desk, tmp_path: Path) -> None:
    desk.learn()
    other = Store(os.fsencode(tmp_path / "other"))
    found = desk.scanner.compare([desk.store, other], [b""], entries_max=1 << 30)
    assert sorted(path for path, *_ in found.reports) == [b"a", b"c", b"link"]
    other.close()


def test_a_directory_that_cannot_be_read_is_reported(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.learn()
    read = Scanner._read

    def refuse(self: Scanner, path: bytes, before_ns: int) -> tuple[bytes, list[bytes], int]:
        if path == b"a":
            raise PermissionError(13, "no")
        return read(self, path, before_ns)

    monkeypatch.setattr(Scanner, "_read", refuse)
    assert desk.compare().reports == [(b"a", TREE, False, True)]


def test_without_events_nothing_is_claimed_that_may_have_changed_unseen(tmp_path: Path) -> None:
    """A name may have come to a target and gone from the source since: who asks later has to look there."""
    margin_ns = 50_000_000
    desk = Desk(tmp_path, margin_ns=margin_ns)
    (desk.source / "d").mkdir()
    (desk.source / "d" / "f").touch()
    changed_ns = [path.lstat().st_ctime_ns for path in (desk.source / "d" / "f", desk.source / "d", desk.source)]
    f, d = record((desk.source / "d" / "f").lstat()), record((desk.source / "d").lstat())
    early, late = min(changed_ns) + margin_ns, max(changed_ns) + margin_ns + 1
    missing = {b"d": {b"gone": early}, b"none": {b"x": late}}
    assert desk.scanner.singles(missing) == {b"d": {b"gone": UNKNOWN}, b"none": {b"x": UNKNOWN}}
    assert desk.scanner.singles({b"d": {b"gone": late}}) == {b"d": {b"gone": GONE}}
    assert desk.scanner.singles({b"d": {b"f": early}}) == {b"d": {b"f": UNKNOWN}}
    assert desk.scanner.singles({b"d": {b"f": late}}) == {b"d": {b"f": f}}
    desk.learn(late)
    assert desk.compare().reports == []
    assert parse(desk.store.entries(b"") or b"") == {b"d": d}
    desk.learn(early)
    assert parse(desk.store.entries(b"d") or b"") == {b"": UNKNOWN, b"f": UNKNOWN}
    found = desk.compare()
    assert (b"", TREE, False, True) in found.reports
    assert (b"d", TREE, False, True) in found.reports
    assert found.gone == []
    desk.close()
