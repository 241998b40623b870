"""A native engine between two real directories, driven without a daemon."""

from __future__ import annotations

import asyncio
import os
import pickle
import subprocess
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self, TypeVar

import pytest

from instep.engines.mounted import Mounted
from instep.engines.native.engine import NativeEngine
from instep.engines.native.session import Settings
from instep.model import Batch, Change, Deletions, Outcome
from instep.paths import ROOT, RelPath, Scope
from instep.rules import Preserve
from instep.spec import MaxDelete
from tests.trees import assert_equal

T = TypeVar("T")
NOBODY = 65534
IS_ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not IS_ROOT, reason="needs root")


DEFAULT = MaxDelete(percent=100)


class Rig:
    """``src`` and ``dst`` below a base directory, with an engine between them."""

    def __init__(self, base: bytes, *, workers: int = 2, max_delete: MaxDelete = DEFAULT, **settings: Any) -> None:
        self.base = base
        self.src = os.path.join(base, b"src")
        self.dst = os.path.join(base, b"dst")
        for path in (self.src, self.dst):
            if not os.path.isdir(path):
                os.mkdir(path, 0o755)
        self.source_fd = os.open(self.src, os.O_RDONLY | os.O_DIRECTORY)
        self.settings = Settings(Preserve(), umask=0o022)._replace(**settings)
        self.waits: list[int] = []
        self.wait_s = 0.0
        self.mounted = Mounted(self.source_fd)
        self.engine = NativeEngine(
            self.dst,
            source_fd=self.source_fd,
            settings=self.settings,
            max_delete=max_delete,
            big_wait_s=self._big_wait_s,
            workers=workers,
            mounted=self.mounted,
        )
        self._runner = asyncio.Runner()

    def __enter__(self) -> Self:
        self.run(self.engine.open())
        return self

    def __exit__(self, *_: object) -> None:
        self.run(self.engine.close())
        self._runner.close()
        self.mounted.close()
        os.close(self.source_fd)

    def run(self, awaitable: Any) -> Any:
        """Run a coroutine to its end."""
        return self._runner.run(awaitable)

    def changes(
        self, paths: Sequence[bytes], *, scope: Scope = Scope.ENTRY, content: bool = True
    ) -> tuple[Change, ...]:
        return tuple(Change(RelPath(path), scope, content=content) for path in paths)

    def bring(
        self,
        *paths: bytes,
        scope: Scope = Scope.ENTRY,
        content: bool = True,
        now: bool = True,
        moves: Mapping[bytes, bytes] | None = None,
        deletions: Deletions = Deletions.LIMITED,
    ) -> Outcome:
        """Bring paths over the way the daemon does: at once what is quick, the rest after it. Not ``now``: all after."""
        changes: Sequence[Change] = self.changes(paths, scope=scope, content=content)
        named = {RelPath(new): RelPath(old) for new, old in (moves or {}).items()}
        outcome = Outcome()
        if now:
            outcome, changes = self.engine.sync_now(
                Batch(tuple(changes), time.monotonic(), moves=named, deletions=deletions)
            )
        if changes:
            batch = Batch(tuple(changes), time.monotonic(), moves=named, deletions=deletions)
            outcome.add(self.run(self.engine.sync(batch)))
        # Large files among others are put off, to get batches of their own.
        while own := [put_off for put_off in outcome.postponed if put_off.wait_s == 0]:
            outcome.postponed = [put_off for put_off in outcome.postponed if put_off.wait_s > 0]
            batch = Batch(tuple(put_off.change for put_off in own), time.monotonic())
            outcome.add(self.run(self.engine.sync(batch)))
        return outcome

    def tree(self, *, content: bool = False, now: bool = False, deletions: Deletions = Deletions.LIMITED) -> Outcome:
        """Compare everything."""
        return self.bring(ROOT, scope=Scope.TREE, content=content, now=now, deletions=deletions)

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


def write(path: bytes, data: bytes = b"content", *, mtime_ns: int | None = None, mode: int | None = None) -> None:
    """Make or rewrite a file."""
    with open(path, "wb") as file:
        file.write(data)
    if mtime_ns is not None:
        os.utime(path, ns=(mtime_ns, mtime_ns))
    if mode is not None:
        os.chmod(path, mode)


def read(path: bytes) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def temporaries(root: bytes) -> list[bytes]:
    """Temporary names left over below ``root``."""
    return [
        os.path.join(here, name)
        for here, directories, files in os.walk(root)
        for name in directories + files
        if name.startswith(b".instep-")
    ]


def as_nobody(function: Callable[[], T]) -> T:
    """What ``function`` returns in a child process without any privilege."""
    receive, send = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking beside threads: the child starts none of them
        child = os.fork()
    if child == 0:
        try:
            os.close(receive)
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            try:
                answer = pickle.dumps((True, function()))
            except BaseException:  # noqa: BLE001  # told by the parent
                answer = pickle.dumps((False, traceback.format_exc()))
            with os.fdopen(send, "wb") as file:
                file.write(answer)
        finally:
            os._exit(0)
    os.close(send)
    with os.fdopen(receive, "rb") as file:
        answer = file.read()
    os.waitpid(child, 0)
    good, value = pickle.loads(answer)
    assert good, value
    result: T = value
    return result


@contextmanager
def mounted(point: bytes, *arguments: str) -> Iterator[bytes]:
    """A file system on the directory ``point``, which is made."""
    os.makedirs(point, exist_ok=True)
    try:
        subprocess.run(["mount", *arguments, os.fsdecode(point)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"cannot mount here: {error}")
    try:
        yield point
    finally:
        subprocess.run(["umount", "-l", os.fsdecode(point)], check=False)
