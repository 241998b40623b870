"""What the two sides say to each other, in frames: u32 length, then a body.

Towards the helper a body is JSON (bytes as latin-1), and is believed in nothing: every part is looked at here. The
other way it is marshal, from a process that could do anything to us anyway. Two stream sockets: *asks* has one answer
to each question, at once; *runs* is about programs, which take their time.
"""

from __future__ import annotations

import json
import marshal
import os
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from instep.model import EventReport, Interrupt, Program, Report
from instep.paths import RelPath, Scope

LENGTH = struct.Struct("=I")
FRAME_BYTES_MAX = 1 << 24
"""Towards the helper; the arguments of a program cannot be as many (execve(2))."""
PATH_BYTES_MAX = 1 << 14
WORDS_MAX = 1 << 17
SIGNAL_MAX = 64


class Violation(Exception):
    """The other side said what it never says: it is not what we started any more."""


class Ask(NamedTuple):
    """A question that is answered at once."""

    what: str
    """One of ``ASKS``."""
    path: bytes
    """Relative, and clean; of ``look`` and ``list``."""


ASKS = frozenset({"start", "read", "close", "look", "list", "there", "reload"})
Encoded = tuple[bytes, int, bool, bool, bytes | None, int]


@dataclass(frozen=True, slots=True)
class Start:
    """That a program be started."""

    number: int
    program: Program
    umask: int


# ---- towards the helper ----


def encode_ask(what: str, path: bytes = b"") -> bytes:
    """The body of a question."""
    return json.dumps([what, path.decode("latin-1")]).encode()


def encode_start(number: int, program: Program, umask: int) -> bytes:
    """The body that asks for a program, without its list files, which are not the helper's affair."""
    assert program.stdin is None
    assert program.output is None
    assert not program.capture_bytes
    return json.dumps(
        {
            "number": number,
            "argv": [word.decode("latin-1") for word in program.argv],
            "environment": {
                name.decode("latin-1"): value.decode("latin-1") for name, value in program.environment.items()
            },
            "timeout_s": None if program.timeout_s == float("inf") else program.timeout_s,
            "directory": None if program.directory is None else program.directory.decode("latin-1"),
            "umask": umask,
        }
    ).encode()


def encode_interrupt(number: int, signal: int) -> bytes:
    """The body that asks for a signal."""
    return json.dumps({"interrupt": number, "signal": signal}).encode()


def decode_ask(body: bytes) -> Ask:
    """A question.

    Raises:
        Violation: it is none.
    """
    value = _parsed(body)
    if not isinstance(value, list) or len(value) != 2 or not isinstance(value[0], str) or value[0] not in ASKS:
        raise Violation("a question that is none")
    path = _bytes(value[1], PATH_BYTES_MAX)
    if path and any(name in {b"", b".", b".."} for name in path.split(b"/")):
        raise Violation("a path that leads elsewhere")
    return Ask(value[0], path)


def decode_run(body: bytes, *, environment: frozenset[bytes]) -> Start | Interrupt:
    """What is to be done about programs; of their environment only these variables may be given.

    Raises:
        Violation: anything else.
    """
    value = _parsed(body)
    if not isinstance(value, dict):
        raise Violation("a request that is none")
    if value.keys() == {"interrupt", "signal"}:
        return Interrupt(_number(value["interrupt"]), _number(value["signal"], SIGNAL_MAX))
    if value.keys() != {"number", "argv", "environment", "timeout_s", "directory", "umask"}:
        raise Violation("a request that is none")
    argv, given = value["argv"], value["environment"]
    if not isinstance(argv, list) or not 0 < len(argv) <= WORDS_MAX:
        raise Violation("no words of a program")
    if not isinstance(given, dict) or len(given) > len(environment):
        raise Violation("an environment that is none")
    variables = {_bytes(name, PATH_BYTES_MAX): _bytes(text, PATH_BYTES_MAX) for name, text in given.items()}
    if not variables.keys() <= environment:
        raise Violation("a variable that no program may be given")
    directory = value["directory"]
    program = Program(
        tuple(_bytes(word, FRAME_BYTES_MAX) for word in argv),
        environment=variables,
        timeout_s=_seconds(value["timeout_s"]),
        directory=None if directory is None else _bytes(directory, PATH_BYTES_MAX),
    )
    return Start(_number(value["number"]), program, _number(value["umask"], 0o777))


def _parsed(body: bytes) -> object:
    try:
        value: object = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Violation("no JSON") from error
    return value


def _bytes(value: object, most: int) -> bytes:
    if not isinstance(value, str) or len(value) > most:
        raise Violation("no text, or too long a one")
    try:
        raw = value.encode("latin-1")
    except UnicodeEncodeError as error:
        raise Violation("no bytes") from error
    if b"\0" in raw:
        raise Violation("a NUL in a text")
    return raw


def _number(value: object, most: int = (1 << 63) - 1) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise Violation("a number out of bounds")
    return value


def _seconds(value: object) -> float:
    if value is None:
        return float("inf")
    if type(value) not in {int, float} or not 0 <= value < float("inf"):  # type: ignore[operator]  # a number
        raise Violation("a time out of bounds")
    return float(value)  # type: ignore[arg-type]  # as above


# ---- from the helper ----


def encode(value: Any) -> bytes:
    """The body of an answer."""
    return marshal.dumps(value)


def decode(body: bytes) -> Any:
    """The answer in a body."""
    return marshal.loads(body)  # noqa: S302  # from a process that may do all that we may


def encode_report(report: Report) -> Encoded:
    """A report as plain values; the mask is -1 where nothing but the place is known."""
    mask = report.mask if isinstance(report, EventReport) else -1
    return (report.path, int(report.scope), report.content, report.is_dir, report.moved_from, mask)


def decode_report(value: Encoded) -> Report:
    """The report again."""
    path, scope, content, is_dir, moved_from, mask = value
    old = None if moved_from is None else RelPath(moved_from)
    if mask < 0:
        return Report(RelPath(path), Scope(scope), content, is_dir, old)
    report = EventReport(RelPath(path), Scope(scope), content, is_dir, old)
    report.mask = mask
    return report


def encode_look(info: os.stat_result | None) -> tuple[tuple[int, ...], Mapping[str, int | float]] | None:
    """An lstat as plain values."""
    if info is None:
        return None
    made: Any = info.__reduce__()  # of every structure of the system: the class, and what it is made from
    numbers, others = made[1]
    return numbers, others


def decode_look(value: Any) -> os.stat_result | None:
    """The lstat again."""
    return None if value is None else os.stat_result(*value)


# ---- frames ----


def frame(body: bytes) -> bytes:
    """A body with its length in front."""
    return LENGTH.pack(len(body)) + body


def receive(sock: socket.socket, most: int, *, begun: bytes = b"") -> bytes:
    """The body of the next frame. Blocks until all of it has come.

    Raises:
        EOFError: the other side is gone.
        Violation: it is longer than ``most``.
    """
    head = _exactly(sock, LENGTH.size, begun)
    (length,) = LENGTH.unpack(head)
    if length > most:
        raise Violation("a frame that is too long")
    return _exactly(sock, length, b"")


def _exactly(sock: socket.socket, length: int, begun: bytes) -> bytes:
    got = bytearray(begun)
    while len(got) < length:
        part = sock.recv(length - len(got))
        if not part:
            raise EOFError
        got += part
    return bytes(got)
