"""From events to entries: masks, types, queues, and what does not count."""

from __future__ import annotations

import os
from typing import Any

import pytest

from instep.frontends.clsync.collect import Collector
from instep.frontends.clsync.queues import Queue
from instep.frontends.clsync.rules import ALL, parse
from instep.frontends.clsync.settings import Mode
from instep.linux.inotify import (
    IN_ATTRIB,
    IN_CLOSE_WRITE,
    IN_CREATE,
    IN_DELETE,
    IN_MODIFY,
    IN_MOVED_FROM,
    IN_MOVED_TO,
)
from instep.paths import ROOT, RelPath
from tests.frontends.clsync.simulation import PretendedTree, event, settings

PAIR = IN_MOVED_FROM | IN_MOVED_TO


class Rig:
    def __init__(self, mode: Mode = Mode.SHELL, *, rules: bytes = b"", tree: PretendedTree | None = None, **given: Any):
        self.walks = 0
        self.tree = tree or PretendedTree()
        self.collector = Collector(
            settings(mode, **given),
            parse(rules, "rules") if rules else ALL,
            self.tree,
            walked=self._walked,
            is_own=lambda path: path == b"own",
        )

    def _walked(self) -> None:
        self.walks += 1

    def note(self, path: bytes, mask: int, **more: Any) -> None:
        self.collector.note(event(path, mask, **more), 1.0)

    def told(self) -> dict[str, tuple[int, int, int, bool]]:
        return {
            each.path.decode(): (each.mask, each.old, each.new, each.recursive)
            for each in self.collector.queues.take_all()
        }


ABSENT, FILE, DIRECTORY = 1, 2, 3


def test_files() -> None:
    rig = Rig(tree=PretendedTree(new=1, old=1, b=1))
    for mask in (IN_CREATE, IN_MODIFY, IN_CLOSE_WRITE):
        rig.note(b"new", mask)
    rig.note(b"old", IN_ATTRIB)
    rig.note(b"gone", IN_DELETE)
    rig.note(b"b", PAIR, moved_from=b"a")
    assert rig.told() == {
        "new": (266, ABSENT, FILE, False),
        "old": (4, FILE, FILE, False),
        "gone": (512, FILE, ABSENT, False),
        "a": (64, FILE, ABSENT, False),
        "b": (128, ABSENT, FILE, False),
    }
    assert rig.walks == 0


def test_directories() -> None:
    rig = Rig(tree=PretendedTree(d=None, n=None, **{"n/f": 1, "d/x": 1}))
    rig.note(b"n", IN_CREATE, is_dir=True)
    rig.collector.appeared(RelPath(b"n"), 1.0)
    rig.note(b"gone", IN_DELETE, is_dir=True)
    rig.note(b"", IN_ATTRIB, is_dir=True)
    rig.note(b"d", PAIR, is_dir=True, moved_from=b"c")
    assert rig.told() == {
        "n": (1073742080, ABSENT, DIRECTORY, False),
        "n/f": (256, ABSENT, FILE, False),
        "gone": (1073743360, DIRECTORY, ABSENT, False),
        "": (1073741828, DIRECTORY, DIRECTORY, False),
        "c": (1073741888, DIRECTORY, ABSENT, False),
        "d": (1073744128, ABSENT, DIRECTORY, False),
        "d/x": (256, ABSENT, FILE, False),
    }
    assert rig.walks == 2


def test_rsync_modes_tell_whole_directories() -> None:
    rig = Rig(Mode.RSYNCSHELL, tree=PretendedTree(n=None, **{"n/f": 1}))
    rig.note(b"n", IN_CREATE, is_dir=True)
    rig.collector.appeared(RelPath(b"n"), 1.0)
    rig.note(b"n/f", IN_MODIFY)
    rig.note(b"gone", IN_MOVED_FROM, is_dir=True)
    assert {path: told[3] for path, told in rig.told().items()} == {"n": True, "gone": True}


@pytest.mark.parametrize("given", [{"rules": b"-f\\.h$"}, {"rsync_prefer_include": True}])
def test_unless_not_all_of_them_counts(given: dict[str, Any]) -> None:
    """What is made in it and rejected, before the handler runs, must not be told with it."""
    rig = Rig(Mode.RSYNCSHELL, tree=PretendedTree(n=None, **{"n/f": 1}), **given)
    rig.note(b"n", IN_CREATE, is_dir=True)
    rig.collector.appeared(RelPath(b"n"), 1.0)
    assert {path: told[3] for path, told in rig.told().items()} == {"n": False, "n/f": False}


@pytest.mark.parametrize("mode", [Mode.SHELL, Mode.RSYNCSHELL])
def test_a_directory_that_is_gone_again_is_told_by_its_events_alone(mode: Mode) -> None:
    rig = Rig(mode)
    rig.collector.appeared(RelPath(b"n"), 1.0)
    assert rig.told() == {}


def test_recursive_calls() -> None:
    rig = Rig(have_recursive_sync=True, tree=PretendedTree(n=None, **{"n/f": 1}))
    rig.collector.initial(0.0)
    rig.note(b"n", IN_CREATE, is_dir=True)
    rig.collector.appeared(RelPath(b"n"), 1.0)
    assert [(each.path, each.absolute) for each in rig.collector.whole] == [(b"", True), (b"n", True)]
    assert rig.told() == {}


class Mounted(PretendedTree):
    """With another file system at ``mnt``."""

    def look(self, path: RelPath) -> os.stat_result | None:
        found = super().look(path)
        if found is None or not (path + b"/").startswith(b"mnt/"):
            return found
        return os.stat_result((*found[:2], found.st_dev + 1, *found[3:10]))


@pytest.mark.parametrize("option", ["one_file_system", "exclude_mount_points", ""])
def test_file_systems_below(option: str) -> None:
    """A mount point is watched, so what lies directly in it is told; what lies deeper is not even looked at."""
    tree = Mounted(d=None, mnt=None, **{"mnt/f": 1, "mnt/sub": None, "mnt/sub/f": 1, "d/e": None})
    given: dict[str, Any] = {option: True} if option else {}
    rig = Rig(tree=tree, **given)
    directories = (b"d", b"d/e", b"mnt", b"mnt/sub")
    watched = [path for path in directories if not rig.collector.ignores(RelPath(path), is_dir=True)]
    assert watched == ([b"d", b"d/e", b"mnt"] if option else [*directories])
    assert not rig.collector.ignores(RelPath(b"mnt/f"), is_dir=False)
    rig.collector.initial(1.0)
    deeper = set() if option else {"mnt/f", "mnt/sub", "mnt/sub/f"}
    assert set(rig.told()) == {"", "d", "d/e", "mnt"} | deeper
    rig.note(b"mnt/f", IN_MODIFY)
    assert set(rig.told()) == {"mnt/f"}
    for path in (b"mnt", b"mnt/sub"):  # Mounted just now, and made just now.
        rig.collector.appeared(RelPath(path), 1.0)
    assert set(rig.told()) == deeper


def test_what_does_not_count() -> None:
    rig = Rig(rules=b"-f\\.o$", tree=PretendedTree(own=1, **{"x.o": 1, ".instep-1-2.tmp": 1, "x.c": 1}))
    for name in (b"own", b"x.o", b".instep-1-2.tmp", b"x.c"):
        rig.note(name, IN_MODIFY)
    assert rig.told().keys() == {"x.c"}


def test_regular_files_alone_are_files_to_a_rule() -> None:
    tree = PretendedTree(fifo=1)
    rig = Rig(rules=b"-f", tree=tree)
    real = tree.look
    tree.look = lambda path: type(info)((0o010644, *info[1:])) if (info := real(path)) else None  # type: ignore[method-assign]
    rig.note(b"fifo", IN_CREATE)
    assert rig.told().keys() == {"fifo"}
    rig.note(b"fifo", IN_DELETE)
    assert rig.told() == {}, "nobody knows what it was"


def test_signatures() -> None:
    rig = Rig(modification_signature=frozenset({"size"}), tree=PretendedTree(f=1))
    rig.note(b"f", IN_MODIFY)
    rig.note(b"f", IN_MODIFY)
    assert rig.told().keys() == {"f"}
    rig.note(b"f", IN_MODIFY)
    assert rig.told() == {}
    rig.note(b"f", IN_DELETE)
    rig.note(b"f", IN_CREATE)
    assert rig.told()["f"][0] == IN_DELETE | IN_CREATE
    rig.tree.names[b"f"] = 2
    rig.note(b"f", IN_MODIFY)
    assert rig.told().keys() == {"f"}


def test_nothing_is_looked_at_where_that_was_asked_for() -> None:
    rig = Rig(cancel_stat=True, threshold_bigfile=1, tree=PretendedTree(f=100))
    rig.note(b"f", IN_MODIFY)
    assert [each.path for each in rig.collector.queues.entries(Queue.NORMAL)] == [b"f"]


def test_excluded() -> None:
    tree = PretendedTree(web=None, group=1, keep=None, **{"web/x": 1, "keep/group": 1})
    rig = Rig(Mode.RSYNCSHELL, rules=b"-d^web$\n-f^group$", tree=tree)
    assert rig.collector.excluded(ROOT) == [(b"group", False), (b"web", False)]
    assert rig.collector.excluded(RelPath(b"keep")) == []
    assert Rig(Mode.RSYNCSHELL, tree=tree).collector.excluded(ROOT) == []
    every = Rig(Mode.RSYNCSHELL, rules=b"+f\\.c$\n-*", tree=tree)
    assert every.collector.excluded(ROOT) == [(b"", False)]
    full = Rig(Mode.RSYNCSHELL, rules=b"-f", tree=tree, full_initialsync=True)
    assert full.collector.excluded(ROOT) == []


def test_what_is_there_at_start_is_watched_if_it_is_walked() -> None:
    rig = Rig(rules=b"-m^web$\n-w^no$")
    assert not rig.collector.ignores(RelPath(b"web"), True)
    assert rig.collector.ignores(RelPath(b"no"), True)
    rig.collector.is_starting = False
    assert rig.collector.ignores(RelPath(b"web"), True)
    assert not rig.collector.ignores(RelPath(b"other"), True)
