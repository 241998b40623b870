"""A consumer that believes reports the way the daemon does, writers that make trouble, and the comparison at rest."""

from __future__ import annotations

import ctypes
import os
import random
import select
import shutil
import stat
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from instep.linux.libc import libc
from instep.model import Report
from instep.paths import Scope
from instep.ports import Monitor, Renewable

AT_FDCWD = -100
RENAME_EXCHANGE = 2
DEADLINE_S = 60.0
PLAIN_MODES = (0o755, 0o700, 0o644 if os.geteuid() == 0 else 0o750)
"""Whoever is not root has to be able to read and search a directory with any of them."""

State = tuple[object, ...]


def exchange(one: bytes, other: bytes) -> None:
    """renameat2(2) with RENAME_EXCHANGE."""
    if libc().renameat2(AT_FDCWD, one, AT_FDCWD, other, RENAME_EXCHANGE) != 0:
        raise OSError(ctypes.get_errno(), "renameat2")


def look(path: bytes) -> State | None:
    """What a mirror must hold for this name. Times and sizes of directories are not part of it.

    Raises:
        PermissionError: nobody can tell.
    """
    try:
        found = os.lstat(path)
        kind = stat.S_IFMT(found.st_mode)
        if kind == stat.S_IFDIR:
            return "directory", found.st_mode & 0o7777
        if kind == stat.S_IFLNK:
            return "link", os.readlink(path)
    except PermissionError:
        raise
    except OSError:
        return None
    return kind, found.st_mode & 0o7777, found.st_size, found.st_mtime_ns


def snapshot(root: bytes, below: bytes = b"") -> tuple[dict[bytes, State], list[bytes]]:
    """The state of everything at and below a path; the paths that could not be read."""
    seen: dict[bytes, State] = {}
    hidden: list[bytes] = []
    todo = [below]
    while todo:
        here = todo.pop()
        path = root + b"/" + here if here else root
        try:
            state = look(path)
        except PermissionError:
            hidden.append(os.path.dirname(here))  # It may be listed, but not searched.
            continue
        if state is None:
            continue
        seen[here] = state
        try:
            names = os.listdir(path) if state[0] == "directory" else []
        except PermissionError:
            hidden.append(here)
        except OSError:
            continue  # Gone or replaced since.
        else:
            todo += [here + b"/" + name if here else name for name in names]
    return seen, hidden


class Mirror:
    """The model target: each report is acted on by reading the source as it is at that moment.

    What cannot be read is kept as it was and tried again, as engines do.
    """

    def __init__(self, root: bytes) -> None:
        self.root = root
        self.holds: dict[bytes, State] = {}
        self.failing: dict[bytes, None] = {}

    def apply(self, reports: Iterable[Report]) -> None:
        failing, self.failing = self.failing, {}
        for path in failing:
            self._tree(path)
        for report in reports:
            if report.moved_from is not None:
                self._tree(report.moved_from)
            if report.scope is Scope.TREE:
                self._tree(report.path)
            elif report.scope is Scope.LIST:
                self._names(report.path)
            else:
                self._entry(report.path)

    def _forget(self, path: bytes, but: Sequence[bytes] = ()) -> None:
        for known in [known for known in self.holds if is_below(known, path)]:
            if not any(is_below(known, kept) for kept in but):
                del self.holds[known]

    def _tree(self, path: bytes) -> None:
        now, hidden = snapshot(self.root, path)
        self.failing.update(dict.fromkeys(hidden))
        self._forget(path, hidden)
        self.holds.update(now)

    def _names(self, path: bytes) -> None:
        """Only forgets: what is new in a directory must be reported by its own name as well."""
        try:
            names = set(os.listdir(self.root + b"/" + path if path else self.root))
        except PermissionError:
            self.failing[path] = None
            return
        except OSError:
            names = set()
        prefix = path + b"/" if path else b""
        for known in [known for known in self.holds if known.startswith(prefix) and known != path]:
            name = known[len(prefix) :]
            if b"/" not in name and name not in names:
                self._forget(known)

    def _entry(self, path: bytes) -> None:
        try:
            state = look(self.root + b"/" + path if path else self.root)
        except PermissionError:
            self.failing[path] = None
            return
        if state is None:
            self._forget(path)
            return
        before = self.holds.get(path)
        if before is not None and before[0] == "directory" and state[0] != "directory":
            self._forget(path)
        self.holds[path] = state


def is_below(path: bytes, top: bytes) -> bool:
    """Whether a path is ``top`` or stands below it."""
    return not top or path == top or path.startswith(top + b"/")


def read_until(
    monitor: Monitor, done: Callable[[list[Report]], bool], what: str, deadline_s: float = DEADLINE_S
) -> list[Report]:
    """Read, waiting as the daemon does, until ``done`` says so of all reports so far."""
    reports: list[Report] = []
    until_s = time.monotonic() + deadline_s
    while True:
        reports += monitor.read()
        if done(reports):
            return reports
        left_s = until_s - time.monotonic()
        assert left_s > 0, f"not within {deadline_s} s: {what}; reported: {reports[-20:]}"
        wake_s = monitor.wake_s()
        poll = select.poll()
        poll.register(monitor.fileno(), select.POLLIN)
        poll.poll(min(left_s, 0.5 if wake_s is None else wake_s) * 1000)


def drain(monitor: Monitor) -> list[Report]:
    """All reports up to now: whatever happened before this call has been reported."""
    # A scan that was under way when the change was made may have missed it; the next one has not.
    seen = 2 if monitor.name == "poll" else 1

    def done(_: list[Report]) -> bool:
        nonlocal seen
        seen -= monitor.drained
        return seen <= 0

    return read_until(monitor, done, "drained")


@dataclass
class Round:
    """One run of writers against a monitor; everything in it follows from the seed, but for the timing."""

    seed: int
    operations: int = 300
    modes: bool = False
    """Directories become unreadable (only for an unprivileged user)."""
    differences: list[object] = field(default_factory=list)
    phase: str = ""

    @property
    def passed(self) -> bool:
        return not self.differences

    def __str__(self) -> str:
        return f"seed {self.seed}, {self.phase}: (path, mirror, source) = {self.differences[:6]}"


NAMES = (b"a", b"b", b"c", b"d")


def disturb(root: bytes, outside: bytes, seed: int, count: int, pause_s: float, modes: bool) -> None:
    """Random operations on a small tree, so that names meet again and again."""
    draw = random.Random(seed)

    def place() -> bytes:
        return b"/".join([root, *(draw.choice(NAMES) for _ in range(draw.randint(1, 4)))])

    def away() -> bytes:
        return outside + b"/" + draw.choice(NAMES)

    def write(path: bytes, mode: str = "wb") -> None:
        with open(path, mode) as file:
            file.write(b"x" * draw.randint(0, 9))

    for _ in range(count):
        what, one, other = draw.random(), place(), place()
        try:
            if what < 0.16:
                os.mkdir(one)
            elif what < 0.22:
                os.makedirs(one + b"/" + draw.choice(NAMES) + b"/" + draw.choice(NAMES), exist_ok=True)
                write(one + b"/f")
            elif what < 0.36:
                write(one, draw.choice(("ab", "wb")))
            elif what < 0.42:
                os.unlink(one)
            elif what < 0.47:
                os.rmdir(one)
            elif what < 0.51:
                shutil.rmtree(one, ignore_errors=True)
            elif what < 0.71:
                os.rename(one, other)
            elif what < 0.75:
                os.rename(one, away())
            elif what < 0.79:
                os.rename(away(), one)
            elif what < 0.83:
                exchange(one, other)
            elif what < 0.87:
                os.rename(one, other)
                os.rename(other, one)
                os.rename(one, other)
            elif what < 0.91:
                os.chmod(one, draw.choice((0o755, 0o700, 0, 0o755, 0o400, 0o300) if modes else PLAIN_MODES))
            elif what < 0.94:
                os.symlink(b"x", one)
            elif what < 0.96:
                os.utime(one)
            elif what < 0.98:
                os.truncate(one, draw.randint(0, 50))
            else:
                os.makedirs(b"/".join([away(), draw.choice(NAMES), draw.choice(NAMES)]), exist_ok=True)
        except OSError:
            pass
        if pause_s and draw.random() < 0.05:
            time.sleep(draw.random() * pause_s)


def compare(mirror: Mirror) -> list[object]:
    """The paths whose state the mirror does not have, with both states."""
    source, hidden = snapshot(mirror.root)
    differences: list[object] = []
    for path in sorted(source.keys() | mirror.holds.keys()):
        held, there = mirror.holds.get(path), source.get(path)
        if held != there and (there is not None or not any(is_below(path, top) for top in hidden)):
            differences.append((path, held, there))
    return differences


def fork(work: Callable[..., object], *args: object) -> int:
    """Run this in a child process; its pid."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work(*args)
            status = 0
        except BaseException:  # noqa: BLE001  # whatever it is, the child must not go on as a second pytest
            traceback.print_exc(file=sys.__stderr__)
        finally:
            os._exit(status)
    return pid


def play(
    make: Callable[[bytes], Monitor], base: bytes, seed: int, operations: int = 300, *, modes: bool = False
) -> Round:
    """One round: writers, a consumer beside them; then rest, comparison, a probe in every directory, comparison."""
    result = Round(seed, operations, modes)
    root, outside = base + b"/root", base + b"/outside"
    os.makedirs(root)
    os.makedirs(outside)
    disturb(root, outside, seed * 7 + 1, 150, 0, modes)
    pause_s = 0.002 if seed % 2 else 0.0
    draw = random.Random(seed)
    amid = draw.random() < 0.5
    writers: list[int] = []

    def let_loose() -> None:
        for number in range(1 + seed % 3):
            writer_seed = seed * 1000 + number
            writers.append(fork(disturb, root, outside, writer_seed, operations, pause_s, modes))

    if amid:
        let_loose()
    monitor = make(root)
    mirror = Mirror(root)
    try:
        monitor.start()
        if not amid:
            let_loose()
        first: list[Report] = []
        while writers:
            reports = monitor.read()
            if reports and not first:
                first = [*reports[:1]]
            mirror.apply(reports)
            if draw.random() < 0.01:
                assert isinstance(monitor, Renewable)
                monitor.renew(None)
            if os.waitpid(writers[0], os.WNOHANG)[0]:
                writers.pop(0)
            if draw.random() < 0.3:
                time.sleep(draw.random() * 0.003)  # a consumer is busy now and then
        mirror.apply(drain(monitor))
        mirror.apply(())  # What could not be read a moment ago.
        result.phase = "at rest"
        result.differences = compare(mirror)
        if first and (first[0].path, first[0].scope, first[0].content) != (b"", Scope.TREE, False):
            result.differences.append(first[0])
        if result.passed:
            result.phase = "probe"
            for path, state in snapshot(root)[0].items():
                if state[0] == "directory":
                    try:
                        os.close(
                            os.open(b"/".join([root, path, b"probe"]), os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644)
                        )
                    except OSError:
                        continue  # Not searchable, or the name is taken by a directory.
            mirror.apply(drain(monitor))
            mirror.apply(())
            result.differences = compare(mirror)
    finally:
        for pid in writers:
            os.waitpid(pid, 0)
        monitor.close()
    return result


def rounds(
    make: Callable[[bytes], Monitor], base: bytes, seeds: Sequence[int], operations: int = 300, *, modes: bool = False
) -> list[Round]:
    """The rounds of these seeds that failed."""
    failed = []
    for seed in seeds:
        here = base + b"/%d" % seed
        os.mkdir(here)
        try:
            one = play(make, here, seed, operations, modes=modes)
        finally:
            shutil.rmtree(here, ignore_errors=True)
        if not one.passed:
            failed.append(one)
    return failed
