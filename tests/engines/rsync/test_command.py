"""The command line."""

from __future__ import annotations

import math
import os
import subprocess
from pathlib import Path

import pytest

from instep.core.filters import anchored
from instep.engines.rsync.command import (
    Abilities,
    Address,
    Reach,
    Settings,
    Style,
    address,
    command,
    own_shell,
    shell,
)
from instep.engines.rsync.output import item
from instep.rules import Preserve, Rule


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (b"/a/b", Address(Reach.LOCAL, b"/a/b/", path=b"/a/b")),
        (b"/a/b/", Address(Reach.LOCAL, b"/a/b/", path=b"/a/b")),
        (b"/", Address(Reach.LOCAL, b"/")),
        (b"/a:b", Address(Reach.LOCAL, b"/a:b/", path=b"/a:b")),
        (b"h:/a", Address(Reach.SSH, b"h:/a/", b"h", b"/a")),
        (b"u@h:a/", Address(Reach.SSH, b"u@h:a/", b"u@h", b"a")),
        (b"h:", Address(Reach.SSH, b"h:./", b"h")),
        (b"h:/", Address(Reach.SSH, b"h:/", b"h")),
        (b"[::1]:/a", Address(Reach.SSH, b"[::1]:/a/", b"::1", b"/a")),
        (b"u@[fe80::1]:/a", Address(Reach.SSH, b"u@[fe80::1]:/a/", b"u@fe80::1", b"/a")),
        (b"h::m/a", Address(Reach.DAEMON, b"h::m/a/")),
        (b"[::1]::m", Address(Reach.DAEMON, b"[::1]::m/")),
        (b"rsync://h/m", Address(Reach.DAEMON, b"rsync://h/m/")),
    ],
)
def test_an_address_comes_apart_as_rsync_has_it(target: bytes, expected: Address) -> None:
    assert address(target) == expected


def argv(
    target: bytes = b"/t",
    style: Style | None = None,
    *,
    settings: Settings | None = None,
    abilities: Abilities | None = None,
    compare_only: bool = False,
) -> list[bytes]:
    return command(
        settings or Settings(address(target), Preserve()),
        abilities or Abilities(),
        style or Style(),
        compare_only=compare_only,
    )


def test_what_every_run_has() -> None:
    line = argv()
    assert line[0] == b"rsync"
    assert line[-3:] == [b"--", b"./", b"/t/"]
    assert {b"--from0", b"--files-from=-", b"--modify-window=-1", b"--numeric-ids", b"--force"} <= set(line)
    assert not any(a.startswith((b"--include-from", b"--exclude-from")) for a in line)


def test_owners_go_by_name_where_asked_for_on_other_machines() -> None:
    def by_name(target: bytes) -> Settings:
        return Settings(address(target), Preserve(owner_names=True))

    assert b"--numeric-ids" in argv(b"h:/t")
    assert b"--numeric-ids" not in argv(settings=by_name(b"h:/t"))
    assert b"--numeric-ids" not in argv(settings=by_name(b"h::m"))
    assert b"--numeric-ids" in argv(settings=by_name(b"/t"))


def test_delete_is_asked_for_where_names_are_listed() -> None:
    assert b"--delete" not in argv()
    assert b"--delete" in argv(style=Style(prune=True))
    no = Settings(address(b"/t"), Preserve(), delete=False)
    assert not [a for a in argv(style=Style(prune=True), settings=no) if a.startswith((b"--delete", b"--force"))]


def test_a_comparison_changes_nothing_and_believes_times() -> None:
    line = argv(style=Style(ignore_times=True), compare_only=True)
    assert b"--dry-run" in line
    assert b"--ignore-times" not in line


def test_the_ways_to_a_target() -> None:
    assert {b"--sockopts=TCP_NODELAY", b"--contimeout=10"} <= set(argv(b"h::m"))
    shared = Settings(address(b"h:/a"), Preserve(), shell=shell([b"ssh", b"-i", b'a "b" \'c', b""]))
    line = argv(settings=shared)
    assert line[line.index(b"-e") + 1] == b"""ssh -i "a ""b"" 'c" \"\""""
    assert b"-e" not in argv(b"h:/a")
    assert b"--protect-args" in argv(b"h:/a b")
    assert b"--protect-args" not in argv(b"h:/a-b_c/d.e")


@pytest.mark.parametrize(
    ("preserve", "abilities", "letters"),
    [
        (Preserve(), Abilities(), b"-lptogDHAXS"),
        (Preserve(), Abilities(acls=False, xattrs=False), b"-lptogDHS"),
        (Preserve(mode=False), Abilities(), b"-ltogDHXS"),
        (
            Preserve(
                owner=False,
                mode=False,
                times=False,
                xattrs=False,
                acls=False,
                hard_links=False,
                devices=False,
                sparse=False,
            ),
            Abilities(),
            b"-l",
        ),
    ],
)
def test_what_is_kept(preserve: Preserve, abilities: Abilities, letters: bytes) -> None:
    assert command(Settings(address(b"/t"), preserve), abilities, Style())[1] == letters


def test_rules_stand_in_their_order_after_ours() -> None:
    rules = (Rule(include=True, pattern=b"a "), Rule(include=False, pattern=b"+ b"))
    line = argv(settings=Settings(address(b"/t"), Preserve(), rules=rules))
    assert [a for a in line if a.startswith(b"--filter")] == [
        b"--filter=H .instep-*.tmp",
        b"--filter=+ /./",  # the root
        b"--filter=+ a ",
        b"--filter=- + b",
    ]


@pytest.mark.parametrize(("rate", "option"), [(1.0, b"--bwlimit=1"), (1e6, b"--bwlimit=977"), (math.inf, None)])
def test_bandwidth_in_kibibytes(rate: float, option: bytes | None) -> None:
    line = argv(settings=Settings(address(b"/t"), Preserve(), bandwidth_bytes_per_s=rate))
    assert [a for a in line if a.startswith(b"--bwlimit")] == ([option] if option else [])


@pytest.mark.parametrize(
    ("extra", "own"),
    [([b"-e", b"ssh -p 1"], True), ([b"-essh"], True), ([b"--rsh=x"], True), ([b"--exclude=x"], False), ([], False)],
)
def test_the_operators_own_shell_is_seen(extra: list[bytes], own: bool) -> None:
    assert own_shell(extra) is own


ODD = [b"a", b"a]", b"[ab]", b"a*", b"aa", b"a?", b"a\\", b"a\\*", b"\\", b"a\nb", b" a ", b"- a", b"!", b"\xff"]


@pytest.mark.parametrize("path", ODD)
def test_an_anchored_pattern_leaves_out_that_very_path(tmp_path: Path, path: bytes) -> None:
    for name in ODD:
        for directory in (b"", b"sub/"):
            full = os.path.join(os.fsencode(tmp_path), directory + name)
            os.makedirs(os.path.dirname(full), exist_ok=True)
            os.mknod(full)
    ran = subprocess.run(
        [b"rsync", b"-nr", b"-8", b"--out-format=%i|%l|%n", b"--filter=- " + anchored(path), b"./", b"/no/where/"],
        cwd=tmp_path,
        env={**os.environ, "LC_ALL": "C"},
        capture_output=True,
        check=True,
    )
    found = {one.path for line in ran.stdout.split(b"\n") if (one := item(line)) is not None and one.is_content}
    assert found == {directory + name for name in ODD for directory in (b"", b"sub/")} - {path}
