"""Whatever the two trees are, they are equal afterwards."""

from __future__ import annotations

import os
import shutil
import tempfile

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from instep.paths import Scope
from tests.engines.native.rig import Rig, well, write
from tests.trees import assert_equal

NAMES = [b"a", b"b", b"c"]
PATHS = [b"/".join(parts) for one in NAMES for parts in ((one,), (one, b"a"), (one, b"b"), (one, b"a", b"a"))]
TIMES_NS = [1_000_000_000 * 10**9, 1_000_000_000 * 10**9 + 1]

edits = st.lists(
    st.tuples(
        st.sampled_from(["file", "file", "directory", "link", "hard", "fifo", "remove", "rename", "chmod"]),
        st.sampled_from(PATHS),
        st.sampled_from(PATHS),
        st.sampled_from([b"x", b"y", b"longer"]),
        st.sampled_from(TIMES_NS),
    ),
    max_size=12,
)
Edits = list[tuple[str, bytes, bytes, bytes, int]]


def _clear(path: bytes) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def apply(root: bytes, todo: Edits) -> list[tuple[bytes, Scope]]:
    """Edit a tree; returns what a monitor would report, one name at a time."""
    reports: list[tuple[bytes, Scope]] = []
    for kind, path, other, data, time_ns in todo:
        whole, second = os.path.join(root, path), os.path.join(root, other)
        if not os.path.isdir(os.path.dirname(whole)) or os.path.islink(os.path.dirname(whole)):
            continue
        if kind == "file":
            if not os.path.isdir(whole) and not (os.path.lexists(whole) and not os.path.isfile(whole)):
                write(whole, data, mtime_ns=time_ns)  # through every name that it has
                number = os.stat(whole).st_ino
                reports += [
                    (p, Scope.ENTRY)
                    for p in PATHS
                    if os.path.lexists(os.path.join(root, p)) and os.lstat(os.path.join(root, p)).st_ino == number
                ][:1]
            reports.append((path, Scope.ENTRY))
        elif kind == "directory":
            if not os.path.lexists(whole):
                os.mkdir(whole, 0o755)
            reports.append((path, Scope.TREE))
        elif kind == "link":
            _clear(whole)
            os.symlink(data, whole)
            reports.append((path, Scope.ENTRY))
        elif kind == "fifo":
            _clear(whole)
            os.mkfifo(whole, 0o600)
            reports.append((path, Scope.ENTRY))
        elif kind == "hard":
            if os.path.isfile(second) and not os.path.islink(second) and not os.path.lexists(whole):
                os.link(second, whole)
            reports.append((path, Scope.ENTRY))
        elif kind == "remove":
            _clear(whole)
            reports.append((path, Scope.ENTRY))
        elif kind == "rename":
            parent = os.path.dirname(second)
            inside = other == path or other.startswith(path + b"/")
            inside |= path.startswith(other + b"/")
            if os.path.lexists(whole) and os.path.isdir(parent) and not os.path.islink(parent) and not inside:
                _clear(second)
                os.rename(whole, second)
            reports += [(path, Scope.TREE), (other, Scope.TREE)]
        elif kind == "chmod":
            if os.path.lexists(whole) and not os.path.islink(whole):
                os.chmod(whole, 0o700 if data == b"x" else 0o755)
            reports.append((path, Scope.ENTRY))
    return reports


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=60)
@given(ours=edits, theirs=edits, later=edits)
def test_equal_at_rest(ours: Edits, theirs: Edits, later: Edits) -> None:
    """One comparison makes any target equal; exact reports keep it so."""
    base = os.fsencode(tempfile.mkdtemp(prefix="instep-native-", dir="/dev/shm"))
    try:
        with Rig(base) as rig:
            apply(rig.src, ours)
            apply(rig.dst, theirs)
            # What the target looked like was not brought there by us: only content can tell.
            well(rig.tree(content=True, now=True))
            assert_equal(rig.src, rig.dst)
            for path, scope in apply(rig.src, later):
                well(rig.bring(path, scope=scope))
            assert_equal(rig.src, rig.dst)
    finally:
        shutil.rmtree(base)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=60)
@example(first=[("file", b"a", b"a", b"x", TIMES_NS[0])], second=[("file", b"a", b"a", b"y", TIMES_NS[0])])
@given(first=edits, second=edits)
def test_a_restart_finds_everything(first: Edits, second: Edits) -> None:
    """What changed while nobody watched is found by times alone, same sizes and times or not."""
    base = os.fsencode(tempfile.mkdtemp(prefix="instep-native-", dir="/dev/shm"))
    try:
        with Rig(base) as rig:
            apply(rig.src, first)
            well(rig.tree(now=True))
            apply(rig.src, [edit for edit in second if edit[0] != "rename"])
            well(rig.tree(now=True))
            assert_equal(rig.src, rig.dst)
    finally:
        shutil.rmtree(base)
