"""Looking at the watched tree."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from instep.frontends.clsync.tree import LocalTree, below
from instep.paths import ROOT, RelPath


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[LocalTree]:
    (tmp_path / "watched" / "d" / "e").mkdir(parents=True)
    (tmp_path / "watched" / "d" / "f").write_text("12345")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("")
    (tmp_path / "watched" / "link").symlink_to(tmp_path / "outside")
    found = LocalTree(os.fsencode(tmp_path / "watched"))
    yield found
    found.close()


def test_looking(tree: LocalTree) -> None:
    file, gone = tree.look(RelPath(b"d/f")), tree.look(RelPath(b"d/g"))
    assert file is not None
    assert file.st_size == 5
    assert gone is None
    assert tree.look(ROOT) is not None


def test_everything_below_comes_in_order_and_links_are_not_followed(tree: LocalTree) -> None:
    assert list(below(tree, ROOT, lambda _: True)) == [
        (b"d", True), (b"link", False), (b"d/e", True), (b"d/f", False)
    ]  # fmt: skip
    assert list(below(tree, ROOT, lambda path: path != b"d")) == [(b"d", True), (b"link", False)]
    assert list(tree.listed(RelPath(b"link"))) == []
    assert list(tree.listed(RelPath(b"gone"))) == []
