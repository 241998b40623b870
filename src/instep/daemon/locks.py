"""One daemon for one target: whoever comes second is refused, and told who was first.

Two locks, for two questions. *Is it taken?* of a directory of this machine is asked of the directory itself: all users
meet there, by whatever path. *By whom?* and everything about far targets is answered by a file in the state directory,
which those who share that directory see: one user on this machine, as a rule. Both die with the process, and with what
it let inherit them; of that the next one makes an end (``daemon.orphans``).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import socket
import time
from collections.abc import Iterator, Sequence
from typing import Any

from instep.core.filters import Filter
from instep.daemon.orphans import end_orphans
from instep.daemon.state import StateDirectory
from instep.errors import TargetError
from instep.linux.flock import Process, holder, lock, user_name
from instep.logs import fields
from instep.paths import RelPath
from instep.rules import Rule
from instep.spec import MirrorSpec, TargetSpec

log = logging.getLogger(__name__)

PREFIX = "target-"
SUFFIX = ".lock"
PATIENCE_S = 1.0
"""So long somebody whom nobody can see may take to let go of a lock."""
STEP_S = 0.01

Record = dict[str, Any]
"""What a lock file says of its owner."""
_KEYS = frozenset(("pid", "user", "host", "since", "source", "target", "real", "rules", "delete", "delete_excluded"))


class TargetLocks:
    """The locks of one mirror; kept until ``close``, also while the mirror is built anew."""

    def __init__(self, spec: MirrorSpec, state: StateDirectory | None) -> None:
        self._spec = spec
        self._state = state
        self._held: dict[bytes, tuple[str, list[int]]] = {}
        self._files: set[bytes] = set()

    def take(self, target: TargetSpec) -> None:
        """Lock the target, or the directory that has taken its place. Does nothing for one that is not there.

        Raises:
            TargetError: another daemon brings this target in step, or one that it lies in, or that lies in it.
        """
        directory = -1
        key = "address " + os.fsdecode(target.address)
        if target.is_local:
            try:
                directory = os.open(target.address, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except OSError:
                return  # Away, or not readable: whoever writes to it says so.
            info = os.fstat(directory)
            key = f"directory {info.st_dev}:{info.st_ino}"
        held = self._held.get(target.address)
        if held is not None and held[0] == key:
            if directory >= 0:
                os.close(directory)
            return
        fds = [directory] if directory >= 0 else []
        try:
            if directory >= 0:
                self._lock_directory(target, directory, key)
            if self._state is not None:
                try:
                    fds.append(self._lock_file(self._state, target, key))
                except OSError as error:
                    log.warning(
                        "lock-not-written",
                        extra=fields(
                            target=target.address,
                            reason=f"{os.fsdecode(self._state.place)}: {error.strerror}",
                            now="another daemon on this target would not be told who has it",
                        ),
                    )
        except BaseException:
            _close(fds)
            raise
        if held is not None:
            _close(held[1])
        self._held[target.address] = key, fds

    def held(self, address: bytes) -> Sequence[int]:
        """The locks of this target; whatever may write there when we are gone has to inherit them."""
        return self._held[address][1] if address in self._held else ()

    def close(self) -> None:
        """Let go of all."""
        for _, fds in self._held.values():
            _close(fds)
        self._held.clear()

    def _lock_directory(self, target: TargetSpec, directory: int, key: str) -> None:
        try:
            _lock(directory, target)
        except BlockingIOError:
            if self._state is not None:
                with _alone(self._state):
                    file = _file(self._state, key)
                    for path, record in self._others(self._state):
                        if path == file:
                            raise _taken(target, record) from None
            raise _taken(target, holder(directory)) from None

    def _lock_file(self, state: StateDirectory, target: TargetSpec, key: str) -> int:
        file = _file(state, key)
        real = os.fsdecode(os.path.realpath(target.address)) if target.is_local else ""
        with _alone(state):
            for path, record in self._others(state):
                clash = self._clash(real, record) if real and record["real"] else ""
                if (clash or path == file) and not _is_let_go(path, target):
                    raise _taken(target, record, clash)
                if self._goes_back(real, record):
                    if self._spec.delete or record["delete"]:
                        raise _mirrored_back(target, record)
                    _warn_of(target, record)
            fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                lock(fd)
                os.ftruncate(fd, 0)
                os.pwrite(fd, json.dumps(self._record(target, real)).encode(), 0)
            except BaseException:
                os.close(fd)
                raise
            self._files.add(file)
            return fd

    def _others(self, state: StateDirectory) -> Iterator[tuple[bytes, Record]]:
        """The lock files that others hold; what was left behind by the dead is removed."""
        for name in os.listdir(os.fsdecode(state.place)):
            path = state.path(name)
            if not (name.startswith(PREFIX) and name.endswith(SUFFIX)) or path in self._files:
                continue
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                lock(fd)
            except BlockingIOError:
                record = _read(fd)
                if record is not None:
                    yield path, record
            else:
                os.unlink(path)
            finally:
                os.close(fd)

    def _clash(self, real: str, record: Record) -> str:
        """How the two targets get in each other's way; empty when they do not."""
        theirs: str = record["real"]
        if real == theirs:
            return "is the very directory"
        spec = self._spec
        if real.startswith(_slashed(theirs)):
            rules = tuple(
                Rule(include, os.fsencode(pattern), "", *searched_in)
                for include, pattern, *searched_in in record["rules"]
            )
            inner, delete, excluded = real[len(_slashed(theirs)) :], record["delete"], record["delete_excluded"]
            return "" if _spares(inner, rules, delete=delete, delete_excluded=excluded) else "lies inside"
        if theirs.startswith(_slashed(real)):
            inner, delete, excluded = theirs[len(_slashed(real)) :], spec.delete, spec.delete_excluded
            return "" if _spares(inner, spec.rules, delete=delete, delete_excluded=excluded) else "holds"
        return ""

    def _goes_back(self, real: str, record: Record) -> bool:
        """Whether the two mirror one another's target."""
        if not real or real != os.path.realpath(record["source"]):
            return False
        return bool(record["real"] == os.fsdecode(os.path.realpath(self._spec.source)))

    def _record(self, target: TargetSpec, real: str) -> Record:
        spec = self._spec
        return {
            "pid": os.getpid(),
            "user": user_name(os.geteuid()),
            "host": socket.gethostname(),
            "since": time.strftime("%Y-%m-%d %H:%M:%S"),
            "source": os.fsdecode(spec.source),
            "target": os.fsdecode(target.address),
            "real": real,
            "rules": [(rule.include, os.fsdecode(rule.pattern), rule.searched_in) for rule in spec.rules],
            "delete": spec.delete,
            "delete_excluded": spec.delete_excluded,
        }


@contextlib.contextmanager
def _alone(state: StateDirectory) -> Iterator[None]:
    """Nobody else looks at the lock files meanwhile: to look is to try the lock, which must not refuse anybody."""
    fd = os.open(state.path("targets.mutex"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _lock(fd: int, target: TargetSpec) -> None:
    """Take the lock, if need be after an end of what somebody who is gone left at work; else BlockingIOError.

    Blocks for ``PATIENCE_S`` where nobody can be named who holds it: a process that is ending shows no files any more,
    and holds its locks a moment longer; one that started another meanwhile hands them on.
    """
    until_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            lock(fd)
        except BlockingIOError:
            if not end_orphans(fd, target.address) and (holder(fd) is not None or time.monotonic() > until_s):
                raise
            time.sleep(STEP_S)
        else:
            return


def _is_let_go(path: bytes, target: TargetSpec) -> bool:
    """Whether whoever held this lock file was about to end, or has been ended."""
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        _lock(fd, target)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


def _file(state: StateDirectory, key: str) -> bytes:
    return state.path(PREFIX + hashlib.blake2b(os.fsencode(key), digest_size=12).hexdigest() + SUFFIX)


def _read(fd: int) -> Record | None:
    try:
        record = json.loads(os.pread(fd, os.fstat(fd).st_size, 0))
    except ValueError:
        return None
    return record if isinstance(record, dict) and record.keys() >= _KEYS else None


def _taken(target: TargetSpec, owner: Record | Process | None, clash: str = "") -> TargetError:
    name = os.fsdecode(target.address)
    if owner is None:
        who = "it is locked by a process that cannot be seen from here, perhaps in another container"
    elif isinstance(owner, Process):
        who = f"it is locked by process {owner.pid} of {owner.user}: {owner.command}"
    else:
        who = _who_mirrors(owner)
    return TargetError(
        "target-in-use",
        f"the target {name} {clash} {owner['target']} that is kept in step by another instep: {who}"
        if clash and isinstance(owner, dict)
        else f"the target {name} is kept in step by another instep: {who}",
        fix="end that one first, or give another target",
    )


def _warn_of(target: TargetSpec, owner: Record) -> None:
    log.warning(
        "target-mirrored-back",
        extra=fields(
            target=target.address,
            reason=f"it is itself the source of another instep, process {owner['pid']}, the other way round",
            now="both go on and delete nothing; half a file that was brought over may come back over the whole one",
            fix="put files in place by rename, or mirror one way only",
        ),
    )


def _mirrored_back(target: TargetSpec, owner: Record) -> TargetError:
    return TargetError(
        "target-mirrored-back",
        f"the target {os.fsdecode(target.address)} is itself the source of another instep, the other way round:"
        f" {_who_mirrors(owner)}."
        " Each would delete what the other has not brought over yet",
        fix="end that one first; instep brings changes one way (with --no-delete on both sides it is allowed)",
    )


def _spares(inner: str, rules: Sequence[Rule], *, delete: bool, delete_excluded: bool) -> bool:
    """Whether a mirror leaves this directory of its target alone."""
    return not delete or (not delete_excluded and Filter(rules).excludes(RelPath(os.fsencode(inner)), is_dir=True))


def _slashed(path: str) -> str:
    return path if path.endswith("/") else path + "/"


def _close(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)


def _who_mirrors(owner: Record) -> str:
    return "process {pid} of {user} on {host}, since {since}, mirrors {source} to {target}".format_map(owner)
