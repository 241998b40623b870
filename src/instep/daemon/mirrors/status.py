"""What a mirror and its targets tell in the log of how things are."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from instep.daemon.targets.target import Target
from instep.logs import fields
from instep.model import MonitorStatus
from instep.paths import RelPath

log = logging.getLogger(__name__)

SHOWN_MAX = 20
"""Failing paths of one target, and places that the monitor does not see."""


def report_mirror(
    source: bytes, monitor: str, status: MonitorStatus, *, missing: Iterable[RelPath], following: bool
) -> None:
    """Log how a source is watched. ``missing``: the file systems that ought to be mounted in it."""
    log.info(
        "status",
        extra=fields(
            source=source,
            monitor=monitor,
            watches=status.watches,
            events=status.events,
            overflows=status.overflows,
            missing=sorted(missing),
            trouble=list(status.trouble[:SHOWN_MAX]),
            following=following,
        ),
    )


def report_target(target: Target, now_s: float) -> None:
    """Log how a target is, and what fails there. ``now_s``: by the target's clock."""
    failing = list(target.room.failing())
    totals = target.totals
    log.info(
        "status-target",
        extra=fields(
            target=target.name,
            state=target.state.value,
            reason=target.reason,
            pending=target.pending(),
            failing=len(failing),
            held=_held(target),
            synced=totals.entries,
            deleted=totals.deleted,
            files=totals.files,
            bytes=totals.bytes_copied,
            batches=totals.batches,
        ),
    )
    for waiter in failing[:SHOWN_MAX]:
        log.info(
            "status-failing",
            extra=fields(
                target=target.name,
                path=waiter.change.path,
                reason=waiter.reason,
                attempts=waiter.attempts,
                next_try_s=round(max(0.0, waiter.due_s - now_s), 1),
            ),
        )


def say_in_step(event: str, target: Target) -> None:
    """Log this of a target, with what was done for it since the start."""
    totals = target.totals
    log.info(
        event,
        extra=fields(
            target=target.name,
            synced=totals.entries,
            deleted=totals.deleted,
            bytes=totals.bytes_copied,
            failing=len(target.room),
            held=_held(target),
        ),
    )


def _held(target: Target) -> int:
    return 0 if target.deletions.held is None else target.deletions.held.count
