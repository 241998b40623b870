"""The command line of 2013."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from instep.frontends.actionscript import OPTIONS, help_text, read
from instep.frontends.clsync.complaints import Refused
from instep.frontends.clsync.options import BY_NAME
from instep.frontends.clsync.read import Answer, Reading
from instep.frontends.clsync.settings import Mode, Settings, Threading


def words(directory: Path, *argv: str) -> Reading | Answer:
    return read([os.fsencode(word) for word in argv], {b"PATH": b"/usr/bin:/bin"}, bytes(directory), 7)


def settings(directory: Path, *argv: str) -> Settings:
    (directory / "from").mkdir(exist_ok=True)
    found = words(directory, *argv, "from", "script.sh")
    assert isinstance(found, Reading)
    return found.settings


def test_a_script_is_called_for_each_path(tmp_path: Path) -> None:
    found = settings(tmp_path, "-l", "%label%50%")
    assert found.mode is Mode.SHELL
    assert found.sync_handler == bytes(tmp_path / "script.sh")
    assert found.watch_dir == bytes(tmp_path / "from")
    assert found.label == b"%label%50%"
    assert found.arguments == (b"sync", b"%%label%%50%%", b"%EVENT-MASK%", b"%INCLUDE-LIST%")
    assert found.initial_arguments == (b"initialsync", b"%%label%%50%%", b"%INCLUDE-LIST%")
    assert found.run_per_object
    assert found.absolute_paths
    assert found.have_recursive_sync
    assert (found.delay_collect_s, found.delay_sync_s, found.delay_collect_bigfile_s) == (30, 15, 1800)
    assert found.threshold_bigfile == 134217728
    assert (found.uid, found.gid) == (os.geteuid(), os.getegid())
    assert (found.config_file, found.rules_file) == (None, None)
    assert found.threading is Threading.OFF


def test_with_a_directory_for_lists_it_gets_lists(tmp_path: Path) -> None:
    found = settings(tmp_path, "--outlistsdir", "/tmp/lists")
    assert found.arguments == (b"synclist", b"nolabel", b"%INCLUDE-LIST-PATH%")
    assert found.initial_arguments == (b"initialsync", b"nolabel", b"%INCLUDE-LIST%")
    assert found.lists_dir == b"/tmp/lists"
    assert not found.run_per_object
    assert found.absolute_paths


def test_options_are_those_of_then(tmp_path: Path) -> None:
    found = settings(
        tmp_path, "-b", "-p", "-t1", "-w", "2", "-B3", "-T4", "-v", "-D", "-DD", "-q", "-i", "--label=x", "-d", "/l"
    )
    assert (found.background, found.quiet) == (True, True)
    assert found.threading is Threading.SAFE
    assert (found.delay_collect_s, found.delay_sync_s, found.delay_collect_bigfile_s) == (1, 2, 4)
    assert found.threshold_bigfile == 3
    assert (found.verbose, found.debug) == (4, 3)
    assert found.label == b"x"


def test_rules_may_be_named(tmp_path: Path) -> None:
    (tmp_path / "from").mkdir()
    found = words(tmp_path, "from", "./script.sh", "rules", "-p")
    assert isinstance(found, Reading)
    assert found.settings.rules_file == bytes(tmp_path / "rules")
    assert found.settings.threading is Threading.SAFE


def test_the_monitor_that_never_worked_is_told(tmp_path: Path) -> None:
    (tmp_path / "from").mkdir()
    found = words(tmp_path, "-f", "from", "script")
    assert isinstance(found, Reading)
    assert [note.text for note in found.notes] == ["--monitor=fanotify: inotify is used in its place"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "expected a directory to watch, a script and perhaps rules, got 0"),
        (["from"], "got 1"),
        (["from", "script", "rules", "more"], "got 4"),
        (["missing", "script"], "No such file or directory"),
        (["-Z"], "there is no option -Z"),
        (["-t", "soon", "from", "script"], '-t: "soon": expected a whole number'),
        (["-b5", "from", "script"], "there is no option -5"),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, list) else "",
)
def test_what_cannot_be_used_is_refused(tmp_path: Path, argv: Sequence[str], message: str) -> None:
    (tmp_path / "from").mkdir()
    with pytest.raises(Refused) as refusal:
        words(tmp_path, *argv)
    assert message in str(refusal.value)
    assert refusal.value.status == (2 if "missing" in argv else 22)


def test_questions_are_answered(tmp_path: Path) -> None:
    assert words(tmp_path, "-h") == Answer(help_text())
    version = words(tmp_path, "--version")
    assert isinstance(version, Answer)
    assert "0.4.5" in version.text


def test_every_row_leads_to_an_option_of_today() -> None:
    assert all(option.today in BY_NAME for option in OPTIONS if option.name not in ("help", "version"))
    assert all(f"--{option.name}" in help_text() for option in OPTIONS)
    assert help_text().isascii()
    assert max(map(len, help_text().split("\n"))) <= 100
