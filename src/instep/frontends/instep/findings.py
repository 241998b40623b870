"""What a verification found, on standard output: a line a name for people, or an object a line for programs."""

from __future__ import annotations

from typing import TextIO

from instep.frontends.instep.output import escaped, json_line
from instep.model import Difference, Verified

_VERBS = {"differs": "differs", "left": "still differs"}


class Findings:
    """Writes each difference as it comes, and a summary for each target."""

    def __init__(self, stream: TextIO, *, as_json: bool, many: bool, repair: bool) -> None:
        """``many``: more than one target, so each line says which; ``repair``: what differs is brought in step."""
        self._stream = stream
        self._as_json = as_json
        self._many = many
        self._repair = repair

    def differs(self, target: str, one: Difference) -> None:
        """A name differs."""
        self._name("differs", target, one)

    def left(self, target: str, one: Difference) -> None:
        """A name still differs after the repair."""
        self._name("left", target, one)

    def verified(self, target: str, result: Verified) -> None:
        """A target has been compared whole."""
        if self._as_json:
            values: dict[str, object] = {
                "event": "verified",
                "target": target,
                "entries": result.entries,
                "differences": result.differences,
                "changing": result.changing,
                "seconds": round(result.seconds, 3),
            }
            if self._repair:
                values["repaired"] = result.repaired
            self._say(json_line(values))
            return
        parts = [f"{result.entries:,} entries", _counted(result.differences, "difference")]
        if self._repair and result.differences:
            parts.append(f"{result.repaired:,} repaired")
        if result.changing:
            parts.append(f"{result.changing:,} not judged, for they kept changing")
        parts.append(f"{result.seconds:.1f} s")
        self._say(f"verified {escaped(target)}: {', '.join(parts)}")

    def _name(self, event: str, target: str, one: Difference) -> None:
        if self._as_json:
            values: dict[str, object] = {
                "event": event,
                "target": target,
                "path": one.path or ".",
                "what": one.what.words,
                "text": one.text,
            }
            if one.other is not None:
                values["other"] = one.other
            self._say(json_line(values))
            return
        where = f"{escaped(target)}: " if self._many else ""
        self._say(f"{_VERBS[event]} {where}{escaped(one.path) or '.'}: {escaped(one.text)}")

    def _say(self, line: str) -> None:
        self._stream.write(line + "\n")
        self._stream.flush()


def _counted(number: int, word: str) -> str:
    return f"{number:,} {word}" if number == 1 else f"{number:,} {word}s"
