"""What tests ask about processes."""

from __future__ import annotations

from pathlib import Path


def lives(pid: int) -> bool:
    """Whether a process goes on. A zombie does no more harm: whoever should bury it may be no good at that."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except OSError:
        return False
