"""Deletions that a comparison of the whole tree found: counted before the first is made, for they may be too many."""

from __future__ import annotations

import stat

from instep.engines.remote.job import Job
from instep.engines.remote.request import Item, Task
from instep.engines.remote.session import join
from instep.model import Held
from instep.spec import MaxDelete

COUNTED_LEAST = 100_000
"""So many names below directories that are too much are counted in any case, to be told to the operator."""
SAMPLE = 10


async def delete_or_hold(job: Job, most: MaxDelete) -> Held | None:
    """Make the deletions that the job put off, if they are few enough; else what there is to say about them.

    Raises:
        TargetAway: the connection is lost.
    """
    extra, job.producer.extra = job.producer.extra, []
    count = len(extra)
    limit = most.most(job.kept, source=job.compared)
    enough = max(limit, COUNTED_LEAST)
    below = [path for path, is_dir in extra if is_dir]
    while below and count <= enough:
        path = below.pop()
        for name, entry in (await job.listing(path) or {}).items():
            if name:
                count += 1
                if stat.S_ISDIR(entry.st_mode):
                    below.append(join(path, name))
    if count > limit:
        sample = tuple(sorted((path for path, _ in extra), key=lambda path: (path.count(b"/"), path))[:SAMPLE])
        return Held(count, job.kept + count, sample, counted=not below, source_is_empty=not job.compared)
    # Looked up again by name: if the source has one of them by now, it is brought over instead.
    job.producer.work.extend(Item(Task.NAME, path) for path, _ in extra)
    await job.run()
    return None
