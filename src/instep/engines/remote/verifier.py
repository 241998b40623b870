"""Verifying a far target by an agent of its own, which only looks, at the lowest priority.

Directories are compared by their digests first, then those that differ by their listings; contents by digests of
stretches, which both sides read at once. Memory holds some directories, and what has several names of which not all
were seen yet.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import os
import stat
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

from instep.engines import ssh
from instep.engines.remote import agent
from instep.engines.remote.connection import Connection, Reply, Wanted, over_ssh
from instep.engines.remote.judge import Judge
from instep.engines.remote.owners import learn
from instep.engines.remote.pace import Pace
from instep.engines.remote.request import Frame, Item, Sent, Task
from instep.engines.remote.session import Session, Settings, join
from instep.engines.remote.source import have_own_directory, survey
from instep.engines.remote.twins import Twins, linked
from instep.errors import TargetAway, TargetError
from instep.linux.look import above_changed_ns, difference, extra_words, look, missing_words
from instep.linux.openat import open_directory
from instep.model import Aspect, Difference
from instep.paths import RelPath, is_temporary
from instep.spec import Compress

AT_ONCE = 32
"""Directories compared in one round trip."""
ASKED_AT_ONCE = 64
STRETCH_BYTES = 4 << 20
SUMMED_AT_ONCE = 8 << 20
"""Bytes of content compared in one round trip."""

_NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
_LEAST_NS = (-(1 << 62)).to_bytes(8, "little", signed=True)

Entries = dict[bytes, agent.Entry]
T = TypeVar("T")


class _Look(NamedTuple):
    """One directory of the source."""

    path: bytes
    found: agent.Survey | None
    """None: it cannot be read, or is gone."""
    error: OSError | None
    device: int


class _Read(NamedTuple):
    """A file of which the content is in question, and what else differs."""

    path: bytes
    size: int
    so_far: Difference | None


class RemoteVerifier:
    """Compares one far target with the source. See ``instep.ports.Verifier``."""

    def __init__(
        self,
        target: bytes,
        *,
        source_fd: int,
        settings: Settings,
        checksum: bool,
        ssh_words: Sequence[bytes] = ssh.COMMAND,
        compress: Compress = Compress.AUTO,
        command: Callable[[ssh.Place], Sequence[bytes]] | None = None,
    ) -> None:
        """Not yet open; arguments as for ``RemoteEngine``."""
        place = ssh.place(target)
        assert place is not None
        self.entries = 0
        self._place = place
        self._source = source_fd
        self._settings = settings
        self._checksum = checksum
        self._ssh_words = tuple(ssh_words)
        self._connection = Connection(place.host, compress)
        self._command = command
        self._pace = Pace(settings.bandwidth_bytes_per_s)
        self._reader = ThreadPoolExecutor(1, "instep-verify", have_own_directory)
        self._twins = Twins()

    async def open(self) -> None:
        """Connect; the target has to be there.

        Raises:
            NoPython: there is none over there that could run the agent.
            TargetError: ssh refuses.
            TargetAway: not reachable now, or no such directory.
        """
        place, settings = self._place, self._settings
        argv = self._command(place) if self._command is not None else over_ssh(self._ssh_words, place)
        wanted = Wanted(place.path or b".", agent.LOOKS_ONLY, settings.keep, settings.umask)
        far = await self._connection.open(argv, wanted)
        self._session = Session(self._source, settings, far)
        if settings.preserve.owner and settings.preserve.owner_names:
            self._session.numbers = await learn(self._connection)
        self._judge = Judge(self._session, checksum=self._checksum)

    async def close(self) -> None:
        """End the agent."""
        await self._connection.close()
        self._reader.shutdown(wait=True, cancel_futures=True)

    # -- all of it ------------------------------------------------------------------------------------------------

    async def differences(self) -> AsyncGenerator[Sequence[Difference], None]:
        """Some directories at a time, depth first."""
        todo = [b""]
        while todo:
            paths = todo[-AT_ONCE:]
            del todo[-AT_ONCE:]
            looks = await self._in_thread(functools.partial(self._look_all, paths))
            frame, asked = Frame(), []
            found: list[Difference] = []
            for each in looks:
                if each.found is None:
                    if each.error is not None and each.error.errno not in _NOT_THERE:
                        found.append(self._unreadable(each.path, each.error, "cannot read the source directory"))
                elif self._settings.one_file_system and each.device != self._session.device:
                    found += await self.again([Difference(RelPath(each.path), Aspect.MODE, "")])
                else:
                    asked.append((len(frame.operations), each))
                    self._ask_for(frame, each)
            reply = await self._request(frame)
            answers = {index: (status, payload) for index, status, payload in reply.results}
            for index, each in asked:
                status, payload = answers.get(index, (agent.OK, b""))
                listing = None
                if status == agent.LISTING:
                    listing = agent.unpack_listing(bytes(reply.parts.get(index, b"")) + payload)
                elif status != agent.OK:
                    found += self._not_listed(each, status, payload)
                    continue
                assert each.found is not None
                if listing is None:
                    self.entries += len(each.found.infos)
                    todo += [join(each.path, os.fsencode(name)) for name in each.found.below]
                    continue
                below, some, to_be_read = await self._pair(each.path, each.found, listing)
                todo += below
                found += some
                yield found
                found = []
                async for more in self._contents(to_be_read):
                    yield more
            yield found

    def _look_all(self, paths: Sequence[bytes]) -> list[_Look]:
        return [self._look(path) for path in paths]

    def _look(self, path: bytes) -> _Look:
        try:
            fd = open_directory(self._source, path)
        except OSError as error:
            return _Look(path, None, error, 0)
        try:
            return _Look(path, survey(self._session, fd, path), None, os.fstat(fd).st_dev)
        except OSError as error:
            return _Look(path, None, error, 0)
        finally:
            os.close(fd)

    def _ask_for(self, frame: Frame, each: _Look) -> None:
        found, settings = each.found, self._settings
        assert found is not None
        flags = agent.LINKED * settings.preserve.hard_links
        rest: tuple[bytes, ...] = ()
        if not self._checksum and not (flags and found.has_links()):
            # As at start: if a file changed here after the copy was written, size and time prove nothing.
            newest_ns = found.newest_ns + self._session.far.ahead_ns if found.newest_ns else None
            rest = (
                found.digest,
                _LEAST_NS if newest_ns is None else newest_ns.to_bytes(8, "little", signed=True),
            )
        sent = Sent(agent.CHECK, each.path, Item(Task.CHECK, each.path))
        frame.add(sent, each.path, *rest, flags=flags)

    def _not_listed(self, each: _Look, status: int, payload: bytes) -> list[Difference]:
        if status != agent.FAILED:
            raise TargetAway("the agent gave an answer that does not fit")
        number = agent.FAILURE.unpack(payload)[0]
        ours = look(self._source, each.path)
        if ours is None:
            return []
        if number in _NOT_THERE:
            return [difference(each.path, Aspect.MISSING, missing_words(ours.st_mode), ours)]
        words = f"cannot read the target directory: {os.strerror(number)}"
        return [difference(each.path, Aspect.UNREADABLE, words, ours)]

    async def _pair(
        self, path: bytes, found: agent.Survey, theirs: Entries
    ) -> tuple[list[bytes], list[Difference], list[_Read]]:
        """A directory's names: those to be looked into, what differs, and what is to be read."""
        below: list[bytes] = []
        differing: list[Difference] = []
        to_be_read: list[_Read] = []
        own = theirs.pop(b"", None)
        if own is None:
            raise TargetAway("the agent gave a listing of nothing")
        ours = found.entries()
        self.entries += len(ours)
        self._judged(path, found.own, own, None, differing, to_be_read)
        for name, entry in ours.items():
            there = theirs.pop(name, None)
            if self._judge.is_left_out(entry.st_mode):
                continue
            whole = join(path, name)
            info = found.infos[os.fsdecode(name)]
            if there is None:
                differing.append(difference(whole, Aspect.MISSING, missing_words(entry.st_mode), info))
                continue
            if stat.S_ISDIR(entry.st_mode) and stat.S_ISDIR(there.st_mode):
                below.append(whole)  # It is judged when its turn comes.
                continue
            self._judged(whole, entry, there, info, differing, to_be_read)
        if self._settings.delete:
            for name, there in theirs.items():
                differing += await self._extra(path, name, is_dir=stat.S_ISDIR(there.st_mode))
        return below, differing, to_be_read

    def _judged(
        self,
        path: bytes,
        ours: agent.Entry,
        theirs: agent.Entry,
        info: os.stat_result | None,
        differing: list[Difference],
        to_be_read: list[_Read],
    ) -> None:
        """Note what differs under this name; ``info``: its lstat, None to make that only if it is needed."""
        what, words, reads = self._judge.compare(ours, theirs)
        one = None
        if what:
            info = info or look(self._source, path)
            if info is None:
                return  # Gone: its directory has changed then, and is another one now.
            one = difference(path, what, words, info)
        if info is not None and self._settings.preserve.hard_links and agent.may_be_joined(info.st_mode):
            met = self._twins.note(path, (info.st_dev, info.st_ino), info.st_nlink, theirs)
            if met is not None:
                one = linked(path, *met, info, one)
        if reads:
            to_be_read.append(_Read(path, ours.st_size, one))
        elif one is not None:
            differing.append(one)

    # -- names that only the target has ---------------------------------------------------------------------------

    async def _extra(self, parent: bytes, name: bytes, *, is_dir: bool) -> list[Difference]:
        session = self._session
        if is_temporary(name) or (session.protects and session.excludes(parent, name, is_dir=is_dir)):
            return []
        whole = join(parent, name)
        paths = await self._what_may_go(whole) if is_dir and session.protects else [(whole, is_dir)]
        self.entries += len(paths)
        changed_ns = above_changed_ns(self._source, whole)
        return [
            difference(path, Aspect.EXTRA, extra_words(is_dir=is_dir), None, above_ns=changed_ns)
            for path, is_dir in paths
        ]

    async def _what_may_go(self, top: bytes) -> list[tuple[bytes, bool]]:
        """The topmost names at and below a directory that hold nothing excluded."""
        stays: set[bytes] = set()
        may_go: list[tuple[bytes, bool]] = []
        todo = [top]
        while todo:
            here = todo.pop()
            for name, entry in (await self._listing(here)).items():
                whole, is_dir = join(here, name), stat.S_ISDIR(entry.st_mode)
                if name and self._session.excludes(here, name, is_dir=is_dir):
                    above = here
                    while len(above) >= len(top) and above not in stays:
                        stays.add(above)
                        above = above.rpartition(b"/")[0]
                elif name:
                    may_go.append((whole, is_dir))
                    todo += [whole] if is_dir else []
        if top not in stays:
            return [(top, True)]
        return [(path, is_dir) for path, is_dir in may_go if path not in stays and path.rpartition(b"/")[0] in stays]

    async def _listing(self, path: bytes) -> Entries:
        frame = Frame()
        frame.add(Sent(agent.CHECK, path, Item(Task.CHECK, path)), path)
        reply = await self._request(frame)
        for index, status, payload in reply.results:
            if status == agent.LISTING:
                return agent.unpack_listing(bytes(reply.parts.get(index, b"")) + payload)
        return {}

    # -- names by themselves --------------------------------------------------------------------------------------

    async def again(self, suspects: Sequence[Difference]) -> Sequence[Difference]:
        """Look at these names once more."""
        found: list[Difference] = []
        for at in range(0, len(suspects), ASKED_AT_ONCE):
            some = suspects[at : at + ASKED_AT_ONCE]
            paths = dict.fromkeys([one.path for one in some])
            paths.update(dict.fromkeys(RelPath(one.other) for one in some if one.other is not None))
            theirs = await self._theirs(paths)
            to_be_read: list[_Read] = []
            for one in some:
                found += await self._once_more(one, theirs, to_be_read)
            async for more in self._contents(to_be_read):
                found += more
        return found

    async def _once_more(
        self, suspect: Difference, theirs: dict[bytes, agent.Entry | OSError], to_be_read: list[_Read]
    ) -> list[Difference]:
        path, session = suspect.path, self._session
        ours, there = look(self._source, path), theirs.get(path)
        if isinstance(there, OSError):
            return [self._unreadable(path, there, "cannot be compared")]
        if ours is not None and path and session.filter.excludes(path, stat.S_ISDIR(ours.st_mode)):
            ours = None
        if ours is None:
            if there is None or not self._settings.delete:
                return []
            words, changed_ns = extra_words(is_dir=stat.S_ISDIR(there.st_mode)), above_changed_ns(self._source, path)
            return [difference(path, Aspect.EXTRA, words, None, above_ns=changed_ns)]
        if there is None:
            return [difference(path, Aspect.MISSING, missing_words(ours.st_mode), ours)]
        if suspect.what & Aspect.UNREADABLE and stat.S_ISDIR(ours.st_mode):
            looked = await self._in_thread(lambda: self._look(path))
            if looked.error is not None:
                return [self._unreadable(path, looked.error, "cannot read the source directory")]
            if not await self._listing(path):
                return [suspect]
        try:
            entry = self._entry(path)
        except OSError as error:
            return [self._unreadable(path, error, "cannot be compared")]
        what, words, reads = self._judge.compare(entry, there)
        one = difference(path, what, words, ours) if what else None
        if suspect.other is not None:
            one = self._link_again(path, suspect.other, ours, theirs, one)
        if reads:
            to_be_read.append(_Read(path, entry.st_size, one))
            return []
        return [one] if one is not None else []

    def _link_again(
        self,
        path: bytes,
        other: bytes,
        ours: os.stat_result,
        theirs: dict[bytes, agent.Entry | OSError],
        one: Difference | None,
    ) -> Difference | None:
        ours_other, there, there_other = look(self._source, other), theirs.get(path), theirs.get(other)
        if ours_other is None or not isinstance(there, agent.Entry) or not isinstance(there_other, agent.Entry):
            return one
        joined = (ours.st_dev, ours.st_ino) == (ours_other.st_dev, ours_other.st_ino)
        if joined == (there.st_ino == there_other.st_ino):
            return one
        return linked(path, other, joined, ours, one)

    def _entry(self, path: bytes) -> agent.Entry:
        parent, _, name = path.rpartition(b"/")
        fd = open_directory(self._source, parent)
        try:
            return agent.look_at(fd, name, self._session.keep, is_root=self._session.far.is_root)
        finally:
            os.close(fd)

    async def _theirs(self, paths: Iterable[bytes]) -> dict[bytes, agent.Entry | OSError]:
        """What the target has under these names; what it has not is left out."""
        frame = Frame()
        asked: dict[int, bytes] = {}
        for path in paths:
            parent, _, name = path.rpartition(b"/")
            item = Item(Task.NAME, path)
            frame.enter(parent, item)
            asked[len(frame.operations)] = path
            frame.add(Sent(agent.LOOK, path, item), name)
        found: dict[bytes, agent.Entry | OSError] = {}
        for index, status, payload in (await self._request(frame)).results:
            path = asked.get(index, b"")
            if status == agent.FAILED and index in asked:
                number = agent.FAILURE.unpack(payload)[0]
                if number not in _NOT_THERE:
                    found[path] = OSError(number, os.strerror(number))
            elif status == agent.OK and index in asked:
                found[path] = agent.unpack_listing(payload)[b""]
        return found

    # -- contents -------------------------------------------------------------------------------------------------

    async def _contents(self, files: Sequence[_Read]) -> AsyncGenerator[list[Difference], None]:
        """Compare files by digests of their stretches, several small ones or a part of a large one at a time."""
        some: list[tuple[_Read, int, int]] = []
        count = 0
        told: dict[bytes, Difference | None] = {each.path: each.so_far for each in files}
        for each in files:
            for offset in range(0, each.size, STRETCH_BYTES):
                if each.path not in told:
                    break  # It was found to differ already.
                length = min(STRETCH_BYTES, each.size - offset)
                some.append((each, offset, length))
                count += length
                if count >= SUMMED_AT_ONCE or len(some) >= ASKED_AT_ONCE:
                    yield await self._sums(some, told)
                    some, count = [], 0
        if some:
            yield await self._sums(some, told)
        yield [one for one in told.values() if one is not None]

    async def _sums(self, some: list[tuple[_Read, int, int]], told: dict[bytes, Difference | None]) -> list[Difference]:
        """Compare these stretches; files that differ are taken from ``told``."""
        frame = Frame()
        asked: dict[int, int] = {}
        for number, (each, offset, length) in enumerate(some):
            parent, _, name = each.path.rpartition(b"/")
            item = Item(Task.NAME, each.path)
            frame.enter(parent, item)
            asked[len(frame.operations)] = number
            frame.add(Sent(agent.SUM, each.path, item), name, agent.STRETCH.pack(offset, length))
        await self._pace.passed(sum(length for _, _, length in some))
        asking = self._request(frame)
        ours, reply = await asyncio.gather(self._in_thread(lambda: self._our_sums(some)), asking)
        theirs: dict[int, bytes | OSError] = {}
        for index, status, payload in reply.results:
            if index in asked:
                number = agent.FAILURE.unpack(payload)[0] if status == agent.FAILED else errno.ENOENT
                theirs[asked[index]] = payload if status == agent.OK else OSError(number, os.strerror(number))
        found: list[Difference] = []
        for number, (each, _, _) in enumerate(some):
            here, there = ours[number], theirs.get(number)
            if each.path not in told or here == there:
                continue
            one = told.pop(each.path)
            info = look(self._source, each.path)
            if info is None:
                continue
            what, words = Aspect.CONTENT, "same size, other content"
            for error in (here, there):
                if isinstance(error, OSError):
                    what, words = Aspect.UNREADABLE, f"cannot be compared: {error.strerror}"
            if one is not None:
                one = one._replace(what=one.what | what, text=f"{words}; {one.text}")
            found.append(one or difference(each.path, what, words, info))
        return found

    def _our_sums(self, some: list[tuple[_Read, int, int]]) -> list[bytes | OSError]:
        return [self._our_sum(each.path, offset, length) for each, offset, length in some]

    def _our_sum(self, path: bytes, offset: int, length: int) -> bytes | OSError:
        parent, _, name = path.rpartition(b"/")
        try:
            directory = open_directory(self._source, parent)
            try:
                return agent.sum_at(directory, name, offset, length, self._session.far.digest)
            finally:
                os.close(directory)
        except OSError as error:
            return error

    # -- small things ---------------------------------------------------------------------------------------------

    async def _request(self, frame: Frame) -> Reply:
        if not frame.operations:
            return Reply([], {})
        try:
            return await self._connection.request(frame.parts, frame.size, bulk=False)
        except TargetError as error:
            raise TargetAway(str(error)) from error

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._reader, work)

    def _unreadable(self, path: bytes, error: OSError, what: str) -> Difference:
        return difference(path, Aspect.UNREADABLE, f"{what}: {error.strerror}", look(self._source, path))
