"""The errors an operator can act on.

    OperatorError          exit status 2: refused, nothing was changed
    ├── UsageError         wrong option, pattern or combination
    ├── SourceError        the source cannot be mirrored as asked
    ├── TargetError        a target cannot be used as asked
    ├── ToolMissing        a program or kernel facility that was asked for is not there
    ├── ModuleRefused      a module of functions cannot be used, or does not want to be
    └── CannotConfine      the process cannot be shut in as asked
    TargetAway             not for the operator: a target cannot be reached now, the daemon tries again

Each one says what happened to which object (``what``), what instep does now (``now``) and what to do (``fix``). A
programmer's error is an assertion or any other exception, and crashes.
"""

from __future__ import annotations

from typing import ClassVar


class OperatorError(Exception):
    """Something the operator can mend; ends a command with ``exit_status`` and one clear message."""

    exit_status: ClassVar[int] = 2

    def __init__(self, code: str, what: str, *, fix: str = "", now: str = "nothing was changed") -> None:
        super().__init__(what)
        self.code = code
        """Stable name for scripts and docs, e.g. ``no-such-source``."""
        self.what = what
        self.now = now
        self.fix = fix

    def __str__(self) -> str:
        lines = [f"error[{self.code}]: {self.what}"]
        if self.now:
            lines.append(f"  now: {self.now}")
        if self.fix:
            lines.append(f"  fix: {self.fix}")
        return "\n".join(lines)


class UsageError(OperatorError):
    """A wrong option, value, pattern or combination."""


class SourceError(OperatorError):
    """The source cannot be mirrored as asked."""


class TargetError(OperatorError):
    """A target cannot be used as asked."""


class ToolMissing(OperatorError):
    """A program or kernel facility that was asked for is not there."""


class ModuleRefused(OperatorError):
    """A module of functions cannot be used, or does not want to be."""

    def __init__(self, code: str, what: str, *, status: int, fix: str = "", now: str = "nothing was started") -> None:
        super().__init__(code, what, fix=fix, now=now)
        self.status = status
        """What a command ends with that works as clsync does: the module's own, if it was asked."""


class CannotConfine(OperatorError):
    """The process cannot be shut in as asked, or the helper that has its rights does not serve it any more."""

    def __init__(self, code: str, what: str, *, status: int, fix: str = "", now: str = "nothing was started") -> None:
        super().__init__(code, what, fix=fix, now=now)
        self.status = status
        """What a command ends with that works as clsync does: the errno of the step that failed."""


class TargetAway(Exception):
    """The target cannot be reached now; everything for it stays pending until it can."""
