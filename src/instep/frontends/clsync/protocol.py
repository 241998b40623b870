r"""The lines that travel over the control socket: ``NUMBER ID ARGUMENTS :TEXT``.

Facts (observed): a reply repeats the request's number; without arguments two blanks remain; the text is for people. An
argument that may hold blanks is a string, ended by ``\x03/``. A line is ended by a line feed, so nothing can hold one.
"""

from __future__ import annotations

import enum
import re
from typing import Final, NamedTuple

LINE_BYTES_MAX: Final = 1 << 16
STRING_END: Final = b"\x03/"
PROTOCOL: Final = 0

_LINE = re.compile(rb"[ \t]*(\d{1,20})[ \t]+(-?\d{1,20})(?:[ \t](.*))?", re.DOTALL)


class Id(enum.IntEnum):
    """What a line is."""

    NEGOTIATE = 0
    NEGOTIATED = 1
    ACKNOWLEDGED = 150
    UNKNOWN = 160
    NO_ID = 161
    REJECTED = 162
    FAILED = 199
    GET_VERSION = 200
    GET_INFO = 201
    DUMP = 202
    PROMPT = 210
    SET = 211
    DIE = 240
    QUIT = 250
    VERSION = 300
    INFO = 301
    DUMPED = 302
    DONE_SET = 311
    BYE = 350


class Version(NamedTuple):
    """As it is told: ``v{major}.{minor}{rest}``."""

    major: int
    minor: int
    rest: str

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}{self.rest}"


CLSYNC: Final = Version(0, 5, "-release")
"""What clsync 0.4.5 says that it is; its clients compare it."""


class Message(NamedTuple):
    """One line, taken apart."""

    number: int
    id: int
    rest: bytes
    """Arguments and text: what belongs to which depends on the id."""

    def words(self) -> list[bytes]:
        """The arguments, where none of them is a string."""
        return self.rest.partition(b" :")[0].split() if not self.rest.startswith(b":") else []

    def strings(self) -> tuple[list[bytes], bytes]:
        """The strings with which the arguments begin, and what follows them."""
        *found, rest = self.rest.split(STRING_END)
        return [each.removeprefix(b" ") if number else each for number, each in enumerate(found)], rest.lstrip(b" ")


def parse(line: bytes) -> Message | None:
    """What a line says, without its end; None if that is no message."""
    found = _LINE.fullmatch(line.removesuffix(b"\r"))
    return Message(int(found[1]), int(found[2]), found[3] or b"") if found else None


def message(number: int, id_: int, arguments: bytes = b"", text: bytes | None = None) -> bytes:
    """A line with its end.

    Args:
        number: of the request; a reply has the same.
        id_: what it is.
        arguments: of ``string`` where they can hold blanks.
        text: for people; None: there is none, as in requests.
    """
    line = b"%d %d" % (number, id_)
    if text is not None:
        line += b" " + arguments + b" :" + text
    elif arguments:
        line += b" " + arguments
    return line.replace(b"\n", b" ") + b"\n"


def string(value: bytes) -> bytes:
    """An argument that may hold blanks; what would end it is left out."""
    return value.replace(b"\x03", b"") + STRING_END
