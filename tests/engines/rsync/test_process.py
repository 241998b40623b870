"""One rsync, and when it is taken to hang."""

from __future__ import annotations

import asyncio
import sys

import pytest

from instep.engines.rsync import process

COMPLAINT = "could not make way for new regular file: b"
IDLES = "time.sleep(0.05)"
WORKS = "open('/dev/null', 'wb').write(bytes(9000))"


def ends(script: str) -> process.Exit:
    """It talks to a far side."""
    said: list[bytes] = []
    argv = [sys.executable, "-c", script]
    running = process.run([word.encode() for word in argv], directory=None, listing=b"", on_line=said.append)
    return asyncio.run(asyncio.wait_for(running, 60))


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "HUNG_S", 0.3)
    monkeypatch.setattr(process, "LOOK_S", 0.02)


def test_who_could_not_make_way_and_idles_is_ended() -> None:
    """It wakes now and then, and tells the other side that it is alive."""
    end = ends(f"import sys, time; print({COMPLAINT!r}, file=sys.stderr, flush=True)\nwhile True: {IDLES}")
    assert end.hung
    assert COMPLAINT in end.stderr.decode()


def test_who_works_on_is_left_in_peace() -> None:
    rounds = f"for _ in range(15): {IDLES}; {WORKS}"
    end = ends(f"import sys, time; print({COMPLAINT!r}, file=sys.stderr, flush=True)\n{rounds}")
    assert not end.hung
    assert end.status == 0


def test_who_idles_for_another_reason_is_left_in_peace() -> None:
    end = ends(f"import sys, time; print('skipping', file=sys.stderr, flush=True)\nfor _ in range(15): {IDLES}")
    assert not end.hung
    assert end.status == 0
