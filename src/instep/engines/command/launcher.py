"""Starting programs as somebody else than the loop's thread is: a thread that has become him starts them.

Facts: a thread has ids and capabilities of its own (``instep.linux.ids``), and what it starts by vfork has those. So
the change is made once, not for each program in a child that would have to be forked for it (a fork copies the page
tables: 2 ms where vfork takes 0.4). One hand-over to the thread and back costs 40 us, measured.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from instep.linux import capabilities, ids
from instep.linux.capabilities import Capabilities

T = TypeVar("T")


class Launcher:
    """A thread that is, for good, who the programs are to be. Every thread of the process may use it."""

    def __init__(self, user: int, group: int, *, groups: Sequence[int] | None = None, capabilities: int = 0) -> None:
        """Start the thread and have it change; nothing changes for the others.

        Args:
            user: real, effective and saved.
            group: the same.
            groups: supplementary ones; None: as now.
            capabilities: bit mask of what programs shall be able to do who are not root; root can do all.

        Raises:
            OSError: the change is not permitted.
        """
        self._thread = ThreadPoolExecutor(1, "launcher")
        try:
            self.call(lambda: _become(user, group, groups, capabilities))
        except OSError:
            self._thread.shutdown()
            raise

    def call(self, function: Callable[[], T]) -> T:
        """What the function returns or raises when the thread calls it. Blocks meanwhile."""
        return self._thread.submit(function).result()

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown()


def _become(user: int, group: int, groups: Sequence[int] | None, wanted: int) -> None:
    as_root = user == 0
    if not as_root and wanted:
        capabilities.keep_over_change_of_ids()
    if os.getresuid() != (user, user, user) and as_root:
        ids.set_user(ids.KEEP, user, ids.KEEP)  # First, for the right to do the rest.
    if groups is not None:
        ids.set_groups(groups)
    if os.getresgid() != (group, group, group):
        ids.set_group(group, group, group)
    if os.getresuid() != (user, user, user):
        ids.set_user(user, user, user)
    if not as_root and wanted:
        capabilities.write(Capabilities(wanted, wanted, wanted))
        capabilities.set_ambient(wanted)
