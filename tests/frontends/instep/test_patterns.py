"""Pattern files: reading, and reading again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from instep.errors import UsageError
from instep.frontends.instep import patterns
from instep.frontends.instep.patterns import gather, reload_rules
from instep.rules import Rule
from instep.spec import MirrorSpec, RuleSource


def test_reload_keeps_the_order_and_reads_files_again(tmp_path: Path) -> None:
    file = tmp_path / "p"
    file.write_bytes(b"old\n")
    sources = (RuleSource(False, b"a"), RuleSource(False, bytes(file), is_file=True), RuleSource(True, b"z"))
    spec = MirrorSpec(b"/s", (), rules=gather(sources), rule_sources=sources)
    assert [rule.pattern for rule in spec.rules] == [b"a", b"old", b"z"]
    file.write_bytes(b"+ new\nnewer\n")
    again = reload_rules(spec)
    assert [(rule.include, rule.pattern) for rule in again.rules] == [
        (False, b"a"),
        (True, b"new"),
        (False, b"newer"),
        (True, b"z"),
    ]
    assert again.rule_sources == sources
    file.unlink()
    with pytest.raises(UsageError):
        reload_rules(again)


def test_an_exclamation_mark_in_a_file_clears_what_came_before(tmp_path: Path) -> None:
    (tmp_path / "p").write_bytes(b"x\n!\ny\n")
    sources = (RuleSource(False, b"a"), RuleSource(False, bytes(tmp_path / "p"), is_file=True), RuleSource(False, b"b"))
    assert [rule.pattern for rule in gather(sources)] == [b"y", b"b"]


def test_names_of_files_are_escaped_in_origins(tmp_path: Path) -> None:
    file = bytes(tmp_path) + b"/\xff\n"
    Path(os.fsdecode(file)).write_bytes(b"x")
    (rule,) = gather([RuleSource(False, file, is_file=True)])
    assert rule == Rule(False, b"x", f"{tmp_path}/\\xff\\n:1")


def test_a_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    try:
        os.write(writer, b"a\nb\n")
        os.close(writer)
        found = gather([RuleSource(False, b"/proc/self/fd/%d" % reader, is_file=True)])
    finally:
        os.close(reader)
    assert [rule.pattern for rule in found] == [b"a", b"b"]


def test_a_file_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "FILE_BYTES_MAX", 1 << 20)
    with pytest.raises(UsageError, match="more than 1 MiB"):
        gather([RuleSource(False, b"/dev/zero", is_file=True)])
