"""What follows from exit codes, and from what functions answer: it ends, or goes on, as the distribution's lsyncd."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.frontends.lsyncd.conftest import Start
from tests.frontends.lsyncd.daemon import DEBIANS, OURS, Daemon
from tests.system.daemon_process import wait_until

pytestmark = pytest.mark.skipif(DEBIANS is None, reason="needs lsyncd")

CONFIG = """settings{ nodaemon=true, INSIST }
sync{ source="@/s", target="@/t", delay=0, maxProcesses=1,
    init=function(event) spawn(event, "/bin/sh", "-c", [[INIT]]) end,
    onCreate=[[^echo ^path >> @/ran; RUN]], exitcodes=CODES, MORE }
"""
ONCE = "test -e @/once || { : > @/once; exit 12; }"
RSYNCS = "default.rsyncExitCodes"
GOES_ON = -1
PAUSE_S = 0.1
"""Between two changes; more of them would only slow down those who look."""

CASES = {
    "init: die": ({"INIT": "exit 1", "CODES": RSYNCS}, 255),
    "init: again": ({"INIT": "exit 12", "CODES": RSYNCS}, 255),
    "init: unknown": ({"INIT": "exit 99", "CODES": RSYNCS}, 255),
    "init: ok": ({"INIT": "exit 24", "CODES": RSYNCS}, GOES_ON),
    "init: insist": ({"INIT": ONCE, "CODES": RSYNCS, "INSIST": "insist=true"}, GOES_ON),
    "die": ({"RUN": "exit 3", "CODES": '{ [0]="ok", [3]="die" }'}, 255),
    "ok": ({"RUN": "exit 3", "CODES": '{ [0]="ok", [3]="ok" }'}, GOES_ON),
    "again": ({"RUN": ONCE, "CODES": RSYNCS}, GOES_ON),
    "unknown": ({"RUN": "exit 99", "CODES": RSYNCS}, 255),
    "collect: die": ({"MORE": 'collect=function(e) return e.etype == "Create" and "die" or "ok" end'}, 255),
    "collect: nothing": ({"RUN": "exit 5", "MORE": "collect=function() end"}, GOES_ON),
    "collect: terminate": ({"MORE": 'collect=function(e) if e.etype == "Create" then terminate(7) end end'}, 7),
    "a wrong call": ({"MORE": 'collect=function(e) if e.etype == "Create" then e.none() end end'}, 255),
}
"""What is put into the configuration, and the exit status."""


def test_what_ends_it(start: Start, tmp_path: Path) -> None:
    running: dict[tuple[str, str], tuple[Path, Daemon]] = {}
    for number, (case, (values, _)) in enumerate(CASES.items()):
        text = CONFIG
        for name, usual in (("INIT", "true"), ("RUN", "true"), ("CODES", "nil"), ("MORE", ""), ("INSIST", "")):
            text = text.replace(name, values.get(name, usual))
        for side, program in (("ours", OURS), ("theirs", (str(DEBIANS),))):
            top = tmp_path / f"{side}{number}"
            (top / "s").mkdir(parents=True)
            running[case, side] = top, start(config=text, program=program, top=top)
    found: dict[tuple[str, str], int] = {}
    made, made_s = 0, 0.0

    def decided() -> bool:
        """Something happens until the one has ended, or something else was done after it."""
        nonlocal made, made_s
        makes = time.monotonic() >= made_s + PAUSE_S
        if makes:
            made, made_s = made + 1, time.monotonic()
        for (case, side), (top, daemon) in running.items():
            if (case, side) in found:
                continue
            if makes:
                (top / f"s/{made}").mkdir()
            status = daemon.process.poll()
            if status is not None:
                found[case, side] = status
            elif (top / "ran").exists() and len(set((top / "ran").read_text().split())) > 1:
                found[case, side] = GOES_ON
        return len(found) == len(running)

    try:
        wait_until(decided, "all of them")
    finally:
        assert found == {(case, side): end for case, (_, end) in CASES.items() for side in ("ours", "theirs")}
