"""Configuration files: where they are, their lines, and blocks that inherit.

Facts: the format is that of GLib's key files (``[block]``, ``key = value``, ``#`` comments; blanks before a value do
not count, those behind it do; of equal keys the last one counts, and equal blocks are one).
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from instep.frontends.clsync.complaints import refused
from instep.frontends.instep.output import escaped

NONE: Final = b"/NULL/"
"""The name that says that there is to be no file."""
UNUSABLE: Final = 255
"""Exit status where a file that was named cannot be read."""
_SYSTEM: Final = (
    b"/etc/clsync/clsync.conf",
    b"/etc/clsync.conf",
    b"/usr/local/etc/clsync/clsync.conf",
    b"/usr/local/etc/clsync.conf",
)
_BLOCK: Final = re.compile(rb"\[([^\[\]\x00-\x1f\x7f]+)\][ \t]*")
_KEY: Final = re.compile(rb"([^=]*[^=\s])\s*=\s*(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Line:
    """One key's value."""

    text: bytes
    origin: str
    """``FILE:LINE``."""
    depth: int = 0
    """How many blocks inherit, one from the other, up to the one that it stands in."""


Block = Mapping[str, Line]


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """One file's blocks."""

    path: bytes
    blocks: Mapping[str, Block]


class ConfigError(Exception):
    """A file that cannot be read or understood; the text says where and why."""


def load(path: bytes) -> ConfigFile:
    """Read a file.

    Raises:
        ConfigError: it cannot be read, or a line of it cannot be understood.
    """
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise ConfigError(f"{escaped(path)}: {error.strerror}") from error
    return ConfigFile(path, parse(data, escaped(path)))


def parse(data: bytes, name: str) -> Mapping[str, Block]:
    """The blocks of a file's contents.

    Raises:
        ConfigError: a line that is no block, key or comment, or that stands before the first block.
    """
    blocks: dict[str, dict[str, Line]] = {}
    block: dict[str, Line] | None = None
    for number, raw in enumerate(data.split(b"\n"), 1):
        line = raw.removesuffix(b"\r").lstrip()
        if not line or line.startswith(b"#"):
            continue
        origin = f"{name}:{number}"
        if found := _BLOCK.fullmatch(line):
            block = blocks.setdefault(os.fsdecode(found[1]), {})
        elif line.startswith(b"[") or not (found := _KEY.fullmatch(line)):
            raise ConfigError(f"{origin}: {escaped(line)} is neither a [block] nor KEY = VALUE nor a # comment")
        elif block is None:
            raise ConfigError(f"{origin}: {escaped(line)} stands before the first [block]")
        else:
            block[os.fsdecode(found[1])] = Line(found[2], origin)
    return blocks


def find(home: bytes | None, warn: Callable[[str], None]) -> ConfigFile | None:
    """The first file there is, of those that need not be named; one that cannot be used is passed over."""
    paths = ((home.rstrip(b"/") + b"/.clsync.conf",) if home else ()) + _SYSTEM
    for path in paths:
        try:
            return load(path)
        except ConfigError as error:
            cause = error.__cause__
            if not isinstance(cause, OSError) or cause.errno not in (errno.ENOENT, errno.ENOTDIR):
                warn(f"{error}; this configuration file is passed over")
    return None


def named(path: bytes) -> ConfigFile:
    """The file that was named.

    Raises:
        Refused: it cannot be used.
    """
    try:
        return load(path)
    except ConfigError as error:
        raise refused(
            f"the configuration cannot be used: {error}", "mend it, or write -H /NULL/ for none", status=UNUSABLE
        ) from None


def merged(config: ConfigFile, block: str, parent: str | None, warn: Callable[[str], None]) -> dict[str, Line]:
    """What a block says, with what it inherits; nearer blocks go before those that they inherit from.

    Args:
        config: the file.
        block: the first block's name; one that is not there is empty.
        parent: what the first block inherits, if that was said elsewhere.
        warn: told of circles, and of blocks to be inherited that are not there.
    """
    found: dict[str, Line] = {}
    for depth, lines in enumerate(_chain(config, block, parent, warn)):
        for key, line in lines.items():
            found.setdefault(key, replace(line, depth=depth))
    return found


def _chain(config: ConfigFile, block: str, parent: str | None, warn: Callable[[str], None]) -> Iterator[Block]:
    seen = [block]
    while True:
        lines = config.blocks.get(block, {})
        yield lines
        origin = escaped(config.path)
        if parent is None and (line := lines.get("config-block-inherits")):
            parent, origin = os.fsdecode(line.text), line.origin
        if not parent:
            return
        if parent in seen:
            circle = " -> ".join(escaped(each) for each in [*seen[seen.index(parent) :], parent])
            warn(f"{origin}: blocks inherit in a circle: {circle}; each counts once")
            return
        if parent not in config.blocks:
            warn(f"{origin}: there is no block [{escaped(parent)}] to inherit from")
        seen.append(parent)
        block, parent = parent, None
