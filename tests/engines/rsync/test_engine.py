"""The engine between two local directories, with the real rsync."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from instep.model import Change, Outcome
from instep.paths import ROOT, RelPath, Scope
from instep.rules import Preserve, Rule
from tests.engines.rsync.places import Place, assert_done, batch, entry, names, run, standing_still, state, tree
from tests.engines.rsync.test_faults import REAL, wrap

ODD_NAMES = [
    b"new\nline", b"car\rreturn", b"tab\t", b"\x01", b"\x7f", b"\xff\xfe", b"-n", b"--delete", b" lead", b"trail ", b"*", b"?",
    b"[ab]", b"back\\slash", b"\\#012", b"'q", b'"q"', b"$(x)", b"`x`", b"host:path", b"..a", b"a..b", b"...", b"!x", b"+ x",
    b"- x", b"#x", b";x", b"x" * 255, b"~", b"a|b", b"\xc3\xa9",
]  # fmt: skip


def write(path: Path | bytes, content: bytes = b"x") -> None:
    with open(path, "wb") as file:
        file.write(content)


def test_every_odd_name_comes_and_goes(place: Place) -> None:
    (place.source / "d").mkdir()
    paths = [p for name in ODD_NAMES for p in (name, b"d/" + name)]
    for path in paths:
        write(os.path.join(os.fsencode(place.source), path), path)
    assert_done(place.sync(place.engine(), *map(entry, paths)))
    place.assert_equal()
    for path in paths[::2]:
        os.unlink(os.path.join(os.fsencode(place.source), path))
    outcome = place.sync(place.engine(), *map(entry, paths))
    assert_done(outcome)
    assert outcome.deleted == len(paths) // 2
    place.assert_equal()


def test_same_size_same_time_is_brought_over(place: Place) -> None:
    file, when = place.source / "f", (1_000_000_000, 1_000_000_000)
    write(file, b"aaa")
    os.utime(file, ns=when)
    place.sync(place.engine(), entry(b"f"))
    write(file, b"bbb")
    os.utime(file, ns=when)
    outcome = place.sync(place.engine(), entry(b"f"))
    assert (outcome.files, outcome.bytes_copied) == (1, 3)
    assert (place.target / "f").read_bytes() == b"bbb"


def test_directories_swapped_by_rename_are_brought_over(place: Place) -> None:
    for name in ("a", "b"):
        (place.source / name / "sub").mkdir(parents=True)
        write(place.source / name / "sub" / "f", name.encode())
        os.utime(place.source / name / "sub" / "f", ns=(1, 1))
    place.sync(place.engine(), tree())
    os.rename(place.source / "a", place.source / "c")
    os.rename(place.source / "b", place.source / "a")
    os.rename(place.source / "c", place.source / "b")
    assert_done(place.sync(place.engine(), tree(b"a", content=True), tree(b"b", content=True)))
    place.assert_equal()
    assert (place.target / "a/sub/f").read_bytes() == b"b"


def test_attributes_alone_do_not_copy(place: Place) -> None:
    write(place.source / "f")
    place.sync(place.engine(), entry(b"f"))
    inode = (place.target / "f").stat().st_ino
    (place.source / "f").chmod(0o604)
    outcome = place.sync(place.engine(), entry(b"f", content=False))
    assert outcome.files == 0
    assert (place.target / "f").stat().st_ino == inode
    place.assert_equal()


def make_nothing(_: Path) -> None: ...


def make_file(path: Path) -> None:
    write(path, b"file")


def make_empty(path: Path) -> None:
    path.mkdir(mode=0o750)


def make_full(path: Path) -> None:
    (path / "in").mkdir(parents=True)
    write(path / "in" / "f")


def make_link(path: Path) -> None:
    path.symlink_to("nowhere")


def make_link_to_directory(path: Path) -> None:
    path.symlink_to("/usr")


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        here = os.getcwd()
        os.chdir(path.parent)  # a socket's path may have 107 bytes only
        try:
            made.bind(path.name)
        finally:
            os.chdir(here)


KINDS: list[Callable[[Path], None]] = [
    make_nothing, make_file, make_empty, make_full, make_link, make_link_to_directory, make_fifo, make_socket,
]  # fmt: skip


@pytest.mark.parametrize("scope", [entry, tree], ids=["entry", "tree"])
def test_any_type_becomes_any_other(place: Place, scope: Callable[[bytes], Change]) -> None:
    pairs = list(itertools.product(KINDS, KINDS))
    paths = [b"n%d" % i for i in range(len(pairs))]
    for (before, _), path in zip(pairs, paths, strict=True):
        before(place.source / os.fsdecode(path))
    place.sync(place.engine(), tree())
    place.assert_equal()
    changes = []
    for (before, after), path in zip(pairs, paths, strict=True):
        here = place.source / os.fsdecode(path)
        if here.is_dir() and not here.is_symlink():
            shutil.rmtree(here)
        else:
            here.unlink(missing_ok=True)
        after(here)
        below = after is make_full or (before is make_full and after is make_empty)  # those are reported as TREE
        changes.append(tree(path, content=True) if below else scope(path))
    assert_done(place.sync(place.engine(), *changes))
    place.assert_equal()


def test_only_the_topmost_missing_parent_is_needed(place: Place) -> None:
    (place.source / "g/h/i").mkdir(parents=True)
    write(place.source / "g/h/i/f")
    write(place.source / "keep")
    place.sync(place.engine(), tree())
    shutil.rmtree(place.source / "g")
    assert_done(place.sync(place.engine(), entry(b"g/h/i/f"), tree(b"g/h/i"), names(b"g/h")))
    place.assert_equal()


def test_parents_come_with_their_attributes(place: Place) -> None:
    (place.source / "a/b").mkdir(parents=True)
    (place.source / "a").chmod(0o711)
    write(place.source / "a/b/f")
    os.utime(place.source / "a", ns=(7, 7))
    assert_done(place.sync(place.engine(), entry(b"a/b/f")))
    place.assert_equal()


@pytest.mark.parametrize(
    "change", [entry(b"d/secret"), tree(b"d/secret", content=True), names(b"d"), entry(b"d/sub/x")]
)
def test_a_link_in_the_way_leaks_nothing(place: Place, change: Change) -> None:
    outside = place.base / "outside"
    (outside / "sub").mkdir(parents=True)
    write(outside / "secret", b"secret")
    write(outside / "sub" / "x", b"secret")
    (place.source / "d").mkdir()
    place.sync(place.engine(), tree())
    (place.source / "d").rmdir()
    (place.source / "d").symlink_to(outside)
    assert_done(place.sync(place.engine(), change))
    place.assert_equal()
    assert (place.target / "d").is_symlink()


def test_a_link_at_the_target_is_not_followed(place: Place) -> None:
    outside = place.base / "outside"
    outside.mkdir()
    write(outside / "mine", b"mine")
    (place.source / "d").mkdir()
    write(place.source / "d/f")
    place.target.mkdir()
    (place.target / "d").symlink_to(outside)
    assert_done(place.sync(place.engine(), entry(b"d/f"), entry(b"d/mine")))
    assert [p.name for p in outside.iterdir()] == ["mine"]
    place.assert_equal()


def test_a_list_reaches_one_level_only(place: Place) -> None:
    for name in ("d", "d/deep", "d/gone"):
        (place.source / name).mkdir()
    write(place.source / "d/deep/old")
    place.sync(place.engine(), tree())
    write(place.source / "d/new")
    (place.source / "d/gone").rmdir()
    (place.source / "d/deep/old").unlink()
    assert_done(place.sync(place.engine(), names(b"d")))
    assert sorted(os.listdir(place.target / "d")) == ["deep", "new"]
    assert os.listdir(place.target / "d/deep") == ["old"]


def test_root_attributes_alone(place: Place) -> None:
    write(place.source / "f")
    place.source.chmod(0o751)
    os.utime(place.source, ns=(5, 5))
    assert_done(place.sync(place.engine(), entry(b"")))
    assert os.listdir(place.target) == []
    st = place.target.stat()
    assert (st.st_mode & 0o7777, st.st_mtime_ns) == (0o751, 5)


def test_without_delete_nothing_goes(place: Place) -> None:
    for name in ("a", "b"):
        (place.source / name).mkdir()
        write(place.source / name / "f")
    place.sync(place.engine(), tree())
    shutil.rmtree(place.source / "a")
    (place.source / "b/f").unlink()
    engine = place.engine(delete=False)
    assert_done(place.sync(engine, entry(b"b/f"), tree(b"a"), names(b"b")))
    assert_done(place.sync(engine, tree()))
    assert (place.target / "a/f").exists()
    assert (place.target / "b/f").exists()


def test_without_delete_the_time_of_a_directory_tells_of_a_name_that_went(place: Place) -> None:
    for name in ("a", "b"):
        (place.source / name).mkdir()
        write(place.source / name / "f")
    engine = place.engine(delete=False)
    place.sync(engine, tree())
    shutil.rmtree(place.source / "a")
    (place.source / "b/f").unlink()
    assert_done(place.sync(engine, entry(b"b/f"), tree(b"a")))
    for name in ("", "b"):
        assert (place.target / name).stat().st_mtime_ns == (place.source / name).stat().st_mtime_ns
    assert (place.target / "a/f").exists()
    assert (place.target / "b/f").exists()


RULES = (
    Rule(include=True, pattern=b"keep.o"),
    Rule(include=False, pattern=b"*.o"),
    Rule(include=False, pattern=b"/- odd "),
)


@pytest.mark.parametrize("change", [tree(), names(b"d")])
def test_rules_keep_names_from_being_sent_and_deleted(place: Place, change: Change) -> None:
    (place.source / "d").mkdir()
    place.target.mkdir()
    (place.target / "d").mkdir()
    for name in ("keep.o", "x.o", "y"):
        write(place.source / "d" / name)
    write(place.target / "d/mine.o", b"mine")
    write(place.target / "d/extra", b"extra")
    write(place.target / "- odd ", b"mine")
    assert_done(place.sync(place.engine(rules=RULES), change))
    assert sorted(os.listdir(place.target / "d")) == ["keep.o", "mine.o", "y"]
    assert (place.target / "- odd ").exists()


def test_a_lost_directory_keeps_what_rules_protect(place: Place) -> None:
    place.target.mkdir()
    (place.target / "gone").mkdir()
    write(place.target / "gone/mine.o")
    write(place.target / "gone/f")
    assert_done(place.sync(place.engine(rules=RULES), entry(b"gone")))
    assert os.listdir(place.target / "gone") == ["mine.o"]


def test_the_root_has_its_time_whatever_is_excluded(place: Place) -> None:
    rules = (Rule(include=True, pattern=b"/a"), Rule(include=False, pattern=b"*"))
    engine = place.engine(rules=rules)
    place.sync(engine, tree())
    (place.source / "a").write_text("new")
    (place.source / "b").write_text("excluded")
    os.utime(place.source, ns=(0, 10**18))
    assert_done(place.sync(engine, entry(b"a"), Change(ROOT, Scope.ENTRY, content=False, is_dir=True)))
    assert os.listdir(place.target) == ["a"]
    assert place.target.stat().st_mtime_ns == 10**18


def test_delete_excluded_takes_them_too(place: Place) -> None:
    place.target.mkdir()
    write(place.source / "theirs")
    write(place.target / "mine.o")
    assert_done(place.sync(place.engine(rules=RULES, delete_excluded=True), tree()))
    assert os.listdir(place.target) == ["theirs"]


def test_our_own_temporaries_never_travel_and_are_swept(place: Place) -> None:
    place.target.mkdir()
    write(place.source / ".instep-1.tmp")
    write(place.source / "file")
    write(place.target / ".instep-2.tmp")
    write(place.target / ".f.AbC123")
    assert_done(place.sync(place.engine(), tree()))
    assert os.listdir(place.target) == ["file"]


def test_big_files_wait_unless_flushing(place: Place) -> None:
    write(place.source / "big", b"x" * 100)
    write(place.source / "small")
    seen: list[tuple[int, float]] = []

    def big(size: int, change: Change, now_s: float) -> float:
        seen.append((size, now_s))
        return 3.0 if size >= 100 else 0.0

    engine = place.engine(big=big)
    outcome = place.sync(engine, entry(b"big"), entry(b"small"))
    assert [(p.change.path, p.wait_s) for p in outcome.postponed] == [(b"big", 3.0)]
    assert sorted(seen) == [(1, 0.0), (100, 0.0)]
    assert os.listdir(place.target) == ["small"]
    assert_done(place.sync(engine, entry(b"big"), flushing=True))
    place.assert_equal()


def test_many_names_in_one_directory(place: Place) -> None:
    """The ways for crowded directories, in one batch and in the thread: mostly new, mostly gone, a big one waiting."""
    for name in ("new", "gone", "waits"):
        (place.source / name).mkdir()
        for i in range(90):
            write(place.source / name / str(i))
    write(place.source / "waits/big", b"x" * 100)
    paths = [b"%s/%d" % (d, i) for d in (b"new", b"gone", b"waits") for i in range(90)]
    place.sync(place.engine(), tree(b"gone"))
    for i in range(88):
        (place.source / "gone" / str(i)).unlink()
    write(place.target / "gone" / "extra")
    engine = place.engine(big=lambda size, *_: 1.0 if size == 100 else 0.0)
    outcome = place.sync(engine, *map(entry, [*paths, b"waits/big"]))
    assert [p.change.path for p in outcome.postponed] == [b"waits/big"]
    assert outcome.failures == []
    (place.source / "waits/big").unlink()
    os.utime(place.target / "waits", ns=(9, 9))
    os.utime(place.source / "waits", ns=(9, 9))
    place.assert_equal()
    assert not (place.target / "gone/extra").exists()


def test_hard_links_listed_together_stay_linked(place: Place) -> None:
    write(place.source / "a")
    os.link(place.source / "a", place.source / "b")
    assert_done(place.sync(place.engine(), entry(b"a"), entry(b"b")))
    assert (place.target / "a").stat().st_ino == (place.target / "b").stat().st_ino


@pytest.mark.parametrize(
    ("preserve", "kept"), [(Preserve(), 0o4711), (Preserve(mode=False, acls=False), None)], ids=["all", "no-mode"]
)
def test_what_is_kept_is_a_choice(place: Place, preserve: Preserve, kept: int | None) -> None:
    write(place.source / "f")
    (place.source / "f").chmod(0o4711)
    assert_done(place.sync(place.engine(preserve=preserve), entry(b"f")))
    mode = (place.target / "f").stat().st_mode & 0o7777
    assert (mode == 0o4711) is (kept is not None)


def test_xattrs_and_holes_are_kept(place: Place) -> None:
    with open(place.source / "f", "wb") as file:
        file.truncate(1 << 22)
    os.setxattr(place.source / "f", "user.x", b"y")
    assert_done(place.sync(place.engine(), entry(b"f")))
    assert os.getxattr(place.target / "f", "user.x") == b"y"
    assert (place.target / "f").stat().st_blocks < 100


def test_a_dry_run_tells_and_changes_nothing(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    write(place.source / "a\nb")
    place.target.mkdir()
    write(place.target / "gone")
    before = state(place.target)
    with caplog.at_level(logging.INFO):
        assert_done(place.sync(place.engine(dry_run=True), tree()))
    assert state(place.target) == before
    told = {r.__dict__["fields"]["path"] for r in caplog.records if r.getMessage() == "would-change"}
    assert {b"a\nb", b"gone"} <= told


def test_a_dry_run_into_a_missing_target_fails_at_nothing(place: Place) -> None:
    """rsync 3.2.7 takes what is neither file, directory nor link for a directory then."""
    (place.source / "d").mkdir()
    os.mkfifo(place.source / "d" / "fifo")
    write(place.source / "file")
    assert_done(place.sync(place.engine(dry_run=True), tree()))
    assert not place.target.exists()


def test_bandwidth_is_kept_and_serialises(place: Place) -> None:
    write(place.source / "f", os.urandom(600_000))
    engine = place.engine(bandwidth_bytes_per_s=1e6)
    assert engine.parallel == 1
    start_s = time.monotonic()
    assert_done(place.sync(engine, entry(b"f")))
    assert time.monotonic() - start_s > 0.3


def test_nothing_is_done_in_the_callers_turn(place: Place) -> None:
    todo = batch(entry(b"a"))
    outcome, rest = place.engine().sync_now(todo)
    assert_done(outcome)
    assert rest == todo.changes


def test_opening_leaves_nothing_behind(place: Place) -> None:
    place.sync(place.engine())
    assert os.listdir(place.target) == []
    assert os.listdir(place.source) == []


def test_progress_only_grows(place: Place) -> None:
    (place.source / "d").mkdir()
    write(place.source / "d/f", b"xyz")
    engine = place.engine()
    outcome = place.sync(engine, tree())
    assert (outcome.files, outcome.bytes_copied) == (1, 3)
    assert (engine.progress.files, engine.progress.bytes_copied) == (1, 3)
    assert engine.progress.directories >= 1


def test_runs_at_once_do_not_disturb_each_other(place: Place) -> None:
    """A listed directory with --delete must not take away the temporary file of a run beside it."""
    (place.source / "d").mkdir()
    (place.target / "d").mkdir(parents=True)
    for i in range(100):
        write(place.source / "d" / str(i))
    write(place.source / "d/large", os.urandom(1_500_000))

    async def work() -> list[Outcome]:
        engine = place.engine(extra_args=[b"--bwlimit=4000"])
        await engine.open()
        first = asyncio.ensure_future(engine.sync(batch(entry(b"d/large"))))
        until_s = time.monotonic() + 60
        while not any(n.startswith(".large.") for n in os.listdir(place.target / "d")):
            assert time.monotonic() < until_s, "no rsync at work"
            await asyncio.sleep(0.005)
        return [await engine.sync(batch(*(entry(b"d/%d" % i) for i in range(100)))), await first]

    for outcome in run(work()):
        assert_done(outcome)
    place.assert_equal()


def test_batches_do_not_wait_for_the_end_of_others(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen: 25 batches a second one at a time, 85 to 92 side by side. Here each run waits for the start of the others."""
    engine = place.engine()
    paths = [b"f%d" % number for number in range(engine.parallel)]
    assert len(paths) > 1

    async def work() -> None:
        await engine.open()
        here = place.base / "here"
        meet = f"echo >> {here}; while [ $(wc -l < {here}) -lt {len(paths)} ]; do sleep 0.01; done"
        wrap(place, monkeypatch, f'{meet}; exec {REAL} "$@"\n')
        for path in paths:
            write(place.source / path.decode(), path)
        async with asyncio.timeout(60):
            for outcome in await asyncio.gather(*(engine.sync(batch(entry(path))) for path in paths)):
                assert_done(outcome)
        await engine.close()

    run(work())
    place.assert_equal()


def test_no_descriptor_is_left_open(place: Place) -> None:
    write(place.source / "f")

    async def work() -> tuple[int, int]:
        engine = place.engine()
        await engine.open()
        await engine.sync(batch(entry(b"f")))
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            await engine.sync(batch(entry(b"f"), Change(RelPath(b"d/x")), tree(content=True)))
        return before, len(os.listdir("/proc/self/fd"))

    before, after = run(work())
    assert before == after


def test_directories_that_two_runs_write_to_at_once_end_with_the_right_times(place: Place) -> None:
    """The first to begin is the last to end, and sets the time that it read before the other's file was there."""
    (place.source / "d").mkdir()
    (place.source / "d" / "slow").write_bytes(os.urandom(600_000))
    made = place.engine(bandwidth_bytes_per_s=600_000.0)

    async def both() -> bool:
        """Whether one ran within the other."""
        await made.open()
        slow = asyncio.create_task(made.sync(batch(entry(b"d/slow"))))
        while not (place.target / "d").exists():  # noqa: ASYNC110  # it has begun, so it has looked
            await asyncio.sleep(0.005)
        with standing_still():
            within = not (place.target / "d" / "slow").exists()
            (place.source / "d" / "new").write_bytes(b"x")
            assert_done(await made.sync(batch(entry(b"d/new"))))
        assert_done(await slow)
        return within

    while not run(both()):  # On a busy machine the test itself may be late.
        shutil.rmtree(place.target)
        (place.source / "d" / "new").unlink()
    place.assert_equal()
