"""The inotify bindings against the running kernel."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator

import pytest

from instep.linux import inotify
from instep.linux.inotify import EVENT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="inotify is a facility of Linux")


@pytest.fixture
def queue() -> Iterator[int]:
    fd = inotify.open_queue()
    yield fd
    os.close(fd)


@pytest.fixture
def directory(tmp_path: object) -> Iterator[int]:
    fd = os.open(str(tmp_path), os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def events(queue: int) -> list[tuple[int, int, int, bytes]]:
    found = []
    data = os.read(queue, 65536)
    offset = 0
    while offset < len(data):
        wd, mask, cookie, length = EVENT.unpack_from(data, offset)
        offset += EVENT.size
        found.append((wd, mask, cookie, data[offset : offset + length].rstrip(b"\0")))
        offset += length
    return found


def test_an_empty_queue_does_not_block(queue: int) -> None:
    with pytest.raises(BlockingIOError):
        os.read(queue, 65536)
    assert not os.get_inheritable(queue)


def test_names_and_bits(queue: int, directory: int) -> None:
    wd = inotify.add_watch(queue, directory, inotify.IN_CREATE | inotify.IN_CLOSE_WRITE | inotify.IN_ONLYDIR)
    name = b"\xff" * 255
    os.close(os.open(name, os.O_CREAT | os.O_WRONLY, dir_fd=directory))
    os.mkdir(b"dir", dir_fd=directory)
    assert events(queue) == [
        (wd, inotify.IN_CREATE, 0, name),
        (wd, inotify.IN_CLOSE_WRITE, 0, name),
        (wd, inotify.IN_CREATE | inotify.IN_ISDIR, 0, b"dir"),
    ]


def test_a_rename_is_two_events_with_one_cookie(queue: int, directory: int) -> None:
    os.mkdir(b"one", dir_fd=directory)
    inotify.add_watch(queue, directory, inotify.IN_MOVED_FROM | inotify.IN_MOVED_TO)
    os.rename(b"one", b"two", src_dir_fd=directory, dst_dir_fd=directory)
    (_, first, cookie, old), (_, second, same, new) = events(queue)
    assert (first, old) == (inotify.IN_MOVED_FROM | inotify.IN_ISDIR, b"one")
    assert (second, new) == (inotify.IN_MOVED_TO | inotify.IN_ISDIR, b"two")
    assert cookie == same != 0


def test_the_same_directory_has_the_same_descriptor(queue: int, directory: int) -> None:
    wd = inotify.add_watch(queue, directory, inotify.IN_CREATE)
    assert inotify.add_watch(queue, directory, inotify.IN_CREATE) == wd
    inotify.remove_watch(queue, wd)
    inotify.remove_watch(queue, wd)  # Gone already: no error.
    assert events(queue) == [(wd, inotify.IN_IGNORED, 0, b"")]


def test_the_largest_event_fits(queue: int, directory: int) -> None:
    inotify.add_watch(queue, directory, inotify.IN_CREATE)
    os.close(os.open(b"n" * 255, os.O_CREAT | os.O_WRONLY, dir_fd=directory))
    with pytest.raises(OSError, match="Invalid argument"):
        os.read(queue, inotify.EVENT_BYTES_MAX - 1)
    assert len(os.read(queue, inotify.EVENT_BYTES_MAX)) == inotify.EVENT_BYTES_MAX


def test_errors_are_told(queue: int) -> None:
    with pytest.raises(OSError) as caught, open("/dev/null", "rb") as file:
        inotify.add_watch(queue, file.fileno(), inotify.IN_CREATE | inotify.IN_ONLYDIR)
    assert caught.value.errno == errno.ENOTDIR
