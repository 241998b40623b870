"""What holds for modules of every kind: life, calls, crashes, time, signals."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from instep.engines.command.program import Interruption
from instep.engines.modules import process
from instep.engines.modules.module import Module
from instep.errors import ModuleRefused
from instep.model import Call, ListFile, ProgramEnd
from instep.spec import ModuleSpec
from tests.engines.modules.rig import HERE, compiled, environment, module, needs_compiler, spec, told
from tests.processes import lives
from tests.system.daemon_process import wait_until

Scene = Callable[[Module], Awaitable[object]]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    place = tmp_path_factory.mktemp("obedient")
    ready: dict[str, Path] = {}

    def of(kind: str) -> Path:
        if kind not in ready and kind == "C":
            ready[kind] = compiled(HERE / "obedient.c", place / "obedient.so")
        elif kind not in ready:
            ready[kind] = Path(shutil.copyfile(HERE / "obedient.py", place / "obedient.py"))
            ready[kind].chmod(0o644)
        return ready[kind]

    return of


@pytest.fixture(params=[pytest.param("C", marks=needs_compiler), "Python"])
def obedient(request: pytest.FixtureRequest, made: Callable[[str], Path], tmp_path: Path) -> ModuleSpec:
    return spec(made(request.param), tmp_path)


def played(what: ModuleSpec, scene: Scene) -> object:
    """The result of a scene with an open module."""

    async def play() -> object:
        one = module(what)
        await one.open()
        try:
            return await scene(one)
        finally:
            await one.close()

    return asyncio.run(play())


def ends(what: ModuleSpec, *calls: Call | str) -> list[ProgramEnd]:
    """How these calls end, one after the other."""

    async def scene(one: Module) -> list[ProgramEnd]:
        return [await one.call(told(call) if isinstance(call, str) else call) for call in calls]

    result = played(what, scene)
    assert isinstance(result, list)
    return result


async def until(condition: Callable[[], bool], what: str) -> None:
    await asyncio.to_thread(wait_until, condition, what)


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def test_calls_return_what_the_function_returns(obedient: ModuleSpec) -> None:
    assert ends(obedient, "return 0", "return 7", Call()) == [ProgramEnd(0), ProgramEnd(7), ProgramEnd(0)]


def test_it_lives_in_one_process_with_its_state(obedient: ModuleSpec) -> None:
    assert [end.status for end in ends(obedient, "calls", "calls", "calls")] == [1, 2, 3]


def test_init_and_deinit_are_called_once(obedient: ModuleSpec, tmp_path: Path) -> None:
    with environment(JOURNAL=str(tmp_path / "journal")):
        ends(obedient, "return 0", "return 0")
    assert lines(tmp_path / "journal") == ["init", "deinit"]


def test_an_init_that_refuses_gives_its_status(obedient: ModuleSpec) -> None:
    with environment(INIT="17"), pytest.raises(ModuleRefused, match="returned 17") as caught:
        ends(obedient)
    assert caught.value.status == 17


def test_list_files_are_there_for_the_call_alone(obedient: ModuleSpec, tmp_path: Path) -> None:
    include, exclude = os.fsencode(tmp_path / "include"), os.fsencode(tmp_path / "exclude")
    files = (ListFile(include, b"/a\n/b/***"), ListFile(exclude, b"/c\n", keep=True))
    what = spec(Path(os.fsdecode(obedient.path)), tmp_path, takes_lists=True)
    with environment(JOURNAL=str(tmp_path / "journal")):
        calls = (Call(include=include, exclude=exclude, files=files), Call(include=include, files=files[:1]))
        assert [end.status for end in ends(what, *calls)] == [0, 0]
    told_exclude = str(tmp_path / "exclude")
    assert lines(tmp_path / "journal") == ["init", "/a", "/b/***", told_exclude, "/a", "/b/***", "(none)", "deinit"]
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["exclude", "journal"]


def test_a_list_that_cannot_be_made_is_a_failed_call(obedient: ModuleSpec, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    (end,) = ends(obedient, told("return 0", files=(ListFile(os.fsencode(tmp_path / "taken"), b""),)))
    assert (end.status, end.trouble) == (127, "cannot make its list: File exists")
    assert (tmp_path / "taken").read_text() == "mine"


def test_a_large_request(obedient: ModuleSpec) -> None:
    event = told("return 5").events[0]
    assert ends(obedient, Call((event,) * 20_000)) == [ProgramEnd(5)]


def test_the_environment_of_one_call(obedient: ModuleSpec, tmp_path: Path) -> None:
    word = f"environment {tmp_path}/out"
    ends(obedient, told(word, environment={b"CLSYNC_STATUS": b"initsync"}), word)
    assert lines(tmp_path / "out") == ["initsync", "(none)"]


def test_a_crash_fails_the_call_and_the_module_is_loaded_anew(
    obedient: ModuleSpec, caplog: pytest.LogCaptureFixture
) -> None:
    end, *after = ends(obedient, "crash", "calls", "exit 0", "exit 3", "calls")
    assert (end.status, end.signal) == (139, signal.SIGSEGV)
    assert [each.status for each in after] == [1, 1, 3, 1]
    assert [record.getMessage() for record in caplog.records] == ["module-died"] * 3
    assert "SIGSEGV" in str(vars(caplog.records[0])["fields"]["reason"])


def test_one_that_cannot_be_loaded_anew_is_a_failed_call(obedient: ModuleSpec, tmp_path: Path) -> None:
    copy = Path(shutil.copy(os.fsdecode(obedient.path), tmp_path))

    async def scene(one: Module) -> ProgramEnd:
        await one.call(told("crash"))
        os.chmod(copy, 0o666)
        return await one.call(told("return 0"))

    end = played(spec(copy, tmp_path), scene)
    assert isinstance(end, ProgramEnd)
    assert end.status == 1
    assert "mode 0666" in end.trouble


def test_a_crash_while_it_rests_is_seen_at_the_next_call(obedient: ModuleSpec) -> None:
    async def scene(one: Module) -> int:
        await one.call(told("calls"))
        (resting,) = one._idle
        os.kill(resting.pid, signal.SIGKILL)
        await resting.ended
        return (await one.call(told("calls"))).status

    assert played(obedient, scene) == 1


def test_what_takes_too_long_is_stopped_with_its_children(obedient: ModuleSpec, tmp_path: Path) -> None:
    (end,) = ends(obedient, told(f"child {tmp_path}/pids", timeout_s=0.7))
    assert end.timed_out
    assert end.status in {143, 137}  # the latter if it had not even come so far, on a busy machine
    for pid in lines(tmp_path / "pids"):
        wait_until(lambda pid=pid: not lives(int(pid)), "the end of the child")  # type: ignore[misc]  # a default


def test_what_does_not_stop_is_killed(
    obedient: ModuleSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(process, "GRACE_S", 0.05)
    end = after = ProgramEnd(-1)
    for timeout_s in (0.7, 5.0, 25.0):
        end, after = ends(obedient, told(f"deaf {tmp_path}/out", timeout_s=timeout_s), "calls")
        if lines(tmp_path / "out"):
            break  # else it had not even come so far, on a busy machine
    assert (end.status, end.signal, end.timed_out) == (137, signal.SIGKILL, True)
    assert after == ProgramEnd(1)
    assert not caplog.records


@pytest.mark.parametrize("word", ["child", "apart"])
def test_an_interrupt_reaches_the_children_and_the_module_lives_on(
    obedient: ModuleSpec, tmp_path: Path, word: str
) -> None:
    async def scene(one: Module) -> int:
        interrupts: list[Interruption] = []
        call = asyncio.ensure_future(one.call(told(f"{word} {tmp_path}/pids"), started=interrupts.append))
        await until(lambda: bool(lines(tmp_path / "pids")), "the child")
        interrupts[0](signal.SIGTERM)
        assert (await call).status == 143
        return (await one.call(told("calls"))).status

    assert played(obedient, scene) == 2


def test_an_interrupt_between_calls_does_nothing(obedient: ModuleSpec) -> None:
    async def scene(one: Module) -> int:
        interrupts: list[Interruption] = []
        await one.call(told("calls"), started=interrupts.append)
        interrupts[0](signal.SIGKILL)  # too late: that call has ended
        (resting,) = one._idle
        resting.signal(signal.SIGTERM)
        resting.signal(signal.SIGINT)
        return (await one.call(told("calls"))).status

    assert played(obedient, scene) == 2


def test_calls_wait_for_the_one_process(obedient: ModuleSpec) -> None:
    async def scene(one: Module) -> list[int]:
        return sorted(end.status for end in await asyncio.gather(*(one.call(told("calls")) for _ in range(5))))

    assert played(obedient, scene) == [1, 2, 3, 4, 5]


def test_calls_at_once_have_processes_of_their_own(obedient: ModuleSpec, tmp_path: Path) -> None:
    async def scene(one: Module) -> list[int]:
        word = f"meet {tmp_path}/here 3"
        return [end.status for end in await asyncio.gather(*(one.call(told(word)) for _ in range(3)))]

    what = spec(Path(os.fsdecode(obedient.path)), tmp_path, processes=3)
    with environment(JOURNAL=str(tmp_path / "journal")):
        assert played(what, scene) == [0, 0, 0]
    assert sorted(lines(tmp_path / "journal")) == ["deinit"] * 3 + ["init"] * 3


def test_closing_kills_what_is_at_work(obedient: ModuleSpec, tmp_path: Path) -> None:
    async def scene(one: Module) -> asyncio.Future[ProgramEnd]:
        call = asyncio.ensure_future(one.call(told(f"child {tmp_path}/pids")))
        await until(lambda: bool(lines(tmp_path / "pids")), "the child")
        call.cancel()
        await asyncio.wait([call])
        return call

    call = played(obedient, scene)
    assert isinstance(call, asyncio.Future)
    assert call.cancelled()
    wait_until(lambda: not lives(int(lines(tmp_path / "pids")[0])), "the end of the child")


OF_LIBC = 0b11 << 31
"""Signals 32 and 33 are the C library's own; no program can say how they are treated, so they are inherited."""


def test_signals_are_clean(obedient: ModuleSpec, tmp_path: Path) -> None:
    async def scene(one: Module) -> dict[str, int]:
        interrupts: list[Interruption] = []
        call = asyncio.ensure_future(one.call(told(f"child {tmp_path}/pids"), started=interrupts.append))
        await until(lambda: bool(lines(tmp_path / "pids")), "the child")
        status = lines(Path("/proc", lines(tmp_path / "pids")[0], "status"))
        interrupts[0](signal.SIGTERM)
        await call
        return {
            name: int(value, 16)
            for name, _, value in (each.partition(":\t") for each in status)
            if name[:3] == "Sig" and name != "SigQ"
        }

    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        signals = played(obedient, scene)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert isinstance(signals, dict)
    assert signals["SigBlk"] & ~OF_LIBC == 0
    assert signals["SigIgn"] & ~OF_LIBC & ~(1 << (signal.SIGPIPE - 1)) == 0


def test_what_it_says_is_logged(obedient: ModuleSpec, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="instep")
    what = spec(Path(os.fsdecode(obedient.path)), tmp_path, flags={ord("d"): 2})
    ends(what, "say")
    said = [
        (record.levelname, vars(record)["fields"]["text"])
        for record in caplog.records
        if record.getMessage() == "module-says"
    ]
    assert said == [("ERROR", "an error, 1"), ("WARNING", "a warning"), ("INFO", "an info"), ("DEBUG", "shown")]


def test_it_starts_in_the_watched_directory_with_the_umask(tmp_path: Path, made: Callable[[str], Path]) -> None:
    (tmp_path / "src").mkdir()

    async def play() -> None:
        one = module(spec(made("Python"), tmp_path / "src"), umask=0o077)
        await one.open()
        await one.call(told("environment out"))
        await one.close()

    asyncio.run(play())
    assert (tmp_path / "src/out").stat().st_mode & 0o777 == 0o600
