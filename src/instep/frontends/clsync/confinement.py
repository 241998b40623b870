"""From settings to how far the process is shut in: clsync's options of section "security", as one plan.

Facts (observed): started by root, clsync goes on as nobody with four capabilities, in effect only, and its handler is
run as root again; to others these defaults mean nothing. ``detach-ipc``, which is on by default, takes the host name
apart; here it does what its name says as well once it is asked for. ``seccomp-filter`` means the side without rights,
and would be inherited by handlers where there are no two sides.
"""

from __future__ import annotations

import re

from instep.confinement import NOT_DETACHED, Confinement, Detached, Identity, Inheritance, RootChange, Split
from instep.frontends.clsync.settings import DetachNetwork, Inherit, PivotRoot, Settings, Splitting

ENVIRONMENT = frozenset({b"CLSYNC_STATUS", b"CLSYNC_ITERATION"})
"""What a handler is told by; nothing else of its environment may be chosen from the side without rights."""

_ROOT_CHANGES = {
    PivotRoot.OFF: RootChange.CHROOT,
    PivotRoot.DIRECT: RootChange.PIVOT,
    PivotRoot.AUTO: RootChange.BIND,
    PivotRoot.AUTO_RO: RootChange.BIND_READ_ONLY,
}
_INHERITANCE = {
    Inherit.EMPTY: Inheritance.NONE,
    Inherit.DONT_TOUCH: Inheritance.UNTOUCHED,
    Inherit.CLSYNC: Inheritance.KEPT,
    Inherit.PERMITTED: Inheritance.ALL,
}

_MACRO = re.compile(rb"%(?:([A-Z][A-Za-z0-9-]*)?%)")
_NAME = rb"(?!\.\.?[/\x00])[^/\x00]+"
"""One component of a path that leads nowhere else."""
_BELOW = _NAME + rb"(?:/" + _NAME + rb")*"


def plan(settings: Settings, *, started: Identity, nobody: Identity) -> Confinement:
    """What is to be done.

    Args:
        settings: what was asked for.
        started: what the process was started as.
        nobody: the user and group that have no files.
    """
    splitting = settings.splitting is not Splitting.OFF or settings.seccomp_filter
    return Confinement(
        detached=_detached(settings),
        optional=NOT_DETACHED if "detach-ipc" in settings.given else Detached.HOST_NAME,
        mountpoints=settings.mountpoints,
        root=settings.chroot,
        root_change=_ROOT_CHANGES[settings.pivot_root],
        directory=settings.watch_dir,
        identity=_chosen(settings.uid, settings.gid, nobody if started.user == 0 else started),
        identity_optional=settings.uid is None and settings.gid is None,
        capabilities=settings.preserve_capabilities,
        inheritance=_INHERITANCE[settings.inherit_capabilities],
        programs=_chosen(settings.sync_handler_uid, settings.sync_handler_gid, started),
        split=_split(settings, started) if splitting else None,
        system_calls=settings.seccomp_filter,
        devices=settings.forbid_devices,
        device_group=settings.cgroup_group_name,
        notices=tuple(_notices(settings, splitting=splitting)),
    )


def _chosen(user: int | None, group: int | None, default: Identity) -> Identity:
    return Identity(default.user if user is None else user, default.group if group is None else group)


def _detached(settings: Settings) -> Detached:
    detached = NOT_DETACHED
    if settings.detach_network is DetachNetwork.EVERYWHERE:
        detached |= Detached.NETWORK
    if settings.detach_ipc:
        detached |= Detached.HOST_NAME
        if "detach-ipc" in settings.given:
            detached |= Detached.IPC
    if settings.detach_miscellanea:
        detached |= Detached.HOST_NAME | Detached.IPC
    return detached


def _split(settings: Settings, started: Identity) -> Split:
    return Split(
        identity=_chosen(settings.privileged_uid, settings.privileged_gid, started),
        network=settings.detach_network is not DetachNetwork.NON_PRIVILEGED,
        environment=ENVIRONMENT,
        vectors=vectors(settings) if settings.check_execvp_arguments else None,
    )


def _notices(settings: Settings, *, splitting: bool) -> list[str]:
    notices = []
    if settings.splitting is Splitting.THREAD:
        notices.append("splitting=thread: threads share their memory, so a process of its own keeps the rights")
    if settings.seccomp_filter and settings.splitting is Splitting.OFF:
        notices.append(
            "seccomp-filter: handlers would inherit it, so a process of its own keeps the rights and starts them"
        )
    if not splitting and settings.detach_network is DetachNetwork.NON_PRIVILEGED:
        notices.append("detach-network=non-privileged has no effect without splitting=process")
    if not splitting and settings.check_execvp_arguments:
        notices.append("check-execvp-arguments has no effect without splitting=process")
    return notices


# ---- what may be executed ----


def vectors(settings: Settings) -> tuple[bytes, ...]:
    """Regular expressions for what may be executed: the words, each followed by a NUL."""
    allowed = [_vector(settings, settings.arguments)]
    if settings.initial_arguments is not None:
        allowed.append(_vector(settings, settings.initial_arguments))
    hooks = {settings.exit_hook, settings.pre_exit_hook, *settings.permitted_hooks} - {None}
    # A hook's one argument is the label, which may be changed while we run.
    allowed += [re.escape(hook) + rb"\x00[^\x00]*\x00" for hook in sorted(hook for hook in hooks if hook)]
    return tuple(allowed)


def _vector(settings: Settings, arguments: tuple[bytes, ...]) -> bytes:
    words = (_words(settings, argument) for argument in arguments)
    return re.escape(settings.sync_handler) + rb"\x00" + b"".join(words)


def _words(settings: Settings, argument: bytes) -> bytes:
    """What one configured argument can become: as a word, or, if it stands for all paths, as any number of words."""
    if argument == b"%INCLUDE-LIST%":
        return b"(?:" + _path(settings) + rb"\x00)*"
    out = b""
    end = 0
    for found in _MACRO.finditer(argument):
        out += re.escape(argument[end : found.start()])
        end = found.end()
        out += b"%" if found[1] is None else _macro(settings, found, alone=found[0] == argument)
    return out + re.escape(argument[end:]) + rb"\x00"


def _macro(settings: Settings, found: re.Match[bytes], *, alone: bool) -> bytes:
    match found[1]:
        case b"TYPE":
            return rb"(?:sync|synclist|rsynclist|initialsync)"
        case b"EVENT-MASK":
            return rb"(?:-?[0-9]*|%EVENT-MASK%)"
        case b"INCLUDE-LIST-PATH" | b"EXCLUDE-LIST-PATH":
            return rb"(?:" + _list_path(settings) + rb")?"
    # What stands for nothing is taken out of a word, and left where it is the word.
    return re.escape(found[0]) if alone else b""


def _path(settings: Settings) -> bytes:
    """A path in the watched directory as handlers are told of it, which no program can take for an option; or none."""
    root = re.escape(settings.watch_dir.rstrip(b"/"))
    absolute = root + rb"(?:/(?:" + _BELOW + rb")?)?"
    return rb"(?:\./?|\./" + _BELOW + rb"|(?!-)" + _BELOW + rb"|" + absolute + rb")?"


def _list_path(settings: Settings) -> bytes:
    # A temporary one is made when it is needed, wherever TMPDIR says.
    made = rb"(?:/" + _NAME + rb")*/clsync-[^/\x00]+"
    directory = made if settings.lists_dir is None else re.escape(settings.lists_dir.rstrip(b"/"))
    return directory + rb"/\.clsync-(?:list|exclist)\.[0-9.]+"
