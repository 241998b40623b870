"""The manual page clsync(1), made from the table of options: ``python -m instep.frontends.clsync.manual``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

from instep.frontends.clsync.options import OPTIONS, Group, Live, Option
from instep.frontends.clsync.usage import SYNOPSIS

_DESCRIPTION = """
clsync watches a directory with all that is below it, and has what changes brought over: by a program of yours, by
rsync, by functions of a module, or by instep's own engines. This one takes the command line, the configuration files
and the rules of clsync 0.4.5, and runs them on instep.

ARGUMENTs are those of the handler; write -- before them if they begin with a dash. Without any the mode's own are
taken.

Values that are shown in brackets have to be glued on: -d5, --debug=5. A switch alone is on, and =0 is off; an empty
value is the default. Numbers may be hexadecimal (0x10) or octal (010). Long names may be cut short. Relative names of
-W, -D, -S, -R and -H are names in the current directory, all others in the watched one.

What is marked (live) can be changed while the program runs, by --custom-signals and the control socket; (live, HUP)
takes effect with the next SIGHUP.
"""
_RSYNC = "-aH --delete --exclude-from %EXCLUDE-LIST-PATH% --include-from %INCLUDE-LIST-PATH% --exclude=*"
_MODES = (
    ("simple", "sync %label% %EVENT-MASK% %INCLUDE-LIST%", "Run at once, for each event."),
    ("direct", "%INCLUDE-LIST% %destination-dir%/", "By default the handler is cp."),
    ("shell", "synclist %label% %INCLUDE-LIST-PATH%", "For whole directories: initialsync %label% %INCLUDE-LIST%."),
    ("rsyncshell", "rsynclist %label% %INCLUDE-LIST-PATH% %EXCLUDE-LIST-PATH%", ""),
    ("rsyncdirect", f"{_RSYNC} %watch-dir%/ %destination-dir%/", "By default the handler is rsync."),
    ("so, rsyncso", "", "Functions of a shared object: clsyncapi_sync, clsyncapi_rsync."),
    ("py, rsyncpy", "", "Functions of a Python module: sync, rsync."),
)
_MACROS = (
    (
        "%NAME%",
        "In a value: the option of this name, as far as it is set before. In the handler's arguments: any option.",
    ),
    ("%PID%", "The number of the process that was started."),
    ("%%", "A percent sign."),
    ("%INCLUDE-LIST%", "The paths of a run, an argument each. It has to stand alone."),
    ("%INCLUDE-LIST-PATH%, %EXCLUDE-LIST-PATH%", "Files that list them."),
    ("%RSYNC-ARGS%", "The first words of the default arguments of mode rsyncdirect. It has to stand alone."),
    ("%TYPE%", "sync, synclist, rsynclist or initialsync."),
    ("%EVENT-MASK%", "What the kernel reported, where a run is for one path."),
)
_CONFIGURATION = """
A file has blocks, [NAME], of lines KEY = VALUE; # begins a comment. Keys are the long names of options, and -- and ---
for the handler's arguments; a switch needs a value. Blanks behind a value are part of it. The block [default] counts,
or that of --config-block; what it does not say it takes from the block that config-block-inherits names. The command
line goes before the file, but arguments of the handler add up. Lines may refer to each other with %NAME% in any order.

With --custom-signals a block is read while the program runs. What it says goes before everything else; if it cannot be
used, a message says so, and everything stays as it was.
"""
_SIGNALS = (
    ("HUP", "Read the rules again."),
    ("TERM, INT", "End; what is collected is brought over first."),
    ("QUIT", "The same, and run --pre-exit-hook."),
    ("USR2", "Bring over everything, as at the start."),
    ("IO", "Write what is queued to --dump-dir."),
    ("USR1", "Nothing has to be cleared away here; the state is announced."),
)
_STATUS = (
    ("0", "An orderly end, by a signal too."),
    ("22", "A wrong option, value or combination, or rules that make no sense."),
    ("14", "No directory to watch was given."),
    ("255", "The configuration file cannot be used, or a run for a single path failed."),
    ("2, 13, 17, 20, ...", "The errno of what failed at the start."),
    ("any other", "That of the handler whose run failed."),
)
_EXAMPLES = (
    ("A mirror:", "clsync -Mrsyncdirect -W/srv/www -D/backup/www"),
    ("The same, without any delay:", "clsync -w0 -t0 -T0 -Mrsyncdirect -W/srv/www -D/backup/www"),
    ("Which program would be run:", "clsync -Mrsyncdirect -S echo -W/srv/www -D/backup/www"),
)


def manual_page() -> str:
    """The page in troff's man macros."""
    lines = [
        '.\\" Made by: python -m instep.frontends.clsync.manual > docs/man/clsync.1',
        '.TH CLSYNC 1 "" "instep" "User Commands"',
        ".SH NAME",
        "clsync \\- have what changes in a directory brought over, live",
        ".SH SYNOPSIS",
        f".B {_text(SYNOPSIS)}",
        ".SH DESCRIPTION",
        *_paragraphs(_DESCRIPTION),
        ".SH OPTIONS",
    ]
    for group in Group:
        lines += [f".SS {_text(group.value)}", *(each for o in OPTIONS if o.group is group for each in _option(o))]
    lines.append(".SH MODES")
    for mode, arguments, remark in _MODES:
        text = f"Default arguments: {arguments}. {remark}" if arguments else remark
        lines += [".TP", f".B {_text(mode)}", *_lines(text.strip())]
    lines += [".SH MACROS", *_tagged(_MACROS), ".SH CONFIGURATION FILES", *_paragraphs(_CONFIGURATION)]
    lines += [".SH SIGNALS", *_tagged(_SIGNALS), ".SH EXIT STATUS", *_tagged(_STATUS), ".SH EXAMPLES"]
    for what, command in _EXAMPLES:
        lines += [".PP", _text(what), ".RS", f".B {_text(command)}", ".RE"]
    lines += [".SH SEE ALSO", *_lines("instep(1), rsync(1), inotify(7), docs/clsync.md for what differs from clsync")]
    return "\n".join([*lines, ""])


def _option(option: Option) -> Iterator[str]:
    yield ".TP"
    yield f".B {_text(option.usage)}"
    text = option.help or f"No effect: {option.idle}."
    if option.default:
        text += f" Default: {option.default}."
    if option.live in (Live.NOW, Live.HUP):
        text += " (live)" if option.live is Live.NOW else " (live, HUP)"
    yield from _lines(text)


def _tagged(rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    for tag, text in rows:
        yield from (".TP", f".B {_text(tag)}", *_lines(text))


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in text.split("\n\n"):
        yield from (".PP", *_lines(" ".join(paragraph.split())))


def _lines(text: str) -> Iterator[str]:
    escaped = _text(text)
    yield f"\\&{escaped}" if escaped.startswith(".") else escaped


def _text(text: str) -> str:
    return text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")


if __name__ == "__main__":
    sys.stdout.write(manual_page())
