"""lsyncd's log: categories that are on or off, and a line layout for each of the places that lines go to."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterable, Mapping
from typing import Final, TextIO

from instep.frontends.instep.output import TextFormatter, fields_of
from instep.frontends.syslog import FACILITIES, SyslogHandler

ALWAYS: Final = frozenset({"Normal", "Warn", "Error"})
_LEVELS: Final = {"Error": logging.ERROR, "Warn": logging.WARNING}


class Log:
    """Takes lines by category. Until it is told where to, they go to standard error, without the time."""

    def __init__(self) -> None:
        self._categories = set(ALWAYS)
        self._everything = False
        self._started = False
        self._console = True
        self._path: str | None = None
        self._syslog: SyslogHandler | None = None

    def enable(self, words: Iterable[str]) -> None:
        """Turn on the categories of ``-log`` options, in their order."""
        for word in words:
            if word == "all":
                self._everything = True
            elif word == "scarce":
                self._categories.discard("Normal")
            else:
                self._categories.add(word)

    def start(self, *, console: bool, path: str | None, ident: str, facility: int) -> None:
        """From now on lines go to the console, to a file, or, where there is neither, to syslog.

        Raises:
            OSError: the file cannot be written.
        """
        if path is not None:
            with open(path, "ab"):
                pass
        self._started, self._console, self._path = True, console, path
        if not console and path is None:
            self._syslog = SyslogHandler(ident, facility=facility)
            self._syslog.setFormatter(logging.Formatter("%(message)s"))

    def wants(self, category: str) -> bool:
        """Whether lines of a category are shown."""
        return self._everything or category in self._categories

    def say(self, category: str, text: bytes) -> None:
        """One line, or several when the text has line ends; never fails for want of a reader."""
        if not self.wants(category):
            return
        line = _safe(text)
        if not self._started:
            _write(sys.stderr, f"{category}: {line}")
            return
        if self._console:
            stream = sys.stderr if category == "Error" else sys.stdout
            _write(stream, f"{time.strftime('%H:%M:%S')} {category}: {line}")
        if self._path is not None:
            try:
                # Opened for each line, so that whoever rotates logs need tell nobody.
                with open(self._path, "a", encoding="utf-8", opener=_opener) as file:
                    file.write(f"{time.strftime('%a %b %e %H:%M:%S %Y')} {category}: {line}\n")
            except OSError:
                return  # The disk is full, or the directory gone: nothing is left to say it to.
        if self._syslog is not None:
            level = _LEVELS.get(category, logging.INFO)
            self._syslog.handle(logging.LogRecord("lsyncd", level, "", 0, f"{category}, {line}", None, None))


class EventLines(logging.Handler):
    """What instep itself has to say, as lines of lsyncd's log."""

    def __init__(self, log: Log, *, startups: Mapping[str, bytes]) -> None:
        """Begin.

        Args:
            log: where lines go.
            startups: by a mirror's target what is said when its first comparison is done.
        """
        super().__init__()
        self._log = log
        self._startups = startups
        self._words = TextFormatter(dated=False)

    def emit(self, record: logging.LogRecord) -> None:
        """Pass one record on; what is only of interest to instep's own users is Info."""
        if record.getMessage() == "in-step":
            startup = self._startups.get(str(fields_of(record).get("target")))
            if startup is not None:
                self._log.say("Normal", startup)
                return
        category = "Info" if record.levelno < logging.WARNING else "Warn" if record.levelno < logging.ERROR else "Error"
        if self._log.wants(category):
            self._log.say(category, os.fsencode(self._words.format(record)))


def facility_of(value: object) -> int | None:
    """The facility of a setting: a name or a number; None if there is no such."""
    if isinstance(value, bytes):
        return FACILITIES.get(value.decode(errors="replace").lower())
    return value if isinstance(value, int) else None


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags, 0o644)  # whatever the umask: mirrors work without one


def _write(stream: TextIO, line: str) -> None:
    try:
        stream.write(line + "\n")
        stream.flush()
    except OSError:
        return  # Nobody reads any more: no reason to stop what is being done.


def _safe(text: bytes) -> str:
    """What a terminal may be given: names come from strangers. Line ends and tabs stay."""
    decoded = text.decode("utf-8", "backslashreplace")
    if decoded.isprintable():
        return decoded
    return "\n".join(line if line.isprintable() else _safe_line(line) for line in decoded.split("\n"))


def _safe_line(line: str) -> str:
    return "".join(char if char.isprintable() or char == "\t" else f"\\x{ord(char):02x}" for char in line)
