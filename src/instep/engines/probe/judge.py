"""What the facts about a target mean for a mirror: one finding each, in a person's words."""

from __future__ import annotations

from collections.abc import Iterator

from instep.engines.probe.reach import Facts
from instep.inspection import Finding, Verdict
from instep.rules import Preserve

PYTHON_LEAST = (3, 8)
CLOCK_S = 1.0
"""Clocks that differ by less are said to agree."""
FREE_SHARE = 0.02
FREE_BYTES = 64 << 20
ROUGH_S = 0.001

_DIRECTORY = {
    "there": (Verdict.GOOD, "is there", ""),
    "missing": (Verdict.GOOD, "is not there yet", "it is made at the first start"),
    "nowhere": (
        Verdict.BAD,
        "is not there, nor is the one it would be made in",
        "make it, or mount what belongs there",
    ),
    "no directory": (Verdict.BAD, "is there, and is not a directory", "give a directory"),
    "dangling": (Verdict.BAD, "is a link that leads nowhere", "make its directory, or remove it"),
}

_LOSSES = {
    "modes": "permissions differ from the source's",
    "times": "every whole comparison takes all files for changed",
    "case": "of names that differ in case alone, only one survives",
    "spelling": "of names that look alike, only one survives",
    "names of any bytes": "files with names that are not valid text stay behind",
    "names of any characters": "files with such names stay behind",
    "long names": "files with long names stay behind",
    "symbolic links": "links stay behind",
    "hard links": "each name becomes a file of its own, or stays behind",
    "fifos": "FIFOs and sockets stay behind",
    "devices": "device files stay behind",
    "xattrs": "extended attributes are left out",
    "trusted xattrs": "root's own extended attributes are left out",
    "ACLs": "access control lists are left out",
}


def findings(facts: Facts, preserve: Preserve, *, as_root: bool) -> Iterator[Finding]:
    """What is worth saying, in the order of a table.

    Args:
        facts: what was found out.
        preserve: what the mirror is to keep.
        as_root: whether the mirror runs as root, and so finds things that only root may keep.
    """
    yield from _host(facts)
    yield from _directory(facts)
    yield from _room(facts)
    yield from _abilities(facts, preserve, as_root=as_root)


def kept(facts: Facts) -> tuple[str, ...]:
    """The abilities that were found to be there."""
    return tuple(name for name, words in facts.abilities.items() if not words)


def runs_agent(facts: Facts) -> bool:
    """Whether the far side's Python is one that the agent runs on."""
    numbers = facts.python.split(".")[:2]
    return all(number.isdecimal() for number in numbers) and tuple(map(int, numbers)) >= PYTHON_LEAST


def _host(facts: Facts) -> Iterator[Finding]:
    if facts.connect_s is not None:
        trip = f", {1e3 * facts.round_trip_s:.2g} ms there and back" if facts.round_trip_s is not None else ""
        yield Finding("connection", Verdict.GOOD, f"ssh, in {facts.connect_s:.2g} s{trip}")
    if facts.clock_s is not None:
        rough_s = max(ROUGH_S, facts.round_trip_s or 0.0)
        if abs(facts.clock_s) <= rough_s:
            yield Finding("clock", Verdict.GOOD, "agrees with ours")
        else:
            value = f"{abs(facts.clock_s):.3g} s {'ahead of' if facts.clock_s > 0 else 'behind'} ours"
            off = abs(facts.clock_s) > CLOCK_S
            yield Finding(
                "clock",
                Verdict.NOTE if off else Verdict.GOOD,
                value,
                "a mirror keeps the source's times whatever the clock says; people will wonder" if off else "",
            )
    if facts.system:
        yield Finding("system", Verdict.GOOD, facts.system)
    old = bool(facts.python) and not runs_agent(facts)
    least = ".".join(map(str, PYTHON_LEAST))
    yield Finding(
        "python3",
        Verdict.GOOD if facts.python and not old else Verdict.NOTE,
        facts.python or "not found",
        f"the agent needs {least} or later" if old or not facts.python else "",
    )
    yield Finding("rsync", Verdict.GOOD if facts.rsync else Verdict.NOTE, facts.rsync or "not found")


def _directory(facts: Facts) -> Iterator[Finding]:
    if facts.directory in _DIRECTORY:
        verdict, value, note = _DIRECTORY[facts.directory]
        yield Finding("directory", verdict, value, note)
    if facts.trouble:
        yield Finding("directory", Verdict.BAD, facts.trouble, "let the user in, or give another directory")
    if facts.read_only:
        yield Finding("writing", Verdict.BAD, "the file system is read-only", "mount it writable")
    elif facts.writable:
        yield Finding("writing", Verdict.BAD, facts.writable, f"let {facts.user or 'the user'} write there")
    elif facts.writable is not None:
        yield Finding("writing", Verdict.GOOD, f"as {facts.user}")


def _room(facts: Facts) -> Iterator[Finding]:
    if facts.free_bytes is not None and facts.size_bytes:
        tight = facts.free_bytes < max(FREE_BYTES, FREE_SHARE * facts.size_bytes)
        yield Finding(
            "space",
            Verdict.NOTE if tight else Verdict.GOOD,
            f"{_size(facts.free_bytes)} of {_size(facts.size_bytes)} free",
            "nearly full" if tight else "",
        )
    if facts.free_inodes is not None and facts.inodes:  # btrfs and the like count none
        tight = facts.free_inodes < FREE_SHARE * facts.inodes
        yield Finding(
            "inodes",
            Verdict.NOTE if tight else Verdict.GOOD,
            f"{facts.free_inodes:,} of {facts.inodes:,} free",
            "hardly any more files can be made" if tight else "",
        )
    if facts.file_system:
        yield Finding("file system", Verdict.GOOD, facts.file_system)


def _abilities(facts: Facts, preserve: Preserve, *, as_root: bool) -> Iterator[Finding]:
    wanted = {
        "owners": preserve.owner,
        "groups": preserve.owner and bool(facts.abilities.get("owners")),
        "modes": preserve.mode,
        "times": preserve.times,
        "hard links": preserve.hard_links,
        "fifos": preserve.devices,
        "devices": preserve.devices and as_root,
        "xattrs": preserve.xattrs,
        "trusted xattrs": preserve.xattrs and as_root,
        "ACLs": preserve.acls,
    }
    for name, words in facts.abilities.items():
        if not words or not wanted.get(name, True):
            continue
        if name == "renames":
            yield Finding(name, Verdict.BAD, words, "every file is put in its place by a rename")
        elif name in ("late times", "sparse files"):
            yield Finding(name, Verdict.NOTE, words)
        elif name in ("owners", "groups"):
            note = f"files belong to {facts.user or 'the user'}" if name == "owners" else "files get the user's group"
            yield Finding(name, Verdict.LOST, words, note)
        else:
            yield Finding(name, Verdict.LOST, words, _LOSSES[name])


def _size(value: int) -> str:
    size = float(value)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.3g} TiB"
