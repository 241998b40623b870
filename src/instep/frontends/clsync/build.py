"""From what was given to settings: defaults by mode, places, the handler and its arguments."""

from __future__ import annotations

import errno
import os
import re
from typing import Any, Final

from instep.frontends.clsync import arguments
from instep.frontends.clsync.arguments import Values, Warn, meant
from instep.frontends.clsync.complaints import USAGE, Complaint, Refused, refused
from instep.frontends.clsync.kinds import Path, Paths
from instep.frontends.clsync.options import BY_NAME
from instep.frontends.clsync.settings import Given, Mode, Settings, Splitting, Start
from instep.frontends.instep.output import escaped

NO_WATCH_DIR: Final = errno.EFAULT
"""Exit status where nothing says what to watch."""

_URL: Final = re.compile(rb"[a-z]+://")
_PYTHON: Final = {Mode.SO: Mode.PY, Mode.RSYNCSO: Mode.RSYNCPY}
_HANDLERS: Final = {Mode.DIRECT: b"cp", Mode.RSYNCDIRECT: b"rsync"}


def settings(
    given: Values, start: Start, warn: Warn, *, config_file: bytes | None = None, before: Settings | None = None
) -> Settings:
    """The settings that options come to.

    Args:
        given: the options that are set, by their long names.
        start: how the process was started.
        warn: told what is odd.
        config_file: absolute path of the one that was read.
        before: the settings in force: what they have found out about unchanged options is not asked again.

    Raises:
        Refused: something is missing, or not there.
    """
    plain = _plain(given)
    mode = _needed(given)
    watch_dir, destination, is_remote = _places(given, start, before)
    for name, one in given.items():
        option = BY_NAME[name]
        if one.meant is None or not option.field:
            continue
        base = start.directory if option.from_start else watch_dir
        if isinstance(option.kind, Path):
            plain[option.field] = os.path.join(base, plain[option.field])
        elif isinstance(option.kind, Paths):
            plain[option.field] = tuple(os.path.join(base, path) for path in plain[option.field])
    handler = _handler(given, start, mode, before)
    if handler.endswith(b".py"):
        mode = _PYTHON.get(mode, mode)
    plain["mode"] = mode
    places = {"watch-dir": watch_dir, "destination-dir": destination}
    words = arguments.templates(given, start, mode, places, warn)
    if "dump_dir" not in plain:
        plain["dump_dir"] = b"/tmp/clsync-dump-" + plain.get("label", b"nolabel")
    return Settings(
        watch_dir=watch_dir,
        sync_handler=handler,
        arguments=words.usual,
        initial_arguments=words.initial,
        default_arguments=words.is_default,
        config_file=config_file,
        destination_dir=destination,
        destination_is_remote=is_remote,
        given=dict(given),
        start=start,
        **plain,
    )


def _plain(given: Values) -> dict[str, Any]:
    """Fields that are one option each, as keyword arguments; a test holds the table's types to the fields'."""
    values = {
        option.field: one.meant
        for name, one in given.items()
        if (option := BY_NAME[name]).field and one.meant is not None
    }
    if meant(given, "secure-splitting"):
        values.setdefault("splitting", Splitting.PROCESS)
        for name in ("check_execvp_arguments", "seccomp_filter", "forbid_devices"):
            values.setdefault(name, True)
    values["cancel_stat"] = bool(meant(given, "cancel-syscalls"))
    return values


def _needed(given: Values) -> Mode:
    """The mode.

    Raises:
        Refused: that or another essential is missing.
    """
    mode: Mode | None = meant(given, "mode")
    lacks = []
    if mode is None:
        words = ", ".join(each.value for each in Mode)
        lacks.append(Complaint("no mode was given", f"write -M and one of: {words}"))
    if not meant(given, "sync-handler") and mode not in _HANDLERS:
        lacks.append(Complaint("no sync-handler was given", "write -S PROGRAM"))
    if not meant(given, "watch-dir"):
        lacks.append(Complaint("no directory to watch was given", "write -W DIR", NO_WATCH_DIR))
    if lacks or mode is None:
        raise Refused(lacks)
    return mode


def _places(given: Values, start: Start, before: Settings | None) -> tuple[bytes, bytes | None, bool]:
    """The watched directory, the destination, and whether that is on another machine."""
    if before is not None:
        return before.watch_dir, before.destination_dir, before.destination_is_remote
    watch_dir = _directory(given["watch-dir"], start)
    one = given.get("destination-dir")
    if one is None or not isinstance(one.meant, bytes):
        return watch_dir, None, False
    if is_remote(one.meant, start.directory):
        return watch_dir, one.meant, True
    destination = _directory(one, start)
    if destination == b"/":
        raise refused(f"{one.origin}: the root directory cannot be the destination", "name a directory in it")
    return watch_dir, destination, False


def is_remote(destination: bytes, start_dir: bytes) -> bool:
    """Whether a destination is on another machine, as rsync sees it; a directory that is here is here."""
    if _URL.match(destination):
        return True
    host, colon, _ = destination.partition(b":")
    if not colon or b"/" in host:
        return False
    return b"@" in host or not os.path.isdir(os.path.join(start_dir, destination))


def _directory(one: Given, start: Start) -> bytes:
    assert isinstance(one.meant, bytes)
    path = os.path.join(start.directory, one.meant)
    try:
        real = os.path.realpath(path, strict=True)
    except OSError as error:
        status, text = error.errno or USAGE, error.strerror
    else:
        if os.path.isdir(real):
            return real
        status, text = errno.ENOTDIR, os.strerror(errno.ENOTDIR)
    raise refused(f"{one.origin}: {escaped(path)}: {text}", "name a directory that is there", status=status)


def _handler(given: Values, start: Start, mode: Mode, before: Settings | None) -> bytes:
    """A path, or a name that PATH has: PATH goes before the directory of the start, where a stranger may have files."""
    named: bytes | None = meant(given, "sync-handler")
    if (
        before is not None
        and named is not None
        and named == meant(before.given, "sync-handler")
        and before.mode.calls == mode.calls
    ):
        return before.sync_handler
    handler = named or _HANDLERS[mode]
    here = os.path.join(start.directory, handler)
    if b"/" in handler or mode.calls:
        return here
    if in_path(handler, start.path) is None and os.path.isfile(here):
        return here
    return handler


def in_path(name: bytes, path: bytes) -> bytes | None:
    """The first program of this name, as execvp(3) finds it."""
    for directory in path.split(b":"):
        found = os.path.join(directory, name)
        if directory and os.path.isfile(found) and os.access(found, os.X_OK):
            return found
    return None
