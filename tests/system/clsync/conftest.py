"""Fixtures of the tests that run clsync as a process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from tests.system.clsync.programs import OURS, Clsync, Desk

Start = Callable[..., Clsync]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A tree with ``a`` and ``d/b``, and a handler that writes down."""
    return Desk(tmp_path / "desk", tree="mkdir d; touch a d/b")


@pytest.fixture
def start(desk: Desk) -> Iterator[Start]:
    """Starts processes at the desk; all are killed afterwards."""
    processes: list[Clsync] = []

    def begin(
        words: str | Sequence[str],
        *,
        program: Sequence[str] = OURS,
        stdin: bytes = b"",
        environment: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
        cwd: Path | None = None,
    ) -> Clsync:
        process = Clsync(
            desk, words, program=program, name=f"log{len(processes)}", stdin=stdin, environment=environment,
            prefix=prefix, cwd=cwd,
        )  # fmt: skip
        processes.append(process)
        return process

    yield begin
    for process in processes:
        process.kill()
