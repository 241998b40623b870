"""The directories the inotify monitor knows: names, identities, watch descriptors. Makes no system call."""

from __future__ import annotations

from instep.paths import ROOT, RelPath

DEAD = 1
"""Taken out of the tree, with everything below; its watches are given back piece by piece."""
BLIND = 2
"""This directory, or one below it, could not be opened: a change of mode here is a reason to try again."""


class Node:
    """One directory. 100,000 of them are a usual number, so every byte counts: no dict where there are no children."""

    __slots__ = ("dev", "flags", "ino", "kids", "name", "parent", "wd")

    def __init__(self, parent: Node | None, name: bytes) -> None:
        self.parent = parent
        self.name = name
        self.kids: dict[bytes, Node] | None = None
        self.wd = 0
        self.ino = 0
        self.dev = 0
        self.flags = 0

    def kid(self, name: bytes) -> Node | None:
        """The child directory of that name, if it is known."""
        return None if self.kids is None else self.kids.get(name)

    def path(self) -> RelPath:
        """Where it is by the events read so far. The last place it had, if it is dead."""
        parent = self.parent
        if parent is None:
            return ROOT
        names = [self.name]
        while parent.parent is not None:
            names.append(parent.name)
            parent = parent.parent
        names.reverse()
        return RelPath(b"/".join(names))

    def is_alive(self) -> bool:
        """Whether it hangs on the root still."""
        node: Node | None = self
        while node is not None:
            if node.flags & DEAD:
                return False
            node = node.parent
        return True


def below(path: bytes, name: bytes) -> RelPath:
    """The path of ``name`` in the directory ``path``."""
    return RelPath(path + b"/" + name if path else name)


class Tree:
    """All nodes, by place and by watch descriptor."""

    def __init__(self) -> None:
        self.top = Node(None, b"")
        self.watched: dict[int, Node] = {}
        self.dropped: list[Node] = []
        """Tops of what was taken out, their watches not yet given back."""
        self._devices: dict[int, int] = {}  # one int object for each device, not one for each directory

    def add(self, parent: Node, name: bytes) -> Node:
        """A new node, not watched yet."""
        node = Node(parent, name)
        if parent.kids is None:
            parent.kids = {}
        parent.kids[name] = node
        return node

    def is_watched(self, node: Node) -> bool:
        """Whether the kernel reports on it under its own descriptor."""
        return self.watched.get(node.wd) is node

    def identify(self, node: Node, dev: int, ino: int) -> bool:
        """Note which directory it is; True when that was another one before."""
        changed = node.ino not in (0, ino) or (node.ino != 0 and node.dev != dev)
        node.dev = self._devices.setdefault(dev, dev)
        node.ino = ino
        return changed

    def unlink(self, node: Node) -> None:
        """Take it out from under its parent."""
        parent = node.parent
        if parent is not None and parent.kids is not None and parent.kids.get(node.name) is node:
            del parent.kids[node.name]
            if not parent.kids:
                parent.kids = None

    def drop(self, node: Node) -> None:
        """Forget it with all below: at once by name, piece by piece by descriptor."""
        self.unlink(node)
        node.flags |= DEAD
        self.dropped.append(node)

    def relink(self, node: Node, parent: Node, name: bytes) -> bool:
        """Move it with all below to another place, whoever is there; False if that place lies below itself."""
        above: Node | None = parent
        while above is not None:
            if above is node:
                return False
            above = above.parent
        there = parent.kid(name)
        if there is node:
            return True
        if there is not None:
            self.drop(there)
        self.unlink(node)
        node.parent = parent
        node.name = name
        if parent.kids is None:
            parent.kids = {}
        parent.kids[name] = node
        if node.flags & BLIND:
            self.mark_blind(node)
        return True

    def mark_blind(self, node: Node) -> None:
        """Note that something at or below it could not be opened."""
        here: Node | None = node
        while here is not None:
            here.flags |= BLIND
            here = here.parent
