"""Real file systems on loop devices, one of each kind for a test; disks that fail where a file stands."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.system.daemon_process import wait_until

DISK_KINDS = ("ext4", "xfs", "btrfs")
IMAGE_BYTES = {"ext4": 64 << 20}
PACKED_BYTES = 2065 * 4096
"""Up to here an ext4 of 64 MB with packed metadata has all but contents and directories (dumpe2fs, debugfs)."""
LARGE_BYTES = 512 << 20
"""xfs takes no less than 300 MB, and the image is sparse."""

WORDS = {"ext4": ("-b", "4096", "-E", "lazy_itable_init=0,lazy_journal_init=0")}
"""Nothing is written behind our backs later: a disk that is cut off would grow again, and read as zeros."""


class Disks:
    """Mounts below one directory; all are unmounted at the end."""

    def __init__(self, base: Path) -> None:
        if os.geteuid() != 0:
            pytest.skip("mounting needs root")
        self._base = base
        self._mounted: list[Path] = []
        self._undo = contextlib.ExitStack()

    def image(self, kind: str) -> Path:
        """The file that holds the disk of this kind."""
        return self._base / f"{kind}.img"

    def disk(self, kind: str) -> Path:
        """A new file system of this kind; skips where it cannot be made."""
        if shutil.which(f"mkfs.{kind}") is None:
            pytest.skip(f"there is no mkfs.{kind}")
        image = self.image(kind)
        with image.open("wb") as file:
            file.truncate(IMAGE_BYTES.get(kind, LARGE_BYTES))
        subprocess.run([f"mkfs.{kind}", "-q", *WORDS.get(kind, ()), image], check=True, capture_output=True)
        return self.mount(self._base / kind, "-o", "loop", str(image))

    def promising(self) -> Path:
        """A file system that takes more than its disk has room for, as one on a thin volume does: see ``exhausted``."""
        if shutil.which("mkfs.ext4") is None:
            pytest.skip("there is no mkfs.ext4")
        pool = self.mount(self._base / "pool", "-t", "tmpfs", "-o", "size=48M", "none")
        image = pool / "image"
        with image.open("wb") as file:
            file.truncate(64 << 20)
        # All that is not content stands at the begin, and has its room; all but the blocks of new directories: with a
        # journal the loss of one of these would make the disk read-only for good.
        words = ("-b", "4096", "-O", "^has_journal", "-E", "packed_meta_blocks=1,lazy_itable_init=0")
        subprocess.run(["mkfs.ext4", "-q", "-e", "continue", *words, image], check=True, capture_output=True)
        with image.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, PACKED_BYTES)
        point = self.mount(self._base / "promising", "-o", "loop", str(image))
        self._page_by_page(image)
        return point

    def _page_by_page(self, image: Path) -> None:
        """Let no request to this disk be served in part: since Linux 6.16 the loop driver calls that a success."""
        command: list[str | Path] = ["losetup", "--noheadings", "--output", "NAME", "--associated", image]
        device = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[0]
        most_kb = Path("/sys/block", Path(device).name, "queue", "max_sectors_kb")
        self._undo.callback(most_kb.write_text, most_kb.read_text())  # Whoever gets the device next has it as it was.
        most_kb.write_text(str(os.sysconf("SC_PAGE_SIZE") // 1024))

    @contextlib.contextmanager
    def exhausted(self) -> Iterator[None]:
        """Meanwhile contents that are written to ``promising()`` are lost: its disk has no room for them."""
        point = self._base / "promising"
        subprocess.run(["sync", "--file-system", point], check=True)
        subprocess.run(["fstrim", point], check=True)  # What files had that are gone would be room for others.
        filler = self._base / "pool" / "filler"
        with filler.open("wb") as file, contextlib.suppress(OSError):
            while True:
                os.write(file.fileno(), bytes(1 << 20))
        try:
            yield
        finally:
            filler.unlink()

    def unmount(self, kind: str) -> Path:
        """Take a disk off, so that its image can be worked on; the image.

        Processes that are just ending keep it busy, and mount namespaces that were made meanwhile keep it mounted.
        """
        point, image = self._base / kind, self.image(kind)
        umount: list[str | Path] = ["umount", point]
        wait_until(lambda: subprocess.run(umount, check=False, stderr=subprocess.DEVNULL).returncode == 0, "unmounted")
        losetup: list[str | Path] = ["losetup", "--associated", image]
        wait_until(lambda: not subprocess.run(losetup, check=True, capture_output=True).stdout, "its loop device gone")
        return image

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
    def failing(self, kind: str, paths: Sequence[Path], *, read_only: bool) -> Iterator[Path]:
        """Meanwhile the one of these files that lies last on the disk, and what is behind it, cannot be read: EIO.

        A loop device answers so for what its image has no more. Device-mapper's error target would do the same, but
        is not everywhere; only what the page cache has forgotten is read at all.
        """
        # This disk alone: whatever is written behind a cut, as by a sync of all disks, undoes it.
        subprocess.run(["sync", "--file-system", self._base / kind], check=True)
        # Whatever is written behind the cut makes the disk longer again, and what was cut off reads as zeros.
        quiet = "remount,ro" if read_only else "remount,commit=300"
        subprocess.run(["mount", "-o", quiet, self._base / kind], check=True)
        first, path = max((first_byte(path), path) for path in paths)
        image = self.image(kind)
        with image.open("r+b") as file:
            file.seek(first)
            lost = file.read()
            file.truncate(first)
            try:
                wait_until(lambda: forgotten(path), f"{path} cannot be read")
                yield path
            finally:
                file.seek(first)
                file.write(lost)
                file.flush()
                subprocess.run(["mount", "-o", "remount,rw", self._base / kind], check=True)

    def close(self) -> None:
        """Unmount all."""
        self._undo.close()
        for point in reversed(self._mounted):
            subprocess.run(["umount", "-l", point], check=False, stderr=subprocess.DEVNULL)


def first_byte(path: Path) -> int:
    """Where on its disk a file begins."""
    mapped = subprocess.run(["filefrag", "-v", "-b512", path], check=True, capture_output=True, text=True).stdout
    extent = next(line for line in mapped.splitlines() if line.strip().startswith("0:"))
    return int(extent.split(":")[2].split("..")[0]) * 512


def forgotten(path: Path) -> bool:
    """Whether it cannot be read any more, now that the page cache was told to forget it."""
    Path("/proc/sys/vm/drop_caches").write_text("3")
    try:
        path.read_bytes()
    except OSError:
        return True
    return False
