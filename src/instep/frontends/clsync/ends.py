"""What the end of a program, a call or an engine's work means: success or not, why not, and the exit status for it.

Facts (observed): rsync's 24 is a success in mode rsyncdirect, and nowhere else; what fails for a single path ends all
with 255. A program killed by a signal has failed (clsync takes that for success), and so has one that took too long.
"""

from __future__ import annotations

from typing import Final

from instep.frontends.clsync.settings import Mode, Settings
from instep.model import ProgramEnd

TIMED_OUT: Final = 62
SINGLE_FAILED: Final = 255
PARTIAL: Final = 24
"""rsync: files vanished while it looked."""


def is_good(end: ProgramEnd, settings: Settings, *, by_engine: bool) -> bool:
    """Whether what was to be done counts as done.

    Args:
        end: how it ended.
        settings: say which exit codes count.
        by_engine: it was an engine's work, whose codes are rsync's; it says why it failed, where what a program or a
            module says of itself is that it never began.
    """
    if end.signal or end.timed_out or (end.trouble and not by_engine):
        return False
    if end.status == PARTIAL and settings.mode is Mode.RSYNCDIRECT:
        return True
    return end.status == 0 or end.status in settings.ignore_exitcode


def why(end: ProgramEnd, settings: Settings) -> str:
    """What went wrong, for people."""
    if end.trouble:
        return end.trouble
    if end.timed_out:
        return f"took more than {settings.timeout_sync_s} s, and was ended"
    return f"killed by signal {end.signal}" if end.signal else f"exit code {end.status}"


def exit_status(end: ProgramEnd, *, single: bool) -> int:
    """What the whole program ends with because of it.

    Args:
        end: the last try's.
        single: it was one of many, each for a path of its own.
    """
    if end.timed_out:
        return TIMED_OUT
    return SINGLE_FAILED if single else (end.errno or end.status) & 0xFF or 1
