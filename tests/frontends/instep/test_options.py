"""The table of options, and what is made from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from instep.frontends.instep import options
from instep.frontends.instep.options import Option
from instep.frontends.instep.usage import WIDTH, options_help


def test_flags_are_unique() -> None:
    flags = [flag for option in options.MIRROR for flag in option.flags]
    assert len(flags) == len(set(flags))
    assert not {"-h", "--help", "--"} & set(flags)
    # A cluster such as -xn is only readable because no short option takes a value.
    assert all(option.is_flag for option in options.MIRROR for flag in option.flags if not flag.startswith("--"))


@pytest.mark.parametrize("option", options.MIRROR, ids=[option.name for option in options.MIRROR])
def test_help_tells_flag_unit_and_default(option: Option) -> None:
    text = options_help([option])
    assert text.isascii()
    assert all(len(line) <= WIDTH for line in text.split("\n"))
    for flag in option.flags:
        assert flag in text
    assert option.kind.metavar in text
    flat = " ".join(text.split())
    assert option.help.split()[0] in flat
    if option.name not in ("--verbose", "--quiet"):
        assert f"[default: {option.shown_default}]" in flat


@pytest.mark.parametrize("option", [o for o in options.MIRROR if not o.is_flag and not o.repeat], ids=lambda o: o.name)
def test_a_shown_default_can_be_typed(option: Option) -> None:
    assert option.kind.parse(option.shown_default) == option.default


def test_the_page_of_options_is_up_to_date() -> None:
    page = Path(__file__).parents[3] / "docs" / "options.md"
    assert page.read_text() == options.options_page(), "python -m instep.frontends.instep.options > docs/options.md"
