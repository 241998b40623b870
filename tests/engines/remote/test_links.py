"""Names of one file, FIFO, socket or device: one at the target too, whatever becomes of any of them."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import socket
import stat
import subprocess
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from pathlib import Path

import pytest

from instep.core.filters import Filter
from instep.engines import hardlinks
from instep.engines.hardlinks import Inode, included
from instep.engines.remote.connection import remote_command
from instep.paths import RelPath, Scope
from instep.rules import Preserve, Rule
from tests.engines.linking import searched_until
from tests.engines.remote.rig import Rig, needs_root, needs_setpriv, nobodys_agent, well, write

both_roads = pytest.mark.parametrize("now", [False, True])


def make_file(path: bytes) -> None:
    write(path, b"content")


def make_fifo(path: bytes) -> None:
    os.mkfifo(path, 0o640)


def make_socket(path: bytes) -> None:
    here = os.getcwd()
    os.chdir(os.path.dirname(path))  # its address holds 107 bytes
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(os.path.basename(path))
    finally:
        os.chdir(here)


def make_device(path: bytes) -> None:
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))


Make = Callable[[bytes], None]
nodes = pytest.mark.parametrize("make", [make_fifo, make_socket, pytest.param(make_device, marks=needs_root)])
all_kinds = pytest.mark.parametrize(
    "make", [make_file, make_fifo, make_socket, pytest.param(make_device, marks=needs_root)]
)


def inode(path: bytes) -> int:
    return os.lstat(path).st_ino


def joined(rig: Rig, *names: bytes) -> bool:
    return len({inode(rig.d(name)) for name in names}) == 1


def at_rest(rig: Rig) -> None:
    """Both sides are equal, and another comparison finds nothing to do, so it makes nothing anew."""
    before = {name: os.lstat(rig.d(name)).st_ino for name in os.listdir(rig.dst)}
    again = rig.tree()
    rig.clean(again)
    assert (again.entries, again.files, again.deleted) == (0, 0, 0)
    assert {name: os.lstat(rig.d(name)).st_ino for name in os.listdir(rig.dst)} == before


@both_roads
@all_kinds
def test_made_before(rig: Rig, make: Make, now: bool) -> None:
    os.makedirs(rig.s(b"d/e"))
    make(rig.s(b"a"))
    os.link(rig.s(b"a"), rig.s(b"d/e/b"))
    os.link(rig.s(b"a"), rig.s(b"c"))
    rig.clean(rig.tree(now=now))
    assert joined(rig, b"a", b"d/e/b", b"c")
    at_rest(rig)


@both_roads
@all_kinds
def test_a_second_name_is_made_later_and_only_that_is_reported(rig: Rig, make: Make, now: bool) -> None:
    os.mkdir(rig.s(b"d"))
    make(rig.s(b"d/a"))
    rig.clean(rig.tree())
    os.link(rig.s(b"d/a"), rig.s(b"b"))
    rig.clean(rig.bring(b"b", now=now))
    assert joined(rig, b"d/a", b"b")
    at_rest(rig)


@both_roads
@all_kinds
def test_parted_at_the_target_and_equal_otherwise(rig: Rig, make: Make, now: bool) -> None:
    """As an older instep left them, with equal attributes: only that they are two tells the difference."""
    os.mkdir(rig.s(b"d"))
    make(rig.s(b"a"))
    os.link(rig.s(b"a"), rig.s(b"d/b"))
    rig.clean(rig.tree())
    info, above = os.lstat(rig.s(b"a")), os.lstat(rig.s(b"d"))
    os.unlink(rig.d(b"d/b"))
    make(rig.d(b"d/b"))
    os.chmod(rig.d(b"d/b"), stat.S_IMODE(info.st_mode))
    os.utime(rig.d(b"d/b"), ns=(info.st_atime_ns, info.st_mtime_ns))
    os.utime(rig.d(b"d"), ns=(above.st_atime_ns, above.st_mtime_ns))
    assert not joined(rig, b"a", b"d/b")
    rig.clean(rig.tree(now=now))
    assert joined(rig, b"a", b"d/b")


@both_roads
@nodes
@pytest.mark.parametrize("reported", [b"a", b"d/b"])
def test_what_changes_through_one_name_reaches_the_others(rig: Rig, make: Make, reported: bytes, now: bool) -> None:
    os.mkdir(rig.s(b"d"))
    make(rig.s(b"a"))
    os.link(rig.s(b"a"), rig.s(b"d/b"))
    rig.clean(rig.tree())
    os.chmod(rig.s(reported), 0o604)
    rig.clean(rig.bring(reported, content=False, now=now))
    assert joined(rig, b"a", b"d/b")
    os.utime(rig.s(reported), ns=(10**18, 10**18))
    rig.clean(rig.bring(reported, content=False, now=now))
    if os.geteuid() == 0:
        os.chown(rig.s(reported), 1234, 4321)
        rig.clean(rig.bring(reported, content=False, now=now))
    assert joined(rig, b"a", b"d/b")
    at_rest(rig)


@both_roads
@nodes
@pytest.mark.parametrize("end", ["replaced", "replaced by its like", "removed", "moved", "removed with its directory"])
def test_one_of_its_names_is_its_own_no_more(rig: Rig, make: Make, end: str, now: bool) -> None:
    """What was changed through it right before, the others have too."""
    os.mkdir(rig.s(b"d"))
    make(rig.s(b"d/a"))
    os.link(rig.s(b"d/a"), rig.s(b"b"))
    os.link(rig.s(b"d/a"), rig.s(b"c"))
    rig.clean(rig.tree())
    os.chmod(rig.s(b"d/a"), 0o622)
    info = os.lstat(rig.s(b"d/a"))
    if end == "moved":
        os.rename(rig.s(b"d/a"), rig.s(b"e"))
        rig.clean(rig.bring(b"d/a", b"e", now=now))
        assert joined(rig, b"b", b"c", b"e")
    elif end == "removed with its directory":
        shutil.rmtree(rig.s(b"d"))
        rig.clean(rig.bring(b"d", scope=Scope.TREE, now=now))
    else:
        os.unlink(rig.s(b"d/a"))
        if end != "removed":
            make(rig.s(b"d/a"))
        if end == "replaced by its like":
            os.chmod(rig.s(b"d/a"), stat.S_IMODE(info.st_mode))
            os.utime(rig.s(b"d/a"), ns=(info.st_atime_ns, info.st_mtime_ns))
        rig.clean(rig.bring(b"d/a", now=now))
    assert joined(rig, b"b", b"c")
    at_rest(rig)


@both_roads
@all_kinds
def test_a_new_directory_holds_a_second_name(rig: Rig, make: Make, now: bool) -> None:
    """It was made outside of the source, where nobody reports the link."""
    make(rig.s(b"first"))
    rig.clean(rig.tree())
    outside = os.path.join(rig.base, b"outside")
    os.mkdir(outside)
    os.link(rig.s(b"first"), os.path.join(outside, b"second"))
    os.rename(outside, rig.s(b"d"))
    rig.clean(rig.bring(b"d", scope=Scope.TREE, now=now))
    assert joined(rig, b"first", b"d/second")


@both_roads
@all_kinds
def test_names_in_a_directory_that_the_target_lacks(rig: Rig, make: Make, now: bool) -> None:
    """It is brought over whole, and what has several names in it as well."""
    make(rig.s(b"a"))
    os.mkdir(rig.s(b"d"))
    os.link(rig.s(b"a"), rig.s(b"d/b"))
    rig.clean(rig.tree())
    shutil.rmtree(rig.d(b"d"))
    make(rig.s(b"d/one"))
    os.link(rig.s(b"d/one"), rig.s(b"d/other"))
    write(rig.s(b"d/large"), b"x" * (9 << 20))
    os.link(rig.s(b"d/large"), rig.s(b"d/larger"))
    os.link(rig.s(b"a"), rig.s(b"c"))
    well(rig.bring(b"c", now=now))  # The search for its names leads to where none of the reports has led yet.
    assert joined(rig, b"a", b"d/b", b"c")
    assert joined(rig, b"d/one", b"d/other")
    assert joined(rig, b"d/large", b"d/larger")
    rig.clean(rig.tree())


def take_the_place_of_a_directory(rig: Rig, make: Make, *, now: bool) -> None:
    make(rig.s(b"a"))
    os.mkdir(rig.s(b"b"))
    write(rig.s(b"b/f"), b"f")
    rig.clean(rig.tree())
    shutil.rmtree(rig.s(b"b"))
    os.link(rig.s(b"a"), rig.s(b"b"))
    rig.clean(rig.bring(b"b", now=now))
    assert joined(rig, b"a", b"b")


@both_roads
@nodes
def test_a_name_takes_the_place_of_a_directory(rig: Rig, make: Make, now: bool) -> None:
    take_the_place_of_a_directory(rig, make, now=now)


@both_roads
@all_kinds
def test_a_name_takes_the_place_of_a_directory_of_which_something_may_have_to_stay(
    tmp_path: Path, make: Make, now: bool
) -> None:
    with Rig(os.fsencode(tmp_path), rules=(Rule(include=False, pattern=b"*.o"),)) as rig:
        take_the_place_of_a_directory(rig, make, now=now)


@both_roads
@nodes
def test_a_name_of_the_target_outside_of_it_is_left_alone(rig: Rig, make: Make, now: bool) -> None:
    """Somebody who may write there could have linked anything to it."""
    make(rig.s(b"a"))
    rig.clean(rig.tree())
    outside = os.path.join(rig.base, b"outside")
    os.link(rig.d(b"a"), outside)
    mode = os.lstat(outside).st_mode
    os.chmod(rig.s(b"a"), 0o666)
    os.link(rig.s(b"a"), rig.s(b"b"))
    rig.clean(rig.bring(b"a", b"b", now=now))
    assert joined(rig, b"a", b"b")
    assert os.lstat(outside).st_mode == mode
    assert os.lstat(outside).st_nlink == 1


@both_roads
@all_kinds
def test_not_kept_when_not_asked_for(tmp_path: Path, make: Make, now: bool) -> None:
    with Rig(os.fsencode(tmp_path), preserve=Preserve(hard_links=False)) as rig:
        make(rig.s(b"a"))
        os.link(rig.s(b"a"), rig.s(b"b"))
        well(rig.tree(now=now))
        well(rig.bring(b"a", b"b", now=now))
        assert not joined(rig, b"a", b"b")


@both_roads
@all_kinds
def test_an_excluded_name_is_not_brought_over(tmp_path: Path, make: Make, now: bool) -> None:
    rules = (Rule(include=False, pattern=b"secret"), Rule(include=False, pattern=b"*.o"))
    with Rig(os.fsencode(tmp_path), rules=rules) as rig:
        os.mkdir(rig.s(b"secret"))
        make(rig.s(b"secret/first"))
        os.link(rig.s(b"secret/first"), rig.s(b"x.o"))
        os.link(rig.s(b"secret/first"), rig.s(b"second"))
        well(rig.bring(b"second", now=now))
        assert os.listdir(rig.dst) == [b"second"]


@both_roads
@all_kinds
def test_a_dry_run_tells_what_is_not_joined(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, make: Make, now: bool
) -> None:
    base = os.fsencode(tmp_path)
    with Rig(base) as rig:
        os.mkdir(rig.s(b"d"))
        for name in (b"a", b"e"):
            make(rig.s(name))
            os.link(rig.s(name), rig.s(b"d/" + name))
        rig.clean(rig.tree())
        rig.clean(rig.tree())
        info = os.lstat(rig.s(b"a"))
        os.unlink(rig.d(b"d/a"))
        make(rig.d(b"d/a"))
        os.chmod(rig.d(b"d/a"), stat.S_IMODE(info.st_mode))
        os.utime(rig.d(b"d/a"), ns=(info.st_atime_ns, info.st_mtime_ns))
        make(rig.s(b"new"))
        os.link(rig.s(b"new"), rig.s(b"newer"))
    with Rig(base, dry_run=True) as rig, caplog.at_level(logging.INFO):
        outcome = rig.tree(now=now)
        well(outcome)
    said = sorted(record.fields["what"] for record in caplog.records if record.message == "would-change")  # type: ignore[attr-defined]
    if make is make_file:  # Of a file that was made just now only its content could tell: an update is told of then.
        said = [words for words in said if not words.startswith("update") or words == "update new"]
    else:
        assert outcome.entries == 3
    assert said == ["link d/a", "link newer", "update new"]


@both_roads
@pytest.mark.parametrize("make", [make_file, make_fifo])
def test_symbolic_links_are_as_many_as_they_have_names(rig: Rig, make: Make, now: bool) -> None:
    """Like native and rsync's: nobody can tell, and they are looked at no more than once."""
    make(rig.s(b"a"))
    os.symlink(b"a", rig.s(b"l"))
    os.link(rig.s(b"l"), rig.s(b"m"), follow_symlinks=False)
    rig.clean(rig.tree(now=now))
    at_rest(rig)


@needs_root
@both_roads
@all_kinds
def test_names_that_cannot_be_joined_over_there_are_brought_over_each(rig: Rig, make: Make, now: bool) -> None:
    """Something is mounted below the target."""
    os.mkdir(rig.s(b"a"))
    os.mkdir(rig.s(b"m"))
    rig.clean(rig.tree())
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "none", rig.d(b"m")], check=True)
    try:
        make(rig.s(b"a/one"))
        os.link(rig.s(b"a/one"), rig.s(b"m/two"))
        for _ in range(2):
            well(rig.bring(b"a/one", b"m/two", now=now))
            for name in (b"a/one", b"m/two"):
                assert os.lstat(rig.d(name)).st_mode == os.lstat(rig.s(name)).st_mode
        well(rig.tree())
        os.chmod(rig.s(b"a/one"), 0o611)
        well(rig.bring(b"a/one", content=False, now=now))
        assert stat.S_IMODE(os.lstat(rig.d(b"m/two")).st_mode) == 0o611
    finally:
        subprocess.run(["umount", rig.d(b"m")], check=True)


@needs_root
@needs_setpriv
@both_roads
def test_an_ordinary_user_joins_what_it_may_make(open_base: bytes, now: bool) -> None:
    command = nobodys_agent()
    with Rig(open_base, command=lambda _: command) as rig:
        make_fifo(rig.s(b"f"))
        os.chown(rig.s(b"f"), 1234, 4321)
        os.link(rig.s(b"f"), rig.s(b"g"))
        make_device(rig.s(b"n"))
        os.link(rig.s(b"n"), rig.s(b"o"))
        well(rig.tree(now=now))
        assert sorted(os.listdir(rig.dst)) == [b"f", b"g"]
        assert joined(rig, b"f", b"g")
        made = inode(rig.d(b"f"))
        again = rig.tree(now=now)
        well(again)
        assert (again.entries, inode(rig.d(b"f"))) == (0, made)
        os.chmod(rig.s(b"f"), 0o600)
        os.link(rig.s(b"n"), rig.s(b"p"))
        well(rig.bring(b"g", b"p", b"o", content=False, now=now))
        assert sorted(os.listdir(rig.dst)) == [b"f", b"g"]
        assert joined(rig, b"f", b"g")
        assert stat.S_IMODE(os.lstat(rig.d(b"g")).st_mode) == 0o600


@needs_root
@needs_setpriv
@both_roads
def test_devices_that_root_may_not_make_there_fail_each_by_its_name(tmp_path: Path, now: bool) -> None:
    """As in a container."""
    command = [
        b"setpriv",
        b"--bounding-set=-mknod",
        b"--inh-caps=-mknod",
        b"/bin/sh",
        b"-c",
        remote_command(b"python3"),
    ]
    with Rig(os.fsencode(tmp_path), command=lambda _: command) as rig:
        make_device(rig.s(b"n"))
        os.link(rig.s(b"n"), rig.s(b"o"))
        make_fifo(rig.s(b"f"))
        os.link(rig.s(b"f"), rig.s(b"g"))
        outcome = rig.tree(now=now)
        assert sorted((failure.change.path, failure.hard) for failure in outcome.failures) == [
            (b"n", True),
            (b"o", True),
        ]
        assert sorted(os.listdir(rig.dst)) == [b"f", b"g"]
        assert joined(rig, b"f", b"g")


@needs_root
@both_roads
@all_kinds
def test_a_name_that_cannot_be_brought_over_holds_up_no_other(rig: Rig, make: Make, now: bool) -> None:
    """And they are joined when it can."""
    os.mkdir(rig.s(b"a"))
    rig.clean(rig.tree())
    subprocess.run(["mount", "--bind", "-o", "ro", rig.d(b"a"), rig.d(b"a")], check=True)
    try:
        make(rig.s(b"a/one"))
        for name in (b"b", b"c"):
            os.link(rig.s(b"a/one"), rig.s(name))
        outcome = rig.bring(b"a/one", b"b", b"c", now=now)
        assert {failure.change.path for failure in outcome.failures} >= {b"a/one"}
        assert not {failure.change.path for failure in outcome.failures} - {b"a/one", b"a"}
        assert sorted(os.listdir(rig.dst)) == [b"a", b"b", b"c"]
    finally:
        subprocess.run(["umount", rig.d(b"a")], check=True)
    rig.clean(rig.bring(b"a/one", now=now))
    assert joined(rig, b"a/one", b"b", b"c")


@pytest.mark.parametrize("size", [100, 20_000, 600_000, 9 << 20])
def test_a_name_that_stays_at_the_target_alone_is_parted_from_the_others(tmp_path: Path, size: int) -> None:
    with Rig(os.fsencode(tmp_path), delete=False) as rig:
        write(rig.s(b"a"), b"x" * size)
        os.link(rig.s(b"a"), rig.s(b"b"))
        rig.clean(rig.tree())
        os.unlink(rig.s(b"b"))
        well(rig.bring(b"", scope=Scope.TREE))
        assert not joined(rig, b"a", b"b")


@both_roads
@all_kinds
@pytest.mark.parametrize("blocked", [b"a", b"b", b"c"])
@pytest.mark.parametrize("reported", [b"a", b"b", b"c", None])
def test_a_name_that_cannot_be_had_keeps_no_other_away(
    tmp_path: Path, make: Make, now: bool, blocked: bytes, reported: bytes | None
) -> None:
    with Rig(os.fsencode(tmp_path), delete=False) as rig:
        make(rig.s(b"a"))
        for name in (b"b", b"c"):
            os.link(rig.s(b"a"), rig.s(name))
        os.makedirs(rig.d(blocked + b"/kept"))
        for _ in range(2):
            outcome = rig.tree(now=now) if reported is None else rig.bring(reported, now=now)
            assert [failure.change.path for failure in outcome.failures] == [blocked]
            assert not outcome.postponed
            assert joined(rig, *({b"a", b"b", b"c"} - {blocked}))
            assert os.listdir(rig.d(blocked)) == [b"kept"]


@needs_root
@both_roads
@all_kinds
def test_a_name_whose_directory_cannot_be_had_holds_up_no_other(rig: Rig, make: Make, now: bool) -> None:
    os.mkdir(rig.s(b"a"))
    rig.clean(rig.tree())
    subprocess.run(["mount", "--bind", "-o", "ro", rig.d(b"a"), rig.d(b"a")], check=True)
    try:
        os.mkdir(rig.s(b"a/new"))
        make(rig.s(b"a/new/one"))
        for name in (b"b", b"c"):
            os.link(rig.s(b"a/new/one"), rig.s(name))
        outcome = rig.bring(b"b", now=now)
        assert {failure.change.path for failure in outcome.failures} <= {b"a", b"a/new", b"a/new/one"}
        assert sorted(os.listdir(rig.dst)) == [b"a", b"b", b"c"]
        assert joined(rig, b"b", b"c")
    finally:
        subprocess.run(["umount", rig.d(b"a")], check=True)
    rig.clean(rig.tree())
    assert joined(rig, b"a/new/one", b"b", b"c")


@pytest.mark.parametrize("early", [True, False])
def test_a_directory_that_moves_during_the_search(rig: Rig, monkeypatch: pytest.MonkeyPatch, early: bool) -> None:
    """From where the search has not been yet to where it has been: what is in it is found later."""
    for name in (b"d", b"z"):
        os.mkdir(rig.s(name))
    make_file(rig.s(b"d/first"))
    rig.clean(rig.tree())
    os.link(rig.s(b"d/first"), rig.s(b"second"))

    def miss(source: int, filters: Filter, *, wanted: AbstractSet[Inode]) -> list[tuple[RelPath, Inode]]:
        os.rename(rig.s(b"d"), rig.s(b"z/d"))
        if early:
            rig.engine._links.moved(b"d", b"z/d")  # its report is worked off before the search ends
        return [found for found in included(source, filters, wanted=wanted) if not found[0].startswith(b"z/d/")]

    with monkeypatch.context() as patched:
        patched.setattr(hardlinks, "included", miss)
        outcome = rig.bring(b"second")
    assert [again.change.path for again in outcome.postponed] == [b"second"] * early
    well(rig.bring(b"z/d", b"d", scope=Scope.TREE, content=False, moves={b"z/d": b"d"}))
    if early:
        searched_until(rig.engine._links, 0.0)
        rig.clean(rig.bring(b"second"))
    at_rest(rig)
    assert joined(rig, b"z/d/first", b"second")


def test_one_at_a_time_is_at_work_on_the_names_of_a_file(rig: Rig) -> None:
    began: list[str] = []

    async def work(what: str, inodes: set[Inode], until: asyncio.Event | None = None) -> None:
        async with rig.engine._alone(inodes):
            began.append(what)
            if until is not None:
                await until.wait()

    async def scene() -> None:
        end = asyncio.Event()
        first = asyncio.ensure_future(work("first", {(1, 1), (1, 2)}, end))
        await asyncio.sleep(0)
        later = [asyncio.ensure_future(work(f"later {number}", {(1, 2), (1, 4)})) for number in range(2)]
        await asyncio.wait_for(work("beside", {(1, 3)}), 30)
        assert began == ["first", "beside"]
        end.set()
        await asyncio.wait_for(asyncio.gather(first, *later), 30)

    rig.run(scene())
    assert sorted(began[2:]) == ["later 0", "later 1"]
