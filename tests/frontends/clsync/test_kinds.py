"""Kinds of values, row by row."""

from __future__ import annotations

import grp
import os
import pwd

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instep.frontends.clsync import kinds
from instep.frontends.clsync.kinds import Kind
from instep.frontends.clsync.settings import Mode, Splitting

ROOT = pwd.getpwuid(0)
LETTERS = frozenset({"a", "b", "c"})
SPLITTING = kinds.Choice.of(Splitting, also={"2": Splitting.PROCESS})


def read(kind: Kind, text: str, before: object = None) -> object:
    warnings: list[str] = []
    value = kind.read(text.encode(), before, warnings.append)
    return (value, *warnings) if warnings else value


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        (kinds.SECONDS, "5", 5),
        (kinds.SECONDS, " 5 ", 5),
        (kinds.SECONDS, "+5", 5),
        (kinds.SECONDS, "0x10", 16),
        (kinds.SECONDS, "010", 8),
        (kinds.SECONDS, "", 0),
        (kinds.SECONDS, "  ", 0),
        (kinds.SECONDS, "0", 0),
        (kinds.BYTES, "9223372036854775807", 2**63 - 1),
        (kinds.Switch(), "0", False),
        (kinds.Switch(), "", False),
        (kinds.Switch(), "2", True),
        (kinds.Count(3), "5", 5),
        (kinds.Text("X"), "a", b"a"),
        (kinds.Text("X"), "", None),
        (kinds.Text("X", empty_counts=True), "", b""),
        (kinds.Name(), "night", "night"),
        (kinds.Name(), "", None),
        (kinds.Path(), "x/y", b"x/y"),
        (kinds.Path(), "", None),
        (kinds.Below(), "clsync/7", b"clsync/7"),
        (kinds.Below(), "", None),
        (kinds.Paths(), "a,b", (b"a", b"b")),
        (kinds.Paths(), "a,,b", (b"b",)),
        (kinds.Paths(), "", ()),
        (SPLITTING, "process", Splitting.PROCESS),
        (SPLITTING, "2", Splitting.PROCESS),
        (SPLITTING, "", None),
        (kinds.Choice.of(Mode, empty=False), "simple,foo", Mode.SIMPLE),
        (kinds.User(), "root", 0),
        (kinds.User(), "4711", 4711),
        (kinds.UserGroup(), grp.getgrgid(0).gr_name, 0),
        (kinds.UserGroup(), "0", 0),
        (kinds.Owner(), "root", (0, ROOT.pw_gid)),
        (kinds.Owner(), "root:5", (0, 5)),
        (kinds.Owner(), "", None),
        (kinds.Permissions(), "0660", 0o660),
        (kinds.Permissions(), "600", 0o600),
        (kinds.Permissions(), "", None),
        (kinds.ExitCodes(), "23,24", {0, 23, 24}),
        (kinds.ExitCodes(), "", {0}),
        (kinds.ExitCodes(), "5,,6", {0, 6}),
        (kinds.ExitCodes(), "0,5", {0, 5}),
        (kinds.ExitCodes(), "5,256", {0}),
        (kinds.Signals(), "10:night", {10: "night"}),
        (kinds.Signals(), "10:a,12:b", {10: "a", 12: "b"}),
        (kinds.Signals(), "10:a,0,12:b", {12: "b"}),
        (kinds.Signals(), "", {}),
        (kinds.Words(LETTERS), "a,b", LETTERS - {"c"}),
        (kinds.Words(LETTERS), "a,x", ({"a"}, "x is none of a, b, c; it is left out")),
        (kinds.Words(LETTERS, star=LETTERS - {"a"}), "*", LETTERS - {"a"}),
        (kinds.Words(LETTERS), "*", (None, "* is none of a, b, c; it is left out")),
        (kinds.Words(LETTERS), "", None),
        (kinds.Capabilities(frozenset({"CAP_KILL"})), "CAP_KILL,", {"CAP_KILL"}),
        (kinds.Capabilities(frozenset({"CAP_KILL"})), "", frozenset()),
        (kinds.Arguments(bytes.split), "a b", (b"a", b"b")),
    ],
)
def test_a_value_is_read(kind: Kind, text: str, expected: object) -> None:
    assert read(kind, text) == expected


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        (kinds.SECONDS, "abc", "expected a whole number"),
        (kinds.SECONDS, "1.5", "expected a whole number"),
        (kinds.SECONDS, "5 x", "expected a whole number"),
        (kinds.SECONDS, "08", "expected a whole number"),
        (kinds.SECONDS, "0x", "expected a whole number"),
        (kinds.SECONDS, "-1", "expected 0 or more"),
        (kinds.SECONDS, "99999999999999999999", "expected at most"),
        (kinds.SECONDS, "9" * 5000, "expected at most"),
        (kinds.Switch(), "yes", "1 for on, 0 for off"),
        (kinds.Count(0), "d", "expected a whole number"),
        (SPLITTING, "foo", "expected one of: off, thread, process"),
        (SPLITTING, "PROCESS", "expected one of"),
        (SPLITTING, "proces", "did you mean process?"),
        (kinds.Choice.of(Mode, empty=False), "", "expected one of"),
        (kinds.User(), "no such user", "there is no user of this name"),
        (kinds.User(), "", "expected a user, by name or number"),
        (kinds.User(), "-1", "there is no user of this name"),
        (kinds.UserGroup(), "no such group", "there is no group of this name"),
        (kinds.Owner(), "root:no such group", "there is no group of this name"),
        (kinds.Permissions(), "9", "expected an octal number"),
        (kinds.Permissions(), "77777", "expected an octal number"),
        (kinds.ExitCodes(), "5,foo", "expected a whole number"),
        (kinds.ExitCodes(), "300", "expected at most"),
        (kinds.Signals(), "foo", "expected a whole number"),
        (kinds.Signals(), "10", "expected SIGNAL:BLOCK"),
        (kinds.Signals(), "10:", "expected SIGNAL:BLOCK"),
        (kinds.Signals(), "600:a", "expected at most 512"),
        (kinds.Signals(), "9:a", "signal 9 cannot be waited for"),
        (kinds.Signals(), "100:a", "signal 100 cannot be waited for"),
        *((kinds.Below(), text, "expected names with slashes between") for text in ("/a", "a/", "a//b", "..", "a/./b")),
        (kinds.Capabilities(frozenset({"CAP_KILL"})), "FOO", "there is no capability FOO"),
        (kinds.Capabilities(frozenset({"CAP_KILL"})), "CAP_KIL", "did you mean CAP_KILL?"),
    ],
    ids=lambda each: ascii(each[-30:]) if isinstance(each, str) else type(each).__name__,
)
def test_a_value_that_makes_no_sense_is_refused(kind: Kind, text: str, message: str) -> None:
    with pytest.raises(ValueError) as error:
        read(kind, text)
    assert message in str(error.value)


def test_repeated_values_add_up_where_they_do() -> None:
    assert read(kinds.ExitCodes(), "24", frozenset({0, 23})) == {0, 23, 24}
    assert read(kinds.ExitCodes(), "0", frozenset({0, 23})) == {0}
    assert read(kinds.Signals(), "12:b", {10: "a"}) == {10: "a", 12: "b"}
    assert read(kinds.Words(LETTERS, adds_up=True), "b", frozenset({"a"})) == {"a", "b"}
    assert read(kinds.Words(LETTERS), "b", frozenset({"a"})) == {"b"}
    assert read(kinds.Arguments(bytes.split), "c", (b"a", b"b")) == (b"a", b"b", b"c")


def test_an_option_may_stand_alone_where_it_may() -> None:
    assert kinds.Switch().alone(None) is True
    assert kinds.Count(3).alone(None) == 4
    assert kinds.Count(0).alone(2) == 3
    with pytest.raises(ValueError, match="glued on"):
        SPLITTING.alone(None)


@given(st.integers(0, 2**31 - 1))
def test_numbers_are_those_of_strtol(value: int) -> None:
    assert kinds.number(str(value).encode()) == value
    assert kinds.number(hex(value).encode()) == value
    assert kinds.number(f"0{value:o}".encode()) == value


def test_a_user_of_ones_own_is_known_by_name() -> None:
    name = pwd.getpwuid(os.getuid()).pw_name
    assert kinds.User().read(name.encode(), None, lambda _: None) == os.getuid()
