"""Files with several names are brought over last, where all their names are known; by one thread each.

Two at work on one file would each join its names to what the other replaces. A large one holds up no other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from instep.engines.hardlinks import Inode, Links
from instep.engines.native.content import Cancelled
from instep.engines.native.links import bring_linked
from instep.engines.native.session import Session
from instep.engines.native.tally import LinkedName, Tally
from instep.model import Change


class Joiner:
    """Makes names of the target one file that are one in the source. Used by the loop and several threads at once."""

    def __init__(self, links: Links) -> None:
        self._links = links
        self._busy: set[Inode] = set()
        self._freed = threading.Condition()

    def note(self, linked: Iterable[LinkedName]) -> None:
        """These names were seen."""
        for path, device, number, _, _ in linked:
            self._links.note(path, (device, number))

    def bring_now(self, session: Session, linked: Iterable[LinkedName]) -> tuple[Tally, list[LinkedName], bool]:
        """Bring over what needs neither a search nor waiting for a thread; in the loop.

        Returns:
            What was done; the names that were left; whether somebody has to come again even if none was.
        """
        left: list[LinkedName] = []
        known: list[LinkedName] = []
        for item in linked:
            (left if self._lacks_names(item) else known).append(item)
        groups = self._groups(known)
        with self._claimed(groups) as mine:
            tally = self._bring(session, groups, mine)
        busy = groups.keys() - mine
        self._links.part(busy)
        left += [item for item in known if _inode(item) in busy]
        return tally, left, bool(busy) or self._links.has_lost

    def seek_and_bring(
        self, sessions: Callable[[], Session], linked: Sequence[LinkedName], changes: Sequence[Change], *, walked: bool
    ) -> Tally:
        """Bring these over, first looking for names that no report has told of. In a thread.

        Args:
            sessions: Makes one for whoever copies.
            linked: What a batch met.
            changes: All of that batch.
            walked: It has met all there is in the source.
        """
        links = self._links
        links.review(changes)
        wanted = {_inode(item): item[3] for item in linked if self._lacks_names(item)}
        lost = links.has_lost
        session = sessions()
        complete = links.seek(wanted, session.filter, walked=walked)
        groups = self._groups(linked)
        tally, todo = Tally(), dict(groups)
        try:
            while todo:
                with self._claimed(todo, wait=True) as mine:
                    tally.add(self._bring(session, todo, mine))
                for inode in mine:
                    del todo[inode]
        except Cancelled:
            links.part(groups)
            tally = Tally(failures=[(path, "the copy was interrupted", False) for path, *_ in linked])
        if not complete:
            # Looked not long ago: once more when that is no burden.
            tally.racy += [item[0] for item in linked if _inode(item) in wanted]
            if lost:
                tally.racy.append(changes[0].path)
        return tally

    def _lacks_names(self, item: LinkedName) -> bool:
        """Whether this file has names that no report has told of; what is not its name any more does not count."""
        return self._links.lacks(_inode(item), item[3])

    def _groups(self, linked: Iterable[LinkedName]) -> dict[Inode, bool]:
        """The files to be brought over, each with whether its content may have been touched."""
        groups = dict.fromkeys(self._links.take_parted(), True)
        for item in linked:
            inode = _inode(item)
            groups[inode] = groups.get(inode, False) or item[4]
        return groups

    def _bring(self, session: Session, groups: Mapping[Inode, bool], mine: Collection[Inode]) -> Tally:
        total = Tally()
        for inode in mine:
            total.add(bring_linked(session, self._links, inode, content=groups[inode]))
        if total.full:
            self._links.part(mine)
        return total

    @contextmanager
    def _claimed(self, inodes: Iterable[Inode], *, wait: bool = False) -> Iterator[list[Inode]]:
        """Those of these that nobody is at work on; ``wait`` until there is one."""
        with self._freed:
            while not (mine := [inode for inode in inodes if inode not in self._busy]) and wait:
                self._freed.wait()
            self._busy.update(mine)
        try:
            yield mine
        finally:
            with self._freed:
                self._busy.difference_update(mine)
                self._freed.notify_all()


def _inode(item: LinkedName) -> Inode:
    return item[1], item[2]
