"""What the facts mean: a pure decision."""

from __future__ import annotations

import pytest

from instep.engines.probe import far, judge
from instep.engines.probe.reach import Facts, taken_down
from instep.inspection import Finding, Verdict
from instep.rules import Preserve

GIB = 1 << 30


def good(**changed: object) -> Facts:
    facts = Facts(
        python="3.11.2",
        user="www",
        uid=33,
        rsync="rsync  version 3.2.7",
        directory="there",
        writable="",
        file_system="ext4",
        free_bytes=10 * GIB,
        size_bytes=20 * GIB,
        free_inodes=900,
        inodes=1000,
        abilities=dict.fromkeys(far.ABILITIES, ""),
    )
    for name, value in changed.items():
        setattr(facts, name, value)
    return facts


def lost(name: str, words: str = "Operation not permitted") -> dict[str, str]:
    return {**dict.fromkeys(far.ABILITIES, ""), name: words}


def judged(facts: Facts, preserve: Preserve | None = None, *, as_root: bool = True) -> dict[str, Finding]:
    return {finding.name: finding for finding in judge.findings(facts, preserve or Preserve(), as_root=as_root)}


def test_a_target_that_keeps_everything() -> None:
    assert {finding.verdict for finding in judged(good()).values()} == {Verdict.GOOD}
    assert judge.kept(good()) == far.ABILITIES


@pytest.mark.parametrize("ability", [a for a in far.ABILITIES if a not in ("renames", "late times", "sparse files")])
def test_each_ability_that_lacks_is_a_loss(ability: str) -> None:
    # A group can only matter where owners are not given at all.
    abilities = lost(ability) | ({"owners": "no"} if ability == "groups" else {})
    found = judged(good(abilities=abilities))[ability]
    assert found.verdict is Verdict.LOST
    assert found.note
    assert ability not in judge.kept(good(abilities=abilities))


def test_without_renames_nothing_works() -> None:
    assert judged(good(abilities=lost("renames")))["renames"].verdict is Verdict.BAD


@pytest.mark.parametrize(
    ("ability", "preserve"),
    [
        ("owners", Preserve(owner=False)),
        ("modes", Preserve(mode=False)),
        ("times", Preserve(times=False)),
        ("xattrs", Preserve(xattrs=False)),
        ("ACLs", Preserve(acls=False)),
        ("hard links", Preserve(hard_links=False)),
        ("devices", Preserve(devices=False)),
    ],
)
def test_what_is_not_to_be_kept_is_no_loss(ability: str, preserve: Preserve) -> None:
    assert ability in judged(good(abilities=lost(ability)))
    assert ability not in judged(good(abilities=lost(ability)), preserve)


def test_what_only_root_has_is_no_loss_to_others() -> None:
    for ability in ("devices", "trusted xattrs"):
        assert ability not in judged(good(abilities=lost(ability)), as_root=False)


@pytest.mark.parametrize(
    ("changed", "name", "verdict", "words"),
    [
        ({"directory": "missing"}, "directory", Verdict.GOOD, "not there yet"),
        ({"directory": "nowhere"}, "directory", Verdict.BAD, "nor is the one"),
        ({"directory": "no directory"}, "directory", Verdict.BAD, "not a directory"),
        ({"directory": "dangling"}, "directory", Verdict.BAD, "leads nowhere"),
        ({"trouble": "Permission denied"}, "directory", Verdict.BAD, "Permission denied"),
        ({"writable": "Permission denied"}, "writing", Verdict.BAD, "Permission denied"),
        ({"read_only": True, "writable": "x"}, "writing", Verdict.BAD, "read-only"),
        ({"python": ""}, "python3", Verdict.NOTE, "not found"),
        ({"python": "3.6.8"}, "python3", Verdict.NOTE, "3.6.8"),
        ({"python": "3.8.0"}, "python3", Verdict.GOOD, "3.8.0"),
        ({"python": "3.13.0rc1"}, "python3", Verdict.GOOD, "3.13.0rc1"),
        ({"python": "nonsense"}, "python3", Verdict.NOTE, "nonsense"),
        ({"rsync": ""}, "rsync", Verdict.NOTE, "not found"),
        ({"free_bytes": GIB // 100}, "space", Verdict.NOTE, "of 20 GiB"),
        ({"free_inodes": 3}, "inodes", Verdict.NOTE, "3 of 1,000"),
        ({"clock_s": 0.0004, "round_trip_s": 0.0003}, "clock", Verdict.GOOD, "agrees"),
        ({"clock_s": -0.2, "round_trip_s": 0.0003}, "clock", Verdict.GOOD, "0.2 s behind"),
        ({"clock_s": 0.2, "round_trip_s": 0.3}, "clock", Verdict.GOOD, "agrees"),
        ({"clock_s": 3600.0, "round_trip_s": 0.01}, "clock", Verdict.NOTE, "3.6e+03 s ahead"),
    ],
)
def test_one_fact(changed: dict[str, object], name: str, verdict: Verdict, words: str) -> None:
    found = judged(good(**changed))[name]
    assert (found.verdict, words in found.value) == (verdict, True), found


def test_what_nobody_could_tell_is_not_shown() -> None:
    assert set(judged(Facts())) == {"python3", "rsync"}


@pytest.mark.parametrize(
    "said",
    [
        None,
        [],
        "text",
        {"uid": -1, "free_bytes": 2**64, "inodes": "5", "directory": 3, "abilities": []},
        {"uid": True, "abilities": {"owners": 1, "no such thing": "", 3: ""}, "writable": 0, "read_only": 1},
        {"user": "x" * 10_000, "abilities": {"owners": "y" * 10_000}},
    ],
)
def test_an_answer_is_believed_only_where_it_makes_sense(said: object) -> None:
    facts = taken_down(said)
    assert (facts.free_bytes, facts.inodes, facts.writable, facts.read_only) == (None, None, None, False)
    assert facts.directory == ""
    assert set(facts.abilities) <= {"owners"}
    assert all(len(words) <= 300 for words in (facts.user, *facts.abilities.values()))
    judged(facts)
