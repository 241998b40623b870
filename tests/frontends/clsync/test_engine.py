"""When runs are an engine's work, and what it is given."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from instep.frontends.clsync.complaints import Refused
from instep.frontends.clsync.engine import EngineRuns, mirror
from instep.frontends.clsync.entries import Entry, ObjectType
from instep.frontends.clsync.rules import ALL, parse
from instep.frontends.clsync.runs import Runs
from instep.frontends.clsync.settings import EngineChoice, Given, Mode, Settings
from instep.linux.inotify import IN_ATTRIB, IN_CREATE, IN_ISDIR, IN_MODIFY
from instep.model import Bring, Program
from instep.paths import RelPath, Scope
from instep.spec import EngineName

RULES = parse(b"-f\\.o$", "rules")
SPLIT = parse(b"-w^d$", "rules")

pytestmark = pytest.mark.skipif(shutil.which("rsync") is None, reason="needs rsync")


@pytest.fixture
def base(tmp_path: Path) -> Settings:
    for name in ("source", "target"):
        (tmp_path / name).mkdir()
    return Settings(
        os.fsencode(tmp_path / "source"),
        Mode.RSYNCDIRECT,
        b"rsync",
        (),
        None,
        default_arguments=True,
        destination_dir=os.fsencode(tmp_path / "target"),
    )


FAR: dict[str, Any] = {"destination_dir": b"rsync://host/module", "destination_is_remote": True}


@pytest.mark.parametrize(
    ("changes", "rules", "engine"),
    [
        ({}, ALL, EngineName.NATIVE),
        ({}, RULES, EngineName.NATIVE),
        ({"engine": EngineChoice.RSYNC}, ALL, EngineName.RSYNC),
        (FAR, ALL, EngineName.RSYNC),
        ({}, SPLIT, None),
        (FAR, RULES, None),
        ({"full_initialsync": True}, RULES, None),
        ({"full_initialsync": True}, ALL, EngineName.NATIVE),
        ({"engine": EngineChoice.HANDLER}, ALL, None),
        ({"default_arguments": False}, ALL, None),
        ({"sync_handler": b"echo"}, ALL, None),
        ({"sync_handler": b"/no/such/rsync"}, ALL, None),
        ({"dont_unlink_lists": True}, ALL, None),
        ({"rsync_prefer_include": True}, ALL, None),
        ({"mode": Mode.RSYNCSHELL}, ALL, None),
        ({"destination_dir": None}, ALL, None),
        ({"given": {"uid": Given(b"0", 0, "--uid")}}, ALL, None),
        ({"lists_dir": b"/elsewhere"}, ALL, EngineName.NATIVE),
        ({"lists_dir": b"SOURCE/lists"}, ALL, None),
    ],
)
def test_who_brings_paths_over(base: Settings, changes: dict[str, Any], rules: Any, engine: EngineName | None) -> None:
    changed = replace(base, **changes)
    if changed.lists_dir is not None:
        changed = replace(changed, lists_dir=changed.lists_dir.replace(b"SOURCE", base.watch_dir))
    spec = mirror(changed, rules)
    assert (None if spec is None else spec.targets[0].engine) is engine
    if spec is not None and spec.targets[0].engine is EngineName.NATIVE:
        assert len(spec.rules) == (rules is RULES)


@pytest.mark.parametrize(
    ("changes", "rules"),
    [
        ({"engine": EngineChoice.NATIVE, **FAR}, ALL),
        ({"engine": EngineChoice.RSYNC}, RULES),
        ({"engine": EngineChoice.NATIVE}, SPLIT),
        ({"engine": EngineChoice.NATIVE, "default_arguments": False}, ALL),
    ],
)
def test_an_engine_that_was_asked_for_and_cannot(base: Settings, changes: dict[str, Any], rules: Any) -> None:
    with pytest.raises(Refused, match="--engine"):
        mirror(replace(base, **changes), rules)


@pytest.mark.parametrize("inside", ["target", "source"])
def test_one_directory_within_the_other_is_refused(base: Settings, inside: str) -> None:
    """rsync --delete would delete the source, or copy the target into itself for ever."""
    assert base.destination_dir is not None
    if inside == "target":
        changed = replace(base, watch_dir=base.destination_dir + b"/d")
        os.mkdir(changed.watch_dir)
    else:
        changed = replace(base, destination_dir=base.watch_dir + b"/d")
        os.mkdir(base.watch_dir + b"/d")
    with pytest.raises(Refused) as caught:
        mirror(changed, ALL)
    assert caught.value.status == 22
    assert "--exclude" not in str(caught.value)  # clsync has no such option.
    if inside == "source":
        assert "-d^d$" in str(caught.value)
        assert mirror(changed, parse(b"-d^d$", "rules")) is not None


def usual(settings: Settings) -> Runs:
    return Runs(settings, list_dir=lambda: b"/lists", own=lambda: None, pid=1, clock=lambda: 0.0, random=lambda: 1)


@pytest.fixture
def runs(base: Settings) -> EngineRuns:
    spec = mirror(base, ALL)
    assert spec is not None
    return EngineRuns(spec, base, ALL, usual(base), lambda _: None)


def test_a_run_is_one_batch(runs: EngineRuns) -> None:
    entries = [
        Entry(RelPath(b"new"), IN_CREATE | IN_ISDIR, ObjectType.ABSENT, ObjectType.DIRECTORY, recursive=True),
        Entry(RelPath(b"f"), IN_MODIFY, ObjectType.FILE, ObjectType.FILE),
        Entry(RelPath(b"g"), IN_ATTRIB, ObjectType.FILE, ObjectType.FILE),
        Entry(RelPath(b""), IN_CREATE | IN_ISDIR, ObjectType.ABSENT, ObjectType.DIRECTORY, recursive=True),
    ]
    (part,) = runs.of(entries, iteration=1, status="running")
    assert isinstance(part.work, Bring)
    assert part.work.timeout_s == 86400
    assert [(each.path, each.scope, each.content) for each in part.work.batch.changes] == [
        (b"new", Scope.TREE, True),
        (b"f", Scope.ENTRY, True),
        (b"g", Scope.ENTRY, False),
        (b"", Scope.TREE, False),
    ]
    assert runs.of([], iteration=1, status="running") == []


def test_the_handler_is_run_while_the_engine_knows_too_little(base: Settings) -> None:
    base = replace(base, arguments=(b"%INCLUDE-LIST%",))
    spec = mirror(base, RULES)
    assert spec is not None
    said: list[str] = []
    runs = EngineRuns(spec, base, RULES, usual(base), said.append)
    entries = [Entry(RelPath(b"f"), IN_MODIFY, ObjectType.FILE, ObjectType.FILE)]

    def works() -> list[type]:
        return [type(part.work) for part in runs.of(entries, iteration=1, status="running")]

    runs.change(replace(base, retries=3, label=b"x"))
    runs.follow(parse(b"-f\\.o$", "elsewhere"))
    assert (works(), said) == ([Bring], [])
    runs.follow(ALL)
    assert works() == [Program]
    runs.follow(RULES)
    runs.change(replace(base, sync_handler=b"/bin/echo"))
    assert works() == [Program]
    runs.change(base)
    assert works() == [Bring]
    assert [line.rpartition(": ")[2] for line in said] == [
        "rsync is run from now on",
        "instep's engine does the work again",
        "/bin/echo is run from now on",
        "instep's engine does the work again",
    ]
