"""Shutting the process in, step by step, as a plan says.

Facts: what needs the most rights comes first. Namespaces, mounts and the root are the process's; ids and capabilities
are those of single threads (``instep.linux.ids``), so all of it is done in the main thread before there are others but
the one that starts programs. Code that is loaded late would not be found in another root, nor be readable without
rights.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import importlib
import os
import pwd

from instep.confinement import Confinement, Detached, Identity, Inheritance, RootChange
from instep.engines.command.launcher import Launcher
from instep.errors import CannotConfine
from instep.linux import capabilities, devices, ids, namespaces, seccomp
from instep.linux.capabilities import Capabilities
from instep.linux.prctl import no_new_privileges

_FLAGS = {
    Detached.NETWORK: namespaces.CLONE_NEWNET,
    Detached.HOST_NAME: namespaces.CLONE_NEWUTS,
    Detached.IPC: namespaces.CLONE_NEWIPC,
}
_LOADED_LATE = (
    "concurrent.futures.thread",
    "encodings.ascii",
    "encodings.idna",
    "encodings.latin_1",
    "instep.daemon.privileged.helper",
    "instep.monitors.inotify_events",
    "linecache",
    "resource",
    "socket",
    "subprocess",
    "tempfile",
    "traceback",
)
"""What is otherwise loaded when it is needed."""


class Confining:
    """Carries out one plan, in the order of its methods; each is called once, in the main thread."""

    def __init__(self, plan: Confinement) -> None:
        """Find out whether it can be done.

        Raises:
            CannotConfine: the kernel or the rights do not allow it.
        """
        self.plan = plan
        self._devices = _device_group(plan.device_group) if plan.devices else None
        if plan.system_calls:
            reason = seccomp.why_unavailable()
            if reason is not None:
                raise CannotConfine("cannot-filter-calls", f"cannot forbid system calls: {reason}", status=errno.ENOSYS)

    def isolate(self) -> None:
        """Take apart what is shared with the system, and change the root; then stand in the plan's directory.

        Raises:
            CannotConfine: a step is not permitted, or a directory is missing.
        """
        plan = self.plan
        if (
            plan.root is not None
            or plan.mountpoints
            or plan.split is not None
            or "CAP_DAC_READ_SEARCH" not in plan.capabilities
        ):
            _load_all()
        for kind in plan.detached:
            try:
                namespaces.unshare(_FLAGS[kind])
            except OSError as error:
                if kind not in plan.optional:
                    raise _cannot(
                        "detach", f"share {str(kind.name).lower().replace('_', ' ')} no longer", error
                    ) from error
        if plan.mountpoints or (plan.root is not None and plan.root_change is not RootChange.CHROOT):
            try:
                namespaces.own_mounts()
            except OSError as error:
                raise _cannot("detach", "have mounts of our own", error) from error
        if plan.mountpoints:
            _unmount_all_but(plan.mountpoints)
        if plan.root is not None:
            try:
                _change_root(plan.root, plan.root_change)
            except OSError as error:
                fix = (
                    "make it a mount point, or say pivot-root=auto"
                    if error.errno in {errno.EINVAL, errno.EBUSY}
                    else ""
                )
                what = f"make {os.fsdecode(plan.root)} the root"
                raise _cannot("change-root", what, error, fix) from error
        try:
            os.chdir(plan.directory)
        except OSError as error:
            where = "" if plan.root is None else f" in the new root {os.fsdecode(plan.root)}"
            what = f"stand in {os.fsdecode(plan.directory)}{where}"
            fix = "" if plan.root is None else "the watched directory must be there under its whole path: bind it there"
            raise _cannot("change-root", what, error, fix) from error

    def lower(self) -> Launcher | None:
        """Give up rights: all, for good, beside a helper; else those that starting programs does not need.

        Returns:
            What starts programs; None: the process itself does, as it is, or the helper.

        Raises:
            CannotConfine: a step that was asked for is not permitted.
        """
        plan = self.plan
        if self._devices is not None:
            try:
                self._devices.enter()
            except OSError as error:
                raise _cannot("forbid-devices", "enter the control group without devices", error) from error
            self._devices.forget()
        if plan.split is not None:
            self._renounce(network=plan.split.network)
            return None
        before = capabilities.read()
        launcher = launcher_for(plan, plan.identity, before)
        self._change_ids(for_good=False)
        kept, inheritable = kept_capabilities(plan, before)
        try:
            wanted = Capabilities(kept, kept, inheritable)
            if capabilities.read() != wanted:
                capabilities.write(wanted)
        except OSError as error:
            raise _cannot("drop-rights", "reduce the capabilities", error) from error
        return launcher

    def become_helper(self) -> Launcher | None:
        """Be the plan's helper, which keeps what starting programs and looking at files needs.

        Returns:
            What starts programs; None: the helper itself, as it is.

        Raises:
            CannotConfine: not permitted.
        """
        split = self.plan.split
        assert split is not None
        who = split.identity
        before = capabilities.read()
        launcher = launcher_for(self.plan, who, before)
        kept, inheritable = kept_capabilities(self.plan, before)
        try:
            if os.getresuid() != (who.user,) * 3 or os.getresgid() != (who.group,) * 3:
                capabilities.keep_over_change_of_ids()
                ids.set_groups(_groups_of(who))
                ids.set_group(who.group, who.group, who.group)
                ids.set_user(who.user, who.user, who.user)
            capabilities.write(Capabilities(kept, kept, inheritable))
        except OSError as error:
            fix = "start it as root, or leave out --privileged-uid and --privileged-gid"
            raise _cannot("drop-rights", f"become user {who.user} and group {who.group}", error, fix) from error
        return launcher

    def seal(self) -> None:
        """Forbid system calls, if the plan says so; everything that needs them is loaded and open.

        Raises:
            CannotConfine: the kernel does not take the filter.
        """
        if self.plan.system_calls:
            try:
                seccomp.restrict()
            except OSError as error:
                raise _cannot("filter-calls", "forbid system calls", error) from error

    def _renounce(self, *, network: bool) -> None:
        """Keep nothing."""
        if not network:
            try:
                namespaces.unshare(namespaces.CLONE_NEWNET)
            except OSError as error:
                raise _cannot("detach", "share network no longer", error) from error
        try:
            if capabilities.read().effective & capabilities.mask(("CAP_SETPCAP",)):
                capabilities.drop_bounding()
            self._change_ids(for_good=True)
            capabilities.write(Capabilities(0, 0, 0))
            no_new_privileges()
        except OSError as error:
            raise _cannot("drop-rights", "give up all rights", error) from error

    def _change_ids(self, *, for_good: bool) -> None:
        plan = self.plan
        user, group = plan.identity.user, plan.identity.group
        now = os.getresuid()[:2], os.getresgid()[:2]
        if now == ((user, user), (group, group)) or (not for_good and (os.geteuid(), os.getegid()) == (user, group)):
            return
        try:
            ids.set_groups(())
            ids.set_group(*((group, group, group) if for_good else (ids.KEEP, group, ids.KEEP)))
            ids.set_user(*((user, user, user) if for_good else (ids.KEEP, user, ids.KEEP)))
        except OSError as error:
            if plan.identity_optional:
                return
            fix = "start it as root, or leave out --uid and --gid"
            raise _cannot("drop-rights", f"become user {user} and group {group}", error, fix) from error


def launcher_for(plan: Confinement, identity: Identity, before: Capabilities) -> Launcher | None:
    """What starts programs in a process that is, or is about to be, ``identity``; None: nobody but itself is needed.

    Raises:
        CannotConfine: programs cannot be run as the plan says.
    """
    programs = plan.programs
    ours = Identity(os.getuid(), os.getgid())
    inherited = 0 if programs.user == 0 else inherited_capabilities(plan, before)
    if programs == identity == ours == Identity(os.geteuid(), os.getegid()) and not inherited:
        return None
    try:
        groups = None if programs == ours else _groups_of(programs)
        return Launcher(programs.user, programs.group, groups=groups, capabilities=inherited)
    except OSError as error:
        what = f"run programs as user {programs.user} and group {programs.group}"
        fix = "start it as root, or leave out --sync-handler-uid and --sync-handler-gid"
        raise _cannot("drop-rights", what, error, fix) from error


def kept_capabilities(plan: Confinement, before: Capabilities) -> tuple[int, int]:
    """What is kept, and what of it (or of more) is inheritable."""
    kept = capabilities.mask(plan.capabilities) & before.permitted
    match plan.inheritance:
        case Inheritance.NONE:
            return kept, 0
        case Inheritance.UNTOUCHED:
            return kept, before.inheritable
        case Inheritance.KEPT:
            return kept, kept
        case Inheritance.ALL:
            return kept, before.permitted


def inherited_capabilities(plan: Confinement, before: Capabilities) -> int:
    """What programs inherit that do not run as root."""
    return kept_capabilities(plan, before)[1] & before.permitted


def _groups_of(identity: Identity) -> list[int]:
    try:
        return os.getgrouplist(pwd.getpwuid(identity.user).pw_name, identity.group)
    except KeyError:
        return [identity.group]


def _device_group(name: bytes | None) -> devices.Group:
    try:
        found = devices.hierarchies()
    except OSError:
        found = []
    if not found:
        raise CannotConfine(
            "cannot-forbid-devices",
            "cannot forbid devices: no control groups are mounted, neither v1 with devices nor v2",
            status=errno.ENOSYS,
            fix="mount /sys/fs/cgroup, or leave out forbid-devices",
        )
    failed: OSError | None = None
    for hierarchy in found:
        try:
            return devices.Group(hierarchy, name)
        except OSError as error:
            failed = error
    assert failed is not None
    fix = (
        "another process is in it: give each a name of its own with %PID%"
        if failed.errno == errno.EBUSY
        else "start it as root, where /sys/fs/cgroup can be written, or leave out forbid-devices"
    )
    raise _cannot("forbid-devices", "make a control group without devices", failed, fix)


def _unmount_all_but(kept: tuple[bytes, ...]) -> None:
    """What stands above one that is kept stays as well."""
    stays = {b"/"}
    for path in kept:
        here = os.path.realpath(path)
        while here not in stays:
            stays.add(here)
            here = os.path.dirname(here)
    try:
        for point in reversed(namespaces.mount_points()):
            if point not in stays:
                namespaces.detach(point)
    except OSError as error:
        raise _cannot("unmount", f"unmount {os.fsdecode(error.filename or b'')}", error) from error


def _change_root(root: bytes, how: RootChange) -> None:
    if how is RootChange.CHROOT:
        os.chroot(root)
        os.chdir(b"/")
        return
    if how is not RootChange.PIVOT:
        namespaces.bind_to_itself(root, read_only=how is RootChange.BIND_READ_ONLY)
    namespaces.change_root_mount(root)


def _load_all() -> None:
    for name in _LOADED_LATE:
        importlib.import_module(name)
    with contextlib.suppress(OSError):  # Another C library has no such thing.
        ctypes.CDLL("libgcc_s.so.1")  # The C library loads it when a thread is ended, and aborts where it cannot.


def _cannot(code: str, what: str, error: OSError, fix: str = "") -> CannotConfine:
    if not fix and error.errno == errno.EPERM:
        fix = "start it as root"
    return CannotConfine(f"cannot-{code}", f"cannot {what}: {error.strerror}", status=error.errno or 1, fix=fix)
