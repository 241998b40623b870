"""Whether the file of a module may be loaded: whoever can write to it would run as we do."""

from __future__ import annotations

import os
import stat

from instep.errors import ModuleRefused

EPERM, ENOENT = 1, 2
"""What clsync ends with."""
_CLOSED = stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX | stat.S_IWGRP | stat.S_IWOTH


def check_module(path: bytes) -> None:
    """See that it is a regular file that only its owner can write, and that the owner is us or root.

    Raises:
        ModuleRefused: it is not.
    """
    shown = os.fsdecode(path)
    try:
        info = os.stat(path)
    except OSError as error:
        what = f"the module {shown} cannot be read: {error.strerror}"
        fix = "give the path of the module as sync-handler"
        raise ModuleRefused("no-such-module", what, status=error.errno or ENOENT, fix=fix) from error
    if not stat.S_ISREG(info.st_mode):
        raise ModuleRefused("module-unsafe", f"the module {shown} is no regular file", status=EPERM)
    if info.st_uid not in {0, os.getuid(), os.geteuid()}:
        what = f"the module {shown} belongs to another user (uid {info.st_uid}), who could have anything run by it"
        raise ModuleRefused("module-unsafe", what, status=EPERM, fix=f"chown root {shown}")
    if info.st_mode & _CLOSED:
        mode = stat.S_IMODE(info.st_mode)
        what = f"the module {shown} has mode {mode:04o}: others may write to it, or it has special bits"
        raise ModuleRefused("module-unsafe", what, status=EPERM, fix=f"chmod {mode & 0o755:04o} {shown}")
