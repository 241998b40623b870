"""The ``lsyncd`` command: from words to an exit status."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Protocol

from instep.errors import OperatorError
from instep.frontends.lsyncd.load import Loader, LoadError
from instep.frontends.lsyncd.log import EventLines, Log, facility_of
from instep.frontends.lsyncd.words import CommandLine, WordsError, log_words, read
from instep.ports import Observer
from instep.spec import MirrorSpec

FATAL: Final = 255


class Run(Protocol):
    """Runs a handler until it ends."""

    def __call__(
        self, handler: Observer, mirrors: Sequence[MirrorSpec], *, told: Callable[[int], None]
    ) -> tuple[int, int]:
        """The exit status, and the signal that ended it, if one did; ``told`` is called with each such signal."""


Detach = Callable[[int], Callable[[int], None]]
"""Goes on in the background; gives what tells the foreground its exit status, which is the argument if nothing does."""


def main(argv: Sequence[str] | None = None, *, run: Run, detach: Detach) -> int:
    """Do what the words say; the exit status.

    Args:
        argv: the words after the program's name; None takes the process's own.
        run: what runs the syncs.
        detach: what goes into the background.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    log = Log()
    try:
        log.enable(log_words(words))
        line = read(words)
        if line.answer is not None:
            print(line.answer)  # noqa: T201  # what was asked for
            return line.status
        return _Session(line, log, run, detach).run()
    except (WordsError, LoadError) as error:
        log.say("Error", str(error).encode(errors="surrogateescape"))
        return FATAL
    except OperatorError as error:
        log.say("Error", f"{error.what}; {error.fix}".encode(errors="surrogateescape"))
        return FATAL


class _Session:
    """One life of the process, however often the configuration is read in it."""

    def __init__(self, line: CommandLine, log: Log, run: Run, detach: Detach) -> None:
        self._line = line
        self._log = log
        self._run = run
        self._detach = detach
        self._startups: dict[str, bytes] = {}
        self._output: bytes | None = None

    def run(self) -> int:
        text = self._read_config()
        loader = self._load(text)
        if loader.handler.exit_status is not None:
            return loader.handler.exit_status
        settings = loader.settings()
        daemon = not settings.get(b"nodaemon")
        with contextlib.ExitStack() as stack:
            self._start(settings, daemon=daemon, stack=stack)
            while True:
                mirrors = self._mirrors(loader)
                try:
                    status, number = self._run(loader.handler, mirrors, told=self._told)
                finally:
                    loader.close()
                if number != signal.SIGHUP:
                    break
                text, loader = self._again(text, loader)
                self._log.say("Normal", b"--- Startup ---")
        return 128 + number if number else status

    def _start(self, settings: dict[bytes, Any], *, daemon: bool, stack: contextlib.ExitStack) -> None:
        path = settings.get(b"logfile")
        pid_path = settings.get(b"pidfile")
        path = None if path is None else os.path.abspath(os.fsdecode(path))
        pid_path = None if pid_path is None else os.path.abspath(os.fsdecode(pid_path))
        if path is not None:
            try:
                with open(path, "ab"):
                    pass
            except OSError:
                raise LoadError(f"Cannot open logfile [{path}]!") from None
        if daemon and path is not None:
            self._output = os.fsencode(path)  # What programs print goes there too; in the foreground to the console.
        tell = self._detach(FATAL) if daemon else None
        trouble = ""
        if pid_path is not None:
            try:
                stack.enter_context(_pid_file(pid_path))
            except OSError as error:
                trouble = f"Cannot use pidfile [{pid_path}]: {error.strerror}"
                if daemon:
                    raise LoadError(trouble) from None
        facility = facility_of(settings.get(b"logfacility", b"user"))
        assert facility is not None
        ident = os.fsdecode(settings.get(b"logident", b"lsyncd"))
        self._log.start(console=not daemon, path=path, ident=ident, facility=facility)
        logger = logging.getLogger("instep")
        handler = EventLines(self._log, startups=self._startups)
        logger.addHandler(handler)
        stack.callback(logger.removeHandler, handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
        self._log.say("Normal", b"--- Startup, daemonizing ---" if daemon else b"--- Startup ---")
        if trouble:
            self._log.say("Warn", trouble.encode(errors="surrogateescape"))  # lsyncd writes none in the foreground
        if tell is not None:
            tell(0)

    def _mirrors(self, loader: Loader) -> Sequence[MirrorSpec]:
        """Hand out the work; what is left to mirrors is said as what it is to lsyncd's users."""
        found = loader.serve()
        loader.handler.output = self._output
        self._startups.clear()
        for plain in found:
            for target in plain.spec.targets:
                self._startups[os.fsdecode(target.address)] = plain.done
            self._log.say("Normal", plain.begins)
        return [plain.spec for plain in found]

    def _load(self, text: bytes | None) -> Loader:
        loader = Loader(self._line, self._log, clock=time.monotonic)
        loader.read(text)
        return loader

    def _again(self, text: bytes | None, before: Loader) -> tuple[bytes | None, Loader]:
        """The configuration read anew; the one from before where that cannot be used."""
        try:
            new = self._read_config()
            loader = self._load(new)
        except (LoadError, OperatorError) as error:
            told = f"{error} (going on with the configuration from before)"
            self._log.say("Error", told.encode(errors="surrogateescape"))
            new, loader = text, self._load(text)
        loader.handler.insists = True
        del before
        return new, loader

    def _read_config(self) -> bytes | None:
        if self._line.config is None:
            return None
        given = self._line.config
        self._line.config = os.path.abspath(given)  # a hangup comes when the working directory is another
        try:
            with open(self._line.config, "rb") as file:
                return file.read()
        except OSError:
            raise LoadError(f"Cannot find config file at '{given}'.") from None

    def _told(self, number: int) -> None:
        name = signal.Signals(number).name.removeprefix("SIG").encode()
        what = b"resetting" if number == signal.SIGHUP else b"fading"
        self._log.say("Normal", b"--- " + name + b" signal, " + what + b" ---")


@contextlib.contextmanager
def _pid_file(path: str) -> Iterator[None]:
    """A locked file with our process number; gone when we are."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(fd, 0)
        os.write(fd, b"%d\n" % os.getpid())
        yield
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)
        os.close(fd)
