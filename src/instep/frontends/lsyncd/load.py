"""From a configuration file, or syncs on the command line, to syncs that can be run."""

from __future__ import annotations

import errno
import os
import shlex
import socket
import time
from collections.abc import Callable
from typing import Any, Final

from instep.errors import OperatorError
from instep.frontends.lsyncd.connections import Connections
from instep.frontends.lsyncd.cron import RuleError, parse
from instep.frontends.lsyncd.fast import Plain, mirrors, sees_only_lists, template_of
from instep.frontends.lsyncd.handler import MODES, SyncHandler
from instep.frontends.lsyncd.log import Log, facility_of
from instep.frontends.lsyncd.runtime import LuaFailure, Runtime, is_true
from instep.frontends.lsyncd.selection import Selection, exclude_lines, filter_lines
from instep.frontends.lsyncd.shell import Shell
from instep.frontends.lsyncd.syncs import DELAYS_MAX, Sync
from instep.frontends.lsyncd.words import VERSION, CommandLine
from instep.linux.openat import open_directory
from instep.paths import RelPath
from instep.spec import TargetSpec

_STEPS: Final = ("Exec", "Delay", "Function")
"""Categories in which each step is told: who wants to see them wants lsyncd's own."""


class LoadError(Exception):
    """The configuration cannot be used; the text says why."""


class Loader:
    """Reads one configuration."""

    def __init__(self, line: CommandLine, log: Log, *, clock: Callable[[], float]) -> None:
        """Begin.

        Args:
            line: the command line, whose options come before the settings.
            log: where messages go.
            clock: the clock that the handler's times are of.

        Raises:
            ToolMissing: there is no Lua.
        """
        self._line = line
        self._log = log
        self._clock = clock
        self._syncs: list[Sync] = []
        self._failed = ""
        self._plain: dict[int, Plain] = {}
        self._connections: Connections | None = None
        self.handler = SyncHandler(log, clock=clock, wall=time.time, free_port=_free_port)
        self.runtime = Runtime({**self.handler.primitives(), **Shell().primitives(), **self._primitives()})

    def read(self, text: bytes | None) -> None:
        """Run the configuration, or make the syncs of the command line.

        Raises:
            LoadError: it cannot be used.
        """
        name = os.fsencode(self._line.config or "")
        try:
            for script in self._line.scripts:
                self.runtime.load(_script(script), os.fsencode(script))
            if text is not None:
                self.runtime.load(text, name)
            for sync in self._line.syncs:
                self.runtime.add(sync)
            self.runtime.lock()
        except LuaFailure as failure:
            if self.handler.exit_status is not None:
                return
            raise LoadError(self._failed or _told(name, failure)) from None
        self._check()

    def settings(self) -> dict[bytes, Any]:
        """What is in force: the command line's, then the configuration's. None of them is false."""
        given = {name: value for name, value in self.runtime.settings().items() if value is not False}
        return {**given, **self._line.settings}

    def serve(self) -> list[Plain]:
        """Hand the syncs to the handler, but for those that are plain mirrors; these."""
        settings = self.settings()
        plain = self._plain
        handler = self.handler
        handler.insists = handler.insists or bool(settings.get(b"insist"))
        handler.onepass = bool(settings.get(b"onepass"))
        handler.processes_max = settings.get(b"maxProcesses") or float("inf")
        handler.modified = MODES[settings.get(b"inotifyMode", b"CloseWrite")]
        if b"statusFile" in settings:
            path = os.path.abspath(settings[b"statusFile"])
            handler.status_write = lambda text: _replace(path, text)
            handler.status_every_s = settings.get(b"statusInterval", 10)
        handler.left = [sync for sync in self._syncs if sync.number in plain]
        stepping = [sync for sync in self._syncs if sync.number not in plain]
        for sync in stepping:
            wish = sync.config[b"collapse"]
            # What the built-in kinds do is the same for one event and for many on one path.
            sync.collapses = sees_only_lists(sync, self.runtime) if wish is None else is_true(wish)
        handler.serve(self.runtime, stepping)
        self._connections = Connections(handler.companions)
        for sync in stepping:
            if template_of(sync, self.runtime) == b"rsyncssh":
                self._connections.keep(sync)
        return list(plain.values())

    def close(self) -> None:
        """Remove what was made for the syncs; nothing of theirs runs any more."""
        if self._connections is not None:
            self._connections.close()

    @property
    def syncs(self) -> list[Sync]:
        """The syncs, in the order they were made."""
        return self._syncs

    def _check(self) -> None:
        settings = self.settings()
        if not self._syncs:
            raise LoadError("Nothing to watch!")
        mode = settings.get(b"inotifyMode", b"CloseWrite")
        if mode not in MODES:
            raise LoadError(f"'{_text(mode)}' not a valid inotfiyMode.")
        facility = settings.get(b"logfacility", b"user")
        if facility_of(facility) is None:
            raise LoadError(f"Logging facility '{_text(facility)}' unknown.")
        if not settings.get(b"nodaemon"):
            self._bind_targets()
        self._warn_of_loops()
        watched = self.handler.has_calls or any(self._log.wants(category) for category in _STEPS)
        self._plain = mirrors(self._syncs, self.runtime, settings, watched=watched)

    def _bind_targets(self) -> None:
        """Make targets of built-in kinds absolute: a daemon works in ``/``, and a target is not meant to be there."""
        for sync in self._syncs:
            target = sync.config[b"target"]
            if template_of(sync, self.runtime) is None or not isinstance(target, bytes):
                continue
            if TargetSpec(target).is_local and not target.startswith(b"/"):
                sync.config[b"target"] = os.path.abspath(target) + b"/"

    def _warn_of_loops(self) -> None:
        ways = set()
        for sync in self._syncs:
            target = sync.config[b"target"]
            if isinstance(target, bytes) and TargetSpec(target).is_local:
                ways.add((os.path.realpath(sync.source), os.path.realpath(target)))
        for one, other in ways:
            if one < other and (other, one) in ways:
                self._log.say(
                    "Warn",
                    b"there are syncs from " + one + b" to " + other + b" and back: where both sides change, one of the"
                    b" changes is lost, and nothing decides which",
                )

    # ---- what Lua asks for ----

    def _primitives(self) -> dict[str, Callable[..., Any]]:
        return {
            "add": self._add,
            "bind_tunnel": self._bind_tunnel,
            "exclude": self._exclude,
            "excludes": lambda number: self.runtime.list(self._selection(number).patterns),
            "filter": self._filter,
            "filters": lambda number: self.runtime.list(self._selection(number).lines),
            "free_port": _free_port,
            "include_again": lambda number, pattern: self._selection(number).include_again(pattern),
            "kept": self._kept,
            "kill": _kill,
            "leads_out": _leads_out,
            "log": lambda category, text: self._log.say(_text(category), text),
            "now": self._clock,
            "overrides": self._overrides,
            "readdir": self._readdir,
            "insists": lambda: self.handler.insists or bool(self.settings().get(b"insist")),
            "realdir": _realdir,
            "size": _size,
            "split": self._split,
            "tunnel": self._tunnel,
            "version": VERSION.encode,
        }

    def _tunnel(self, words: Any, name: bytes, host: bytes, count: float, ready_s: float, retry_s: float) -> int:
        companions = self.handler.companions
        companions.tunnel(
            list(words.values()), name=name, host=host, count=int(count), ready_s=ready_s, retry_s=max(1.0, retry_s)
        )
        return len(companions.tunnels)

    def _bind_tunnel(self, number: int, tunnel: int) -> None:
        self._syncs[number - 1].tunnel = self.handler.companions.tunnels[tunnel - 1]

    def _kept(self, number: int, for_rsync: bool) -> Any:  # noqa: FBT001  # Lua has no keywords
        words = () if self._connections is None else self._connections.words(number, for_rsync=for_rsync)
        return self.runtime.list(words)

    def _split(self, text: bytes) -> Any:
        try:
            words = shlex.split(text.decode("latin-1"))
        except ValueError:
            return None
        return self.runtime.list(word.encode("latin-1") for word in words)

    def _exclude(self, number: int, pattern: bytes) -> bytes | None:
        """Leave out what matches; what is wrong with the pattern, if anything."""
        try:
            self._selection(number).exclude(pattern)
        except OperatorError as error:
            return error.what.encode(errors="surrogateescape")
        return None

    def _filter(self, number: int, line: bytes) -> bytes | None:
        """Add a rule; what is wrong with it, if anything."""
        try:
            is_rule = self._selection(number).append(line)
        except OperatorError as error:
            return error.what.encode(errors="surrogateescape")
        return None if is_rule else b'Unknown filter rule: "' + line + b'"'

    def _selection(self, number: int) -> Selection:
        return self._syncs[number - 1].selection

    def _overrides(self) -> Any:
        settings = self.settings()
        found: dict[bytes, object] = {
            name: settings[name] for name in (b"maxDelays", b"maxProcesses") if name in settings
        }
        if self._line.delay_s is not None:
            found[b"delay"] = self._line.delay_s
        return self.runtime.table(found)

    def _readdir(self, path: bytes) -> Any:
        try:
            with os.scandir(path) as entries:
                return self.runtime.table({entry.name: entry.is_dir(follow_symlinks=False) for entry in entries})
        except OSError:
            return None

    def _add(self, number: int, config: Any) -> tuple[bytes | None, bytes]:
        """Take in one sync; its source as it is from now on, or what is wrong with it."""
        given = config[b"source"]
        real = os.path.realpath(given)
        if not os.path.isdir(real):
            self._failed = f"Cannot access source directory: {_text(given)}"
            return None, self._failed.encode()
        selection = Selection()
        try:
            self._select(selection, config)
            schedules = [parse(_text(rule)) for rule in _texts(config, b"crontab")]
        except (LoadError, RuleError, OperatorError) as error:
            what = str(error.what if isinstance(error, OperatorError) else error)
            return None, what.encode(errors="surrogateescape")
        sync = Sync(
            number=number,
            config=config,
            source=real if real == b"/" else real + b"/",
            selection=selection,
            delay_s=config[b"delay"] or 0.0,
            delays_max=config[b"maxDelays"] if is_true(config[b"maxDelays"]) else DELAYS_MAX,
            processes_max=config[b"maxProcesses"] or 1,
            moves=is_true(config[b"onMove"]),
            schedules=schedules,
            name=config[b"name"] if is_true(config[b"name"]) else b"Sync%d" % number,
        )
        self._syncs.append(sync)
        return sync.source, b""

    def _select(self, selection: Selection, config: Any) -> None:
        for line in (*_texts(config, b"filter"), *filter_lines(_file(config, b"filterFrom"))):
            if not selection.append(line):
                raise LoadError(f'Unknown filter rule: "{_text(line)}"')
        for pattern in (*_texts(config, b"exclude"), *exclude_lines(_file(config, b"excludeFrom"))):
            selection.exclude(pattern)


def _texts(config: Any, key: bytes) -> list[bytes]:
    """One text, or all of a list; their types have been looked at."""
    value = config[key]
    if not is_true(value):
        return []
    return [value] if isinstance(value, bytes) else list(value.values())


def _file(config: Any, key: bytes) -> bytes:
    path = config[key]
    if not is_true(path):
        return b""
    kind = key.decode().removesuffix("From")
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise LoadError(f'Cannot open {kind} file "{_text(path)}": {_text(path)}: {error.strerror}') from error


def _replace(path: bytes, text: bytes) -> None:
    """Write a file so that nobody ever reads half of it."""
    new = path + b".new"
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(new, flags, 0o644), "wb") as file:
            file.write(text)
        os.replace(new, path)
    except OSError:
        return  # A full disk: the next report may find room.


def _script(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise LoadError(f"Cannot open script '{path}': {error.strerror}") from error


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _kill(pid: int, number: int) -> bool:
    try:
        os.kill(pid, number)
    except OSError:
        return False
    return True


def _leads_out(target: bytes, below: bytes) -> bool:
    """Whether the way from a target down to a directory in it goes through a link, or what else is no directory."""
    try:
        root = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.close(open_directory(root, RelPath(below.rstrip(b"/"))))
    except OSError as error:
        return error.errno in (errno.ELOOP, errno.ENOTDIR, errno.EXDEV)
    finally:
        os.close(root)
    return False


def _realdir(path: bytes) -> bytes | None:
    real = os.path.realpath(path)
    return real.rstrip(b"/") + b"/" if os.path.isdir(real) else None


def _size(path: bytes) -> int:
    try:
        return os.stat(path, follow_symlinks=False).st_size
    except OSError:
        return 0


def _told(name: bytes, failure: LuaFailure) -> str:
    where = "the command line" if not name else _text(name)
    # What cannot be read has not been called: there is no trace of it.
    return f"error {'preparing' if failure.trace else 'loading'} {where}: {_text(failure.message)}"


def _text(value: object) -> str:
    return os.fsdecode(value) if isinstance(value, bytes) else str(value)
