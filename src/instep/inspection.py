"""What ``instep check`` found out about a target: values between the probes, the daemon and the front end."""

from __future__ import annotations

import enum
from typing import NamedTuple


class Verdict(enum.Enum):
    """What one finding means for a mirror."""

    GOOD = "ok"
    NOTE = "note"
    """It works, and somebody may want to know."""
    LOST = "not kept"
    """The target works, but does not keep this."""
    BAD = "unusable"
    """The target cannot be used until this is mended."""


class Finding(NamedTuple):
    """One line of the table."""

    name: str
    """What was looked at, e.g. ``clock``; stable, for scripts."""
    verdict: Verdict
    value: str
    """What was found, in one line. May hold the target's own words: escape it before showing."""
    note: str = ""
    """What follows from it, or what to do."""


class Inspection(NamedTuple):
    """All about one target."""

    target: bytes
    findings: tuple[Finding, ...]
    engine: str = ""
    """The engine that a mirror would take; empty when none can serve the target."""
    why: str = ""
    """Why it is this one."""
    kept: tuple[str, ...] = ()
    """What was found to be kept there, by name."""

    @property
    def usable(self) -> bool:
        """Whether a mirror to it can work."""
        return all(finding.verdict is not Verdict.BAD for finding in self.findings)

    @property
    def not_kept(self) -> tuple[str, ...]:
        """What a mirror to it would lose, by the names of the findings."""
        return tuple(finding.name for finding in self.findings if finding.verdict is Verdict.LOST)

    @property
    def exit_status(self) -> int:
        """0: all is kept; 1: usable, with losses; 2: not usable."""
        if not self.usable:
            return 2
        return 1 if self.not_kept else 0
