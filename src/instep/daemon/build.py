"""From a specification to live parts: the only place that names concrete engines and monitors."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass

from instep.core.changelog import ChangeLog
from instep.core.filters import Filter
from instep.core.timing import big_wait_s
from instep.daemon.target import Target
from instep.errors import UsageError
from instep.ports import Engine, Monitor
from instep.spec import EngineName, MirrorSpec, TargetSpec


@dataclass(frozen=True, slots=True)
class Built:
    """What all targets of one mirror share."""

    spec: MirrorSpec
    source_fd: int
    changelog: ChangeLog
    settled: Callable[[], None]
    clock: Callable[[], float]
    umask: int = 0o022


def build_targets(built: Built) -> list[Target]:
    """The targets, not yet open."""
    return [
        Target(
            os.fsdecode(target.address),
            _engine(built, target),
            built.changelog,
            spacing_s=built.spec.pace.spacing_s,
            settled=built.settled,
            clock=built.clock,
        )
        for target in built.spec.targets
    ]


def build_monitor(spec: MirrorSpec, filters: Filter) -> tuple[Monitor, str]:
    """The monitor, not yet started, and why it is this one."""
    from instep.monitors.choose import choose  # noqa: PLC0415  # each back end loads only what it needs

    return choose(
        spec.monitor,
        spec.source,
        one_file_system=spec.one_file_system,
        ignore=None if filters.is_trivial else filters.excludes,
        poll_s=spec.poll_s,
        brief=(spec.once or spec.dry_run) and any(_shares_file_system(spec.source, target) for target in spec.targets),
    )


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
        return EngineName.NATIVE if target.is_local else EngineName.RSYNC
    if target.engine is EngineName.NATIVE and not target.is_local:
        raise UsageError(
            "engine-not-possible",
            f"the native engine only serves directories of this machine, not {os.fsdecode(target.address)}",
            fix="leave out --engine native",
        )
    return target.engine


def _engine(built: Built, target: TargetSpec) -> Engine:
    spec = built.spec
    big = functools.partial(big_wait_s, spec.pace)
    if engine_of(target) is EngineName.NATIVE:
        from instep.engines.native.engine import NativeEngine  # noqa: PLC0415  # as above
        from instep.engines.native.session import LARGE_BYTES, Settings  # noqa: PLC0415

        return NativeEngine(
            spec.source,
            target.address,
            source_fd=built.source_fd,
            settings=Settings(
                spec.preserve,
                rules=spec.rules,
                delete=spec.delete,
                delete_excluded=spec.delete_excluded,
                one_file_system=spec.one_file_system,
                dry_run=spec.dry_run,
                inplace_bytes=spec.inplace_bytes,
                large_bytes=min(LARGE_BYTES, spec.pace.big_bytes),
                bandwidth_bytes_per_s=spec.bandwidth_bytes_per_s,
                umask=built.umask,
            ),
            big_wait_s=big,
            workers=spec.workers,
        )
    from instep.engines.rsync.engine import RsyncEngine  # noqa: PLC0415

    return RsyncEngine(
        spec.source,
        target.address,
        source_fd=built.source_fd,
        preserve=spec.preserve,
        delete=spec.delete,
        rules=spec.rules,
        delete_excluded=spec.delete_excluded,
        extra_args=spec.rsync_args,
        bandwidth_bytes_per_s=spec.bandwidth_bytes_per_s,
        one_file_system=spec.one_file_system,
        dry_run=spec.dry_run,
        big=big if spec.pace.big_bytes < float("inf") else None,
    )
