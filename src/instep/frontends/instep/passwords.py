"""The file with the password for rsync daemons: refused before the start if rsync would refuse it, or others read it.

Facts: rsync ends a run when others may read the file, or when root runs it and the file is not root's (authenticate.c
says so in its errors); a mirror would then be away for ever. The password is the first line. Here the group may not
read it either.
"""

from __future__ import annotations

import os
import stat

from instep.errors import UsageError
from instep.frontends.instep.output import escaped
from instep.spec import MirrorSpec

_LINE_BYTES = 4096


def password_file(spec: MirrorSpec) -> None:
    """Check the file that the mirror names. The password itself is neither kept nor shown.

    Raises:
        UsageError: no target needs it, it cannot be read, holds nothing, or is not safe.
    """
    path = spec.password_file
    name = escaped(path)
    if not any(target.is_daemon for target in spec.targets):
        raise UsageError(
            "options-clash",
            "--password-file does nothing without an rsync daemon among the targets",
            fix="drop it; ssh takes keys",
        )
    try:
        # Without O_NONBLOCK the open of a FIFO would never end.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            info = os.fstat(file.fileno())
            first = file.readline(_LINE_BYTES).strip() if stat.S_ISREG(info.st_mode) else b""
    except OSError as error:
        raise UsageError(
            "no-password-file", f"cannot read the password file {name}: {error.strerror}", fix="give a readable file"
        ) from error
    if not first:
        raise UsageError(
            "no-password-file", f"the password file {name} holds no password", fix="write it into the first line"
        )
    if info.st_uid != os.geteuid():
        raise UsageError(
            "unsafe-password-file",
            f"the password file {name} belongs to another user (uid {info.st_uid})",
            fix=f"chown {os.geteuid()} {name}",
        )
    if info.st_mode & 0o077:
        raise UsageError("unsafe-password-file", f"others may read the password file {name}", fix=f"chmod 600 {name}")
