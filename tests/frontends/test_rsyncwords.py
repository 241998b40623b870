"""rsync's options in the terms of a mirror."""

from __future__ import annotations

import math
import shlex

import pytest

from instep.errors import UsageError
from instep.frontends.rsyncwords import NOTHING, Wish, rate_bytes, wish
from instep.spec import RuleSource

ARCHIVE = NOTHING._replace(mode=True, times=True, owner=True, devices=True)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", Wish()),
        ("-a", Wish(ARCHIVE)),
        ("-rlptgoD --delete -v --stats --progress", Wish(ARCHIVE)),
        ("--archive --hard-links --acls -XS", Wish(ARCHIVE._replace(hard_links=True, acls=True, xattrs=True, sparse=True))),
        ("-g", Wish(extra=(b"-g",), alters=True)),
        ("-tz --rsh='ssh -p 22'", Wish(NOTHING._replace(times=True), extra=(b"-z", b"--rsh=ssh -p 22"))),
        ("-e 'ssh -x'", Wish(extra=(b"-essh -x",))),
        ("-essh", Wish(extra=(b"-essh",))),
        ("--rsh ssh --omit-dir-times", Wish(extra=(b"--rsh=ssh", b"--omit-dir-times"), alters=True)),
        ("--exclude=a --exclude b --include-from=/f", Wish(
            rules=(RuleSource(False, b"a"), RuleSource(False, b"b"), RuleSource(True, b"/f", is_file=True)))),
        ("--bwlimit=100 -xn --delete-excluded",
            Wish(bandwidth_bytes_per_s=102400, one_file_system=True, dry_run=True, delete_excluded=True)),
        ("-P", Wish()),
    ],
)  # fmt: skip
def test_words(words: str, expected: Wish) -> None:
    assert wish(shlex.split(words), origin="extra") == expected


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--files-from=x", "extra: --files-from: "),
        ("-f x", "extra: -f: "),
        ("--rsh", "extra: --rsh needs a value"),
        ("-e", "extra: -e needs a value"),
        ("/path", "extra: /path is no option"),
        ("--", "extra: -- is no option"),
        ("--remove-source-files", "does not change its source"),
    ],
)
def test_what_cannot_be_honoured(words: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        wish(shlex.split(words), origin="extra")


@pytest.mark.parametrize(
    ("text", "rate"), [("0", math.inf), ("1", 1024), ("1.5m", 1.5 * (1 << 20)), ("2G", 2 << 30), ("x", None)]
)
def test_rates(text: str, rate: float | None) -> None:
    assert rate_bytes(text) == rate
