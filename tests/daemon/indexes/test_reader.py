"""What is known already is not read again."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from instep.daemon.indexes import reader
from instep.daemon.indexes.reader import Reader
from instep.index.scan import EVER
from instep.paths import Learned
from instep.records import UNKNOWN, parse, record
from instep.spec import MirrorSpec, TargetSpec


@pytest.mark.parametrize("little", [30_000, 1], ids=["in a thread", "by processes"])
def test_a_survey_of_what_is_partly_known(tmp_path: Path, little: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "A_LITTLE", little)
    for path in ("a/b/c", "a/d", "e/f"):
        (tmp_path / path).mkdir(parents=True)
        (tmp_path / path / "file").write_text(path)
    root = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)

    async def survey(known: dict[bytes, Learned]) -> dict[bytes, bytes]:
        made = Reader(MirrorSpec(os.fsencode(tmp_path), (TargetSpec(b"/none"),)), root)
        try:
            return {path: text async for some in made.survey({b"": EVER}, known) for path, _, text in some}
        finally:
            await made.close()

    try:
        plain = asyncio.run(survey({}))
        assert len(plain) == 7
        known: dict[bytes, Learned] = {
            b"a": (b"a", EVER, b"of a", [b"a/b", b"a/d"]),
            b"a/b": (b"a/b", EVER, b"of a/b", [b"a/b/c"]),
        }
        found = asyncio.run(survey(known))
        if little > 1:
            assert found == {**plain, b"a": b"of a", b"a/b": b"of a/b"}
        else:
            assert found.keys() == plain.keys()  # Those who read elsewhere may read some of it once more.
    finally:
        os.close(root)


@pytest.mark.parametrize("little", [1, 30_000])
def test_of_a_tree_in_another_one_the_later_batch_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, little: int
) -> None:
    """The outer one's began before its files were made, so it tells nothing of them."""
    monkeypatch.setattr(reader, "A_LITTLE", little)
    for path in ("a/b/c", "a/d"):
        (tmp_path / path).mkdir(parents=True)
        (tmp_path / path / "file").touch()
    root = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)

    async def survey() -> dict[bytes, list[bytes]]:
        made = Reader(MirrorSpec(os.fsencode(tmp_path), (TargetSpec(b"/none"),)), root)
        try:
            found: dict[bytes, list[bytes]] = {}
            async for some in made.survey({b"": 0, b"a/b": EVER}, {}):
                for path, _, text in some:
                    found.setdefault(path, []).append(parse(text).get(b"file", b""))
            return found
        finally:
            await made.close()

    try:
        found = asyncio.run(survey())
    finally:
        os.close(root)
    one = record((tmp_path / "a/b/c/file").lstat())
    assert found == {b"": [b""], b"a": [b""], b"a/d": [UNKNOWN], b"a/b": [b""], b"a/b/c": [one]}
