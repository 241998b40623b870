"""What a verifying agent finds, and that it only looks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from instep.core.filters import parse_rules
from instep.engines import ssh
from instep.engines.remote import agent, verifier
from instep.engines.remote.session import Settings
from instep.engines.remote.verifier import RemoteVerifier
from instep.errors import TargetAway
from instep.model import Aspect, Difference
from instep.rules import Preserve
from tests.engines.remote.peer import Peer, attributes
from tests.engines.remote.rig import needs_root, needs_setpriv, nobodys_agent, over_a_pipe

A_TIME_NS = 1_500_000_000_123_456_789


@pytest.fixture
def trees(tmp_path: Path) -> tuple[Path, Path]:
    """A small tree of everything, twice."""
    source, target = tmp_path / "src", tmp_path / "dst"
    (source / "dir" / "sub").mkdir(parents=True)
    for name in ("file", "line\nbreak", "dir/a", "dir/sub/deep", "rotten", "mode", "xattr", "size", "gone"):
        (source / name).write_text("content")
    os.link(source / "dir" / "a", source / "dir" / "b")
    (source / "link").symlink_to("file")
    os.mkfifo(source / "fifo")
    same_times(source)
    subprocess.run(["cp", "-a", source, target], check=True)
    return source, target


def same_times(*roots: Path) -> None:
    """Let everything have been changed long ago, also the directories that were touched just now."""
    for root in roots:
        for here, names, files in os.walk(root, topdown=False):
            for name in [*names, *files]:
                os.utime(os.path.join(here, name), ns=(A_TIME_NS, A_TIME_NS), follow_symlinks=False)
        os.utime(root, ns=(A_TIME_NS, A_TIME_NS))


async def nothing(_: RemoteVerifier) -> None:
    """Nothing happens between two looks."""


def verify(
    source: Path,
    target: Path,
    *,
    checksum: bool = False,
    between: Callable[[RemoteVerifier], Any] = nothing,
    command: Callable[[ssh.Place], Sequence[bytes]] = over_a_pipe,
    **settings: Any,
) -> tuple[dict[str, Difference], dict[str, Difference], int]:
    """What one look finds, what another one at just that finds, and how many names there were."""

    async def run() -> tuple[dict[str, Difference], dict[str, Difference], int]:
        fd = os.open(source, os.O_RDONLY | os.O_DIRECTORY)
        made = RemoteVerifier(
            b"there:" + os.fsencode(target),
            source_fd=fd,
            settings=Settings(Preserve(), **settings),
            checksum=checksum,
            command=command,
        )
        try:
            await made.open()
            found: list[Difference] = []
            async with contextlib.aclosing(made.differences()) as stretches:
                async for some in stretches:
                    found += some
            await between(made)
            again = await made.again(found)
        finally:
            await made.close()
            os.close(fd)
        return by_path(found), by_path(again), made.entries

    return asyncio.run(run())


def by_path(found: Sequence[Difference]) -> dict[str, Difference]:
    named = {os.fsdecode(one.path): one for one in found}
    assert len(named) == len(found), "told of once"
    return named


def what(found: dict[str, Difference]) -> dict[str, list[str]]:
    return {path: one.what.words for path, one in found.items()}


def state(root: Path) -> list[tuple[str, int, int]]:
    return sorted((str(path), path.lstat().st_mtime_ns, path.lstat().st_ctime_ns) for path in [root, *root.rglob("*")])


@pytest.mark.parametrize("checksum", [False, True])
def test_equal_trees(trees: tuple[Path, Path], *, checksum: bool) -> None:
    before = state(trees[1])
    assert verify(*trees, checksum=checksum) == ({}, {}, 14)
    assert state(trees[1]) == before


def test_every_kind_of_difference(trees: tuple[Path, Path]) -> None:
    source, target = trees
    (target / "mode").chmod(0o600)
    os.setxattr(target / "xattr", b"user.more", b"1")
    (target / "size").write_text("content!")
    (target / "gone").unlink()
    (target / "extra\n" / "below").mkdir(parents=True)
    for name in ("fifo", "link", "dir/b"):
        (target / name).unlink()
    (target / "fifo").touch()
    (target / "link").symlink_to("elsewhere")
    (target / "dir" / "b").write_text("content")
    (target / "rotten").write_text("CONTENT")
    (target / ".instep-00000000-1-1.tmp").write_text("left behind by a dead agent")
    same_times(target)
    os.utime(target / "file", ns=(1, 1))
    before = state(target)
    expected = {
        "mode": ["mode"],
        "xattr": ["xattrs"],
        "size": ["size"],
        "gone": ["missing"],
        "extra\n": ["extra"],
        "fifo": ["type"],
        "link": ["link-text"],
        "file": ["time"],
    }
    found: dict[str, Difference] = {}
    for checksum in (False, True):
        found, again, _ = verify(source, target, checksum=checksum)
        assert what(again) == what(found)
        twins = {path: found.pop(path) for path in ("dir/a", "dir/b") if path in found}
        assert [one.what for one in twins.values()] == [Aspect.HARD_LINK]
        if not checksum:
            found.pop("rotten", None)  # Both were written at almost the same time: then contents are compared anyhow.
        assert what(found) == (expected | {"rotten": ["content"]} if checksum else expected)
    assert "leads to file, at the target to elsewhere" in found["link"].text
    assert all(one.source for path, one in found.items() if path != "extra\n")
    assert state(target) == before

    async def replace(_: RemoteVerifier) -> None:
        target.rename(target.with_name("aside"))
        target.mkdir()

    # Another directory in its place is none that it was asked to look at.
    with pytest.raises(TargetAway):
        verify(source, target, between=replace)


def test_what_heals_between_two_looks_is_left_out(trees: tuple[Path, Path]) -> None:
    source, target = trees
    (target / "gone").unlink()
    (target / "rotten").write_text("CONTENT")
    (target / "extra").touch()
    same_times(target)

    async def heal(_: RemoteVerifier) -> None:
        shutil.copy2(source / "gone", target / "gone")
        shutil.copy2(source / "rotten", target / "rotten")
        (target / "extra").unlink()
        same_times(target)

    found, again, _ = verify(source, target, checksum=True, between=heal)
    assert set(found) == {"gone", "rotten", "extra"}
    assert again == {}


def test_two_names_of_one_file_at_the_target_alone(trees: tuple[Path, Path]) -> None:
    source, target = trees
    (target / "dir" / "sub" / "deep").unlink()
    os.link(target / "file", target / "dir" / "sub" / "deep")
    same_times(target)
    found, again, _ = verify(source, target)
    assert [one.what for one in found.values()] == [Aspect.HARD_LINK]
    assert {next(iter(found)), os.fsdecode(next(iter(found.values())).other or b"")} == {"file", "dir/sub/deep"}
    assert what(again) == what(found)


Make = Callable[[str], None]
kinds = pytest.mark.parametrize(
    "make",
    [os.mkfifo, pytest.param(lambda path: os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3)), marks=needs_root)],
)


@kinds
def test_names_of_a_fifo_or_device_that_are_joined_on_one_side_alone(trees: tuple[Path, Path], make: Make) -> None:
    source, target = trees
    for root in trees:
        make(f"{root}/one")
        make(f"{root}/third")
        os.link(root / "one", root / "dir" / "other")
        os.link(root / "third", root / "dir" / "sub" / "fourth")
    same_times(*trees)
    assert verify(source, target) == ({}, {}, 14 + 4)
    for one, other in (("one", "dir/other"), ("third", "one")):
        (target / other).unlink()
        if other == "one":
            os.link(target / one, target / other)
        else:
            make(f"{target}/{other}")
    same_times(target)
    for checksum in (False, True):
        found, again, _ = verify(source, target, checksum=checksum)
        assert {one.what for one in found.values()} == {Aspect.HARD_LINK}
        assert found.keys() <= {"one", "dir/other", "third", "dir/sub/fourth"}
        assert what(again) == what(found)
        words = " ".join(one.text for one in found.values())
        assert "but not at the target" in words
        assert "but only at the target" in words


@needs_root
@needs_setpriv
def test_devices_that_the_far_user_cannot_make_are_not_asked_for(open_base: bytes) -> None:
    source, target = (Path(os.fsdecode(open_base)) / name for name in ("src", "dst"))
    source.mkdir()
    for root in (source, target):
        os.mkfifo(root / "f")
        os.link(root / "f", root / "g")
    os.mknod(source / "n", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.link(source / "n", source / "o")
    same_times(source, target)
    command = nobodys_agent()
    assert verify(source, target, command=lambda _: command) == ({}, {}, 4)


def test_names_of_one_symbolic_link_are_no_matter(trees: tuple[Path, Path]) -> None:
    """No engine joins them."""
    source, target = trees
    for root in trees:
        (root / "l").symlink_to("x")
    os.link(source / "l", source / "m", follow_symlinks=False)
    (target / "m").symlink_to("x")
    same_times(*trees)
    assert verify(*trees) == ({}, {}, 14 + 2)


@pytest.mark.parametrize("at", [0, 5_000_000, 8_999_999])
def test_contents_of_large_files(trees: tuple[Path, Path], at: int) -> None:
    source, target = trees
    data = bytearray(os.urandom(9_000_000))
    (source / "large").write_bytes(data)
    data[at] ^= 1
    (target / "large").write_bytes(data)
    for number in range(100):
        (source / f"small{number}").write_bytes(b"%d" % number)
        (target / f"small{number}").write_bytes(b"%d" % number)
    same_times(source, target)
    found, again, _ = verify(source, target, checksum=True)
    assert what(found) == what(again) == {"large": ["content"]}


def test_more_directories_than_one_round_trip_takes(trees: tuple[Path, Path]) -> None:
    source, target = trees
    for number in range(3 * verifier.AT_ONCE):
        for root in trees:
            (root / "dir" / f"d{number}" / "e").mkdir(parents=True)
            (root / "dir" / f"d{number}" / "e" / "f").write_text("f")
    (target / "dir" / "d50" / "e" / "f").unlink()
    shutil.rmtree(target / "dir" / "d60")
    same_times(source, target)
    found, again, entries = verify(source, target)
    assert what(found) == what(again) == {"dir/d50/e/f": ["missing"], "dir/d60": ["missing"]}
    assert entries == 14 + 3 * 3 * verifier.AT_ONCE - 2


def test_rules_are_the_mirrors(trees: tuple[Path, Path]) -> None:
    source, target = trees
    rules = parse_rules(b"- *.o\n- /dir/sub/\n", False, "here")
    shutil.rmtree(target / "dir" / "sub")
    (target / "x.o").touch()
    (target / "more" / "deep").mkdir(parents=True)
    (target / "more" / "deep" / "kept.o").touch()
    (target / "more" / "other").touch()
    same_times(target)
    assert what(verify(source, target, rules=rules)[0]) == {"more/other": ["extra"]}
    found = what(verify(source, target, rules=rules, delete_excluded=True)[0])
    assert found == {"more": ["extra"], "x.o": ["extra"]}
    assert verify(source, target, rules=rules, delete=False)[0] == {}


def test_a_target_that_is_not_there_is_away(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    with pytest.raises(TargetAway, match="No such file"):
        verify(tmp_path / "src", tmp_path / "dst")
    assert not (tmp_path / "dst").exists()


@needs_root
def test_owners_count_where_they_can_be_given(trees: tuple[Path, Path]) -> None:
    os.chown(trees[1] / "mode", 12345, 54321)
    assert what(verify(*trees)[0]) == {"mode": ["owner"]}


def test_an_agent_that_is_to_look_only_does_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    with Peer() as peer:
        peer.hello()
        peer.open(os.fsencode(tmp_path), agent.LOOKS_ONLY | agent.MAY_DELETE)
        for code, name, rest in (
            (agent.PUT, b"new", attributes() + b"x"),
            (agent.MKDIR, b"d", b""),
            (agent.DELETE, b"file", b""),
            (agent.SELF, b"", attributes(0o040700)),
            (agent.BEGIN, b"file", b"\1" * 44),
        ):
            answers = peer.batch(agent.operation(agent.CD, 0, b""), agent.operation(code, 0, name, rest))
            assert answers[1][0] == agent.FAILED
        asked = agent.STRETCH.pack(0, 100)
        answers = peer.batch(agent.operation(agent.CD, 0, b""), agent.operation(agent.SUM, 0, b"file", asked))
        assert answers[1][0] == agent.OK
        assert b"content" not in answers[1][1]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
