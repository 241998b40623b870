"""Who may bring a target in step."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from instep.daemon import locks
from instep.daemon.locks import TargetLocks
from instep.daemon.orphans import end_orphans
from instep.daemon.state import StateDirectory
from instep.errors import TargetError
from instep.linux.flock import lock
from instep.rules import Rule
from instep.spec import MirrorSpec, TargetSpec

Make = Callable[..., TargetLocks]
FAR = b"host:/backup"


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Locks of mirrors with one state directory."""
    made: list[TargetLocks] = []

    def one(source: bytes = b"/source", *, state: bool = True, **more: object) -> TargetLocks:
        spec = replace(MirrorSpec(source, ()), **more)  # type: ignore[arg-type]
        made.append(TargetLocks(spec, StateDirectory(bytes(tmp_path / "state")) if state else None))
        return made[-1]

    yield one
    for each in made:
        each.close()


def target(path: Path | bytes) -> TargetSpec:
    return TargetSpec(bytes(path))


def refused(take: Callable[[], None], code: str = "target-in-use") -> str:
    with pytest.raises(TargetError) as caught:
        take()
    assert caught.value.code == code
    return caught.value.what


@pytest.mark.parametrize("state", [True, False])
def test_the_second_is_refused_until_the_first_lets_go(make: Make, tmp_path: Path, state: bool) -> None:
    here = tmp_path / "target"
    here.mkdir()
    first, second = make(b"/first"), make(state=state)
    first.take(target(here))
    first.take(target(here))
    words = refused(lambda: second.take(target(here)))
    assert f"process {os.getpid()} of" in words
    assert ("/first" in words) == state
    first.close()
    second.take(target(here))


def test_a_far_target_goes_by_its_address(make: Make) -> None:
    first, second = make(), make()
    first.take(target(FAR))
    assert "mirrors /source to host:/backup" in refused(lambda: second.take(target(FAR)))
    second.take(target(b"host:/other"))
    first.close()
    second.take(target(FAR))


@pytest.mark.parametrize("deletes", [(True, True), (True, False), (False, True), (False, False)])
def test_two_that_mirror_one_another_would_delete_what_is_not_brought_over_yet(
    make: Make, tmp_path: Path, deletes: tuple[bool, bool]
) -> None:
    one, other, third = tmp_path / "one", tmp_path / "other", tmp_path / "third"
    for place in (one, other, third):
        place.mkdir()
    (tmp_path / "link").symlink_to(other)
    make(bytes(one), delete=deletes[0]).take(target(tmp_path / "link"))
    back = make(bytes(tmp_path / "link"), delete=deletes[1])
    back.take(target(third))  # a chain
    if any(deletes):
        assert "the other way round" in refused(lambda: back.take(target(one)), "target-mirrored-back")
    else:
        back.take(target(one))


def test_another_directory_in_its_place_is_locked_anew(make: Make, tmp_path: Path) -> None:
    here, before = tmp_path / "target", tmp_path / "before"
    here.mkdir()
    first, second = make(), make(state=False)
    first.take(target(here))
    here.rename(before)
    first.take(target(here))  # nothing is there: it keeps what it has
    refused(lambda: second.take(target(before)))
    here.mkdir()
    first.take(target(here))
    refused(lambda: second.take(target(here)))
    second.take(target(before))


def test_where_directories_cannot_be_locked_the_file_does_it(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "target"
    here.mkdir()
    real = lock
    monkeypatch.setattr(locks, "lock", lambda fd: real(fd) if os.path.isfile(f"/proc/self/fd/{fd}") else False)
    first, second = make(), make()
    first.take(target(here))
    refused(lambda: second.take(target(here)))
    (tmp_path / "link").symlink_to(here)
    refused(lambda: second.take(target(tmp_path / "link")))


def test_one_within_the_other(make: Make, tmp_path: Path) -> None:
    outer, inner = tmp_path / "outer", tmp_path / "outer" / "inner"
    inner.mkdir(parents=True)
    spared = {"rules": (Rule(include=False, pattern=b"/inner"),)}
    for first, second, word in ((outer, inner, "lies inside"), (inner, outer, "holds")):
        one, other = make(), make()
        one.take(target(first))
        assert word in refused(lambda other=other, second=second: other.take(target(second)))  # type: ignore[misc]
        one.close()
    for more in (spared, {"delete": False}):
        for first, second in ((outer, inner), (inner, outer)):
            one, other = make(**more), make(**more)
            one.take(target(first))
            other.take(target(second))
            one.close()
            other.close()
    one, other = make(**spared, delete_excluded=True), make()
    one.take(target(outer))
    refused(lambda: other.take(target(inner)))


def test_files_of_the_dead_are_removed(make: Make, tmp_path: Path) -> None:
    first = make()
    first.take(target(FAR))
    first.close()
    stale = tmp_path / "state" / f"{locks.PREFIX}stale{locks.SUFFIX}"
    stale.write_bytes(b"no JSON")
    second = make()
    second.take(target(b"host:/other"))
    assert len(list((tmp_path / "state").glob(f"{locks.PREFIX}*"))) == 1


HOLD = "import fcntl, os, sys; fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX); print(flush=True); sys.stdin.read()"


@pytest.mark.parametrize("kind", ["directory", "file"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_whoever_ends_while_it_is_looked_for_refuses_nobody(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, moment: str
) -> None:
    """What a killed daemon left behind ends of itself, often just then: nobody is found, and nothing is locked."""
    here = tmp_path / "target"
    here.mkdir()
    held = here
    if kind == "file":
        dead = make()
        dead.take(target(here))
        record = next((tmp_path / "state").glob(f"{locks.PREFIX}*")).read_bytes()
        dead.close()
        held = tmp_path / "state" / f"{locks.PREFIX}0{locks.SUFFIX}"
        held.write_bytes(record)
    other = subprocess.Popen([sys.executable, "-c", HOLD, held], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    real = end_orphans

    def ends(fd: int, address: bytes) -> bool:
        if moment == "after":
            assert not real(fd, address)
        other.kill()
        other.wait()
        return moment == "before" and real(fd, address)

    assert other.stdout
    other.stdout.readline()
    monkeypatch.setattr(locks, "end_orphans", ends)
    with other:
        make().take(target(here))
    assert other.returncode == -9


def test_one_whom_nobody_can_see_refuses_after_a_moment(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "target"
    here.mkdir()
    monkeypatch.setattr(locks, "holder", lambda _fd: None)
    monkeypatch.setattr(locks, "PATIENCE_S", 0.05)
    first, second = make(state=False), make(state=False)
    first.take(target(here))
    assert "perhaps in another container" in refused(lambda: second.take(target(here)))


def test_state_that_cannot_be_written_stops_nothing(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    here = tmp_path / "target"
    here.mkdir()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    first = make()
    first.take(target(here))
    assert [record.message for record in caplog.records] == ["lock-not-written"]
    refused(lambda: make(state=False).take(target(here)))
