"""Advisory locks that end with their process, and who holds them.

Facts: flock(2) locks an open file description, so a descriptor of a directory will do, opened for reading; the lock
goes when the last descriptor of it is closed, kill -9 included. Everybody who may open the directory meets that lock.
NFS turns LOCK_EX into a record lock, which needs a descriptor for writing (EBADF); some file systems have no locks at
all (ENOLCK, EOPNOTSUPP). /proc/locks (proc_locks(5)) shows to everybody the process and ``MAJOR:MINOR:INODE`` in hex,
hex and decimal; on btrfs that device is another than stat(2) tells, and processes of other containers show as 0.
A process that inherits such a descriptor keeps the lock when the one that took it is gone; /proc/PID/fdinfo shows on
which descriptors there is a lock, and who took it (0 in a container, once that one is gone).
"""

from __future__ import annotations

import errno
import fcntl
import os
import pwd
from typing import NamedTuple

_UNABLE = frozenset({errno.EBADF, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS})


class Process(NamedTuple):
    """A running process, as far as everybody may know it."""

    pid: int
    user: str
    command: str


def lock(fd: int) -> bool:
    """Take the exclusive lock at once; False where the file system has none.

    Raises:
        BlockingIOError: somebody else holds it.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno in _UNABLE:
            return False
        raise
    return True


def holder(fd: int) -> Process | None:
    """The process that holds the lock of this file; None where that cannot be told, or it is on its way out."""
    info = os.fstat(fd)
    here = f"{os.major(info.st_dev):02x}:{os.minor(info.st_dev):02x}:{info.st_ino}"
    try:
        with open("/proc/locks", encoding="ascii") as file:
            rows = [line.split() for line in file]
        pid = next(int(row[4]) for row in rows if len(row) > 5 and row[1] == "FLOCK" and row[5] == here)
        found = _process(pid) if pid > 0 else None
    except (OSError, StopIteration, ValueError):
        return None
    return found if found and found.command else None  # Whoever ends loses its words first, its files later.


def heirs(fd: int) -> list[int]:
    """The processes that hold this file's lock although the one that took it is gone: they have inherited it.

    Empty where that one lives, or where it cannot be told. Looks through all of /proc.
    """
    info = os.fstat(fd)
    found: set[int] = set()
    takers: set[int] = set()
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            numbers = os.listdir(f"/proc/{entry}/fd")
        except OSError:
            continue  # Gone, or somebody else's.
        for number in numbers:
            taker = _taker(entry, number, info)
            if taker is not None:
                found.add(int(entry))
                takers.add(taker)
    return [] if any(taker in found or _is_hidden(taker) for taker in takers) else sorted(found)


def _taker(pid: str, number: str, info: os.stat_result) -> int | None:
    """Who took the lock that is on this descriptor of a process; None where there is none on this file."""
    try:
        theirs = os.stat(f"/proc/{pid}/fd/{number}")
        if (theirs.st_dev, theirs.st_ino) != (info.st_dev, info.st_ino):
            return None
        with open(f"/proc/{pid}/fdinfo/{number}", encoding="ascii") as file:
            rows = [line.split() for line in file if line.startswith("lock:")]
        return next((int(row[5]) for row in rows if row[2] == "FLOCK"), None)
    except (OSError, ValueError, IndexError):
        return None


def _is_hidden(pid: int) -> bool:
    """Whether there is such a process, and what it holds is not for us to see."""
    try:
        os.listdir(f"/proc/{pid}/fd")
    except PermissionError:
        return True
    except OSError:
        pass
    return False


def _process(pid: int) -> Process:
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        words = file.read().split(b"\0")
    return Process(pid, user_name(os.stat(f"/proc/{pid}").st_uid), os.fsdecode(b" ".join(words)).strip())


def user_name(uid: int) -> str:
    """The name of a user, or the number where there is none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
