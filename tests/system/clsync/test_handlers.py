"""What handlers and hooks find around them: number of the iteration, directory, ids, streams; as with the original."""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.original_clsync import TRIES, is_installed
from tests.system.clsync.programs import OURS, THEIRS, Desk, running

DIRECT = "-Mdirect -D@/dst"
Play = Callable[[Desk, Sequence[str]], object]


def side_by_side(top: Path, plays: Mapping[str, Play]) -> dict[str, list[object]]:
    """For each play what is found with our program, and with the original where it is installed; all at once."""

    def one(number: int, play: Play, program: Sequence[str]) -> object:
        tries = 1 if program is OURS else TRIES
        for attempt in range(1, tries + 1):
            place = top / f"{number}-{'ours' if program is OURS else 'theirs'}-{attempt}"
            try:
                return play(Desk(place, tree="mkdir d; touch a d/b"), program)
            except AssertionError:
                if attempt == tries:
                    raise
        raise AssertionError

    programs = [OURS, *([THEIRS] if is_installed() else [])]
    with ThreadPoolExecutor(len(plays) * len(programs)) as pool:
        found = {
            name: [pool.submit(one, number, play, program) for program in programs]
            for number, (name, play) in enumerate(plays.items())
        }
        return {name: [each.result() for each in some] for name, some in found.items()}


# Each step is one event, so that it is one run whoever is slow.
STEPS = ("chmod 600 a", "mkdir n", "chmod 644 a")
ITERATIONS = {
    # options: in the initial sync, then in each step
    "-Mshell": ["1", "2", "4", "5"],
    DIRECT: ["1", "2", "4", "5"],
    "-Mrsyncshell": ["1", "2", "4", "5"],
    "-Msimple": ["0", "1", "1", "2"],
    # A recursive call is a run, and no walk.
    "-Mshell --have-recursive-sync": ["0", "1", "2", "3"],
    "-Msimple --have-recursive-sync": ["0", "1", "1", "2"],
    f"{DIRECT} --skip-initialsync": ["0", "2", "3"],
    # Runs overlap, so there is no number of the present one.
    "-Mshell -psafe": ["unset"] * 4,
}
ORIGINAL = {f"{DIRECT} --skip-initialsync": ["unset", "2", "3"]}


def iterations(desk: Desk, program: Sequence[str], options: str) -> list[str]:
    found = []
    with running(
        desk, f"-W@/src -S@/handler -w1 -t1 {options} -u{os.geteuid()} -g{os.getegid()}", program=program
    ) as it:
        count = 0
        if "skip" in options:
            it.watching()
        else:
            count = 4 if options == "-Msimple" else 1
            found.append(it.runs(count)[count - 1].iteration)
        for step in STEPS:
            it.watching()
            desk.sh(step)
            count += 1
            found.append(it.runs(count)[count - 1].iteration)
        assert len(desk.told()) == count
    return found


def test_the_number_of_the_iteration(tmp_path: Path) -> None:
    found = side_by_side(tmp_path, {options: functools.partial(iterations, options=options) for options in ITERATIONS})
    for options, expected in ITERATIONS.items():
        assert found[options] in ([expected], [expected, ORIGINAL.get(options, expected)]), options


AROUND = """
exec 2>&1 > @/around$$
pwd; id -u; id -g; umask; readlink /proc/self/fd/0 /proc/self/fd/2; echo "in: $(cat)"; echo "$TOP"; ls /proc/$$/fd
mv @/around$$ @/around
"""
FACTS = 8


def around(desk: Desk, program: Sequence[str]) -> tuple[list[str], set[str]]:
    desk.program("handler", AROUND)
    with running(desk, f"-W@/src -S@/handler {DIRECT} --only-initialsync", program=program) as it:
        assert it.ended() == 0
    lines = (desk.top / "around").read_text().replace(str(desk.top), "@").split("\n")[:-1]
    return lines[:FACTS], set(lines[FACTS:])


def test_what_is_around_a_handler(tmp_path: Path) -> None:
    """The watched directory; who it was started as; the streams and the environment of the start, and no descriptors."""
    desk = Desk(tmp_path / "ours", tree="mkdir d; touch a d/b")
    ours, descriptors = around(desk, OURS)
    assert ours == ["@/src", str(os.geteuid()), str(os.getegid()), "0022", "@/log.in", "@/log", "in: ", "@"]
    assert descriptors == {"0", "1", "2", "10"}  # The last is the shell's own.
    if is_installed():
        theirs = side_by_side(tmp_path, {"": lambda desk, program: around(desk, program)[0]})[""][1]
        assert theirs == ours


# options and signal; status and iteration of the hooks; the same of the original where it says another
ENDS: dict[tuple[str, int], tuple[str, str]] = {
    ("--exit-on-no-events", 0): ("preexit 2, exiting 2", ""),
    ("--only-initialsync", 0): ("exiting 2", "initsync 2"),
    ("--max-iterations=2", 0): ("exiting 2", "initsync 2"),
    ("", signal.SIGTERM): ("exiting 3", ""),
    ("", signal.SIGINT): ("exiting 3", ""),
    ("", signal.SIGQUIT): ("preexit 3, exiting 3", ""),
}


def hooks(desk: Desk, program: Sequence[str], *, end: tuple[str, int]) -> str:
    options, number = end
    hook = desk.program("hook", "id -u >> @/who; pwd >> @/who; exit 7")
    hook.rename(desk.src / "hook")
    words = f"-W@/src -S@/handler -w0 -t0 {DIRECT} -l%PID%x --exit-hook=./hook --pre-exit-hook=./hook {options}"
    with running(desk, words, program=program) as it:
        if number:
            it.runs(1)
            it.watching()
            desk.sh("chmod 600 a")
            it.runs(2)
            last = (desk.record / "order").read_text().split()[-1]
            it.wait(lambda: not Path(f"/proc/{last}").exists(), "the end of the run")
            it.process.send_signal(number)
        assert it.ended() == 0
        runs = [run for run in desk.told() if run.words == (f"{it.process.pid}x",)]
    who = (desk.top / "who").read_text().split("\n")[:-1]
    assert who == [str(os.geteuid()), str(desk.src)] * len(runs)
    return ", ".join(f"{run.status} {run.iteration}" for run in runs)


def test_hooks(tmp_path: Path) -> None:
    """They lie in the watched directory, get the label, and are run as handlers are; how they end does not matter."""
    found = side_by_side(tmp_path, {repr(end): functools.partial(hooks, end=end) for end in ENDS})
    for end, (expected, original) in ENDS.items():
        assert found[repr(end)] in ([expected], [expected, original or expected]), end
