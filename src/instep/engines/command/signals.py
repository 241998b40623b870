"""What programs inherit of how signals are treated: nothing."""

from __future__ import annotations

import signal
from types import FrameType

_RESTORED = frozenset({signal.SIGPIPE, signal.SIGXFSZ})
"""Ignored by Python, and put right by ``subprocess`` in what it starts."""


def clean_for_programs() -> None:
    """Block no signal, and ignore none in a way that outlives an exec: a handler does not, being ignored does.

    To be called in the main thread, before there are others: these inherit what is blocked.
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in signal.valid_signals() - _RESTORED:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, _nothing)


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """Was to be ignored."""
