"""What a person is told about settings: why they are refused, and what is odd about those that are taken."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from instep.errors import UsageError
from instep.frontends.clsync.settings import Output

USAGE: Final = errno.EINVAL
"""The exit status of almost everything that is refused."""


@dataclass(frozen=True, slots=True)
class Complaint:
    """One thing that cannot be done."""

    what: str
    fix: str
    status: int = USAGE
    """The exit status that it stands for."""
    is_errno: bool = True
    """The status is an errno, whose words may be shown."""

    def __str__(self) -> str:
        return f"{self.what}; {self.fix}" if self.fix else self.what


@dataclass(frozen=True, slots=True)
class Note:
    """One thing that is odd, and what is made of it."""

    text: str
    is_warning: bool = True
    """False: it is no cause for concern."""


@dataclass(frozen=True, slots=True)
class Talk:
    """How messages are to be shown, as far as that was known."""

    output: Output = Output.STDERR
    verbose: int = 3
    debug: int = 0
    quiet: bool = False


class Refused(UsageError):
    """Settings that cannot be used. At start they end the program with ``status``; later the old ones stay in force."""

    def __init__(self, complaints: Sequence[Complaint], *, notes: Sequence[Note] = (), talk: Talk = Talk()) -> None:
        assert complaints
        first = complaints[0]
        super().__init__("settings-refused", first.what, fix=first.fix)
        self.complaints: Final = tuple(complaints)
        self.notes = tuple(notes)
        """What was odd before."""
        self.talk = talk
        """How to say it."""

    @property
    def status(self) -> int:
        """The exit status: that of the last complaint, as with clsync."""
        return self.complaints[-1].status

    def __str__(self) -> str:
        return "\n".join(str(complaint) for complaint in self.complaints)


def refused(what: str, fix: str = "", *, status: int = USAGE, is_errno: bool = True) -> Refused:
    """For one reason."""
    return Refused([Complaint(what, fix, status, is_errno)])
