"""The far end: one module, sent over the connection as source and run by whatever python3 (3.8 or later) is there.

It imports nothing of ours and nothing that Python does not bring along. Both ends use the encoding below; our side
imports it from here. The agent writes below one root, through directory descriptors only, never through a link; it
gives out names, attributes and digests of what is there, never contents, and takes nothing for granted that it is sent.

Conversation: the agent says HELLO; OPEN names the root; then BATCH frames hold operations, done in order, each frame
answered by one ACK that lists the exceptions. Frames: ``<u32 body length><u8 kind><u32 id>`` and the body, little
endian. An operation: ``<u8 code><u8 flags><u16 name length><u32 rest length>``, name, rest. A result: ``<u32 index>
<u8 status><u32 length>`` and its payload; operations without one went well. A name is one component in the directory
that the last CD opened.

Facts: openat2(2) is system call 437, renameat2(2) is taken from the C library; FICLONE is ioctl 0x40049409; chown
clears set-id bits and capabilities, so it goes first; a file made under a default ACL inherits one.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import os
import re
import select
import signal
import stat
import struct
import sys
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

PROTOCOL = 4
MAGIC = b"\0instep-agent\0"
BOOT = b"instep-boot-01 %08x\n"
"""What stands before the packed source of this module; who runs it already skips so many bytes."""
FRAME_MAX = 8 << 20
"""No frame's body is longer, not even unpacked: whoever sends one that is has lost the thread."""
BLOCK = 128 << 10
"""Large files are compared in blocks of so many bytes."""
DIGEST = 16
CHUNK_MOST = 2 << 20
"""No chunk is longer."""
TRIES = 256
"""At so many places in a row it is looked whether a chunk ends."""
SUMMED_BEFORE = 48
"""So many bytes before a place tell whether a chunk ends there."""
COPIES_MAX = 1 << 18
"""So many stretches may wait to be copied; two for each chunk of the largest file that is cut into chunks."""
SILENCE_S = 300.0
"""Our side says something every few seconds; after so long a silence the agent ends."""
PARTIAL_KEPT_S = 86400.0
PARTIAL_KEPT_BYTES = 1 << 20
ALIVE_S = 2.0
SUCCESSION_S = 10.0
"""So long an agent waits for the end of the one that served the same engine over a connection before."""

HEADER = struct.Struct("<IBI")
OPERATION = struct.Struct("<BBHI")
RESULT = struct.Struct("<IBI")
FAILURE = struct.Struct("<HB")
"""Of FAILED: errno and a place."""
ATTRIBUTES = struct.Struct("<IIIqqI")
"""mode, uid, gid, atime in ns, mtime in ns, length of the xattrs that follow."""
HELLO_BODY = struct.Struct("<HBBIII")
"""protocol, whether root, abilities, process, MB/s of sha256, MB/s of blake2b."""
OPEN_BODY = struct.Struct("<HBBHB8s16s")
"""protocol, flags, what to keep, umask, algorithm, key of the digests, who it is for; the path follows."""
OPENED_BODY = struct.Struct("<QQqq")
"""device, inode and time of birth in ns of the root, the clock in ns."""
LISTED = struct.Struct("<HIIIQqqQIQH")
"""lengths and lstat of one entry: name length, mode, uid, gid, size, mtime, ctime, rdev, nlink, inode, length of what
follows the name: a link's text, or a digest of xattrs."""
RECORD = struct.Struct("<IIIQq")
MOVED = struct.Struct("<HIQq")
STREAM = struct.Struct("<IQ")
BEGUN = struct.Struct("<BQ")
"""What the target has of a large file, and its size."""
BELOW_HEAD = struct.Struct("<IH")
"""Of BELOW: the length of the names of the first directories, with zeros between them, and how many directories are
looked at in all, depth first. The names follow, one digest for all, and for each the latest ctime, as of CHECK."""
STRETCH = struct.Struct("<QQ")
"""Offset and length."""
SUMMED = struct.Struct("<Q")
"""How many bytes were there; their digest follows."""
SIGNED_BODY = struct.Struct("<QBH")
"""Number of the first block, LAST or BY_CONTENT or both, errno; digests follow, or chunks."""
CHUNK = struct.Struct("<I")
"""Its length; its digest follows."""
CUT_BODY = struct.Struct("<IQIIBI")
"""Of CHUNKS: the stream, where to begin in the target's version; of Cut least, most, mark, mask; what may follow."""
CHUNKED = struct.Struct("<QB")
"""What CHUNKS finds: the size of the target's version, 0 without any, and whether all of the file is to be written."""
COPIED = struct.Struct("<QQ")
"""Of COPY, after STREAM: where it stands in the target's version, and its length."""

COMPRESSED, ZSTD = 0x80, 0x40
"""In a frame's kind: its body is packed, by zlib or zstd."""
HAS_XXHASH, HAS_ZSTD = 1, 2
"""Abilities."""
OPEN, BATCH, PING, SYNC, DOUBT = 1, 2, 3, 4, 5
HELLO, OPENED, ACK, PART, PONG, SIGNED, REFUSED = 32, 33, 34, 35, 36, 37, 38

CD, PUT, SELF, MKDIR, SYMLINK, NODE, DELETE, MOVE, LINK, META, VERIFY, CHECK = range(1, 13)
BEGIN, DATA, HOLE, END, ABORT, LOOK, SUM, BELOW, CHUNKS, COPY, NUMBERS = range(13, 24)

# Flags of OPEN, of what to keep, and of operations.
MAY_MAKE_ROOT, MAY_DELETE, PROTECTED, DRY, LOOKS_ONLY = 1, 2, 4, 8, 16
KEEP_OWNER, KEEP_MODE, KEEP_TIMES, KEEP_XATTRS, KEEP_ACLS, KEEP_SPARSE = 1, 2, 4, 8, 16, 32
SPARSE, LINKED = 1, 2
"""LINKED: of what ``may_be_joined``, it has several names; of CHECK, list the directory as well if it holds such a
thing."""
RECURSIVE = HIDDEN = GROUPS = 1
NO_NUMBER = 0xFFFFFFFF
"""Of NUMBERS: nobody has this name here."""
SIGN, INPLACE, SIGN_ONLY = 1, 2, 4
NOTHING_THERE, SIGNED_SOON, AS_LEFT, TAKEN_UP = range(4)
"""What BEGIN finds. SIGNED_SOON: something that gets signed. AS_LEFT: the very file that END was told of last; it needs
no digests, and one SIGNED frame without any tells when it may END. TAKEN_UP: what came of it before a cut, which gets
signed."""
LAST, BY_CONTENT = 1, 2
"""Of SIGNED. BY_CONTENT: what CHUNKS asked for, or without chunks that all is copied which COPY asked for."""

OK, FAILED, WANTED, LISTING, NO_DIRECTORY, OCCUPIED = range(6)
"""Statuses of a result. FAILED: errno and a place follow. WANTED: the content has to be sent. NO_DIRECTORY: so much of
the path of CD leads to directories. OCCUPIED: a directory is in the way that may hold what must stay."""

AT_OPERATION, AT_DELETE, AT_MOUNT, AT_DIRECTORY = range(4)
"""Where it failed."""

SHA256, BLAKE2B, XXH3 = 1, 2, 3

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
TEMPORARY_PREFIX, TEMPORARY_SUFFIX, PARTIAL = b".instep-", b".tmp", b".instep-part-"

_BENEATH = struct.pack("=QQQ", DIRECTORY, 0, 0x08 | 0x04 | 0x02)
_UNMOUNTED = struct.pack("=QQQ", DIRECTORY, 0, 0x08 | 0x04 | 0x01)
_NO_XATTRS = frozenset({errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM, errno.EACCES})
_MAY_NOT = frozenset({errno.EPERM, errno.EINVAL})
_CAPABILITY = "security.capability"
_ACLS = ("system.posix_acl_access", "system.posix_acl_default")


class ProtocolError(Exception):
    """The other end sent what it must not."""


class Succeeded(BaseException):
    """Another agent serves our side now; what is still on its way to this one must not be done any more."""


class Attributes(NamedTuple):
    """What an operation says of the object it makes."""

    mode: int
    uid: int
    gid: int
    atime_ns: int
    mtime_ns: int
    xattrs: dict[str, bytes]


# ---- encoding, for both ends -----------------------------------------------------------------------------------------


def frame(kind: int, number: int, body: bytes) -> bytes:
    """One frame."""
    return HEADER.pack(len(body), kind, number) + body


def operation(code: int, flags: int, name: bytes, rest: bytes = b"") -> bytes:
    """One operation."""
    return OPERATION.pack(code, flags, len(name), len(rest)) + name + rest


def pack_xattrs(xattrs: dict[str, bytes]) -> bytes:
    """Names and values, in a fixed order."""
    parts = []
    for name in sorted(xattrs):
        encoded = os.fsencode(name)
        parts.append(struct.pack("<HI", len(encoded), len(xattrs[name])) + encoded + xattrs[name])
    return b"".join(parts)


def unpack_xattrs(packed: bytes) -> dict[str, bytes]:
    """The counterpart of ``pack_xattrs``."""
    found = {}
    at = 0
    while at < len(packed):
        if at + 6 > len(packed):
            raise ProtocolError("cut short")
        name_length, length = struct.unpack_from("<HI", packed, at)
        at += 6
        if at + name_length + length > len(packed):
            raise ProtocolError("cut short")
        name = packed[at : at + name_length]
        if not name or b"\0" in name:
            raise ProtocolError("no name of an xattr")
        at += name_length
        found[os.fsdecode(name)] = packed[at : at + length]
        at += length
    return found


def unpack_attributes(rest: memoryview) -> tuple[Attributes, memoryview]:
    """The attributes at the start of an operation's rest, and what follows them."""
    if len(rest) < ATTRIBUTES.size:
        raise ProtocolError("cut short")
    mode, uid, gid, atime, mtime, length = ATTRIBUTES.unpack_from(rest)
    end = ATTRIBUTES.size + length
    xattrs: dict[str, bytes] = {}
    if length:
        if len(rest) < end:
            raise ProtocolError("cut short")
        xattrs = unpack_xattrs(bytes(rest[ATTRIBUTES.size : end]))
    return Attributes(mode, uid, gid, atime, mtime, xattrs), rest[end:]


def partial_name(name: bytes, key: bytes) -> bytes:
    """Under what a file is kept until it is whole: the key tells the version of the source that it is made from."""
    which = hashlib.blake2b(name, digest_size=8).hexdigest()
    return PARTIAL + which.encode() + b"-" + key.hex().encode() + TEMPORARY_SUFFIX


def operations(body: memoryview) -> Iterator[tuple[int, int, bytes, memoryview]]:
    """(code, flags, name, rest) of each operation of a frame."""
    at, end = 0, len(body)
    while at < end:
        if at + 8 > end:
            raise ProtocolError("cut short")
        code, flags, name_length, length = OPERATION.unpack_from(body, at)
        at += 8
        stop = at + name_length + length
        if stop > end:
            raise ProtocolError("cut short")
        yield code, flags, bytes(body[at : at + name_length]), body[at + name_length : stop]
        at = stop


def results(body: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(index, status, payload) of each result of an ACK."""
    at, end = 0, len(body)
    while at < end:
        if at + RESULT.size > end:
            raise ProtocolError("cut short")
        index, status, length = RESULT.unpack_from(body, at)
        at += RESULT.size
        if at + length > end:
            raise ProtocolError("cut short")
        yield index, status, body[at : at + length]
        at += length


def inflate(body: bytes) -> bytes:
    """The body of a compressed frame, unpacked; never more than a frame may hold."""
    stream = zlib.decompressobj()
    try:
        plain = stream.decompress(body, FRAME_MAX)
    except zlib.error as error:
        raise ProtocolError("not compressed as it should be") from error
    if not stream.eof:
        raise ProtocolError("more than a frame may hold")
    return plain


def hasher(algorithm: int, key: bytes) -> Callable[[Any], bytes]:
    """A function from bytes to their digest of DIGEST bytes."""
    if algorithm == SHA256:
        start = hashlib.sha256(key)

        def by_sha256(data: Any) -> bytes:
            digest = start.copy()
            digest.update(data)
            return digest.digest()[:DIGEST]

        return by_sha256
    if algorithm == BLAKE2B:
        return lambda data: hashlib.blake2b(data, digest_size=DIGEST, key=key).digest()
    if algorithm == XXH3:
        import xxhash  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415  # only where both ends have it

        seed = int.from_bytes(key, "little")
        return lambda data: xxhash.xxh3_128_digest(data, seed=seed)  # type: ignore[no-any-return,unused-ignore]
    raise ProtocolError("no such digest")


def speed(algorithm: int) -> int:
    """MB/s of a digest here."""
    digest, data = hasher(algorithm, b"\0" * 8), bytes(BLOCK)
    best = 1.0
    for _ in range(4):  # the best one is the least disturbed
        since = time.perf_counter()
        digest(data)
        best = min(best, time.perf_counter() - since)
    return int(BLOCK / 1e6 / best)


def abilities() -> int:
    """What is here that not every Python brings along."""
    return HAS_XXHASH * _is_here("xxhash") | HAS_ZSTD * (_is_here("compression.zstd") or _is_here("zstandard"))


def _is_here(package: str) -> bool:
    try:
        __import__(package)
    except ImportError:
        return False
    return True


def packer() -> Callable[[bytes], bytes]:
    """What packs a body by zstd; ImportError where that is not here."""
    if sys.version_info >= (3, 14):
        from compression import zstd  # noqa: PLC0415  # only where both ends have it

        return lambda body: zstd.compress(body, level=1)
    import zstandard  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415

    return zstandard.ZstdCompressor(level=1).compress  # type: ignore[no-any-return,unused-ignore]


def unpack_zstd(body: bytes) -> bytes:
    """The counterpart of ``packer``; never more than a frame may hold."""
    plain: bytes
    if sys.version_info >= (3, 14):
        from compression import zstd  # noqa: PLC0415  # as above

        wrong: Any = zstd.ZstdError
    else:
        import zstandard  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415

        wrong = zstandard.ZstdError
    try:
        if sys.version_info >= (3, 14):
            plain = zstd.ZstdDecompressor().decompress(body, FRAME_MAX + 1)
        else:
            plain = zstandard.ZstdDecompressor(max_window_size=1 << 23).stream_reader(body).read(FRAME_MAX + 1)
    except wrong as error:
        raise ProtocolError("not compressed as it should be") from error
    if len(plain) > FRAME_MAX:
        raise ProtocolError("more than a frame may hold")
    return plain


def wanted_xattr(name: str, keep: int, *, is_root: bool) -> bool:
    """Whether this xattr is kept, by a writer who is root or not."""
    if name in _ACLS:
        return bool(keep & KEEP_ACLS)
    if not keep & KEEP_XATTRS or name.startswith(("system.", "trusted.SGI_ACL", "trusted.overlay.")):
        return False
    return is_root or name.startswith("user.")


def xattrs_of(where: Any, keep: int, *, is_root: bool) -> dict[str, bytes]:
    """The xattrs that are kept, of a descriptor or of a name through /proc/self/fd, not following it."""
    follow = isinstance(where, int)
    try:
        names = os.listxattr(where, follow_symlinks=follow)
    except OSError as error:
        if error.errno in _NO_XATTRS:
            return {}
        raise
    if not names:
        return {}
    return {
        name: os.getxattr(where, name, follow_symlinks=follow)
        for name in names
        if wanted_xattr(name, keep, is_root=is_root)
    }


def xattrs_digest(packed: bytes) -> bytes:
    """What stands for the xattrs of an entry where they are only compared."""
    return b"\0" + hashlib.blake2b(packed, digest_size=DIGEST).digest()


def may_be_joined(mode: int) -> bool:
    """Whether several names of such a thing are kept as one: directories have one, of links nobody could tell."""
    return mode & 0o170000 not in (stat.S_IFDIR, stat.S_IFLNK)


class Entry(NamedTuple):
    """One entry of a directory, on either side: lstat, and a link's text or a digest of its xattrs.

    The field names are those of ``os.stat_result``.
    """

    st_mode: int
    st_uid: int
    st_gid: int
    st_size: int
    st_mtime_ns: int
    st_ctime_ns: int
    st_rdev: int
    st_nlink: int
    st_ino: int
    extra: bytes


class Survey(NamedTuple):
    """One directory, looked at."""

    own: Entry
    """Its own attributes."""
    infos: dict[str, os.stat_result]
    """lstat of its entries."""
    extras: dict[str, bytes]
    """Those of its entries whose ``Entry.extra`` is not empty."""
    below: list[str]
    """Its subdirectories."""
    digest: bytes
    """Stands for its own attributes and its entries, but not for what is below its subdirectories."""
    newest_ns: int
    """The latest ctime of its regular files; 0 without any."""
    oldest_ns: int
    """The earliest."""

    def entries(self) -> dict[bytes, Entry]:
        """The entries as they are listed."""
        extras = self.extras
        return {os.fsencode(name): entry_of(info, extras.get(name, b"")) for name, info in self.infos.items()}

    def inner(self, path: bytes) -> list[bytes]:
        """The paths of its subdirectories, the last one first."""
        return [path + b"/" + name for name in sorted(map(os.fsencode, self.below), reverse=True)]

    def has_links(self) -> bool:
        """Whether any of its entries is a file, fifo, socket or device with several names."""
        return any(info.st_nlink > 1 and may_be_joined(info.st_mode) for info in self.infos.values())


def entry_of(info: os.stat_result, extra: bytes) -> Entry:
    """What is told of one entry."""
    return Entry(
        info.st_mode,
        info.st_uid,
        info.st_gid,
        info.st_size,
        info.st_mtime_ns,
        info.st_ctime_ns,
        info.st_rdev if info.st_mode & 0o170000 in (stat.S_IFCHR, stat.S_IFBLK) else 0,
        info.st_nlink,
        info.st_ino,
        extra,
    )


def digest_of(digests: list[bytes]) -> bytes:
    """Stands for many directories."""
    return hashlib.blake2b(b"".join(digests), digest_size=DIGEST).digest()


def look_at(parent: int, name: bytes, keep: int, *, is_root: bool) -> Entry:
    """One name of an open directory; without a name that itself."""
    info = os.stat(name, dir_fd=parent, follow_symlinks=False) if name else os.fstat(parent)
    extra = os.readlink(name, dir_fd=parent) if stat.S_ISLNK(info.st_mode) else b""
    if keep & (KEEP_XATTRS | KEEP_ACLS):
        where: Any = f"/proc/self/fd/{parent}/{os.fsdecode(name)}" if name else parent
        xattrs = xattrs_of(where, keep, is_root=is_root)
        extra += xattrs_digest(pack_xattrs(xattrs)) if xattrs else b""
    return entry_of(info, extra)


def survey(
    fd: int,
    keep: int,
    *,
    is_root: bool,
    owners: bool,
    leave_out: Callable[[str, os.stat_result], bool],
    ask_always: bool,
    base: str = "",
    numbers: tuple[dict[int, int], dict[int, int]] | None = None,
) -> Survey:
    """Look at an open directory: the hot path of every whole comparison, on both sides.

    Args:
        fd: The directory.
        keep: What is kept.
        is_root: Whether the writer over there is root.
        owners: Whether owners count.
        leave_out: Says of a name that it does not count; asked for names that may be temporary ones.
        ask_always: Ask it for every name.
        base: What leads to its entries: ``./`` where it is the working directory, which is quicker than by default.
        numbers: What stands for which users and groups; None: all stand for themselves.
    """
    own_info = os.fstat(fd)
    uids, gids = numbers or ({}, {})
    looks = bool(keep & (KEEP_XATTRS | KEEP_ACLS))
    own_extra = b""
    if looks:
        xattrs = xattrs_of(fd, keep, is_root=is_root)
        own_extra = xattrs_digest(pack_xattrs(xattrs)) if xattrs else b""
    infos: dict[str, os.stat_result] = {}
    records: dict[str, bytes] = {}
    extras: dict[str, bytes] = {}
    below: list[str] = []
    newest, oldest = 0, 1 << 63
    base = base or f"/proc/self/fd/{fd}/"
    pack, listxattr, prefix = RECORD.pack, os.listxattr, os.fsdecode(TEMPORARY_PREFIX)
    regular, directory = stat.S_IFREG, stat.S_IFDIR
    with os.scandir(fd) as entries:
        for entry in entries:
            name = entry.name
            try:
                info = entry.stat(follow_symlinks=False)
                mode = info.st_mode
                if (ask_always or name.startswith(prefix)) and leave_out(name, info):
                    continue
                kind = mode & 0o170000
                if kind == regular:
                    changed = info.st_ctime_ns
                    if changed > newest:  # noqa: PLR1730  # per file: a call costs ten times that
                        newest = changed
                    if changed < oldest:  # noqa: PLR1730
                        oldest = changed
                    if looks and listxattr(base + name, follow_symlinks=False):
                        _note_xattrs(extras, base, name, keep, is_root=is_root)
                    if not owners:
                        records[name] = pack(mode, 0, 0, info.st_size, info.st_mtime_ns)
                    elif numbers is None:
                        records[name] = pack(mode, info.st_uid, info.st_gid, info.st_size, info.st_mtime_ns)
                    else:
                        uid, gid = info.st_uid, info.st_gid
                        uid, gid = uids.get(uid, uid), gids.get(gid, gid)
                        records[name] = pack(mode, uid, gid, info.st_size, info.st_mtime_ns)
                elif kind == directory:
                    below.append(name)
                    records[name] = pack(kind, 0, 0, 0, 0)
                else:
                    if kind == stat.S_IFLNK:
                        extras[name] = os.readlink(os.fsencode(name), dir_fd=fd)
                    if looks and listxattr(base + name, follow_symlinks=False):
                        _note_xattrs(extras, base, name, keep, is_root=is_root)
                    uid, gid = (info.st_uid, info.st_gid) if owners else (0, 0)
                    uid, gid = uids.get(uid, uid), gids.get(gid, gid)
                    device = info.st_rdev if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0
                    records[name] = pack(mode, uid, gid, device, info.st_mtime_ns)
                infos[name] = info
            except FileNotFoundError:
                continue  # gone since it was listed
    names = sorted(records)
    uid, gid = (own_info.st_uid, own_info.st_gid) if owners else (0, 0)
    uid, gid = uids.get(uid, uid), gids.get(gid, gid)
    digest = hashlib.blake2b(digest_size=DIGEST)
    digest.update(pack(own_info.st_mode, uid, gid, len(names), own_info.st_mtime_ns))
    digest.update(b"".join([records[name] for name in names]))
    digest.update(os.fsencode("\0".join(names)))
    digest.update(struct.pack("<I", len(own_extra)) + own_extra)
    for name in sorted(extras):
        encoded = os.fsencode(name)
        digest.update(struct.pack("<II", len(encoded), len(extras[name])) + encoded + extras[name])
    own = Entry(own_info.st_mode, own_info.st_uid, own_info.st_gid, 0, own_info.st_mtime_ns, 0, 0, 0, 0, own_extra)
    return Survey(own, infos, extras, below, digest.digest(), newest, oldest)


def _note_xattrs(extras: dict[str, bytes], base: str, name: str, keep: int, *, is_root: bool) -> None:
    xattrs = xattrs_of(base + name, keep, is_root=is_root)
    if xattrs:
        extras[name] = extras.get(name, b"") + xattrs_digest(pack_xattrs(xattrs))


# ---- the file system, for the agent ----------------------------------------------------------------------------------


class Refused(OSError):
    """An operation that is not done, and where it failed."""

    def __init__(self, number: int, place: int = AT_OPERATION) -> None:
        super().__init__(number, os.strerror(number))
        self.place = place


class Occupied(Exception):
    """A directory is in the way whose content only our side can judge."""


try:
    _libc: Any = ctypes.CDLL(None, use_errno=True)
except OSError:
    _libc = None


def _openat2(root: int, path: bytes, how: bytes) -> int:
    """A descriptor, or -1 where the kernel has no such call."""
    while _libc is not None:
        fd: int = _libc.syscall(437, root, path, how, 24)
        if fd >= 0:
            return fd
        number = ctypes.get_errno()
        if number in (errno.EAGAIN, errno.EINTR):
            continue
        if number in (errno.ENOSYS, errno.EPERM):
            break
        raise OSError(number, os.strerror(number))
    return -1


def checked_name(name: bytes) -> bytes:
    """One component of a path, or an error."""
    if not name or name in (b".", b"..") or b"/" in name or b"\0" in name:
        raise Refused(errno.EINVAL)
    return name


def open_beneath(root: int, path: bytes) -> int:
    """A descriptor of the directory ``path`` below ``root``; no link is followed, nothing above is reached."""
    if not path:
        return os.open(b".", DIRECTORY, dir_fd=root)
    names = path.split(b"/")
    for name in names:
        checked_name(name)
    fd = _openat2(root, path, _BENEATH)
    if fd >= 0:
        return fd
    here = os.dup(root)
    for name in names:
        try:
            there = os.open(name, DIRECTORY, dir_fd=here)
        finally:
            os.close(here)
        here = there
    return here


def open_unmounted(parent: int, name: bytes) -> int:
    """A subdirectory, unless something is mounted on it (EXDEV)."""
    fd = _openat2(parent, name, _UNMOUNTED)
    if fd >= 0:
        return fd
    fd = os.open(name, DIRECTORY, dir_fd=parent)
    if os.fstat(fd).st_dev != os.fstat(parent).st_dev:
        os.close(fd)
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
    return fd


def change_mode(parent: int, name: bytes, mode: int, kind: int) -> None:
    """Change the mode of one name without following a link."""
    fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        if stat.S_IFMT(os.fstat(fd).st_mode) != kind:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        os.chmod(f"/proc/self/fd/{fd}", mode)
    finally:
        os.close(fd)


def write_all(fd: int, data: Any, offset: int) -> None:
    """All of it, from this offset on."""
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, offset)
        view = view[count:]
        offset += count


def write_sparsely(fd: int, data: Any, offset: int) -> None:
    """All of it, but what is zero from page to page is left a hole; the caller sets the length."""
    view = memoryview(data)
    zeros = bytes(4096)
    for at in range(0, len(view), 4096):
        page = view[at : at + 4096]
        if page != zeros[: len(page)]:
            write_all(fd, page, offset + at)


def punch(fd: int, offset: int, length: int) -> None:
    """Make a hole in an open file; zeros where the file system knows no holes."""
    end = offset + length
    size = os.fstat(fd).st_size
    if size < end:
        os.ftruncate(fd, end)
    stop = min(size, end)
    if offset >= stop:
        return
    if _libc is not None:
        with contextlib.suppress(AttributeError):
            call = _libc.fallocate64 if hasattr(_libc, "fallocate64") else _libc.fallocate
            if not call(fd, 3, ctypes.c_int64(offset), ctypes.c_int64(stop - offset)):
                return
    zeros = bytes(BLOCK)
    for at in range(offset, stop, BLOCK):
        write_all(fd, zeros[: min(BLOCK, stop - at)], at)


def born_ns(fd: int) -> int:
    """When an open directory was made; 0 where that is not known. Inode numbers are used again, this never is."""
    buffer = ctypes.create_string_buffer(256)
    try:
        if _libc.statx(fd, b"", 0x1000, 0x800, buffer) != 0:
            return 0
    except AttributeError:
        return 0
    mask, seconds, nanoseconds = struct.unpack_from("=I76xqI", buffer.raw)
    return int(seconds * 10**9 + nanoseconds) if mask & 0x800 else 0


class Writer:
    """Knows one root and what to keep; does operations below it."""

    def __init__(self, root: int, flags: int, keep: int, umask: int, alive: Callable[[], None]) -> None:
        self.root = root
        self.may_delete = bool(flags & MAY_DELETE)
        self.protected = bool(flags & PROTECTED)
        self.looks_only = bool(flags & (DRY | LOOKS_ONLY))
        self.keep = keep
        self.umask = umask
        self.uid, self.gid = os.geteuid(), os.getegid()
        self.is_root = self.uid == 0
        self.looks_at_xattrs = bool(keep & (KEEP_XATTRS | KEEP_ACLS))
        self.alive = alive
        self.doubts_cache = False
        """Something that was written is lost, and the kernel may still show it."""
        self.cwd = -1
        self.parent = b""
        self._inherits = False
        self._own_gid = 0
        self._closed_mode = -1
        self._hidden: dict[bytes, bytes] = {}
        """Directories that are being filled out of sight, and their temporary names."""
        self._fills = False
        self._mark = TEMPORARY_PREFIX + b"%s-%x-" % (os.urandom(4).hex().encode(), os.getpid())
        self._count = 0

    def read_from_disk(self, fd: int) -> None:
        """Let this file be read from the disk itself, if there is reason to doubt what the kernel remembers of it."""
        if self.doubts_cache:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)

    # -- directories ----------------------------------------------------------------------------------------------

    def change_to(self, path: bytes) -> int | None:
        """Make this the directory of the operations that follow; else how much of the path leads to directories."""
        self.leave()
        hidden = self._hidden.get(path) if self._hidden else None
        try:
            if hidden is None:
                self.cwd = open_beneath(self.root, path)
            else:
                above, slash, _ = path.rpartition(b"/")
                self.cwd = open_beneath(self.root, above + slash + hidden)
                self._fills = True
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise
            return self._prefix(path)
        info = os.fstat(self.cwd)
        self.parent = path
        self._own_gid = info.st_gid if info.st_mode & stat.S_ISGID else self.gid
        self._inherits = self.looks_at_xattrs and "system.posix_acl_default" in self._listed(self.cwd)
        if not self.is_root and info.st_mode & 0o300 != 0o300 and info.st_uid == self.uid:
            os.fchmod(self.cwd, info.st_mode & 0o7777 | 0o700)
            self._closed_mode = info.st_mode & 0o7777
        return None

    def leave(self) -> None:
        """Let go of the directory."""
        if self.cwd >= 0:
            try:
                if self._closed_mode >= 0:
                    os.fchmod(self.cwd, self._closed_mode)
            finally:
                os.close(self.cwd)
                self.cwd = self._closed_mode = -1
                self._fills = False

    def _prefix(self, path: bytes) -> int:
        names = path.split(b"/")
        for count in range(len(names) - 1, 0, -1):
            above = b"/".join(names[:count])
            try:
                os.close(open_beneath(self.root, above))
            except OSError:
                continue
            return len(above)
        return 0

    def temporary(self) -> bytes:
        """A name that no one else uses."""
        self._count += 1
        return b"%s%x%s" % (self._mark, self._count, TEMPORARY_SUFFIX)

    def is_stale(self, name: bytes, info: os.stat_result) -> bool:
        """Whether a temporary name was left behind."""
        if name.startswith(self._mark):
            return False
        if name.startswith(PARTIAL):
            return info.st_mtime < time.time() - PARTIAL_KEPT_S
        try:
            process = int(name[len(TEMPORARY_PREFIX) :].split(b"-")[1], 16)
        except (ValueError, IndexError):
            return True
        if process == os.getpid():
            return True
        try:
            with open(f"/proc/{process}/stat", "rb") as file:
                return file.read().rpartition(b")")[2].split()[0] in (b"Z", b"X")  # dead, and not buried yet
        except OSError:
            return True

    # -- files ----------------------------------------------------------------------------------------------------

    def put(self, name: bytes, flags: int, attributes: Attributes, data: memoryview) -> bool:
        """Make ``name`` a regular file with this content; whether anything was written."""
        cwd = self.cwd
        theirs: os.stat_result | None = None
        if self._fills:
            # Nobody sees it yet, so it may grow under its own name.
            self._write(name, flags, attributes, data, None)
            return True
        try:  # noqa: SIM105  # per file: a context costs several times that
            theirs = os.stat(name, dir_fd=cwd, follow_symlinks=False)
        except FileNotFoundError:
            pass
        if (
            theirs is not None
            and theirs.st_size == len(data)
            and stat.S_ISREG(theirs.st_mode)
            and (theirs.st_mtime_ns == attributes.mtime_ns or flags & LINKED)
            and self._mend(name, flags, attributes, theirs, lambda fd: _holds(fd, data))
        ):
            return False
        temporary = self.temporary()
        self._write(temporary, flags, attributes, data, theirs)
        try:
            self.put_in_place(temporary, name)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=cwd)
            raise
        return True

    def _write(
        self, name: bytes, flags: int, attributes: Attributes, data: memoryview, replaced: os.stat_result | None
    ) -> None:
        """Make a file of this name, which is free; if it cannot be finished, there is none."""
        quick = attributes.uid == self.uid and self.keep & KEEP_MODE
        made = os.open(name, WRITE, attributes.mode & 0o777 if quick else 0o600, dir_fd=self.cwd)
        try:
            try:
                if flags & SPARSE:
                    os.ftruncate(made, len(data))
                    write_sparsely(made, data, 0)
                elif data and os.write(made, data) != len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # what a short write means
                if (
                    quick
                    and not attributes.xattrs
                    and not self._inherits
                    and not attributes.mode & 0o7000
                    and attributes.gid == self._own_gid
                ):
                    if self.keep & KEEP_TIMES:
                        os.utime(made, ns=(attributes.atime_ns, attributes.mtime_ns))
                else:
                    self.to_file(made, attributes, replaced)
            finally:
                os.close(made)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self.cwd)
            raise

    def mend(self, name: bytes, flags: int, attributes: Attributes, size: int, same: Callable[[int], bool]) -> bool:
        """Keep the file ``name`` if its size and content are right, mending its attributes; else False."""
        try:
            theirs = os.stat(name, dir_fd=self.cwd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        if not stat.S_ISREG(theirs.st_mode) or theirs.st_size != size:
            return False
        return self._mend(name, flags, attributes, theirs, same)

    def _mend(
        self, name: bytes, flags: int, attributes: Attributes, theirs: os.stat_result, same: Callable[[int], bool]
    ) -> bool:
        if theirs.st_nlink > 1 and not flags & LINKED:
            return False  # It shares its inode with a name that is none of ours.
        try:
            fd = os.open(name, READ, dir_fd=self.cwd)
        except PermissionError:
            return False
        try:
            present = os.fstat(fd)
            self.read_from_disk(fd)
            if (present.st_dev, present.st_ino) != (theirs.st_dev, theirs.st_ino) or not same(fd):
                return False
            try:
                if not self.to_existing(fd, attributes, present) and self.keep & KEEP_TIMES:
                    # Proven equal: let its ctime say so, or the next comparison would ask again.
                    os.utime(fd, ns=(attributes.atime_ns, attributes.mtime_ns))
            except PermissionError:
                return False
        finally:
            os.close(fd)
        return True

    def put_in_place(self, temporary: bytes, name: bytes) -> None:
        """Rename ``temporary`` to ``name``; a directory that stands there is swapped out and removed."""
        try:
            os.rename(temporary, name, src_dir_fd=self.cwd, dst_dir_fd=self.cwd)
        except IsADirectoryError:
            pass
        else:
            return
        if not self.may_delete:
            raise Refused(errno.EISDIR)
        if self.protected:
            try:
                os.rmdir(name, dir_fd=self.cwd)
            except OSError as error:
                raise Occupied from error
        elif _libc is not None and hasattr(_libc, "renameat2"):
            if _libc.renameat2(self.cwd, temporary, self.cwd, name, 2) == 0:
                try:
                    self.remove(temporary)
                except BaseException:
                    _libc.renameat2(self.cwd, temporary, self.cwd, name, 2)
                    raise
                return
            number = ctypes.get_errno()
            if number not in (errno.EINVAL, errno.ENOSYS):
                raise OSError(number, os.strerror(number))
            self.remove(name)
        else:
            self.remove(name)
        os.rename(temporary, name, src_dir_fd=self.cwd, dst_dir_fd=self.cwd)

    def make_directory(self, name: bytes, *, hidden: bool) -> bool:
        """Make ``name`` a directory; whether it was none. ``hidden``: it appears when its attributes are set."""
        try:
            theirs = os.stat(name, dir_fd=self.cwd, follow_symlinks=False)
        except FileNotFoundError:
            pass
        else:
            if stat.S_ISDIR(theirs.st_mode):
                return False
            os.unlink(name, dir_fd=self.cwd)
        if hidden:
            temporary = self.temporary()
            os.mkdir(temporary, 0o700, dir_fd=self.cwd)
            self._hidden[self.parent + b"/" + name if self.parent else name] = temporary
        else:
            os.mkdir(name, 0o700, dir_fd=self.cwd)
        return True

    def _show(self) -> None:
        """The current directory is filled: let it appear."""
        temporary = self._hidden.pop(self.parent)
        above, _, name = self.parent.rpartition(b"/")
        parent = open_beneath(self.root, above)
        try:
            info = os.fstat(parent)
            try:
                os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
            except OSError:
                self._sweep(parent, temporary, os.fstat(self.cwd))
                raise
            if self.keep & KEEP_TIMES:
                # Above, all is set already; our names in it have touched it again.
                os.utime(parent, ns=(info.st_atime_ns, info.st_mtime_ns))
        finally:
            os.close(parent)

    def clear_hidden(self, below: bytes = b"") -> None:
        """Remove what will not be filled any more; or only what of it is below a directory."""
        for path in list(self._hidden):
            if not below or path.startswith(below + b"/"):
                self._give_up(path)

    def forget_hidden(self, name: bytes) -> None:
        """Whatever this name becomes now, it is no directory any more that waits out of sight to be filled."""
        if self._hidden:
            self._give_up(self.parent + b"/" + name if self.parent else name)

    def _give_up(self, path: bytes) -> None:
        """Remove what stands for this path out of sight, if anything does: its source went before it was filled."""
        temporary = self._hidden.pop(path, None)
        if temporary is None:
            return
        with contextlib.suppress(OSError):
            parent = open_beneath(self.root, path.rpartition(b"/")[0])
            try:
                self._sweep(parent, temporary, os.stat(temporary, dir_fd=parent, follow_symlinks=False))
            finally:
                os.close(parent)

    def make_special(self, name: bytes, flags: int, attributes: Attributes, text: bytes, rdev: int) -> bool:
        """Make ``name`` a symbolic link, device, fifo or socket; whether it was none like this already."""
        kind = stat.S_IFMT(attributes.mode)
        if kind == stat.S_IFLNK:
            if self._is_link(name, attributes, text):
                return False
        elif self._is_node(name, flags, attributes, rdev):
            return False
        temporary = self.temporary()
        if kind == stat.S_IFLNK:
            os.symlink(text, temporary, dir_fd=self.cwd)
        elif kind in (stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK):
            os.mknod(temporary, kind | 0o600, rdev, dir_fd=self.cwd)
        else:
            raise Refused(errno.EINVAL)
        try:
            self.to_name(temporary, attributes)
            self.put_in_place(temporary, name)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=self.cwd)
            raise
        return True

    def _is_link(self, name: bytes, attributes: Attributes, text: bytes) -> bool:
        """Whether it is this link already, with nothing to mend."""
        try:
            theirs = os.stat(name, dir_fd=self.cwd, follow_symlinks=False)
            if not stat.S_ISLNK(theirs.st_mode) or os.readlink(name, dir_fd=self.cwd) != text:
                return False
        except OSError:
            return False
        same_owner = not self.is_root or (theirs.st_uid, theirs.st_gid) == (attributes.uid, attributes.gid)
        same_time = theirs.st_mtime_ns == attributes.mtime_ns
        return same_time and (same_owner or not self.keep & KEEP_OWNER) and not attributes.xattrs

    def _is_node(self, name: bytes, flags: int, attributes: Attributes, rdev: int) -> bool:
        """Whether it is this device, fifo or socket already, with nothing to mend.

        Made anew it would lose its other names, and whoever has it open.
        """
        try:
            theirs = os.stat(name, dir_fd=self.cwd, follow_symlinks=False)
            itself = f"/proc/self/fd/{self.cwd}/{os.fsdecode(name)}"
            xattrs = xattrs_of(itself, self.keep, is_root=self.is_root) if self.looks_at_xattrs else {}
        except OSError:
            return False
        kind = stat.S_IFMT(theirs.st_mode)
        if kind != stat.S_IFMT(attributes.mode) or (kind in (stat.S_IFCHR, stat.S_IFBLK) and theirs.st_rdev != rdev):
            return False
        if theirs.st_nlink > 1 and not flags & LINKED:
            return False  # It shares its inode with a name that is none of ours.
        return (
            (not self.keep & KEEP_OWNER or self._has_owner(theirs, attributes))
            and not (self.keep & KEEP_MODE and (theirs.st_mode ^ attributes.mode) & 0o7777)
            and not (self.keep & KEEP_TIMES and theirs.st_mtime_ns != attributes.mtime_ns)
            and xattrs == attributes.xattrs
        )

    def _has_owner(self, theirs: os.stat_result, attributes: Attributes) -> bool:
        """Whether user and group are right, as far as they can be given."""
        if self.is_root:
            return (theirs.st_uid, theirs.st_gid) == (attributes.uid, attributes.gid)
        return theirs.st_gid == attributes.gid or attributes.gid not in (self.gid, *os.getgroups())

    def link(self, name: bytes, leader: bytes) -> bool:
        """Make ``name`` another name of the file, fifo, socket or device at ``leader``; whether it was none already."""
        above, _, leading = leader.rpartition(b"/")
        checked_name(leading)
        directory = open_beneath(self.root, above)
        try:
            theirs = os.stat(leading, dir_fd=directory, follow_symlinks=False)
            if not may_be_joined(theirs.st_mode):
                raise Refused(errno.ESTALE)
            try:
                present = os.stat(name, dir_fd=self.cwd, follow_symlinks=False)
                if (present.st_dev, present.st_ino) == (theirs.st_dev, theirs.st_ino):
                    return False
            except FileNotFoundError:
                pass
            temporary = self.temporary()
            os.link(leading, temporary, src_dir_fd=directory, dst_dir_fd=self.cwd, follow_symlinks=False)
        finally:
            os.close(directory)
        try:
            self._check_same(temporary, theirs)
            self.put_in_place(temporary, name)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=self.cwd)
            raise
        return True

    def _check_same(self, name: bytes, info: os.stat_result) -> None:
        """Refuse a name that is not what was looked at: swapped since, it may be anything."""
        found = os.stat(name, dir_fd=self.cwd, follow_symlinks=False)
        if not (
            (found.st_dev, found.st_ino) == (info.st_dev, info.st_ino)
            # The number of an inode that went is soon given to another one.
            and (found.st_mode, found.st_uid, found.st_gid) == (info.st_mode, info.st_uid, info.st_gid)
        ):
            raise Refused(errno.ESTALE)

    def move(self, old: bytes, new: bytes, mode: int, size: int, mtime_ns: int) -> None:
        """Rename a path if what is there is what our side expects, and nothing is in the way."""
        if not self.may_delete:
            raise Refused(errno.EPERM)
        old_above, _, old_name = old.rpartition(b"/")
        new_above, _, new_name = new.rpartition(b"/")
        checked_name(old_name)
        checked_name(new_name)
        if self._hidden:
            self.clear_hidden(old)
        source = open_beneath(self.root, old_above)
        try:
            target = open_beneath(self.root, new_above)
            try:
                theirs = os.stat(old_name, dir_fd=source, follow_symlinks=False)
                if stat.S_IFMT(theirs.st_mode) != stat.S_IFMT(mode):
                    raise Refused(errno.ESTALE)
                is_dir = stat.S_ISDIR(mode)
                if not is_dir and (theirs.st_size, theirs.st_mtime_ns, theirs.st_nlink) != (size, mtime_ns, 1):
                    raise Refused(errno.ESTALE)
                try:
                    present = os.stat(new_name, dir_fd=target, follow_symlinks=False)
                    if is_dir or stat.S_ISDIR(present.st_mode):
                        raise Refused(errno.EEXIST)
                except FileNotFoundError:
                    pass
                os.rename(old_name, new_name, src_dir_fd=source, dst_dir_fd=target)
            finally:
                os.close(target)
        finally:
            os.close(source)

    # -- removing -------------------------------------------------------------------------------------------------

    def delete(self, name: bytes, *, recursive: bool) -> int:
        """Remove one name; how many were removed. A directory with something in it only if ``recursive``."""
        if not self.may_delete and not (name.startswith(PARTIAL) and name.endswith(TEMPORARY_SUFFIX)):
            raise Refused(errno.EPERM, AT_DELETE)
        try:
            info = os.stat(name, dir_fd=self.cwd, follow_symlinks=False)
        except FileNotFoundError:
            return 0
        try:
            if not stat.S_ISDIR(info.st_mode):
                os.unlink(name, dir_fd=self.cwd)
                return 1
            if recursive:
                return self.remove(name)
            try:
                os.rmdir(name, dir_fd=self.cwd)
            except OSError as error:
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                    raise Occupied from error
                raise
        except FileNotFoundError:
            return 0
        except OSError as error:
            place = AT_MOUNT if error.errno in (errno.EXDEV, errno.EBUSY) else AT_DELETE
            raise Refused(error.errno or errno.EIO, place) from error
        return 1

    def remove(self, name: bytes) -> int:
        """Remove a directory with all that is below it; how many names went. Never across a mount point."""
        frames: list[tuple[int, bytes, list[bytes]]] = []
        removed = 0
        try:
            while True:
                if name:
                    fd, below, count = self._enter(frames[-1][0] if frames else self.cwd, name)
                    frames.append((fd, name, below))
                    removed += count
                fd, own, below = frames[-1]
                if below:
                    name = below.pop()
                    continue
                name = b""
                frames.pop()
                os.close(fd)
                os.rmdir(own, dir_fd=frames[-1][0] if frames else self.cwd)
                removed += 1
                self.alive()
                if not frames:
                    return removed
        finally:
            for fd, _, _ in frames:
                os.close(fd)

    def _enter(self, parent: int, name: bytes) -> tuple[int, list[bytes], int]:
        try:
            fd = open_unmounted(parent, name)
        except PermissionError:
            change_mode(parent, name, 0o700, stat.S_IFDIR)
            fd = open_unmounted(parent, name)
        below: list[bytes] = []
        count = 0
        try:
            if not self.is_root and os.fstat(fd).st_mode & 0o300 != 0o300:
                os.fchmod(fd, 0o700)
            with os.scandir(fd) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        below.append(os.fsencode(entry.name))
                    else:
                        os.unlink(entry.name, dir_fd=fd)
                        count += 1
        except BaseException:
            os.close(fd)
            raise
        return fd, below, count

    # -- attributes -----------------------------------------------------------------------------------------------

    def to_file(self, fd: int, attributes: Attributes, replaced: os.stat_result | None) -> None:
        """Give the freshly written ``fd`` its attributes; ``replaced`` is what it will replace."""
        made = os.fstat(fd)
        owned = False
        if self.keep & KEEP_OWNER and (made.st_uid, made.st_gid) != (attributes.uid, attributes.gid):
            owned = self._owner(fd, attributes)
        if self.keep & KEEP_MODE:
            if owned or (made.st_mode ^ attributes.mode) & 0o7777:
                os.fchmod(fd, attributes.mode & 0o7777)
        elif replaced is not None and stat.S_ISREG(replaced.st_mode):
            os.fchmod(fd, replaced.st_mode & 0o7777)
        else:
            os.fchmod(fd, attributes.mode & 0o777 & ~self.umask)
        if self.looks_at_xattrs:
            self._xattrs(fd, attributes.xattrs)
        if self.keep & KEEP_TIMES:
            os.utime(fd, ns=(attributes.atime_ns, attributes.mtime_ns))

    def to_existing(self, fd: int, attributes: Attributes, present: os.stat_result) -> bool:
        """Mend what differs on a file or directory that stays; whether anything did."""
        changed = False
        if self.keep & KEEP_OWNER and (present.st_uid, present.st_gid) != (attributes.uid, attributes.gid):
            changed = self._owner(fd, attributes)
        if self.keep & KEEP_MODE and (changed or (present.st_mode ^ attributes.mode) & 0o7777):
            os.fchmod(fd, attributes.mode & 0o7777)
            changed = True
        if self.looks_at_xattrs and self._xattrs(fd, attributes.xattrs):
            changed = True
        if self.keep & KEEP_TIMES and (changed or present.st_mtime_ns != attributes.mtime_ns):
            os.utime(fd, ns=(attributes.atime_ns, attributes.mtime_ns))
            changed = True
        return changed

    def to_self(self, attributes: Attributes) -> bool:
        """Attributes of the directory itself; whether anything had to be mended."""
        mode = self._closed_mode
        if mode >= 0:
            os.fchmod(self.cwd, mode)
            self._closed_mode = -1
        changed = self.to_existing(self.cwd, attributes, os.fstat(self.cwd))
        if self._fills:
            self._fills = False
            self._show()
        return changed

    def to_name(self, name: bytes, attributes: Attributes) -> None:
        """Everything of a link, device, fifo or socket: what cannot be opened."""
        is_link = stat.S_ISLNK(attributes.mode)
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.cwd)
        try:
            present = os.fstat(fd)
            if stat.S_IFMT(present.st_mode) != stat.S_IFMT(attributes.mode) or present.st_nlink > 1:
                raise Refused(errno.ELOOP)
            if self.keep & KEEP_OWNER:
                try:
                    os.chown(
                        name,
                        attributes.uid if self.is_root else -1,
                        attributes.gid,
                        dir_fd=self.cwd,
                        follow_symlinks=False,
                    )
                except OSError as error:
                    if self.is_root or error.errno not in _MAY_NOT:
                        raise
            itself = f"/proc/self/fd/{fd}"
            if self.keep & KEEP_MODE and not is_link:
                os.chmod(itself, attributes.mode & 0o7777)
            if self.looks_at_xattrs:
                where = f"/proc/self/fd/{self.cwd}/{os.fsdecode(name)}" if is_link else itself
                self._xattrs(where, attributes.xattrs, follow=not is_link)
        finally:
            os.close(fd)
        if self.keep & KEEP_TIMES:
            os.utime(name, ns=(attributes.atime_ns, attributes.mtime_ns), dir_fd=self.cwd, follow_symlinks=False)

    def _owner(self, fd: int, attributes: Attributes) -> bool:
        if self.is_root:
            os.fchown(fd, attributes.uid, attributes.gid)
            return True
        try:
            os.fchown(fd, -1, attributes.gid)
        except OSError as error:
            if error.errno not in _MAY_NOT:
                raise
            return False
        return True

    def _listed(self, where: Any, *, follow: bool = True) -> list[str]:
        try:
            names = os.listxattr(where, follow_symlinks=follow)
        except OSError as error:
            if error.errno in _NO_XATTRS:
                return []
            raise
        return [name for name in names if wanted_xattr(name, self.keep, is_root=self.is_root)] if names else names

    def _xattrs(self, where: Any, wanted: dict[str, bytes], *, follow: bool = True) -> bool:
        present = self._listed(where, follow=follow)
        if not present and not wanted:
            return False
        changed = False
        for name in present:
            if name not in wanted:
                try:
                    os.removexattr(where, name, follow_symlinks=follow)
                    changed = True
                except OSError as error:
                    if error.errno != errno.ENODATA and error.errno not in _NO_XATTRS:
                        raise
        for name in sorted(wanted, key=_CAPABILITY.__eq__):
            if not wanted_xattr(name, self.keep, is_root=self.is_root):
                continue
            if name in present and os.getxattr(where, name, follow_symlinks=follow) == wanted[name]:
                continue
            try:
                os.setxattr(where, name, wanted[name], follow_symlinks=follow)
                changed = True
            except OSError as error:
                if error.errno not in _NO_XATTRS or (error.errno == errno.EPERM and self.is_root):
                    raise
        return changed

    # -- looking --------------------------------------------------------------------------------------------------

    def survey(self, fd: int, *, owners: bool) -> Survey:
        """Look at an open directory. Temporary names are none of its entries; those left behind are removed."""
        stale: list[tuple[bytes, os.stat_result]] = []

        def leave_out(name: str, info: os.stat_result) -> bool:
            encoded = os.fsencode(name)
            if not encoded.endswith(TEMPORARY_SUFFIX):
                return False
            if not self.looks_only and self.is_stale(encoded, info):
                stale.append((encoded, info))
            return True

        os.fchdir(fd)
        try:
            found = survey(
                fd, self.keep, is_root=self.is_root, owners=owners, leave_out=leave_out, ask_always=False, base="./"
            )
        finally:
            os.chdir("/")
        if stale:
            times = os.fstat(fd)
            for name, info in stale:
                self._sweep(fd, name, info)
            os.utime(fd, ns=(times.st_atime_ns, times.st_mtime_ns))
        return found

    def look(self, name: bytes) -> bytes:
        """One name of the current directory, or that itself, as a listing has it; nothing when it is not there."""
        try:
            return pack_listed(b"", look_at(self.cwd, name, self.keep, is_root=self.is_root))
        except FileNotFoundError:
            return b""

    def _sweep(self, fd: int, name: bytes, status: os.stat_result) -> None:
        held, self.cwd = self.cwd, fd
        try:
            if stat.S_ISDIR(status.st_mode):
                self.remove(name)
            else:
                os.unlink(name, dir_fd=fd)
        except OSError:
            pass  # Whoever looks next tries again.
        finally:
            self.cwd = held


def numbers_of(names: list[bytes], *, groups: bool, alive: Callable[[], None]) -> bytes:
    """The numbers that users or groups of these names have here."""
    import grp  # noqa: PLC0415  # hardly ever asked for
    import pwd  # noqa: PLC0415

    found = []
    for name in names:
        try:
            decoded = os.fsdecode(name)
            number = grp.getgrnam(decoded).gr_gid if groups else pwd.getpwnam(decoded).pw_uid
        except (KeyError, ValueError, OSError):
            number = NO_NUMBER
        found.append(struct.pack("<I", number))
        alive()
    return b"".join(found)


def sum_at(parent: int, name: bytes, offset: int, length: int, digest: Callable[[Any], bytes]) -> bytes:
    """How much of a stretch of a file there is, and the digest of that."""
    if length > FRAME_MAX or offset >= 1 << 62:
        raise ProtocolError("too long a stretch")
    fd = os.open(name, READ, dir_fd=parent)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise Refused(errno.ESTALE)
        data = os.pread(fd, length, offset)
    finally:
        os.close(fd)
    return SUMMED.pack(len(data)) + digest(data)


class Cut(NamedTuple):
    """Where a file falls into chunks: its content alone says so, and goes on saying so when it is moved."""

    mark: int
    """A chunk may end after this byte …"""
    follows: bytes
    """… and one of these …"""
    mask: int
    """… does so where these bits of the checksum of what stands before are all 0 …"""
    least: int
    """… unless it is shorter than this …"""
    most: int
    """… and in any case when it is so long."""

    def pack(self, stream: int, start: int) -> bytes:
        """As CHUNKS carries it."""
        return CUT_BODY.pack(stream, start, self.least, self.most, self.mark, self.mask) + self.follows

    def of(self, fd: int, offset: int, digest: Callable[[Any], bytes]) -> Iterator[tuple[int, bytes]]:
        """(length, digest) of each chunk of an open file from an offset on."""
        after = b"".join(re.escape(bytes((byte,))) for byte in self.follows)
        # At the speed of memory: a rolling sum of every byte would take a hundred times as long here.
        search = re.compile(re.escape(bytes((self.mark,))) + b"[" + after + b"]", re.DOTALL).search
        mask, least, most, crc32 = self.mask, self.least, self.most, zlib.crc32
        window = max(1 << 20, 2 * most)
        while True:
            data = os.pread(fd, window, offset)
            at, end = 0, len(data)
            enough = most if end == window else 1
            view = memoryview(data)
            while end - at >= enough:
                stop = latest = min(at + most, end)
                place = at + least
                for _ in range(TRIES):  # there may be the same again and again
                    found = search(data, place, latest)
                    if found is None:
                        break
                    place = found.end()
                    if not crc32(view[place - SUMMED_BEFORE : place]) & mask:
                        stop = place
                        break
                yield stop - at, digest(view[at:stop])
                at = stop
            if enough == 1:
                return
            offset += at


def unpack_cut(rest: memoryview) -> tuple[int, int, Cut]:
    """Stream, start and Cut of CHUNKS."""
    stream, start, least, most, mark, mask = CUT_BODY.unpack_from(rest)
    follows = bytes(rest[CUT_BODY.size :])
    if not 0 < len(follows) <= 256 or start >= 1 << 62 or not SUMMED_BEFORE <= least < most <= CHUNK_MOST:
        raise ProtocolError("no way to cut")
    return stream, start, Cut(mark, follows, mask, least, most)


def _holds(fd: int, data: memoryview) -> bool:
    """Whether a file holds just these bytes."""
    return os.pread(fd, len(data) + 1, 0) == data


def token_of(info: os.stat_result) -> bytes:
    """Tells an unchanged file from any other."""
    identity = struct.pack("<QQQqq", info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)
    return hashlib.blake2b(identity, digest_size=DIGEST).digest()


class Stream:
    """A large file on its way: what is there already, and the file that it becomes."""

    def __init__(self, number: int, parent: bytes, name: bytes, size: int, flags: int) -> None:
        self.number = number
        self.parent = parent
        self.name = name
        self.size = size
        self.flags = flags
        self.old = -1
        """What is signed, block by block."""
        self.made = -1
        """What is written; the same file when it is patched in place or resumed."""
        self.temporary = b""
        self.partial = b""
        """The temporary name that it has, or would have."""
        self.taken_up = False
        """What is signed came of it before a cut."""
        self.base = -1
        """The target's version, cut into chunks; stretches of it are copied over."""
        self.base_token = b""
        self.cutting: Iterator[tuple[int, bytes]] | None = None
        self.copying: deque[tuple[int, int, int]] = deque()
        """What is still to be copied from there: offset, where it stands, length."""
        self.copies = False
        """Signed blocks are to be copied over as well."""
        self.as_left = False
        """Nothing needs to be signed: our side knows its digests."""
        self.sent: set[int] = set()
        """Blocks that came before it was their turn to be copied over."""
        self.sparse = False
        """What is zero in them is to stay a hole."""
        self.failed = 0
        """The error of a piece that could not be written: then it must not be published."""
        self.offset = 0
        self.old_size = 0

    def close(self) -> None:
        """Let go of both files; a temporary one stays, for it may be taken up again."""
        if self.old >= 0:
            os.close(self.old)
        if self.made >= 0 and self.made != self.old:
            os.close(self.made)
        if self.base >= 0:
            os.close(self.base)
        self.old = self.made = self.base = -1


class Streams:
    """The large files under way."""

    def __init__(self, writer: Writer, digest: Callable[[Any], bytes]) -> None:
        self.writer = writer
        self.digest = digest
        self.streams: dict[int, Stream] = {}
        self.signing: list[Stream] = []
        self._block = bytearray(BLOCK)
        self._zeros = bytes(BLOCK)

    def begin(self, number: int, parent: bytes, name: bytes, flags: int, rest: memoryview) -> bytes:
        """Open what the target has of it; payload: what there is to sign, and its size."""
        if len(rest) != 8 + 2 * DIGEST or number in self.streams or len(self.streams) >= 64:
            raise ProtocolError("no stream")
        size = struct.unpack_from("<Q", rest)[0]
        stream = Stream(number, parent, name, size, flags)
        stream.partial = partial_name(name, bytes(rest[8 : 8 + DIGEST]))
        try:
            self._open(stream)
            if stream.old >= 0:
                self.writer.read_from_disk(stream.old)
                known = token_of(os.fstat(stream.old)) == rest[8 + DIGEST :] and not self.writer.doubts_cache
                stream.as_left = known and not flags & SIGN_ONLY
        except BaseException:
            stream.close()
            raise
        self.streams[number] = stream
        if stream.old < 0:
            return BEGUN.pack(NOTHING_THERE, 0)
        self.signing.append(stream)
        found = AS_LEFT if stream.as_left else TAKEN_UP if stream.taken_up else SIGNED_SOON
        return BEGUN.pack(found, stream.old_size)

    def _open(self, stream: Stream) -> None:
        cwd, name, partial = self.writer.cwd, stream.name, stream.partial
        if not self.writer.may_delete:
            with contextlib.suppress(FileNotFoundError):
                if stat.S_ISDIR(os.stat(name, dir_fd=cwd, follow_symlinks=False).st_mode):
                    raise Refused(errno.EISDIR)  # At its end all of it would have been sent.
        if stream.flags & SIGN_ONLY:
            stream.old = os.open(name, READ, dir_fd=cwd)
            stream.old_size = self._size_of_regular(stream.old)
            return
        if stream.flags & INPLACE:
            with contextlib.suppress(OSError):
                stream.old = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=cwd)
            if stream.old >= 0:
                info = os.fstat(stream.old)
                if stat.S_ISREG(info.st_mode) and info.st_nlink == 1 and info.st_size >= stream.size // 2:
                    stream.made, stream.old_size = stream.old, info.st_size
                    return
                stream.close()
        stream.temporary = partial
        self._sweep_others(partial)
        with contextlib.suppress(OSError):
            stream.old = os.open(partial, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=cwd)
        if stream.old >= 0:
            info = os.fstat(stream.old)
            if stat.S_ISREG(info.st_mode) and info.st_nlink == 1 and info.st_uid == self.writer.uid:
                stream.made, stream.old_size = stream.old, info.st_size
                stream.taken_up = True
                return
            stream.close()
            os.unlink(partial, dir_fd=cwd)
        stream.made = os.open(partial, (WRITE & ~os.O_WRONLY) | os.O_RDWR, 0o600, dir_fd=cwd)
        if not stream.flags & SIGN:
            return
        try:
            old = os.open(name, READ, dir_fd=cwd)
        except OSError:
            return
        info = os.fstat(old)
        if not stat.S_ISREG(info.st_mode) or info.st_size < stream.size // 2:
            os.close(old)
            return
        stream.old, stream.old_size = old, info.st_size
        try:
            fcntl.ioctl(stream.made, 0x40049409, old)
        except OSError:
            stream.copies = True
            stream.sparse = bool(self.writer.keep & KEEP_SPARSE) and info.st_blocks * 512 < info.st_size

    def _sweep_others(self, partial: bytes) -> None:
        """Remove what came of other versions of this file; nobody will take that up again."""
        cwd = self.writer.cwd
        beginning = partial[: partial.rindex(b"-") + 1]
        used = {stream.temporary for stream in self.streams.values()}
        for name in map(os.fsencode, os.listdir(cwd)):
            if name.startswith(beginning) and name != partial and name not in used:
                with contextlib.suppress(OSError):
                    os.unlink(name, dir_fd=cwd)

    @staticmethod
    def _size_of_regular(fd: int) -> int:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise Refused(errno.ESTALE)
        return info.st_size

    def step(self) -> bytes:
        """Sign some blocks of the first file in the queue; the body of a SIGNED frame, for ``stepped``."""
        stream = self.signing.pop(0)
        self.stepped = stream.number
        if stream.cutting is not None:
            return self._cut(stream, stream.cutting)
        if stream.copying:
            return self._copy_over(stream)
        if stream.as_left:
            return self._copy(stream)
        digests = []
        first = stream.offset // BLOCK
        done = False
        try:
            for _ in range(8):
                count = os.preadv(stream.old, [self._block], stream.offset)
                if not count:
                    done = True
                    break
                data = memoryview(self._block)[:count]
                digests.append(self.digest(data))
                if stream.copies:
                    if stream.sparse and not self._block[0] and data == self._zeros[:count]:
                        os.ftruncate(stream.made, stream.offset + count)
                    else:
                        write_all(stream.made, data, stream.offset)
                stream.offset += count
                if count < BLOCK:
                    done = True
                    break
        except OSError as error:
            stream.failed = error.errno or errno.EIO
            return SIGNED_BODY.pack(first, True, stream.failed)
        if not done:
            self.signing.append(stream)
        return SIGNED_BODY.pack(first, done, 0) + b"".join(digests)

    def _copy(self, stream: Stream) -> bytes:
        """Copy some blocks over that were not sent; the last time says so, before that it says nothing."""
        try:
            stop = min(stream.old_size, stream.size) if stream.copies else 0
            until = min(stop, stream.offset + 16 * BLOCK)
            while stream.offset < until:
                length = min(BLOCK, until - stream.offset)
                if stream.offset // BLOCK not in stream.sent:
                    self._copy_block(stream, length)
                stream.offset += length
        except OSError as error:
            stream.failed = error.errno or errno.EIO
            return SIGNED_BODY.pack(0, True, stream.failed)
        if stream.offset < stop:
            self.signing.append(stream)
            return b""
        return SIGNED_BODY.pack(0, True, 0)

    def _copy_block(self, stream: Stream, length: int) -> None:
        data = memoryview(self._block)[: os.preadv(stream.old, [memoryview(self._block)[:length]], stream.offset)]
        if stream.sparse and data and not data[0] and data == self._zeros[: len(data)]:
            os.ftruncate(stream.made, max(os.fstat(stream.made).st_size, stream.offset + len(data)))
        else:
            write_all(stream.made, data, stream.offset)

    # Where most blocks differ, what is in them may stand somewhere else: then the target's version is cut into chunks
    # wherever its content says so, and our side tells which of them go where.

    def chunks(self, rest: memoryview) -> bytes:
        """Begin to sign the target's version by content; only a stream's number: no more of that is wanted."""
        if len(rest) == 4:
            stream = self.get(struct.unpack("<I", rest)[0])
            stream.cutting = None
            if stream in self.signing:
                self.signing.remove(stream)
            return b""
        number, start, cut = unpack_cut(rest)
        stream = self.get(number)
        if stream.made < 0 or stream.base >= 0:
            raise ProtocolError("not to be cut into chunks")
        if stream in self.signing:
            self.signing.remove(stream)
        stream.as_left = False
        try:
            base = os.open(stream.name, READ, dir_fd=self.writer.cwd)
        except OSError:
            return CHUNKED.pack(0, False)
        info = os.fstat(base)
        if not stat.S_ISREG(info.st_mode):
            os.close(base)
            return CHUNKED.pack(0, False)
        stream.base, stream.base_token = base, token_of(info)
        anew = not stream.temporary
        if anew:
            # It was to be patched in place; what it holds is needed until the last of it has another place.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(stream.partial, dir_fd=self.writer.cwd)
            self._sweep_others(stream.partial)
            stream.made = os.open(stream.partial, (WRITE & ~os.O_WRONLY) | os.O_RDWR, 0o600, dir_fd=self.writer.cwd)
            stream.temporary = stream.partial
        stream.sparse = bool(self.writer.keep & KEEP_SPARSE) and info.st_blocks * 512 < info.st_size
        stream.cutting = cut.of(base, start, self.digest)
        self.signing.append(stream)
        return CHUNKED.pack(info.st_size, anew)

    def _cut(self, stream: Stream, chunks: Iterator[tuple[int, bytes]]) -> bytes:
        """The next chunks."""
        found = []
        done = BY_CONTENT | LAST
        length = 0
        try:
            for size, digest in chunks:
                found.append(CHUNK.pack(size) + digest)
                length += size
                if length >= 8 * BLOCK:
                    done = BY_CONTENT
                    break
        except OSError as error:
            stream.failed = error.errno or errno.EIO
        if done & LAST:
            stream.cutting = None
        else:
            self.signing.append(stream)
        return SIGNED_BODY.pack(0, done, stream.failed) + b"".join(found)

    def copy(self, number: int, offset: int, start: int, length: int) -> None:
        """Have a stretch of the target's version copied over when nothing else is to do; of no length: the last one."""
        stream = self.get(number)
        if stream.base < 0 or stream.cutting is not None or offset + length > stream.size or start >= 1 << 62:
            raise ProtocolError("nothing to copy")
        if len(stream.copying) >= COPIES_MAX:
            raise ProtocolError("too much to copy")
        stream.copying.append((offset, start, length))
        if stream not in self.signing:
            self.signing.append(stream)

    def _copy_over(self, stream: Stream) -> bytes:
        """Copy some of what waits for it; the last time says so, before that it says nothing."""
        left = 8 * BLOCK
        try:
            while stream.copying and left:
                offset, start, length = stream.copying.popleft()
                if not length:
                    stream.copying.clear()
                    return SIGNED_BODY.pack(0, BY_CONTENT | LAST, stream.failed)
                if stream.failed:
                    continue
                view = memoryview(self._block)[: min(length, left)]
                count = os.preadv(stream.base, [view], start)
                if not count:
                    raise Refused(errno.ESTALE)
                if stream.sparse and not view[0] and view[:count] == self._zeros[:count]:
                    punch(stream.made, offset, count)
                else:
                    write_all(stream.made, view[:count], offset)
                left -= count
                if count < length:
                    stream.copying.appendleft((offset + count, start + count, length - count))
        except OSError as error:
            stream.failed = error.errno or errno.EIO
        if stream.copying:
            self.signing.append(stream)
        return b""

    def get(self, number: int) -> Stream:
        """The stream of this number."""
        stream = self.streams.get(number)
        if stream is None:
            raise ProtocolError("no such stream")
        return stream

    def data(self, number: int, offset: int, data: memoryview) -> None:
        """Write a piece."""
        stream = self.get(number)
        if stream.made < 0 or offset + len(data) > stream.size:
            raise ProtocolError("outside of the stream")
        self._note_sent(stream, offset, len(data))
        try:
            write_all(stream.made, data, offset)
        except OSError as error:
            stream.failed = error.errno or errno.EIO
            raise

    def hole(self, number: int, offset: int, length: int) -> None:
        """Make a hole."""
        stream = self.get(number)
        if stream.made < 0 or offset + length > stream.size:
            raise ProtocolError("outside of the stream")
        self._note_sent(stream, offset, length)
        try:
            if self.writer.keep & KEEP_SPARSE:
                punch(stream.made, offset, length)
                return
            zeros = bytes(BLOCK)
            for at in range(offset, offset + length, BLOCK):
                write_all(stream.made, zeros[: min(BLOCK, offset + length - at)], at)
                self.writer.alive()
        except OSError as error:
            stream.failed = error.errno or errno.EIO
            raise

    @staticmethod
    def _note_sent(stream: Stream, offset: int, length: int) -> None:
        if stream.as_left and stream.copies and offset < stream.old_size:
            if offset % BLOCK or length > BLOCK:
                raise ProtocolError("no block")
            stream.sent.add(offset // BLOCK)

    def end(self, number: int, attributes: Attributes, *, flags: int) -> bytes:
        """Publish the file; the writer is in its directory. What tells that it is as it was left here."""
        stream = self.get(number)
        writer = self.writer
        if stream in self.signing:
            raise ProtocolError("not signed yet")
        try:
            if stream.failed:
                raise Refused(stream.failed)
            if stream.flags & SIGN_ONLY:
                present = os.fstat(stream.old)
                theirs = os.stat(stream.name, dir_fd=writer.cwd, follow_symlinks=False)
                if (present.st_dev, present.st_ino) != (theirs.st_dev, theirs.st_ino) or (
                    present.st_nlink > 1 and not flags & LINKED
                ):
                    raise Refused(errno.ESTALE)
                if not writer.to_existing(stream.old, attributes, present) and writer.keep & KEEP_TIMES:
                    os.utime(stream.old, ns=(attributes.atime_ns, attributes.mtime_ns))
                return b""
            if stream.base >= 0 and token_of(os.fstat(stream.base)) != stream.base_token:
                raise Refused(errno.ESTALE)  # Somebody has written to what was copied from.
            os.ftruncate(stream.made, stream.size)
            replaced: os.stat_result | None = None
            with contextlib.suppress(FileNotFoundError):
                replaced = os.stat(stream.name, dir_fd=writer.cwd, follow_symlinks=False)
            writer.to_file(stream.made, attributes, replaced)
            if stream.temporary:
                made = os.fstat(stream.made)
                present = os.stat(stream.temporary, dir_fd=writer.cwd, follow_symlinks=False)
                if (made.st_dev, made.st_ino) != (present.st_dev, present.st_ino):
                    raise Refused(errno.ESTALE)
                writer.put_in_place(stream.temporary, stream.name)
            return token_of(os.fstat(stream.made))
        finally:
            self._drop(stream)

    def abort(self, number: int) -> None:
        """Forget about it; the writer is in its directory."""
        stream = self.streams.get(number)
        if stream is None:
            return
        self._drop(stream)
        if stream.temporary:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(stream.temporary, dir_fd=self.writer.cwd)

    def close(self) -> None:
        """The connection is over: what came of large files stays, to be taken up again, if it is much."""
        for stream in list(self.streams.values()):
            size = os.fstat(stream.made).st_size if stream.temporary else PARTIAL_KEPT_BYTES
            self._drop(stream)
            if size < PARTIAL_KEPT_BYTES:
                with contextlib.suppress(OSError):
                    directory = open_beneath(self.writer.root, stream.parent)
                    os.unlink(stream.temporary, dir_fd=directory)
                    os.close(directory)

    def _drop(self, stream: Stream) -> None:
        if stream in self.signing:
            self.signing.remove(stream)
        del self.streams[stream.number]
        stream.close()


# ---- the agent -------------------------------------------------------------------------------------------------------


class Succession:
    """Sees to it that of all agents that were started for one engine only the last one does anything.

    A connection that fell silent is given up by our side long before this one hears of it, and what was sent meanwhile
    may arrive yet, after newer things that came over the next connection. So who opens a root for an engine first ends
    whoever did so before, and waits until that process is gone. They meet at an abstract socket, which is told by a
    signal: that gets through whatever the older one waits for. Only the same user counts, on both ends.
    """

    def __init__(self) -> None:
        self._listener: Any = None
        self._successor: Any = None

    def begin(self, whose: bytes) -> bool:
        """Take the place; False when the older one has not ended in time. Without such sockets there is no check."""
        import _socket  # noqa: PLC0415  # the module around it takes 10 ms to import

        until = time.monotonic() + SUCCESSION_S
        name = b"\0instep-agent-" + whose.hex().encode()
        try:
            listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        except OSError:
            return True
        while True:
            try:
                listener.bind(name)
                break
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    return True
            if time.monotonic() > until:
                return False
            other = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
            try:
                other.settimeout(max(0.1, until - time.monotonic()))
                other.connect(name)
                if not self._is_ours(other):
                    return True  # Somebody who has seen the name; our older one would stand there itself.
                other.recv(1)
            except OSError:
                time.sleep(0.01)  # Just ending, not listening yet, or the time is over.
            finally:
                other.close()
        self._listener = listener
        try:
            # The default action would end the process: so the handler comes first.
            signal.signal(signal.SIGIO, self._called)
            fcntl.fcntl(listener.fileno(), fcntl.F_SETOWN, os.getpid())
            flags = fcntl.fcntl(listener.fileno(), fcntl.F_GETFL)
            fcntl.fcntl(listener.fileno(), fcntl.F_SETFL, flags | os.O_NONBLOCK | os.O_ASYNC)
            listener.listen(4)
        except (OSError, ValueError):
            listener.close()
        return True

    def _called(self, *_: object) -> None:
        import _socket  # noqa: PLC0415  # as above

        while self._successor is None:
            try:
                fd, _ = self._listener._accept()  # noqa: SLF001  # its public face is in the slow module
            except OSError:
                return
            caller = _socket.socket(fileno=fd)
            if self._is_ours(caller):
                self._successor = caller  # It hears of our end by this being closed.
                raise Succeeded
            caller.close()

    @staticmethod
    def _is_ours(connected: Any) -> bool:
        import _socket  # noqa: PLC0415  # as above

        credentials = connected.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)
        return bool(struct.unpack("=iII", credentials)[1] == os.geteuid())


class Agent:
    """Serves one connection until it ends."""

    def __init__(self, read: int, write: int, forced_root: bytes | None) -> None:
        self.read_fd = read
        self.write_fd = write
        self.forced_root = forced_root
        self.writer: Writer | None = None
        self.streams: Streams | None = None
        self.path = b""
        self.identity = (0, 0)
        self._said = 0.0
        self._saying = threading.Lock()
        self._buffer = bytearray(1 << 20)
        self._start = self._end = 0
        self._owners = True
        self.succession = Succession()

    def run(self) -> int:
        """Speak until the other end is gone; the exit status."""
        os.umask(0)
        if self.forced_root is not None and not self._skip_source():
            return 3
        self.say(
            HELLO,
            0,
            HELLO_BODY.pack(PROTOCOL, os.geteuid() == 0, abilities(), os.getpid(), speed(SHA256), speed(BLAKE2B)),
            MAGIC,
        )
        try:
            while True:
                signing = self.streams is not None and bool(self.streams.signing)
                if signing and not self._ready():
                    assert self.streams is not None
                    body = self.streams.step()
                    if body:
                        self.say(SIGNED, self.streams.stepped, body)
                    else:
                        self.alive()
                    continue
                received = self.receive()
                if received is None:
                    return 0
                self.serve(*received)
        except (ProtocolError, ValueError, struct.error) as error:
            with contextlib.suppress(OSError):
                self.say(REFUSED, 0, b"protocol error: " + str(error).encode())
            return 3
        except (BrokenPipeError, ConnectionError, Succeeded):
            return 0
        finally:
            if self.streams is not None:
                with contextlib.suppress(OSError):
                    self.streams.close()
                    self.streams.writer.clear_hidden()

    def _skip_source(self) -> bool:
        """Whoever connects sends an agent first; this one runs already, so that is passed over."""
        head = self._exactly(len(BOOT % 0))
        if len(head) != len(BOOT % 0) or not head.startswith(BOOT[:12]):
            return False
        try:
            left = int(head[15:23], 16)
        except ValueError:
            return False
        while left:
            got = len(self._exactly(min(left, 1 << 16)))
            if not got:
                return False
            left -= got
        return True

    def _exactly(self, count: int) -> bytes:
        """So many bytes; fewer at the end of the connection."""
        data = b""
        while len(data) < count:
            if not select.select([self.read_fd], [], [], SILENCE_S)[0]:
                break
            more = os.read(self.read_fd, count - len(data))
            if not more:
                break
            data += more
        return data

    def _ready(self) -> bool:
        return self._end > self._start or bool(select.select([self.read_fd], [], [], 0)[0])

    # -- frames ---------------------------------------------------------------------------------------------------

    def say(self, kind: int, number: int, body: bytes, before: bytes = b"") -> None:
        """Send one frame; blocks until the other end takes it."""
        view = memoryview(before + frame(kind, number, body))
        with self._saying:
            while view:
                view = view[os.write(self.write_fd, view) :]
        self._said = time.monotonic()

    def alive(self) -> None:
        """Called now and then in what takes long: our side must not take us for dead."""
        if time.monotonic() - self._said > ALIVE_S:
            self.say(PONG, 0, b"")

    def receive(self) -> tuple[int, int, memoryview] | None:
        """The next frame, whose body is good until the one after it; None at the end of the connection."""
        size = HEADER.size
        if not self._fill(size):
            return None
        length, kind, number = HEADER.unpack_from(self._buffer, self._start)
        if length > FRAME_MAX:
            raise ProtocolError(f"a frame of {length} bytes")
        if not self._fill(size + length):
            return None
        start = self._start + size
        self._start = start + length
        body = memoryview(self._buffer)[start : self._start]
        if kind & COMPRESSED:
            return kind & ~COMPRESSED, number, memoryview(inflate(bytes(body)))
        if kind & ZSTD:
            return kind & ~ZSTD, number, memoryview(unpack_zstd(bytes(body)))
        return kind, number, body

    def _fill(self, count: int) -> bool:
        """Have at least so many bytes in the buffer; False when the connection ends before."""
        have = self._end - self._start
        if have >= count:
            return True
        if count > len(self._buffer):
            larger = bytearray(count)
            larger[:have] = self._buffer[self._start : self._end]
            self._buffer, self._start, self._end = larger, 0, have
        elif self._start + count > len(self._buffer) or not have:
            self._buffer[:have] = self._buffer[self._start : self._end]
            self._start, self._end = 0, have
        view = memoryview(self._buffer)
        while self._end - self._start < count:
            if not select.select([self.read_fd], [], [], SILENCE_S)[0]:
                return False
            got = os.readv(self.read_fd, [view[self._end :]])
            if not got:
                return False
            self._end += got
        return True

    def serve(self, kind: int, number: int, body: memoryview) -> None:
        """Do what one frame asks for."""
        if kind == BATCH:
            self.batch(number, body)
        elif kind == PING:
            self.say(PONG, number, struct.pack("<q", time.time_ns()))
        elif kind == SYNC:
            # It may take as long as the disk likes: nothing else waits for it.
            threading.Thread(target=self._sync, args=(number,), daemon=True).start()
        elif kind == OPEN:
            self.open(number, body)
        elif kind == DOUBT and self.writer is not None:
            self.writer.doubts_cache = True  # It was another agent that was told of the loss.
        else:
            raise ProtocolError("no such frame")

    def _sync(self, number: int) -> None:
        lost = b""
        if self.writer is not None and _libc is not None and _libc.syncfs(self.writer.root) < 0:
            why = ctypes.get_errno()
            if why not in (errno.ENOSYS, errno.EINVAL, errno.EPERM):
                self.writer.doubts_cache = True
                lost = RESULT.pack(0, FAILED, FAILURE.size) + FAILURE.pack(why, AT_OPERATION)
        with contextlib.suppress(OSError):
            self.say(ACK, number, lost)

    # -- opening --------------------------------------------------------------------------------------------------

    def open(self, number: int, body: memoryview) -> None:
        """Open the root."""
        if self.writer is not None:
            raise ProtocolError("open already")
        if struct.unpack_from("<H", body)[0] != PROTOCOL:
            reason = b"protocol %d is spoken here" % PROTOCOL
            self.say(REFUSED, number, struct.pack("<H", errno.EPROTO) + reason)
            return
        _, flags, keep, umask, algorithm, key, whose = OPEN_BODY.unpack_from(body)
        path = bytes(body[OPEN_BODY.size :])
        if not flags & (DRY | LOOKS_ONLY) and not self.succession.begin(whose):
            reason = b"the agent that served before has not ended yet"
            self.say(REFUSED, number, struct.pack("<H", errno.EBUSY) + reason)
            return
        try:
            root = self._open_root(path, flags)
        except OSError as error:
            reason = os.fsencode(f"{os.fsdecode(path)}: {error.strerror}")
            self.say(REFUSED, number, struct.pack("<H", error.errno or errno.EIO) + reason)
            return
        info = os.fstat(root)
        self.identity = (info.st_dev, info.st_ino)
        self.writer = Writer(root, flags, keep, umask & 0o777, self.alive)
        self._owners = self.writer.is_root and bool(keep & KEEP_OWNER)
        if flags & LOOKS_ONLY:
            with contextlib.suppress(OSError):
                os.nice(19)  # Nobody waits for it.
        self.streams = Streams(self.writer, hasher(algorithm, key))
        self.say(OPENED, number, OPENED_BODY.pack(info.st_dev, info.st_ino, born_ns(root), time.time_ns()))

    def _open_root(self, path: bytes, flags: int) -> int:
        if not path or b"\0" in path:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        if self.forced_root is None:
            if path.startswith(b"~/") or path == b"~":
                path = os.path.expanduser(path)
            path = self.path = os.path.abspath(path)
            if flags & MAY_MAKE_ROOT:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(path, 0o755)
            try:
                return os.open(path, DIRECTORY & ~os.O_NOFOLLOW)
            except FileNotFoundError:
                if not flags & DRY:
                    raise
                # An empty directory that no path leads to stands for the one that must not be made.
                self.path = b"."
                import tempfile  # noqa: PLC0415  # takes long, and is hardly ever needed

                nowhere = tempfile.mkdtemp(prefix="instep-")
                os.chdir(nowhere)
                os.rmdir(nowhere)
                return os.open(b".", DIRECTORY)
        # A key that is bound to one directory: that one, or one below it.
        forced = os.path.abspath(self.forced_root)
        inner = os.path.relpath(path, forced) if path.startswith(b"/") else os.path.normpath(path)
        inner = b"" if inner == b"." else inner
        if inner.split(b"/")[0] == b"..":
            raise OSError(errno.EACCES, "this key only serves " + os.fsdecode(forced))
        self.path = os.path.join(forced, inner) if inner else forced
        outer = os.open(forced, DIRECTORY & ~os.O_NOFOLLOW)
        try:
            if inner and flags & MAY_MAKE_ROOT:
                above, _, name = inner.rpartition(b"/")
                parent = open_beneath(outer, above)
                try:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(name, 0o755, dir_fd=parent)
                finally:
                    os.close(parent)
            return open_beneath(outer, inner)
        finally:
            os.close(outer)

    # -- operations -----------------------------------------------------------------------------------------------

    def batch(self, number: int, body: memoryview) -> None:
        """Do the operations of one frame, and say which of them did not end plainly well."""
        writer, streams = self.writer, self.streams
        if writer is None or streams is None:
            raise ProtocolError("nothing is open")
        try:
            info = os.stat(self.path)
            away = "" if (info.st_dev, info.st_ino) == self.identity else "is another directory than before"
        except OSError as error:
            away = error.strerror or "is gone"
        if away:
            self.say(REFUSED, number, os.fsencode(f"{os.fsdecode(self.path)}: {away}"))
            return
        found: list[bytes] = []
        lost = True
        try:
            for index, (code, flags, name, rest) in enumerate(operations(body)):
                status, payload = OK, b""
                try:
                    if code == PUT and not (lost or writer.looks_only):
                        attributes, data = unpack_attributes(rest)
                        writer.forget_hidden(name)
                        if writer.put(checked_name(name), flags, attributes, data):
                            continue
                        payload = b"\0"  # It was there already.
                    elif code == CD:
                        prefix = writer.change_to(name)
                        lost = prefix is not None
                        if prefix is not None:
                            status, payload = NO_DIRECTORY, struct.pack("<H", prefix)
                    elif writer.looks_only and code not in _LOOKING:
                        raise Refused(errno.EROFS)
                    elif code in _ROOTED:
                        status, payload = self._rooted(number, index, code, flags, name, rest)
                    elif lost:
                        continue
                    else:
                        status, payload = self._named(code, flags, name, rest)
                except Occupied:
                    status = OCCUPIED
                except OSError as error:
                    if code == CD:
                        lost = True
                    place = error.place if isinstance(error, Refused) else AT_DIRECTORY if code == CD else AT_OPERATION
                    status, payload = FAILED, FAILURE.pack(error.errno or errno.EIO, place)
                if status != OK or payload:
                    found.append(RESULT.pack(index, status, len(payload)) + payload)
        finally:
            writer.leave()
        self.say(ACK, number, b"".join(found))

    def _named(self, code: int, flags: int, name: bytes, rest: memoryview) -> tuple[int, bytes]:
        """An operation on one name of the current directory."""
        writer, streams = self.writer, self.streams
        assert writer is not None
        assert streams is not None
        if code == SELF:
            attributes, _ = unpack_attributes(rest)
            return OK, b"\1" if writer.to_self(attributes) else b""
        if code == END:
            attributes, _ = unpack_attributes(rest[4:])
            return OK, streams.end(struct.unpack_from("<I", rest)[0], attributes, flags=flags)
        if code == ABORT:
            streams.abort(struct.unpack_from("<I", rest)[0])
            return OK, b""
        if code == LOOK and not name:
            return OK, writer.look(name)
        checked_name(name)
        if code not in _LOOKING:
            writer.forget_hidden(name)
        if code == MKDIR:
            return OK, b"\1" if writer.make_directory(name, hidden=bool(flags & HIDDEN)) else b""
        if code == SYMLINK:
            attributes, text = unpack_attributes(rest)
            writer.make_special(name, flags, attributes, bytes(text), 0)
        elif code == NODE:
            attributes, after = unpack_attributes(rest)
            made = writer.make_special(name, flags, attributes, b"", struct.unpack("<Q", after)[0])
            return OK, b"" if made else b"\0"
        elif code == DELETE:
            return OK, struct.pack("<I", writer.delete(name, recursive=bool(flags & RECURSIVE)))
        elif code == LINK:
            return OK, b"" if writer.link(name, bytes(rest)) else b"\0"
        elif code == LOOK:
            return OK, writer.look(name)
        elif code == META:
            attributes, after = unpack_attributes(rest)
            size = struct.unpack("<Q", after)[0]
            if not writer.mend(name, flags, attributes, size, lambda fd: _has_time(fd, attributes.mtime_ns)):
                return WANTED, b""
        elif code == VERIFY:
            attributes, after = unpack_attributes(rest)
            size = struct.unpack_from("<Q", after)[0]
            digest = bytes(after[8:])
            if size > FRAME_MAX:
                raise ProtocolError("too large to verify")
            if not writer.mend(name, flags, attributes, size, lambda fd: streams.digest(_content(fd, size)) == digest):
                return WANTED, b""
        elif code == BEGIN:
            return OK, streams.begin(struct.unpack_from("<I", rest)[0], writer.parent, name, flags, rest[4:])
        elif code == CHUNKS:
            return OK, streams.chunks(rest)
        elif code == SUM:
            offset, length = STRETCH.unpack(rest)
            return OK, sum_at(writer.cwd, name, offset, length, streams.digest)
        else:
            raise ProtocolError("no such operation")
        return OK, b""

    def _rooted(
        self, number: int, index: int, code: int, flags: int, name: bytes, rest: memoryview
    ) -> tuple[int, bytes]:
        """An operation that is not about a name of the current directory."""
        writer, streams = self.writer, self.streams
        assert writer is not None
        assert streams is not None
        if code == DATA:
            stream, offset = STREAM.unpack_from(rest)
            streams.data(stream, offset, rest[STREAM.size :])
        elif code == HOLE:
            stream, offset = STREAM.unpack_from(rest)
            streams.hole(stream, offset, struct.unpack_from("<Q", rest, STREAM.size)[0])
        elif code == COPY:
            stream, offset = STREAM.unpack_from(rest)
            streams.copy(stream, offset, *COPIED.unpack(rest[STREAM.size :]))
        elif code == MOVE:
            length, mode, size, mtime_ns = MOVED.unpack_from(rest)
            new = bytes(rest[MOVED.size :])
            if len(new) != length:
                raise ProtocolError("cut short")
            writer.leave()
            writer.move(name, new, mode, size, mtime_ns)
        elif code == BELOW:
            return self._below(name, rest)
        elif code == NUMBERS:
            return OK, numbers_of(bytes(rest).split(b"\0"), groups=bool(flags & GROUPS), alive=self.alive)
        else:
            return self._check(number, index, flags, name, rest)
        return OK, b""

    def _below(self, path: bytes, rest: memoryview) -> tuple[int, bytes]:
        """Compare many directories with one digest; payload: those for which the times leave it open."""
        writer = self.writer
        assert writer is not None
        length, count = BELOW_HEAD.unpack_from(rest)
        at = BELOW_HEAD.size + length
        if len(rest) != at + DIGEST + 8 * count:
            raise ProtocolError("cut short")
        newest = struct.unpack_from(f"<{count}q", rest, at + DIGEST)
        above = path + b"/" if path else b""
        todo = [above + name for name in reversed(bytes(rest[BELOW_HEAD.size : at]).split(b"\0"))]
        digests: list[bytes] = []
        open_: list[int] = []
        while todo and len(digests) < count:
            here = todo.pop()
            fd = open_beneath(writer.root, here)
            try:
                found = writer.survey(fd, owners=self._owners)
            finally:
                os.close(fd)
            if found.oldest_ns <= newest[len(digests)]:
                open_.append(len(digests))
            digests.append(found.digest)
            todo += found.inner(here)
            self.alive()
        if len(digests) != count or digest_of(digests) != rest[at : at + DIGEST]:
            return WANTED, b""
        return OK, struct.pack(f"<{len(open_)}H", *open_)

    def _check(self, number: int, index: int, flags: int, path: bytes, rest: memoryview) -> tuple[int, bytes]:
        """Compare a directory with a digest; where it differs, list it."""
        writer = self.writer
        assert writer is not None
        fd = open_beneath(writer.root, path)
        try:
            found = writer.survey(fd, owners=self._owners)
        finally:
            os.close(fd)
        if len(rest) == DIGEST + 8:
            newest = struct.unpack_from("<q", rest, DIGEST)[0]
            equal = rest[:DIGEST] == found.digest and found.oldest_ns > newest
            if equal and not (flags & LINKED and found.has_links()):
                return OK, b""
        self.alive()
        parts: list[bytes] = [pack_listed(b"", found.own)]
        length = 0
        for name, entry in found.entries().items():
            packed = pack_listed(name, entry)
            parts.append(packed)
            length += len(packed)
            if length > 1 << 20:
                self.say(PART, number, struct.pack("<I", index) + b"".join(parts))
                parts, length = [], 0
        return LISTING, b"".join(parts)


_ROOTED = frozenset({DATA, HOLE, COPY, MOVE, CHECK, BELOW, NUMBERS})
_LOOKING = frozenset({CHECK, LOOK, SUM, BELOW, NUMBERS})


def pack_listed(name: bytes, entry: Entry) -> bytes:
    """One entry of a listing; the directory itself has no name."""
    mode, uid, gid, size, mtime, ctime, rdev, nlink, ino, extra = entry
    return LISTED.pack(len(name), mode, uid, gid, size, mtime, ctime, rdev, nlink, ino, len(extra)) + name + extra


def unpack_listing(body: bytes) -> dict[bytes, Entry]:
    """The counterpart, strict: every name is one component."""
    found: dict[bytes, Entry] = {}
    at, end = 0, len(body)
    while at < end:
        if at + LISTED.size > end:
            raise ProtocolError("cut short")
        length, mode, uid, gid, size, mtime, ctime, rdev, nlink, ino, extra = LISTED.unpack_from(body, at)
        at += LISTED.size
        if at + length + extra > end:
            raise ProtocolError("cut short")
        name = body[at : at + length]
        if name in (b".", b"..") or b"/" in name or b"\0" in name or name in found:
            raise ProtocolError("no name")
        at += length
        found[name] = Entry(mode, uid, gid, size, mtime, ctime, rdev, nlink, ino, body[at : at + extra])
        at += extra
    return found


def _has_time(fd: int, mtime_ns: int) -> bool:
    return os.fstat(fd).st_mtime_ns == mtime_ns


def _content(fd: int, size: int) -> bytes:
    """Up to one byte more than it should hold."""
    return os.pread(fd, size + 1, 0)


def main(forced_root: bytes | None = None) -> int:
    """Serve standard input and output."""
    sys.stdout.flush()
    return Agent(0, 1, forced_root).run()


def find_packages() -> None:
    """Let installed packages be found, without the start-up hooks that some of them have: those may take 100 ms."""
    import site  # noqa: PLC0415  # only where Python was started without it

    sys.path += [path for path in site.getsitepackages() if path not in sys.path]


if __name__ == "instep-agent":  # sent over a connection, and run there
    find_packages()
    sys.exit(main())
