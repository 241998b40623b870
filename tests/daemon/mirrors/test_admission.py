"""Which reports are noted while there are rules, and what is noted in the place of others."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from instep.core.filters import Filter
from instep.daemon.mirrors import admission as module
from instep.daemon.mirrors.admission import Admission
from instep.daemon.mirrors.aliases import Aliases
from instep.model import Report
from instep.paths import ROOT, RelPath, Scope
from instep.rules import Rule


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("d", "e", "cache/below"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


@pytest.fixture
def admission(root: Path) -> Iterator[Admission]:
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    filters = Filter([Rule(include=False, pattern=b"*.o"), Rule(include=False, pattern=b"cache/")])
    yield Admission(fd, filters, Aliases(fd, filters, note=lambda _: None, settled=lambda: None))
    os.close(fd)


def report(path: bytes, old: bytes | None = None) -> Report:
    return Report(RelPath(path), moved_from=None if old is None else RelPath(old))


def directory(path: bytes) -> Report:
    return Report(RelPath(path), Scope.ENTRY, content=False, is_dir=True)


def test_what_is_not_excluded_is_noted_as_it_is(admission: Admission) -> None:
    for one in (report(b"d/f"), report(b"d/f", b"e/f"), Report(ROOT, is_dir=True)):
        assert list(admission.admit(one)) == [one]


def test_of_an_excluded_name_its_directory_is_noted_whose_time_has_changed(admission: Admission, root: Path) -> None:
    assert list(admission.admit(report(b"d/x.o"))) == [directory(b"d")]
    assert not admission.admit(report(b"d/x.o"))  # It was written to.
    (root / "d" / "y.o").touch()
    assert list(admission.admit(report(b"d/y.o"))) == [directory(b"d")]
    assert list(admission.admit(report(b"top.o"))) == [directory(b"")]
    assert not admission.admit(report(b"cache/x"))
    assert not admission.admit(report(b"cache/below/x"))


def test_one_that_has_gone_is_noted_for_who_has_renamed_it(admission: Admission, root: Path) -> None:
    assert admission.admit(report(b"d/x.o"))
    (root / "d").rename(root / "was d")
    for _ in range(2):
        assert list(admission.admit(report(b"d/x.o"))) == [directory(b"d")]
    (root / "e").rename(root / "d")
    os.utime(root / "d", ns=(0, (root / "was d").stat().st_mtime_ns))
    assert list(admission.admit(report(b"d/x.o"))) == [directory(b"d")]  # Another one, of the same time.


def test_of_a_rename_the_end_that_is_not_excluded_is_noted(admission: Admission) -> None:
    moved_out = admission.admit(report(b"e/f.o", b"d/f"))
    assert list(moved_out) == [directory(b"e"), Report(RelPath(b"d/f"), Scope.TREE)]
    moved_in = admission.admit(report(b"e/g", b"d/g.o"))
    assert list(moved_in) == [directory(b"d"), Report(RelPath(b"e/g"), Scope.TREE)]
    assert not admission.admit(report(b"e/h.o", b"d/h.o"))
    assert list(admission.admit(report(b"h.o", b"d/h.o"))) == [directory(b"")]


def test_not_every_directory_is_remembered_for_ever(admission: Admission, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED_MAX", 1)
    assert admission.admit(report(b"d/x.o"))
    assert admission.admit(report(b"e/x.o"))
    assert admission.admit(report(b"d/x.o"))
    assert not admission.admit(report(b"d/x.o"))


class Told:
    """In the place of ``Aliases``."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, bytes]] = []

    def moved(self) -> None:
        self.heard.append(("moved", b""))

    def touched(self, path: RelPath, _: tuple[int, int]) -> list[Report]:
        self.heard.append(("touched", path))
        return [Report(RelPath(b"other"))]

    def gone(self, path: RelPath) -> list[Report]:
        self.heard.append(("gone", path))
        return []


def test_of_an_excluded_name_the_other_names_of_its_file_are_noted(
    admission: Admission, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Told()
    monkeypatch.setattr(admission, "_aliases", told)
    (root / "d" / "one.o").touch()
    (root / "d" / "two").touch()
    os.link(root / "d" / "two", root / "d" / "two.o")
    (root / "d" / "link.o").symlink_to("two")
    other = Report(RelPath(b"other"))
    assert list(admission.admit(report(b"d/two.o"))) == [other, directory(b"d")]
    assert list(admission.admit(report(b"d/two.o"))) == [other]
    for name in (b"d/one.o", b"d/link.o", b"d/none.o"):
        assert not admission.admit(report(name))
    assert list(admission.admit(report(b"d/two.o", b"d/was.o"))) == [other]
    assert not admission.admit(report(b"cache/x"))  # What is in an excluded directory is outside.
    assert list(admission.admit(Report(RelPath(b"d/dir.o"), is_dir=True))) == []
    renamed = Report(RelPath(b"e"), is_dir=True, moved_from=RelPath(b"f"))
    assert list(admission.admit(renamed)) == [renamed]
    assert told.heard == [
        *[("touched", b"d/two.o")] * 2,
        *[("gone", b"d/one.o"), ("gone", b"d/link.o"), ("gone", b"d/none.o")],
        *[("gone", b"d/was.o"), ("touched", b"d/two.o"), ("moved", b"")],
    ]
