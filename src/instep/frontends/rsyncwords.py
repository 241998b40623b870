"""What the words of an rsync command line ask for, in the terms of a mirror.

Other tools' configurations are full of rsync's options. Those that say what is kept, left out or limited become
fields of a specification, so that any engine can honour them; those that only say how much rsync talks, or that
instep decides itself (recursion, deletion), are dropped; everything else is handed on to rsync.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from instep.errors import UsageError
from instep.frontends.instep.output import escaped
from instep.rules import Preserve
from instep.spec import RuleSource

NOTHING: Final = Preserve(
    owner=False, mode=False, times=False, xattrs=False, acls=False, hard_links=False, devices=False, sparse=False
)
"""What rsync keeps besides names, types and contents when it is not told to."""

_KEPT: Final[dict[str, tuple[str, ...]]] = {
    "p": ("mode",), "t": ("times",), "H": ("hard_links",), "X": ("xattrs",), "A": ("acls", "mode"), "S": ("sparse",),
    "D": ("devices",),
}  # fmt: skip
_TALK: Final = frozenset("vqhir")
"""Only talk; and the recursion that a mirror is."""
_TRANSPORT: Final = frozenset("zWs46B")
"""Say how the bytes travel, and leave the result alone."""
_VALUED: Final = frozenset("eTBMf")

_SAME_AS: Final = {
    "--perms": "-p", "--times": "-t", "--hard-links": "-H", "--xattrs": "-X", "--acls": "-A", "--sparse": "-S",
    "--owner": "-o", "--group": "-g", "--links": "-l", "--archive": "-a", "--compress": "-z", "--whole-file": "-W",
    "--protect-args": "-s", "--secluded-args": "-s", "--one-file-system": "-x", "--dry-run": "-n", "--verbose": "-v",
    "--quiet": "-q", "--recursive": "-r", "--human-readable": "-h", "--itemize-changes": "-i", "--ipv4": "-4",
    "--ipv6": "-6",
}  # fmt: skip
_DROPPED: Final = frozenset(
    {"--delete", "--del", "--delete-before", "--delete-during", "--delete-delay", "--delete-after", "--force",
     "--progress", "--stats", "--ignore-errors", "--partial", "--no-motd"}
)  # fmt: skip
_LONG_VALUED: Final = frozenset(
    {"--rsh", "--rsync-path", "--bwlimit", "--exclude", "--include", "--exclude-from", "--include-from", "--timeout",
     "--contimeout", "--chmod", "--chown", "--usermap", "--groupmap", "--temp-dir", "--partial-dir", "--backup-dir",
     "--suffix", "--password-file", "--log-file", "--log-file-format", "--port", "--sockopts", "--modify-window",
     "--max-size", "--min-size", "--compress-level", "--skip-compress", "--address", "--remote-option", "--iconv",
     "--link-dest", "--copy-dest", "--compare-dest", "--block-size", "--checksum-seed", "--info", "--debug",
     "--compress-choice", "--checksum-choice", "--stop-after", "--max-delete", "--out-format", "--filter"}
)  # fmt: skip
_TRANSPORT_LONG: Final = frozenset(
    {"--rsh", "--rsync-path", "--timeout", "--contimeout", "--port", "--sockopts", "--compress-level",
     "--skip-compress", "--address", "--password-file", "--block-size", "--checksum-seed", "--info", "--debug",
     "--compress-choice"}
)  # fmt: skip
_REFUSED: Final = {
    "--files-from": "instep itself tells rsync which files to look at",
    "--filter": "instep must know every rule to know what changed",
    "-f": "instep must know every rule to know what changed",
    "--out-format": "instep reads what rsync prints",
    "--list-only": "nothing would be brought over",
    "--remove-source-files": "a mirror does not change its source",
    "--daemon": "instep starts rsync for one pass at a time",
}


@dataclass(frozen=True, slots=True)
class Wish:
    """What a list of rsync's options asks for."""

    preserve: Preserve = NOTHING
    rules: tuple[RuleSource, ...] = ()
    extra: tuple[bytes, ...] = ()
    """To be handed on to rsync."""
    alters: bool = False
    """Some of ``extra`` changes what arrives at the target, so no other engine can take rsync's place."""
    delete_excluded: bool = False
    one_file_system: bool = False
    dry_run: bool = False
    bandwidth_bytes_per_s: float = math.inf
    _letters: str = field(default="", repr=False)


def wish(words: Iterable[str], *, origin: str) -> Wish:
    """Read options as they would stand on rsync's command line.

    Args:
        words: options and their values, already split.
        origin: where they stand, for messages.

    Raises:
        UsageError: an option that cannot be honoured, or that lacks its value.
    """
    found = Wish()
    for name, value in options(words, origin):
        if name in _REFUSED:
            raise UsageError("option-not-possible", f"{origin}: {name}: {_REFUSED[name]}", fix="drop it")
        found = _long(found, name, value) if name.startswith("--") else _letter(found, name[1], value)
    # rsync keeps owner and group apart; the engines know the pair.
    pair = found._letters.count("o") > 0, found._letters.count("g") > 0  # noqa: SLF001  # its own field
    if all(pair):
        return replace(found, preserve=found.preserve._replace(owner=True), _letters="")
    if any(pair):
        return replace(found, extra=(*found.extra, b"-o" if pair[0] else b"-g"), alters=True, _letters="")
    return found


def options(words: Iterable[str], origin: str) -> Iterator[tuple[str, str | None]]:
    """Each option by itself: ``-e ssh`` and ``-essh``, ``--rsh ssh`` and ``--rsh=ssh``, ``-avz`` as three.

    Raises:
        UsageError: what is no option, or lacks its value.
    """
    rest = iter(words)
    for word in rest:
        if word.startswith("--") and len(word) > 2:
            name, equals, value = word.partition("=")
            if name in _LONG_VALUED and not equals:
                yield name, _next(rest, name, origin)
            elif name in _SAME_AS and not equals:
                yield from _cluster(_SAME_AS[name][1:], rest, origin)
            else:
                yield name, value if equals else None
        elif word.startswith("-") and len(word) > 1 and word != "--":
            yield from _cluster(word[1:], rest, origin)
        else:
            raise UsageError(
                "not-an-option",
                f"{origin}: {escaped(word)} is no option, so rsync would take it for a path",
                fix="write options alone; those with a value as one word: --timeout=60",
            )


def _cluster(letters: str, rest: Iterator[str], origin: str) -> Iterator[tuple[str, str | None]]:
    for at, letter in enumerate(letters):
        if letter in _VALUED:
            yield f"-{letter}", letters[at + 1 :] or _next(rest, f"-{letter}", origin)
            return
        if letter == "a":
            yield from ((f"-{each}", None) for each in "rlptgoD")
        elif letter != "P":
            yield f"-{letter}", None


def _next(rest: Iterator[str], name: str, origin: str) -> str:
    value = next(rest, None)
    if value is None:
        raise UsageError("missing-value", f"{origin}: {name} needs a value", fix=f"write {name}=VALUE")
    return value


def _letter(found: Wish, letter: str, value: str | None) -> Wish:
    if letter in _KEPT:
        kept = found.preserve._replace(**dict.fromkeys(_KEPT[letter], True))
        return replace(found, preserve=kept)
    if letter in "og":
        return replace(found, _letters=found._letters + letter)  # noqa: SLF001  # its own field
    if letter == "x":
        return replace(found, one_file_system=True)
    if letter == "n":
        return replace(found, dry_run=True)
    if letter in _TALK or letter == "l":
        return found
    word = f"-{letter}{value or ''}".encode(errors="surrogateescape")
    return replace(found, extra=(*found.extra, word), alters=found.alters or letter not in _TRANSPORT | {"e"})


def _long(found: Wish, name: str, value: str | None) -> Wish:
    if name in _DROPPED:
        return found
    if name in ("--exclude", "--include", "--exclude-from", "--include-from"):
        assert value is not None
        rule = RuleSource(name.startswith("--include"), value.encode(errors="surrogateescape"), name.endswith("from"))
        return replace(found, rules=(*found.rules, rule))
    if name == "--delete-excluded":
        return replace(found, delete_excluded=True)
    if name == "--bwlimit" and (rate := rate_bytes(value or "0")) is not None:
        return replace(found, bandwidth_bytes_per_s=rate)
    if name in ("--devices", "--specials"):
        return replace(found, preserve=found.preserve._replace(devices=True))
    word = (name if value is None else f"{name}={value}").encode(errors="surrogateescape")
    return replace(found, extra=(*found.extra, word), alters=found.alters or name not in _TRANSPORT_LONG)


def rate_bytes(text: str) -> float | None:
    """Rsync's ``--bwlimit``: KiB/s unless a unit follows, 0 is none; None for what it does not say."""
    units = {"": 1024, "k": 1024, "m": 1 << 20, "g": 1 << 30}
    number = text.rstrip("KkMmGg")
    try:
        rate = float(number) * units[text[len(number) :].lower()]
    except (KeyError, ValueError):
        return None
    return rate if rate > 0 else math.inf
