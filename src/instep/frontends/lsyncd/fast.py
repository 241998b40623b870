"""Which syncs are plain mirrors: what they do is what instep does by itself, only with less to do it.

A configuration may look at, and act on, everything that its syncs do. So only one that does neither is left to
mirrors: built-in functions alone, no alarms, nothing that asks for each step to be seen.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from instep.errors import OperatorError, UsageError
from instep.frontends.instep.checks import check
from instep.frontends.lsyncd.runtime import Runtime, is_true
from instep.frontends.lsyncd.syncs import DELAYS_MAX, Sync
from instep.frontends.rsyncwords import Wish, wish
from instep.rules import Preserve
from instep.spec import EngineName, InitialSync, MaxDelete, MirrorSpec, Pace, TargetSpec

_FUNCTIONS: Final = (b"action", b"init", b"collect", b"prepare", b"full")
_EVENTS: Final = (b"onAttrib", b"onCreate", b"onDelete", b"onModify", b"onStartup", b"onFull")
_UNKNOWN: Final = (b"batchSizeLimit", b"crontab", b"tunnel")
_NESTED: Final = ("same-directory", "source-inside-target", "target-inside-source")
TEMPLATES: Final = (b"rsync", b"direct", b"rsyncssh")
COPIED: Final = Preserve(
    owner=True, mode=True, times=True, xattrs=False, acls=False, hard_links=False, devices=False, sparse=False
)
"""What ``cp -p`` keeps."""


@dataclass(frozen=True, slots=True)
class Plain:
    """A sync that is left to a mirror."""

    spec: MirrorSpec
    begins: bytes
    """What the log says when its first comparison begins."""
    done: bytes
    """What it says when that is done."""


def template_of(sync: Sync, runtime: Runtime) -> bytes | None:
    """The built-in kind whose functions a sync has, all of them untouched; None when it is somebody's own."""
    config = sync.config
    if any(config[each] is not None for each in _EVENTS):
        return None
    for name in TEMPLATES:
        if all(runtime.is_builtin(config[each], name, each) for each in _FUNCTIONS):
            return name
    return None


def sees_only_lists(sync: Sync, runtime: Runtime) -> bool:
    """Whether nothing of the user's is told of single events: what is done for them is a built-in kind's."""
    return any(
        all(runtime.is_builtin(sync.config[each], name, each) for each in (b"action", b"collect")) for name in TEMPLATES
    )


def mirrors(
    syncs: Iterable[Sync], runtime: Runtime, settings: Mapping[bytes, Any], *, watched: bool
) -> dict[int, Plain]:
    """By number the syncs that are plain mirrors, as such; none where each step is ``watched``.

    Raises:
        TargetError: a target that lies in its source, or holds it.
    """
    found = list(syncs)
    for sync in found:
        _check_nesting(sync)
    kinds = {sync.number: template_of(sync, runtime) for sync in found}
    if watched or None in kinds.values() or settings.get(b"onepass"):
        return {}
    if settings.get(b"inotifyMode", b"CloseWrite") != b"CloseWrite":
        return {}
    if b"maxProcesses" in settings and not all(_is_local(sync) for sync in found):
        return {}  # For a target on this machine a mirror runs no programs at all, for others as many as it likes.
    shared = _shared(found)
    specs = ((sync, _mirror(sync, kinds[sync.number], runtime)) for sync in found if sync.number not in shared)
    return {sync.number: _told(sync, kinds[sync.number], spec) for sync, spec in specs if spec is not None}


def _is_local(sync: Sync) -> bool:
    given = sync.config[b"target"]
    return isinstance(given, bytes) and TargetSpec(given).is_local


def _shared(syncs: Iterable[Sync]) -> set[int]:
    """The syncs whose targets lie in one another, or are the same: what one puts there the other's mirror deletes."""
    places = {sync.number: _place(sync) for sync in syncs}
    return {
        number
        for number, place in places.items()
        if any(
            other != number and (place.startswith(above) or above.startswith(place)) for other, above in places.items()
        )
    }


def _place(sync: Sync) -> bytes:
    config = sync.config
    host, directory, given = config[b"host"], config[b"targetdir"], config[b"target"]
    if isinstance(host, bytes) and isinstance(directory, bytes):
        given = host + b":" + directory
    if not isinstance(given, bytes):
        return b"\0%d" % sync.number  # like no other
    return slashed(os.path.realpath(given) if TargetSpec(given).is_local else given)


def _told(sync: Sync, kind: bytes | None, spec: MirrorSpec) -> Plain:
    way = sync.source + b" -> " + slashed(spec.targets[0].address)
    lines, patterns = sync.selection.lines, sync.selection.patterns
    if lines:
        chosen = b" filtering\n" + b"\n".join([*lines, *(b"- " + pattern for pattern in patterns)])
    else:
        chosen = b" excluding\n" + b"\n".join(patterns) if patterns else b""
    quoted = b'Startup of "' + sync.source + b'" finished: 0'
    return Plain(
        spec,
        begins=b"recursive startup rsync: " + way + chosen,
        done=quoted if kind == b"direct" else b"Startup of " + way + b" finished.",
    )


def slashed(path: bytes) -> bytes:
    """A target as lsyncd calls it."""
    return path if path.endswith((b"/", b":")) else path + b"/"


def _mirror(sync: Sync, kind: bytes | None, runtime: Runtime) -> MirrorSpec | None:
    config = sync.config
    if kind not in (b"rsync", b"direct") or config[b"delete"] is not True:
        return None
    if sync.delay_s and 1 < sync.delays_max < DELAYS_MAX:
        return None  # It is not for a mirror to count what waits.
    if any(is_true(config[each]) for each in _UNKNOWN) or not _same_codes(config, runtime):
        return None
    options = config[b"rsync"]
    if not is_usual(options[b"binary"]) or not is_true(options[b"links"]) or is_true(options[b"delete_excluded"]):
        return None
    try:
        asked = wish((os.fsdecode(word) for word in options[b"_computed"].values()), origin="rsync")
    except UsageError:
        return None  # Nothing that instep knows: for rsync itself, then, with its own words.
    if asked.alters or asked.rules or asked.dry_run:
        return None
    target = _target(config[b"target"])
    if target is None:
        return None
    spec = _spec(sync, kind, asked, target)
    try:
        check(spec)
    except OperatorError:
        return None  # A target that cannot be made, say, yet: as with lsyncd, "insist" decides what follows.
    return spec


def _spec(sync: Sync, kind: bytes, asked: Wish, target: TargetSpec) -> MirrorSpec:
    preserve = asked.preserve
    delay_s = sync.delay_s if sync.delays_max > 1 else 0.0
    if kind == b"direct":
        preserve = COPIED._replace(hard_links=preserve.hard_links, acls=preserve.acls, xattrs=preserve.xattrs)
    return MirrorSpec(
        source=sync.source.rstrip(b"/") or b"/",
        targets=(target,),
        pace=Pace(quiet_s=delay_s, hold_s=delay_s),
        rules=sync.selection.rules,
        initial_sync=InitialSync.FULL,
        max_delete=MaxDelete(percent=100),
        preserve=preserve,
        one_file_system=asked.one_file_system,
        bandwidth_bytes_per_s=asked.bandwidth_bytes_per_s,
        rsync_args=() if target.is_local else asked.extra,
    )


def _check_nesting(sync: Sync) -> None:
    """Refuse a local target that lies in its source, or holds it: bringing that in step would delete the source.

    Raises:
        TargetError: it does.
    """
    given = sync.config[b"target"]
    target = _target(given) if isinstance(given, bytes) and sync.config[b"delete"] else None
    if target is None or not target.is_local:
        return
    source = sync.source.rstrip(b"/") or b"/"
    try:
        check(MirrorSpec(source, (target,), rules=sync.selection.rules))
    except OperatorError as error:
        # What is not there yet, or may not be written, is for the sync itself to meet.
        if error.code in _NESTED:
            raise


def _target(given: bytes) -> TargetSpec | None:
    target = TargetSpec(given)
    if target.is_local:
        return TargetSpec(os.path.abspath(given), EngineName.NATIVE)
    bare = given.rstrip(b"/")
    if given.startswith(b"-"):
        return None
    return TargetSpec(given if bare.endswith(b":") else bare, EngineName.RSYNC)


def is_usual(binary: bytes) -> bool:
    """Whether this is the rsync in PATH."""
    usual = shutil.which("rsync")
    found = shutil.which(os.fsdecode(binary))
    return usual is not None and found is not None and os.path.realpath(usual) == os.path.realpath(found)


def _same_codes(config: Any, runtime: Runtime) -> bool:
    ours = dict(runtime.builtin(b"rsync", b"exitcodes").items())
    ours.pop(b"_verbatim", None)
    given = config[b"exitcodes"]
    return is_true(given) and dict(given.items()) == ours
