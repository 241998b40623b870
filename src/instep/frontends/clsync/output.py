"""What clsync says: lines for people on standard error, standard output or in the system's log.

Facts (observed): a line begins ``Error: ``, ``Warning: `` or ``Info: ``, in the system's log too (facility daemon, with
the process's number); a failed call of the system ends it, `` (2: No such file or directory)``. With ``debug`` on, it
begins ``Error (pid: 7; thread: 0x7f0a): function(): `` instead. ``verbose`` counts what is shown of the three kinds,
lines for debugging are shown whatever it is, and ``quiet`` hides everything.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
import syslog
import threading
from itertools import islice
from typing import Final

from instep.frontends.clsync.complaints import Note, Refused
from instep.frontends.clsync.settings import Output, Settings
from instep.frontends.instep.output import TextFormatter, fields_of

IDENT: Final = "clsync"
_VERBOSE_ERROR: Final = 1
_VERBOSE_WARNING: Final = 2
_VERBOSE_INFO: Final = 3
_DEBUG_EVENTS: Final = 3
"""From this level on each event is told; below it there are a few lines a run."""

_SURROGATE_FIRST: Final = 0xDC80
_SURROGATE_LAST: Final = 0xDCFF
"""What stands for bytes that are no text."""


class Say:
    """Takes messages, shows those that are wanted. Until ``configure`` is called: as by default.

    Line ends in a text are made visible, as all that could forge a line: names come from strangers.
    """

    def __init__(self) -> None:
        self._output = Output.STDERR
        self._verbose = _VERBOSE_INFO
        self._debug = 0
        self._syslog = False

    def configure(self, settings: Settings) -> None:
        """Follow these settings from now on; may be called at any time."""
        self.direct(settings.output, verbose=settings.verbose, debug=settings.debug, quiet=settings.quiet)

    def direct(self, output: Output, *, verbose: int = _VERBOSE_INFO, debug: int = 0, quiet: bool = False) -> None:
        """Follow these instead: for what has to be said before there are settings."""
        self._output = output
        self._verbose = 0 if quiet else verbose
        self._debug = 0 if quiet else debug
        if output is Output.SYSLOG and not self._syslog:
            # Connected at once: after a change of the root directory there would be nothing to connect to.
            syslog.openlog(IDENT, syslog.LOG_PID | syslog.LOG_CONS | syslog.LOG_NDELAY, syslog.LOG_DAEMON)
            self._syslog = True
        logging.getLogger("instep").setLevel(self._level())

    def error(self, text: str | bytes, number: int = 0, *, where: str = "main") -> None:
        """Something went wrong.

        Args:
            text: what.
            number: the errno that stands for it, if one does.
            where: the function that found out, for those who debug.
        """
        if self._verbose >= _VERBOSE_ERROR:
            end = f" ({number}: {os.strerror(number)})" if number else ""
            self._put("Error", syslog.LOG_ERR, text, end, where)

    def warning(self, text: str | bytes, *, where: str = "main") -> None:
        """Something is odd."""
        if self._verbose >= _VERBOSE_WARNING:
            self._put("Warning", syslog.LOG_WARNING, text, "", where)

    def info(self, text: str | bytes, *, where: str = "main") -> None:
        """Something is as it should be."""
        if self._verbose >= _VERBOSE_INFO:
            self._put("Info", syslog.LOG_INFO, text, "", where)

    def debug(self, level: int, text: str | bytes, *, where: str = "main") -> None:
        """Something for those who look for a fault; the higher the level, the more there is of it."""
        if self.debugs(level):
            self._put(f"Debug{level}", syslog.LOG_DEBUG, text, "", where)

    def debugs(self, level: int) -> bool:
        """Whether such lines are shown: for callers to whom making the text is dear."""
        return self._debug >= level

    def note(self, note: Note) -> None:
        """Something odd about the settings."""
        (self.warning if note.is_warning else self.info)(note.text)

    def refused(self, why: Refused) -> None:
        """Why settings are refused, with what is odd about the rest."""
        for note in why.notes:
            self.note(note)
        for complaint in why.complaints:
            is_errno = complaint.is_errno and complaint.status in errno.errorcode
            self.error(str(complaint), complaint.status if is_errno else 0)

    def _level(self) -> int:
        """Of instep's own log: what is not shown anyway is not made."""
        if self._debug >= _DEBUG_EVENTS:
            return logging.DEBUG
        levels = (logging.CRITICAL + 1, logging.ERROR, logging.WARNING, logging.INFO)
        return levels[min(self._verbose, _VERBOSE_INFO)]

    def _put(self, kind: str, priority: int, text: str | bytes, end: str, where: str) -> None:
        head = f"{kind}: "
        if self._debug:
            head = f"{kind} (pid: {os.getpid()}; thread: {threading.get_ident():#x}): {where}(): "
        line = head + _safe(text) + end
        if self._output is Output.SYSLOG:
            syslog.syslog(priority, line)
            return
        stream = sys.stderr if self._output is Output.STDERR else sys.stdout
        try:
            encoding = stream.encoding or "utf-8"
            stream.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")
            stream.flush()
        except (OSError, ValueError):
            return  # Nobody reads any more, or it is closed: no reason to stop what is being done.


class EventLines(logging.Handler):
    """What instep itself has to say, as such lines."""

    def __init__(self, say: Say) -> None:
        super().__init__()
        self._say = say
        self._words = TextFormatter(dated=False)

    def emit(self, record: logging.LogRecord) -> None:
        """Say one record; a traceback is a line for each of its own."""
        say, where = self._say, record.funcName or "main"
        try:
            if record.getMessage() == "module-says":
                self._pass_on(record)
                return
            text = "".join(part for part, _ in islice(self._words.parts(record), 1, None))
            for line in text.split("\n"):
                if record.levelno >= logging.ERROR:
                    say.error(line, where=where)
                elif record.levelno >= logging.WARNING:
                    say.warning(line, where=where)
                elif record.levelno >= logging.INFO:
                    say.info(line, where=where)
                else:
                    say.debug(_DEBUG_EVENTS, line, where=where)
        except Exception:  # noqa: BLE001  # logging's own rule: a record that cannot be written stops nothing
            self.handleError(record)

    def _pass_on(self, record: logging.LogRecord) -> None:
        """The words of a module of the user's, as if they were ours."""
        say, values = self._say, fields_of(record)
        text, where = str(values["text"]), str(values["function"])
        number, debug = values["errno"], values["debug"]
        if isinstance(debug, int):
            say.debug(debug, text, where=where)
        elif record.levelno >= logging.ERROR:
            say.error(text, number if isinstance(number, int) else 0, where=where)
        elif record.levelno >= logging.WARNING:
            say.warning(text, where=where)
        else:
            say.info(text, where=where)


def take_over(say: Say) -> None:
    """Have all that the package logs said by ``say``; may be called again."""
    logger = logging.getLogger("instep")
    for old in list(logger.handlers):
        logger.removeHandler(old)
    logger.addHandler(EventLines(say))
    logger.propagate = False


def _safe(text: str | bytes) -> str:
    r"""One line that a terminal may be given. Tabs stay; bytes that are no text are shown as ``\xNN``."""
    decoded = os.fsdecode(text)
    if decoded.isprintable():
        return decoded
    return "".join(char if char.isprintable() or char == "\t" else _escape(char) for char in decoded)


def _escape(char: str) -> str:
    code = ord(char)
    if _SURROGATE_FIRST <= code <= _SURROGATE_LAST:
        code -= _SURROGATE_FIRST - 0x80
    return "\\n" if char == "\n" else f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
