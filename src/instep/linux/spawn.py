"""Starting a program with as little as possible between the decision and its first instruction: posix_spawn(3).

Facts (measured): ``subprocess`` takes 0.1 ms more when it has just been used, and 0.5 ms more when it has not for a
while. The C library starts programs by vfork as well, and tells in its answer why one cannot be started. Descriptors
that others than Python opened (Lua, its modules) do not close at exec: those above the first three are closed here.
"""

from __future__ import annotations

import ctypes
import functools
import os
import signal
from collections.abc import Sequence

from instep.linux.libc import lacks, libc

_SETPGROUP = 0x02
_SETSIGDEF = 0x04
_STRUCT_BYTES = 1024
"""More than the attributes (336 in glibc on 64 bits), the actions (80), and a set of signals (128) take."""
_DEFAULTS = (signal.SIGPIPE, signal.SIGXFSZ)
"""Python ignores them, and ignored signals outlive an exec."""


@functools.cache
def is_available() -> bool:
    """Whether the C library can close what must not be inherited (glibc from 2.34 on)."""
    return not lacks("posix_spawn_file_actions_addclosefrom_np")


class Spawned:
    """A child that was started here, until it has been waited for."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        """As ``subprocess`` has it: -N when signal N ended it."""

    def wait(self) -> int:
        """Bury it. Blocks until it has ended."""
        if self.returncode is None:
            _, status = os.waitpid(self.pid, 0)
            self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


def spawn(argv: Sequence[bytes], *, stdin: int | None = None, output: int | None = None) -> Spawned:
    """Start a program, looked up in PATH, in a process group of its own; environment, directory and umask are ours.

    Args:
        argv: its words.
        stdin: what it reads; None: our own standard input.
        output: where it prints to, errors too; None: where we do.

    Raises:
        OSError: it cannot be started.
        ValueError: a word has a NUL in it.
    """
    if any(b"\0" in word for word in argv):
        raise ValueError("embedded null byte")
    words = (ctypes.c_char_p * (len(argv) + 1))(*argv)
    pid = ctypes.c_int()
    c = libc()
    actions = ctypes.create_string_buffer(_STRUCT_BYTES)
    c.posix_spawn_file_actions_init(actions)
    try:
        if stdin is not None:
            c.posix_spawn_file_actions_adddup2(actions, stdin, 0)
        if output is not None:
            c.posix_spawn_file_actions_adddup2(actions, output, 1)
            c.posix_spawn_file_actions_adddup2(actions, output, 2)
        c.posix_spawn_file_actions_addclosefrom_np(actions, 3)
        environment = ctypes.c_void_p.in_dll(c, "environ")
        place = _place(argv[0])
        number = c.posix_spawnp(ctypes.byref(pid), place, actions, _attributes(), words, environment)
        if number and place != argv[0]:
            number = c.posix_spawnp(ctypes.byref(pid), argv[0], actions, _attributes(), words, environment)
    finally:
        c.posix_spawn_file_actions_destroy(actions)
    if number:
        raise OSError(number, os.strerror(number))
    return Spawned(pid.value)


def _place(name: bytes) -> bytes:
    """Where a program seems to be, else its name. Each place where the C library tries in vain is an exec in vain."""
    if b"/" not in name:
        for directory in os.environb.get(b"PATH", b"").split(b":"):
            place = directory + b"/" + name
            if not directory:
                break  # Where we are, of old: left to the C library.
            if os.access(place, os.X_OK):
                return place
    return name


@functools.cache
def _attributes() -> ctypes.Array[ctypes.c_char]:
    c = libc()
    signals = ctypes.create_string_buffer(_STRUCT_BYTES)
    c.sigemptyset(signals)
    for number in _DEFAULTS:
        c.sigaddset(signals, int(number))
    attributes = ctypes.create_string_buffer(_STRUCT_BYTES)
    c.posix_spawnattr_init(attributes)
    c.posix_spawnattr_setsigdefault(attributes, signals)
    c.posix_spawnattr_setpgroup(attributes, 0)
    c.posix_spawnattr_setflags(attributes, ctypes.c_short(_SETPGROUP | _SETSIGDEF))
    return attributes
