"""The examination of a host that does not let itself be examined."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from instep.engines import ssh
from instep.engines.probe import reach
from instep.errors import TargetAway
from tests.engines import fake_ssh
from tests.engines.fake_ssh import FakeSsh
from tests.processes import lives


@pytest.mark.parametrize("then", fake_ssh.NEVER_IN)
def test_a_login_without_end_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, then: str) -> None:
    monkeypatch.setattr(reach, "LIMIT_S", 1.0)
    monkeypatch.setattr(reach, "END_S", 0.5)
    fake = FakeSsh(tmp_path, then)

    async def work() -> None:
        asking = asyncio.ensure_future(reach.over_ssh(fake.words, ssh.Place(b"there", b"/srv")))
        await asyncio.wait({asking}, timeout=30)
        assert asking.done()
        with pytest.raises(TimeoutError):
            await asking

    try:
        asyncio.run(work())
        assert not any(map(lives, fake.pids()))
    finally:
        fake.kill()


def test_the_last_words_are_heard_though_somebody_could_say_more(tmp_path: Path) -> None:
    fake = FakeSsh(tmp_path, "echo Connection refused >&2; exec >/dev/null; {start}; exit 255")

    async def work() -> None:
        with pytest.raises(TargetAway, match="refused"):
            await asyncio.wait_for(reach.over_ssh(fake.words, ssh.Place(b"there", os.fsencode(tmp_path))), 30)

    try:
        asyncio.run(work())
    finally:
        fake.kill()
