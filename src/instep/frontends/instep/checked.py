"""How the answer of ``instep check`` looks: a table for people, or one JSON object a target."""

from __future__ import annotations

import json
import os
import textwrap

from instep.frontends.instep.output import escaped
from instep.frontends.instep.usage import WIDTH
from instep.inspection import Inspection, Verdict


def as_text(inspection: Inspection) -> str:
    """The target, its findings in columns, and what follows from them."""
    rows = [
        (finding.name, finding.verdict.value, escaped(finding.value) + (f"; {finding.note}" if finding.note else ""))
        for finding in inspection.findings
    ]
    if inspection.kept:
        rows.append(("kept", Verdict.GOOD.value, ", ".join(inspection.kept)))
    if inspection.engine:
        rows.append(("engine", Verdict.GOOD.value, f"{inspection.engine}: {escaped(inspection.why)}"))
    names = max(len(name) for name, _, _ in rows)
    verdicts = max(len(verdict.value) for verdict in Verdict)
    pad = "\n" + " " * (names + verdicts + 6)
    rows = [
        (name, verdict, pad.join(textwrap.wrap(value, WIDTH - len(pad) + 1) or [""])) for name, verdict, value in rows
    ]
    table = "\n".join(f"  {name:<{names}}  {verdict:<{verdicts}}  {value}" for name, verdict, value in rows)
    return f"{escaped(inspection.target)}\n{table}\n  {_summary(inspection)}"


def _summary(inspection: Inspection) -> str:
    if not inspection.usable:
        return "A mirror to it cannot work."
    if inspection.not_kept:
        return f"A mirror to it works, and does not keep: {', '.join(inspection.not_kept)}."
    return "A mirror to it works, and keeps everything that was tried."


def as_json(inspection: Inspection) -> str:
    """One line."""
    return json.dumps(
        {
            "target": escaped(os.fsdecode(inspection.target)),
            "usable": inspection.usable,
            "engine": inspection.engine or None,
            "why": inspection.why,
            "kept": list(inspection.kept),
            "not_kept": list(inspection.not_kept),
            "findings": [
                {"name": each.name, "verdict": each.verdict.value, "value": escaped(each.value), "note": each.note}
                for each in inspection.findings
            ],
        }
    )
