"""A sync handler for mode py: brings changed paths over with cp, and removes what is gone.

    clsync -Mpy -S ./synchandler-py.py -W testdir/from -D testdir/to -w2 -t5

What the functions get and may return is described in ``instep.engines.pymodule.api``.
"""

import logging
import os
import shutil
import subprocess
from collections.abc import Sequence

from instep.engines.pymodule.api import Event, Kind, Settings

log = logging.getLogger(__name__)
destination = b""


def init(settings: Settings) -> int:
    """Called once, before anything is watched."""
    global destination  # noqa: PLW0603  # a module's own state
    if settings.destination_dir is None:
        log.error("there must be a destination-dir")
        return 22
    destination = settings.destination_dir
    return 0


def sync(events: Sequence[Event]) -> int:
    """Called with what has changed; we are in the watched directory. Directories come with the files in them."""
    copy = []
    for event in events:
        there = os.path.join(destination, event.path)
        if event.new is Kind.ABSENT or not os.path.lexists(event.path or b"."):
            if os.path.isdir(there) and not os.path.islink(there):
                shutil.rmtree(there)
            elif os.path.lexists(there):
                os.unlink(there)
        elif event.new is Kind.FILE:
            copy.append(event.path)
    if not copy:
        return 0
    return subprocess.run([b"cp", b"-a", b"--parents", b"--", *copy, destination + b"/"], check=False).returncode
