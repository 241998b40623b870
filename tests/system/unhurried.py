"""instep that takes its time to end: ``python unhurried.py mirror …``.

A stop that may last seconds only leaves work behind on a machine that is busy enough, and rightly so; where a test is
about what a stop does, that must not be a matter of luck. ``INSTEP_COMMIT_S`` says how soon the index is written.
"""

from __future__ import annotations

import functools
import os
import sys

PATIENCE_S = 60.0


def main() -> int:
    """Run instep."""
    from instep.__main__ import main as instep
    from instep.daemon import run
    from instep.daemon.indexes import target_index
    from instep.daemon.mirrors import mirror

    mirror.INDEX_CLOSE_S = PATIENCE_S
    setattr(run, "Habits", functools.partial(run.Habits, stop_s=PATIENCE_S))  # noqa: B010  # mypy knows its type
    target_index.COMMIT_S = float(os.environ.get("INSTEP_COMMIT_S", target_index.COMMIT_S))
    return instep()


if __name__ == "__main__":
    sys.exit(main())
