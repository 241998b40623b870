"""Command lines as getopt_long(3) reads them."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instep.frontends.clsync.complaints import USAGE, Refused
from instep.frontends.clsync.getopt import Takes, words


@dataclass(frozen=True)
class Row:
    name: str
    short: str = ""
    takes: Takes = Takes.NOTHING
    yields: bool = False


TABLE = (
    Row("flag", "f"),
    Row("value", "v", Takes.VALUE),
    Row("level", "l", Takes.OPTIONAL),
    Row("long-one", "", Takes.VALUE),
    Row("long-other", "", Takes.OPTIONAL),
    Row("former", "", yields=True),
    Row("forever"),
    Row("--", "", Takes.VALUE),
    Row("---", "", Takes.VALUE),
)


def read(argv: Sequence[str], *, in_order: bool = False) -> list[tuple[str, str | None]]:
    found = words([word.encode() for word in argv], TABLE, in_order=in_order)
    return [
        (word.option.name if word.option else "", None if word.value is None else word.value.decode()) for word in found
    ]


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        pytest.param([], [], id="nothing"),
        pytest.param(["-f"], [("flag", None)], id="a-letter"),
        pytest.param(["-ff"], [("flag", None), ("flag", None)], id="letters-in-one-word"),
        pytest.param(["-vx"], [("value", "x")], id="a-glued-value"),
        pytest.param(["-v", "x"], [("value", "x")], id="a-value-behind-it"),
        pytest.param(["-v", "-f"], [("value", "-f")], id="a-value-that-looks-like-an-option"),
        pytest.param(["-v", "--"], [("value", "--")], id="a-value-that-looks-like-the-end"),
        pytest.param(["-fvx"], [("flag", None), ("value", "x")], id="a-letter-and-a-glued-value"),
        pytest.param(["-v=x"], [("value", "=x")], id="an-equals-sign-behind-a-letter-is-part-of-the-value"),
        pytest.param(["-l"], [("level", None)], id="an-optional-value-left-out"),
        pytest.param(["-l5"], [("level", "5")], id="an-optional-value-glued-on"),
        pytest.param(["-l", "5"], [("level", None), ("", "5")], id="an-optional-value-is-never-behind-it"),
        pytest.param(["-lf"], [("level", "f")], id="letters-behind-an-optional-value-are-the-value"),
        pytest.param(["--level"], [("level", None)], id="a-long-optional-value-left-out"),
        pytest.param(["--level="], [("level", "")], id="a-long-optional-value-that-is-empty"),
        pytest.param(["--level", "5"], [("level", None), ("", "5")], id="a-long-optional-value-is-never-behind-it"),
        pytest.param(["--value=a=b"], [("value", "a=b")], id="the-first-equals-sign-counts"),
        pytest.param(["--value", "x"], [("value", "x")], id="a-long-value-behind-it"),
        pytest.param(["--val=x"], [("value", "x")], id="cut-short"),
        pytest.param(["--long-on=x"], [("long-one", "x")], id="cut-short-as-far-as-one-remains"),
        pytest.param(["--for"], [("forever", None)], id="cut-short-for-the-one-that-does-not-yield"),
        pytest.param(["--form"], [("former", None)], id="cut-short-for-the-one-that-yields"),
        pytest.param(["a", "-f", "b"], [("", "a"), ("flag", None), ("", "b")], id="options-behind-operands"),
        pytest.param(["-f", "--", "-f"], [("flag", None), ("", "-f")], id="the-end-of-options"),
        pytest.param(["-"], [("", "-")], id="a-dash-is-an-operand"),
        pytest.param([""], [("", "")], id="nothing-at-all-is-an-operand"),
        pytest.param(["----=x y"], [("--", "x y")], id="two-dashes-are-a-long-name"),
        pytest.param(["----", "x"], [("--", "x")], id="two-dashes-with-the-value-behind-them"),
        pytest.param(["-----=x"], [("---", "x")], id="three-dashes-are-a-long-name"),
    ],
)  # fmt: skip
def test_words_are_sorted(argv: Sequence[str], expected: list[tuple[str, str | None]]) -> None:
    assert read(argv) == expected


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["-Z"], "there is no option -Z"),
        (["--nothing"], "there is no option --nothing"),
        (["--vaule=1"], "did you mean --value?"),
        (["--long=1"], "--long is ambiguous: --long-one, --long-other"),
        (["---"], "ambiguous"),
        (["--value"], "--value needs a value; write --value=VALUE"),
        (["-v"], "-v needs a value; write -v VALUE"),
        (["--flag=1"], "--flag takes no value"),
        (["--\x1b[31m"], r"\x1b"),
    ],
    ids=lambda each: " ".join(each).encode("unicode_escape").decode() if isinstance(each, list) else "",
)
def test_what_cannot_be_understood_is_refused(argv: Sequence[str], message: str) -> None:
    with pytest.raises(Refused) as refusal:
        read(argv)
    assert message in str(refusal.value)
    assert refusal.value.status == USAGE
    assert len(refusal.value.complaints) == 1


def test_what_stands_before_a_mistake_is_taken() -> None:
    found = words([b"-f", b"-Z"], TABLE, in_order=False)
    assert next(found).option == TABLE[0]
    with pytest.raises(Refused):
        next(found)


def test_in_order_the_first_operand_ends_the_options() -> None:
    assert read(["-f", "a", "-f"], in_order=True) == [("flag", None), ("", "a"), ("", "-f")]


GNU = TABLE[:5]
VOCABULARY = [
    "-f", "-v", "-l", "-l5", "-vx", "-fl", "-flv", "-Z", "-v-f", "-", "--", "---", "a", "b=c", "--flag", "--flag=1", "--f",
    "--value", "--value=", "--val=x", "--level", "--level=2", "--l", "--long", "--long-on", "--long-one", "--long-ot=3", "--x",
]  # fmt: skip


@pytest.mark.skipif(shutil.which("getopt") is None, reason="there is no getopt(1)")
@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(VOCABULARY), max_size=5), st.booleans())
def test_it_is_as_gnu_has_it(argv: list[str], in_order: bool) -> None:
    """getopt(1) is a thin shell around getopt_long(3)."""
    told = subprocess.run(
        ["getopt", "-q", "-o", "fv:l::", "-l", "flag,value:,level::,long-one:,long-other::", "--", *argv],
        check=False, capture_output=True, text=True, timeout=60,
        env={"PATH": os.environ["PATH"]} | ({"POSIXLY_CORRECT": ""} if in_order else {}),
    )  # fmt: skip
    try:
        found = list(words([word.encode() for word in argv], GNU, in_order=in_order))
    except Refused:
        assert told.returncode == 1
        return
    assert told.returncode == 0, argv
    options: list[str] = []
    for word in found:
        if (option := word.option) is not None:
            options.append(f"-{option.short}" if word.spelled == f"-{option.short}" else f"--{option.name}")
            options += [] if option.takes is Takes.NOTHING else [(word.value or b"").decode()]
    operands = [(word.value or b"").decode() for word in found if word.option is None]
    assert shlex.split(told.stdout) == [*options, "--", *operands]


@given(st.lists(st.sampled_from(["-f", "-v", "-l1", "--", "--value", "--level", "a", "", "-", "--flag", "----"])))
def test_no_word_is_lost(argv: list[str]) -> None:
    """Each word is an option, a value, an operand, or the one end of options."""
    argv = [*argv, "end"]  # So that none lacks its value.
    found = read(argv)
    taken = len(found) + sum(value is not None and name in ("value", "--") for name, value in found)
    assert len(argv) - taken in (0, 1)
