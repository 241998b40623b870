"""``instep check``: tries a mirror's targets the way the mirror would use them, and changes nothing that stays."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace

from instep.daemon.build import Ground, build_engine
from instep.daemon.far import FarEngine
from instep.engines import ssh
from instep.engines.probe import judge, reach
from instep.engines.rsync.engine import RsyncEngine
from instep.errors import OperatorError, TargetAway
from instep.inspection import Finding, Inspection, Verdict
from instep.ports import Engine
from instep.spec import EngineName, MirrorSpec, TargetSpec


def inspect_targets(spec: MirrorSpec) -> Sequence[Inspection]:
    """Look at all targets of a mirror at once; its source does not matter. Blocks for up to a minute or two."""
    return asyncio.run(_all(spec))


async def _all(spec: MirrorSpec) -> Sequence[Inspection]:
    return await asyncio.gather(*(_one(spec, target) for target in spec.targets))


async def _one(spec: MirrorSpec, target: TargetSpec) -> Inspection:
    findings: list[Finding] = []
    facts = reach.Facts()
    place = None if target.is_local else ssh.place(target.address)
    try:
        if target.is_local:
            facts = await reach.here(target.address)
        elif place is not None:
            facts = await _over_ssh(spec, place, findings)
    except (OperatorError, TargetAway, TimeoutError) as error:
        findings.append(_refusal("connection", error))
        return Inspection(target.address, tuple(findings))
    if target.is_local or facts != reach.Facts():
        findings += judge.findings(facts, spec.preserve, as_root=os.geteuid() == 0)
    engine, why = "", ""
    if all(finding.verdict is not Verdict.BAD for finding in findings):
        engine = await _tried(spec, target, findings)
        why = _why(target, facts, engine)
    return Inspection(target.address, tuple(findings), engine, why, judge.kept(facts))


async def _over_ssh(spec: MirrorSpec, place: ssh.Place, findings: list[Finding]) -> reach.Facts:
    try:
        return await reach.over_ssh(spec.ssh, place)
    except reach.NoPython as lacking:
        findings.append(Finding("python3", Verdict.NOTE, str(lacking), "the agent needs 3.8 or later"))
    except reach.Restricted as restricted:
        findings.append(_restricted(restricted))
        return reach.Facts()
    try:
        return await reach.over_shell(spec.ssh, place)
    except (reach.NoPython, reach.Restricted) as restricted:
        findings.append(_restricted(restricted))
        return reach.Facts()


def _restricted(words: Exception) -> Finding:
    return Finding("session", Verdict.NOTE, f"the key runs one command only: {words}", "nothing else can be looked at")


async def _tried(spec: MirrorSpec, target: TargetSpec, findings: list[Finding]) -> str:
    """Open the engine that a mirror would use, as for a dry run; its name, or nothing where it refuses."""
    with tempfile.TemporaryDirectory(prefix="instep-check-") as empty:
        source = os.open(empty, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            alone = replace(spec, source=os.fsencode(empty), targets=(target,), dry_run=True)
            engine = build_engine(Ground(alone, source), target)
            try:
                await engine.open()
                findings += _lacking(engine)
                return engine.name
            finally:
                await engine.close()
        except (OperatorError, TargetAway) as error:
            findings.append(_refusal("engine", error))
            return ""
        finally:
            os.close(source)


def _lacking(engine: Engine) -> list[Finding]:
    """What only the two rsyncs could tell each other."""
    if isinstance(engine, FarEngine):
        engine = engine.serving
    if not isinstance(engine, RsyncEngine):
        return []
    return [
        Finding(name, Verdict.LOST, f"the target's rsync does not know {name}", f"{name} are left out")
        for name in engine.lacking
    ]


def _why(target: TargetSpec, facts: reach.Facts, engine: str) -> str:
    if not engine:
        return "no engine can serve the target as it is"
    if target.engine is not EngineName.AUTO:
        return "asked for"
    if target.is_local:
        return "a directory of this machine"
    if target.is_daemon:
        return "an rsync daemon"
    if engine == EngineName.REMOTE.value:
        return f"python3 {facts.python} is there" if facts.python else "the agent answers"
    if facts.python and not judge.runs_agent(facts):
        return f"python3 {facts.python} is too old for the agent"
    return "no python3 for the agent there"


def _refusal(name: str, error: Exception) -> Finding:
    if isinstance(error, OperatorError):
        return Finding(name, Verdict.BAD, error.what, error.fix)
    if isinstance(error, TimeoutError):
        return Finding(name, Verdict.BAD, f"no answer within {reach.LIMIT_S:g} s", "look at the host and the network")
    return Finding(name, Verdict.BAD, str(error), "a mirror would wait and try again")
