"""System calls that shut a process in, one by one; each in a process of its own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from instep.linux import capabilities, seccomp
from instep.linux.capabilities import NAMES, mask
from tests.daemon.confined import needs_groups, needs_root, no_groups_left, output_of

__all__ = ["no_groups_left"]  # a fixture


def test_capabilities_have_the_kernel_s_names_and_numbers() -> None:
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    assert last < len(NAMES) or last > 40
    assert mask(("CAP_DAC_READ_SEARCH", "CAP_SETUID", "CAP_SETGID", "CAP_KILL")) == 0xE4
    assert NAMES[40] == "CAP_CHECKPOINT_RESTORE"
    with pytest.raises(KeyError):
        mask(("CAP_FOO",))
    shown = dict(
        line.split(":\t") for line in Path("/proc/thread-self/status").read_text().splitlines() if "Cap" in line
    )
    ours = capabilities.read()
    assert [int(shown[name], 16) for name in ("CapEff", "CapPrm", "CapInh")] == list(ours)


@needs_root
def test_more_capabilities_than_there_are_cannot_be_had() -> None:
    script = """
        from instep.linux import capabilities
        from instep.linux.capabilities import Capabilities
        capabilities.write(Capabilities(4, 4, 0))
        tried(capabilities.write, Capabilities(5, 5, 0))
        tried(capabilities.set_ambient, 4)
        status("CapPrm", "CapEff")
    """
    zeros = "0" * 15
    assert output_of(script).split("\n")[:-1] == ["EPERM", "EPERM", f"CapPrm: {zeros}4", f"CapEff: {zeros}4"]


@needs_groups
@pytest.mark.usefixtures("no_groups_left")
def test_devices_are_forbidden_in_every_kind_of_group_that_there_is() -> None:
    script = """
        from instep.linux import devices
        for hierarchy in devices.hierarchies():
            group = devices.Group(hierarchy)
            sys.stdout.flush()  # The child would print it as well.
            if os.fork() == 0:
                group.enter()
                for device in ("null", "zero", "urandom"):
                    tried(os.open, "/dev/" + device, os.O_RDONLY)
                for device in ("full", "ptmx"):
                    tried(os.open, "/dev/" + device, os.O_RDONLY)
                tried(os.open, "/dev/zero", os.O_RDWR)
                tried(os.mknod, sys.argv[1] + "/null", 0o020666, os.makedev(1, 3))
                sys.stdout.flush()
                os._exit(0)
            os.wait()
            tried(os.open, "/dev/full", os.O_RDONLY)
            group.remove()
        print([os.path.exists(os.path.join(each.group, devices.NAME, b"%d" % os.getpid())) for each in devices.hierarchies()])
    """
    *lines, left, _ = output_of(script, "/tmp").split("\n")
    assert lines == (["done"] * 3 + ["EPERM"] * 4 + ["done"]) * (len(lines) // 8)
    assert lines
    assert "True" not in left


@needs_groups
@pytest.mark.usefixtures("no_groups_left")
def test_a_group_may_have_a_name_and_be_taken_again() -> None:
    """As long as somebody is in it nobody else gets it, for it could be made for other devices."""
    script = """
        from instep.linux import devices
        hierarchy = devices.hierarchies()[0]
        name = b"instep-test-%d/named" % os.getpid()
        for _ in range(2):
            group = devices.Group(hierarchy, name)
            inside, outside = os.pipe()
            if (child := os.fork()) == 0:
                os.close(outside)
                group.enter()
                tried(os.open, "/dev/full", os.O_RDONLY)
                os.read(inside, 1)
                os._exit(0)
            group.forget()
            os.close(inside)
            while not open(os.path.join(hierarchy.group, name, b"cgroup.procs")).read():
                pass
            tried(devices.Group, hierarchy, name)
            os.close(outside)
            os.waitpid(child, 0)
        devices.Group(hierarchy, name).remove()
        print(os.path.exists(os.path.join(hierarchy.group, os.path.dirname(name))))
    """
    assert sorted(output_of(script).split()) == ["EBUSY", "EBUSY", "EPERM", "EPERM", "False"]


def test_filters_of_all_architectures_are_whole_programs() -> None:
    """Every jump leads to an instruction, and every way ends in a return."""
    for machine in ("x86_64", "aarch64"):
        code = seccomp.program(machine, 1234)
        assert len(code) <= 4096
        for place, (operation, if_true, if_false, _) in enumerate(code):
            if operation in {0x15, 0x35}:
                assert place + 1 + max(if_true, if_false) < len(code)
        assert code[-1] == (0x06, 0, 0, 0x00050001)


@pytest.mark.parametrize(
    ("column", "header"),
    [(0, "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), (1, "/usr/include/asm-generic/unistd.h")],
)
def test_calls_have_the_kernel_s_numbers(column: int, header: str) -> None:
    if not Path(header).exists():
        pytest.skip("needs the kernel's headers")
    known = dict(re.findall(r"#define __NR(?:3264)?_(\w+) (\d+)", Path(header).read_text()))
    known.setdefault("newfstatat", known.get("fstatat"))
    found = 0
    for name, row in (seccomp.CALLS | seccomp._LOOKED_INTO).items():
        number = row[column]
        if name in known and not (column == 1 and number is None):
            assert int(known[name]) == number, name
            found += 1
    assert found > 90


def test_the_filter_looks_into_what_calls_are_given() -> None:
    script = """
        import ctypes, mmap
        from instep.linux import seccomp
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prlimit.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
        old = ctypes.create_string_buffer(16)
        seccomp.restrict()
        tried(mmap.mmap, -1, 4096)
        tried(mmap.mmap, -1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, mmap.PROT_READ | mmap.PROT_EXEC)
        tried(socket.socketpair)
        tried(socket.socket, socket.AF_UNIX)
        for family in (socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK, socket.AF_PACKET):
            tried(socket.socket, family, socket.SOCK_RAW)
        tried(os.kill, os.getppid(), 0)
        tried(os.kill, os.getpid(), 0)
        print(libc.prlimit(0, 7, None, old), libc.prlimit(0, 7, old, None))
        print(libc.ptrace(0, 0, None, None), ctypes.get_errno(), libc.unshare(0), libc.personality(-1))
        tried(os.memfd_create, "x")
        print(os.isatty(0))
    """
    out = output_of(script).split("\n")[:-1]
    assert out == ["done", "EPERM", "done", "done", *["EPERM"] * 5, "done", "0 -1", "-1 1 -1 -1", "EPERM", "False"]


@needs_root
def test_a_directory_can_be_watched_where_there_is_no_proc(tmp_path: Path) -> None:
    script = """
        from instep.linux import inotify
        os.chroot(sys.argv[1])
        os.chdir("/")
        fd = os.open("/sub", os.O_RDONLY)
        queue = inotify.open_queue()
        first = inotify.add_watch(queue, fd, inotify.IN_CREATE)
        print(first == inotify.add_watch(queue, fd, inotify.IN_CREATE), os.getcwd())
        os.close(os.open("/sub/new", os.O_CREAT))
        print(b"new" in os.read(queue, 1000))
    """
    (tmp_path / "sub").mkdir()
    assert output_of(script, tmp_path) == "True /\nTrue\n"
