"""What has to be done with one name, from what lstat said of both sides."""

from __future__ import annotations

import os
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instep.core.reconcile import Step, step

S = 10**9
THEN_NS = 1_500_000_000 * S + 123_456_789
KINDS = [stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK]


def info(
    kind: int = stat.S_IFREG,
    *,
    mode: int = 0o644,
    size: int = 10,
    uid: int = 1,
    gid: int = 2,
    mtime_ns: int = THEN_NS,
    ctime_ns: int = THEN_NS,
    rdev: int = 0,
) -> os.stat_result:
    values = {"st_mtime_ns": mtime_ns, "st_ctime_ns": ctime_ns, "st_rdev": rdev}
    return os.stat_result((kind | mode, 1, 1, 1, uid, gid, size, 0, mtime_ns // S, ctime_ns // S), values)


LATER = THEN_NS + 1
OURS = info()
THEIRS = info(ctime_ns=LATER)


def test_fields_arrive() -> None:
    """The stand-in for lstat's result says what it was given."""
    made = info(rdev=7, ctime_ns=LATER)
    assert (made.st_rdev, made.st_ctime_ns, made.st_mtime_ns, made.st_uid, made.st_size) == (7, LATER, THEN_NS, 1, 10)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("content", [True, False])
def test_absent(kind: int, content: bool) -> None:
    assert step(info(kind), None, content=content) is Step.WRITE


@pytest.mark.parametrize("ours", KINDS)
@pytest.mark.parametrize("theirs", KINDS)
def test_another_type(ours: int, theirs: int) -> None:
    found = step(info(ours), info(theirs, ctime_ns=LATER), content=False)
    assert (found is Step.REPLACE) == (ours != theirs)


@pytest.mark.parametrize(
    ("ours", "theirs", "content", "expected"),
    [
        (OURS, THEIRS, False, Step.KEEP),
        (OURS, THEIRS, True, Step.COMPARE),
        (info(size=11), THEIRS, False, Step.WRITE),
        (info(mtime_ns=THEN_NS + 1), THEIRS, False, Step.WRITE),
        (info(mtime_ns=THEN_NS - S), THEIRS, False, Step.WRITE),
        # The source's inode was touched after the target's: content may have changed under the old time.
        (info(ctime_ns=LATER + 1), THEIRS, False, Step.COMPARE),
        (info(ctime_ns=LATER), THEIRS, False, Step.COMPARE),  # in the same tick
        (info(mode=0o600), THEIRS, False, Step.ATTRIBUTES),
        (info(uid=9), THEIRS, False, Step.ATTRIBUTES),
        (info(gid=9), THEIRS, False, Step.ATTRIBUTES),
        (info(mode=0o600), THEIRS, True, Step.COMPARE),
        # A target that keeps milliseconds, or whole seconds, cannot hold the time.
        (OURS, info(mtime_ns=THEN_NS // 10**6 * 10**6, ctime_ns=LATER), False, Step.COMPARE),
        (OURS, info(mtime_ns=THEN_NS // S * S, ctime_ns=LATER), False, Step.COMPARE),
        (OURS, info(mtime_ns=(THEN_NS // S - 1) * S, ctime_ns=LATER), False, Step.WRITE),
    ],
)
def test_files(ours: os.stat_result, theirs: os.stat_result, content: bool, expected: Step) -> None:
    assert step(ours, theirs, content=content) is expected


@pytest.mark.parametrize("kind", [stat.S_IFCHR, stat.S_IFBLK])
def test_devices(kind: int) -> None:
    ours = info(kind, rdev=os.makedev(1, 3))
    assert step(ours, info(kind, rdev=os.makedev(1, 5)), content=False) is Step.WRITE
    assert step(ours, info(kind, rdev=os.makedev(1, 3)), content=True) is Step.KEEP


def test_links_are_for_the_caller_to_compare() -> None:
    assert step(info(stat.S_IFLNK), info(stat.S_IFLNK, ctime_ns=LATER), content=False) is Step.COMPARE


@pytest.mark.parametrize("kind", [stat.S_IFDIR, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR])
def test_attributes_of_what_has_no_content(kind: int) -> None:
    assert step(info(kind), info(kind), content=True) is Step.KEEP
    assert step(info(kind), info(kind, mode=0o700), content=False) is Step.ATTRIBUTES
    assert step(info(kind), info(kind, uid=0), content=False) is Step.ATTRIBUTES
    assert step(info(kind), info(kind, mtime_ns=LATER), content=False) is Step.ATTRIBUTES


small = st.integers(0, 2)
infos = st.builds(
    info,
    st.sampled_from(KINDS),
    mode=st.sampled_from([0o600, 0o644]),
    size=small,
    uid=small,
    gid=small,
    mtime_ns=st.sampled_from([THEN_NS, THEN_NS + 1, THEN_NS // S * S]),
    ctime_ns=small,
    rdev=small,
)


@given(infos, infos, st.booleans())
def test_kept_means_equal(ours: os.stat_result, theirs: os.stat_result, content: bool) -> None:
    """Nothing that differs is ever kept, and doubt about content is never settled by attributes alone."""
    found = step(ours, theirs, content=content)
    if found is Step.KEEP:
        assert ours.st_mode == theirs.st_mode
        assert (ours.st_uid, ours.st_gid) == (theirs.st_uid, theirs.st_gid)
        assert ours.st_mtime_ns == theirs.st_mtime_ns
    if found in (Step.KEEP, Step.ATTRIBUTES) and stat.S_ISREG(ours.st_mode):
        assert not content
        assert ours.st_size == theirs.st_size
        assert ours.st_mtime_ns == theirs.st_mtime_ns
        assert ours.st_ctime_ns < theirs.st_ctime_ns


@given(infos)
def test_a_name_equals_itself_once_it_is_older(ours: os.stat_result) -> None:
    kind = stat.S_IFMT(ours.st_mode)
    theirs = info(
        kind,
        mode=stat.S_IMODE(ours.st_mode),
        size=ours.st_size,
        uid=ours.st_uid,
        gid=ours.st_gid,
        mtime_ns=ours.st_mtime_ns,
        ctime_ns=ours.st_ctime_ns + 1,
        rdev=ours.st_rdev,
    )
    assert step(ours, theirs, content=False) is (Step.COMPARE if kind == stat.S_IFLNK else Step.KEEP)
