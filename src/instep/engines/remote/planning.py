"""What a dry run says of names that are to be joined: that, unlike all else, no comparison of attributes has shown."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from instep.engines.remote import agent
from instep.engines.remote.job import Job
from instep.engines.remote.request import Frame, Item, Sent, Task


async def plan_joined(job: Job, names: Sequence[bytes], *, content: bool) -> None:
    """Say what would be done about several names of one thing; ``content``: it may differ at the target.

    Raises:
        TargetAway: the connection is lost.
    """
    theirs = await _inodes(job, names)
    leader, *others = names
    if content or leader not in theirs:
        job.producer.names.planned("update ", leader)
    for path in others:
        if path not in theirs or theirs[path] != theirs.get(leader):
            job.producer.names.planned("link ", path)
    job.take_found()


async def _inodes(job: Job, names: Iterable[bytes]) -> dict[bytes, int]:
    """The inodes of those that the target has."""
    found: dict[bytes, int] = {}
    todo = deque(names)
    while todo:
        frame = Frame()
        asked: dict[int, bytes] = {}
        while todo and not frame.is_full:
            path = todo.popleft()
            parent, _, name = path.rpartition(b"/")
            item = Item(Task.NAME, path)
            frame.enter(parent, item)
            asked[len(frame.operations)] = path
            frame.add(Sent(agent.LOOK, path, item), name)
        reply = await job.connection.request(frame.parts, frame.size, bulk=False)
        for index, status, payload in reply.results:
            if status == agent.OK and index in asked:
                found[asked[index]] = agent.unpack_listing(payload)[b""].st_ino
    return found
