"""fanotify(7) reporting directory handles with names: the calls, the masks, the layout of an event.

Facts (fanotify(7), fanotify_init(2), fanotify_mark(2), kernel 6.18; marked * where measured here):

- A FAN_MARK_FILESYSTEM mark covers a whole superblock at once: no walk, whatever is created later included. It needs
  CAP_SYS_ADMIN, as does FAN_UNLIMITED_QUEUE. FAN_REPORT_TARGET_FID with FAN_RENAME needs Linux 5.17.
- The mark is refused with EXDEV on a btrfs subvolume, ENODEV where statfs(2) gives no id (FUSE, NFS), EOPNOTSUPP where
  there are no file handles (overlay, proc, ramfs). *
- The mask is 64 bits wide: without ``argtypes`` ctypes would pass an int.
- Since Linux 6.0 an ignoring mark on a directory (FAN_MARK_IGNORE with FAN_EVENT_ON_CHILD) keeps from a group what is
  made, written, changed or renamed in it, though the file system is marked; but for FAN_ATTRIB of an unlinked file,
  which is told of the file alone. Setting and removing it takes 4 to 7 us each. *
- An event is 24 bytes (u32 length, u8 version 3, u8, u16 metadata length 24, u64 mask, s32 fd -1, s32 pid), then
  records: u8 type, u8, u16 length, u64 fsid, u32 handle_bytes, s32 handle_type, the handle, for the types with a name
  the name with a NUL. Lengths are multiples of 4, all of it in the machine's byte order. The order of the records is
  not promised.
- An overflow is an event without records. With FAN_UNLIMITED_QUEUE only a failed allocation causes one.
- Events of one object, name and process merge while unread, wherever they stand in the queue, so neither the order of
  the bits in a mask nor that of two renames can be known. *
- ``read`` gives whole events, as many as fit. A buffer with room left for the largest event was filled from a queue
  that then was empty.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import struct
from collections.abc import Callable

from instep.linux.libc import failure, libc

FAN_CLOEXEC = 0x1
FAN_NONBLOCK = 0x2
FAN_UNLIMITED_QUEUE = 0x10
FAN_REPORT_FID = 0x200
FAN_REPORT_DIR_FID = 0x400
FAN_REPORT_NAME = 0x800
FAN_REPORT_TARGET_FID = 0x1000

FAN_MARK_ADD = 0x1
FAN_MARK_REMOVE = 0x2
FAN_MARK_IGNORED_SURV_MODIFY = 0x40
FAN_MARK_FLUSH = 0x80
FAN_MARK_FILESYSTEM = 0x100
FAN_MARK_EVICTABLE = 0x200
FAN_MARK_IGNORE = 0x400

FAN_MODIFY = 0x2
FAN_ATTRIB = 0x4
FAN_CLOSE_WRITE = 0x8
FAN_CREATE = 0x100
FAN_DELETE = 0x200
FAN_Q_OVERFLOW = 0x4000
FAN_EVENT_ON_CHILD = 0x08000000
FAN_RENAME = 0x10000000
FAN_ONDIR = 0x40000000

FAN_EVENT_INFO_TYPE_FID = 1
FAN_EVENT_INFO_TYPE_DFID_NAME = 2
FAN_EVENT_INFO_TYPE_DFID = 3
FAN_EVENT_INFO_TYPE_OLD_DFID_NAME = 10
FAN_EVENT_INFO_TYPE_NEW_DFID_NAME = 12

METADATA_BYTES = 24
METADATA_VERSION = 3
FILE_SYSTEM_ID_BYTES = 8

INIT_FLAGS = (
    FAN_CLOEXEC
    | FAN_NONBLOCK
    | FAN_UNLIMITED_QUEUE
    | FAN_REPORT_FID
    | FAN_REPORT_DIR_FID
    | FAN_REPORT_NAME
    | FAN_REPORT_TARGET_FID
)
EVERY_CHANGE = FAN_MODIFY | FAN_ATTRIB | FAN_CLOSE_WRITE | FAN_CREATE | FAN_DELETE | FAN_RENAME | FAN_ONDIR
"""MODIFY stands for truncate(2) and files kept open, CREATE for a linked O_TMPFILE, CLOSE_WRITE for mmap."""

_IGNORING = FAN_MARK_IGNORE | FAN_MARK_IGNORED_SURV_MODIFY | FAN_MARK_EVICTABLE

EVENT = struct.Struct("=I4xQ8xBxH8xI")
"""(event length, mask, type of the first record, its length, its handle_bytes): the first 40 bytes of an event."""

METADATA = struct.Struct("=IBxHQ8x")
"""(event length, version, metadata length, mask): all there is of an overflow."""

RECORD = struct.Struct("=BxH8xI")
"""(type, length, handle_bytes) of one record."""

EVENT_BYTES_MAX = 4096
"""More than the largest event: three records of 20 bytes, 128 of handle and 256 of name each."""


@functools.cache
def _calls() -> tuple[Callable[[int, int], int], Callable[[int, int, int, int, bytes | None], int]]:
    c = libc()
    c.fanotify_init.argtypes = (ctypes.c_uint, ctypes.c_uint)
    c.fanotify_mark.argtypes = (ctypes.c_int, ctypes.c_uint, ctypes.c_uint64, ctypes.c_int, ctypes.c_char_p)
    return c.fanotify_init, c.fanotify_mark


def init() -> int:
    """A new group's descriptor: does not block, unlimited queue, reports handles with names.

    Raises:
        OSError: EPERM without CAP_SYS_ADMIN, EINVAL before Linux 5.17, EMFILE at fs.fanotify.max_user_groups, ENOSYS.
    """
    try:
        call, _ = _calls()
    except AttributeError as error:  # A C library of another system.
        raise OSError(errno.ENOSYS, "no fanotify_init in the C library") from error
    fd = call(INIT_FLAGS, 0)
    if fd < 0:
        raise failure()
    return fd


def mark_file_system(group: int, fd: int, mask: int = EVERY_CHANGE) -> None:
    """Have every change on the file system that ``fd`` is on reported to ``group``; again is harmless.

    Raises:
        OSError: EPERM, EXDEV, ENODEV, EOPNOTSUPP (see above), ENOSPC at fs.fanotify.max_user_marks.
    """
    _, call = _calls()
    if call(group, FAN_MARK_ADD | FAN_MARK_FILESYSTEM, mask, fd, None) < 0:
        raise failure()


def ignore_in(group: int, directory: int) -> bool:
    """Keep from ``group`` what happens to the names in an open directory; False where the kernel cannot."""
    _, call = _calls()
    return call(group, FAN_MARK_ADD | _IGNORING, EVERY_CHANGE | FAN_EVENT_ON_CHILD, directory, None) == 0


def heed_in(group: int, directory: int) -> None:
    """Undo ``ignore_in``; without one before it nothing happens."""
    _, call = _calls()
    call(group, FAN_MARK_REMOVE | _IGNORING, EVERY_CHANGE | FAN_EVENT_ON_CHILD, directory, None)


def heed_everywhere(group: int) -> None:
    """Undo every ``ignore_in``, whoever did it; marks on file systems stay."""
    _, call = _calls()
    call(group, FAN_MARK_FLUSH, 0, -1, None)


def marked_devices(group: int) -> frozenset[int]:
    """The superblocks that ``group`` has marks on now: a mark goes, silently, with the last umount.

    Numbers as in ``Mount.device``. Source: the ``fanotify sdev:`` lines of proc_pid_fdinfo(5).
    """
    with open(f"/proc/self/fdinfo/{group}", "rb") as file:
        return frozenset(int(line[14:].split(None, 1)[0], 16) for line in file if line.startswith(b"fanotify sdev:"))
