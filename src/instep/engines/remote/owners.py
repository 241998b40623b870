"""Owners by name: which numbers the users and groups of this machine have over there."""

from __future__ import annotations

import asyncio
import grp
import os
import pwd
import struct
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from instep.engines.remote import agent
from instep.engines.remote.connection import Connection
from instep.engines.remote.request import Frame, Item, Sent, Task
from instep.errors import TargetAway

ASKED_AT_ONCE = 500
_AT, _IDS = 4, struct.Struct("<II")
"""Where user and group stand in ``agent.ATTRIBUTES``."""


class Numbers(NamedTuple):
    """Of those who have another number there; everybody else has the same."""

    uids: dict[int, int]
    gids: dict[int, int]

    def of(self, uid: int, gid: int) -> tuple[int, int]:
        """What stands there for a user and a group of this machine."""
        return self.uids.get(uid, uid), self.gids.get(gid, gid)

    def put_in(self, attributes: bytes) -> bytes:
        """Packed attributes with the numbers there instead of those here."""
        uid, gid = _IDS.unpack_from(attributes, _AT)
        there = self.of(uid, gid)
        if there == (uid, gid):
            return attributes
        return attributes[:_AT] + _IDS.pack(*there) + attributes[_AT + _IDS.size :]


async def learn(connection: Connection) -> Numbers:
    """Ask for all users and groups that this machine lists. Those that are added later are known by their numbers.

    Raises:
        TargetAway: the connection is lost.
    """
    loop = asyncio.get_running_loop()
    users, groups = await loop.run_in_executor(None, _listed)  # a directory service may take its time
    return Numbers(await _ask(connection, users, 0), await _ask(connection, groups, agent.GROUPS))


def _listed() -> tuple[dict[bytes, int], dict[bytes, int]]:
    users = _first((user.pw_uid, user.pw_name) for user in pwd.getpwall())
    return users, _first((group.gr_gid, group.gr_name) for group in grp.getgrall())


def _first(known: Iterable[tuple[int, str]]) -> dict[bytes, int]:
    """Numbers by name; root is root everywhere, and of several names for one number the first counts, as in ls(1)."""
    names: dict[int, bytes] = {}
    for number, name in known:
        if number:
            names.setdefault(number, os.fsencode(name))
    return {name: number for number, name in names.items()}


async def _ask(connection: Connection, known: Mapping[bytes, int], flags: int) -> dict[int, int]:
    found: dict[int, int] = {}
    names = list(known)
    for at in range(0, len(names), ASKED_AT_ONCE):
        some = names[at : at + ASKED_AT_ONCE]
        frame = Frame()
        frame.add(Sent(agent.NUMBERS, b"", Item(Task.NAME, b"")), b"", b"\0".join(some), flags=flags)
        reply = await connection.request(frame.parts, frame.size, bulk=False)
        payload = reply.results[0][2] if len(reply.results) == 1 and reply.results[0][1] == agent.OK else b""
        if len(payload) != 4 * len(some):
            raise TargetAway("the agent gave an answer that does not fit")
        for name, (number,) in zip(some, struct.iter_unpack("<I", payload), strict=True):
            if number not in (agent.NO_NUMBER, known[name]):
                found[known[name]] = number
    return found
