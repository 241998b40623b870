"""A module for tests: does what the first path says. Words are cut at blanks."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import time
from collections.abc import Sequence

from instep.engines.pymodule.api import Event, Settings

log = logging.getLogger(__name__)
calls = 0


def line(path: str, text: str) -> None:
    with open(path, "a") as file:
        file.write(text + "\n")


def child(pids: str, *, apart: bool) -> int:
    process = subprocess.Popen(["sleep", "1000"], start_new_session=apart)
    try:
        line(pids, str(process.pid))
        code = process.wait()
    except KeyboardInterrupt:
        process.kill()  # One that has left the group is for the module to end.
        process.wait()
        raise
    return 128 - code if code < 0 else code


def init(settings: Settings) -> int:
    if "JOURNAL" in os.environ:
        line(os.environ["JOURNAL"], "init")
    return int(os.environ.get("INIT", "0"))


def sync(events: Sequence[Event]) -> int | None:
    global calls  # noqa: PLW0603  # a module's own state
    calls += 1
    words = events[0].path.decode().split() if events else ["return", "0"]
    match words:
        case ["return", number]:
            return int(number)
        case ["calls"]:
            return calls
        case ["crash"]:
            os.kill(os.getpid(), signal.SIGSEGV)
        case ["exit", number]:
            os._exit(int(number))
        case ["child", pids]:
            return child(pids, apart=False)
        case ["apart", pids]:
            return child(pids, apart=True)
        case ["deaf", path]:
            signal.signal(signal.SIGTERM, lambda *_: None)
            line(path, "started")
            while True:
                signal.pause()
        case ["environment", path]:
            line(path, os.environ.get("CLSYNC_STATUS", "(none)"))
        case ["say"]:
            log.error("an error, %d", 1)
            log.warning("a warning")
            log.info("an info")
            log.debug("shown")
        case ["meet", path, wanted]:
            line(path, "here")
            while len(open(path).readlines()) < int(wanted):
                time.sleep(0.005)
        case _:
            return 98
    return None


def rsync(include_list: bytes, exclude_list: bytes | None) -> None:
    line(os.environ["JOURNAL"], open(include_list).read())
    line(os.environ["JOURNAL"], os.fsdecode(exclude_list or b"(none)"))


def deinit() -> None:
    if "JOURNAL" in os.environ:
        line(os.environ["JOURNAL"], "deinit")
