"""Random changes, brought over in random portions: in the end both sides are equal."""

from __future__ import annotations

import os
import random
import shutil

import pytest

from instep.paths import ROOT, Scope
from tests.engines.remote.rig import Rig, well, write

NAMES = [b"a", b"b", b"c", b"d\xff", b"e e"]


def somewhere(dice: random.Random, top: bytes) -> bytes:
    """A path below the top whose directory exists."""
    path = b""
    while True:
        name = dice.choice(NAMES)
        path = path + b"/" + name if path else name
        whole = os.path.join(top, path)
        if not os.path.isdir(whole) or os.path.islink(whole) or dice.random() < 0.4:
            return path


def change(dice: random.Random, top: bytes) -> set[bytes]:
    """Do something; the paths that a monitor would report."""
    path = somewhere(dice, top)
    whole = os.path.join(top, path)
    what = dice.randrange(9)
    is_dir = os.path.isdir(whole) and not os.path.islink(whole)
    exists = os.path.lexists(whole)
    if what <= 1 or (what == 2 and not exists):
        if is_dir:
            return set()
        write_through(whole, dice)
    elif what == 2:
        shutil.rmtree(whole) if is_dir else os.unlink(whole)
    elif what == 3 and not exists:
        os.mkdir(whole)
    elif what == 4 and exists:
        other = somewhere(dice, top)
        target = os.path.join(top, other)
        if not os.path.lexists(target) and not target.startswith(whole + b"/"):
            os.rename(whole, target)
            return {path, other}
    elif what == 5 and not exists:
        os.symlink(dice.choice(NAMES), whole)
    elif what == 6 and exists and not os.path.islink(whole):
        os.chmod(whole, dice.choice([0o700, 0o755, 0o711, 0o750]))
    elif what == 7 and exists and not is_dir and not os.path.islink(whole):
        other = somewhere(dice, top)
        if not os.path.lexists(os.path.join(top, other)):
            os.link(whole, os.path.join(top, other))
            return {path, other}
    elif what == 8 and not exists:
        os.mkfifo(whole)
    return {path}


def write_through(path: bytes, dice: random.Random) -> None:
    if os.path.lexists(path) and (os.path.islink(path) or not os.path.isfile(path)):
        os.unlink(path)
    write(path, dice.randbytes(dice.choice([0, 10, 10_000, 700_000])))


@pytest.mark.parametrize("seed", range(6))
def test_random_changes(rig: Rig, seed: int) -> None:
    dice = random.Random(seed)
    for _ in range(12):
        dirty: set[bytes] = set()
        for _ in range(dice.randrange(1, 25)):
            dirty |= change(dice, rig.src)
        paths = list(dirty)
        dice.shuffle(paths)
        for _ in range(5):
            outcome = rig.bring(*paths, scope=dice.choice([Scope.ENTRY, Scope.TREE]), now=dice.random() < 0.7)
            assert outcome.away is None
            paths = [failure.change.path for failure in outcome.failures]
            paths += [put_off.change.path for put_off in outcome.postponed]
            if not paths:
                break
        if dice.random() < 0.3:
            well(rig.bring(ROOT, scope=Scope.TREE, content=False))
    rig.clean(rig.tree(content=True))
    last = rig.tree()
    rig.clean(last)
