"""From a specification to live parts: the only place that names concrete engines and monitors."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from instep.core.filters import Filter
from instep.core.timing import big_wait_s
from instep.errors import UsageError
from instep.paths import RelPath, is_within_temporary
from instep.ports import Engine, Monitor, Place, Verifier
from instep.rules import Rule
from instep.spec import EngineName, MirrorSpec, TargetSpec

if TYPE_CHECKING:
    from instep.daemon.locks import TargetLocks
    from instep.engines.mounted import Mounted
    from instep.engines.native.session import Settings
    from instep.engines.native.small import LastRead
    from instep.engines.remote.contents import Contents
    from instep.engines.remote.engine import RemoteEngine
    from instep.engines.remote.session import Settings as RemoteSettings
    from instep.engines.rsync.engine import RsyncEngine


@dataclass(frozen=True, slots=True)
class Ground:
    """What engines and verifiers stand on."""

    spec: MirrorSpec
    source_fd: int
    umask: int = 0o022
    contents: Contents | None = None
    """What the targets that agents serve share of what was read."""
    last_read: LastRead | None = None
    """What the targets on this machine share of it."""
    mounted: Mounted | None = None
    """What is mounted in the source; None: nothing that counts."""
    locks: TargetLocks | None = None
    """None: nothing is written, so nobody has to be kept away."""


def build_verifier(built: Ground, target: TargetSpec, *, checksum: bool) -> Verifier:
    """What compares one target with the source, not yet open."""
    spec = built.spec
    if target.is_local:
        from instep.engines.native.verifier import NativeVerifier  # noqa: PLC0415  # each loads only what it needs

        return NativeVerifier(
            target.address, source_fd=built.source_fd, settings=_native_settings(built), checksum=checksum
        )
    if _by_agent(spec, target):
        from instep.engines.remote.verifier import RemoteVerifier  # noqa: PLC0415  # as above

        agent = RemoteVerifier(
            target.address,
            source_fd=built.source_fd,
            settings=_remote_settings(built, target),
            checksum=checksum,
            ssh_words=spec.ssh,
            compress=spec.compress,
        )
        if target.engine is EngineName.REMOTE:
            return agent
        from instep.daemon.far import FarVerifier  # noqa: PLC0415  # as above

        return FarVerifier(agent, lambda: _rsync_verifier(built, target, checksum=checksum))
    return _rsync_verifier(built, target, checksum=checksum)


def _rsync_verifier(built: Ground, target: TargetSpec, *, checksum: bool) -> Verifier:
    from instep.engines.rsync.verifier import RsyncVerifier  # noqa: PLC0415  # as above

    never_writes = replace(built, spec=replace(built.spec, dry_run=True))
    return RsyncVerifier(_rsync(never_writes, target), source_fd=built.source_fd, checksum=checksum)


def build_monitor(spec: MirrorSpec, filters: Filter, *, copying: bool = True) -> tuple[Monitor, str]:
    """The monitor, not yet started, and why it is this one. ``copying``: much will be written to the targets."""
    from instep.monitors.choose import choose  # noqa: PLC0415  # each back end loads only what it needs

    return choose(
        spec.monitor,
        spec.source,
        one_file_system=spec.one_file_system,
        ignore=ignored_by(filters),
        poll_s=spec.poll_s,
        brief=(spec.once or spec.dry_run)
        and copying
        and any(_shares_file_system(spec.source, target) for target in spec.targets),
    )


def ignored_by(filters: Filter) -> Callable[[RelPath, bool], bool] | None:
    """What a monitor need not look into."""
    return None if filters.is_trivial else filters.excludes


def build_event_monitor(place: Place) -> Monitor:
    """A monitor that says what the kernel called each event, not yet started."""
    from instep.monitors.inotify_events import InotifyEvents  # noqa: PLC0415  # as above

    def ignore(path: RelPath, is_dir: bool) -> bool:  # noqa: FBT001  # as ports.Place has it
        return is_within_temporary(path) or place.ignore(path, is_dir)

    return InotifyEvents(place.root, ignore=ignore, one_file_system=place.one_file_system)


def _shares_file_system(source: bytes, target: TargetSpec) -> bool:
    if not target.is_local:
        return False
    try:
        there = os.stat(target.address)
    except OSError:
        there = os.stat(os.path.dirname(target.address))  # made later, by the engine
    return there.st_dev == os.stat(source).st_dev


def engine_of(target: TargetSpec) -> EngineName:
    """The engine that a target gets."""
    if target.engine is EngineName.AUTO:
        if target.is_local:
            return EngineName.NATIVE
        return EngineName.RSYNC if target.is_daemon else EngineName.REMOTE
    if target.engine is EngineName.NATIVE and not target.is_local:
        raise UsageError(
            "engine-not-possible",
            f"the native engine only serves directories of this machine, not {os.fsdecode(target.address)}",
            fix="leave out --engine native",
        )
    return target.engine


def build_engine(built: Ground, target: TargetSpec) -> Engine:
    """What brings paths to one target, not yet open."""
    spec = built.spec
    big = functools.partial(big_wait_s, spec.pace)
    if engine_of(target) is EngineName.NATIVE:
        from instep.engines.native.engine import NativeEngine  # noqa: PLC0415  # as above

        return NativeEngine(
            target.address,
            source_fd=built.source_fd,
            settings=_native_settings(built),
            max_delete=spec.max_delete,
            big_wait_s=big,
            workers=spec.workers,
            last_read=built.last_read,
            mounted=built.mounted,
        )
    if _by_agent(spec, target):
        agent = _remote(built, target)
        if target.engine is EngineName.REMOTE:
            return agent
        from instep.daemon.far import FarEngine  # noqa: PLC0415  # as above

        return FarEngine(target.address, agent, lambda: _rsync(built, target))
    return _rsync(built, target)


def _by_agent(spec: MirrorSpec, target: TargetSpec) -> bool:
    """Whether an agent is to serve it, at least if there is a python3."""
    return engine_of(target) is EngineName.REMOTE and not (target.engine is EngineName.AUTO and spec.rsync_args)


def _patterns(spec: MirrorSpec, target: TargetSpec) -> tuple[Rule, ...]:
    """The rules for an engine that does not know regular expressions."""
    for rule in spec.rules:
        if rule.searched_in is not None:
            raise UsageError(
                "engine-not-possible",
                f"{rule.origin} is a regular expression, and only the native engine knows these,"
                f" not the one for {os.fsdecode(target.address)}",
                fix="give patterns as rsync has them, or a target on this machine",
            )
    return spec.rules


def _remote(built: Ground, target: TargetSpec) -> RemoteEngine:
    from instep.engines.remote.engine import RemoteEngine  # noqa: PLC0415  # as above

    spec = built.spec
    return RemoteEngine(
        target.address,
        source_fd=built.source_fd,
        settings=_remote_settings(built, target),
        max_delete=spec.max_delete,
        big_wait_s=functools.partial(big_wait_s, spec.pace),
        ssh_words=spec.ssh,
        compress=spec.compress,
        contents=built.contents,
        mounted=built.mounted,
    )


def _remote_settings(built: Ground, target: TargetSpec) -> RemoteSettings:
    from instep.engines.remote.session import Settings  # noqa: PLC0415  # as above

    spec = built.spec
    return Settings(
        spec.preserve,
        rules=_patterns(spec, target),
        delete=spec.delete,
        delete_excluded=spec.delete_excluded,
        one_file_system=spec.one_file_system,
        dry_run=spec.dry_run,
        inplace_bytes=spec.inplace_bytes,
        large_bytes=spec.pace.big_bytes,
        bandwidth_bytes_per_s=spec.bandwidth_bytes_per_s,
        umask=built.umask,
        learns=bool(spec.state_dir),
    )


def _native_settings(built: Ground) -> Settings:
    from instep.engines.native.session import LARGE_BYTES, Settings  # noqa: PLC0415  # as above

    spec = built.spec
    return Settings(
        spec.preserve,
        rules=spec.rules,
        delete=spec.delete,
        delete_excluded=spec.delete_excluded,
        one_file_system=spec.one_file_system,
        dry_run=spec.dry_run,
        inplace_bytes=spec.inplace_bytes,
        large_bytes=min(LARGE_BYTES, spec.pace.big_bytes),
        bandwidth_bytes_per_s=spec.bandwidth_bytes_per_s,
        learns=bool(spec.state_dir),
        umask=built.umask,
    )


def _rsync(built: Ground, target: TargetSpec) -> RsyncEngine:
    spec = built.spec
    from instep.engines.rsync.engine import RsyncEngine  # noqa: PLC0415  # as above

    return RsyncEngine(
        spec.source,
        target.address,
        source_fd=built.source_fd,
        preserve=spec.preserve,
        delete=spec.delete,
        rules=_patterns(spec, target),
        delete_excluded=spec.delete_excluded,
        extra_args=spec.rsync_args,
        program=spec.rsync_program,
        ssh=spec.ssh,
        password_file=spec.password_file,
        bandwidth_bytes_per_s=spec.bandwidth_bytes_per_s,
        one_file_system=spec.one_file_system,
        dry_run=spec.dry_run,
        max_delete=spec.max_delete,
        big=functools.partial(big_wait_s, spec.pace) if spec.pace.big_bytes < float("inf") else None,
        locks=None if built.locks is None else functools.partial(built.locks.held, target.address),
        mounted=built.mounted,
    )
