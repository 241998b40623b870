"""The other names of what a batch is about: rsync joins and writes only what one run lists.

Where one name of a file alone is listed it leaves two files behind. So all names go together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from instep.core.filters import Filter
from instep.engines.hardlinks import AGAIN_S, Inode, Links, included
from instep.engines.rsync.source import Kind, Look, Seen
from instep.model import Change, Postponed
from instep.paths import RelPath, Scope, is_below


async def other_names(links: Links, filters: Filter, looked: Look, parted: set[Inode]) -> list[Seen]:
    """The other names of the files of a batch: what is written through one name is reported under that alone.

    Where a file has names that were never seen, the whole source is searched for them, in a thread.

    Args:
        links: What is known, and learns more.
        filters: What of the source is left out.
        looked: The batch; gets what is to be looked at once more, where there was a search not long ago.
        parted: Gets the files that are in doubt for the sake of a name that went: if this fails they still are.
    """
    if not (looked.linked or links.paths or links.has_parted or links.has_lost):
        return []
    links.review([one.change for one in looked.seen])
    parted |= links.take_parted()
    wanted: dict[Inode, bool] = dict.fromkeys(parted, True)
    # What is below a directory that rsync walks may have been written through that name.
    trees = [one for one in looked.seen if one.change.is_dir and one.change.scope is Scope.TREE and one.path]
    if trees:
        tops, content = {one.path for one in trees}, any(one.change.content for one in trees)
        for inode in {inode for path, inode in links.paths.items() if is_below(path, tops)}:
            wanted.setdefault(inode, content)
    for seen, inode, _ in looked.linked:
        links.note(seen.path, inode)
        wanted[inode] = wanted.get(inode, False) or seen.change.content
    lacking = {inode: count for _, inode, count in looked.linked if links.lacks(inode, count)}
    lost = links.has_lost
    if lacking or lost:
        # A file that gets another name is reported under the new one only.
        complete = await asyncio.to_thread(links.seek, lacking, filters)
        more = links.take_parted()
        parted |= more
        wanted.update(dict.fromkeys(more, True))
        if not complete:
            again = [seen.change for seen, inode, _ in looked.linked if inode in lacking]
            if lost:
                again += [seen.change for seen in looked.seen[:1]]
            looked.postponed.extend(Postponed(change, AGAIN_S) for change in again)
    there = {one.path for one in looked.seen}
    return [
        Seen(Change(RelPath(name), content=content), name, Kind.FILE, 0)
        for inode, content in wanted.items()
        for name in links.names(inode)
        if name not in there
    ]


async def learn(links: Links, root: int, filters: Filter, tops: Sequence[bytes]) -> None:
    """Find the hard links at and below these, which rsync walks by itself; the loop is free meanwhile."""
    for path, inode in await asyncio.to_thread(included, root, filters, tops):
        links.note(path, inode)
