"""What the helper makes of what it is told: what was meant, or a violation; never anything else."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instep.daemon.privileged import protocol
from instep.daemon.privileged.protocol import Ask, Start, Violation
from instep.model import EventReport, Interrupt, Program, Report
from instep.paths import RelPath, Scope

VARIABLES = frozenset({b"CLSYNC_STATUS", b"CLSYNC_ITERATION"})
words = st.binary(max_size=20).map(lambda word: word.replace(b"\0", b"x"))


def run(body: bytes) -> Start | Interrupt:
    return protocol.decode_run(body, environment=VARIABLES)


@given(
    argv=st.lists(words, min_size=1, max_size=5).map(tuple),
    environment=st.dictionaries(st.sampled_from(sorted(VARIABLES)), words),
    timeout_s=st.just(float("inf")) | st.floats(0, 1e9),
    directory=st.none() | words,
    umask=st.integers(0, 0o777),
)
def test_a_program_arrives_as_it_was_sent(
    argv: tuple[bytes, ...], environment: dict[bytes, bytes], timeout_s: float, directory: bytes | None, umask: int
) -> None:
    program = Program(argv, environment=environment, timeout_s=timeout_s, directory=directory)
    assert run(protocol.encode_start(7, program, umask)) == Start(7, program, umask)


def test_questions_and_interrupts_arrive_as_they_were_sent() -> None:
    assert protocol.decode_ask(protocol.encode_ask("look", b"a\xff/b")) == Ask("look", b"a\xff/b")
    assert run(protocol.encode_interrupt(3, 15)) == Interrupt(3, 15)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=6),
)
near = st.fixed_dictionaries(
    {
        "number": values | st.just(1), "argv": values | st.just(["x"]), "environment": values | st.just({}),
        "timeout_s": values, "directory": values, "umask": values | st.just(0),
    }
)  # fmt: skip


@given(st.binary(max_size=200) | (values | near).map(lambda value: json.dumps(value).encode()))
def test_anything_else_is_a_violation(body: bytes) -> None:
    for decode in (run, protocol.decode_ask):
        try:
            got = decode(body)
        except Violation:
            continue
        if isinstance(got, Start):
            assert not any(b"\0" in word for word in got.program.argv)
            assert got.program.environment.keys() <= VARIABLES
            assert (got.program.stdin, got.program.output, got.program.files) == (None, None, ())


@pytest.mark.parametrize("path", [b"..", b"a/../../etc", b"/etc/passwd", b"a//b", b"a/", b"./a", b"a\0b"])
def test_a_path_that_leads_elsewhere_is_a_violation(path: bytes) -> None:
    with pytest.raises(Violation):
        protocol.decode_ask(protocol.encode_ask("look", path))


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"interrupt": 1, "signal": 65}',
        b'{"interrupt": true, "signal": 15}',
        b'{"interrupt": 1, "signal": 15, "more": 1}',
        b'["exec", ""]',
        b'["look", "\xe2\x82\xac"]',
        b"9" * 10_000,
    ],
)
def test_what_is_no_request_is_a_violation(body: bytes) -> None:
    for decode in (run, protocol.decode_ask):
        with pytest.raises(Violation):
            decode(body)


def test_reports_and_looks_arrive_as_they_were(tmp_path: Path) -> None:
    event = EventReport(RelPath(b"a"), Scope.ENTRY, True, True, RelPath(b"b"))
    event.mask = 192
    for report in (event, Report(RelPath(b""), Scope.TREE, content=False)):
        sent = protocol.decode(protocol.encode(protocol.encode_report(report)))
        got = protocol.decode_report(sent)
        assert (type(got), got, getattr(got, "mask", 0)) == (type(report), report, getattr(report, "mask", 0))
    info = os.stat(tmp_path)
    got_info = protocol.decode_look(protocol.decode(protocol.encode(protocol.encode_look(info))))
    assert got_info is not None
    assert (got_info, got_info.st_mtime_ns, got_info.st_blocks) == (info, info.st_mtime_ns, info.st_blocks)
    assert protocol.decode_look(protocol.decode(protocol.encode(protocol.encode_look(None)))) is None
