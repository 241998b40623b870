"""The state directory: what instep remembers between two runs, in files that no mirror touches.

Nothing in it is needed for correctness: losing it costs a comparison, and the owner's name in a refusal.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
from dataclasses import replace

from instep.core.filters import anchored
from instep.errors import OperatorError, TargetError, UsageError
from instep.logs import fields
from instep.rules import Rule
from instep.spec import MirrorSpec

log = logging.getLogger(__name__)

_CLOSED_TO_OTHERS = stat.S_IWGRP | stat.S_IWOTH


class StateDirectory:
    """A directory that is ours alone; the files in it have flat names."""

    def __init__(self, place: bytes) -> None:
        """Make it where it is missing, with all above it (mode 0700). Blocks on its file system.

        Raises:
            OperatorError: it belongs to somebody else, or others may write to it.
            OSError: it cannot be made or looked at.
        """
        os.makedirs(os.path.dirname(place), 0o755, exist_ok=True)
        try:
            os.mkdir(place, 0o700)
        except FileExistsError:
            if not os.path.isdir(place):
                raise
        info = os.stat(place)
        if info.st_uid != os.geteuid() or info.st_mode & _CLOSED_TO_OTHERS:
            whose = "belongs to another user" if info.st_uid != os.geteuid() else "can be written by other users"
            raise OperatorError(
                "state-not-private",
                f"the state directory {os.fsdecode(place)} {whose}",
                fix="chown it to the user that runs instep, with mode 0700, or give another: --state-dir=DIR"
                if info.st_uid != os.geteuid()
                else f"chmod go-w {os.fsdecode(place)}, or give another: --state-dir=DIR",
            )
        self.place = place

    def path(self, name: str) -> bytes:
        """The path of one file in it; the name has no slash."""
        assert "/" not in name
        return self.place + b"/" + os.fsencode(name)


def open_state(spec: MirrorSpec) -> StateDirectory | None:
    """The state directory of a mirror; None where none is kept: not wanted, a dry run, or it cannot be made.

    Raises:
        OperatorError: it is not safe to use, or was asked for by name and cannot be made.
    """
    if spec.dry_run or not spec.state_dir:
        return None
    try:
        return StateDirectory(spec.state_dir)
    except OSError as error:
        what = f"cannot make the state directory {os.fsdecode(spec.state_dir)}: {error.strerror}"
        if spec.state_needed:
            raise OperatorError("no-state-directory", what, fix="give another: --state-dir=DIR") from error
        log.warning(
            "no-state-directory",
            extra=fields(
                path=spec.state_dir,
                reason=error.strerror,
                now="nothing is remembered between two runs",
                fix="give one that can be written: --state-dir=DIR; or --state-dir=none to be asked no more",
            ),
        )
        return None


def mirror_key(spec: MirrorSpec) -> str:
    """A name for what this mirror's targets are to hold: the same for the same source, targets and choices.

    It changes with every option that decides what stands at the targets, and with none that decides when or how fast.
    """
    what = (
        spec.source,
        tuple((target.address, target.engine.value) for target in spec.targets),
        tuple((rule.include, rule.pattern, rule.searched_in) for rule in spec.rules),
        tuple(spec.preserve),
        (spec.delete, spec.delete_excluded, spec.one_file_system),
        spec.rsync_args,
    )
    return _key(what)


def places_key(spec: MirrorSpec) -> str:
    """A name for this mirror's source and targets: the same with whatever options."""
    return _key((spec.source, tuple(target.address for target in spec.targets)))


def _key(what: object) -> str:
    return hashlib.blake2b(repr(what).encode(), digest_size=12).hexdigest()


def kept_apart(spec: MirrorSpec) -> MirrorSpec:
    """The mirror with a rule before all others that leaves the state directory out, if that lies in one of its trees.

    Raises:
        OperatorError: the state directory is a root itself, or would be deleted by what was asked for.
    """
    if not spec.state_dir:
        return spec
    rules: list[Rule] = []
    source = _below(spec.source, spec.state_dir)
    targets = [(target, _below(target.address, spec.state_dir)) for target in spec.targets if target.is_local]
    for root, inside in ((spec.source, source), *((target.address, inside) for target, inside in targets)):
        if inside is None:
            continue
        if not inside:
            raise UsageError(
                "state-is-root",
                f"the state directory {os.fsdecode(spec.state_dir)} is the source or a target itself",
                fix="give another: --state-dir=DIR",
            )
        if root is not spec.source and spec.delete_excluded:
            raise TargetError(
                "state-inside-target",
                f"the state directory {os.fsdecode(spec.state_dir)} lies inside the target {os.fsdecode(root)},"
                " and --delete-excluded would delete it",
                fix="give another: --state-dir=DIR",
            )
        rule = Rule(include=False, pattern=anchored(inside) + b"/", origin="--state-dir")
        if rule not in rules:
            rules.append(rule)
    return replace(spec, rules=(*rules, *spec.rules)) if rules else spec


def _below(root: bytes, place: bytes) -> bytes | None:
    """The path of ``place`` below ``root``, whatever links lead there: ``b""`` if it is the same; None if outside."""
    try:
        info = os.stat(root)
    except OSError:
        return None  # Not there yet, so nothing lies in it.
    top = (info.st_dev, info.st_ino)
    here = os.path.realpath(place)
    below: list[bytes] = []
    while True:
        try:
            info = os.stat(here)
        except OSError:
            pass  # Not made yet.
        else:
            if (info.st_dev, info.st_ino) == top:
                return b"/".join(reversed(below))
        here, name = os.path.split(here)
        if not name:
            return None
        below.append(name)
