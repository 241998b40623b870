"""A remote engine between two directories of this machine, its agent at the end of a plain pipe."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self, TypeVar

import pytest

from instep.engines import ssh
from instep.engines.mounted import Mounted
from instep.engines.remote.connection import remote_command
from instep.engines.remote.contents import Contents
from instep.engines.remote.engine import RemoteEngine
from instep.engines.remote.session import Settings
from instep.model import Batch, Change, Outcome
from instep.paths import ROOT, RelPath, Scope
from instep.rules import Preserve
from instep.spec import Compress, MaxDelete
from tests.trees import assert_equal

T = TypeVar("T")
Patience = Callable[[float], None]
IS_ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not IS_ROOT, reason="needs root")
needs_setpriv = pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv")
AS_NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/bin/sh", "-c"]


def over_a_pipe(_: ssh.Place) -> Sequence[bytes]:
    """What starts the agent here, in the words that a far shell would be given."""
    return [b"/bin/sh", b"-c", remote_command(os.fsencode(sys.executable))]


def nobodys_agent() -> Sequence[bytes]:
    """What starts an agent without any privilege; skips the test where nobody else may run a Python."""
    for python in (sys.executable, "/usr/bin/python3"):
        if not subprocess.run([*AS_NOBODY, f"{python} -c ''"], check=False, capture_output=True).returncode:
            return [*map(os.fsencode, AS_NOBODY), remote_command(os.fsencode(python))]
    pytest.skip("nobody else may run any Python here")


class Rig:
    """``src`` and ``dst`` below a base directory, with an engine between them."""

    def __init__(
        self,
        base: bytes,
        *,
        command: Any = over_a_pipe,
        contents: Contents | None = None,
        target: bytes | None = None,
        ssh_words: Sequence[bytes] = ssh.COMMAND,
        max_delete: MaxDelete | None = None,
        compress: Compress = Compress.AUTO,
        **settings: Any,
    ) -> None:
        self.base = base
        self.src = os.path.join(base, b"src")
        self.dst = os.path.join(base, b"dst")
        for path in (self.src, self.dst):
            if not os.path.isdir(path):
                os.mkdir(path, 0o755)
        self.source_fd = os.open(self.src, os.O_RDONLY | os.O_DIRECTORY)
        self.settings = replace(Settings(Preserve(), umask=0o022), **settings)
        self.waits: list[int] = []
        self.wait_s = 0.0
        self.mounted = Mounted(self.source_fd)
        self.engine = RemoteEngine(
            target or b"there:" + self.dst,
            source_fd=self.source_fd,
            settings=self.settings,
            max_delete=max_delete or MaxDelete(percent=100),
            big_wait_s=self._big_wait_s,
            ssh_words=ssh_words,
            contents=contents,
            compress=compress,
            command=command,
            mounted=self.mounted,
        )
        self._runner = asyncio.Runner()

    def __enter__(self) -> Self:
        try:
            self.run(self.engine.open())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.run(self.engine.close())
        self._runner.close()
        self.mounted.close()
        os.close(self.source_fd)

    def run(self, awaitable: Awaitable[T]) -> T:
        """Run a coroutine to its end."""

        async def it() -> T:
            return await awaitable

        return self._runner.run(it())

    def bring(
        self,
        *paths: bytes,
        scope: Scope = Scope.ENTRY,
        content: bool = True,
        now: bool = True,
        moves: Mapping[bytes, bytes] | None = None,
    ) -> Outcome:
        """Bring paths over the way the daemon does: what is quick is sent at once. Not ``now``: all after."""
        outcome = self.run(self._bring(self.batch(*paths, scope=scope, content=content, moves=moves), now=now))
        # Large files among others are put off, to get batches of their own.
        while own := [put_off for put_off in outcome.postponed if put_off.wait_s == 0]:
            outcome.postponed = [put_off for put_off in outcome.postponed if put_off.wait_s > 0]
            for put_off in own:
                outcome.add(self.run(self._bring(Batch((put_off.change,), time.monotonic()), now=now)))
        return outcome

    def batch(
        self, *paths: bytes, scope: Scope, content: bool = False, moves: Mapping[bytes, bytes] | None = None
    ) -> Batch:
        changes = tuple(Change(RelPath(path), scope, content=content) for path in paths)
        named = {RelPath(new): RelPath(old) for new, old in (moves or {}).items()}
        return Batch(changes, time.monotonic(), moves=named)

    async def _bring(self, batch: Batch, *, now: bool) -> Outcome:
        outcome, rest = self.engine.sync_now(batch) if now else (Outcome(), batch.changes)
        if rest:
            assert rest is batch.changes
            outcome.add(await self.engine.sync(batch))
        return outcome

    def tree(self, *, content: bool = False, now: bool = False) -> Outcome:
        """Compare everything."""
        return self.bring(ROOT, scope=Scope.TREE, content=content, now=now)

    def clean(self, outcome: Outcome) -> None:
        """All went well, and both sides are equal now."""
        well(outcome)
        assert_equal(self.src, self.dst)

    def s(self, path: bytes) -> bytes:
        return os.path.join(self.src, path)

    def d(self, path: bytes) -> bytes:
        return os.path.join(self.dst, path)

    def _big_wait_s(self, size: int, change: Change, now_s: float) -> float:
        self.waits.append(size)
        return self.wait_s


def well(outcome: Outcome) -> None:
    """Nothing failed, nothing was put off."""
    assert not outcome.failures, outcome.failures
    assert not outcome.postponed
    assert outcome.away is None
    assert outcome.full is None


def write(path: bytes, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)


def read(path: bytes) -> bytes:
    with open(path, "rb") as file:
        return file.read()
