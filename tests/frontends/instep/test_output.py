"""Log lines for people and for machines, with hostile names in them."""

from __future__ import annotations

import base64
import io
import json
import logging
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from instep.errors import UsageError
from instep.frontends.instep.output import JsonFormatter, TextFormatter, escaped, set_up, write_error
from instep.logs import fields

HOSTILE = b'a b\n\x1b[2J\xff\\"=\xe2\x80\xae\xc2\x9b'


def record(event: str = "event", severity: int = logging.INFO, /, **values: object) -> logging.LogRecord:
    made = logging.getLogger("instep.test").makeRecord(
        "instep.test", severity, "f", 1, event, (), None, extra=fields(**values)
    )
    made.created = 1_700_000_000.25
    made.msecs = 250.0
    return made


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"plain/path.txt", "plain/path.txt"),
        ("grün".encode(), "grün"),
        (b"a b", "a b"),
        (b"\xff", "\\xff"),
        (b"\x1b[0m", "\\x1b[0m"),
        (b"a\nb\tc\r", "a\\nb\\tc\\r"),
        (b"\\xff", "\\\\xff"),
        (b"\x7f\x00", "\\x7f\\x00"),
        ("\u202e\u2028\x9b".encode(), "\\u202e\\u2028\\u009b"),
        ("\U000e0001".encode(), "\\U000e0001"),
    ],
)
def test_escaping(raw: bytes, shown: str) -> None:
    assert escaped(raw) == shown


@given(st.binary(max_size=12), st.binary(max_size=12))
@example(b"\xff", b"\\xff")
def test_escaping_is_printable_and_tells_names_apart(one: bytes, other: bytes) -> None:
    assert escaped(one).isprintable()
    escaped(one).encode()  # no surrogates left
    assert (escaped(one) == escaped(other)) == (one == other)


def test_text_is_one_line() -> None:
    line = TextFormatter().format(
        record("failed", logging.WARNING, path=HOSTILE, size=3, rate=1.23456789, reason="no\nroom", now="x", fix="y")
    )
    assert line.isprintable()
    assert line[20:] == (
        'warning failed path="a b\\n\\x1b[2J\\xff\\\\\\"=\\u202e\\u009b" size=3 rate=1.23457: no\\nroom; now: x; fix: y'
    )


def test_text_leaves_out_what_is_empty() -> None:
    assert TextFormatter().format(record("e", a=None, b="", c=0, reason="", fix=None)).endswith("info    e c=0")


def test_text_of_lists() -> None:
    assert TextFormatter().format(record("e", names=(b"a", b"b c"))).endswith('names=[a, "b c"]')


def test_json_is_one_object_a_line() -> None:
    line = JsonFormatter().format(
        record(
            "failed",
            logging.WARNING,
            path=HOSTILE,
            good="grün\n",
            size=3,
            limit=float("inf"),
            level="x",
            names=[b"a", "\udcfe"],
            none=None,
            yes=True,
        )
    )
    assert "\n" not in line
    assert line.isascii()
    assert json.loads(line) == {
        "time": "2023-11-14T22:13:20.250Z",
        "level": "warning",
        "logger": "instep.test",
        "event": "failed",
        "path": escaped(HOSTILE),
        "path_base64": base64.b64encode(HOSTILE).decode(),
        "good": "grün\n",
        "size": 3,
        "limit": None,
        "field_level": "x",
        "names": ["a", "\\xfe"],
        "none": None,
        "yes": True,
    }


@given(st.dictionaries(st.text(max_size=5), st.binary() | st.text() | st.floats() | st.none() | st.lists(st.binary())))
def test_json_always_parses(values: dict[str, object]) -> None:
    made = record()
    made.fields = values
    parsed = json.loads(JsonFormatter().format(made), parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert parsed["event"] == "event"


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_tracebacks_are_kept_and_escaped(formatter: logging.Formatter) -> None:
    made = record()
    try:
        int("bad \x1b name\udcff")
    except ValueError:
        made.exc_info = sys.exc_info()
    line = formatter.format(made)
    assert "ValueError" in line
    assert "\x1b" not in line


@pytest.mark.parametrize(
    ("verbosity", "shown"), [(1, "dbg inf wrn err"), (0, "inf wrn err"), (-1, "wrn err"), (-2, "err")]
)
def test_levels(verbosity: int, shown: str) -> None:
    stream = io.StringIO()
    handler = set_up(verbosity=verbosity, as_json=True, stream=stream, console=None)
    log = logging.getLogger("instep.test")
    try:
        for level, name in ((10, "dbg"), (20, "inf"), (30, "wrn"), (40, "err")):
            log.log(level, name)
    finally:
        logging.getLogger("instep").removeHandler(handler)
        logging.getLogger("instep").setLevel(logging.NOTSET)
        logging.getLogger("instep").propagate = True
    assert " ".join(json.loads(line)["event"] for line in stream.getvalue().splitlines()) == shown


def test_errors_cannot_carry_control_bytes() -> None:
    stream = io.StringIO()
    write_error(UsageError("code", "what \x1b[2J \udcff \\n", fix="this"), stream)
    assert stream.getvalue() == "error[code]: what \\x1b[2J \\xff \\n\n  now: nothing was changed\n  fix: this\n"
