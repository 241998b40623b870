"""Which rsync runs bring a batch over, decided from the changes and what the source holds.

Figures (20,000 files of 1 kB in 200 directories, tmpfs, medians of noisy runs): a list of all names 0.60 s, the list
of their directories 0.36 s, one recursive run 0.32 s, plain ``rsync -a`` 0.40-0.65 s. So where most of a directory is
changed the directory is listed instead of its names.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from instep.engines.rsync.command import Style
from instep.engines.rsync.source import MOST, Crowd, Kind, Seen
from instep.model import Change
from instep.paths import Scope

SMALL_BYTES = 1 << 20
"""So much unchanged content is rather copied again than a second rsync started (47 ms): measured, roughly."""

ONLY_MAX = 100
"""Two arguments for each path: 128 KiB each at most, and two MiB for all."""

CLEAN_BYTES = 8 << 20
"""At most so many bytes of unchanged files are copied again for the sake of listing a directory: a guess."""


@dataclass(frozen=True, slots=True)
class Run:
    """One rsync to start."""

    style: Style
    members: Mapping[bytes, Sequence[Change]]
    """By the name as rsync is to read it, save for the leading ``./``: the changes that it serves. A trailing slash
    means: the directory with its names."""
    only: tuple[bytes, ...] = ()
    """If there are any: the only paths that it may delete where it prunes."""

    def styled(self, **changes: bool) -> Run:
        """The same names in another style."""
        return replace(self, style=replace(self.style, **changes))

    def sparing(self, gone: Sequence[bytes]) -> Iterator[Run]:
        """The same as runs that prune nothing but these paths."""
        if not self.style.prune:
            yield self
        elif not gone:
            yield self.styled(prune=False)
        else:
            for at in range(0, len(gone), ONLY_MAX):
                yield replace(self, only=tuple(gone[at : at + ONLY_MAX]))

    def listing(self) -> bytes:
        """The bytes for rsync's standard input."""
        return b"./" + b"\0./".join(self.members) + b"\0" if self.members else b""

    def changes(self) -> list[Change]:
        """Every change that it serves."""
        return [change for changes in self.members.values() for change in changes]

    @property
    def names_all(self) -> bool:
        """Whether what it brings over are files that were looked at, or stand among such, each anew."""
        style = self.style
        return (
            style.ignore_times
            and not style.recurse
            and all(change.scope is Scope.ENTRY for changes in self.members.values() for change in changes)
        )

    def paths(self) -> set[bytes]:
        """The names that it puts, replaces or deletes, the last with all below; directories to be listed among them."""
        if self.style.root_only:
            return set()
        return {path.removesuffix(b"/") for path in self.members}

    def parts(self, blamed: Collection[bytes]) -> tuple[Run, Run]:
        """The same work as two runs: what is blamed by itself, or else the halves; only for more than one name."""
        apart = [name for name in self.members if name.removesuffix(b"/") in blamed]
        if not 0 < len(apart) < len(self.members):
            apart = list(self.members)[len(self.members) // 2 :]
        other = set(apart)
        return (
            replace(self, members={name: of for name, of in self.members.items() if name not in other}),
            replace(self, members={name: self.members[name] for name in apart}),
        )


def plan(
    seen: Sequence[Seen],
    crowds: Mapping[bytes, Crowd],
    *,
    delete: bool,
    missing_args: bool,
    filtered: bool = False,
) -> list[Run]:
    """The runs for a batch, in the order in which they are to be done.

    Args:
        seen: the changes with what the source holds for them.
        crowds: the directories with many changed names.
        delete: whether names that the source lost go at the target as well.
        missing_args: whether the far side can delete a listed name that the source lost.
        filtered: whether there are rules. To them rsync shows a listed name that is missing as a file, so rules for
            directories do not see it; listed with its parent's other names it is what it is at the target.
    """
    sorts = _Sorts()
    whole = _whole_directories(seen, crowds, delete=delete)
    for one in seen:
        change, path, kind, _ = one
        if not path:
            _root(sorts, change)
            continue
        parent = path.rpartition(b"/")[0]
        if kind is Kind.GONE and not delete:  # Nothing may go, but its directory has another time.
            (sorts.directories if parent else sorts.root).add(parent, change)
            continue
        if parent in whole and _covered(one, content=whole[parent]):
            sorts.level(parent, change, content=whole[parent])
        elif kind is Kind.GONE and (not missing_args or (filtered and (change.is_dir or path != change.path))):
            sorts.level(parent, change, content=False)
        elif kind is Kind.DIRECTORY and (change.scope is Scope.TREE or path != change.path):
            sorts.tree(path, change)
        elif kind is Kind.DIRECTORY and change.scope is Scope.LIST:
            sorts.level(path, change, content=change.content)
        elif kind is Kind.DIRECTORY:
            sorts.directories.add(path, change)
        elif kind is Kind.FILE and not change.content:
            sorts.attributes.add(path, change)
            sorts.attribute_bytes += one.size
        else:
            sorts.contents.add(path, change)
    return sorts.runs()


def _whole_directories(seen: Sequence[Seen], crowds: Mapping[bytes, Crowd], *, delete: bool) -> dict[bytes, bool]:
    """The directories to list instead of their names, and whether that serves changed contents too."""
    content = dict.fromkeys(crowds, 0)
    rest = dict.fromkeys(crowds, 0)
    for change, path, kind, _ in seen:
        parent = path.rpartition(b"/")[0]
        if parent not in crowds or change.scope is not Scope.ENTRY:
            continue
        if kind is Kind.FILE and change.content:
            content[parent] += 1
        elif kind is not Kind.GONE or delete:
            rest[parent] += 1
    whole: dict[bytes, bool] = {}
    for directory, crowd in crowds.items():
        if crowd.postponed:
            continue  # The file that waits would be brought over with the rest.
        if content[directory] >= MOST * crowd.names and crowd.clean_bytes <= CLEAN_BYTES:
            whole[directory] = True
        elif rest[directory] * 3 > crowd.names:
            whole[directory] = False
    return whole


def _covered(one: Seen, *, content: bool) -> bool:
    """Whether listing the parent with its names does all that this change needs."""
    if one.change.scope is not Scope.ENTRY:
        return one.kind is Kind.GONE
    return content or one.kind is not Kind.FILE or not one.change.content


def _root(sorts: _Sorts, change: Change) -> None:
    if change.scope is Scope.TREE:
        sorts.tree(b"", change)
    elif change.scope is Scope.LIST:
        sorts.level(b"", change, content=change.content)
    else:
        sorts.root.add(b"", change)


class _Names:
    """Names that are treated alike, each once, with the changes they serve."""

    __slots__ = ("members",)

    def __init__(self) -> None:
        self.members: dict[bytes, list[Change]] = {}

    def add(self, path: bytes, change: Change) -> None:
        if path in self.members:
            self.members[path].append(change)
        else:
            self.members[path] = [change]

    def take(self, other: _Names) -> None:
        """Let the other's names be done here."""
        for path, changes in other.members.items():
            self.members.setdefault(path, []).extend(changes)
        other.members = {}


class _Sorts:
    """The names of a batch by what has to happen to them."""

    def __init__(self) -> None:
        self.root = _Names()
        self.contents = _Names()
        """Anything but directories: brought over whatever size and time say; or deleted."""
        self.directories = _Names()
        """The directory alone."""
        self.attributes = _Names()
        """Files whose content is believed to be there."""
        self.attribute_bytes = 0
        self._trees = {True: _Names(), False: _Names()}
        self._levels = {True: _Names(), False: _Names()}

    def tree(self, path: bytes, change: Change) -> None:
        """Everything below a directory."""
        self._trees[change.content].add(path, change)

    def level(self, directory: bytes, change: Change, *, content: bool) -> None:
        """The names of a directory."""
        self._levels[content].add(directory + b"/" if directory else b"", change)

    def runs(self) -> list[Run]:
        """As few runs as possible, for each one costs 47 ms.

        Directories are listed with their names last: with --delete that would take away the temporary files of
        another run at work in them, and what the lists hold is smaller by then.
        """
        anew, compared = self._trees[True], self._trees[False]
        if anew.members:
            anew.take(self.contents)  # Only a directory is treated differently when listed for recursion.
        elif (level := self._levels[True]).members:
            level.take(self.contents)  # One rsync less; a name without trailing slash has nothing deleted below it.
        first = anew if anew.members else self.contents
        if first.members and self.attribute_bytes <= SMALL_BYTES:
            first.take(self.attributes)
        elif compared.members:
            compared.take(self.attributes)
        if self.contents.members:
            self.contents.take(self.directories)
        else:
            self.directories.take(self.attributes)
        by_name = (self.contents, self.directories, self.attributes, anew, compared)
        if self.root.members and (some := next((n for n in by_name if n.members), None)):
            # The root is brought over with any name below it.
            next(iter(some.members.values())).extend(self.root.members.pop(b""))
        styled = (
            (Style(root_only=True), self.root),
            (Style(ignore_times=True), self.contents),
            (Style(), self.directories),
            (Style(), self.attributes),
            (Style(recurse=True, ignore_times=True, prune=True), anew),
            (Style(recurse=True, prune=True), compared),
            (Style(ignore_times=True, prune=True), self._levels[True]),
            (Style(prune=True), self._levels[False]),
        )
        return [Run(style, names.members) for style, names in styled if names.members]
