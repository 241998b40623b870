"""What ``instep check`` shows, and its exit status."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from instep.frontends.instep.checked import as_json, as_text
from instep.frontends.instep.main import main
from instep.frontends.instep.usage import WIDTH
from instep.inspection import Finding, Inspection, Verdict
from instep.rules import Preserve
from instep.spec import EngineName, MirrorSpec

GOOD = Finding("clock", Verdict.GOOD, "agrees with ours")
LOST = Finding("owners", Verdict.LOST, "Operation not permitted", "files belong to www")
BAD = Finding("writing", Verdict.BAD, "Permission denied", "let www write there")


def test_a_table_for_people() -> None:
    names = tuple(f"ability number {number}" for number in range(12))
    text = as_text(Inspection(b"h:/\x1b[2J\n", (GOOD, LOST), "remote", "python3 3.11.2 is there", names))
    assert text.split("\n")[0] == "h:/\\x1b[2J\\n"
    assert "owners  not kept  Operation not permitted; files belong to www" in text
    assert "engine  ok        remote: python3 3.11.2 is there" in text
    assert text.endswith("works, and does not keep: owners.")
    assert all(len(line) <= WIDTH for line in text.split("\n"))
    assert as_text(Inspection(b"h:/", (GOOD, BAD))).endswith("A mirror to it cannot work.")
    assert as_text(Inspection(b"h:/", (GOOD,), "rsync", "asked for")).endswith("keeps everything that was tried.")


def test_a_line_for_scripts() -> None:
    answer = json.loads(as_json(Inspection(b"h:/\xff", (GOOD, LOST), "remote", "why", ("modes",))))
    assert (answer["usable"], answer["engine"], answer["not_kept"], answer["kept"]) == (
        True,
        "remote",
        ["owners"],
        ["modes"],
    )
    assert answer["findings"][1] == {
        "name": "owners", "verdict": "not kept", "value": "Operation not permitted", "note": "files belong to www"
    }  # fmt: skip
    assert json.loads(as_json(Inspection(b"h:/", (BAD,))))["engine"] is None


def never(*_: object, **__: object) -> int:
    pytest.fail("nothing is to be mirrored")


@pytest.mark.parametrize(("findings", "status"), [([GOOD], 0), ([GOOD, LOST], 1), ([LOST, BAD], 2)])
def test_the_worst_target_decides(findings: Sequence[Finding], status: int, capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[MirrorSpec] = []

    def inspect(spec: MirrorSpec) -> Sequence[Inspection]:
        asked.append(spec)
        return [Inspection(spec.targets[0].address, (GOOD,)), Inspection(b"h:/b", tuple(findings))]

    argv = ["check", "--engine=rsync", "--no-owner", "--ssh=ssh -p 2", "/a", "h:/b"]
    assert main(argv, run=never, inspect=inspect) == status
    (spec,) = asked
    assert [target.address for target in spec.targets] == [b"/a", b"h:/b"]
    assert spec.targets[0].engine is EngineName.RSYNC
    assert (spec.preserve, spec.ssh) == (Preserve(owner=False), (b"ssh", b"-p", b"2"))
    assert capsys.readouterr().out.count("A mirror to it") == 2
