"""Forbidding devices to this process: it moves to a control group of its own, in which only a few can be opened.

Facts: the devices controller of cgroup v1 takes lines ``c MAJOR:MINOR rwm`` in ``devices.deny`` and ``devices.allow``
(Documentation/admin-guide/cgroup-v1/devices.rst). cgroup v2 has no files for that: a BPF program of the type
BPF_PROG_TYPE_CGROUP_DEVICE is attached to a group, and is asked with {u32 access << 16 | type; u32 major; u32 minor}
(linux/bpf.h); it holds for as long as the group exists. Groups are inherited by what is started. Only opening and
making a device is asked for: what is open stays so. A group can be removed when no process is in it any more.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import struct
from typing import NamedTuple

from instep.linux.libc import failure, libc

NAME = b"instep"
"""The group that holds those of each process."""


class Device(NamedTuple):
    """A character device, and how it may be opened."""

    major: int
    minor: int
    access: str
    """Of ``r`` and ``w``."""


ALLOWED = (
    Device(1, 3, "rw"),  # null
    Device(1, 5, "r"),  # zero
    Device(1, 8, "r"),  # random
    Device(1, 9, "r"),  # urandom
    Device(5, 1, "rw"),  # console
)

_READ, _WRITE = 2, 4  # BPF_DEVCG_ACC_*
_CHARACTER = 2  # BPF_DEVCG_DEV_CHAR
_NR_BPF = {"x86_64": 321}
_NR_BPF_GENERIC = 280
_PROG_LOAD, _PROG_ATTACH = 5, 8
_PROG_TYPE_CGROUP_DEVICE = 15
_CGROUP_DEVICE = 6
_ALLOW_MULTI = 2

_INSTRUCTION = struct.Struct("=BBhi")
_MOUNT = re.compile(rb"^\d+ \d+ \S+ (\S+) (\S+) \S+ .*?- (cgroup2?) \S+ (\S+)$", re.MULTILINE)


class Hierarchy(NamedTuple):
    """Where groups are made."""

    group: bytes
    """The directory of the group that this process is in."""
    unified: bool
    """cgroup v2."""


def hierarchies() -> list[Hierarchy]:
    """Those in which devices can be forbidden, the one to be preferred first; empty where there is none.

    Raises:
        OSError: there is no /proc.
    """
    with open("/proc/self/mountinfo", "rb") as file:
        mounts = [found.groups() for found in _MOUNT.finditer(file.read())]
    with open("/proc/self/cgroup", "rb") as file:
        rows = [line.rstrip(b"\n").split(b":", 2) for line in file]
    found = []
    for number, controllers, path in rows:
        unified = number == b"0" and not controllers
        if not unified and b"devices" not in controllers.split(b","):
            continue
        for root, point, kind, options in mounts:
            fits = kind == b"cgroup2" if unified else kind == b"cgroup" and b"devices" in options.split(b",")
            if fits and (path + b"/").startswith(root.rstrip(b"/") + b"/"):
                below = path[len(root.rstrip(b"/")) :].strip(b"/")
                found.append(Hierarchy(os.path.join(point, below) if below else point, unified))
                break
    return sorted(found)  # v1 first: it can be looked into, and needs no BPF


class Group:
    """A control group in which only ``ALLOWED`` can be opened; it works in a changed root as well.

    Whoever has entered it cannot remove it: that is done by the next process that makes one.
    """

    def __init__(self, hierarchy: Hierarchy, name: bytes | None = None) -> None:
        """Make it, for this process; those that earlier processes left are removed on the way.

        Args:
            hierarchy: where.
            name: a relative path there; None: one of its own, below ``NAME``.

        Raises:
            OSError: it cannot be made or filled; EBUSY: there are processes in the one of this name.
        """
        above = os.path.join(hierarchy.group, NAME)
        self._name = os.path.join(NAME, b"%d" % os.getpid()) if name is None else name
        self._top = os.open(hierarchy.group, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._door = -1
        try:
            group = os.path.join(hierarchy.group, self._name)
            if name is None:
                _make(above, group)
                _sweep(above)
            else:
                _take(group)
            self._door = os.open(os.path.join(group, b"cgroup.procs"), os.O_WRONLY | os.O_CLOEXEC)
            if hierarchy.unified:
                _attach(group)
            else:
                _write(os.path.join(group, b"devices.deny"), b"a")
                for device in ALLOWED:
                    line = f"c {device.major}:{device.minor} {device.access}"
                    _write(os.path.join(group, b"devices.allow"), line.encode())
        except OSError:
            self.remove()
            raise

    def enter(self) -> None:
        """Move this process into it, with all its threads; whatever it starts is in it too.

        Raises:
            OSError: not permitted.
        """
        os.write(self._door, b"0")

    def remove(self) -> None:
        """Remove it if no process is in it, and what holds those of all processes if it was the last; once."""
        for name in (self._name, os.path.dirname(self._name)):
            with contextlib.suppress(OSError):
                os.rmdir(name, dir_fd=self._top)
        self.forget()

    def forget(self) -> None:
        """Leave it as it is, for whoever else knows of it."""
        for fd in (self._top, self._door):
            if fd >= 0:
                os.close(fd)
        self._top = self._door = -1


def _make(above: bytes, group: bytes) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkdir(above, 0o755)
    try:
        os.mkdir(group, 0o755)
    except FileNotFoundError:  # Another process has just removed what it thought was empty.
        os.makedirs(group, 0o755)


def _take(group: bytes) -> None:
    """Make a group that was named, with those above it; one that is there and empty is made anew."""
    os.makedirs(os.path.dirname(group), 0o755, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(group)
    os.mkdir(group, 0o755)


def _sweep(above: bytes) -> None:
    """Remove the groups of processes that are gone."""
    for name in os.listdir(above):
        if not name.isdigit():
            continue
        try:
            os.kill(int(name), 0)
        except ProcessLookupError:
            with contextlib.suppress(OSError):
                os.rmdir(os.path.join(above, name))
        except OSError:
            pass


def _write(path: bytes, text: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error
    finally:
        os.close(fd)


def _attach(group: bytes) -> None:
    """Ask our program for every device that a process of this group opens."""
    code = _program()
    text = ctypes.create_string_buffer(code, len(code))
    licence = ctypes.create_string_buffer(b"MIT")
    loaded = struct.pack(
        "=IIQQ",
        _PROG_TYPE_CGROUP_DEVICE,
        len(code) // _INSTRUCTION.size,
        ctypes.addressof(text),
        ctypes.addressof(licence),
    )
    program = _bpf(_PROG_LOAD, loaded)
    try:
        fd = os.open(group, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _bpf(_PROG_ATTACH, struct.pack("=IIII", fd, program, _CGROUP_DEVICE, _ALLOW_MULTI))
        finally:
            os.close(fd)
    finally:
        os.close(program)


def _bpf(command: int, attributes: bytes) -> int:
    """bpf(2); it takes less than the whole of its union for zeros."""
    number = _NR_BPF.get(os.uname().machine, _NR_BPF_GENERIC)
    handed = ctypes.create_string_buffer(attributes.ljust(128, b"\0"), 128)
    result: int = libc().syscall(number, command, handed, 128)
    if result < 0:
        if ctypes.get_errno() == errno.ENOSYS:
            raise OSError(errno.ENOSYS, "the kernel has no bpf(2)")
        raise failure()
    return result


def _program() -> bytes:
    """In BPF: r2 type, r3 access, r4 major, r5 minor; r0 the answer, 1 to allow."""

    def instruction(code: int, destination: int = 0, source: int = 0, offset: int = 0, value: int = 0) -> bytes:
        return _INSTRUCTION.pack(code, source << 4 | destination, offset, value)

    load, move, copy, mask, shift, unlike, end = 0x61, 0xB7, 0xBF, 0x57, 0x77, 0x55, 0x95
    code = [
        instruction(load, 2, 1, 0),
        instruction(copy, 3, 2),
        instruction(mask, 2, value=0xFFFF),
        instruction(shift, 3, value=16),
        instruction(load, 4, 1, 4),
        instruction(load, 5, 1, 8),
    ]
    for device in ALLOWED:
        may = (_READ if "r" in device.access else 0) | (_WRITE if "w" in device.access else 0)
        code += [
            instruction(unlike, 2, offset=7, value=_CHARACTER),
            instruction(unlike, 4, offset=6, value=device.major),
            instruction(unlike, 5, offset=5, value=device.minor),
            instruction(copy, 6, 3),
            instruction(mask, 6, value=~may),
            instruction(unlike, 6, offset=2, value=0),
            instruction(move, 0, value=1),
            instruction(end),
        ]
    return b"".join([*code, instruction(move, 0, value=0), instruction(end)])
