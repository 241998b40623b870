"""The inotify system calls, their constants and the layout of their events.

Facts (inotify(7); measured on Linux 6.18): ``struct inotify_event`` is {int32 wd; uint32 mask, cookie, len; char
name[len]}, the name padded with NUL; a buffer too small for the next event reads as EINVAL, 272 bytes hold any. A mask
has its highest bit in use, so it must travel as an unsigned int. A watch added again on the same inode answers with the
same descriptor. Descriptors grow and are not used again soon. add_watch on ``/proc/self/fd/N`` watches exactly the
object that is open, whatever happened to its name.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import struct

from instep.linux.libc import failure, libc

IN_MODIFY = 0x2
IN_ATTRIB = 0x4
IN_CLOSE_WRITE = 0x8
IN_MOVED_FROM = 0x40
IN_MOVED_TO = 0x80
IN_CREATE = 0x100
IN_DELETE = 0x200
IN_DELETE_SELF = 0x400
IN_MOVE_SELF = 0x800
IN_UNMOUNT = 0x2000
IN_Q_OVERFLOW = 0x4000
IN_IGNORED = 0x8000
IN_ONLYDIR = 0x0100_0000
IN_ISDIR = 0x4000_0000

EVENT = struct.Struct("iIII")
"""wd, mask, cookie, len; ``len`` bytes of name follow."""
EVENT_BYTES_MAX = EVENT.size + 256


@functools.cache
def _calls() -> tuple[ctypes._NamedFuncPointer, ctypes._NamedFuncPointer, ctypes._NamedFuncPointer]:
    c = libc()
    init1, add, remove = c.inotify_init1, c.inotify_add_watch, c.inotify_rm_watch
    add.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)
    remove.argtypes = (ctypes.c_int, ctypes.c_int)
    return init1, add, remove


def open_queue() -> int:
    """A new inotify instance, not blocking. The caller closes it.

    Raises:
        OSError: EMFILE, the user's limit of instances is reached.
    """
    fd: int = _calls()[0](os.O_NONBLOCK | os.O_CLOEXEC)
    if fd < 0:
        raise failure()
    return fd


def add_watch(queue: int, directory: int, mask: int) -> int:
    """Watch the directory that is open as ``directory``; its watch descriptor.

    Raises:
        OSError: ENOSPC, the user's limit of watches is reached; EACCES, it may not be read.
    """
    wd: int = _calls()[1](queue, b"/proc/self/fd/%d" % directory, mask)
    if wd < 0:
        if ctypes.get_errno() == errno.ENOENT:
            return _add_watch_without_proc(queue, directory, mask)
        raise failure()
    return wd


def _add_watch_without_proc(queue: int, directory: int, mask: int) -> int:
    """The same where there is no /proc, as in a changed root: by standing in the directory meanwhile."""
    here = os.open(b".", os.O_PATH | os.O_CLOEXEC)
    try:
        os.fchdir(directory)
        wd: int = _calls()[1](queue, b".", mask)
        if wd < 0:
            raise failure()
        return wd
    finally:
        os.fchdir(here)
        os.close(here)


def remove_watch(queue: int, wd: int) -> None:
    """Give a watch back; that it is gone already is no error."""
    _calls()[2](queue, wd)
