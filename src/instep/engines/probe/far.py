"""Examines a directory where it is: sent as source to the target's host, or called here for one of this machine.

One module for any Python from 3.6 on, with nothing but what Python brings along. It tries each ability in a new
directory with a temporary name inside the target (or beside it, where that is yet to be made), and removes it. What it
says is plain data; what follows from it is decided at home.

Facts: a name is one directory's component, so one directory shows what its file system does to names; times are kept in
1 ns (ext4, xfs, btrfs, tmpfs), 100 ns (NTFS, SMB), 1 s (HFS+) or 2 s (FAT); ``system.posix_acl_access`` is version 2
and entries of tag, permissions and id, little endian (acl(5), linux/posix_acl_xattr.h).
"""

import errno
import json
import os
import shutil
import stat
import struct
import subprocess
import sys
import tempfile
import time
from typing import Any, Dict, Optional

Facts = Dict[str, Any]

PREFIX = ".instep-check-"
SUFFIX = ".tmp"
OTHER_ID = 54321
"""A user that files are given to; it need not exist."""

NOBODY = 2**32 - 1
"""What stands in an ACL entry that needs no id."""

MTIME_NS = 1234567890123456789
ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", tag, bits, who)
    for tag, bits, who in ((1, 6, NOBODY), (2, 4, OTHER_ID), (4, 4, NOBODY), (16, 4, NOBODY), (32, 0, NOBODY))
)


def examine(path: str) -> Facts:
    """All facts about a target directory, as what JSON can hold. Blocks; leaves nothing behind."""
    facts: Facts = {
        "python": ".".join(map(str, sys.version_info[:3])),
        "uid": os.geteuid(),
        "user": _user(),
        "system": "{0.sysname} {0.release}".format(os.uname()),
        "rsync": _rsync(),
    }
    # A login begins in the home directory, and that is where relative paths are meant to.
    raw = os.path.abspath(os.fsencode(os.path.expanduser(path)))
    try:
        place = _place(raw, facts)
        if place is not None:
            _space(place, facts)
            _try_all(place, facts)
    except OSError as error:
        facts["trouble"] = error.strerror
    return facts


def _user() -> str:
    try:
        import pwd  # noqa: PLC0415  # not on every system

        return pwd.getpwuid(os.geteuid()).pw_name
    except (ImportError, KeyError):
        return str(os.geteuid())


def _rsync() -> str:
    """The first line that rsync says of itself; empty when there is none."""
    try:
        done = subprocess.run(
            ["rsync", "--version"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode("utf-8", "replace").split("\n")[0].strip()


def _place(path: bytes, facts: Facts) -> Optional[bytes]:
    """The directory to try things in: the target, or the one that it will be made in; None when there is neither."""
    try:
        info = os.stat(path)
    except FileNotFoundError:
        parent = os.path.dirname(path.rstrip(b"/")) or b"/"
        if os.path.islink(path):
            facts["directory"] = "dangling"
            return None
        if not os.path.isdir(parent):
            facts["directory"] = "nowhere"
            return None
        facts["directory"] = "missing"
        return parent
    except NotADirectoryError:
        facts["directory"] = "no directory"
        return None
    facts["directory"] = "there" if stat.S_ISDIR(info.st_mode) else "no directory"
    return path if stat.S_ISDIR(info.st_mode) else None


def _space(place: bytes, facts: Facts) -> None:
    found = os.statvfs(place)
    facts["free_bytes"] = found.f_bavail * found.f_frsize
    facts["size_bytes"] = found.f_blocks * found.f_frsize
    facts["free_inodes"] = found.f_favail
    facts["inodes"] = found.f_files
    facts["name_bytes"] = found.f_namemax
    facts["read_only"] = bool(found.f_flag & os.ST_RDONLY)
    facts["file_system"] = _file_system(os.stat(place).st_dev)


def _file_system(device: int) -> str:
    """The type, by proc_pid_mountinfo(5); empty where that cannot be read."""
    wanted = b"%d:%d" % (os.major(device), os.minor(device))
    try:
        with open("/proc/self/mountinfo", "rb") as lines:
            for line in lines:
                words = line.split()
                if words[2] == wanted:
                    return words[words.index(b"-") + 1].decode("ascii", "replace")
    except (OSError, ValueError, IndexError):
        pass
    return ""


def _try_all(place: bytes, facts: Facts) -> None:
    try:
        top = tempfile.mkdtemp(prefix=PREFIX, suffix=SUFFIX, dir=os.fsdecode(place))
    except OSError as error:
        facts["writable"] = error.strerror
        return
    facts["writable"] = ""
    abilities: Dict[str, str] = {}
    facts["abilities"] = abilities
    here = os.open(top, os.O_RDONLY)
    umask = os.umask(0)
    try:
        for name, attempt in _TRIALS:
            try:
                abilities[name] = attempt(here)
            except OSError as error:
                abilities[name] = error.strerror or errno.errorcode.get(error.errno or 0, "failed")
            except (AttributeError, ValueError) as error:  # this Python, or this system, has no such call
                abilities[name] = str(error)
    finally:
        os.umask(umask)
        os.close(here)
        shutil.rmtree(top, ignore_errors=True)


# Each trial gives "" when the ability is there, and otherwise words for why it is not.


def _new(here: int, name: str) -> str:
    os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=here))
    return name


def _at(here: int, name: str) -> str:
    return f"/proc/self/fd/{here}/{name}"


def _owners(here: int) -> str:
    os.chown(_new(here, "owner"), OTHER_ID, OTHER_ID, dir_fd=here)
    info = os.stat("owner", dir_fd=here)
    return "" if (info.st_uid, info.st_gid) == (OTHER_ID, OTHER_ID) else "the file system chooses owners itself"


def _groups(here: int) -> str:
    """A group of the user's own can be given even without root's rights."""
    own = [group for group in os.getgroups() if group != os.stat(_new(here, "group"), dir_fd=here).st_gid]
    if not own:
        return "" if os.geteuid() == 0 else "the user is in one group only"
    os.chown("group", -1, own[0], dir_fd=here)
    return "" if os.stat("group", dir_fd=here).st_gid == own[0] else "the file system chooses groups itself"


def _modes(here: int) -> str:
    _new(here, "mode")
    for mode in (0o640, 0o751, 0o4755):
        os.chmod("mode", mode, dir_fd=here)
        if stat.S_IMODE(os.stat("mode", dir_fd=here).st_mode) != mode:
            return f"a file does not keep mode {mode:o}"
    return ""


def _times(here: int) -> str:
    os.utime(_new(here, "time"), ns=(MTIME_NS, MTIME_NS), dir_fd=here)
    kept = os.stat("time", dir_fd=here).st_mtime_ns
    if kept == MTIME_NS:
        return ""
    for step, words in ((1000, "microseconds"), (100, "100 ns"), (10**9, "seconds"), (2 * 10**9, "2 seconds")):
        if abs(kept - MTIME_NS) < step:
            return f"times are kept in {words}"
    return "times are not kept"


def _late_times(here: int) -> str:
    late_ns = 4102444800 * 10**9  # the year 2100
    os.utime(_new(here, "late"), ns=(late_ns, late_ns), dir_fd=here)
    return "" if os.stat("late", dir_fd=here).st_mtime_ns == late_ns else "no times after 2038"


def _case(here: int) -> str:
    _new(here, "case")
    return "'case' and 'CASE' are one file" if os.path.lexists(_at(here, "CASE")) else ""


def _normal_forms(here: int) -> str:
    composed, decomposed = "\u00e9".encode(), "e\u0301".encode()
    os.close(os.open(composed, os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=here))
    try:
        os.close(os.open(decomposed, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=here))
    except FileExistsError:
        return "two spellings of one letter are one file"
    names = {os.fsencode(name) for name in os.listdir(here)}
    return "" if {composed, decomposed} <= names else "names are stored in another spelling"


def _any_bytes(here: int) -> str:
    os.close(os.open(b"no text \xff", os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=here))
    return ""


def _any_characters(here: int) -> str:
    for name in ("a:b", 'q"?*<>|', "back\\slash", "dot.", "blank ", "line\nfeed"):
        os.close(os.open(name, os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=here))
        if name not in os.listdir(here):
            return f"the name {name!r} is stored as another"
    return ""


def _long_names(here: int) -> str:
    _new(here, "n" * 255)
    return ""


def _symlinks(here: int) -> str:
    os.symlink("anywhere", "symlink", dir_fd=here)
    return "" if os.readlink("symlink", dir_fd=here) == "anywhere" else "a link's text changes"


def _hard_links(here: int) -> str:
    os.link(_new(here, "link"), "link2", src_dir_fd=here, dst_dir_fd=here)
    return "" if os.stat("link", dir_fd=here).st_nlink == 2 else "links are not counted"


def _fifos(here: int) -> str:
    os.mkfifo("fifo", 0o600, dir_fd=here)
    return ""


def _devices(here: int) -> str:
    os.mknod("device", stat.S_IFCHR | 0o600, os.makedev(1, 3), dir_fd=here)
    return ""


def _xattrs(here: int) -> str:
    os.setxattr(_at(here, _new(here, "xattr")), "user.instep", b"1")
    return ""


def _trusted_xattrs(here: int) -> str:
    os.setxattr(_at(here, _new(here, "trusted")), "trusted.instep", b"1")
    return ""


def _acls(here: int) -> str:
    os.setxattr(_at(here, _new(here, "acl")), "system.posix_acl_access", ACL)
    return ""


def _sparse(here: int) -> str:
    fd = os.open("sparse", os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=here)
    try:
        os.ftruncate(fd, 1 << 20)
        return "" if os.fstat(fd).st_blocks * 512 < 1 << 19 else "holes take space"
    finally:
        os.close(fd)


def _renames(here: int) -> str:
    os.rename(_new(here, "new"), _new(here, "old"), src_dir_fd=here, dst_dir_fd=here)
    return ""


_TRIALS = (
    ("renames", _renames),
    ("owners", _owners),
    ("groups", _groups),
    ("modes", _modes),
    ("times", _times),
    ("late times", _late_times),
    ("case", _case),
    ("spelling", _normal_forms),
    ("names of any bytes", _any_bytes),
    ("names of any characters", _any_characters),
    ("long names", _long_names),
    ("symbolic links", _symlinks),
    ("hard links", _hard_links),
    ("fifos", _fifos),
    ("devices", _devices),
    ("xattrs", _xattrs),
    ("trusted xattrs", _trusted_xattrs),
    ("ACLs", _acls),
    ("sparse files", _sparse),
)

ABILITIES = tuple(name for name, _ in _TRIALS)


def serve(path: str) -> None:
    """Answer each line of the standard input with the time, and its end with the facts: the far side of ``reach``."""
    sys.stdout.write("instep-check 1\n")
    sys.stdout.flush()
    for _ in iter(sys.stdin.buffer.readline, b"examine\n"):
        sys.stdout.write(f"{time.time():.6f}\n")
        sys.stdout.flush()
    sys.stdout.write(json.dumps(examine(path)) + "\n")
    sys.stdout.flush()
