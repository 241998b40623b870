"""Each option for privileges, by its effect on the whole program: from the command line to the shut door."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from instep.frontends.clsync.client import Client
from instep.linux import devices
from tests.daemon.confined import needs_groups
from tests.system.clsync.conftest import Start
from tests.system.clsync.programs import Clsync, Desk
from tests.system.clsync.test_privileges import NOBODY, SHELL, children, desk, facts, written

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to give up"),
]

__all__ = ["desk"]  # a fixture

SPLIT = "--splitting=process"


def capabilities(lines: dict[str, list[str]], name: str) -> int:
    return int(lines[name][0], 16)


def handler_facts(process: Clsync) -> dict[str, list[str]]:
    """Those of its first handler, which has ``FACTS``."""
    lines = written(process, "facts", 1)
    return {name: value.split() for name, _, value in (line.partition(":") for line in lines)}


FACTS = "cp /proc/self/status @/facts.new; readlink /proc/self/ns/* >> @/facts.new; mv @/facts.new @/facts"

# ---- ids and capabilities ----


def test_only_the_capabilities_that_are_named_are_kept(start: Start, desk: Desk) -> None:
    process = start(f"{SHELL} -C CAP_KILL,CAP_SETUID")
    process.runs(1)
    mine = facts(process.process.pid)
    assert capabilities(mine, "CapPrm") == capabilities(mine, "CapEff") == 1 << 5 | 1 << 7


@pytest.mark.parametrize("inherited", ["empty", "clsync", "dont-touch", "permittied"])
def test_what_handlers_of_others_inherit(start: Start, desk: Desk, inherited: str) -> None:
    desk.program("handler", FACTS)
    desk.top.chmod(0o777)
    desk.record.chmod(0o777)
    process = start(
        f"{SHELL} --sync-handler-uid={NOBODY} --sync-handler-gid={NOBODY} --inherit-capabilities={inherited}"
    )
    process.runs(1)
    ours = facts(os.getpid())
    expected = {
        "empty": 0,
        "clsync": 0xE4,
        "dont-touch": capabilities(ours, "CapInh"),
        "permittied": capabilities(ours, "CapPrm"),
    }
    found = handler_facts(process)
    assert found["Uid"] == [NOBODY] * 4
    assert capabilities(found, "CapEff") == expected[inherited]


def test_the_helper_as_somebody_else(start: Start, desk: Desk) -> None:
    desk.program("handler", FACTS)
    process = start(f"{SHELL} {SPLIT} --privileged-uid=1 --privileged-gid=2")
    process.runs(1)
    (helper,) = children(process.process.pid)
    assert (facts(helper)["Uid"], facts(helper)["Gid"]) == (["1"] * 4, ["2"] * 4)
    assert capabilities(facts(helper), "CapPrm") == 0xE4
    assert handler_facts(process)["Uid"] == ["0"] * 4
    desk.sh("touch zz")
    process.tells("zz")


def test_a_thread_is_a_process_here_which_is_said(start: Start, desk: Desk) -> None:
    process = start(f"{SHELL} --splitting=thread")
    process.runs(1)
    assert facts(process.process.pid)["Uid"] == [NOBODY] * 4
    assert len(children(process.process.pid)) == 1
    assert "splitting=thread" in process.text()


def test_a_filter_for_system_calls_by_itself(start: Start, desk: Desk) -> None:
    process = start(f"{SHELL} --seccomp-filter")
    process.runs(1)
    assert facts(process.process.pid)["Seccomp"] == ["2"]
    (helper,) = children(process.process.pid)
    assert facts(helper)["Seccomp"] == ["0"]
    assert "seccomp-filter: handlers would inherit it" in process.text()


# ---- what is shared with the system ----

NAMESPACES = {
    # options: what the process has of its own, and its handlers
    "": ("uts", "uts"),
    "--detach-ipc=0": ("", ""),
    "--detach-ipc=1": ("ipc uts", "ipc uts"),
    "--detach-miscellanea": ("ipc uts", "ipc uts"),
    "--detach-network=everywhere": ("net uts", "net uts"),
    f"{SPLIT} --detach-network=non-privileged": ("net uts", "uts"),
}


@pytest.mark.parametrize("options", NAMESPACES)
def test_namespaces(start: Start, desk: Desk, options: str) -> None:
    desk.program("handler", FACTS)
    process = start(f"{SHELL} {options}")
    process.runs(1)
    kinds = ("ipc", "mnt", "net", "uts")
    there = {kind: os.readlink(f"/proc/{process.process.pid}/ns/{kind}") for kind in kinds}
    found = {kind: f"{kind}:{handler_facts(process)[kind][0]}" for kind in kinds}
    ours = {kind: os.readlink(f"/proc/self/ns/{kind}") for kind in kinds}
    expected = NAMESPACES[options]
    assert " ".join(kind for kind in kinds if there[kind] != ours[kind]) == expected[0]
    assert " ".join(kind for kind in kinds if found[kind] != ours[kind]) == expected[1]


def test_everything_is_unmounted_but_what_is_named(start: Start, desk: Desk) -> None:
    desk.program("handler", "grep -o '@/[a-z]* ' /proc/self/mounts > @/mounted.new; mv @/mounted.new @/mounted")
    (desk.top / "kept").mkdir()
    (desk.top / "gone").mkdir()
    mounts = f'cd {desk.top}; mount -t tmpfs none kept; mount -t tmpfs none gone; cd "$OLDPWD"; exec "$@"'
    process = start(
        f"{SHELL} --mountpoints=/proc,/dev,/sys,/tmp,/dev/shm,{desk.top}/kept",
        prefix=("unshare", "-m", "--propagation", "private", "sh", "-c", mounts, "sh"),
    )
    process.runs(1)
    assert written(process, "mounted", 1) == [f"{desk.top}/kept "]


@pytest.mark.parametrize("how", ["auto", "auto-ro"])
def test_the_old_root_is_gone(start: Start, desk: Desk, how: str) -> None:
    root = desk.top / "root"
    inside = root / str(desk.src).lstrip("/")
    inside.mkdir(parents=True)
    options = "--skip-initialsync --ignore-failures"
    process = start(f"-Msimple -W@/src -S /nothing --chroot @/root --pivot-root={how} {options}")
    there = Path(f"/proc/{process.process.pid}/root")
    top = desk.src.parts[1]

    def mounts() -> list[str]:
        return [line.split()[1] for line in Path(f"/proc/{process.process.pid}/mounts").read_text().splitlines()]

    process.wait(lambda: os.listdir(there) == [top] and mounts() == ["/"], "the other root, and none beside it")
    if how == "auto":
        (there / top / "made").touch()
    else:
        with pytest.raises(OSError) as caught:
            (there / top / "made").touch()
        assert caught.value.errno == errno.EROFS
    process.wait(lambda: Path(f"/proc/{process.process.pid}/cwd").resolve() == desk.src, "the watched directory")


@pytest.fixture
def no_groups() -> Iterator[None]:
    """Removes the groups that tests name, once nobody is in them."""
    yield
    for hierarchy in devices.hierarchies():
        for name in (f"instep-doors-{os.getpid()}/named", f"instep-doors-{os.getpid()}"):
            with contextlib.suppress(OSError):
                os.rmdir(os.path.join(os.fsdecode(hierarchy.group), name))


@needs_groups
@pytest.mark.usefixtures("no_groups")
def test_no_devices_and_the_group_s_name(start: Start, desk: Desk) -> None:
    name = f"instep-doors-{os.getpid()}/named"
    desk.program("handler", "cat /dev/full > @/tried 2>&1; cat /dev/null >> @/tried && echo done >> @/tried")
    process = start(f"{SHELL} --forbid-devices --cgroup-group-name={name}")
    process.runs(1)
    tried = written(process, "tried", 2)
    assert "Operation not permitted" in tried[0]
    assert tried[1] == "done"
    assert f"/{name}\n" in Path(f"/proc/{process.process.pid}/cgroup").read_text()
    process.kill()
    desk.program("handler")
    other = start(f"{SHELL} --cgroup-group-name={name} --only-initialsync")
    assert other.ended() == 0
    assert "does nothing without --forbid-devices" in other.text()


@pytest.mark.parametrize(
    ("options", "owner", "mode"),
    [("", (65534, 65534), 0o755), ("--socket-own=daemon:bin --socket-mod=0640", (1, 2), 0o640)],
)
def test_who_may_use_the_socket(start: Start, desk: Desk, options: str, owner: tuple[int, int], mode: int) -> None:
    """By default whom the process becomes, which is where clsync's belongs to; its mode is by the umask."""
    process = start(f"{SHELL} --socket=@/socket {options}")
    process.runs(1)
    found = (desk.top / "socket").stat()
    assert (found.st_uid, found.st_gid) == owner
    assert found.st_mode & 0o777 == mode
    with Client(desk.top / "socket", timeout_s=60.0) as client:
        client.die()
    assert process.ended() == 0


# ---- what may be executed ----

CHECKED = f"{SHELL} {SPLIT} --check-execvp-arguments --socket=@/socket -u0 -g0"


@pytest.mark.parametrize("option", ["--", "sync-handler"])
def test_words_that_were_not_configured_are_refused(start: Start, desk: Desk, option: str) -> None:
    process = start(CHECKED)
    process.runs(1)
    desk.program("other")
    with Client(desk.top / "socket", timeout_s=60.0) as client:
        client.set(option, bytes(desk.top / "other") if option == "sync-handler" else b"other %INCLUDE-LIST-PATH%")
    desk.sh("chmod 600 a")
    assert process.ended() == 1
    assert "a program that is not configured" in process.text()
    assert all(run.words[:2] == ("synclist", "test") for run in desk.told())
    assert len(desk.told()) == 1


@pytest.mark.parametrize("is_permitted", [True, False])
def test_further_hooks_have_to_be_permitted(start: Start, desk: Desk, is_permitted: bool) -> None:
    desk.program("hook")
    process = start(
        f"{CHECKED} --status-file=@/status --add-permitted-hook-files={'@/hook' if is_permitted else '/other'}"
    )
    # A run that is under way at the end would be told again.
    process.wait(lambda: (desk.top / "status").read_text() == "running", "the end of the initial sync")
    with Client(desk.top / "socket", timeout_s=60.0) as client:
        client.set("exit-hook", bytes(desk.top / "hook"))
    process.process.send_signal(signal.SIGTERM)
    assert process.ended() == (0 if is_permitted else 1)
    assert [run.words for run in desk.told()[1:]] == [("test",)] * is_permitted
    assert ("a program that is not configured" in process.text()) is not is_permitted


# ---- through the helper's eyes ----


def test_the_helper_stays_on_one_file_system(start: Start, desk: Desk) -> None:
    """What lies directly in a mount point is told, nothing below."""
    desk.sh("mkdir mnt; mount -t tmpfs none mnt; mkdir mnt/sub")
    try:
        process = start(f"-Mdirect -D@/dst -W@/src -S@/handler -w1 -t1 -T1 {SPLIT} --one-file-system")
        process.runs(1)
        desk.sh("touch mnt/direct; mkdir mnt/new; touch mnt/sub/below mnt/new/below; touch zz")
        told = {word for run in process.tells("zz") for word in run.words}
        assert {word for word in told if "mnt" in word} == {"mnt", "mnt/direct", "mnt/new"}
    finally:
        desk.sh("umount -l mnt")
