"""The table of options, and what is made from it."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

import instep
from instep.frontends.clsync import settings
from instep.frontends.clsync.getopt import Takes
from instep.frontends.clsync.kinds import Choice, Count, Words
from instep.frontends.clsync.manual import manual_page
from instep.frontends.clsync.options import BY_NAME, FORMER_NAMES, OPTIONS, Group, Live, Option
from instep.frontends.clsync.settings import Mode, Settings
from instep.frontends.clsync.usage import WIDTH, help_text, version_text
from tests.original_clsync import CLSYNC, needs_clsync

DEFAULTS = Settings(
    watch_dir=b"/", mode=Mode.SIMPLE, sync_handler=b"", arguments=(), initial_arguments=None, default_arguments=True
)
TYPES: Mapping[str, object] = typing.get_type_hints(Settings, vars(settings) | {"Mapping": Mapping})
MAPPED = [option for option in OPTIONS if option.field]
HELP, MANUAL = help_text(), manual_page()
EXAMPLES = {
    "custom-signals": "10:night",
    "sync-handler-uid": "0",
    "sync-handler-gid": "0",
    "privileged-uid": "0",
    "privileged-gid": "0",
    "uid": "0",
    "gid": "0",
    "socket-own": "0:0",
    "socket-mod": "0660",
    "mode": "shell",
    "modification-signature": "uid,gid",
    "ignore-exitcode": "23",
}


def by_name(options: Iterable[Option]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("option", [pytest.param(option, id=option.name) for option in options])


def fits(value: object, hint: object) -> bool:
    """Whether a value is one of a field's type, as far as fields go."""
    if isinstance(hint, type) and typing.get_origin(hint) is None:
        return isinstance(value, hint)
    arguments = typing.get_args(hint)
    match typing.get_origin(hint):
        case origin if origin is tuple and isinstance(value, tuple):
            inner = arguments[:1] * len(value) if arguments[-1] is ... else arguments
            return all(map(fits, value, inner))
        case origin if origin is frozenset and isinstance(value, frozenset):
            return all(fits(each, arguments[0]) for each in value)
        case origin if origin is Mapping:
            return isinstance(value, Mapping)
        case _:
            return any(fits(value, each) for each in arguments)


def test_names_and_letters_are_unique() -> None:
    assert len(BY_NAME) == len(OPTIONS)
    letters = [option.short for option in OPTIONS if option.short]
    assert len(letters) == len(set(letters))


@by_name(MAPPED)
def test_a_row_lands_in_a_field_of_its_type(option: Option) -> None:
    example = EXAMPLES.get(option.name) or option.default or ("1" if option.takes is Takes.OPTIONAL else "7")
    value = option.kind.read(example.encode(), None, pytest.fail)
    assert fits(value, TYPES[option.field]), (value, TYPES[option.field])
    if option.takes is Takes.OPTIONAL and not isinstance(option.kind, Choice):
        assert fits(option.kind.alone(None), TYPES[option.field])


@by_name(option for option in MAPPED if option.default and "%" not in option.default)
def test_a_shown_default_is_the_default(option: Option) -> None:
    value = option.kind.read(option.default.encode(), None, pytest.fail)
    assert value == getattr(DEFAULTS, option.field)


@by_name(option for option in OPTIONS if isinstance(option.kind, Count))
def test_counting_starts_at_the_default(option: Option) -> None:
    assert option.kind.alone(None) == getattr(DEFAULTS, option.field) + 1


def test_every_field_can_be_set() -> None:
    elsewhere = {
        "watch_dir", "sync_handler", "arguments", "initial_arguments", "default_arguments", "destination_dir",
        "destination_is_remote", "config_file", "cancel_stat", "absolute_paths", "run_per_object", "given", "start",
    }  # fmt: skip
    fields = {field.name for field in dataclasses.fields(Settings)}
    assert fields - {option.field for option in OPTIONS} == elsewhere


@by_name(OPTIONS)
def test_help_and_manual_tell_of_it(option: Option) -> None:
    assert option.usage in HELP
    assert (option.help or option.idle).split()[0] in HELP
    assert option.usage.replace("-", "\\-") in MANUAL


def test_help_is_plain_and_not_too_wide() -> None:
    assert HELP.isascii()
    assert all(len(line) <= WIDTH for line in HELP.split("\n") if not line.startswith("usage:"))
    at = [HELP.index(f"\n{group.value}:\n") for group in Group]
    assert at == sorted(at)


def test_an_option_without_effect_says_why() -> None:
    for option in OPTIONS:
        assert bool(option.idle) == (option.group is Group.IDLE) == (not option.help)
        assert not (option.idle and option.field)


def test_words_of_modification_signature_are_told() -> None:
    kind = BY_NAME["modification-signature"].kind
    assert isinstance(kind, Words)
    help_words = set(re.findall(r"[a-z]+", BY_NAME["modification-signature"].help))
    every = kind.read(b"*", None, pytest.fail)
    assert every is not None
    assert every | {"nlink"} <= help_words


def test_former_names_are_no_options() -> None:
    assert not FORMER_NAMES.keys() & BY_NAME.keys()
    assert all(now.split(" = ")[0] in BY_NAME for now in FORMER_NAMES.values())


def test_what_is_refused_at_run_time_is_what_clsync_refuses() -> None:
    assert {option.name for option in OPTIONS if option.live is Live.REFUSED} == {
        "watch-dir", "custom-signals", "pid-file", "chroot", "add-permitted-hook-files", "mountpoints", "monitor",
    }  # fmt: skip


def test_the_version_names_both() -> None:
    assert version_text() == f"clsync 0.4.5 (instep {instep.__version__})"


def test_the_manual_page_is_up_to_date() -> None:
    page = Path(__file__).parents[3] / "docs" / "man" / "clsync.1"
    assert page.read_text() == MANUAL, "python -m instep.frontends.clsync.manual > docs/man/clsync.1"


@pytest.mark.skipif(shutil.which("groff") is None, reason="there is no groff")
def test_the_manual_page_is_good_troff() -> None:
    ended = subprocess.run(
        ["groff", "-man", "-Tascii", "-ww", "-z"],
        check=False,
        input=MANUAL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ended.returncode, ended.stderr) == (0, "")


@needs_clsync
def test_every_option_of_the_original_is_here_with_its_letter_and_argument() -> None:
    told = subprocess.run([CLSYNC, "-h"], check=False, capture_output=True, text=True, timeout=60).stderr
    rows = re.findall(r"\t--(\S+)(.*)", told)
    assert len(rows) > 70
    for name, rest in rows:
        option = BY_NAME[name]
        assert rest.removesuffix(" argument").strip(" -") == option.short, name
        assert (option.takes is Takes.VALUE) == rest.endswith(" argument"), name
        assert not option.yields
    here = {option.name for option in OPTIONS if not option.yields}
    assert here - {name for name, *_ in rows} == {"--", "---"}
