"""The unit for systemd: it is one, and does not stand in the way of what clsync does."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples/systemd"
UNIT = EXAMPLES / "clsync@.service"


@pytest.fixture
def unit() -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(delimiters=("=",), comment_prefixes=("#",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # as its documentation says
    parser.read(UNIT)
    return parser


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_understands_all_of_it(tmp_path: Path) -> None:
    # clsync need not be installed for this.
    (tmp_path / UNIT.name).write_text(UNIT.read_text().replace("/usr/bin/clsync", sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", f"./{UNIT.name}"],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert [line for line in done.stderr.splitlines() if UNIT.name in line] == []
    assert done.returncode == 0


def test_it_waits_for_the_word_and_stays_in_the_foreground(unit: configparser.RawConfigParser) -> None:
    service = unit["Service"]
    assert service["Type"] == "notify"
    assert service["ExecStart"] == "/usr/bin/clsync -K %i $CLSYNC_ARGS_SYSTEMD"
    assert "-b0" in service["Environment"]


def test_what_handlers_need_is_not_taken_away(unit: configparser.RawConfigParser) -> None:
    for hidden in (
        "ProtectHome",
        "ProtectSystem",
        "PrivateTmp",
        "PrivateDevices",
        "RestrictSUIDSGID",
        "RestrictNamespaces",
    ):
        assert hidden not in unit["Service"]
    for needed in (
        "SETUID",
        "SETGID",
        "DAC_READ_SEARCH",
        "KILL",
        "CHOWN",
        "FOWNER",
        "MKNOD",
        "SYS_CHROOT",
        "SYS_ADMIN",
    ):
        assert f"CAP_{needed}" not in unit["Service"]["CapabilityBoundingSet"].split()


def test_the_defaults_are_those_of_the_unit(unit: configparser.RawConfigParser) -> None:
    shell = subprocess.run(
        ["sh", "-c", '. "$1" && printf %s "$CLSYNC_ARGS_SYSTEMD"', "sh", EXAMPLES / "clsync.default"],
        capture_output=True, text=True, check=True, env={"PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert unit["Service"]["Environment"] == f'CLSYNC_ARGS_SYSTEMD="{shell.stdout}"'
