"""From words to a MirrorSpec, and back from mistakes to messages."""

from __future__ import annotations

import math
import os
from dataclasses import fields, replace
from pathlib import Path

import pytest

from instep.errors import UsageError
from instep.frontends.instep import options
from instep.frontends.instep.options import LogFormat, ShowProgress
from instep.frontends.instep.parse import Talk, mirror_spec, split, talk
from instep.rules import Preserve, Rule  # fmt: skip
from instep.spec import (  # fmt: skip
    EngineName,
    InitialSync,
    MaxDelete,
    MirrorSpec,
    MonitorName,
    Pace,
    Rounds,
    RuleSource,
    TargetSpec,
)

BASE = MirrorSpec(source=b"/s", targets=(TargetSpec(b"/t"),))


def spec_of(*words: str) -> MirrorSpec:
    # The default of this one depends on who runs the tests.
    return mirror_spec(split(("--state-dir=none", *words), options.MIRROR, "mirror"))


def talk_of(*words: str) -> Talk:
    return talk(split(words, options.MIRROR, "mirror"))


def plain(include: bool, text: bytes, origin: str) -> dict[str, object]:
    pattern = text[2:] if text[:2] in (b"+ ", b"- ") else text
    decided = text[:1] == b"+" if pattern != text else include
    return {"rules": (Rule(decided, pattern, origin),), "rule_sources": (RuleSource(include, text),)}


GOLDEN: list[tuple[str, dict[str, object]]] = [
    ("", {}),
    ("--quiet-time 2", {"pace": Pace(quiet_s=2)}),
    ("--quiet-time=500ms", {"pace": Pace(quiet_s=0.5)}),
    ("--quiet-time 1.5s --hold-time 3m", {"pace": Pace(quiet_s=1.5, hold_s=180)}),
    ("--hold-time 1h", {"pace": Pace(hold_s=3600)}),
    ("--hold-time 0", {"pace": Pace(hold_s=0)}),
    ("--quiet-time 1 --quiet-time 2", {"pace": Pace(quiet_s=2)}),
    ("--big 64M --big-quiet-time 7 --big-hold-time 2m", {"pace": Pace(big_bytes=64 << 20, big_quiet_s=7, big_hold_s=120)}),
    ("--big off", {}),
    ("--big 4096", {"pace": Pace(big_bytes=4096)}),
    ("--big 1.5k", {"pace": Pace(big_bytes=1536)}),
    ("--big 1KiB", {"pace": Pace(big_bytes=1024)}),
    ("--big 2MB", {"pace": Pace(big_bytes=2_000_000)}),
    ("--big 3T", {"pace": Pace(big_bytes=3 << 40)}),
    ("--spacing 3", {"pace": Pace(spacing_s=3)}),
    ("--exclude *.o", plain(include=False, text=b"*.o", origin="--exclude")),
    ("--include=*.c", plain(include=True, text=b"*.c", origin="--include")),
    ("--exclude=+#x", plain(include=False, text=b"+ x", origin="--exclude")),
    ("--exclude a --include b --exclude c", {
        "rules": (Rule(False, b"a", "--exclude"), Rule(True, b"b", "--include"), Rule(False, b"c", "--exclude")),
        "rule_sources": (RuleSource(False, b"a"), RuleSource(True, b"b"), RuleSource(False, b"c")),
    }),
    ("--exclude a --exclude ! --exclude c", {
        "rules": (Rule(False, b"c", "--exclude"),),
        "rule_sources": (RuleSource(False, b"a"), RuleSource(False, b"!"), RuleSource(False, b"c")),
    }),
    ("--exclude=--x=y", plain(include=False, text=b"--x=y", origin="--exclude")),
    ("--exclude --once", plain(include=False, text=b"--once", origin="--exclude")),
    ("--no-delete", {"delete": False}),
    ("--delete-excluded", {"delete_excluded": True}),
    ("--max-delete 500", {"max_delete": MaxDelete(0, 500)}),
    ("--max-delete=12.5%", {"max_delete": MaxDelete(12.5, 0)}),
    ("--max-delete=10%,20", {"max_delete": MaxDelete(10, 20)}),
    ("--max-delete=none", {"max_delete": MaxDelete(100, math.inf)}),
    ("--max-delete=0", {"max_delete": MaxDelete(0, 0)}),
    ("--force-delete", {"force_delete": True}),
    ("--state-dir=/var/../x/y/", {"state_dir": b"/x/y", "state_needed": True}),
    ("-x", {"one_file_system": True}),
    ("--one-file-system", {"one_file_system": True}),
    ("-xn", {"one_file_system": True, "dry_run": True}),
    ("--initial-sync none", {"initial_sync": InitialSync.NONE}),
    ("--initial-sync=full", {"initial_sync": InitialSync.FULL}),
    ("--initial-sync auto", {}),
    ("--once", {"once": True}),
    ("--dry-run", {"dry_run": True}),
    ("--monitor inotify", {"monitor": MonitorName.INOTIFY}),
    ("--monitor poll --poll-interval 5", {"monitor": MonitorName.POLL, "poll_s": 5.0}),
    ("--engine rsync", {"targets": (TargetSpec(b"/t", EngineName.RSYNC),)}),
    ("--inplace-from 1G", {"inplace_bytes": 1 << 30}),
    ("--no-owner", {"preserve": Preserve(owner=False)}),
    ("--no-perms", {"preserve": Preserve(mode=False)}),
    ("--no-times --no-xattrs", {"preserve": Preserve(times=False, xattrs=False)}),
    ("--no-acls --no-hard-links --no-devices", {"preserve": Preserve(acls=False, hard_links=False, devices=False)}),
    ("--owner-names", {"preserve": Preserve(owner_names=True)}),
    ("--bwlimit 100", {"bandwidth_bytes_per_s": 102400}),
    ("--bwlimit 1.5m", {"bandwidth_bytes_per_s": 1.5 * 1024 * 1024}),
    ("--bwlimit 2MB", {"bandwidth_bytes_per_s": 2_000_000}),
    ("--bwlimit 0", {"bandwidth_bytes_per_s": math.inf}),
    ("--rsync-arg=--compress --rsync-arg -4", {"rsync_args": (b"--compress", b"-4")}),
    ("--ssh=ssh#-p#2222#-i#'/k#1'", {"ssh": (b"ssh", b"-p", b"2222", b"-i", b"/k 1")}),
    ("--password-file /etc/secret", {"password_file": b"/etc/secret"}),
    ("--workers 8", {"workers": 8}),
    ("--verify every=6h,checksum", {"verify": Rounds(21600.0, checksum=True)}),
    ("-vq --log-format json --progress never", {}),
]  # fmt: skip


@pytest.mark.parametrize(("words", "changed"), GOLDEN, ids=[words or "nothing" for words, _ in GOLDEN])
def test_words_become_a_specification(words: str, changed: dict[str, object]) -> None:
    given = [word.replace("#", " ") for word in words.split()]
    assert spec_of(*given, "/s", "/t") == replace(BASE, **changed)  # type: ignore[arg-type]  # a table of mixed fields
    assert spec_of("/s", *given, "/t") == spec_of("/s", "/t", *given)


def test_every_option_is_in_the_golden_table() -> None:
    words = " ".join(words for words, _ in GOLDEN)
    missing = [option.name for option in options.MIRROR if not any(flag in words for flag in option.flags)]
    assert set(missing) <= {"--verbose", "--quiet", "--include-from", "--exclude-from"}


@pytest.mark.parametrize(
    ("words", "source", "targets"),
    [
        (("/s/", "/t//"), b"/s", [b"/t"]),
        (("/", "/t"), b"/", [b"/t"]),
        (("//s", "/t"), b"/s", [b"/t"]),
        (("/s", "h:/p/", "h:p", "h:/", "h:.", "h::m/p/", "rsync://h/m/"), b"/s",
         [b"h:/p", b"h:p", b"h:/", b"h:.", b"h::m/p", b"rsync://h/m"]),
        (("/s", "/a:b"), b"/s", [b"/a:b"]),
        (("--", "/s", "/-t"), b"/s", [b"/-t"]),
        (("/\udcff", "/t\n"), b"/\xff", [b"/t\n"]),
    ],
)  # fmt: skip
def test_places(words: tuple[str, ...], source: bytes, targets: list[bytes]) -> None:
    spec = spec_of(*words)
    assert spec.source == source
    assert [target.address for target in spec.targets] == targets


def test_relative_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    here = os.fsencode(tmp_path)
    spec = spec_of(".", "./a:b", "c/d", "--", "-e")
    assert spec.source == here
    assert [target.address for target in spec.targets] == [here + b"/a:b", here + b"/c/d", here + b"/-e"]


def test_dots_are_resolved_where_a_link_leads(tmp_path: Path) -> None:
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "away")
    assert spec_of(f"{tmp_path}/link/../x", "/t").source == os.fsencode(tmp_path / "far" / "x")


def test_pattern_files_keep_their_place_in_the_order(tmp_path: Path) -> None:
    (tmp_path / "p").write_bytes(b"# c\n+ k\nl\n")
    file = os.fsencode(tmp_path / "p")
    spec = spec_of(
        "--exclude=a", f"--exclude-from={tmp_path}/p", "--include=b", "--include-from", f"{tmp_path}/p", "/s", "/t"
    )
    name = os.fsdecode(file)
    assert spec.rules == (
        Rule(False, b"a", "--exclude"), Rule(True, b"k", f"{name}:2"), Rule(False, b"l", f"{name}:3"),
        Rule(True, b"b", "--include"), Rule(True, b"k", f"{name}:2"), Rule(True, b"l", f"{name}:3"),
    )  # fmt: skip
    assert spec.rule_sources == (
        RuleSource(False, b"a"), RuleSource(False, file, is_file=True),
        RuleSource(True, b"b"), RuleSource(True, file, is_file=True),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", Talk()),
        ("-v", Talk(verbosity=1)),
        ("-vvv", Talk(verbosity=1)),
        ("-q", Talk(verbosity=-1)),
        ("-q --quiet", Talk(verbosity=-2)),
        ("-qqq", Talk(verbosity=-2)),
        ("-vq", Talk(verbosity=0)),
        ("--log-format=json --progress always", Talk(0, LogFormat.JSON, ShowProgress.ALWAYS)),
    ],
)
def test_how_to_speak(words: str, expected: Talk) -> None:
    assert talk_of(*words.split()) == expected


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("--exlude", "--exclude"), ("--excludes=x", "--exclude"), ("--quiet-tme", "--quiet-time"), ("--inc", "--include"),
        ("--verb", "--verbose"), ("--dryrun", "--dry-run"), ("--bw-limit=3", "--bwlimit"), ("--nodelete", "--no-delete"),
        ("--no-permissions", "--no-perms"), ("--onefilesystem", "--one-file-system"), ("--delete-exclude", "--delete-excluded"),
    ],
)  # fmt: skip
def test_typos_are_refused_with_the_nearest_name(typed: str, meant: str) -> None:
    with pytest.raises(UsageError) as caught:
        spec_of(typed, "/s", "/t")
    assert caught.value.code == "unknown-option"
    assert caught.value.fix == f"did you mean {meant}?"


@pytest.mark.parametrize("option", [option.name for option in options.MIRROR])
def test_prefixes_are_not_accepted(option: str) -> None:
    names = {each.name for each in options.MIRROR}
    for cut in range(3, len(option)):
        if option[:cut] not in names:
            with pytest.raises(UsageError, match="unknown option"):
                spec_of(option[:cut], "/s", "/t")


@pytest.mark.parametrize(
    "words",
    ["--quiet-time=-1", "--quiet-time=x", "--quiet-time=", "--quiet-time=1d", "--quiet-time=nan", "--hold-time=1e9",
     "--hold-time=inf", "--big=0", "--big=1X", "--big=-5", "--big=1.2.3", "--big=0.1", "--bwlimit=1b", "--workers=0",
     "--workers=257", "--workers=1.5", "--workers=\u0663", "--engine=foo", "--monitor=INOTIFY", "--once=1", "--exclude=", "--poll-interval=0",
     "--max-delete=", "--max-delete=101%", "--max-delete=-1", "--max-delete=5,6", "--max-delete=50%1000", "--state-dir="],
)  # fmt: skip
def test_bad_values_are_refused(words: str) -> None:
    with pytest.raises(UsageError) as caught:
        spec_of(words, "/s", "/t")
    assert caught.value.code == "bad-value"
    assert words.partition("=")[0] in caught.value.what


def test_values_have_the_types_of_their_fields() -> None:
    spec = spec_of("--workers=3", "--big=1G", "--quiet-time=1", "--poll-interval=1", "--inplace-from=1M", "/s", "/t")
    assert type(spec.workers) is int
    assert {type(value) for value in (spec.pace.big_bytes, spec.pace.quiet_s, spec.poll_s, spec.inplace_bytes)} == {
        float
    }


def test_every_field_of_a_specification_can_be_set() -> None:
    lands = {option.lands for option in options.MIRROR}
    given_otherwise = {"source", "targets", "pace", "preserve", "rule_sources", "state_needed", "rsync_program"}
    for each in fields(MirrorSpec):
        assert each.name in lands | given_otherwise
    assert {f"pace.{name}" for name in Pace._fields} <= lands
    assert {f"preserve.{name}" for name in Preserve._fields} - lands == {"preserve.sparse"}


def test_where_state_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def place(*words: str) -> tuple[bytes, bool]:
        spec = mirror_spec(split((*words, "/s", "/t"), options.MIRROR, "mirror"))
        return spec.state_dir, spec.state_needed

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert place() == place("--state-dir=auto") == (b"/var/lib/instep", False)
    assert place("--state-dir=none") == (b"", False)
    assert place("--state-dir=./auto") == (os.fsencode(os.path.abspath("auto")), True)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("HOME", "/home/u")
    for value, expected in (("/x/state", b"/x/state/instep"), ("state", b"/home/u/.local/state/instep")):
        monkeypatch.setenv("XDG_STATE_HOME", value)
        assert place() == (expected, False)
    monkeypatch.delenv("XDG_STATE_HOME")
    assert place() == (b"/home/u/.local/state/instep", False)
