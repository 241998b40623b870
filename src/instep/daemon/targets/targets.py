"""The targets of a mirror, each with its engine and its cursor in the one change log."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass, replace

from instep.core.changelog import ChangeLog
from instep.daemon.build import Ground, build_engine, engine_of
from instep.daemon.targets.target import Target
from instep.spec import EngineName


@dataclass(frozen=True, slots=True, kw_only=True)
class Built(Ground):
    """What all targets of one mirror share."""

    changelog: ChangeLog
    settled: Callable[[], None]
    look: Callable[[], None] | None = None
    clock: Callable[[], float]


def build_targets(built: Built) -> list[Target]:
    """The targets, not yet open."""
    engines = [engine_of(target) for target in built.spec.targets]
    if engines.count(EngineName.NATIVE) > 1:
        from instep.engines.native.small import LastRead  # noqa: PLC0415  # each loads only what it needs

        built = replace(built, last_read=LastRead())
    if engines.count(EngineName.REMOTE) > 1:
        from instep.engines.remote.contents import Contents  # noqa: PLC0415  # as above

        built = replace(built, contents=Contents())
    return [
        Target(
            os.fsdecode(target.address),
            build_engine(built, target),
            built.changelog,
            spacing_s=built.spec.pace.spacing_s,
            settled=built.settled,
            look=built.look,
            clock=built.clock,
            stays=not built.spec.once,
            claim=None if built.locks is None else functools.partial(built.locks.take, target),
        )
        for target in built.spec.targets
    ]
