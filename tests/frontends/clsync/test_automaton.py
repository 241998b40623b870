"""Searches that take their time from the text alone; ``test_posixregex`` asks all expressions both ways."""

from __future__ import annotations

import pytest

from instep.frontends.clsync.automaton import Automaton, TooLarge
from instep.frontends.clsync.expressions import may_be_slow
from instep.frontends.clsync.posixregex import parse
from tests.frontends.clsync.regcomp import needs_glibc, real

SLOW = [
    b"(^|/)(.*/)*tmp$", rb"^(.*/)*\.git$", b"^(a+)+$", b"^([a-z]+/?)+$", rb"^(\w+\.?)+$", b"^(a|aa)*$", b"^(a?){30}b$", b"^(a*){2,}b",
]  # fmt: skip


@needs_glibc
@pytest.mark.parametrize("expression", SLOW)
def test_what_python_would_search_for_ever(expression: bytes) -> None:
    node = parse(expression)
    assert may_be_slow(node)
    automaton = Automaton(node)
    texts = [b"a/" * 2000, b"a" * 4000 + b"!", b"a" * 4000, b"a.b/" * 50 + b".git", b"x/y/tmp", b"", b"b"]
    assert [automaton.search(text) for text in texts] == real(expression, texts)


def test_what_is_left_to_python() -> None:
    plain = [
        b"^a$",
        b".*",
        b"a.*b.*c",
        b"(a|b)c+",
        b"/sess(ion)?s?$",
        b"(abc)+",
        b"[^/]+/[^/]+",
        b"(a|b)?",
        b"((a|b)c?)?",
    ]
    assert not any(may_be_slow(parse(expression)) for expression in plain)


@needs_glibc
def test_states_are_forgotten_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("instep.frontends.clsync.automaton.STATES_MAX", 5)
    expression = b"(a|b)*a(a|b){4}c"
    automaton = Automaton(parse(expression))
    texts = [b"ababababcab", b"bbbbbc", b"aabbac", b"abbbbc" * 3, b"a" * 50 + b"c"]
    for _ in range(3):
        assert [automaton.search(text) for text in texts] == real(expression, texts)
        assert len(automaton._states) <= 5


def test_no_automaton_for_what_is_too_large() -> None:
    for expression in (rb"(a)\1", b"(a{1000}){1000}"):
        with pytest.raises(TooLarge):
            Automaton(parse(expression))
