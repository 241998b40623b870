"""The handler's arguments, given or by default, as templates in which only what differs from run to run is left."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from instep.frontends.clsync import macros
from instep.frontends.clsync.complaints import refused
from instep.frontends.clsync.settings import Given, Mode, Start

Values = Mapping[str, Given]
"""Options that are set, by their long names."""
Warn = Callable[[str], None]

_EXCLUDE: Final = (b"--exclude-from", b"%EXCLUDE-LIST-PATH%")
_INCLUDE: Final = (b"--include-from", b"%INCLUDE-LIST-PATH%")
_WHOLE: Final = (b"initialsync", b"%label%", b"%INCLUDE-LIST%")


class Templates(NamedTuple):
    """The arguments of all runs."""

    usual: tuple[bytes, ...]
    initial: tuple[bytes, ...] | None
    """For runs that stand for a whole directory; None: the same."""
    is_default: bool
    """The usual ones are the mode's own."""


def meant(given: Values, name: str) -> Any:
    """What an option says; None: it is not set, or to its default."""
    one = given.get(name)
    return None if one is None else one.meant


def look(name: str, given: Values, start: Start) -> bytes | None:
    """What ``%NAME%`` stands for: an option that is set, or ``%PID%``."""
    if name == "PID":
        return str(start.pid).encode()
    one = given.get(name)
    if one is not None:
        return one.text
    return b"nolabel" if name == "label" else None


def templates(given: Values, start: Start, mode: Mode, places: Mapping[str, bytes | None], warn: Warn) -> Templates:
    """The arguments that were given, or else the mode's own.

    Args:
        given: the options that are set.
        start: how the process was started.
        mode: what becomes of changes.
        places: the watched directory and the destination, by the names of their options; None: there is none.
        warn: told of names that stand for nothing.

    Raises:
        Refused: a destination is named, but there is none.
    """
    prefers_include = bool(meant(given, "rsync-prefer-include"))
    lists = (_INCLUDE,) if prefers_include else (_EXCLUDE, _INCLUDE)
    rsync_args = (b"-aH", b"--delete", *(word for pair in lists for word in pair), b"--exclude=*")

    def stands_for(name: str) -> bytes | None:
        return places[name] if name in places else look(name, given, start)

    def made(words: tuple[bytes, ...]) -> tuple[bytes, ...]:
        if places["destination-dir"] is None and any("destination-dir" in macros.names(word) for word in words):
            raise refused(
                "the handler's arguments name %destination-dir%, but no destination was given", "write -D DIR"
            )
        spread = macros.with_rsync_args(words, rsync_args, warn)
        return tuple(macros.argument(word, stands_for, warn) for word in spread)

    usual: tuple[bytes, ...] | None = meant(given, "--")
    initial: tuple[bytes, ...] | None = meant(given, "---")
    if not usual and not initial and mode is Mode.SHELL:
        initial = _WHOLE
    return Templates(
        made(usual or _default(mode, prefers_include=prefers_include)), made(initial) if initial else None, not usual
    )


def _default(mode: Mode, *, prefers_include: bool) -> tuple[bytes, ...]:
    match mode:
        case Mode.SIMPLE:
            return b"sync", b"%label%", b"%EVENT-MASK%", b"%INCLUDE-LIST%"
        case Mode.DIRECT:
            return b"%INCLUDE-LIST%", b"%destination-dir%/"
        case Mode.SHELL:
            return b"synclist", b"%label%", b"%INCLUDE-LIST-PATH%"
        case Mode.RSYNCSHELL:
            lists = (_INCLUDE[1],) if prefers_include else (_INCLUDE[1], _EXCLUDE[1])
            return b"rsynclist", b"%label%", *lists
        case Mode.RSYNCDIRECT:
            return b"%RSYNC-ARGS%", b"%watch-dir%/", b"%destination-dir%/"
        case _:
            return ()
