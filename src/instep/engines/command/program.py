"""Running one program: started, fed, waited for, and ended when its time is over.

Facts: a process group of its own keeps an interrupt typed at the terminal from the program, and lets all that it
started be ended with it. Standard input comes from a memory file: a program that never reads it holds up nobody.
Python leaves SIGPIPE ignored, and ignored signals outlive an exec (signal(7)); ``subprocess`` restores that one.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
import subprocess
from collections.abc import Callable, Coroutine
from typing import IO

from instep.engines.command.launcher import Launcher
from instep.engines.command.listfiles import list_files
from instep.linux import spawn
from instep.linux.memory import anonymous_file, memory_file
from instep.model import Program, ProgramEnd

CANNOT_START = 127
"""What shells answer for a program that is not there."""
GRACE_S = 5.0
"""How long a program that was asked to end may take before it is killed. Guessed."""

_Process = subprocess.Popen[bytes] | spawn.Spawned
Interruption = Callable[[int], None]
"""Sends the signal of this number to a program and all that it started; nothing if it has ended."""


async def run(
    program: Program,
    *,
    umask: int,
    launcher: Launcher | None = None,
    started: Callable[[Interruption], None] | None = None,
) -> ProgramEnd:
    """Run a program to its end. When cancelled, it is left running: whoever needs it gone has set ``timeout_s``.

    Args:
        program: what to run.
        umask: the one it gets, and the list files that are made for it.
        launcher: what starts it, as whom it starts everything; None: we do, as whom the program says.
        started: given, as soon as it runs, what sends a signal to it and all that it started.
    """
    return await begin(program, umask=umask, launcher=launcher, started=started)


def begin(
    program: Program,
    *,
    umask: int,
    is_our_umask: bool = False,
    launcher: Launcher | None = None,
    started: Callable[[Interruption], None] | None = None,
) -> Coroutine[None, None, ProgramEnd]:
    """Start a program at once; what is to be awaited for its end. Arguments as for ``run``.

    Args:
        program: as there.
        umask: as there.
        is_our_umask: this process works with the same one.
        launcher: as there.
        started: as there.
    """
    files = contextlib.ExitStack()
    if program.files:
        try:
            files.enter_context(list_files(program.files, umask=umask))
        except OSError as error:
            return _never_began(files, f"cannot make its list: {error.strerror}")
    try:
        stdin = None if program.stdin is None else files.enter_context(memory_file(program.stdin))
        keep = files.enter_context(anonymous_file()) if program.capture_bytes else None
        output = keep or (None if program.output is None else files.enter_context(_appending(program.output)))
        process: _Process
        if launcher is None and is_our_umask and _differs_in_words_only(program) and spawn.is_available():
            process = spawn.spawn(program.argv, stdin=stdin, output=None if output is None else output.fileno())
        else:
            start = functools.partial(_start, program, stdin, output, umask, changes=launcher is None)
            process = start() if launcher is None else launcher.call(start)  # vfork and exec: 1 ms
    except (OSError, ValueError) as error:
        # ValueError: a word with a NUL in it.
        number = error.errno or 0 if isinstance(error, OSError) else 0
        return _never_began(files, getattr(error, "strerror", None) or str(error), number)
    interrupt = functools.partial(_interrupt, process, launcher)
    if started is not None:
        started(interrupt)
    return _end(program, process, files, keep, interrupt)


async def _never_began(files: contextlib.ExitStack, trouble: str, number: int = 0) -> ProgramEnd:
    files.close()
    return ProgramEnd(CANNOT_START, trouble=trouble, errno=number)


async def _end(
    program: Program,
    process: _Process,
    files: contextlib.ExitStack,
    keep: IO[bytes] | None,
    interrupt: Interruption,
) -> ProgramEnd:
    with files:
        timed_out = not await _ended(process, program.timeout_s, interrupt)
        kept = b""
        if keep is not None:
            keep.seek(0)
            kept = keep.read(program.capture_bytes)
    code = process.returncode
    assert code is not None
    if code < 0:
        return ProgramEnd(128 - code, signal=-code, output=kept, timed_out=timed_out)
    return ProgramEnd(code, output=kept, timed_out=timed_out)


def _differs_in_words_only(program: Program) -> bool:
    """Whether all but its words, its standard input and its output is as it is with us."""
    return not program.environment and program.directory is None and program.user is None and program.group is None


def _start(
    program: Program, stdin: int | None, output: IO[bytes] | None, umask: int, *, changes: bool
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        program.argv,
        stdin=stdin,
        stdout=output,
        stderr=output,
        env={**os.environb, **program.environment} if program.environment else None,
        cwd=program.directory,
        user=program.user if changes else None,  # costs a fork
        group=program.group if changes else None,
        process_group=0,
        umask=umask,
    )


def _interrupt(process: _Process, launcher: Launcher | None, number: int) -> None:
    if process.returncode is not None:
        return  # Buried: its number may be somebody else's by now.
    kill = functools.partial(os.killpg, process.pid, number)
    with contextlib.suppress(ProcessLookupError):
        if launcher is None:
            kill()
        else:
            launcher.call(kill)  # Who may start it may also end it.


def _appending(path: bytes) -> IO[bytes]:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, 0o644), "ab")  # whatever the umask: mirrors work without one


async def _ended(process: _Process, timeout_s: float, interrupt: Interruption) -> bool:
    """Wait for its end, and bury it; False when it had to be ended."""
    loop = asyncio.get_running_loop()
    in_time = True
    timer: asyncio.TimerHandle | None = None

    def end(number: int) -> None:
        nonlocal in_time, timer
        in_time = False
        interrupt(number)
        if number != signal.SIGKILL:
            timer = loop.call_later(GRACE_S, end, signal.SIGKILL)

    if timeout_s != float("inf"):
        timer = loop.call_later(timeout_s, end, signal.SIGTERM)
    try:
        await _exit(process)
    finally:
        if timer is not None:
            timer.cancel()
    return in_time


async def _exit(process: _Process) -> None:
    """Wait without a thread where the kernel allows."""
    loop = asyncio.get_running_loop()
    try:
        pidfd = os.pidfd_open(process.pid)
    except (AttributeError, OSError):
        # Shielded: a cancelled wait must not leave a thread that reaps the child behind our back.
        await asyncio.shield(loop.run_in_executor(None, process.wait))
        return
    gone = loop.create_future()
    loop.add_reader(pidfd, lambda: None if gone.done() else gone.set_result(None))
    try:
        await gone
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)
    process.wait()
