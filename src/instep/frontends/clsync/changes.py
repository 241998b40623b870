"""What other settings need, while the program runs, that cannot be had any more: then the old ones stay in force."""

from __future__ import annotations

from instep.frontends.clsync import diskchecks
from instep.frontends.clsync.complaints import Complaint
from instep.frontends.clsync.modules import module_spec
from instep.frontends.clsync.settings import Settings
from instep.spec import ModuleSpec


def complaints(before: Settings, after: Settings, *, module: ModuleSpec | None, has_helper: bool) -> list[Complaint]:
    """Why settings cannot take the place of others; looks for programs on the disk.

    Args:
        before: those in force.
        after: those that are wanted.
        module: the one that is loaded.
        has_helper: a process of its own, begun with the settings of the start, decides what is watched.
    """
    found = []
    if after.mode.calls and not _serves(module, after):
        found.append(
            Complaint(
                f"mode {after.mode.value} calls a module that is not loaded, and modules are loaded at the start alone",
                "start anew with this mode and --sync-handler",
            )
        )
    if has_helper and after.rules_file != before.rules_file:
        found.append(
            Complaint(
                "--rules-file cannot be changed with --splitting: the helper has that of the start",
                "change what is in the file and send SIGHUP, or start anew",
            )
        )
    return found + diskchecks.changed(before, after)


def _serves(module: ModuleSpec | None, settings: Settings) -> bool:
    """Whether the module that is loaded is the one that these settings call, and in the same way."""
    if module is None:
        return False
    wanted = module_spec(settings)
    return (wanted.kind, wanted.path, wanted.takes_lists) == (module.kind, module.path, module.takes_lists)
