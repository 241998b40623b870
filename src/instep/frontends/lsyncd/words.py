"""lsyncd's command line. Any option may have one dash or two; values are the words that follow."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

VERSION: Final = "2.3.1"
"""The version whose options and configurations these are."""

USAGE: Final = """usage: lsyncd [OPTION...] CONFIG
       lsyncd [OPTION...] -rsync SOURCE TARGET ...
       lsyncd [OPTION...] -rsyncssh SOURCE HOST TARGETDIR ...
       lsyncd [OPTION...] -direct SOURCE TARGETDIR ...

  -delay SECONDS    for all syncs, whatever they say themselves
  -insist           go on though an initial sync fails, and try again
  -nodaemon         stay in the foreground, log to the console
  -onepass          end after the initial syncs
  -log CATEGORY     show this category too; all: everything; scarce: only warnings and errors
  -logfile FILE     log to a file
  -pidfile FILE     write the process number to a file
  -monitor [NAME]   list the monitors, or choose one
  -script FILE      run a Lua file before the configuration
  -sshopts WORDS    more options of ssh for the syncs of -rsyncssh
  -version          the version
  -help             this text"""

MONITORS: Final = ("inotify",)


class WordsError(Exception):
    """The words cannot be understood; the text says why."""


@dataclass(slots=True)
class CommandLine:
    """What the words say."""

    config: str | None = None
    syncs: list[Mapping[bytes, object]] = field(default_factory=list)
    """As tables for ``sync``; the value for the empty key is the template."""
    delay_s: float | None = None
    settings: dict[bytes, object] = field(default_factory=dict)
    """What overrides the settings of a configuration."""
    scripts: list[str] = field(default_factory=list)
    answer: str | None = None
    """To be printed, instead of anything else."""
    status: int = 0
    """The exit status that goes with it."""


_COUNTS: Final = {
    "rsync": 2, "rsyncssh": 3, "direct": 2, "delay": 1, "insist": 0, "nodaemon": 0, "onepass": 0, "log": 1,
    "logfile": 1, "pidfile": 1, "sshopts": 1, "script": 1, "version": 0, "help": 0,
}  # fmt: skip
_FLAGS: Final = ("insist", "nodaemon", "onepass")


def log_words(words: Sequence[str]) -> list[str]:
    """The categories asked for; looked for before anything else, so that the rest can be logged.

    Raises:
        WordsError: one that is no category.
    """
    found = []
    for at, word in enumerate(words[:-1]):
        if word in ("-log", "--log"):
            category = words[at + 1]
            if category not in ("all", "scarce") and not ("A" <= category[:1] <= "Z"):
                raise WordsError(f"'{category}' is not a valid logging category")
            found.append(category)
    return found


def read(words: Sequence[str]) -> CommandLine:
    """Understand the words after the program's name.

    Raises:
        WordsError: an unknown option, too few values, or what does not go together.
    """
    line = CommandLine()
    if not words or any(word in ("-help", "--help") for word in words):
        line.answer, line.status = USAGE, 255
        return line
    extra: list[str] = []
    at = 0
    while at < len(words):
        word = words[at]
        at += 1
        if not word.startswith("-"):
            if line.config is not None:
                raise WordsError("There can only be one config file in the command line.")
            line.config = word
            continue
        name = word.removeprefix("-").removeprefix("-")
        if name == "version":
            line.answer = f"Version: {VERSION}"
            return line
        if name == "monitor":
            at = _monitor(line, words, at)
            if line.answer is not None:
                return line
            continue
        if name == "runner":
            raise WordsError("--runner replaces the Lua code inside lsyncd, which is not in here: leave it out")
        if name not in _COUNTS:
            raise WordsError(f"unknown option command line option {word}")
        count = _COUNTS[name]
        values = list(words[at : at + count])
        if len(values) < count:
            raise WordsError(f"{name} needs {count} arguments")
        at += count
        _option(line, name, values, extra)
    if line.config is not None and line.syncs:
        raise WordsError("There cannot be command line syncs and a config file together.")
    if extra:
        table = dict(enumerate((word.encode(errors="surrogateescape") for word in extra), 1))
        line.syncs = [{**sync, b"ssh": {b"_extra": table}} if sync[b""] == b"rsyncssh" else sync for sync in line.syncs]
    return line


def _option(line: CommandLine, name: str, values: Sequence[str], extra: list[str]) -> None:
    raw = [value.encode(errors="surrogateescape") for value in values]
    match name:
        case "rsync" | "direct":
            line.syncs.append({b"": name.encode(), b"source": raw[0], b"target": raw[1]})
        case "rsyncssh":
            line.syncs.append({b"": b"rsyncssh", b"source": raw[0], b"host": raw[1], b"targetdir": raw[2]})
        case "delay":
            line.delay_s = _number(values[0])
            if line.delay_s is None or not 0 <= line.delay_s < float("inf"):
                raise WordsError("delay must be a number and >= 0")
        case "logfile" | "pidfile":
            line.settings[name.encode()] = raw[0]
        case "sshopts":
            try:
                extra += shlex.split(values[0])
            except ValueError as error:
                raise WordsError(f"sshopts: {error}") from None
        case "script":
            line.scripts.append(values[0])
        case _ if name in _FLAGS:
            line.settings[name.encode()] = True
        case _:
            pass  # -log: see log_words


_DECIMAL: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_HEXADECIMAL: Final = re.compile(r"[+-]?0x([\da-f]+\.?[\da-f]*|\.[\da-f]+)(p[+-]?\d+)?", re.ASCII | re.IGNORECASE)


def _number(text: str) -> float | None:
    """A number as Lua writes it; None for anything else."""
    bare = text.strip(" \t\n\v\f\r")
    if _HEXADECIMAL.fullmatch(bare):
        try:
            return float.fromhex(bare)
        except OverflowError:
            return None
    return float(bare) if _DECIMAL.fullmatch(bare) else None


def _monitor(line: CommandLine, words: Sequence[str], at: int) -> int:
    """``-monitor`` alone lists them; a name after it chooses."""
    if at == len(words) or words[at].startswith("-"):
        line.answer, line.status = "\n".join(MONITORS), 255
        return at
    if words[at] not in MONITORS:
        raise WordsError(f'event monitor "{words[at]}" unknown.')
    return at + 1
