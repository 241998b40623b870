"""The helper that keeps the rights, and the side that has none: real processes, real refusals."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path

import pytest

from tests.daemon.confined import needs_groups, needs_root, no_groups_left, open_directory, output_of
from tests.processes import lives
from tests.system.daemon_process import wait_until

__all__ = ["no_groups_left", "open_directory"]  # fixtures

SPLIT = """
from instep.daemon.privileged.client import start_helper
from instep.daemon.privileged import protocol
from instep.ports import Place

def split(watched, *, reload=None, ignore=lambda path, is_dir: path == b"ignored", **more):
    made = plan(watched, splitting=Splitting.PROCESS, **more)
    confining = Confining(made)
    confining.isolate()
    client = start_helper(confining, Place(watched, ignore), reload=reload)
    confining.lower()
    confining.seal()
    return client

def served(watched, main, **more):
    client = split(watched, **more)
    async def whole():
        gone = asyncio.get_running_loop().create_future()
        await client.open(lambda: gone.set_result(None))
        try:
            await main(client, gone)
        finally:
            await client.close()
    asyncio.run(whole())

watched = os.fsencode(sys.argv[1])
"""


def run(script: str, *arguments: str | os.PathLike[str]) -> list[str]:
    return output_of(SPLIT + textwrap.dedent(script), *arguments).split("\n")[:-1]


@pytest.fixture
def watched(tmp_path: Path) -> Path:
    """A tree that only its owner may see."""
    watched = tmp_path / "watched"
    (watched / "d").mkdir(parents=True)
    (watched / "d" / "file").write_text("12345")
    (watched / "link").symlink_to("/etc")
    watched.chmod(0o700)
    return watched


def test_what_happens_and_what_is_there_is_seen_through_the_helper(watched: Path) -> None:
    script = """
        async def main(client, gone):
            status("CapPrm")
            info = client.look(b"d/file")
            print(info.st_size, info.st_mtime_ns > 0, info.st_blocks, client.look(b"link/passwd"), client.look(b"gone"))
            print(client.look(b"").st_mode & 0o777 == 0o700 and client.is_there())
            print(sorted(client.listed(b"")), client.listed(b"d"))
            print(client.listed(b"link"), client.listed(b"d/file"))
            monitor = client.sight().monitor
            monitor.start()
            seen = asyncio.Event()
            asyncio.get_running_loop().add_reader(monitor.fileno(), seen.set)
            while not any(report.scope is Scope.TREE for report in monitor.read()):
                await asyncio.sleep(0.001)
            while not monitor.drained:
                monitor.read()
            seen.clear()
            await client(Program((b"mkdir", b"d/new")), umask=0o022)
            await seen.wait()
            reports = monitor.read()
            print([(report.path, report.mask) for report in reports if isinstance(report, EventReport)])
            print(monitor.status().watches >= 3)
            monitor.close()
        served(watched, main)
    """
    out = run(script, watched)
    assert out == [
        "CapPrm: 0000000000000000",
        "5 True 8 None None",
        "True",
        "[(b'd', True), (b'link', False)] [(b'file', False)]",
        "[] []",
        "[(b'd/new', 256)]",
        "True",
    ]


@needs_root
def test_programs_are_run_by_the_helper_with_its_rights(watched: Path, open_directory: Path) -> None:
    script = """
        async def main(client, gone):
            lists = os.fsencode(sys.argv[2])
            text = b'echo "$(id -u) $CLSYNC_STATUS $(pwd) $(umask) $(cat "$1")" > "$0"; exit 7'
            name = lists + b"/.clsync-list.1.2.3.4"
            end = await client(
                Program((b"sh", b"-c", text, lists + b"/out", name), environment={b"CLSYNC_STATUS": b"running"},
                        files=(ListFile(name, b"the list"),), directory=watched),
                umask=0o027,
            )
            print(end.status, end.trouble, os.listdir(lists))
            end = await client(Program((b"/no/such",)), umask=0)
            print(end.status, end.errno, end.trouble)
            stops = []
            running = asyncio.ensure_future(client(Program((b"sleep", b"1000")), umask=0, started=stops.append))
            await asyncio.sleep(0)
            stops[0](signal.SIGINT)
            print((await running).signal)
            end = await client(Program((b"sleep", b"1000"), timeout_s=0.05), umask=0)
            print(end.signal, end.timed_out)
        served(watched, main)
    """
    out = run(script, watched, open_directory)
    assert out == ["7  [b'out']", "127 2 No such file or directory", "2", "15 True"]
    assert (open_directory / "out").read_text() == f"0 running {watched} 0027 the list\n"


REFUSALS = {
    "words": 'Program((b"/bin/touch", out + b"/made", b"more"))',
    "other program": 'Program((b"/bin/rm", out + b"/made"))',
    "variable": 'Program((b"/bin/touch", out + b"/made"), environment={b"LD_PRELOAD": b"/tmp/evil.so"})',
    "directory": 'Program((b"/bin/touch", out + b"/made"), directory=b"/etc")',
}


@pytest.mark.parametrize("refused", REFUSALS)
def test_an_altered_program_is_refused_and_the_helper_ends(watched: Path, tmp_path: Path, refused: str) -> None:
    script = f"""
        out = os.fsencode(sys.argv[2])
        async def main(client, gone):
            print((await client(Program((b"/bin/touch", out + b"/made")), umask=0)).status, flush=True)
            print((await client({REFUSALS[refused]}, umask=0)).trouble, flush=True)
            await gone
            print((await client(Program((b"/bin/touch", out + b"/made")), umask=0)).status)
            try:
                client.look(b"d")
            except CannotConfine as error:
                print(error.code)
        served(watched, main, sync_handler=b"/bin/touch", arguments=(out + b"/made",), check_execvp_arguments=True)
    """
    out = run(script, watched, tmp_path)
    assert out == ["0", "the helper that keeps the rights has ended", "127", "helper-gone"]
    assert sorted(os.listdir(tmp_path)) == ["made", "watched"]


def test_what_is_no_request_at_all_ends_the_helper(watched: Path) -> None:
    script = """
        async def main(client, gone):
            client._to_helper.write(protocol.frame(b"[" * 100000))
            await gone
            print("gone")
        served(watched, main)
    """
    assert run(script, watched) == ["gone"]


@needs_root
def test_the_helper_ends_with_the_daemon_and_takes_its_programs_along(watched: Path, tmp_path: Path) -> None:
    script = """
        async def main(client, gone):
            out = os.fsencode(sys.argv[2])
            text = b'echo $$ > "$0.new"; mv "$0.new" "$0"; exec sleep 1000'
            running = asyncio.ensure_future(client(Program((b"sh", b"-c", text, out)), umask=0))
            while client.look(b"d/pid") is None:
                await asyncio.sleep(0.01)
            print(client.pid, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        child = os.fork()
        if child == 0:
            served(watched, main)
        os.waitpid(child, 0)
    """
    (helper,) = map(int, run(script, watched, watched / "d/pid"))
    program = int((watched / "d/pid").read_text())
    wait_until(lambda: not lives(helper) and not lives(program), "the end of the helper and its program")


@needs_root
def test_the_helper_has_the_network_and_only_the_side_without_rights_has_not(watched: Path) -> None:
    script = """
        async def main(client, gone):
            tried(socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect, ("127.0.0.1", 9))
            text = (b"import socket,sys; s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM);"
                    b"sys.exit(s.connect_ex(('127.0.0.1',9)))")
            print((await client(Program((os.fsencode(sys.executable), b"-c", text)), umask=0)).status)
        served(watched, main, detach_network=DetachNetwork.NON_PRIVILEGED)
    """
    assert run(script, watched) == ["ENETUNREACH", "0"]


@needs_groups
@pytest.mark.usefixtures("no_groups_left")
def test_secure_splitting_as_a_whole_still_serves(watched: Path) -> None:
    """The filter, no devices, checked words: the side without rights can do its work, and nothing else."""
    script = """
        async def main(client, gone):
            tried(os.fork)
            tried(os.open, "/dev/full", os.O_RDONLY)
            monitor = client.sight().monitor
            monitor.start()
            asyncio.get_running_loop().add_reader(monitor.fileno(), lambda: None)
            while not monitor.drained:
                monitor.read()
            environment = {b"CLSYNC_ITERATION": b"3"}
            end = await client(Program((b"/bin/cp", b"d/file", b"d/copy"), environment=environment), umask=0)
            print(end.status, client.look(b"d/copy").st_uid)
            while not any(report.path == b"d/copy" for report in monitor.read()):
                await asyncio.sleep(0.001)
            print("seen")
        served(watched, main, sync_handler=b"/bin/cp", arguments=(b"d/file", b"d/copy"), seccomp_filter=True,
               check_execvp_arguments=True, forbid_devices=True)
    """
    assert run(script, watched) == ["EPERM", "EPERM", "0 0", "seen"]


def test_rules_are_read_again_in_the_helper(watched: Path) -> None:
    script = """
        ignored = {b"ignored"}
        def reload():
            ignored.add(b"d")
        async def main(client, gone):
            client.reload()
            print(ignored)
            monitor = client.sight().monitor
            monitor.start()
            while not monitor.drained:
                monitor.read()
            print(monitor.status().watches)
        served(watched, main, reload=reload, ignore=lambda path, is_dir: path in ignored)
    """
    ours, watches = run(script, watched)
    assert ours == "{b'ignored'}"
    assert int(watches) <= 2  # the root, and what tells that it is removed


def test_a_defect_in_the_helper_does_not_leave_the_daemon_waiting(watched: Path) -> None:
    script = """
        def reload():
            raise ValueError("a defect")
        async def main(client, gone):
            try:
                client.reload()
            except CannotConfine as error:
                print(error.code)
            await gone
            print("gone")
        served(watched, main, reload=reload)
    """
    assert run(script, watched) == ["helper-gone", "gone"]


@needs_root
def test_why_a_tree_cannot_be_watched_is_told_to_the_daemon(watched: Path, tmp_path: Path) -> None:
    script = """
        from instep.errors import SourceError
        async def main(client, gone):
            await client(Program((b"mv", watched, watched + b".away")), umask=0)
            try:
                client.sight().monitor.start()
            except SourceError as error:
                print(error.code)
            print(client.look(b"d").st_nlink, client.is_there())  # what it looks at is the same directory still
        served(watched, main)
    """
    assert run(script, watched) == ["source-unreadable", "2 False"]
