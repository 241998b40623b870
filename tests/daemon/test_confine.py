"""Shutting a process in: each door is tried from inside, and the system outside is as it was."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.daemon.confined import needs_groups, needs_root, no_groups_left, open_directory, output_of

pytestmark = needs_root

__all__ = ["no_groups_left", "open_directory"]  # fixtures


def handler_capabilities() -> str:
    """What root's programs get here."""
    return next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "CapBnd" in line)


def mounts_outside(below: Path) -> list[str]:
    """Those that a test could have left behind; others come and go with other tests."""
    return [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(below) in line]


def test_by_default_root_keeps_four_capabilities_and_its_real_ids() -> None:
    out = output_of("confined(plan()); status('Uid', 'Gid', 'Groups', 'CapPrm', 'CapEff', 'CapInh', 'CapAmb')")
    assert out.split("\n")[:-1] == [
        "Uid: 0 65534 0 65534",
        "Gid: 0 65534 0 65534",
        "Groups:",
        "CapInh: 0000000000000000",
        "CapPrm: 00000000000000e4",
        "CapEff: 00000000000000e4",
        "CapAmb: 0000000000000000",
    ]


def test_programs_are_root_again_with_all_capabilities() -> None:
    script = """
        launcher = confined(plan())
        print(ran(launcher, b"grep", b"-E", b"^(Uid|Gid|CapEff|CapInh|NoNewPrivs)", b"/proc/self/status"))
        tried(os.mkdir, "/root/instep-must-not-be")
    """
    assert output_of(script).replace("\t", " ").split("\n")[:-1] == [
        "0 Uid: 0 0 0 0",
        "Gid: 0 0 0 0",
        "CapInh: 0000000000000000",
        f"CapEff: {handler_capabilities()}",
        "NoNewPrivs: 0",
        "",
        "EACCES",
    ]


def test_programs_of_another_user_inherit_capabilities_as_asked() -> None:
    script = """
        kept = frozenset({"CAP_SETUID", "CAP_SETGID", "CAP_DAC_READ_SEARCH"})
        for inherit in (Inherit.EMPTY, Inherit.DONT_TOUCH, Inherit.CLSYNC, Inherit.PERMITTED):
            if os.fork() == 0:
                launcher = confined(plan(
                    sync_handler_uid=1, sync_handler_gid=2, inherit_capabilities=inherit, preserve_capabilities=kept,
                ))
                print(ran(launcher, b"grep", b"-hE", b"^(Uid|Gid|CapEff|CapInh)", b"/proc/self/status"), end="")
                sys.stdout.flush()
                os._exit(0)
            os.wait()
    """
    lines = output_of(script).replace("\t", " ").split("\n")
    assert lines[::4][:4] == ["0 Uid: 1 1 1 1"] * 4
    assert lines[1::4] == ["Gid: 2 2 2 2"] * 4
    expected = ["0000000000000000", "0000000000000000", "00000000000000c4", handler_capabilities()]
    assert lines[2::4] == [f"CapInh: {each}" for each in expected]
    assert lines[3::4] == [f"CapEff: {each}" for each in expected]


def test_a_program_of_root_can_be_ended_by_a_process_that_may_not_kill_it() -> None:
    script = """
        launcher = confined(plan(preserve_capabilities=frozenset()))
        async def main():
            stops = []
            running = asyncio.ensure_future(
                run(Program((b"sleep", b"1000")), umask=0, launcher=launcher, started=stops.append)
            )
            while not stops:
                await asyncio.sleep(0)
            stops[0](signal.SIGTERM)
            print((await running).signal)
            stops[0](signal.SIGTERM)
            end = await run(Program((b"sleep", b"1000"), timeout_s=0.05), umask=0, launcher=launcher)
            print(end.signal, end.timed_out)
        asyncio.run(main())
    """
    assert output_of(script).split("\n")[:2] == ["15", "15 True"]


@needs_groups
@pytest.mark.usefixtures("no_groups_left")
def test_ids_that_were_asked_for_and_cannot_be_had_are_an_error() -> None:
    script = """
        from instep.daemon import confine
        confine._load_all()  # Where these tests run, nobody else may read Python's own files.
        os.setgid(65534), os.setuid(65534)
        confined(plan())  # as by default: nothing to be had, and nothing asked for
        status("Uid")
        for asked in (dict(uid=0), dict(sync_handler_uid=1), dict(chroot=b"/tmp"), dict(forbid_devices=True),
                      dict(detach_network=DetachNetwork.EVERYWHERE), dict(splitting=Splitting.PROCESS, uid=0)):
            try:
                confined(plan(**asked))
            except CannotConfine as error:
                print(error.status, error.code)
    """
    assert output_of(script).split("\n")[:-1] == [
        "Uid: 65534 65534 65534 65534",
        "1 cannot-drop-rights",
        "1 cannot-drop-rights",
        "1 cannot-change-root",
        "13 cannot-forbid-devices",
        "1 cannot-detach",
        "1 cannot-drop-rights",
    ]


def test_the_side_without_rights_has_none_for_good() -> None:
    script = """
        confined(plan(splitting=Splitting.PROCESS))
        status("Uid", "Gid", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs")
        tried(os.setuid, 0)
        tried(os.listdir, "/root")
        print(subprocess.run(["grep", "-c", "^CapEff:.0*$", "/proc/self/status"], stdout=subprocess.PIPE).stdout)
    """
    nothing = "0000000000000000"
    assert output_of(script).split("\n")[:-1] == [
        "Uid: 65534 65534 65534 65534",
        "Gid: 65534 65534 65534 65534",
        *(f"Cap{each}: {nothing}" for each in ("Inh", "Prm", "Eff", "Bnd", "Amb")),
        "NoNewPrivs: 1",
        "EPERM",
        "EACCES",
        r"b'1\n'",
    ]


def test_namespaces_are_taken_apart_as_asked() -> None:
    script = """
        def spaces():
            return {kind: os.readlink("/proc/thread-self/ns/" + kind) for kind in ("net", "uts", "ipc", "mnt")}
        before = spaces()
        for asked in (
            dict(),
            dict(given={'detach-ipc': None}),
            dict(detach_ipc=False),
            dict(detach_ipc=False, detach_miscellanea=True),
            dict(detach_ipc=False, detach_network=DetachNetwork.EVERYWHERE),
            dict(detach_ipc=False, detach_network=DetachNetwork.NON_PRIVILEGED, splitting=Splitting.PROCESS),
            dict(detach_ipc=False, detach_network=DetachNetwork.NON_PRIVILEGED),
        ):
            if os.fork() == 0:
                confining = Confining(plan(**asked))
                confining.isolate()
                confining._change_ids = lambda **_: None  # Other users' processes cannot be looked into.
                confining.lower()
                after = spaces()
                print(*sorted(kind for kind in before if before[kind] != after[kind]), flush=True)
                os._exit(0)
            os.wait()
    """
    assert output_of(script).split("\n")[:-1] == ["uts", "ipc uts", "", "ipc uts", "net", "net", ""]


def test_without_the_network_not_even_this_machine_is_reached() -> None:
    script = """
        confined(plan(detach_network=DetachNetwork.EVERYWHERE))
        tried(socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect, ("127.0.0.1", 9))
        print(*[name for _, name in socket.if_nameindex()])
    """
    first, names = output_of(script).split("\n")[:2]
    assert first == "ENETUNREACH"
    assert not set(names.split()) - {
        "lo",
        "tunl0",
        "sit0",
        "ip6tnl0",
        "gre0",
        "gretap0",
        "erspan0",
        "ip_vti0",
        "ip6_vti0",
        "ip6gre0",
    }


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A directory that can be a root, with a watched directory under its whole path."""
    root = tmp_path / "root"
    inside = root / str(tmp_path / "watched").lstrip("/")
    inside.mkdir(parents=True)
    (inside / "file").write_text("inside")
    (tmp_path / "watched").mkdir()
    return root


@pytest.mark.parametrize("pivot", ["OFF", "AUTO", "AUTO_RO"])
def test_in_another_root_nothing_else_can_be_seen(root: Path, tmp_path: Path, pivot: str) -> None:
    script = f"""
        watched = os.fsencode(sys.argv[1])
        confined(plan(watched, chroot=os.fsencode(sys.argv[2]), pivot_root=PivotRoot.{pivot}))
        print(os.listdir(b"/") == [watched.split(b"/")[1]], os.path.exists("/etc/passwd"), os.getcwdb() == watched)
        print(open("file").read())
        tried(os.open, "..", os.O_RDONLY)
        os.chdir("/")
        os.chdir("../../../..")
        print(len(os.listdir(".")))
        os.seteuid(0)
        tried(os.mkdir, "/made")
    """
    out = output_of(script, tmp_path / "watched", root).split("\n")[:-1]
    assert out == ["True False True", "inside", "done", "1", "EROFS" if pivot == "AUTO_RO" else "done"]
    assert not mounts_outside(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["root", "watched"]
    assert not Path("/dev/shm/clsync-rootfs").exists()


def test_a_pivot_needs_a_mount_point_and_says_so(root: Path, tmp_path: Path) -> None:
    script = """
        try:
            confined(plan(os.fsencode(sys.argv[1]), chroot=os.fsencode(sys.argv[2]), pivot_root=PivotRoot.DIRECT))
        except CannotConfine as error:
            print(error.status, error.fix)
    """
    assert output_of(script, tmp_path / "watched", root).endswith(" make it a mount point, or say pivot-root=auto\n")
    ready = """
        from instep.linux import namespaces
        namespaces.own_mounts()
        namespaces.bind_to_itself(os.fsencode(sys.argv[2]), read_only=False)
        confined(plan(os.fsencode(sys.argv[1]), chroot=os.fsencode(sys.argv[2]), pivot_root=PivotRoot.DIRECT))
        print(os.path.exists("/etc/passwd"), open("file").read())
    """
    assert output_of(ready, tmp_path / "watched", root) == "False inside\n"


def test_a_watched_directory_that_the_new_root_lacks_is_an_error(root: Path) -> None:
    script = """
        try:
            confined(plan(b"/no/such", chroot=os.fsencode(sys.argv[1])))
        except CannotConfine as error:
            print(error.status, error.what.startswith("cannot stand in /no/such in the new root"))
    """
    assert output_of(script, root) == "2 True\n"


def test_only_the_mount_points_that_are_named_stay_even_where_mounts_are_shared(tmp_path: Path) -> None:
    """Where mounts are shared, as systemd has them, an unmount would reach the outside."""
    for name in ("kept/below", "gone"):
        (tmp_path / name).mkdir(parents=True)
    script = """
        import ctypes
        from instep.linux import namespaces
        libc = ctypes.CDLL(None, use_errno=True)
        namespaces.own_mounts()
        assert libc.mount(b"none", b"/", None, 1 << 20 | 16384, None) == 0  # MS_SHARED: this is the outside
        here = os.fsencode(sys.argv[1])
        for name in (b"/kept", b"/kept/below", b"/gone"):
            assert libc.mount(b"instep-test", here + name, b"tmpfs", 0, None) == 0
        os.mkdir(here + b"/kept/below") if not os.path.isdir(here + b"/kept/below") else None
        outside = namespaces.mount_points()
        child = os.fork()
        if child == 0:
            table = os.open("/proc", os.O_RDONLY)
            confined(plan(here, mountpoints=(here + b"/kept",)))
            os.seteuid(0)
            inside = os.open("self/mounts", os.O_RDONLY, dir_fd=table)
            print([line.split()[1].decode() for line in os.read(inside, 100000).splitlines()], flush=True)
            os._exit(0)
        os.waitpid(child, 0)
        print(namespaces.mount_points() == outside)
    """
    script = script.replace('(b"/kept", b"/kept/below", b"/gone")', '(b"/kept", b"/gone")')
    inside, outside = output_of(script, tmp_path).split("\n")[:2]
    assert (eval(inside), outside) == (["/", f"{tmp_path}/kept"], "True")
    assert not mounts_outside(tmp_path)


@needs_groups
@pytest.mark.usefixtures("no_groups_left")
def test_a_device_that_is_not_allowed_does_not_open() -> None:
    script = """
        launcher = confined(plan(forbid_devices=True))
        tried(os.open, "/dev/null", os.O_RDWR)
        tried(os.open, "/dev/urandom", os.O_RDONLY)
        tried(os.open, "/dev/zero", os.O_RDWR)
        tried(os.open, "/dev/full", os.O_RDONLY)
        print(ran(launcher, b"cat", b"/dev/full"))
    """
    out = output_of(script).split("\n")
    assert out[:4] == ["done", "done", "EPERM", "EPERM"]
    assert "Operation not permitted" in out[4]


def test_forbidden_system_calls_fail_and_those_of_the_daemon_do_not(open_directory: Path) -> None:
    script = """
        import threading
        confined(plan(seccomp_filter=True))
        status("Seccomp", "NoNewPrivs")
        for call in (os.fork, lambda: os.execv("/bin/true", ["true"]), lambda: socket.socket(socket.AF_INET),
                     lambda: os.kill(1, 0), lambda: os.chroot("/"), lambda: os.setuid(65534),
                     lambda: subprocess.run(["true"])):
            tried(call)
        thread = threading.Thread(target=lambda: print("a thread"))
        thread.start()
        thread.join()
        os.kill(os.getpid(), 0)
        socket.socket(socket.AF_UNIX).close()
        async def main():
            asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, lambda: print("a signal"))
            os.kill(os.getpid(), signal.SIGUSR1)
            await asyncio.sleep(0.01)
            print(await asyncio.to_thread(lambda: "another thread"))
        asyncio.run(main())
        with open(sys.argv[1] + "/file", "w") as file:
            file.write("x")
        os.rename(sys.argv[1] + "/file", sys.argv[1] + "/renamed")
        print(os.listdir(sys.argv[1]))
    """
    out = output_of(script, open_directory).split("\n")[:-1]
    assert out == [
        "NoNewPrivs: 1", "Seccomp: 2", *["EPERM"] * 7, "a thread", "a signal", "another thread", "['renamed']",
    ]  # fmt: skip


def test_in_another_root_without_proc_changes_are_seen_and_programs_run(tmp_path: Path) -> None:
    """A bind mount of the root alone has all programs, but none of what is mounted below it."""
    (tmp_path / "root").mkdir()
    (tmp_path / "watched" / "d").mkdir(parents=True)
    script = """
        import ctypes
        from instep.daemon.build import build_event_monitor
        from instep.linux import namespaces
        from instep.ports import Place
        watched, root = os.fsencode(sys.argv[1]), os.fsencode(sys.argv[2])
        namespaces.own_mounts()
        assert ctypes.CDLL(None).mount(b"/", root, None, 4096, None) == 0  # MS_BIND
        launcher = confined(plan(watched, chroot=root))
        print(os.path.exists("/proc/self"), os.path.exists("/bin/sh"), os.geteuid())
        monitor = build_event_monitor(Place(watched, lambda path, is_dir: False))
        monitor.start()
        while not monitor.drained:
            monitor.read()
        print(ran(launcher, b"/bin/sh", b"-c", b"mkdir d/new && touch d/new/file && pwd"))
        paths = set()
        while b"d/new" not in paths:
            paths |= {report.path for report in monitor.read()}
        print("seen")
        try:
            raise ValueError
        except ValueError:
            import logging
            logging.getLogger("x").exception("what was to be loaded for this has been loaded")
    """
    out = output_of(script, tmp_path / "watched", tmp_path / "root").split("\n")[:-1]
    assert out == ["False True 65534", f"0 {tmp_path}/watched", "", "seen"]
    assert not mounts_outside(tmp_path)
