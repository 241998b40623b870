"""The control socket's conversation, bytes in and bytes out."""

from __future__ import annotations

import errno
import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instep.frontends.clsync.complaints import refused
from instep.frontends.clsync.control import Session
from instep.frontends.clsync.protocol import CLSYNC, LINE_BYTES_MAX, Message, Version, message, parse, string
from tests.frontends.clsync.exchange import BOTH, CLOSING, GREETING


class Daemon:
    """Remembers what it was asked for."""

    version: Version = CLSYNC

    def __init__(self) -> None:
        self.options = {"label": b"lab"}
        self.dumps: set[bytes] = set()
        self.dying = 0

    def info(self) -> tuple[bytes, bytes]:
        return b"default", self.options["label"]

    def dump(self, path: bytes) -> None:
        if path.startswith(b"/nonexistent"):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        if path in self.dumps:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        self.dumps.add(path)

    def set(self, key: str, value: bytes) -> None:
        if key not in ("label", "delay-sync", "--"):
            raise refused(f"there is no option '{key}'", "see --help")
        if key == "delay-sync" and value and not value.isdigit():
            raise refused(f"'{os.fsdecode(value)}' is no\nnumber")
        self.options[key] = value

    def die(self) -> None:
        self.dying += 1


@pytest.fixture
def daemon() -> Daemon:
    return Daemon()


@pytest.fixture
def session(daemon: Daemon) -> Session:
    return Session(daemon)


def test_what_was_seen(session: Session) -> None:
    assert session.greeting == GREETING
    for request, answer in BOTH:
        assert not session.ended
        assert session.feed(request + b"\n") == answer
    assert session.ended
    assert session.feed(b"1 200\n") == b""


def test_all_of_it_in_one_piece(session: Session) -> None:
    """B-23: the second of two requests need not wait for a third."""
    assert session.feed(b"".join(request + b"\n" for request, _ in BOTH)) == b"".join(
        answer for _, answer in BOTH if answer is not None
    )


@given(st.lists(st.integers(1, 40), max_size=60))
def test_in_any_pieces(cuts: list[int]) -> None:
    session = Session(Daemon())
    data = b"".join(request + b"\n" for request, _ in BOTH)
    got = []
    for size in cuts:
        got.append(session.feed(data[:size]))
        data = data[size:]
    got.append(session.feed(data))
    assert b"".join(got) == b"".join(answer for _, answer in BOTH if answer is not None)


@pytest.mark.parametrize("line", [*CLOSING, b"1", b"-5 200", b"1 200x", b"99999999999999999999999 200"])
def test_what_is_no_message_ends_it(session: Session, line: bytes) -> None:
    assert session.feed(b"1 200\n" + line + b"\n2 200\n") == b"1 300 0 5 -release :clsync v0.5-release\n"
    assert session.ended


def test_a_line_that_never_ends(session: Session) -> None:
    given = 0
    while not session.ended:
        assert session.feed(b"1 211 " + b"x" * 4090) == b""
        given += 4096
    assert LINE_BYTES_MAX < given <= LINE_BYTES_MAX + 4096


@pytest.mark.parametrize(
    "line",
    [
        b"1 202 " + b" " * (LINE_BYTES_MAX - 10) + b"x",
        b" " * (LINE_BYTES_MAX - 10) + b"x",
        b"1 211 a" + b"\x03/" * (LINE_BYTES_MAX // 2 - 10),
        b"1 " + b" " * (LINE_BYTES_MAX - 10) + b"x",
    ],
    ids=["path", "number", "strings", "id"],
)
def test_no_line_takes_long(session: Session, line: bytes) -> None:
    before_s = time.process_time()
    session.feed(line + b"\n")
    assert time.process_time() - before_s < 5


def test_info(session: Session, daemon: Daemon) -> None:
    daemon.options["label"] = b"a b\x03/ \xff"
    assert session.feed(b"4 201\n") == (
        b'4 301 default\x03/ a b/ \xff\x03/ 0 0 :config_block == "default"; label == "a b\x03/ \xff"; '
        b"flags == 0; flags_set == 0.\n"
    )


@pytest.mark.parametrize(
    ("arguments", "key", "value"),
    [
        (b"label new", "label", b"new"),
        (b"label\x03/ new\x03/", "label", b"new"),
        (b"label\x03/ new name\x03/ :text", "label", b"new name"),
        (b"label\x03/new\x03/", "label", b"new"),
        (b"-- sync %label% :x  ", "--", b"sync %label% :x  "),
        (b"--\x03/  a\x03/", "--", b" a"),
        (b"label", "label", b""),
        (b"label ", "label", b""),
        (b"label\x03/ \x03/", "label", b""),
        (b"label\x03/", "label", b""),
        (b"label new\r", "label", b"new"),
    ],
)
def test_set(session: Session, daemon: Daemon, arguments: bytes, key: str, value: bytes) -> None:
    """B-23: both forms of it."""
    assert session.feed(b"7 211 " + arguments + b"\n") == b"7 311  :Set\n"
    assert daemon.options[key] == value


def test_set_what_is_refused(session: Session, daemon: Daemon) -> None:
    before = dict(daemon.options)
    assert session.feed(b"7 211 nosuch 1\n") == (
        b"7 199 set\x03/ nosuch\x03/ 22 there is no option 'nosuch'; see --help\x03/ "
        b":set(nosuch): Error #22: \"there is no option 'nosuch'; see --help\".\n"
    )
    assert session.feed(b"8 211 delay-sync\x03/ 1.5\x03/\n").startswith(
        b"8 199 set\x03/ delay-sync\x03/ 22 '1.5' is no number\x03/ :"
    )
    for nothing in (b"9 211\n", b"9 211 \n", b"9 211 \x03/ x\x03/\n"):
        assert session.feed(nothing) == (
            b"9 162 211 9 :Rejected command: id == 211; num == 9. Invalid arguments: An option is needed.\n"
        )
    assert daemon.options == before
    assert not session.ended


@pytest.mark.parametrize("line", [b"1 202", b"1 202 ", b"1 202 :x", b"1 202 \x03/", b"1 202 a\0b"])
def test_a_dump_to_nowhere(session: Session, daemon: Daemon, line: bytes) -> None:
    assert session.feed(line + b"\n").startswith(b"1 162 202 1 :Rejected command")
    assert daemon.dumps == set()


@pytest.mark.parametrize("arguments", [b"/a dump", b"/a dump :text", b"/a dump\x03/", b" /a dump "])
def test_where_a_dump_goes(session: Session, daemon: Daemon, arguments: bytes) -> None:
    assert session.feed(b"1 202 " + arguments + b"\n") == b"1 302  :Ready\n"
    assert daemon.dumps == {b"/a dump"}


@pytest.mark.parametrize("line", [b"1 0", b"1 0 a", b"1 0 0 x", b"1 0 :x"])
def test_negotiation_that_makes_no_sense(session: Session, line: bytes) -> None:
    """Each of these ends the original, or is taken for what it is not."""
    assert session.feed(line + b"\n").startswith(b"1 162 0 1 :Rejected command: id == 0; num == 1.")


def test_a_negative_id(session: Session) -> None:
    assert session.feed(b"8 -1\n") == b"8 161 8 :Invalid command id. Required: 0 <= cmd_id < 1000.\n"


def test_die(session: Session, daemon: Daemon) -> None:
    assert session.feed(b"1 200\n2 240\n3 240\n4 200\n") == b"1 300 0 5 -release :clsync v0.5-release\n"
    assert session.ended
    assert daemon.dying == 1


@given(st.lists(st.binary().filter(lambda value: b"\x03" not in value and b"\n" not in value), min_size=1, max_size=4))
def test_strings_travel_whole(values: list[bytes]) -> None:
    line = message(7, 211, b" ".join(map(string, values)), b"text")
    got = parse(line[:-1])
    assert got is not None
    assert got.strings() == (values, b":text")


def test_words() -> None:
    for rest, words in ((b"a b :c d", [b"a", b"b"]), (b":a", []), (b"", []), (b" a", [b"a"])):
        assert Message(1, 1, rest).words() == words


@given(st.binary(max_size=200))
def test_no_bytes_break_it(data: bytes) -> None:
    session = Session(Daemon())
    for line in session.feed(data).split(b"\n")[:-1]:
        assert parse(line) is not None
