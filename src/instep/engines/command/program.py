"""Running one program: started, fed, waited for, and ended when its time is over.

Facts: a process group of its own keeps an interrupt typed at the terminal from the program, and lets all that it
started be ended with it. Standard input comes from a memory file: a program that never reads it holds up nobody.
Python leaves SIGPIPE ignored, and ignored signals outlive an exec (signal(7)); ``subprocess`` restores that one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from typing import IO

from instep.linux.memory import anonymous_file, memory_file
from instep.model import Program, ProgramEnd

CANNOT_START = 127
"""What shells answer for a program that is not there."""
GRACE_S = 5.0
"""How long a program that was asked to end may take before it is killed. Guessed."""


async def run(program: Program, *, umask: int) -> ProgramEnd:
    """Run a program to its end. When cancelled, it is left running: whoever needs it gone has set ``timeout_s``.

    Args:
        program: what to run.
        umask: the one it gets.
    """
    with contextlib.ExitStack() as files:
        stdin = None if program.stdin is None else files.enter_context(memory_file(program.stdin))
        keep = files.enter_context(anonymous_file()) if program.capture_bytes else None
        try:
            output = None if program.output is None else files.enter_context(_appending(program.output))
            process = subprocess.Popen(  # noqa: ASYNC220  # vfork and exec: 1 ms; a thread would cost more
                program.argv,
                stdin=stdin,
                stdout=keep or output,
                stderr=keep or output,
                env={**os.environb, **program.environment} if program.environment else None,
                process_group=0,
                umask=umask,
            )
        except (OSError, ValueError) as error:
            # ValueError: a word with a NUL in it.
            return ProgramEnd(CANNOT_START, trouble=getattr(error, "strerror", None) or str(error))
        timed_out = not await _ended(process, program.timeout_s)
        kept = b""
        if keep is not None:
            keep.seek(0)
            kept = keep.read(program.capture_bytes)
    code = process.returncode
    if code < 0:
        return ProgramEnd(128 - code, signal=-code, output=kept, timed_out=timed_out)
    return ProgramEnd(code, output=kept, timed_out=timed_out)


def _appending(path: bytes) -> IO[bytes]:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, 0o644), "ab")  # whatever the umask: mirrors work without one


async def _ended(process: subprocess.Popen[bytes], timeout_s: float) -> bool:
    """Wait for its end; False when it had to be ended."""
    waiting = asyncio.ensure_future(_exit(process))
    for number, patience_s in ((0, timeout_s), (signal.SIGTERM, GRACE_S), (signal.SIGKILL, float("inf"))):
        if number:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
        done, _ = await asyncio.wait([waiting], timeout=None if patience_s == float("inf") else patience_s)
        if done:
            return number == 0
    raise AssertionError("waiting for ever has ended")


async def _exit(process: subprocess.Popen[bytes]) -> None:
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
