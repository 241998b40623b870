"""Programs start with no signal blocked or ignored, however we were started."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import asyncio, signal
from instep.engines.command.program import run
from instep.engines.command.signals import clean_for_programs
from instep.model import Program

clean_for_programs()
words = (b"grep", b"-E", b"^Sig(Blk|Ign)", b"/proc/self/status")
print(asyncio.run(run(Program(words, capture_bytes=1000), umask=0)).output.decode(), end="")
for number in (signal.SIGHUP, signal.SIGTSTP):
    signal.raise_signal(number)
print("still here")
"""


def test_what_we_inherited_is_not_passed_on() -> None:
    start = (
        "import os, signal, sys\n"
        "for number in (1, 3, 13, 17, 20, 21, 22, 25):\n"
        "    signal.signal(number, signal.SIG_IGN)\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [1, 10, 12, 14, 15, 29])\n"
        "os.execv(sys.executable, [sys.executable, '-c', sys.argv[1]])\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", start, SCRIPT], capture_output=True, text=True, timeout=60, check=True
    )
    blocked, masked, ignored, mask, *rest = ended.stdout.split()
    assert [blocked, ignored, *rest] == ["SigBlk:", "SigIgn:", "still", "here"]
    # 32 and 33 are the C library's own; no program can say how they are treated.
    assert [int(each, 16) & ~(0b11 << 31) for each in (masked, mask)] == [0, 0]
