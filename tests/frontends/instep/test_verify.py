"""``instep verify`` as a command line: what is asked for, and how it is answered."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest

from instep.frontends.instep.findings import Findings
from instep.frontends.instep.kinds import Every
from instep.frontends.instep.main import main
from instep.model import Aspect, Difference, Verified
from instep.paths import RelPath
from instep.spec import Rounds, VerificationSpec

MODE = Difference(RelPath(b"a\nb"), Aspect.MODE | Aspect.OWNER, "mode 0644, at the target 0600")
LINK = Difference(RelPath(b"\xff"), Aspect.HARD_LINK, "the same file as x\ny", other=RelPath(b"x\ny"))


class Verifying:
    """Stands in for the daemon."""

    def __init__(self, *found: Difference, status: int = 0) -> None:
        self.found = found
        self.status = status
        self.specs: list[VerificationSpec] = []

    def __call__(self, spec: VerificationSpec, findings: Findings) -> int:
        self.specs.append(spec)
        for one in self.found:
            findings.differs("/t", one)
        findings.verified("/t", Verified(entries=1234, differences=len(self.found), seconds=0.04))
        return self.status


def never(*_: object, **__: object) -> int:
    pytest.fail("no mirror was asked for")


@pytest.fixture
def places(tmp_path: Path) -> list[str]:
    for name in "st":
        (tmp_path / name).mkdir()
    return [str(tmp_path / "s"), str(tmp_path / "t")]


def test_options_are_those_of_the_mirror_and_its_own(places: list[str]) -> None:
    verifying = Verifying(status=1)
    words = ["verify", "--checksum", "--exclude=*.o", "-x", "--no-owner", "--bwlimit=1M", *places]
    assert main(words, run=never, verify=verifying) == 1
    (spec,) = verifying.specs
    assert (spec.checksum, spec.repair) == (True, False)
    assert [rule.pattern for rule in spec.mirror.rules] == [b"*.o"]
    assert spec.mirror.one_file_system
    assert not spec.mirror.preserve.owner
    assert spec.mirror.bandwidth_bytes_per_s == 1 << 20
    assert spec.mirror.source == os.fsencode(places[0])
    assert main(["verify", "--repair", *places], run=never, verify=verifying) == 1
    assert verifying.specs[1].repair


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--quiet-time=3"], "error[unknown-option]: unknown option --quiet-time"),
        (["--once"], "error[unknown-option]: unknown option --once"),
        (["--checksum=1"], "error[bad-value]: --checksum=1: it takes no value"),
        (["--format=xml"], "error[bad-value]: --format=xml: expected one of text, json"),
    ],
)
def test_refused(words: list[str], said: str, places: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", *words, *places], run=never, verify=Verifying()) == 2
    assert capsys.readouterr().err.startswith(said)


def test_places_are_refused_with_this_commands_usage(places: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", places[0]], run=never, verify=Verifying()) == 2
    assert "fix: instep verify [OPTION...] SOURCE TARGET [TARGET...]\n" in capsys.readouterr().err
    assert main(["verify", places[0], places[0]], run=never, verify=Verifying()) == 2
    assert "error[same-directory]" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_target_need_only_be_writable_for_a_repair(places: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    os.chmod(places[1], 0o500)
    assert main(["verify", *places], run=never, verify=Verifying()) == 0
    assert main(["verify", "--repair", *places], run=never, verify=Verifying()) == 2
    assert "error[target-not-writable]" in capsys.readouterr().err


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--help"], run=never) == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: instep verify [OPTION...] SOURCE TARGET [TARGET...]\n")
    for word in ("--checksum", "--repair", "--format", "--exclude", "--no-xattrs", "--bwlimit", "Exit status"):
        assert word in text
    assert "--once" not in text
    assert all(len(line) <= 110 for line in text.split("\n"))


def test_findings_as_text(places: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", *places], run=never, verify=Verifying(MODE, LINK, status=1)) == 1
    assert capsys.readouterr().out.split("\n") == [
        "differs a\\nb: mode 0644, at the target 0600",
        "differs \\xff: the same file as x\\ny",
        "verified /t: 1,234 entries, 2 differences, 0.0 s",
        "",
    ]


def test_findings_as_json(places: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--format=json", *places], run=never, verify=Verifying(MODE, LINK, status=1)) == 1
    mode, link, summary = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert mode == {
        "event": "differs",
        "target": "/t",
        "path": "a\nb",
        "what": ["mode", "owner"],
        "text": "mode 0644, at the target 0600",
    }
    assert (link["path"], link["path_base64"], link["other"]) == ("\\xff", "/w==", "x\ny")
    assert summary == {
        "event": "verified",
        "target": "/t",
        "entries": 1234,
        "differences": 2,
        "changing": 0,
        "seconds": 0.04,
    }


def test_several_targets_and_a_repair() -> None:
    stream = io.StringIO()
    findings = Findings(stream, as_json=False, many=True, repair=True)
    findings.differs("/t 1", MODE)
    findings.left("/t 1", MODE)
    findings.differs("/t 1", Difference(RelPath(b""), Aspect.TIME, "time"))
    findings.verified("/t 1", Verified(5, 2, 1, 3, 61.25))
    assert stream.getvalue().split("\n") == [
        "differs /t 1: a\\nb: mode 0644, at the target 0600",
        "still differs /t 1: a\\nb: mode 0644, at the target 0600",
        "differs /t 1: .: time",
        "verified /t 1: 5 entries, 2 differences, 1 repaired, 3 not judged, for they kept changing, 61.2 s",
        "",
    ]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("off", None),
        ("every=6h", Rounds(21600.0)),
        ("every=90,checksum", Rounds(90.0, checksum=True)),
        ("every=500ms", Rounds(0.5)),
    ],
)
def test_rounds(text: str, value: Rounds | None) -> None:
    kind = Every()
    assert kind.parse(text) == value
    assert kind.parse(kind.show(value)) == value


@pytest.mark.parametrize("text", ["", "6h", "every", "every=", "every=0", "every=1h,", "every=1h,all", "checksum"])
def test_rounds_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        Every().parse(text)
