"""instep that dies in the middle of its work: ``python crashing.py mirror …`` is ``instep mirror …`` killed at a step.

A step is whatever changes something or decides that something was changed: every system call that writes, in the daemon
and in its workers, the start and end of a batch, each rsync and each line of it. Its name is ``ROLE:WHAT``. Steps count
while the file ``INSTEP_ARMED`` exists; at the n-th step of the name in ``INSTEP_CRASH`` (``ROLE:WHAT:n``) the daemon is
killed by SIGKILL, before the step is taken. The names of all steps go to the file ``INSTEP_STEPS``.
"""

from __future__ import annotations

import collections
import functools
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

WRITING = ("link", "mkdir", "mknod", "remove", "rename", "replace", "rmdir", "symlink", "truncate", "unlink", "utime")
WRITING_BY_FD = ("chmod", "chown", "fchmod", "fchown", "ftruncate", "removexattr", "sendfile", "setxattr", "write")

_armed = os.environ.get("INSTEP_ARMED", "/nonexistent")
_steps = os.environ.get("INSTEP_STEPS", "")
_crash = os.environ.get("INSTEP_CRASH", "")
_counts: collections.Counter[str] = collections.Counter()
_open, _write, _close, _kill, _exists = os.open, os.write, os.close, os.kill, os.path.exists


def step(role: str, what: str) -> None:
    """The next step is this; perhaps it is never taken."""
    if not _exists(_armed):
        return
    name = f"{role}:{what}"
    _counts[name] += 1
    if _steps:
        trace = _open(_steps, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        _write(trace, f"{name}\n".encode())
        _close(trace)
    if f"{name}:{_counts[name]}" == _crash:
        _kill(os.getpid() if role == "daemon" else os.getppid(), signal.SIGKILL)


def arm(role: str) -> None:
    """Let every writing system call of this process be a step."""

    def counted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(real)
        def call(*args: Any, **named: Any) -> Any:
            step(role, name)
            return real(*args, **named)

        return call

    def opened(path: Any, flags: int, *args: Any, **named: Any) -> int:
        if flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR):
            step(role, "open")
        return _open(path, flags, *args, **named)

    for name in (*WRITING, *WRITING_BY_FD):
        setattr(os, name, counted(name, getattr(os, name)))
    os.open = opened


def _wrap_engines() -> None:
    from instep.daemon import build

    real = build.build_engine

    def made(*args: Any) -> Any:
        engine: Any = real(*args)
        now, later = engine.sync_now, engine.sync

        def sync_now(batch: Any) -> Any:
            step("daemon", "batch")
            outcome, rest = now(batch)
            step("daemon", "rest" if rest else "done-at-once")
            return outcome, rest

        async def sync(batch: Any) -> Any:
            outcome = await later(batch)
            step("daemon", "done")
            return outcome

        engine.sync_now, engine.sync = sync_now, sync
        return engine

    setattr(build, "build_engine", made)  # noqa: B010  # mypy knows its type


def _wrap_workers() -> None:
    from instep import workers

    before, found, after = workers._START.partition("from {module} ")
    assert found
    here = os.path.dirname(os.path.abspath(__file__))
    workers._START = f"{before}sys.path.append({here!r}); import crashing; crashing.arm('worker'); {found}{after}"


def _wrap_rsync() -> None:
    from instep.engines.rsync import process

    real = process.run

    async def run(*args: Any, **named: Any) -> Any:
        on_line = named.pop("on_line")

        def line(text: bytes) -> None:
            step("daemon", "rsync-line")
            on_line(text)

        step("daemon", "rsync")
        status = await real(*args, on_line=line, **named)
        step("daemon", "rsync-ended")
        return status

    setattr(process, "run", run)  # noqa: B010  # mypy knows its type


def main() -> int:
    """Run instep."""
    from instep.__main__ import main as instep

    _wrap_engines()
    _wrap_workers()
    _wrap_rsync()
    arm("daemon")
    return instep()


if __name__ == "__main__":
    sys.exit(main())
