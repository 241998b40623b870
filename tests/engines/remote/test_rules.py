"""What filters, options and rights leave out, keep or forbid."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from instep.engines.remote.contents import Contents
from instep.engines.remote.session import Session
from instep.model import Batch, Deletions
from instep.paths import ROOT, Scope
from instep.rules import Preserve, Rule
from instep.spec import MaxDelete
from tests.engines.remote.rig import Rig, needs_root, needs_setpriv, nobodys_agent, read, well, write
from tests.trees import assert_equal

RULES = (Rule(include=False, pattern=b"*.log"), Rule(include=False, pattern=b"/cache/"))


@pytest.fixture
def base(tmp_path: Path) -> bytes:
    return os.fsencode(tmp_path)


def test_excluded_names_are_neither_sent_nor_deleted(base: bytes) -> None:
    with Rig(base, rules=RULES) as rig:
        os.makedirs(rig.s(b"d"))
        os.makedirs(rig.s(b"cache"))
        for name in (b"a", b"a.log", b"d/b", b"d/b.log", b"cache/c"):
            write(rig.s(name), name)
        os.makedirs(rig.d(b"d"))
        os.makedirs(rig.d(b"cache"))
        os.makedirs(rig.d(b"gone/deep"))
        for name in (b"theirs.log", b"cache/theirs", b"gone/x", b"gone/deep/y.log", b"extra"):
            write(rig.d(name), name)
        outcome = rig.tree()
        well(outcome)
        found = sorted(
            os.path.join(top, name)[len(rig.dst) + 1 :] for top, _, names in os.walk(rig.dst) for name in names
        )
        assert found == [b"a", b"cache/theirs", b"d/b", b"gone/deep/y.log", b"theirs.log"]
        well(rig.bring(b"gone"))
        assert os.path.exists(rig.d(b"gone/deep/y.log"))
        write(rig.s(b"gone"), b"a file")
        outcome = rig.bring(b"gone")
        assert [failure.change.path for failure in outcome.failures] == [b"gone"]
        os.unlink(rig.d(b"gone/deep/y.log"))
        well(rig.bring(b"gone"))
        assert read(rig.d(b"gone")) == b"a file"


def test_a_directory_in_which_another_went_has_its_time(base: bytes) -> None:
    """What may hold names that stay is removed with care, after all else of its batch."""
    with Rig(base, rules=RULES) as rig:
        os.makedirs(rig.s(b"d/gone/deep"))
        write(rig.s(b"d/gone/deep/x"), b"x")
        well(rig.tree())
        shutil.rmtree(rig.s(b"d/gone"))
        well(rig.bring(b"d/gone"))
        assert not os.path.exists(rig.d(b"d/gone"))
        assert os.stat(rig.d(b"d")).st_mtime_ns == os.stat(rig.s(b"d")).st_mtime_ns


def test_what_is_excluded_by_what_it_has_become_stays_here(base: bytes) -> None:
    rules = (Rule(include=False, pattern=b"x/"),)
    with Rig(base, rules=rules) as rig:
        write(rig.s(b"x"), b"a file")
        well(rig.bring(b"x"))
        os.unlink(rig.s(b"x"))
        os.makedirs(rig.s(b"x/below"))
        for _ in range(2):
            well(rig.bring(b"x"))
            assert not os.path.lexists(rig.d(b"x"))
        os.makedirs(rig.d(b"x/theirs"))
        well(rig.bring(b"x"))
        assert os.path.exists(rig.d(b"x/theirs"))


def test_excluded_names_are_deleted_when_asked(base: bytes) -> None:
    with Rig(base, rules=RULES, delete_excluded=True) as rig:
        os.makedirs(rig.d(b"gone"))
        write(rig.d(b"gone/y.log"), b"y")
        write(rig.s(b"x.log"), b"x")
        well(rig.tree())
        assert os.listdir(rig.dst) == []


def test_a_move_out_of_the_rules_is_none(base: bytes) -> None:
    with Rig(base, rules=RULES) as rig:
        write(rig.s(b"a"), b"a")
        well(rig.tree())
        os.rename(rig.s(b"a"), rig.s(b"b"))
        well(rig.bring(b"b", b"a", moves={b"b": b"a"}))
        assert_equal(rig.src, rig.dst)


def test_without_deletions_nothing_goes(base: bytes) -> None:
    with Rig(base, delete=False) as rig:
        write(rig.d(b"theirs"), b"x")
        os.makedirs(rig.d(b"dir/below"))
        write(rig.s(b"a"), b"a")
        write(rig.s(b"dir"), b"a file")
        outcome = rig.tree()
        assert [failure.change.path for failure in outcome.failures] == [b"dir"]
        well(rig.bring(b"theirs"))
        assert sorted(os.listdir(rig.dst)) == [b"a", b"dir", b"theirs"]
        os.rename(rig.s(b"a"), rig.s(b"b"))
        well(rig.bring(b"b", b"a", moves={b"b": b"a"}))
        assert sorted(os.listdir(rig.dst)) == [b"a", b"b", b"dir", b"theirs"]


IN_THE_WAY = "cannot bring over: a directory stands there, and --no-delete forbids to remove it"
roads = pytest.mark.parametrize(("scope", "now"), [(Scope.ENTRY, True), (Scope.ENTRY, False), (Scope.TREE, False)])


def make_link(path: bytes) -> None:
    os.symlink(b"/nowhere", path)


def make_file(path: bytes) -> None:
    write(path, b"content")


@roads
@pytest.mark.parametrize("make", [make_file, make_link, os.mkfifo])
def test_without_deletions_a_directory_replaces_what_is_none(
    base: bytes, make: Callable[[bytes], None], scope: Scope, now: bool
) -> None:
    with Rig(base, delete=False) as rig:
        os.makedirs(rig.s(b"a/b"))
        write(rig.s(b"a/b/c"), b"c")
        os.mkdir(rig.s(b"empty"))
        for name in (b"a", b"empty"):
            make(rig.d(name))
        rig.clean(rig.bring(*([b"a/b/c", b"empty"] if scope is Scope.ENTRY else [ROOT]), scope=scope, now=now))


@roads
@pytest.mark.parametrize("size", [1, 600_000, 9 << 20])
@pytest.mark.parametrize("holds", [True, False])
def test_without_deletions_a_directory_stays(base: bytes, size: int, holds: bool, scope: Scope, now: bool) -> None:
    """An empty one, too; and nothing is written before that is said."""
    with Rig(base, delete=False) as rig:
        write(rig.s(b"a"), b"x" * size)
        os.mkfifo(rig.s(b"f"))
        os.symlink(b"a", rig.s(b"l"))
        for name in (b"a", b"f", b"l"):
            os.makedirs(rig.d(name + b"/below" * holds))
        outcome = rig.bring(*(os.listdir(rig.src) if scope is Scope.ENTRY else [ROOT]), scope=scope, now=now)
        assert sorted((failure.change.path, failure.reason) for failure in outcome.failures) == [
            (b"a", IN_THE_WAY),
            (b"f", IN_THE_WAY),
            (b"l", IN_THE_WAY),
        ]
        assert sorted(os.listdir(rig.dst)) == [b"a", b"f", b"l"]
        assert all(os.listdir(rig.d(name)) == [b"below"] * holds for name in (b"a", b"f", b"l"))


@pytest.mark.parametrize("now", [True, False])
def test_without_deletions_a_directory_out_of_which_a_name_went_has_its_time(base: bytes, now: bool) -> None:
    with Rig(base, delete=False) as rig:
        os.makedirs(rig.s(b"d"))
        write(rig.s(b"d/a"), b"a")
        well(rig.tree())
        os.unlink(rig.s(b"d/a"))
        well(rig.bring(b"d/a", now=now))
        assert read(rig.d(b"d/a")) == b"a"
        assert os.stat(rig.d(b"d")).st_mtime_ns == os.stat(rig.s(b"d")).st_mtime_ns


@pytest.mark.parametrize("delete", [True, False])
def test_a_directory_that_went_before_it_was_filled_leaves_nothing(
    base: bytes, monkeypatch: pytest.MonkeyPatch, delete: bool
) -> None:
    with Rig(base, delete=delete) as rig:
        os.makedirs(rig.s(b"d/x"))
        write(rig.s(b"d/x/f"), b"f")
        opens = Session.open

        def too_late(session: Session, directory: bytes) -> int:
            if directory == b"d/x":
                shutil.rmtree(rig.s(b"d/x"), ignore_errors=True)
            return opens(session, directory)

        monkeypatch.setattr(Session, "open", too_late)
        rig.clean(rig.tree())
        assert os.listdir(rig.d(b"d")) == []


def test_a_dry_run_says_and_changes_nothing(base: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with Rig(base, dry_run=True) as rig, caplog.at_level(logging.INFO):
        os.makedirs(rig.s(b"new/deep"))
        write(rig.s(b"new/deep/f"), b"f")
        write(rig.s(b"large"), b"f" * 600_000)
        write(rig.d(b"extra"), b"x")
        well(rig.tree())
        assert os.listdir(rig.dst) == [b"extra"]
    said = sorted(record.fields["what"] for record in caplog.records if record.message == "would-change")  # type: ignore[attr-defined]
    assert said == ["delete extra", "make new", "make new/deep", "update large", "update new/deep/f"]


def test_a_dry_run_does_not_make_the_target(base: bytes) -> None:
    with Rig(base, dry_run=True, target=b"there:" + base + b"/none") as rig:
        write(rig.s(b"a"), b"a")
        well(rig.tree())
    assert not os.path.exists(base + b"/none")


def test_too_many_deletions_are_held(base: bytes) -> None:
    with Rig(base, max_delete=MaxDelete(percent=50, least=5)) as rig:
        for i in range(4):
            write(rig.s(b"f%d" % i), b"x")
        os.makedirs(rig.d(b"old/deep"))
        for i in range(10):
            write(rig.d(b"old/deep/f%d" % i), b"x")
        outcome = rig.tree()
        assert outcome.held is not None
        assert (outcome.held.count, outcome.held.sample) == (12, (b"old",))
        assert len(os.listdir(rig.d(b"old/deep"))) == 10
        assert len(os.listdir(rig.dst)) == 5
        again = rig.run(rig.engine.sync(whole(rig, Deletions.HELD)))
        assert again.held is not None
        assert (again.held.count, again.held.sample) == (12, (b"old",))
        assert os.path.exists(rig.d(b"old"))
        rig.clean(rig.run(rig.engine.sync(whole(rig, Deletions.CONFIRMED))))
        write(rig.d(b"extra"), b"x")
        outcome = rig.tree()
        rig.clean(outcome)
        assert (outcome.deleted, outcome.held) == (1, None)


def test_not_one_goes_while_a_part_of_the_source_is_missing(base: bytes) -> None:
    with Rig(base, max_delete=MaxDelete()) as rig:
        write(rig.d(b"one"), b"x")
        write(rig.s(b"other"), b"x")
        os.makedirs(rig.s(b"d"))
        os.makedirs(rig.d(b"d/more"))
        outcome = rig.run(rig.engine.sync(whole(rig, Deletions.NONE)))
        assert outcome.held is not None
        assert (outcome.held.count, outcome.held.sample) == (2, (b"one", b"d/more"))
        below = rig.batch(b"d", scope=Scope.TREE)
        below.deletions = Deletions.NONE
        well(rig.run(rig.engine.sync(below)))
        assert sorted(os.listdir(rig.dst)) == [b"d", b"one", b"other"]
        assert os.listdir(rig.d(b"d")) == [b"more"]
        rig.clean(rig.tree())


def whole(rig: Rig, deletions: Deletions) -> Batch:
    batch = rig.batch(ROOT, scope=Scope.TREE)
    batch.deletions = deletions
    return batch


def test_what_is_not_kept_is_left_to_the_target(base: bytes) -> None:
    plain = Preserve(owner=False, mode=False, times=False, xattrs=False, acls=False, hard_links=False, devices=False)
    with Rig(base, preserve=plain, umask=0o027) as rig:
        write(rig.s(b"a"), b"a")
        os.chmod(rig.s(b"a"), 0o777)
        os.link(rig.s(b"a"), rig.s(b"b"))
        os.mkfifo(rig.s(b"f"))
        os.utime(rig.s(b"a"), ns=(10**18, 10**18))
        well(rig.tree())
        assert sorted(os.listdir(rig.dst)) == [b"a", b"b"]
        info = os.stat(rig.d(b"a"))
        assert info.st_mode & 0o7777 == 0o750
        assert info.st_nlink == 1
        assert info.st_mtime_ns != 10**18


def test_several_targets_read_a_file_once(base: bytes) -> None:
    contents = Contents()
    other = base + b"/other"
    os.makedirs(other + b"/dst")
    os.makedirs(base + b"/src")
    os.symlink(b"../src", other + b"/src")
    with Rig(base, contents=contents) as one, Rig(other, contents=contents) as two:
        write(one.s(b"a"), b"content")
        one.clean(one.bring(b"a"))
        assert len(contents._kept) == 1
        info = os.stat(one.s(b"a"))
        kept = contents.get(info, for_root=os.geteuid() == 0)
        assert kept is not None
        assert kept[1] == b"content"
        well(two.bring(b"a"))
        assert read(two.d(b"a")) == b"content"


@needs_root
@needs_setpriv
def test_an_ordinary_user_keeps_what_it_may(open_base: bytes) -> None:
    command = nobodys_agent()
    with Rig(open_base, command=lambda _: command) as rig:
        write(rig.s(b"a"), b"a")
        os.chmod(rig.s(b"a"), 0o400)
        os.mkdir(rig.s(b"closed"), 0o755)
        write(rig.s(b"closed/x"), b"x")
        os.mknod(rig.s(b"null"), 0o020666, os.makedev(1, 3))
        os.chmod(rig.s(b"closed"), 0o500)
        well(rig.tree())
        assert sorted(os.listdir(rig.dst)) == [b"a", b"closed"]
        assert os.stat(rig.d(b"a")).st_uid == 65534
        write(rig.s(b"closed/y"), b"y")
        well(rig.bring(b"closed/y"))
        assert os.stat(rig.d(b"closed")).st_mode & 0o777 == 0o500
        write(rig.s(b"a"), b"b")
        well(rig.bring(b"a"))
        assert read(rig.d(b"a")) == b"b"
        again = rig.tree()
        well(again)
        assert again.files == 0
        shutil.rmtree(rig.s(b"closed"))
        well(rig.tree())
        assert os.listdir(rig.dst) == [b"a"]
