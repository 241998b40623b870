"""What one target holds, kept on disk: what may have been touched is noted before, what is in step is written after.

A path is *touched* from the moment a batch with it begins until a commit finds it at rest: not pending, and unchanged
in the source since the batch began. Then the target holds just what the source shows, and that is what is recorded. A
path touched and not committed when the process ends is looked at again at the next start.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Collection, Iterable, Mapping

from instep.index.journal import Journal, Touched, merged, read_journal
from instep.index.store import BrokenIndex, Store
from instep.model import Change, Landmarks
from instep.paths import ROOT, Learned, RelPath, Scope, is_below
from instep.records import CLOCK_LAG_NS, UNKNOWN, Names, changed_ns, parse, record

FOLD_ROWS = 20_000
"""After so many rows about single names these go into the texts of their directories."""
BOOT = "/proc/sys/kernel/random/boot_id"
_ENTRY = Scope.ENTRY  # Python 3.11 takes 0.25 us to get a member from its class.
_SUFFIXES = (b"", b"-wal", b"-shm", b".journal", b".journal.new")


class NotBelieved(Exception):
    """The index does not say for certain what the target holds; the words say why."""


@dataclasses.dataclass(frozen=True, slots=True)
class Commit:
    """What was touched, and may become part of the index."""

    began: dict[bytes, int]
    """Path: when its last batch began (ns)."""
    scopes: Touched
    """Of those that are more than an ENTRY."""
    directories: set[bytes]
    """Those that were reported as directories."""
    learned: dict[bytes, Learned]
    """Directories that need not be read again, as far as they are ``still_true``."""
    learned_names: dict[bytes, bytes]
    """Records of names that need not be looked at again, unless they are below one of ``trees``."""

    @property
    def trees(self) -> dict[bytes, int]:
        """What was brought over with all below it, and when that began."""
        began = self.began
        return {path: began[path] for path, scope in self.scopes.items() if scope is Scope.TREE and path in began}

    def without(self, paths: Collection[bytes]) -> Commit:
        """The rest."""
        if not paths:
            return self
        gone = set(paths)
        return dataclasses.replace(self, began={path: ns for path, ns in self.began.items() if path not in gone})

    def still_true(self) -> dict[bytes, Learned]:
        """What was learned of directories that are below one of the trees, and after all of those above it had begun.

        With the time at which the last of these began in the place of the directory's own.
        """
        trees = self.trees
        found: dict[bytes, Learned] = {}
        for path, (_, read_ns, text, below) in self.learned.items():
            above = path
            latest = trees.get(above, -1)
            while above:
                above = above.rpartition(b"/")[0]
                latest = max(latest, trees.get(above, -1))
            if 0 <= latest <= read_ns:
                found[path] = (path, latest, text, below)
        return found

    def singles(self) -> tuple[Names[int], Names[bytes]]:
        """What is to be looked at in the source, with when its batch began, and the records of what need not be.

        Every path with its parent: what is done to a name changes its directory's times, which are brought too. Some
        0.7 us a path.
        """
        began, seen_of = self.began, self._learned_outside_trees().get
        groups: dict[bytes, _Group] = {}
        last, group = b"/", _Group()  # Names of one directory mostly follow each other.
        for path, began_ns in began.items():
            parent, _, name = path.rpartition(b"/")
            if parent != last:
                last, group = parent, groups.get(parent) or groups.setdefault(parent, _Group())
            if began_ns > group.latest_ns:  # noqa: PLR1730  # max() costs more than all the rest of a path
                group.latest_ns = began_ns
            one = seen_of(path)
            if one is None or changed_ns(one)[0] >= began_ns:
                group.look[name] = began_ns
            else:
                group.seen[name] = one
        look = {parent: group.look for parent, group in groups.items()}
        seen = {parent: group.seen for parent, group in groups.items() if group.seen}
        for path, group in groups.items():
            parent, _, name = path.rpartition(b"/")
            names = look.setdefault(parent, {})
            names[name] = max(group.latest_ns, names.get(name, 0), began.get(path, 0))
            if parent in seen:
                seen[parent].pop(name, None)
        return look, seen

    def _learned_outside_trees(self) -> dict[bytes, bytes]:
        """A directory that was brought over whole may be another one than the one in which its names were seen."""
        trees = self.trees
        if not trees:
            return self.learned_names
        return {path: one for path, one in self.learned_names.items() if not is_below(path, trees)}


class _Group:
    """What was touched in one directory."""

    __slots__ = ("latest_ns", "look", "seen")

    def __init__(self) -> None:
        self.look: dict[bytes, int] = {}
        self.seen: dict[bytes, bytes] = {}
        self.latest_ns = -1


class Ledger:
    """The index of one target, with its journal. Methods say in which thread; none is called by two at once.

    Raises:
        BrokenIndex: from every method that touches the disk; the index is of no use any more.
    """

    def __init__(self, path: bytes) -> None:
        """Open or make the index at ``path``; the journal stands beside it."""
        self.path = path
        self._store = _opened(path)
        self._journal: Journal | None = None
        self._began: dict[bytes, int] = {}
        self._scopes: Touched = {}
        self._directories: set[bytes] = set()
        self._learned: dict[bytes, Learned] = {}
        self._learned_names: dict[bytes, bytes] = {}
        self._doubtful: Touched = {}  # touched by a process before, and not looked at again yet
        self._unswept: set[bytes] = set()
        self._rows = self._store.change_count()
        self.whole = False
        """Everything has been brought over once, and what was done since is known."""
        self.unfinished_ns = 0
        """When the first comparison began that no process has finished; 0 where there was none to begin with."""

    # -- start and end ------------------------------------------------------------------------------------------

    def in_doubt(self) -> Touched:
        """What the index cannot judge, though it can be believed if it ``recognises`` the target. Blocks on the disk.

        Raises:
            NotBelieved: then all is in doubt.
        """
        meta = self._store.meta()
        if not meta:
            raise NotBelieved("there was none")
        if meta.get("whole") != b"1":
            raise NotBelieved("the first comparison was not finished")
        if meta.get("clean") != b"1" and meta.get("boot") != _boot():
            raise NotBelieved("the machine went down in the middle of work")
        touched = read_journal(self._journal_path)
        if touched is None:
            raise NotBelieved("its journal is lost")
        return touched

    def recognise(self, target: Landmarks | None, touched: Touched) -> None:
        """See that this is the target that was left; names in its root that were touched may lack. Blocks on the disk.

        Raises:
            NotBelieved: it is not, or nobody can tell.
        """
        if target is None:
            raise NotBelieved("the target cannot be told from another")
        if self._store.meta().get("target") != target.identity:
            raise NotBelieved("the target is not the one that was left")
        self.fold()
        known = parse(self._store.entries(ROOT) or b"")
        lost = {name for name, one in known.items() if one != UNKNOWN} - target.names - touched.keys()
        if lost:
            raise NotBelieved(f"the target lacks {len(lost)} names that it had, {os.fsdecode(min(lost))!r} among them")

    def begin(self, touched: Touched, *, whole: bool) -> None:
        """From now on the target is worked on; what is in doubt stays so until it was looked at. In the loop."""
        self._doubtful = dict(touched)
        self._unswept = {path.rpartition(b"/")[0] for path in touched if path}
        try:
            if self._journal is None:
                self._journal = Journal(self._journal_path, self.in_question())
            else:
                self._journal.restart(self.in_question())
        except OSError as error:
            raise BrokenIndex(str(error)) from error
        self.whole = whole
        meta = self._store.meta()
        if not whole and meta.get("whole") == b"0":
            self.unfinished_ns = int(meta.get("since", b"0"))
        with self._store.transaction():
            if not whole:
                self._store.forget(ROOT)
                self._rows = 0
                self._store.put_meta(since=b"%d" % (self.unfinished_ns or time.time_ns() - CLOCK_LAG_NS))
            self._store.put_meta(whole=b"1" if whole else b"0", clean=b"0", boot=_boot())

    @property
    def is_lossy(self) -> bool:
        """Whether the target's disk lost something of what is in question. Blocks on the disk."""
        return self._store.meta().get("lossy") == b"1"

    def mark_lossy(self, *, lossy: bool) -> None:
        """Remember it for the next process: the kernel tells of a loss once. Blocks on the disk."""
        with self._store.transaction():
            self._store.put_meta(lossy=b"1" if lossy else b"0")

    def close(self, *, clean: bool) -> None:
        """Let go of the files; ``clean``: nothing is under way at the target any more."""
        try:
            if clean and self._journal is not None:
                with self._store.transaction():
                    self._store.put_meta(clean=b"1")
        finally:
            if self._journal is not None:
                self._journal.close()
                self._journal = None
            self._store.close()

    def root_differs(self, info: os.stat_result) -> bool:
        """Whether the source's root directory itself has changed since the target was given its attributes."""
        return self._store.meta().get("root") != record(info)

    # -- in the loop --------------------------------------------------------------------------------------------

    def touch(self, changes: Collection[Change], moved_from: Collection[RelPath]) -> None:
        """A batch with these paths begins. Some 0.5 us a path."""
        now_ns = time.time_ns()
        began, scopes, journal, learned = self._began, self._scopes, self._journal, self._learned_names
        assert journal is not None
        try:
            for change in changes:
                path, scope = change.path, change.scope
                if path not in began or (scope is not _ENTRY and scope > scopes.get(path, _ENTRY)):
                    journal.note(path, scope)
                    if scope is not _ENTRY:
                        scopes[path] = scope
                if path in learned:
                    del learned[path]  # What is learned of it from now on is what the target will hold.
                began[path] = now_ns
                if change.is_dir:
                    self._directories.add(path)
            if self._doubtful:
                self._looked_at(changes)
            for path in moved_from:
                journal.note(path, Scope.TREE)
                scopes[path] = Scope.TREE
                began[path] = now_ns
        except OSError as error:
            raise BrokenIndex(f"the journal cannot grow: {error.strerror}") from error

    def learn(self, directories: Collection[Learned], names: Mapping[bytes, bytes]) -> None:
        """A batch ended that had read this in the source, and the target was given just that. Some 0.2 us a name."""
        if names:
            self._learned_names.update(names)
        if directories:
            self._learned.update((one[0], one) for one in directories)

    def _looked_at(self, changes: Iterable[Change]) -> None:
        for change in changes:
            if change.scope >= self._doubtful.get(change.path, Scope.TREE):
                if not change.path and change.scope is Scope.TREE:
                    self._doubtful.clear()
                self._doubtful.pop(change.path, None)

    @property
    def touched(self) -> int:
        """How many paths were worked on since the last commit."""
        return len(self._began)

    def in_question(self) -> Touched:
        """All that was worked on, by this process or the one before, and was not found at rest since."""
        return merged(self._doubtful, {**dict.fromkeys(self._began, _ENTRY), **self._scopes})

    def take_unswept(self) -> set[bytes]:
        """Directories in which the process before, or a helper of it, may have left temporary names when killed."""
        unswept, self._unswept = self._unswept, set()
        return unswept

    def take(self) -> Commit:
        """All that was touched; ``give_back`` what is not at rest."""
        commit = Commit(self._began, self._scopes, self._directories, self._learned, self._learned_names)
        self._began, self._scopes, self._directories, self._learned, self._learned_names = {}, {}, set(), {}, {}
        return commit

    def give_back(self, commit: Commit, paths: Iterable[bytes]) -> None:
        """These stay touched."""
        for path in paths:
            began = commit.began.get(path)
            if began is not None:  # Not a parent of one, and not one that ``without`` has taken out.
                self._began[path] = max(began, self._began.get(path, 0))
                scope = commit.scopes.get(path)
                if scope is not None:
                    self._scopes[path] = max(scope, self._scopes.get(path, _ENTRY))
                if path in commit.directories:
                    self._directories.add(path)

    # -- in a thread: blocks on the disk ------------------------------------------------------------------------

    def start_writing(self, trees: Iterable[bytes]) -> None:
        """Of these nothing is known from now on, until it is put. Ends with ``finish`` or ``abort``."""
        self._store.begin()
        for path in trees:
            self._store.forget(path)

    def put(self, directories: Iterable[tuple[bytes, int, bytes]]) -> None:
        """What a survey found."""
        self._store.put_directories((path, text) for path, _, text in directories)

    def finish(
        self,
        records: Names[bytes],
        unknown: Iterable[bytes],
        gone: Iterable[bytes],
        *,
        whole: Landmarks | None,
    ) -> None:
        """What became known of single paths; of ``unknown`` nothing is to be claimed, and ``gone`` were directories.

        ``records`` is consumed.
        ``whole``: everything has been brought over to this target.
        """
        store = self._store
        for path in gone:
            store.forget(path)
        root = records.get(ROOT, {}).pop(b"", None)
        for path in unknown:
            if path:
                parent, _, name = path.rpartition(b"/")
                records.setdefault(parent, {})[name] = UNKNOWN
        store.put_changes(
            (path, b"".join([name + b"\0" + one for name, one in names.items()]))
            for path, names in records.items()
            if names
        )
        if root is not None:
            store.put_meta(root=root)
        if whole:
            store.put_meta(whole=b"1", target=whole.identity)
        self._rows += len(records)
        if self._rows > FOLD_ROWS:
            self._fold()
        store.commit()
        self.whole = self.whole or whole is not None

    def abort(self) -> None:
        """Nothing since ``start_writing`` was said."""
        self._store.rollback()

    def fold(self) -> None:
        """Get ready for a comparison."""
        if self._rows:
            with self._store.transaction():
                self._fold()

    def _fold(self) -> None:
        self._store.fold()
        self._rows = 0

    # -- in the loop again --------------------------------------------------------------------------------------

    def settle(self) -> None:
        """After ``write``: only what is touched by now is in doubt any more. Writes a small file."""
        assert self._journal is not None
        try:
            self._journal.restart(self.in_question())
        except OSError as error:
            raise BrokenIndex(f"the journal cannot be written: {error.strerror}") from error

    @property
    def _journal_path(self) -> bytes:
        return self.path + b".journal"


def _opened(path: bytes) -> Store:
    """The store; a file that is none is put away and begun anew."""
    try:
        return Store(path)
    except BrokenIndex:
        discard(path)
        return Store(path)


def discard(path: bytes) -> None:
    """Remove an index with all that belongs to it."""
    for suffix in _SUFFIXES:
        with contextlib.suppress(OSError):
            os.unlink(path + suffix)


def _boot() -> bytes:
    try:
        with open(BOOT, "rb") as file:
            return file.read().strip()
    except OSError:
        return b""
