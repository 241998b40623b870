"""The kept ssh connection, over a real sshd."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from instep.engines.rsync.master import Master
from instep.errors import TargetAway, TargetError
from tests.engines import fake_ssh
from tests.engines.fake_ssh import FakeSsh
from tests.engines.rsync.places import Place, assert_done, batch, entry, run
from tests.processes import lives
from tests.system.sshd import Sshd, serving, wait_until, why_unavailable


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    if (missing := why_unavailable()) is not None:
        pytest.skip(missing)
    with serving(tmp_path / "sshd") as server:
        yield server


def words(sshd: Sshd) -> list[bytes]:
    return [os.fsencode(word) for word in shlex.split(sshd.ssh)]


async def over(master: Master, command: str) -> bytes:
    client = await asyncio.create_subprocess_exec(
        *master.client(), b"there", command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    return (await client.communicate())[0]


def test_all_go_over_one_login(sshd: Sshd) -> None:
    async def work() -> bytes:
        master = Master(words(sshd), b"there")
        states = [master.alive]
        await asyncio.gather(master.open(), master.open())
        assert [*states, master.alive] == [False, True]
        assert master._directory is not None
        assert stat.S_IMODE(os.stat(master._directory).st_mode) == 0o700
        assert await asyncio.gather(*(over(master, f"echo {number}") for number in range(5))) == [
            b"%d\n" % number for number in range(5)
        ]
        directory = master._directory
        await master.close()
        await master.close()
        return directory

    assert not os.path.exists(run(work()))
    assert sshd.logins() == 1


def test_what_a_killed_daemon_left_is_swept(sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(prefix="i", dir="/tmp") as place:
        monkeypatch.setenv("XDG_RUNTIME_DIR", place)
        old, young, used, other = (Path(place) / name for name in ("instep-ssh-1", "instep-ssh-2", "instep-ssh-3", "x"))
        for path in (old, young, used, other):
            path.mkdir()
        (used / "s").touch()
        for path in (old, used, other):
            os.utime(path, (0, 0))

        async def work() -> None:
            master = Master(words(sshd), b"there")
            await master.open()
            assert not {"instep-ssh-1"} & set(os.listdir(place))
            assert {"instep-ssh-2", "instep-ssh-3", "x"} < set(os.listdir(place))
            await master.close()

        run(work())
        assert sorted(os.listdir(place)) == ["instep-ssh-2", "instep-ssh-3", "x"]


def test_a_lost_connection_is_made_anew(sshd: Sshd) -> None:
    async def work() -> None:
        master = Master(words(sshd), b"there")
        try:
            await master.open()
            before = master._process
            assert before is not None
            sshd.stop()
            await asyncio.wait_for(before.wait(), 60)
            assert not master.alive
            with pytest.raises(TargetAway, match="refused"):
                await master.open()
            sshd.start()
            await master.open()
            assert await over(master, "echo back") == b"back\n"
        finally:
            await master.close()

    run(work())


def test_a_stalled_host_is_given_up(sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("instep.engines.ssh.ALIVE_INTERVAL_S", 1)
    proxy = sshd.proxy("slow")

    async def work() -> None:
        master = Master(words(sshd), b"slow")
        try:
            await master.open()
            process = master._process
            assert process is not None
            proxy.stall()
            await asyncio.wait_for(process.wait(), 60)
            assert not master.alive
        finally:
            await master.close()

    run(work())


def test_a_refusal_is_final_and_has_the_words_of_ssh(sshd: Sshd) -> None:
    async def refused(words_: str, command: list[bytes]) -> None:
        master = Master(command, b"there")
        try:
            with pytest.raises(TargetError, match=words_):
                await master.open()
        finally:
            await master.close()

    run(refused("(?i)bad configuration option", [*words(sshd), b"-o", b"NoSuchThing=1"]))
    sshd.refuse()
    run(refused("Permission denied", words(sshd)))


WITH_PARENT = """
import asyncio, sys
from instep.engines.rsync.master import Master
async def work():
    master = Master([word.encode() for word in sys.argv[1:]], b"there")
    await master.open()
    print(master._process.pid, flush=True)
    await asyncio.sleep(1000)
asyncio.run(work())
"""


@pytest.mark.parametrize("then", fake_ssh.NEVER_IN)
@pytest.mark.parametrize("turns", [1, 2, 3, 10])
def test_cancelled_while_ssh_starts_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, then: str, turns: int
) -> None:
    """At whatever moment, and whoever has ssh's standard error open then."""
    monkeypatch.setattr("instep.engines.rsync.master.END_S", 0.5)
    fake = FakeSsh(tmp_path, then)

    async def work() -> None:
        master = Master(fake.words, b"there")
        await fake.cancel(asyncio.ensure_future(master.open()), turns)
        assert not master.alive
        await asyncio.wait_for(master.close(), 30)

    try:
        run(work())
    finally:
        fake.kill()


def test_the_last_words_are_heard_though_somebody_could_say_more(tmp_path: Path) -> None:
    fake = FakeSsh(tmp_path, "echo no way >&2; {start}; exit 255")

    async def work() -> None:
        master = Master(fake.words, b"there")
        with pytest.raises(TargetAway, match="no way"):
            await asyncio.wait_for(master.open(), 30)
        await asyncio.wait_for(master.close(), 30)

    try:
        run(work())
    finally:
        fake.kill()


def test_it_ends_with_a_killed_daemon(sshd: Sshd) -> None:
    argv = [sys.executable, "-c", WITH_PARENT, *shlex.split(sshd.ssh)]
    runtime = tempfile.mkdtemp(prefix="i", dir="/tmp")
    environment = {**os.environ, "XDG_RUNTIME_DIR": runtime}
    daemon = subprocess.Popen(argv, stdout=subprocess.PIPE, start_new_session=True, env=environment)
    try:
        assert daemon.stdout is not None
        master = int(daemon.stdout.readline())
        daemon.kill()
        daemon.wait()
        wait_until(lambda: not lives(master), "the master is gone")
        wait_until(lambda: not sshd.sessions(), "the session is gone")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(daemon.pid, signal.SIGKILL)
        daemon.wait()
        shutil.rmtree(runtime)
        if daemon.stdout is not None:
            daemon.stdout.close()


def test_the_engine_takes_the_command_and_the_url(place: Place, sshd: Sshd) -> None:
    (place.source / "f").write_text("x")
    address = b"ssh://there:%d%s" % (sshd.port, os.fsencode(place.target))
    sshd.alias("there", 1)  # only the port of the address can work
    engine = place.engine(target=address, ssh=words(sshd))

    async def work() -> None:
        await engine.open()
        assert_done(await engine.sync(batch(entry(b"f"))))
        master = engine._master
        assert master is not None
        assert master._process is not None
        master._process.kill()
        await master._process.wait()
        (place.source / "f").write_text("after the master died")
        assert_done(await engine.sync(batch(entry(b"f"))))
        await engine.close()

    run(work())
    place.assert_equal()
    assert sshd.logins() == 2
