"""Verifying by rsync's own dry run: any target that rsync can reach.

Facts (rsync 3.2.7, measured): what would be deleted is named from the inside out, what would be made from the outside
in. ``hf`` is a name that would be linked to another; names that are one file at the target alone it does not see. The
letters after the first two are c (checksum, or the value of a link or device) s t p o g, one for the access or the
creation time, a (ACL) x.
"""

from __future__ import annotations

import asyncio
import re
import stat
from collections.abc import AsyncGenerator, Sequence

from instep.engines.hardlinks import Inode, included
from instep.engines.rsync.command import Style
from instep.engines.rsync.engine import RsyncEngine
from instep.engines.rsync.output import Item, item
from instep.linux.look import above_changed_ns, difference, look
from instep.model import Aspect, Difference
from instep.paths import ROOT

_TICK_S = 0.2
"""So often whoever asked gets to do something of its own."""
_FILES = re.compile(rb"Number of files: ([\d,.]+)")
_LETTERS = {
    b"s": Aspect.SIZE,
    b"t": Aspect.TIME,
    b"T": Aspect.TIME,
    b"p": Aspect.MODE,
    b"o": Aspect.OWNER,
    b"g": Aspect.OWNER,
    b"a": Aspect.ACL,
    b"x": Aspect.XATTRS,
}
_VALUES = {b"L": Aspect.LINK_TEXT, b"D": Aspect.DEVICE, b"S": Aspect.DEVICE}
_WORDS = {Aspect.MISSING: "missing at the target", Aspect.EXTRA: "only at the target"}


class RsyncVerifier:
    """Compares one target with the source by rsync. See ``instep.ports.Verifier``."""

    def __init__(self, engine: RsyncEngine, *, source_fd: int, checksum: bool) -> None:
        """``engine``: one of its own, which is not used for anything else, and never writes."""
        self.entries = 0
        self._engine = engine
        self._source = source_fd
        self._checksum = checksum
        self._linked: dict[Inode, list[bytes]] | None = None

    async def open(self) -> None:
        """Find out what the far side's rsync can do."""
        await self._engine.open()

    async def differences(self) -> AsyncGenerator[Sequence[Difference], None]:
        """As rsync comes to them."""
        lines = _Lines(self._source)
        style = Style(recurse=True, prune=True, checksum=self._checksum, count=True)
        comparing = asyncio.create_task(self._engine.compare(style, [b""], lines.feed))
        try:
            while not comparing.done():
                await asyncio.wait({comparing}, timeout=_TICK_S)
                self.entries = lines.entries
                yield lines.take()
        finally:
            comparing.cancel()
            await asyncio.gather(comparing, return_exceptions=True)
        self.entries = lines.entries
        yield lines.end()
        yield [
            difference(each.path or b"", Aspect.UNREADABLE, each.text, look(self._source, each.path or b""))
            for each in comparing.result()
        ]

    async def again(self, suspects: Sequence[Difference]) -> Sequence[Difference]:
        """List these names, and for what the source lacks the directories above, in another dry run or two."""
        named: dict[bytes, None] = {}
        whole: dict[bytes, None] = {}
        for one in suspects:
            info = look(self._source, one.path)
            if info is None:
                whole[self._directory_above(one.path)] = None
            elif one.what & Aspect.UNREADABLE and stat.S_ISDIR(info.st_mode):
                whole[one.path] = None
            else:
                named[one.path] = None
                if one.what & Aspect.HARD_LINK:
                    named.update(dict.fromkeys(await self._names_of((info.st_dev, info.st_ino))))
        asked = {one.path for one in suspects}
        found: dict[bytes, Difference] = {}
        for style, names in (
            (Style(checksum=self._checksum), list(named)),
            (Style(prune=True, checksum=self._checksum), [path + b"/" if path else b"" for path in whole]),
        ):
            if names:
                lines = _Lines(self._source)
                complaints = await self._engine.compare(style, names, lines.feed)
                found.update((one.path, one) for one in lines.end() if one.path in asked)
                for each in complaints:
                    path = each.path or b""
                    if path in asked:
                        found[path] = difference(path, Aspect.UNREADABLE, each.text, look(self._source, path))
        return list(found.values())

    async def close(self) -> None:
        """End the connection."""
        await self._engine.close()

    def _directory_above(self, path: bytes) -> bytes:
        """The closest that the source has."""
        while path:
            path = path.rpartition(b"/")[0]
            info = look(self._source, path)
            if info is not None and stat.S_ISDIR(info.st_mode):
                break
        return path

    async def _names_of(self, inode: Inode) -> list[bytes]:
        """All names of a file: rsync joins, and misses, only what stands on one list."""
        if self._linked is None:
            self._linked = {}
            for path, each in await asyncio.to_thread(included, self._source, self._engine.filter, [ROOT]):
                self._linked.setdefault(each, []).append(path)
        return self._linked.get(inode, [])


class _Lines:
    """Makes differences of itemised lines."""

    def __init__(self, source: int) -> None:
        self.entries = 0
        self._source = source
        self._found: list[Difference] = []
        self._extra: list[bytes] = []
        self._new: set[bytes] = set()

    def feed(self, line: bytes) -> None:
        """One line of rsync's output."""
        one = item(line)
        if one is None:
            if (counted := _FILES.match(line)) is not None:
                self.entries = int(re.sub(rb"\D", b"", counted[1]))
        elif one.deleted:
            if line.endswith(b"/"):
                # All below it was named just before.
                while self._extra and self._extra[-1].startswith(one.path + b"/"):
                    self._extra.pop()
            self._extra.append(one.path)
        elif not self._is_below_new(one) and (what := aspects(one)):
            self._found.append(_told(one.path, what, self._source))

    def take(self) -> list[Difference]:
        """What is certain so far."""
        found, self._found = self._found, []
        return found

    def end(self) -> list[Difference]:
        """The rest, when rsync has said all."""
        extra, self._extra = self._extra, []
        return [*self.take(), *(_told(path, Aspect.EXTRA, self._source) for path in extra)]

    def _is_below_new(self, one: Item) -> bool:
        """Whether a directory above it is missing at the target, and was told of."""
        below = one.path.rpartition(b"/")[0] in self._new
        if one.what.startswith(b"cd"):
            self._new.add(one.path)
        return below


def _told(path: bytes, what: Aspect, source: int) -> Difference:
    ours = look(source, path)
    words = _WORDS.get(what, "other " + ", ".join(what.words))
    return difference(path, what, words, ours, above_ns=0 if ours else above_changed_ns(source, path))


def aspects(one: Item) -> Aspect:
    """What the letters of an itemised line say."""
    letters = one.what
    if letters[2:3] == b"+":
        return Aspect.MISSING
    what = Aspect.HARD_LINK if letters[:1] == b"h" else Aspect(0)
    if letters[2:3] == b"c":
        what |= _VALUES.get(letters[1:2], Aspect.CONTENT)
    for at in range(3, len(letters)):
        what |= _LETTERS.get(letters[at : at + 1], Aspect(0))
    if what & Aspect.SIZE:
        what &= ~Aspect.CONTENT
    return what
