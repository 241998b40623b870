"""How log records and errors look: for people, or as JSON, one object a line.

Names come from strangers: whatever could move the cursor, forge a line or break a parser is escaped.
"""

from __future__ import annotations

import binascii
import logging
import math
import os
import re
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, TextIO

from instep.errors import OperatorError

if TYPE_CHECKING:
    from rich.console import Console

_PLAIN = re.compile(r"[!#-\[\]-~]+")
_SURROGATE_FIRST = 0xDC80
_SURROGATE_LAST = 0xDCFF
_LAST_FIELDS = ("reason", "now", "fix")
_COLOURS = {"ERROR": "bold red", "CRITICAL": "bold red", "WARNING": "yellow", "INFO": "green", "DEBUG": "dim"}


def escaped(value: str | bytes) -> str:
    r"""The text in one line that is safe to print: ``\xNN`` for bytes that are no text, ``\\`` for a backslash."""
    text = os.fsdecode(value)
    if _PLAIN.fullmatch(text):
        return text
    return "".join(_escape(char) for char in text)


def _escape(char: str) -> str:
    if char == "\\":
        return "\\\\"
    if char.isprintable():
        return char
    code = ord(char)
    if _SURROGATE_FIRST <= code <= _SURROGATE_LAST:
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x80:
        return {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(char, f"\\x{code:02x}")
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def shown(value: object) -> str:
    """A field's value, in quotes where it would run into its neighbours."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(shown(each) for each in value) + "]"
    text = escaped(value if isinstance(value, str | bytes) else str(value))
    if text and _PLAIN.fullmatch(text) and "=" not in text:
        return text
    return '"' + text.replace('"', '\\"') + '"'


def fields_of(record: logging.LogRecord) -> Mapping[str, object]:
    """The fields that came with an event."""
    found = getattr(record, "fields", None)
    return found if isinstance(found, dict) else {}


class TextFormatter(logging.Formatter):
    """``2026-01-31 13:07:59 warning watch-limit-reached path=mail/cur; now: …; fix: …``."""

    def __init__(self, *, dated: bool = True) -> None:
        super().__init__()
        self._dated = dated

    def format(self, record: logging.LogRecord) -> str:
        """One line; a traceback follows on its own lines."""
        return "".join(text for text, _ in self.parts(record))

    def parts(self, record: logging.LogRecord) -> Iterator[tuple[str, str]]:
        """The pieces of the line, with the style for each."""
        if self._dated:
            at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
            yield f"{at} ", "dim"
        yield f"{record.levelname.lower():<7} ", _COLOURS.get(record.levelname, "")
        yield escaped(record.getMessage()), "bold"
        values = fields_of(record)
        for name, value in values.items():
            if name not in _LAST_FIELDS and value is not None and value != "":
                yield f" {name}=", "cyan"
                yield shown(value), ""
        for name in _LAST_FIELDS:
            value = values.get(name)
            if value:
                yield ("; " if name != "reason" else ": ") + ("" if name == "reason" else f"{name}: "), ""
                yield escaped(value if isinstance(value, str | bytes) else str(value)), ""
        if record.exc_info:
            for line in self.formatException(record.exc_info).split("\n"):
                yield "\n" + escaped(line), ""


class JsonFormatter(logging.Formatter):
    """One object a line: ``time``, ``level``, ``logger``, ``event``, then the event's fields.

    A name that is valid UTF-8 stands as it is. Any other is escaped as in text, and its exact bytes stand beside it
    under ``NAME_base64``. A field that has the name of one of the first four is called ``field_NAME``.
    """

    def format(self, record: logging.LogRecord) -> str:
        """One line of ASCII."""
        line: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        own = frozenset(line)
        for name, value in fields_of(record).items():
            line[f"field_{name}" if name in own else name] = value
        if record.exc_info:
            line["exception"] = escaped_lines(self.formatException(record.exc_info))
        return json_line(line)


def json_line(values: Mapping[str, object]) -> str:
    """One object in one line of ASCII, with names as in ``JsonFormatter``."""
    import json  # noqa: PLC0415  # only those who ask for it pay for it

    line: dict[str, object] = {}
    for key, value in values.items():
        line[key] = _plain(value)
        raw = _undecodable(value)
        if raw is not None:
            line[f"{key}_base64"] = binascii.b2a_base64(raw, newline=False).decode()
    return json.dumps(line)


def escaped_lines(text: str) -> str:
    """Several lines, each escaped."""
    return "\n".join(escaped(line) for line in text.split("\n"))


def _undecodable(value: object) -> bytes | None:
    if not isinstance(value, str | bytes):
        return None
    raw = os.fsencode(value)
    try:
        raw.decode()
    except UnicodeDecodeError:
        return raw
    return None


def _plain(value: object) -> object:
    if isinstance(value, str | bytes):
        return escaped(value) if _undecodable(value) is not None else os.fsdecode(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, Mapping):
        return {escaped(str(name)): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(each) for each in value]
    return escaped(str(value))


class TerminalHandler(logging.Handler):
    """Writes through a rich console, so that lines appear above a progress bar instead of in it."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self._text = TextFormatter()

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        from rich.text import Text  # noqa: PLC0415  # loaded already by whoever made the console

        try:
            line = Text.assemble(*self._text.parts(record))  # never markup: names hold brackets
            self._console.print(line, soft_wrap=True, highlight=False)
        except Exception:  # noqa: BLE001  # logging's own rule: a record that cannot be written stops nothing
            self.handleError(record)


def set_up(*, verbosity: int, as_json: bool, stream: TextIO, console: Console | None) -> logging.Handler:
    """Direct the package's log to ``stream``, or to the console where there is one; the handler made.

    Args:
        verbosity: 1 everything, 0 what changed, -1 warnings, -2 errors.
        as_json: one object a line.
        stream: where lines go.
        console: a rich console on the same stream, if that is a terminal.
    """
    handler: logging.Handler
    if console is not None and not as_json:
        handler = TerminalHandler(console)
    else:
        handler = logging.StreamHandler(stream)
        handler.setFormatter(JsonFormatter() if as_json else TextFormatter())
    levels = {1: logging.DEBUG, 0: logging.INFO, -1: logging.WARNING, -2: logging.ERROR}
    logger = logging.getLogger("instep")
    for old in list(logger.handlers):
        logger.removeHandler(old)
    logger.addHandler(handler)
    logger.setLevel(levels[verbosity])
    logger.propagate = False
    return handler


def write_error(error: OperatorError, stream: TextIO) -> None:
    """The one message with which a command ends."""
    text = escaped_parts(error)
    if stream.isatty() and not os.environ.get("NO_COLOR"):
        head, _, rest = text.partition(":")
        text = f"\x1b[1;31m{head}\x1b[0m:{rest}"
    stream.write(text + "\n")
    stream.flush()


def escaped_parts(error: OperatorError) -> str:
    """The error's lines; what control bytes are left in them cannot act."""
    return "\n".join(
        "".join(char if char == "\\" else _escape(char) for char in line) for line in str(error).split("\n")
    )
