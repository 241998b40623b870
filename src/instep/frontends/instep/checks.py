r"""What an operator can get wrong about places and programs, found before anything is changed.

Facts: two paths are one directory when device and inode agree, whatever links and bind mounts lead there (stat(2)). A
bind mount of something *below* the source is another way into it that no ancestor shows; proc_pid_mountinfo(5) tells
which part of which file system each mount shows, as ``major:minor``, root and mount point, with ``\040`` escapes.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from typing import NamedTuple

from instep.core.filters import Filter
from instep.errors import OperatorError, SourceError, TargetError, ToolMissing, UsageError
from instep.frontends.instep.output import escaped
from instep.frontends.instep.passwords import password_file
from instep.paths import RelPath
from instep.spec import EngineName, MirrorSpec, TargetSpec

Identity = tuple[int, int]

_HYPHEN_HOST = re.compile(rb"(?:ssh://)?(?:[^@/:]*@)?-")
_MODULE = re.compile(rb"rsync://[^/]+/+[^/]|[^/]*[^:/]::[^:/]")


def check(spec: MirrorSpec) -> None:
    """Refuse what cannot work or would do harm. Blocks on the file systems that are named.

    Raises:
        OperatorError: the first thing found.
    """
    mounts = _mounts()
    source = _source(spec.source)
    check_targets(spec)
    places: list[_Place] = []
    for target in spec.targets:
        if not target.is_local:
            continue
        place = _target(target.address, changes=not spec.dry_run)
        _not_nested(spec, source, place, mounts)
        _not_among(place, places)
        places.append(place)


def check_targets(spec: MirrorSpec) -> None:
    """Refuse addresses that cannot be meant, and what a target needs and this machine lacks; looks at no place.

    Raises:
        OperatorError: the first thing found.
    """
    seen: set[bytes] = set()
    for target in spec.targets:
        name = escaped(target.address)
        if target.address in seen:
            raise TargetError("duplicate-target", f"the target {name} is given twice", fix="give it once")
        seen.add(target.address)
        if _HYPHEN_HOST.match(target.address):
            # rsync hands the host on to ssh, which would read an option, and some options run programs.
            raise TargetError(
                "bad-target", f"the target {name} begins with a hyphen", fix="write ./ before a local name"
            )
        if target.is_daemon and not _MODULE.match(target.address):
            raise TargetError(
                "bad-target",
                f"the target {name} names no module of the rsync daemon",
                fix="write host::module/path or rsync://host/module/path",
            )
        _engine(target)
    if spec.password_file:
        password_file(spec)


class _Place(NamedTuple):
    """A directory, there or to be made."""

    given: bytes
    real: bytes
    identity: Identity | None
    """None: it is not there yet."""
    ancestors: frozenset[Identity]
    """The directories above it, by their real path."""

    def lies_in(self, other: _Place) -> bool:
        return other.identity is not None and other.identity in self.ancestors

    @property
    def shown(self) -> str:
        plain = escaped(self.given)
        return plain if self.real == self.given else f"{plain} (really {escaped(self.real)})"


class _Mount(NamedTuple):
    """One line of mountinfo."""

    device: bytes
    root: bytes
    """Which directory of the file system is shown."""
    point: bytes


def _source(path: bytes) -> _Place:
    name = escaped(path)
    fix = "give a directory that you may read"
    try:
        info = os.stat(path)
    except FileNotFoundError:
        raise SourceError("no-such-source", f"there is no source {name}", fix="give an existing directory") from None
    except OSError as error:
        raise SourceError(
            "unreadable-source", f"cannot look at the source {name}: {error.strerror}", fix=fix
        ) from error
    if not stat.S_ISDIR(info.st_mode):
        raise SourceError(
            "source-not-a-directory",
            f"the source {name} is not a directory",
            fix=f"give the directory that it is in, with --include=/{escaped(os.path.basename(path))} --exclude='*'",
        )
    if not os.access(path, os.R_OK | os.X_OK):
        raise SourceError("unreadable-source", f"cannot read the source {name}: Permission denied", fix=fix)
    return _place(path, info)


def _target(path: bytes, *, changes: bool) -> _Place:
    name = escaped(path)
    try:
        info = os.stat(path)
    except FileNotFoundError:
        return _missing(path, changes=changes)
    except NotADirectoryError:
        raise TargetError(
            "target-not-a-directory", f"the target {name} leads through something that is not a directory",
            fix="give a directory",
        ) from None  # fmt: skip
    except OSError as error:
        raise TargetError(
            "target-unusable", f"cannot look at the target {name}: {error.strerror}", fix="give another, or its rights"
        ) from error
    if not stat.S_ISDIR(info.st_mode):
        raise TargetError(
            "target-not-a-directory", f"the target {name} is there, and is not a directory", fix="give a directory"
        )
    if changes:
        _writable(path, name)
    return _place(path, info)


def _missing(path: bytes, *, changes: bool) -> _Place:
    """A target whose last component is to be made at start."""
    name = escaped(path)
    if os.path.islink(path):
        raise TargetError(
            "target-dangling", f"the target {name} is a link that leads nowhere", fix="make its directory, or remove it"
        )
    parent = os.path.dirname(path)
    try:
        info = os.stat(parent)
    except OSError as error:
        raise TargetError(
            "no-such-target",
            f"neither the target {name} nor the directory it would be made in is there ({error.strerror})",
            fix=f"make {escaped(parent)} first, or mount what belongs there",
        ) from error
    if changes:
        _writable(parent, name)
    above = _place(parent, info)
    ancestors = above.ancestors | {(info.st_dev, info.st_ino)}
    return _Place(path, os.path.join(above.real, os.path.basename(path)), None, ancestors)


def _writable(path: bytes, name: str) -> None:
    if os.access(path, os.W_OK | os.X_OK):
        return
    read_only = bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    words = "Read-only file system" if read_only else "Permission denied"
    raise TargetError(
        "target-not-writable",
        f"cannot write to the target {name}: {words}",
        fix="mount it writable" if read_only else "run as a user that may write there, or give another target",
    )


def _place(path: bytes, info: os.stat_result) -> _Place:
    real = os.path.realpath(path)
    ancestors = set()
    above = real
    while above != b"/":
        above = os.path.dirname(above)
        found = os.stat(above)
        ancestors.add((found.st_dev, found.st_ino))
    return _Place(path, real, (info.st_dev, info.st_ino), frozenset(ancestors))


# ---- one within the other ------------------------------------------------------------------------------------------


def _not_nested(spec: MirrorSpec, source: _Place, target: _Place, mounts: Sequence[_Mount]) -> None:
    if source.identity == target.identity:
        raise TargetError(
            "same-directory",
            f"the target {target.shown} is the source {source.shown} itself",
            fix="give another target",
        )
    if source.lies_in(target) or _shows(target, source, mounts):
        raise TargetError(
            "source-inside-target",
            f"the source {source.shown} lies inside the target {target.shown}, so bringing the target in step"
            " would delete the source",
            fix="give a target beside the source",
        )
    if (target.lies_in(source) or _shows(source, target, mounts)) and not _left_out(spec, source, target):
        inside = target.real.startswith(_slashed(source.real))
        below = b"/" + target.real[len(_slashed(source.real)) :]
        raise TargetError(
            "target-inside-source",
            f"the target {target.shown} lies inside the source {source.shown}, so it would be copied into itself"
            " for ever",
            fix="give a target beside the source"
            + (f", or leave it out: --exclude={escaped(below)}/" if inside else ""),
        )


def _left_out(spec: MirrorSpec, source: _Place, target: _Place) -> bool:
    """The target lies in the source by its plain name, and the rules never look there."""
    top = _slashed(source.real)
    if not target.real.startswith(top) or spec.delete_excluded:
        return False
    return Filter(spec.rules).excludes(RelPath(target.real[len(top) :]), is_dir=True)


def _shows(outer: _Place, inner: _Place, mounts: Sequence[_Mount]) -> bool:
    """Whether ``inner`` can also be reached below ``outer``, by way of another mount of the same file system."""
    found = _on_disk(inner.real, mounts)
    if found is None:
        return False
    device, path = found
    top = _slashed(outer.real)
    trees = [(mount.device, mount.root) for mount in mounts if mount.point.startswith(top)]
    own = _on_disk(outer.real, mounts)
    if own is not None:
        trees.append(own)
    return any(device == tree and (path == root or path.startswith(_slashed(root))) for tree, root in trees)


def _on_disk(real: bytes, mounts: Sequence[_Mount]) -> tuple[bytes, bytes] | None:
    """The device of a path, and its path from the root of that file system."""
    best = None
    for mount in mounts:  # in the order of mounting: of two on one point the later one is seen
        if (real == mount.point or real.startswith(_slashed(mount.point))) and (
            best is None or len(mount.point) >= len(best.point)
        ):
            best = mount
    if best is None:
        return None
    rest = real[len(_slashed(best.point)) :] if real != best.point else b""
    return best.device, _slashed(best.root) + rest if rest else best.root


def _slashed(path: bytes) -> bytes:
    return path if path.endswith(b"/") else path + b"/"


def _mounts() -> list[_Mount]:
    try:
        with open("/proc/self/mountinfo", "rb") as file:
            lines = file.read().split(b"\n")
    except OSError:
        return []  # No procfs: then only ancestors are compared.
    found = []
    for line in lines:
        words = line.split(b" ")
        if len(words) > 5:
            found.append(_Mount(words[2], _unescape(words[3]), _unescape(words[4])))
    return found


def _unescape(text: bytes) -> bytes:
    return re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8)]), text)


def _not_among(place: _Place, others: Sequence[_Place]) -> None:
    for other in others:
        if place.real == other.real or (place.identity is not None and place.identity == other.identity):
            raise TargetError(
                "duplicate-target",
                f"the targets {other.shown} and {place.shown} are the same directory",
                fix="give it once",
            )
        for inner, outer in ((place, other), (other, place)):
            # One that is not there yet is the outer one only for what is not there either: by name, then.
            if inner.lies_in(outer) or inner.real.startswith(_slashed(outer.real)):
                raise TargetError(
                    "nested-targets",
                    f"the target {inner.shown} lies inside the target {outer.shown}, which would delete it",
                    fix="give targets beside each other",
                )


# ---- programs ------------------------------------------------------------------------------------------------------


def _engine(target: TargetSpec) -> None:
    if target.engine is EngineName.NATIVE and not target.is_local:
        raise UsageError(
            "engine-not-possible",
            f"the native engine only serves directories of this machine, not {escaped(target.address)}",
            fix="leave out --engine=native (a local name with a colon needs a slash before it: ./a:b)",
        )
    if (target.engine is EngineName.RSYNC or target.is_daemon) and not _on_path("rsync"):
        raise _no_rsync(target)


def _no_rsync(target: TargetSpec) -> OperatorError:
    local = "; or leave out --engine=rsync" if target.is_local else ""
    return ToolMissing(
        "no-rsync",
        f"the target {escaped(target.address)} needs rsync, and no directory in PATH has it",
        fix="install rsync (3.1 or later) here" + ("" if target.is_local else " and on the target's host") + local,
    )


def _on_path(program: str) -> bool:
    return any(
        os.path.isfile(found) and os.access(found, os.X_OK)
        for found in (os.path.join(directory, program) for directory in os.get_exec_path())
    )
