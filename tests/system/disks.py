"""Real file systems on loop devices, one of each kind for a test; disks that fail where a file stands."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

DISK_KINDS = ("ext4", "xfs", "btrfs")
IMAGE_BYTES = 512 << 20
"""xfs takes no less than 300 MB, and the image is sparse."""

AT_ONCE = {"ext4": ("-E", "lazy_itable_init=0,lazy_journal_init=0")}
"""Nothing is written behind our backs later: a disk that is cut off would grow again, and read as zeros."""


class Disks:
    """Mounts below one directory; all are unmounted at the end."""

    def __init__(self, base: Path) -> None:
        if os.geteuid() != 0:
            pytest.skip("mounting needs root")
        self._base = base
        self._mounted: list[Path] = []

    def image(self, kind: str) -> Path:
        """The file that holds the disk of this kind."""
        return self._base / f"{kind}.img"

    def disk(self, kind: str) -> Path:
        """A new file system of this kind; skips where it cannot be made."""
        if shutil.which(f"mkfs.{kind}") is None:
            pytest.skip(f"there is no mkfs.{kind}")
        image = self.image(kind)
        with image.open("wb") as file:
            file.truncate(IMAGE_BYTES)
        subprocess.run([f"mkfs.{kind}", "-q", *AT_ONCE.get(kind, ()), image], check=True, capture_output=True)
        return self.mount(self._base / kind, "-o", "loop", str(image))

    def mount(self, point: Path, *arguments: str) -> Path:
        """Mount something; skips where the kernel does not know it or has no loop device left."""
        point.mkdir(exist_ok=True)
        done = subprocess.run(["mount", *arguments, str(point)], check=False, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"cannot mount: {done.stderr.strip()}")
        self._mounted.append(point)
        return point

    def overlay(self) -> Path:
        """An overlay whose upper layer is on tmpfs."""
        self.mount(self._base / "layers", "-t", "tmpfs", "none")
        for name in ("lower", "upper", "work"):
            (self._base / "layers" / name).mkdir()
        layers = f"{self._base}/layers"
        options = f"lowerdir={layers}/lower,upperdir={layers}/upper,workdir={layers}/work"
        return self.mount(self._base / "overlay", "-t", "overlay", "overlay", "-o", options)

    def place(self, kind: str) -> Path:
        """A file system by its kind's name."""
        if kind == "tmpfs":
            return self.mount(self._base / kind, "-t", "tmpfs", "none")
        return self.overlay() if kind == "overlayfs" else self.disk(kind)

    @contextlib.contextmanager
    def failing(self, kind: str, path: Path, *, read_only: bool) -> Iterator[None]:
        """Meanwhile nothing can be read from the disk from this file's first block on: EIO.

        A loop device answers so for what its image has no more. Device-mapper's error target would do the same, but
        is not everywhere; only what the page cache has forgotten is read at all.
        """
        os.sync()
        # Whatever is written behind the cut makes the disk longer again, and what was cut off reads as zeros.
        quiet = "remount,ro" if read_only else "remount,commit=300"
        subprocess.run(["mount", "-o", quiet, self._base / kind], check=True)
        mapped = subprocess.run(["filefrag", "-v", "-b512", path], check=True, capture_output=True, text=True).stdout
        extent = next(line for line in mapped.splitlines() if line.strip().startswith("0:"))
        first = int(extent.split(":")[2].split("..")[0]) * 512
        image = self.image(kind)
        with image.open("r+b") as file:
            file.seek(first)
            lost = file.read()
            file.truncate(first)
            try:
                subprocess.run(["sh", "-c", "echo 3 > /proc/sys/vm/drop_caches"], check=True)
                with path.open("rb") as broken, contextlib.suppress(OSError):
                    broken.read()
                    pytest.fail("it can still be read")
                yield
            finally:
                file.seek(first)
                file.write(lost)
                file.flush()
                subprocess.run(["mount", "-o", "remount,rw", self._base / kind], check=True)

    def close(self) -> None:
        """Unmount all."""
        for point in reversed(self._mounted):
            subprocess.run(["umount", "-l", point], check=False, stderr=subprocess.DEVNULL)
