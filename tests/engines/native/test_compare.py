"""Comparing two real trees: every kind of difference is found, nothing else is, and nothing is changed."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from instep.engines.native.compare import Comparison
from instep.engines.native.session import Session, Settings
from instep.engines.native.verifier import NativeVerifier
from instep.errors import TargetAway
from instep.model import Aspect, Difference
from instep.paths import RelPath
from instep.rules import Preserve, Rule
from tests.engines.native.rig import as_nobody, mounted, needs_root, write
from tests.trees import inodes

A_TIME_NS = 1_500_000_000_123_456_789


class Trees:
    """Two directories, and a comparison of them."""

    def __init__(self, base: bytes) -> None:
        self.base = base
        self.src, self.dst = base + b"/src", base + b"/dst"
        os.mkdir(self.src)
        os.mkdir(self.dst)
        self.fds: list[int] = []

    def both(self, name: bytes, make: Callable[[bytes], object] = write) -> None:
        """Make the same on both sides, the source first."""
        for root in (self.src, self.dst):
            make(root + b"/" + name)
        for root in (self.src, self.dst):
            os.utime(root + b"/" + name, ns=(A_TIME_NS, A_TIME_NS), follow_symlinks=False)

    def comparison(self, *, checksum: bool = False, **settings: Any) -> Comparison:
        roots = [os.open(root, os.O_RDONLY | os.O_DIRECTORY) for root in (self.src, self.dst)]
        self.fds += roots
        wanted = Settings(Preserve())._replace(**settings)
        return Comparison(Session(roots[0], roots[1], wanted), checksum=checksum)

    def close(self) -> None:
        for fd in self.fds:
            os.close(fd)

    def differences(self, *, checksum: bool = False, root: bool = False, **settings: Any) -> dict[bytes, Difference]:
        """All there are; without ``root`` the time of the root, which every test changes."""
        for top in (self.src, self.dst):
            if not root:
                os.utime(top, ns=(A_TIME_NS, A_TIME_NS))
        comparison = self.comparison(checksum=checksum, **settings)
        found: list[Difference] = []
        while not comparison.done:
            found += comparison.step(3, 10.0)
        again = comparison.again([(one.path, one.other) for one in found])
        assert {(one.path, one.what, one.source) for one in again} == {
            (one.path, one.what, one.source) for one in found
        }
        by_path = {bytes(one.path): one for one in found}
        assert len(by_path) == len(found)
        return by_path

    def what(self, *, checksum: bool = False, **settings: Any) -> dict[bytes, Aspect]:
        return {path: one.what for path, one in self.differences(checksum=checksum, **settings).items()}


def replace_by(make: Callable[[bytes], object], path: bytes) -> None:
    os.unlink(path)
    make(path)


@pytest.fixture
def trees(base: bytes) -> Iterator[Trees]:
    made = Trees(base)
    yield made
    made.close()


def test_equal_trees(trees: Trees) -> None:
    trees.both(b"file")
    trees.both(b"dir", os.mkdir)
    trees.both(b"link", lambda path: os.symlink(b"to", path))
    trees.both(b"fifo", os.mkfifo)
    assert trees.what(checksum=True) == {}


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (os.unlink, Aspect.MISSING),
        (lambda path: os.truncate(path, 3), Aspect.SIZE | Aspect.TIME),
        (lambda path: os.chmod(path, 0o640), Aspect.MODE),
        (lambda path: os.utime(path, ns=(1, A_TIME_NS + 1)), Aspect.TIME),
        (lambda path: os.setxattr(path, b"user.more", b"1"), Aspect.XATTRS),
        (lambda path: replace_by(os.mkdir, path), Aspect.TYPE),
        (lambda path: replace_by(os.mkfifo, path), Aspect.TYPE),
    ],
    ids=["missing", "size", "mode", "time", "xattr", "directory", "fifo"],
)
def test_a_file_that_was_changed_at_the_target(trees: Trees, change: Callable[[bytes], object], what: Aspect) -> None:
    trees.both(b"file")
    trees.both(b"other")
    change(trees.dst + b"/file")
    assert trees.what() == {b"file": what}


def test_xattrs_that_differ_are_named(trees: Trees) -> None:
    trees.both(b"file")
    os.setxattr(trees.src + b"/file", b"user.a", b"1")
    os.setxattr(trees.dst + b"/file", b"user.b", b"1")
    (one,) = trees.differences().values()
    assert one.text == "user.a (not at the target); user.b (only at the target)"
    assert trees.what() == {b"file": Aspect.XATTRS}


def test_acls_are_told_from_xattrs(trees: Trees) -> None:
    trees.both(b"file")
    acl = b"\2\0\0\0" + b"".join(
        tag.to_bytes(2, "little") + mode.to_bytes(2, "little") + who.to_bytes(4, "little")
        for tag, mode, who in ((1, 6, 2**32 - 1), (2, 4, 12), (4, 6, 2**32 - 1), (16, 6, 2**32 - 1), (32, 6, 2**32 - 1))
    )
    try:
        os.setxattr(trees.dst + b"/file", b"system.posix_acl_access", acl)
    except OSError as error:
        pytest.skip(f"no ACLs here: {error}")
    assert trees.what() == {b"file": Aspect.ACL}


def test_bit_rot_is_found_with_checksum_alone(trees: Trees) -> None:
    trees.both(b"file")
    trees.both(b"large", lambda path: write(path, bytes(1_000_000)))
    for name, at in ((b"file", 3), (b"large", 999_999)):
        with open(trees.dst + b"/" + name, "r+b") as file:
            file.seek(at)
            file.write(b"!")
        os.utime(trees.dst + b"/" + name, ns=(A_TIME_NS, A_TIME_NS))
    assert trees.what() == {}
    assert trees.what(checksum=True) == {b"file": Aspect.CONTENT, b"large": Aspect.CONTENT}


def test_a_source_that_was_written_after_its_copy_is_read_even_if_size_and_time_agree(trees: Trees) -> None:
    trees.both(b"file")
    write(trees.src + b"/file", b"CONTENT", mtime_ns=A_TIME_NS)
    assert trees.what() == {b"file": Aspect.CONTENT}


def test_link_texts(trees: Trees) -> None:
    os.symlink(b"here", trees.src + b"/link")
    os.symlink(b"th\nere", trees.dst + b"/link")
    for root in (trees.src, trees.dst):
        os.utime(root + b"/link", ns=(A_TIME_NS, A_TIME_NS), follow_symlinks=False)
    (one,) = trees.differences().values()
    assert (one.what, one.text) == (Aspect.LINK_TEXT, "leads to here, at the target to th\nere")


@needs_root
def test_owners_and_devices(trees: Trees) -> None:
    trees.both(b"file")
    trees.both(b"null", lambda path: os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 3)))
    os.chown(trees.dst + b"/file", 12, 34)
    os.unlink(trees.dst + b"/null")
    os.mknod(trees.dst + b"/null", 0o600 | stat.S_IFCHR, os.makedev(1, 5))
    os.utime(trees.dst + b"/null", ns=(A_TIME_NS, A_TIME_NS))
    assert trees.what() == {b"file": Aspect.OWNER, b"null": Aspect.DEVICE}


def test_missing_and_extra_names_with_all_below_are_told_once(trees: Trees) -> None:
    for top in (trees.src + b"/new", trees.dst + b"/old"):
        os.makedirs(top + b"/a/b")
        write(top + b"/a/b/c")
    write(trees.dst + b"/a\nb\xff")
    assert trees.what() == {b"new": Aspect.MISSING, b"old": Aspect.EXTRA, b"a\nb\xff": Aspect.EXTRA}
    assert trees.what(delete=False) == {b"new": Aspect.MISSING}


def test_directories_and_the_root_itself(trees: Trees) -> None:
    trees.both(b"dir", os.mkdir)
    os.chmod(trees.dst + b"/dir", 0o700)
    os.chmod(trees.dst, 0o711)
    assert trees.what() == {b"dir": Aspect.MODE, b"": Aspect.MODE}


def test_names_that_are_one_file_on_one_side_alone(trees: Trees) -> None:
    for name in (b"a", b"b", b"c", b"d", b"e", b"f"):
        trees.both(name)
    os.mkdir(trees.src + b"/dir")
    os.mkdir(trees.dst + b"/dir")
    joined = (trees.src, b"a", b"b"), (trees.dst, b"c", b"d"), (trees.src, b"e", b"f"), (trees.dst, b"e", b"f")
    for root, one_name, other_name in joined:
        os.unlink(root + b"/" + other_name)
        os.link(root + b"/" + one_name, root + b"/" + other_name)
    os.utime(trees.dst + b"/dir", ns=(A_TIME_NS, A_TIME_NS))
    os.utime(trees.src + b"/dir", ns=(A_TIME_NS, A_TIME_NS))
    found = trees.differences()
    pairs = {frozenset((path, bytes(one.other or b""))): one for path, one in found.items()}
    assert pairs.keys() == {frozenset((b"a", b"b")), frozenset((b"c", b"d"))}
    assert all(one.what is Aspect.HARD_LINK for one in found.values())
    assert pairs[frozenset((b"a", b"b"))].text.endswith("but not at the target")
    assert pairs[frozenset((b"c", b"d"))].text.endswith("but only at the target")


def test_names_of_one_symbolic_link_need_not_be_one(trees: Trees) -> None:
    for root in (trees.src, trees.dst):
        for name in (b"a", b"b"):
            os.symlink(b"somewhere", root + b"/" + name)
            os.utime(root + b"/" + name, ns=(A_TIME_NS, A_TIME_NS), follow_symlinks=False)
    os.unlink(trees.src + b"/b")
    os.link(trees.src + b"/a", trees.src + b"/b", follow_symlinks=False)
    for root in (trees.src, trees.dst):
        os.utime(root, ns=(A_TIME_NS, A_TIME_NS))
    assert trees.differences() == {}


def test_what_is_not_kept_is_no_difference(trees: Trees) -> None:
    trees.both(b"file")
    trees.both(b"twin")
    write(trees.dst + b"/file", b"content", mode=0o600)
    os.setxattr(trees.dst + b"/file", b"user.a", b"1")
    os.unlink(trees.dst + b"/twin")
    os.link(trees.dst + b"/file", trees.dst + b"/twin")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fsdecode(trees.src + b"/s"))
    nothing = Preserve(owner=False, mode=False, times=False, xattrs=False, acls=False, hard_links=False, devices=False)
    trees.comparison()
    comparison = Comparison(Session(trees.fds[0], trees.fds[1], Settings(nothing)), checksum=True)
    assert comparison.step(100, 10.0) == []


def test_rules(trees: Trees) -> None:
    rules = (Rule(include=False, pattern=b"*.o"), Rule(include=False, pattern=b"/cache/"))
    write(trees.src + b"/a.o")
    write(trees.dst + b"/b.o")
    os.makedirs(trees.src + b"/cache/x")
    os.makedirs(trees.dst + b"/gone/keep")
    os.makedirs(trees.dst + b"/gone/sub")
    write(trees.dst + b"/gone/keep/c.o")
    write(trees.dst + b"/gone/keep/c.h")
    assert trees.what(rules=rules) == {b"gone/sub": Aspect.EXTRA, b"gone/keep/c.h": Aspect.EXTRA}
    assert trees.what(rules=rules, delete_excluded=True) == {b"gone": Aspect.EXTRA, b"b.o": Aspect.EXTRA}


def test_temporary_names_are_nobodys(trees: Trees) -> None:
    write(trees.src + b"/.instep-1.tmp")
    write(trees.dst + b"/.instep-2.tmp")
    assert trees.what() == {}
    assert trees.what(delete_excluded=True) == {}


@needs_root
def test_one_file_system(trees: Trees) -> None:
    with mounted(trees.src + b"/mounted", "-t", "tmpfs", "none") as point:
        write(point + b"/inside")
        os.mkdir(trees.dst + b"/mounted")
        write(trees.dst + b"/mounted/other")
        os.chmod(trees.dst + b"/mounted", stat.S_IMODE(os.stat(point).st_mode))
        os.utime(trees.dst + b"/mounted", ns=(A_TIME_NS, A_TIME_NS))
        os.utime(point, ns=(A_TIME_NS, A_TIME_NS))
        assert trees.what(one_file_system=True) == {}
        assert trees.what() == {b"mounted/inside": Aspect.MISSING, b"mounted/other": Aspect.EXTRA}


def test_a_time_that_was_cut_to_seconds_is_a_difference_where_the_target_could_hold_more(trees: Trees) -> None:
    trees.both(b"file")
    file = trees.dst + b"/file"
    os.utime(file, ns=(A_TIME_NS, A_TIME_NS // 10**9 * 10**9))
    assert trees.what() == {b"file": Aspect.TIME}


@needs_root
def test_what_cannot_be_read_is_told(trees: Trees) -> None:
    os.chmod(trees.base, 0o755)
    for root in (trees.src, trees.dst):
        write(root + b"/file", mode=0o644, mtime_ns=A_TIME_NS)
        os.mkdir(root + b"/dir")
        os.chmod(root, 0o755)
    write(trees.src + b"/dir/x")
    for root in (trees.src, trees.dst):
        os.utime(root + b"/dir", ns=(A_TIME_NS, A_TIME_NS))
    os.chmod(trees.dst + b"/file", 0o600)
    os.chmod(trees.src + b"/file", 0o600)
    os.chmod(trees.dst + b"/dir", 0o700)
    os.chmod(trees.src + b"/dir", 0o700)
    for top in (trees.src, trees.dst):
        os.utime(top, ns=(A_TIME_NS, A_TIME_NS))

    def found() -> dict[bytes, tuple[int, str]]:
        comparison = trees.comparison(checksum=True)
        return {bytes(one.path): (one.what.value, one.text) for one in comparison.step(100, 10.0)}

    assert as_nobody(found) == {
        b"file": (Aspect.UNREADABLE.value, "cannot be compared: Permission denied"),
        b"dir": (Aspect.UNREADABLE.value, "cannot read the source directory: Permission denied"),
    }


def test_nothing_is_changed(trees: Trees) -> None:
    trees.both(b"file")
    trees.both(b"dir", os.mkdir)
    write(trees.src + b"/dir/x")
    places = [root + name for root in (trees.src, trees.dst) for name in (b"", b"/file", b"/dir")]
    for place in places:
        os.utime(place, ns=(1, A_TIME_NS))
    before = inodes(trees.src), inodes(trees.dst), [os.stat(place) for place in places]
    trees.differences(checksum=True, root=True)
    # os.stat_result compares whole seconds only, but the time of the last access was set 50 years back.
    assert [os.stat(place) for place in places] == before[2]
    assert (inodes(trees.src), inodes(trees.dst)) == before[:2]


def test_the_source_state_comes_with_each_difference(trees: Trees) -> None:
    write(trees.src + b"/new")
    write(trees.dst + b"/old")
    found = trees.differences(root=True)
    assert found[b"new"].source
    assert found[b"new"].changed_ns == os.stat(trees.src + b"/new").st_ctime_ns
    assert found[b"old"].source == ()
    assert found[b"old"].changed_ns == os.stat(trees.src).st_ctime_ns


# -- in a process of its own -------------------------------------------------------------------------------------------


def verify(trees: Trees, act: Callable[[], object] = lambda: None) -> list[Difference]:
    """All differences by way of a verifier; ``act`` is done between opening and looking."""

    async def run() -> list[Difference]:
        source = os.open(trees.src, os.O_RDONLY | os.O_DIRECTORY)
        verifier = NativeVerifier(trees.dst, source_fd=source, settings=Settings(Preserve()), checksum=False)
        found: list[Difference] = []
        try:
            await verifier.open()
            act()
            async for some in verifier.differences():
                found += some
            again = await verifier.again(found)
            assert again == found
            assert verifier.entries
        finally:
            await verifier.close()
            await verifier.close()
            os.close(source)
        return found

    return asyncio.run(run())


def test_a_process_of_its_own(trees: Trees) -> None:
    trees.both(b"a\nb\xff")
    os.chmod(trees.dst + b"/a\nb\xff", 0o601)
    for root in (trees.src, trees.dst):
        os.utime(root, ns=(A_TIME_NS, A_TIME_NS))
    (one,) = verify(trees)
    assert (one.path, one.what) == (RelPath(b"a\nb\xff"), Aspect.MODE)


def test_a_target_that_goes_is_away_and_not_empty(trees: Trees) -> None:
    trees.both(b"file")

    def swap() -> None:
        os.rename(trees.dst, trees.dst + b"-aside")
        os.mkdir(trees.dst)

    with pytest.raises(TargetAway, match="another directory"):
        verify(trees, swap)
    os.rmdir(trees.dst)
    with pytest.raises(TargetAway, match="No such file"):
        verify(trees)
