"""The first command line of clsync (2013), which has one script act on all changes, as settings of today.

Facts: the program's first README. ``clsync [flags] WATCHDIR SCRIPT [RULESFILE]``; the script is called as ``initialsync
LABEL DIR`` for a directory with all in it, ``sync LABEL EVMASK PATH`` for one path, and, with ``--outlistsdir``,
``synclist LABEL LISTFILE`` for many: lines ``sync LABEL EVMASK PATH``. All paths are absolute. There were no
configuration files, macros, or privileges to be dropped.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from instep.frontends.clsync import build, checks
from instep.frontends.clsync.complaints import Note, Refused, Talk, refused
from instep.frontends.clsync.getopt import Takes, words
from instep.frontends.clsync.options import BY_NAME
from instep.frontends.clsync.options import Option as Today
from instep.frontends.clsync.read import Answer, Reading
from instep.frontends.clsync.settings import Given, Settings, Start
from instep.frontends.clsync.usage import version_text
from instep.frontends.instep.output import escaped

SYNOPSIS: Final = "clsync-actionscript [OPTION...] WATCHDIR SCRIPT [RULESFILE]"


@dataclass(frozen=True, slots=True)
class Option:
    """One row: an option of then, and what it is called today."""

    name: str
    short: str
    takes: Takes
    help: str
    today: str = ""
    """Empty: it is for nothing but itself."""
    value: bytes | None = None
    """What it says today, where it has no value itself."""
    default: bytes | None = None
    yields: bool = False


_FLAG, _VALUE = Takes.NOTHING, Takes.VALUE
# fmt: off
OPTIONS: Final = (
    Option("background", "b", _FLAG, "Go into the background.", "background", b"1"),
    Option("pthread", "p", _FLAG, "Let runs go on side by side, for different paths.", "threading", b"safe"),
    Option("collectdelay", "t", _VALUE, "Seconds for which changes are collected.", "delay-collect", default=b"30"),
    Option("commondelay", "w", _VALUE, "Seconds that may pass besides.", "delay-sync", default=b"15"),
    Option("outlistsdir", "d", _VALUE, "A directory for lists of paths; without it each path is a run.", "lists-dir"),
    Option("bigfilethreshold", "B", _VALUE, "Files of more bytes are big.", "threshold-bigfile", default=b"134217728"),
    Option("bigfilecollectdelay", "T", _VALUE, "Seconds for big files.", "delay-collect-bigfile", default=b"1800"),
    Option("verbose", "v", _FLAG, "More messages.", "verbose"),
    Option("debug", "D", _FLAG, "Messages for finding faults; more if repeated.", "debug"),
    Option("quite", "q", _FLAG, "No messages.", "quiet", b"1"),
    Option("quiet", "", _FLAG, "The same, as it is spelled.", "quiet", b"1", yields=True),
    Option("fanotify", "f", _FLAG, "Taken for --inotify; it never worked.", "monitor", b"fanotify"),
    Option("inotify", "i", _FLAG, "Use inotify, as always.", "monitor", b"inotify"),
    Option("label", "l", _VALUE, "A name that the script is told.", "label", default=b"nolabel"),
    Option("help", "h", _FLAG, "This text."),
    Option("version", "V", _FLAG, "The version.", yields=True),
)
# fmt: on


def read(argv: Sequence[bytes], environ: Mapping[bytes, bytes], directory: bytes, pid: int) -> Reading | Answer:
    """Understand a command line of 2013.

    Args:
        argv: the words after the program's name.
        environ: the environment: PATH and POSIXLY_CORRECT count.
        directory: the current directory, absolute.
        pid: the process's number.

    Raises:
        Refused: the settings cannot be used.
    """
    start = Start(directory, environ.get(b"PATH", b"/usr/bin:/bin"), environ.get(b"HOME"), pid)
    given: dict[str, Given] = {}
    notes: list[Note] = []
    operands: list[bytes] = []
    try:
        for word in words(argv, OPTIONS, in_order=b"POSIXLY_CORRECT" in environ):
            option = word.option
            if option is None:
                assert word.value is not None
                operands.append(word.value)
            elif option.name == "help":
                return Answer(help_text())
            elif option.name == "version":
                return Answer(version_text())
            else:
                text = option.value if option.takes is Takes.NOTHING else word.value
                _put(given, BY_NAME[option.today], text, word.spelled)
        settings = _settings(given, operands, start, notes)
    except Refused as error:
        quiet = given.get("quiet") is not None
        raise Refused(error.complaints, notes=notes, talk=Talk(quiet=quiet)) from None
    return Reading(settings, (*notes, *checks.notes(settings)))


def _put(given: dict[str, Given], today: Today, text: bytes | None, origin: str) -> None:
    before = given.get(today.name)
    try:
        if text is None:
            meant = today.kind.alone(None if before is None else before.meant)
        else:
            meant = today.kind.read(text, None, lambda _: None)
    except ValueError as error:
        shown = "" if text is None else f'"{escaped(text)}": '
        raise refused(f"{origin}: {shown}{error}") from None
    given[today.name] = Given(text or str(meant).encode(), meant, origin)


def _settings(given: dict[str, Given], operands: Sequence[bytes], start: Start, notes: list[Note]) -> Settings:
    if not 2 <= len(operands) <= 3:
        raise refused(f"expected a directory to watch, a script and perhaps rules, got {len(operands)}", SYNOPSIS)
    for name, operand in zip(("watch-dir", "sync-handler", "rules-file"), operands, strict=False):
        _put(given, BY_NAME[name], os.path.join(start.directory, operand), name)
    for option in OPTIONS:
        if option.default is not None and option.today not in given:
            _put(given, BY_NAME[option.today], option.default, f"--{option.name}")
    has_lists = given.get("lists-dir") is not None
    arguments = b"synclist %label% %INCLUDE-LIST-PATH%" if has_lists else b"sync %label% %EVENT-MASK% %INCLUDE-LIST%"
    _put(given, BY_NAME["mode"], b"shell", "mode")
    _put(given, BY_NAME["have-recursive-sync"], b"1", "have-recursive-sync")
    _put(given, BY_NAME["--"], arguments, "--")
    _put(given, BY_NAME["---"], b"initialsync %label% %INCLUDE-LIST%", "---")
    settings = build.settings(given, start, lambda text: notes.append(Note(text)))
    if complaints := checks.complaints(settings):
        raise Refused(complaints)
    # The user who started the program does everything, and it has the namespaces that it was started in.
    return replace(
        settings,
        uid=os.geteuid(),
        gid=os.getegid(),
        detach_ipc=False,
        absolute_paths=True,
        run_per_object=not has_lists,
    )


def help_text() -> str:
    """All options."""
    rows = []
    for option in OPTIONS:
        flags = f"-{option.short}, --{option.name}" if option.short else f"    --{option.name}"
        flags += "=VALUE" if option.takes is Takes.VALUE else ""
        default = f" [default: {option.default.decode()}]" if option.default else ""
        rows.append(f"  {flags:<34}{option.help}{default}")
    introduction = textwrap.fill(
        "Has a script act on what changes in a directory: the command line that clsync had in 2013. The script is "
        "called as SCRIPT initialsync LABEL DIR (for all that is in a directory), SCRIPT sync LABEL MASK PATH, or "
        "SCRIPT synclist LABEL LISTFILE (lines: sync LABEL MASK PATH).",
        100,
        break_on_hyphens=False,
    )
    return "\n".join([f"usage: {SYNOPSIS}", "", introduction, "", *rows])
