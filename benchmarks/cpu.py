"""CPU time of a group of processes, children and ended ones included.

Facts: a control group counts every task that was ever in it, in nanoseconds (v1, ``cpuacct.usage``) or microseconds
(v2, ``usage_usec`` in ``cpu.stat``, there without any controller switched on); children are born into their parent's
group (cgroups(7)). Without the right to make one, ``/proc/PID/stat`` counts in clock ticks of 10 ms, and ``cutime``
there only holds children that were waited for (proc_pid_stat(5)). What a child of ours used that has ended, with all it
waited for, is in our own account (getrusage(2), RUSAGE_CHILDREN).
"""

from __future__ import annotations

import contextlib
import itertools
import os
import resource
import signal
import time
from typing import Protocol

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_serial = itertools.count()


class CpuMeter(Protocol):
    """Counts what all processes started in it use."""

    kind: str

    def enter(self) -> None:
        """Called in the child between fork and exec."""

    def watch(self, pid: int) -> None:
        """Called in the parent when the child runs."""

    def usage_s(self) -> float:
        """CPU seconds so far."""

    def close(self) -> None:
        """Kill what is left in it, then give it up."""


class ControlGroup:
    """A control group of its own, v1 or v2."""

    def __init__(self, directory: str, *, version: int) -> None:
        self.kind = f"cgroup v{version}"
        self._version = version
        self._directory = directory
        os.mkdir(directory)

    def enter(self) -> None:
        with open(f"{self._directory}/cgroup.procs", "w", encoding="ascii") as procs:
            procs.write("0")

    def watch(self, pid: int) -> None:
        pass

    def usage_s(self) -> float:
        with open(
            f"{self._directory}/{'cpuacct.usage' if self._version == 1 else 'cpu.stat'}", encoding="ascii"
        ) as file:
            text = file.read()
        if self._version == 1:
            return int(text) / 1e9
        return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("usage_usec")) / 1e6

    def close(self) -> None:
        for _ in range(500):
            try:
                with open(f"{self._directory}/cgroup.procs", encoding="ascii") as procs:
                    pids = [int(line) for line in procs]
            except FileNotFoundError:
                return
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            try:
                os.rmdir(self._directory)
            except FileNotFoundError:
                return
            except OSError:  # EBUSY: the killed are not gone yet
                time.sleep(0.01)
            else:
                return


class ProcessTree:
    """What /proc says of a process and those below it; for machines where no control group can be made."""

    kind = "/proc (10 ms ticks)"

    def __init__(self) -> None:
        self._pids: list[int] = []
        self._ended_before_s = _ended_children_s()

    def enter(self) -> None:
        pass

    def watch(self, pid: int) -> None:
        self._pids.append(pid)

    def usage_s(self) -> float:
        alive_s = sum(_ticks(pid) for top in self._pids for pid in [top, *descendants(top)]) * _TICK_S
        if all(os.path.exists(f"/proc/{pid}") for pid in self._pids):
            return alive_s
        return alive_s + _ended_children_s() - self._ended_before_s

    def close(self) -> None:
        pass


def _ended_children_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def descendants(pid: int) -> list[int]:
    """All processes below this one that live now."""
    found: list[int] = []
    todo = [pid]
    while todo:
        here = todo.pop()
        try:
            threads = os.listdir(f"/proc/{here}/task")
        except OSError:
            continue
        for thread in threads:
            with (
                contextlib.suppress(OSError),
                open(f"/proc/{here}/task/{thread}/children", encoding="ascii") as children,
            ):
                below = [int(word) for word in children.read().split()]
                found += below
                todo += below
    return found


def _ticks(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
            after_name = stat.read().rpartition(")")[2].split()
    except OSError:
        return 0
    return sum(int(word) for word in after_name[11:15])  # utime stime cutime cstime


def cpu_meter() -> CpuMeter:
    """The most exact one that works here."""
    name = f"instep-bench-{os.getpid()}-{next(_serial)}"
    for version, directory in _group_parents():
        try:
            group = ControlGroup(f"{directory}/{name}", version=version)
        except OSError:
            continue
        if _counts(group):
            return group
        group.close()
    return ProcessTree()


def _group_parents() -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    with open("/proc/self/mounts", encoding="utf-8") as mounts:
        for line in mounts:
            _, point, kind, options, *_ = line.split()
            if kind == "cgroup" and "cpuacct" in options.split(","):
                found.append((1, point))
            elif kind == "cgroup2":
                found.append((2, point))
    return sorted(found)


def _counts(group: ControlGroup) -> bool:
    """Whether a process can be put into it, and its time shows there."""
    pid = os.fork()
    if pid == 0:
        status = 1
        with contextlib.suppress(OSError):
            group.enter()
            sum(range(50_000))
            status = 0
        os._exit(status)
    if os.waitpid(pid, 0)[1] != 0:
        return False
    try:
        return group.usage_s() > 0
    except (OSError, StopIteration):
        return False
