"""A source, a target and an engine between them, for tests."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import stat
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from instep.engines.mounted import Mount, Mounted
from instep.engines.rsync import RsyncEngine
from instep.engines.ssh import COMMAND
from instep.model import Batch, Change, Deletions, Outcome
from instep.paths import ROOT, RelPath, Scope
from instep.rules import Preserve, Rule
from instep.spec import MaxDelete

T = TypeVar("T")


def entry(path: bytes, *, content: bool = True) -> Change:
    return Change(RelPath(path), content=content)


def tree(path: bytes = ROOT, *, content: bool = False) -> Change:
    return Change(RelPath(path), Scope.TREE, content=content)


def names(path: bytes = ROOT, *, content: bool = False) -> Change:
    return Change(RelPath(path), Scope.LIST, content=content)


def batch(*changes: Change, flushing: bool = False) -> Batch:
    return Batch(changes, 0.0, flushing=flushing)


def state(root: Path) -> dict[bytes, tuple[object, ...]]:
    """Everything that has to be equal; directory sizes and inodes are not."""
    top = os.fsencode(root)
    found: dict[bytes, tuple[object, ...]] = {}

    def add(path: bytes) -> None:
        st = os.lstat(os.path.join(top, path) if path else top)
        what: object = None
        if stat.S_ISREG(st.st_mode):
            with open(os.path.join(top, path), "rb") as file:
                what = file.read()
        elif stat.S_ISLNK(st.st_mode):
            what = os.readlink(os.path.join(top, path))
        found[path] = (st.st_mode, st.st_uid, st.st_gid, st.st_mtime_ns, st.st_rdev, what)
        if stat.S_ISDIR(st.st_mode):
            for name in os.listdir(os.path.join(top, path) if path else top):
                add(os.path.join(path, name) if path else name)

    add(b"")
    return found


class Place:
    """Made by the ``place`` fixture: two directories, and engines between them."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.source = base / "source"
        self.target = base / "target"
        self.source.mkdir()
        self._fds: list[int] = []
        self._mounted: list[Mounted] = []

    def engine(
        self,
        *,
        target: bytes | None = None,
        preserve: Preserve | None = None,
        delete: bool = True,
        rules: Sequence[Rule] = (),
        delete_excluded: bool = False,
        extra_args: Sequence[bytes] = (),
        bandwidth_bytes_per_s: float = math.inf,
        one_file_system: bool = False,
        dry_run: bool = False,
        big: Callable[[int, Change, float], float] | None = None,
        ssh: Sequence[bytes] = COMMAND,
        password_file: bytes = b"",
        max_delete: MaxDelete | None = None,
        mounts: Sequence[Mount] = (),
    ) -> RsyncEngine:
        fd = os.open(self.source, os.O_RDONLY | os.O_DIRECTORY)
        self._fds.append(fd)
        mounted = Mounted(fd)
        mounted.mounts = mounts
        self._mounted.append(mounted)
        return RsyncEngine(
            os.fsencode(self.source),
            os.fsencode(self.target) if target is None else target,
            source_fd=fd,
            preserve=preserve or Preserve(),
            delete=delete,
            rules=rules,
            delete_excluded=delete_excluded,
            extra_args=extra_args,
            bandwidth_bytes_per_s=bandwidth_bytes_per_s,
            one_file_system=one_file_system,
            dry_run=dry_run,
            max_delete=max_delete or MaxDelete(),
            big=big,
            ssh=ssh,
            password_file=password_file,
            mounted=mounted,
        )

    def sync(
        self,
        engine: RsyncEngine,
        *changes: Change,
        flushing: bool = False,
        deletions: Deletions = Deletions.LIMITED,
    ) -> Outcome:
        """Open, bring one batch over, close."""

        async def once() -> Outcome:
            try:
                await engine.open()
                return await engine.sync(replace(batch(*changes, flushing=flushing), deletions=deletions))
            finally:
                await engine.close()

        return run(once())

    def assert_equal(self) -> None:
        here, there = state(self.source), state(self.target)
        unequal = {
            name: (here.get(name), there.get(name)) for name in here | there if here.get(name) != there.get(name)
        }
        assert not unequal, unequal

    def close(self) -> None:
        for mounted in self._mounted:
            mounted.close()
        for fd in self._fds:
            os.close(fd)


def run(work: Coroutine[object, object, T]) -> T:
    return asyncio.run(work)


def assert_done(outcome: Outcome) -> None:
    assert (outcome.failures, outcome.postponed, outcome.away, outcome.full) == ([], [], None, None)


def descendants(pid: int) -> list[int]:
    """The processes below this one; those that end meanwhile are left out."""
    found = []
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            found += [int(child), *descendants(int(child))]
    return found


@contextlib.contextmanager
def standing_still() -> Iterator[None]:
    """All that we have started stops, and goes on afterwards."""
    stopped = descendants(os.getpid())
    try:
        for pid in stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
