"""The layout of fanotify's events, file handles and the mount table, against the running kernel."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator

import pytest

from instep.linux import fanotify, handles, mounts

needs_root = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="fanotify marks and mounts need root"),
]


@pytest.fixture
def disk(tmp_path: object) -> Iterator[bytes]:
    """A file system of its own, at a path that the mount table has to escape."""
    base = os.fsencode(str(tmp_path)) + b"/a b\\c\n"
    os.mkdir(base)
    subprocess.run(["mount", "-t", "tmpfs", "instep-test", base], check=True)
    yield base
    subprocess.run(["umount", base], check=True)


@pytest.fixture
def disk_fd(disk: bytes) -> Iterator[int]:
    fd = os.open(disk, os.O_RDONLY)
    yield fd
    os.close(fd)


class TestEvents:
    pytestmark = needs_root

    @pytest.fixture
    def group(self, disk_fd: int) -> Iterator[int]:
        group = fanotify.init()
        fanotify.mark_file_system(group, disk_fd)
        yield group
        os.close(group)

    def test_layout(self, disk: bytes, disk_fd: int, group: int) -> None:
        with open(disk + b"/name", "wb") as file:
            file.write(b"x")
            handle = handles.handle_of(file.fileno())
        event = os.read(group, 1 << 16)
        length, mask, kind, record_bytes, handle_bytes = fanotify.EVENT.unpack_from(event)
        assert length == len(event)
        assert mask == fanotify.FAN_CREATE | fanotify.FAN_MODIFY | fanotify.FAN_CLOSE_WRITE
        assert fanotify.METADATA.unpack_from(event) == (length, 3, 24, mask)
        assert kind == fanotify.FAN_EVENT_INFO_TYPE_DFID_NAME
        assert event[28:36] == handles.file_system_id(disk_fd)
        assert event[36 : 44 + handle_bytes] == handles.handle_of(disk_fd)
        assert event[44 + handle_bytes : 24 + record_bytes].rstrip(b"\0") == b"name"
        at = 24 + record_bytes
        kind, record_bytes, handle_bytes = fanotify.RECORD.unpack_from(event, at)
        assert kind == fanotify.FAN_EVENT_INFO_TYPE_FID
        assert event[at + 12 : at + 20 + handle_bytes] == handle
        assert at + record_bytes == length

    def test_rename_names_both_ends(self, disk: bytes, group: int) -> None:
        os.mkdir(disk + b"/d")
        os.rename(disk + b"/d", disk + b"/e")
        events = os.read(group, 1 << 16)
        first = fanotify.METADATA.unpack_from(events)[0]
        _, mask, kind, record_bytes, _ = fanotify.EVENT.unpack_from(events, first)
        assert mask == fanotify.FAN_RENAME | fanotify.FAN_ONDIR
        kinds = {kind, fanotify.RECORD.unpack_from(events, first + 24 + record_bytes)[0]}
        assert kinds == {fanotify.FAN_EVENT_INFO_TYPE_OLD_DFID_NAME, fanotify.FAN_EVENT_INFO_TYPE_NEW_DFID_NAME}

    def test_largest_event_fits(self, disk: bytes, group: int) -> None:
        os.mknod(disk + b"/" + b"o" * 255)
        os.rename(disk + b"/" + b"o" * 255, disk + b"/" + b"n" * 255)
        os.read(group, 1 << 16)
        os.rename(disk + b"/" + b"n" * 255, disk + b"/" + b"o" * 255)
        assert len(os.read(group, fanotify.EVENT_BYTES_MAX)) < fanotify.EVENT_BYTES_MAX / 4

    def test_nothing_to_read_does_not_block(self, group: int) -> None:
        with pytest.raises(BlockingIOError):
            os.read(group, 1 << 16)

    def test_marked_devices(self, disk: bytes, disk_fd: int, group: int) -> None:
        mount = mounts.mount_of(disk_fd)
        assert mount is not None
        assert fanotify.marked_devices(group) == {mount.device}

    def test_mark_goes_with_its_file_system(self, disk: bytes) -> None:
        group = fanotify.init()
        os.mkdir(disk + b"/m")
        subprocess.run(["mount", "-t", "tmpfs", "instep-test", disk + b"/m"], check=True)
        fd = os.open(disk + b"/m", os.O_RDONLY)
        fanotify.mark_file_system(group, fd)
        os.close(fd)
        assert len(fanotify.marked_devices(group)) == 1
        subprocess.run(["umount", disk + b"/m"], check=True)
        assert fanotify.marked_devices(group) == frozenset()
        os.close(group)

    def test_refusal(self) -> None:
        group = fanotify.init()
        fd = os.open("/proc", os.O_RDONLY)
        with pytest.raises(OSError) as caught:
            fanotify.mark_file_system(group, fd)
        assert caught.value.errno == errno.EOPNOTSUPP
        os.close(fd)
        os.close(group)


class TestHandles:
    pytestmark = needs_root

    def test_survives_a_rename(self, disk: bytes, disk_fd: int) -> None:
        os.mkdir(disk + b"/a")
        handle = self.handle(disk + b"/a")
        os.rename(disk + b"/a", disk + b"/b")
        fd = handles.open_handle(disk_fd, handle)
        assert handles.path_of(fd) == disk + b"/b"
        os.rmdir(disk + b"/b")
        assert handles.path_of(fd) is None
        os.close(fd)
        with pytest.raises(OSError) as caught:
            handles.open_handle(disk_fd, handle)
        assert caught.value.errno == errno.ESTALE

    def test_name_that_ends_like_the_kernels_mark(self, disk: bytes) -> None:
        os.mkdir(disk + b"/x (deleted)")
        fd = os.open(disk + b"/x (deleted)", os.O_RDONLY)
        assert handles.path_of(fd) == disk + b"/x (deleted)"
        os.rmdir(disk + b"/x (deleted)")
        os.mkdir(disk + b"/x (deleted)")
        assert handles.path_of(fd) is None
        os.close(fd)

    def test_refusal(self) -> None:
        fd = os.open("/proc", os.O_RDONLY)
        with pytest.raises(OSError) as caught:
            handles.handle_of(fd)
        assert caught.value.errno == errno.EOPNOTSUPP
        os.close(fd)

    @staticmethod
    def handle(path: bytes) -> bytes:
        fd = os.open(path, os.O_RDONLY)
        found = handles.handle_of(fd)
        os.close(fd)
        return found


class TestMounts:
    def test_parse(self) -> None:
        table = (
            b"24 1 254:3 / / rw,relatime - ext4 /dev/vda rw\n"
            b"30 24 0:25 /sub /mnt/a\\040b\\134c\\012 rw shared:5 master:1 - fuse.sshfs host:/x\\040y rw - odd\n"
        )
        assert mounts.parse(table) == [
            mounts.Mount(24, 254 << 20 | 3, b"/", "ext4"),
            mounts.Mount(30, 25, b"/mnt/a b\\c\n", "fuse.sshfs"),
        ]

    def test_remote(self) -> None:
        remote = {
            kind: mounts.Mount(1, 1, b"/", kind).is_remote for kind in ("nfs4", "fuse", "fuse.x", "fuseblk", "ext4")
        }
        assert remote == {"nfs4": True, "fuse": True, "fuse.x": True, "fuseblk": False, "ext4": False}

    @pytest.mark.root
    @pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
    def test_mount_of(self, disk: bytes, disk_fd: int) -> None:
        mount = mounts.mount_of(disk_fd)
        assert mount is not None
        assert (mount.point, mount.type) == (disk, "tmpfs")
        assert mount.mount_id == mounts.mount_id_of(disk_fd)

    def test_no_such_descriptor(self) -> None:
        assert mounts.mount_id_of(99999) == -1
