"""The program that loads shared objects: made from its C source by the machine's compiler when first needed, and kept.

It is kept under a name that depends on the source, in a directory that only its owner can write; where there is none,
it is made anew at each start. It is started by its descriptor, so it is what was looked at, wherever it lies.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator

from instep.errors import ToolMissing

INCLUDE = os.path.dirname(os.path.abspath(__file__))
"""Where ``clsyncapi.h`` is."""
COMPILERS = ("cc", "gcc", "clang")
FLAGS = ("-std=gnu11", "-O2", "-Wall", "-fPIE", "-pie", "-rdynamic")
COMPILE_S = 120.0
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_PACKAGES = "apt install gcc libc6-dev (Debian, Ubuntu), dnf install gcc (Fedora), apk add gcc musl-dev (Alpine)"


def open_host() -> int:
    """A descriptor of the program, to be closed by the caller; blocks for about half a second when it has to be made.

    Raises:
        ToolMissing: there is no compiler, or it fails.
    """
    name = f"clsync-host-{_version()}"
    for place in _places():
        if not _is_private(place):
            continue
        path = os.path.join(place, name)
        with contextlib.suppress(OSError):
            return _open_checked(path)
        with contextlib.suppress(OSError):
            _make(place, name)
            return _open_checked(path)
    with tempfile.TemporaryDirectory(prefix="instep-") as place:
        try:
            _make(place, name)
            return _open_checked(os.path.join(place, name))
        except OSError as error:
            raise _failed(str(error)) from error


def _version() -> str:
    digest = hashlib.sha256(repr((os.uname().machine, FLAGS)).encode())
    for name in ("host.c", "clsyncapi.h"):
        with open(os.path.join(INCLUDE, name), "rb") as file:
            digest.update(file.read())
    return digest.hexdigest()[:16]


def _places() -> Iterator[str]:
    """Where it may be kept, best first."""
    if os.geteuid() == 0:
        yield "/var/cache/instep"
        return
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    if os.path.isabs(home):
        yield os.path.join(home, "instep")


def _is_private(place: str) -> bool:
    """Whether it is a directory of ours that nobody else can write; made if it is not there."""
    try:
        os.makedirs(os.path.dirname(place), 0o755, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.mkdir(place, 0o755)
        info = os.lstat(place)
    except OSError:
        return False
    return stat.S_ISDIR(info.st_mode) and info.st_uid == os.geteuid() and not info.st_mode & _WRITABLE_BY_OTHERS


def _open_checked(path: str) -> int:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    info = os.fstat(fd)
    if stat.S_ISREG(info.st_mode) and info.st_uid == os.geteuid() and not info.st_mode & _WRITABLE_BY_OTHERS:
        return fd
    os.close(fd)
    raise PermissionError(f"{path} is not ours alone")


def _make(place: str, name: str) -> None:
    """Compile it, and give it its name when it is whole: two who do this at once do not disturb each other.

    Raises:
        ToolMissing: no compiler, or it fails.
        OSError: the place cannot be written.
    """
    compiler = next((found for each in COMPILERS if (found := shutil.which(each))), None)
    if compiler is None:
        raise ToolMissing(
            "no-compiler",
            "shared objects are loaded by a small program that is made from C source when first needed,"
            f" and there is no C compiler ({', '.join(COMPILERS)})",
            fix=f"install one: {_PACKAGES}; or use a Python module: mode py or rsyncpy",
        )
    with tempfile.TemporaryDirectory(prefix=".making-", dir=place) as making:
        made = os.path.join(making, name)
        source = os.path.join(INCLUDE, "host.c")
        try:
            run = subprocess.run(
                [compiler, *FLAGS, "-o", made, source, "-ldl"],
                cwd=making,
                env={**os.environ, "LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=COMPILE_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise _failed(f"it had not ended after {COMPILE_S:.0f} s") from error
        if run.returncode:
            raise _failed(run.stderr.decode(errors="backslashreplace").strip()[:2000])
        fd = os.open(made, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fchmod(fd, 0o755)
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(made, os.path.join(place, name))


def _failed(reason: str) -> ToolMissing:
    return ToolMissing(
        "compiler-failed",
        f"the small program that loads shared objects cannot be made: {reason}",
        fix=f"see that compiler and C headers are there: {_PACKAGES}; or use a Python module: mode py or rsyncpy",
    )
