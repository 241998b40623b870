"""Verifying by rsync's dry run: what it says becomes differences, and nothing is changed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from instep.engines.rsync.output import Item, item
from instep.engines.rsync.verifier import RsyncVerifier, aspects
from instep.errors import TargetAway
from instep.model import Aspect, Difference
from instep.rules import Rule
from tests.engines.rsync.places import Place, run, state

A_TIME_NS = 1_500_000_000_123_456_789


@pytest.mark.parametrize(
    ("letters", "what"),
    [
        (b">f+++++++++", Aspect.MISSING),
        (b"hf+++++++++", Aspect.MISSING),
        (b"hf         ", Aspect.HARD_LINK),
        (b">f.st......", Aspect.SIZE | Aspect.TIME),
        (b">fcst......", Aspect.SIZE | Aspect.TIME),
        (b">fc........", Aspect.CONTENT),
        (b".f...pog.ax", Aspect.MODE | Aspect.OWNER | Aspect.ACL | Aspect.XATTRS),
        (b"cLc.T......", Aspect.LINK_TEXT | Aspect.TIME),
        (b"cDc.t......", Aspect.DEVICE | Aspect.TIME),
        (b".d..t......", Aspect.TIME),
    ],
)
def test_letters(letters: bytes, what: Aspect) -> None:
    line = item(letters + b"|5|./a")
    assert isinstance(line, Item)
    assert aspects(line) == what


def fill(place: Place) -> None:
    """The same on both sides."""
    for root in (place.source, place.target):
        (root / "dir").mkdir(parents=True)
        for name in ("same", "changed", "rotten", "dir/mode", "dir/gone"):
            (root / name).write_text("content")
        (root / "link").symlink_to("to")
        os.link(root / "same", root / "dir" / "twin")
        for here, names, files in os.walk(root, topdown=False):
            for name in [*names, *files, "."]:
                os.utime(os.path.join(here, name), ns=(A_TIME_NS, A_TIME_NS), follow_symlinks=False)


def differences(
    place: Place, *, checksum: bool = False, rules: Sequence[Rule] = (), again: bool = True
) -> dict[bytes, Aspect]:
    """All that the verifier says, and says again."""
    fd = os.open(place.source, os.O_RDONLY | os.O_DIRECTORY)
    verifier = RsyncVerifier(place.engine(dry_run=True, rules=rules), source_fd=fd, checksum=checksum)

    async def all_of_them() -> list[Difference]:
        found: list[Difference] = []
        try:
            await verifier.open()
            async for some in verifier.differences():
                found += some
            if again:
                sure = await verifier.again(found)
                assert {(one.path, one.what, one.source) for one in sure} == {
                    (one.path, one.what, one.source) for one in found
                }
        finally:
            await verifier.close()
            os.close(fd)
        return found

    found = run(all_of_them())
    by_path = {bytes(one.path): one.what for one in found}
    assert len(by_path) == len(found)
    assert verifier.entries
    return by_path


def test_equal_trees(place: Place) -> None:
    fill(place)
    assert differences(place, checksum=True) == {}


def test_each_kind(place: Place) -> None:
    fill(place)
    target = place.target
    (target / "changed").write_text("other content")
    (target / "dir" / "gone").unlink()
    (target / "dir" / "mode").chmod(0o600)
    (target / "link").unlink()
    (target / "link").symlink_to("elsewhere")
    (target / "dir" / "twin").unlink()
    (target / "dir" / "twin").write_text("content")
    (target / "rotten").write_text("CONTENT")
    for path in ("link", "dir/twin", "rotten", "dir"):
        os.utime(target / path, ns=(A_TIME_NS, A_TIME_NS), follow_symlinks=False)
    (target / "old" / "below").mkdir(parents=True)
    (target / "old" / "below" / "file").touch()
    (target / "line\nbreak").touch()
    (place.source / "new" / "below").mkdir(parents=True)
    (place.source / "new" / "below" / "file").touch()
    for root in (place.source, target):
        os.utime(root, ns=(A_TIME_NS, A_TIME_NS))
    before = state(target)
    expected = {
        b"changed": Aspect.SIZE | Aspect.TIME,
        b"dir/gone": Aspect.MISSING,
        b"dir/mode": Aspect.MODE,
        b"link": Aspect.LINK_TEXT,
        b"old": Aspect.EXTRA,
        b"line\nbreak": Aspect.EXTRA,
        b"new": Aspect.MISSING,
    }
    found = differences(place)
    # Which of the two names rsync takes for the first is its own affair.
    assert {found.pop(name, Aspect(0)) for name in (b"same", b"dir/twin")} == {Aspect.HARD_LINK, Aspect(0)}
    assert found == expected
    found = differences(place, checksum=True)
    assert found[b"rotten"] == Aspect.CONTENT
    assert state(target) == before


def test_what_is_excluded_stays(place: Place) -> None:
    (place.target / "old").mkdir(parents=True)
    (place.target / "old" / "keep.o").touch()
    (place.target / "old" / "go").touch()
    for root in (place.source, place.target):
        os.utime(root, ns=(A_TIME_NS, A_TIME_NS))
    assert differences(place, rules=[Rule(include=False, pattern=b"*.o")]) == {b"old/go": Aspect.EXTRA}


def test_what_was_mended_meanwhile_is_not_told_again(place: Place) -> None:
    fill(place)
    (place.target / "changed").write_text("other content")
    (place.target / "extra").touch()
    fd = os.open(place.source, os.O_RDONLY | os.O_DIRECTORY)
    verifier = RsyncVerifier(place.engine(dry_run=True), source_fd=fd, checksum=False)

    async def mend() -> Sequence[Difference]:
        try:
            await verifier.open()
            found = [one async for some in verifier.differences() for one in some]
            assert {one.path for one in found} == {b"", b"changed", b"extra"}
            (place.target / "extra").unlink()
            (place.source / "changed").unlink()
            (place.target / "changed").unlink()
            for root in (place.source, place.target):
                os.utime(root, ns=(A_TIME_NS, A_TIME_NS))
            return await verifier.again(found)
        finally:
            await verifier.close()
            os.close(fd)

    assert list(run(mend())) == []


def test_an_unreachable_target_is_away(place: Place, tmp_path: Path) -> None:
    fd = os.open(place.source, os.O_RDONLY | os.O_DIRECTORY)
    engine = place.engine(target=b"rsync://127.0.0.1:1/module", dry_run=True)
    verifier = RsyncVerifier(engine, source_fd=fd, checksum=False)

    async def reach() -> None:
        try:
            await verifier.open()
        finally:
            await verifier.close()
            os.close(fd)

    with pytest.raises(TargetAway):
        run(reach())
