"""One changed small file, in as few steps as there can be: nearly all of what a live mirror ever sends.

Whatever is out of the ordinary makes it step back before anything was sent, and ``Producer`` takes the long road. A
process that slept finds its caches cold, so each call left out counts several times over.
"""

from __future__ import annotations

import os

from instep.engines.remote import agent
from instep.engines.remote.contents import Contents
from instep.engines.remote.names import READ, is_plain, read_whole
from instep.engines.remote.request import Frame, Item, Sent, Task
from instep.engines.remote.session import Session
from instep.model import Change
from instep.records import record


def express(session: Session, change: Change, contents: Contents | None) -> Frame | None:
    """The frame that brings one small file with one name in step, and the times of its directory.

    None: it has to go the long road. That is so for all errors as well: there they are met again, and told apart.
    """
    path = change.path
    parent, _, name = path.rpartition(b"/")
    try:
        if not parent:
            return _express(session, session.source, change, parent, name, contents) if name else None
        directory = session.open(parent)
        try:
            return _express(session, directory, change, parent, name, contents)
        finally:
            os.close(directory)
    except OSError:
        return None


def _express(
    session: Session, directory: int, change: Change, parent: bytes, name: bytes, contents: Contents | None
) -> Frame | None:
    if not is_plain(os.stat(name, dir_fd=directory, follow_symlinks=False)):
        return None
    if session.filter.leaves_out(change.path, is_dir=False):
        return None
    opened = os.open(name, READ, dir_fd=directory)
    try:
        info = os.fstat(opened)
        found = read_whole(session, opened, info, contents) if is_plain(info) else None
    finally:
        os.close(opened)
    if found is None:
        return None
    head, data = found
    item = Item(Task.NAME, change.path, change.content)
    frame = Frame()
    frame.enter(parent, item)
    known = record(info) if session.settings.learns else b""
    frame.add(Sent(agent.PUT, change.path, item, len(data), record=known), name, session.owned(head), data)
    head = session.attributes(os.fstat(directory), session.xattrs(directory))
    frame.add(Sent(agent.SELF, parent, Item(Task.ATTRIBUTES, parent)), b"", head)
    return frame
