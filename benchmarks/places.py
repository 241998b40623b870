"""File systems to measure on: tmpfs, and a journalling one without neighbours."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

_IMAGE_BYTES = 6 << 30
_TMPFS = "/dev/shm"


@dataclass(frozen=True, slots=True)
class Place:
    """Directories to work in."""

    name: str
    path: str
    far: str
    """Stands for one on another host: on a file system of its own where that can be made. What is written there must
    not be seen by who watches the whole of this one."""


@contextlib.contextmanager
def places(base: str | None, *, image_bytes: int = _IMAGE_BYTES) -> Iterator[list[Place]]:
    """A tmpfs and an ext4, as root both without neighbours; or just ``base``. All in them is removed at the end."""
    with contextlib.ExitStack() as stack:
        if base is not None:
            scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="instep-bench-", dir=base))
            yield [Place(os.path.basename(os.path.abspath(base)) or "/", scratch, scratch)]
            return
        memory = _TMPFS if os.access(_TMPFS, os.W_OK) else None
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="instep-bench-", dir=memory))
        # A mark on a whole file system reports what neighbours do there too.
        own, other = (
            stack.enter_context(_mounted(f"{scratch}/{name}", "-t", "tmpfs", "-o", "size=80%,nr_inodes=0"))
            for name in ("tmpfs", "far")
        )
        name = "tmpfs" if own else "tmpfs, shared" if memory else "temporary directory"
        own = own or _made(f"{scratch}/shared")
        disk = stack.enter_context(_loop_ext4(scratch, image_bytes))
        disk_name = "ext4" if disk else "disk"
        disk = disk or stack.enter_context(tempfile.TemporaryDirectory(prefix="instep-bench-", dir="/var/tmp"))
        yield [Place(name, own, other or own), Place(disk_name, disk, other or disk)]


def _made(directory: str) -> str:
    os.mkdir(directory)
    return directory


@contextlib.contextmanager
def _mounted(point: str, *arguments: str, device: str = "none") -> Iterator[str | None]:
    """A file system of its own for as long as the context lasts; None where it cannot be mounted."""
    mounted = False
    if os.geteuid() == 0 and shutil.which("mount"):
        os.mkdir(point)
        mounted = subprocess.run(["mount", *arguments, device, point], capture_output=True, check=False).returncode == 0
    try:
        yield point if mounted else None
    finally:
        if mounted:
            subprocess.run(["umount", "-l", point], check=False)


@contextlib.contextmanager
def _loop_ext4(scratch: str, image_bytes: int) -> Iterator[str | None]:
    """An ext4 in an image in memory, with its own journal; None where that cannot be done."""
    if os.geteuid() != 0 or not shutil.which("mkfs.ext4"):
        yield None
        return
    image = f"{scratch}/ext4.img"
    with open(image, "wb") as file:
        file.truncate(image_bytes)
    # Nothing is put off to a background thread, which would write through the first measurements.
    eager = "lazy_itable_init=0,lazy_journal_init=0"
    subprocess.run(
        ["mkfs.ext4", "-q", "-F", "-i", "8192", "-m", "0", "-E", eager, image], capture_output=True, check=False
    )
    with _mounted(f"{scratch}/ext4", "-o", "loop", device=image) as point:
        yield point
