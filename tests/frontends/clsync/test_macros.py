"""Macros that are replaced before anything is run, and the splitting of argument lines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instep.frontends.clsync import macros
from instep.frontends.clsync.templates import Arguments

SET = {"label": b"web", "watch-dir": b"/srv/50%off", "empty": b"", "PID": b"7"}


@pytest.mark.parametrize(
    ("text", "expected", "warned"),
    [
        ("plain", "plain", 0),
        ("%label%", "web", 0),
        ("a%label%b", "aweb" + "b", 0),
        ("%watch-dir%/x", "/srv/50%off/x", 0),
        ("%PID%", "7", 0),
        ("%empty%", "", 0),
        ("%%", "%", 0),
        ("%%label%%", "%label%", 0),
        ("%nothing%", "%nothing%", 1),
        ("%nothing%%neither%", "%nothing%%neither%", 2),
        ("x%nothing%y", "xy", 1),
        ("%nothing%%label%", "web", 1),
        ("100%", "100%", 0),
        ("%", "%", 0),
        ("50% of 100%", "50% of 100%", 0),
        ("a% b%label%", "a% bweb", 0),
        ("x%TYPE%y", "xy", 1),
    ],
)
def test_values(text: str, expected: str, warned: int) -> None:
    warnings: list[str] = []
    assert macros.value(text.encode(), SET.get, warnings.append) == expected.encode()
    assert len(warnings) == warned


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("%label%", "web"),
        ("%watch-dir%/", "/srv/50%%off/"),
        ("%INCLUDE-LIST%", "%INCLUDE-LIST%"),
        ("--x=%TYPE%-%label%", "--x=%TYPE%-web"),
        ("%PID%", "7"),
        ("%%", "%%"),
        ("100%", "100%%"),
        ("%nothing%", "%%nothing%%"),
        ("x%nothing%y", "xy"),
        ("%empty%", ""),
        ("%nothing%%TYPE%", "%TYPE%"),
    ],
)
def test_arguments_become_templates(text: str, expected: str) -> None:
    assert macros.argument(text.encode(), SET.get, lambda _: None) == expected.encode()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("%INCLUDE-LIST%", ""),
        ("a=%EXCLUDE-LIST-PATH%", ""),
        ("%INCLUDE-LISTS%", "%INCLUDE-LISTS% stands for nothing (did you mean %INCLUDE-LIST%?)"),
        ("x%LABEL%y", "%LABEL% stands for nothing"),
        ("%labl%", "%labl% stands for nothing that is set"),
    ],
)
def test_names_that_mean_nothing_are_said(text: str, said: str) -> None:
    warnings: list[str] = []
    macros.argument(text.encode(), SET.get, warnings.append)
    assert [each.rpartition(f"{text}: ")[2] for each in warnings] == ([said] if said else [])


@given(st.binary().filter(lambda text: b"%" not in text), st.binary())
def test_what_a_name_stands_for_reaches_the_handler_as_it_is(before: bytes, stands: bytes) -> None:
    template = macros.argument(before + b"%label%", {"label": stands}.get, lambda _: None)
    assert Arguments([template]).filled({b"TYPE": b"no"}, ()) == [before + stands]


@given(st.binary())
def test_any_argument_becomes_a_template_of_upper_case_names(text: bytes) -> None:
    template = macros.argument(text, {"label": b"%TYPE%"}.get, lambda _: None)
    assert all(name[0].isupper() for name in macros.names(template.replace(b"%%", b"")))


RSYNC = (b"-aH", b"--delete")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([b"a", b"%RSYNC-ARGS%", b"b"], [b"a", *RSYNC, b"b"]),
        ([b"x%RSYNC-ARGS%y"], [b"xy"]),
        ([], []),
    ],
)
def test_rsync_arguments_are_several_words(arguments: list[bytes], expected: list[bytes]) -> None:
    assert list(macros.with_rsync_args(arguments, RSYNC, lambda _: None)) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", []),
        ("  \t", []),
        ("a b\tc", ["a", "b", "c"]),
        (" a  b ", ["a", "b"]),
        ("a\nb", ["a\nb"]),
        ("a 'b c' d", ["a", "b c", "d"]),
        ('a "b c"', ["a", "b c"]),
        ('a x"y"', ["a", "xy"]),
        ('x"b c"y z', ["xb cy", "z"]),
        ('a "" b', ["a", "", "b"]),
        ('""', [""]),
        ("a\\ b", ["a\\", "b"]),
        (r"a\b", [r"a\b"]),
        (r'"b\c"', [r"b\c"]),
        (r'"say \"no\""', ['say "no"']),
        (r"'it\'s'", ["it's"]),
        ('"it\'s"', ["it's"]),
    ],
)
def test_a_line_is_split_into_words(line: str, expected: list[str]) -> None:
    assert macros.split(line.encode()) == [word.encode() for word in expected]


@pytest.mark.parametrize("line", ['"', "a 'b", 'a"', r'"a\"'])
def test_a_quote_that_is_not_closed_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="is not closed"):
        macros.split(line.encode())


@given(st.lists(st.text(alphabet="ab \t'\"", max_size=5)))
def test_quoted_words_survive(words: list[str]) -> None:
    line = " ".join('"' + word.replace('"', '\\"') + '"' for word in words)
    assert macros.split(line.encode()) == [word.encode() for word in words]
