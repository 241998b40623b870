"""From command lines and configuration files to settings, at the start and while the program runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st

from instep.frontends.clsync import config
from instep.frontends.clsync.complaints import Refused
from instep.frontends.clsync.options import OPTIONS
from instep.frontends.clsync.read import Answer, Reading, again, changed, read
from instep.frontends.clsync.settings import (
    EngineChoice,
    Inherit,
    Mode,
    Output,
    PivotRoot,
    Settings,
    Splitting,
    Threading,
)

PID = 4711


class Desk:
    """A directory to start from, with a tree to be watched in it."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.environ = {b"PATH": bytes(base / "bin"), b"HOME": bytes(base)}
        for name in ("src", "dst", "bin"):
            (base / name).mkdir()
        for name in ("rsync", "cp"):
            self.program(f"bin/{name}")

    def program(self, name: str) -> Path:
        path = self.base / name
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
        return path

    def words(self, *argv: str) -> Reading | Answer:
        return read([os.fsencode(word) for word in argv], self.environ, bytes(self.base), PID)

    def reading(self, *argv: str) -> Reading:
        found = self.words(*argv)
        assert isinstance(found, Reading)
        return found

    def settings(self, *argv: str) -> Settings:
        return self.reading("-Wsrc", *argv).settings

    def refusal(self, *argv: str) -> Refused:
        with pytest.raises(Refused) as refusal:
            self.words(*argv)
        return refusal.value

    def config(self, text: str) -> str:
        (self.base / "c.conf").write_text(text)
        return "-Hc.conf"


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setattr(config, "_SYSTEM", ())
    return Desk(tmp_path)


SHELL = ("-Mshell", "-S./h")


def shown(each: object) -> str:
    return ascii(" ".join(map(str, each)) if isinstance(each, list) else each)


def test_the_usual_command_line(desk: Desk) -> None:
    settings = desk.settings("-Mrsyncdirect", "-Ddst")
    base = bytes(desk.base)
    assert settings.watch_dir == base + b"/src"
    assert settings.destination_dir == base + b"/dst"
    assert settings.sync_handler == b"rsync"
    assert settings.default_arguments
    assert settings.arguments == (
        b"-aH", b"--delete", b"--exclude-from", b"%EXCLUDE-LIST-PATH%", b"--include-from", b"%INCLUDE-LIST-PATH%",
        b"--exclude=*", base + b"/src/", base + b"/dst/",
    )  # fmt: skip
    assert settings.initial_arguments is None
    assert settings.config_file is None


@pytest.mark.parametrize(
    ("argv", "arguments", "initial"),
    [
        (["-Msimple", "-S./h"], "sync nolabel %EVENT-MASK% %INCLUDE-LIST%", None),
        (["-Mdirect", "-Ddst"], "%INCLUDE-LIST% @/dst/", None),
        (["-Mshell", "-S./h", "-lx"], "synclist x %INCLUDE-LIST-PATH%", "initialsync x %INCLUDE-LIST%"),
        (["-Mrsyncshell", "-S./h"], "rsynclist nolabel %INCLUDE-LIST-PATH% %EXCLUDE-LIST-PATH%", None),
        (["-Mrsyncshell", "-S./h", "--rsync-prefer-include"], "rsynclist nolabel %INCLUDE-LIST-PATH%", None),
        (["-Mrsyncdirect", "-Du@h:/p/", "--rsync-prefer-include"],
         "-aH --delete --include-from %INCLUDE-LIST-PATH% --exclude=* @/src/ u@h:/p//", None),
        (["-Mso", "-S./h"], "", None),
        (["-Mrsyncso", "-S./h"], "", None),
        (["-Mpy", "-S./h.py"], "", None),
    ],
    ids=shown,
)  # fmt: skip
def test_default_arguments(desk: Desk, argv: Sequence[str], arguments: str, initial: str | None) -> None:
    settings = desk.settings(*argv)
    assert list(settings.arguments) == arguments.replace("@/", f"{desk.base}/").encode().split()
    expected = None if initial is None else tuple(initial.encode().split())
    assert settings.initial_arguments == expected
    assert settings.default_arguments


@pytest.mark.parametrize(
    ("argv", "arguments"),
    [
        (["--", "-a", "%INCLUDE-LIST%"], [b"-a", b"%INCLUDE-LIST%"]),
        (["a", "-b1", "c"], [b"a", b"c"]),
        (["----=a 'b c'"], [b"a", b"b c"]),
        (["----=a", "----=b"], [b"a", b"b"]),
        (["----=a", "--", "b"], [b"b"]),
        (["----=a", "--", ""], [b"a"]),
        (["--", "%label%", "%PID%", "100%", "%watch-dir%"], [b"nolabel", b"4711", b"100%%", b"@/src"]),
        (["--", "x", "%RSYNC-ARGS%"],
         [b"x", b"-aH", b"--delete", b"--exclude-from", b"%EXCLUDE-LIST-PATH%", b"--include-from",
          b"%INCLUDE-LIST-PATH%", b"--exclude=*"]),
    ],
    ids=shown,
)  # fmt: skip
def test_arguments_that_are_given(desk: Desk, argv: Sequence[str], arguments: list[bytes]) -> None:
    settings = desk.settings(*SHELL, *argv)
    assert list(settings.arguments) == [word.replace(b"@", bytes(desk.base)) for word in arguments]
    assert not settings.default_arguments
    assert settings.initial_arguments is None


def test_arguments_for_whole_directories_replace_their_default(desk: Desk) -> None:
    settings = desk.settings(*SHELL, "-----=init %INCLUDE-LIST%")
    assert settings.initial_arguments == (b"init", b"%INCLUDE-LIST%")
    assert settings.arguments == (b"synclist", b"nolabel", b"%INCLUDE-LIST-PATH%")
    assert settings.default_arguments


def test_an_empty_operand_is_no_argument(desk: Desk) -> None:
    assert desk.settings(*SHELL, "--", "").default_arguments


def test_options_end_with_the_first_operand_where_posix_is_asked_for(desk: Desk) -> None:
    desk.environ[b"POSIXLY_CORRECT"] = b""
    settings = desk.settings(*SHELL, "a", "-d5")
    assert settings.arguments == (b"a", b"-d5")
    assert settings.debug == 0


def test_values_land_where_they_belong(desk: Desk) -> None:
    settings = desk.settings(
        *SHELL, "-w1", "-t", "2", "-T3", "--threshold-bigfile=0x10", "-k0", "-r0", "-p", "safe", "-x23,24", "-x25",
        "--ignore-failures", "--have-recursive-sync=0", "-U", "-d", "-d", "-v", "-q0", "-Ysyslog", "-b1",
        "--custom-signals=10:a,12:b", "-C", "CAP_KILL", "--inherit-capabilities=permittied", "--splitting=2",
        "--chroot=root", "--pivot-root=auto-ro", "--mountpoints=/a,b", "--socket=s", "--socket-mod=0600",
        "--modification-signature=uid,gid", "--cancel-syscalls=other", "--engine=handler", "--detach-ipc=0",
        "--uid=0", "--monitor=inotify",
    )  # fmt: skip
    watched = bytes(desk.base) + b"/src/"
    assert (settings.delay_sync_s, settings.delay_collect_s, settings.delay_collect_bigfile_s) == (1, 2, 3)
    assert (settings.threshold_bigfile, settings.timeout_sync_s, settings.retries) == (16, 0, 0)
    assert settings.threading is Threading.SAFE
    assert settings.ignore_exitcode == {0, 23, 24, 25}
    assert (settings.ignore_failures, settings.have_recursive_sync, settings.dont_unlink_lists) == (True, False, True)
    assert (settings.debug, settings.verbose, settings.quiet, settings.background) == (2, 4, False, True)
    assert settings.output is Output.SYSLOG
    assert settings.custom_signals == {10: "a", 12: "b"}
    assert settings.preserve_capabilities == {"CAP_KILL"}
    assert settings.inherit_capabilities is Inherit.PERMITTED
    assert settings.splitting is Splitting.PROCESS
    assert (settings.chroot, settings.pivot_root) == (watched + b"root", PivotRoot.AUTO_RO)
    assert settings.mountpoints == (b"/a", watched + b"b")
    assert (settings.socket, settings.socket_mode) == (watched + b"s", 0o600)
    assert settings.modification_signature == {"uid", "gid"}
    assert not settings.cancel_stat
    assert settings.engine is EngineChoice.HANDLER
    assert not settings.detach_ipc
    assert settings.uid == 0


def test_the_last_value_counts_and_nothing_is_the_default(desk: Desk) -> None:
    settings = desk.settings(
        *SHELL, "-w1", "-w2", "-b1", "-b0", "-psafe", "-p", "", "--status-file=x", "--status-file="
    )
    assert settings.delay_sync_s == 2
    assert not settings.background
    assert settings.threading is Threading.OFF
    assert settings.status_file is None


def test_secure_splitting_sets_what_is_not_set(desk: Desk) -> None:
    settings = desk.settings(*SHELL, "--secure-splitting", "--forbid-devices=0")
    assert settings.splitting is Splitting.PROCESS
    assert settings.check_execvp_arguments
    assert settings.seccomp_filter
    assert not settings.forbid_devices


def test_cancelled_calls(desk: Desk) -> None:
    assert desk.settings(*SHELL, "--cancel-syscalls=mon_stat").cancel_stat


def test_paths_are_relative_to_where_clsync_has_them(desk: Desk) -> None:
    settings = desk.settings(
        *SHELL, "-Rrules", "--status-file=s", "-zp", "--dump-dir=d", "-Llists", "--exit-hook=e", "--standby-file=/x"
    )
    base = bytes(desk.base)
    assert settings.rules_file == base + b"/rules"
    assert settings.sync_handler == base + b"/./h"
    for path, name in (
        (settings.status_file, b"s"),
        (settings.pid_file, b"p"),
        (settings.dump_dir, b"d"),
        (settings.lists_dir, b"lists"),
        (settings.exit_hook, b"e"),
    ):
        assert path == base + b"/src/" + name
    assert settings.standby_file == b"/x"


def test_the_watched_directory_is_resolved(desk: Desk) -> None:
    (desk.base / "link").symlink_to("src")
    assert desk.settings(*SHELL, "-Wlink").watch_dir == bytes(desk.base / "src")


@pytest.mark.parametrize(
    ("mode", "handler", "expected"),
    [
        ("so", "x.so", Mode.SO),
        ("so", "x.py", Mode.PY),
        ("rsyncso", "x.py", Mode.RSYNCPY),
        ("py", "x", Mode.PY),
        ("simple", "./x.py", Mode.SIMPLE),
    ],
)
def test_a_python_module_makes_the_mode(desk: Desk, mode: str, handler: str, expected: Mode) -> None:
    settings = desk.settings("-M", mode, "-S", handler)
    assert settings.mode is expected
    assert settings.sync_handler == os.path.join(bytes(desk.base), handler.encode())


def test_a_bare_name_is_looked_for_in_path_first(desk: Desk) -> None:
    """B-28: a file in the current directory does not go before PATH, but is taken where PATH has none."""
    desk.program("rsync")
    desk.program("handler.sh")
    assert desk.settings("-Mrsyncdirect", "-Ddst").sync_handler == b"rsync"
    assert desk.settings("-Msimple", "-Srsync").sync_handler == b"rsync"
    assert desk.settings("-Msimple", "-Shandler.sh").sync_handler == bytes(desk.base / "handler.sh")
    assert desk.settings("-Msimple", "-Snowhere").sync_handler == b"nowhere"


@pytest.mark.parametrize(
    ("destination", "is_remote"),
    [
        ("user@host:/p", True),
        ("rsync://host/m/", True),
        ("host:/p", True),
        ("host::module", True),
        ("a:b", False),
        ("dst", False),
        ("/", None),
        ("///", None),
        ("missing", None),
        ("./a@b:c", None),
        ("file", None),
    ],
)
def test_destinations(desk: Desk, destination: str, is_remote: bool | None) -> None:
    (desk.base / "a:b").mkdir()
    (desk.base / "file").touch()
    if is_remote is None:
        refusal = desk.refusal("-Wsrc", "-Mrsyncdirect", "-D", destination)
        assert refusal.status == {"missing": 2, "./a@b:c": 2, "file": 20}.get(destination, 22)
        return
    settings = desk.settings("-Mrsyncdirect", "-D", destination)
    assert settings.destination_is_remote == is_remote
    expected = destination.encode() if is_remote else bytes(desk.base / destination)
    assert settings.destination_dir == expected


@pytest.mark.parametrize(
    "argv",
    [
        ["-Mdirect"],
        ["-Mdirect", "--", "-a", "%INCLUDE-LIST%", "%destination-dir%/"],
        ["-Mrsyncdirect"],
        ["-Mshell", "-S./h", "-----=x %destination-dir%"],
        ["-Mdirect", "-D", ""],
    ],
    ids=shown,
)
def test_a_destination_that_is_named_must_be_given(desk: Desk, argv: Sequence[str]) -> None:
    """B-14: without one the handler would write to the root directory."""
    refusal = desk.refusal("-Wsrc", *argv)
    assert refusal.status == 22
    assert "no destination was given; write -D DIR" in str(refusal)


def test_a_destination_that_is_not_needed_need_not_be_given(desk: Desk) -> None:
    settings = desk.settings(
        "--exit-on-no-events",
        "--max-iterations=20",
        "--mode=rsyncdirect",
        "-Srsync",
        "--",
        "%RSYNC-ARGS%",
        "/a/",
        "/b/",
    )
    assert settings.arguments[-2:] == (b"/a/", b"/b/")
    assert settings.destination_dir is None
    assert not settings.default_arguments


@pytest.mark.parametrize(
    ("argv", "label"),
    [
        (["-l", "%foo%"], b"%foo%"),
        (["-l", "x%foo%y"], b"xy"),
        (["-l", "%PID%"], b"4711"),
        (["-l", "50%"], b"50%"),
        (["-lx", "-l", "%label%y"], b"xy"),
        (["-l", "%retries%"], b"%retries%"),
        (["-r2", "-l", "%retries%"], b"2"),
        (["-l", "%retries%", "-r2"], b"%retries%"),
        (["-d", "-d", "-l", "%debug%"], b"2"),
        (["-l", ""], b""),
    ],
    ids=shown,
)
def test_macros_stand_for_what_is_set_before(desk: Desk, argv: Sequence[str], label: bytes) -> None:
    assert desk.settings(*SHELL, *argv).label == label


def test_a_label_that_comes_too_late_on_the_command_line_is_told(desk: Desk) -> None:
    reading = desk.reading("-Wsrc", *SHELL, "-z/run/%label%", "-lweb")
    assert reading.settings.pid_file == b"/run/nolabel"
    assert [note.text for note in reading.notes] == ["-z: %label% is nolabel there, as the label is only set behind it"]
    assert desk.reading("-Wsrc", *SHELL, "-lweb", "-z/run/%label%").notes == ()
    assert desk.reading("-Wsrc", *SHELL, "-z/run/%label%").notes == ()


def test_the_dump_directory_has_the_label_in_its_name(desk: Desk) -> None:
    assert desk.settings(*SHELL, "-lweb").dump_dir == b"/tmp/clsync-dump-web"


def test_questions_are_answered_before_anything_else_is_looked_at(desk: Desk) -> None:
    help_answer = desk.words("-h", "-Z")
    assert isinstance(help_answer, Answer)
    assert help_answer.text.startswith("usage: clsync")
    assert help_answer.status == 0
    assert isinstance(desk.words("-M", "shell", "--version=1"), Answer)
    assert desk.refusal("-Z", "-h").status == 22


@pytest.mark.parametrize(
    ("argv", "status", "message"),
    [
        ([], 14, "no mode was given"),
        ([], 14, "no sync-handler was given"),
        ([], 14, "no directory to watch was given"),
        (["-Wsrc"], 22, "no mode was given"),
        (["-Wsrc", "-Mshell"], 22, "no sync-handler was given; write -S PROGRAM"),
        (["-Mdirect", "-Ddst"], 14, "no directory to watch"),
        (["-Wmissing", "-Mshell", "-S./h"], 2, "-W: @/missing: No such file or directory"),
        (["-Wfile", "-Mshell", "-S./h"], 20, "-W: @/file: Not a directory"),
        (["-Wsrc", "-Mfoo"], 22, '-M: "foo": expected one of: simple, direct'),
        (["-Wsrc", "-M", ""], 22, "expected one of"),
        (["-Wsrc", "-r", "-1"], 22, '-r: "-1": expected 0 or more'),
        (["-Wsrc", "-dd"], 22, '-d: "d": expected a whole number'),
        (["-Wsrc", "--inherit-capabilities"], 22, "--inherit-capabilities: expected a value"),
        (["-Wsrc", "-C", "FOO"], 22, "there is no capability FOO"),
        (["-Wsrc", "----='a"], 22, "a ' is not closed"),
        (["-Wsrc", "--monitor=kqueue"], 22, "expected one of: inotify"),
        (["-Wsrc", "-H", "missing"], 255, "@/missing: No such file or directory"),
        (["-Wsrc", *SHELL, "-psafe", "--skip-initialsync", "--only-initialsync"], 22, "--threading and --only-init"),
        (["-Wsrc", *SHELL, "-psafe", "--skip-initialsync", "--only-initialsync"], 22, "contradict each other"),
    ],
    ids=shown,
)
def test_what_cannot_be_used_is_refused(desk: Desk, argv: Sequence[str], status: int, message: str) -> None:
    (desk.base / "file").touch()
    refusal = desk.refusal(*argv)
    assert refusal.status == status
    assert message.replace("@", str(desk.base)) in str(refusal)


def test_a_refusal_says_how_it_wants_to_be_told(desk: Desk) -> None:
    talk = desk.refusal("-Ysyslog", "-q", "-v1", "-d2", "-Mfoo").talk
    assert (talk.output, talk.verbose, talk.debug, talk.quiet) == (Output.SYSLOG, 1, 2, True)
    talk = desk.refusal("-Mfoo").talk
    assert (talk.output, talk.verbose, talk.debug, talk.quiet) == (Output.STDERR, 3, 0, False)


def test_what_has_no_effect_is_told_with_the_reason(desk: Desk) -> None:
    notes = desk.reading(
        "-Wsrc", *SHELL, "--shm-mprotect", "--cluster-iface=eth0", "--splitting=1", "--monitor=gio"
    ).notes
    told = {note.text.split(":")[0].split(" ")[0]: note.is_warning for note in notes}
    assert told == {
        "--shm-mprotect": False,
        "--cluster-iface": True,
        "--splitting=thread": False,
        "--monitor=gio": False,
    }


RECIPES = """
-Mrsyncdirect -WSRC -DDST
-Mdirect -Scp -WSRC -DDST -RRULES -- -Pfp --parents %INCLUDE-LIST% %destination-dir%
-w5 -t5 -T5 -Mrsyncdirect -WSRC -DDST
-w0 -t0 -T0 -Mrsyncdirect -WSRC -DDST
-Mrsyncdirect --background -z /run/clsync0.pid --output syslog -Mrsyncdirect -WSRC -DDST --modification-signature *
-w3 -t3 -T3 -x1 -WSRC -Mdirect -Schown --uid 0 --gid 0 -Ysyslog -b1 --modification-signature uid,gid -- --from=root www-data:www-data %INCLUDE-LIST%
--exit-on-no-events --max-iterations=20 --mode=rsyncdirect -WSRC -Srsync -- %RSYNC-ARGS% SRC DST
--exit-on-no-events --max-iterations=20 --pre-exit-hook=/h1 --exit-hook=/h2 --mode=rsyncdirect --ignore-exitcode=23,24 --retries=3 -W SRC -S rsync -- %RSYNC-ARGS% SRC rsync://clsync@another-host/var/www/
-Msimple -S pdcp -W SRC -b -Y syslog -- -a %INCLUDE-LIST% %INCLUDE-LIST%
-Mdirect -S uftp -WSRC --background=1 --output=syslog -- -M 248.225.233.1 %INCLUDE-LIST%
-Mrsyncdirect -S echo -WSRC -DDST
-Msimple -S echo -W SRC -b0 -- pdcp -a %INCLUDE-LIST% %INCLUDE-LIST%
--have-recursive-sync -W SRC -R /dev/stdin -Mdirect -r1 --ignore-failures -t1 -w1 -Smake -- build
-L /dev/shm/clsync --exit-on-no-events -x 23 -x 24 -M rsyncdirect -S /usr/bin/rsync -W SRC -D DST -d1
-w5 -t5 -T5 -x1 -W SRC -Mdirect -Schown --uid 0 --gid 0 -Ysyslog -b1 -- --from=root www-data:www-data %INCLUDE-LIST%
"""


@pytest.mark.parametrize("line", RECIPES.strip().split("\n"))
def test_recipes_are_taken_without_a_word(desk: Desk, line: str) -> None:
    words = [word.replace("SRC", f"{desk.base}/src").replace("DST", f"{desk.base}/dst") for word in line.split()]
    reading = desk.reading(*words)
    assert reading.notes == ()
    assert reading.settings.watch_dir == bytes(desk.base / "src")
    assert not any(b"%destination" in word for word in reading.settings.arguments)


PRODUCTION = """# one host's containers, each by an instance of its own
[base]
mode = rsyncshell
background = 1
output = syslog
sync-handler = /etc/clsync/handler/%label%
rules-file = /etc/clsync/rules/%label%
pid-file = /run/clsync/%label%.pid
status-file = /run/clsync/%label%.status
ignore-exitcode = 23,24
config-block-inherits =

[node]
config-block-inherits = base
watch-dir = SRC
retries = 3
exit-hook = /etc/clsync/hook/%label%

[web]
config-block-inherits = node
label = web
"""


def test_a_chain_of_blocks_comes_to_one_configuration(desk: Desk) -> None:
    reading = desk.reading(desk.config(PRODUCTION.replace("SRC", f"{desk.base}/src")), "-Kweb", "-b0")
    settings = reading.settings
    assert reading.notes == ()
    assert settings.mode is Mode.RSYNCSHELL
    assert settings.sync_handler == b"/etc/clsync/handler/web"
    assert settings.rules_file == b"/etc/clsync/rules/web"
    assert settings.pid_file == b"/run/clsync/web.pid"
    assert settings.exit_hook == b"/etc/clsync/hook/web"
    assert (settings.background, settings.retries) == (False, 3)


FRAGMENTS = st.sampled_from(
    [*(f"--{option.name}" for option in OPTIONS), *(f"-{option.short}" for option in OPTIONS if option.short), "=", "%",
     "%label%", "%%", ",", ":", "0", "-1", "0x10", "simple", "process", "'", '"', " ", "/", "\x1b", "\udcff", "[default]\n",
     "label", "\n", "config-block-inherits", "--", "dst", "10:night", "*", "uid"]
)  # fmt: skip
LINES = st.lists(FRAGMENTS, max_size=12).map("".join)


@hypothesis.given(st.lists(st.lists(FRAGMENTS, max_size=3).map("".join), max_size=6), LINES)
@hypothesis.settings(
    max_examples=50, deadline=None, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
def test_whatever_is_given_it_is_settings_or_one_refusal(desk: Desk, argv: list[str], text: str) -> None:
    (desk.base / ".clsync.conf").write_bytes(os.fsencode(text))
    found: Reading | Answer | None = None
    told = ""
    try:
        found = desk.words("-Mdirect", "-Wsrc", "-Ddst", *argv)
    except Refused as refusal:
        told, status = str(refusal), refusal.status
    else:
        status = 0
    assert 0 <= status < 256
    assert bool(told) == bool(status)
    if isinstance(found, Reading):
        told += "".join(note.text for note in found.notes)
        assert not any(b"\0" in word for word in found.settings.arguments)
    assert "\x1b" not in told


# Configuration files.


def test_a_block_is_read_behind_the_command_line(desk: Desk) -> None:
    text = "[default]\nlabel = a\nretries = 3\nmode = shell\nsync-handler = ./h\nbackground = 1\n[night]\nlabel = b\n"
    settings = desk.settings(desk.config(text), "-la2")
    assert (settings.label, settings.retries, settings.background) == (b"a2", 3, True)
    assert settings.config_file == bytes(desk.base / "c.conf")
    assert settings.config_block == "default"
    assert desk.settings(desk.config(text), *SHELL, "-Knight").label == b"b"


def test_one_at_home_is_found(desk: Desk) -> None:
    (desk.base / ".clsync.conf").write_text("[default]\nlabel = home\n")
    assert desk.settings(*SHELL).label == b"home"
    assert desk.settings(*SHELL, "-H/NULL/").label == b"nolabel"


def test_arguments_add_up(desk: Desk) -> None:
    text = "[default]\n-- = mine '%label% x'\nconfig-block-inherits = base\n[base]\n-- = other\nlabel = l\n"
    assert desk.settings(desk.config(text), *SHELL).arguments == (b"mine", b"l x")
    assert desk.settings(desk.config(text), *SHELL, "--", "cli").arguments == (b"cli", b"mine", b"l x")
    assert desk.settings(desk.config(text), *SHELL, "--", "").arguments == (b"mine", b"l x")


def misread(where: str, label: str) -> str:
    return (
        f"{where} refers to %label% of {label}, which clsync would take for nolabel here, as it reads the label last; "
        "what was meant counts"
    )


def test_the_label_of_the_same_block_counts(desk: Desk) -> None:
    """B-22: lines may refer to each other in any order."""
    reading = desk.reading("-Wsrc", *SHELL, desk.config("[default]\npid-file = /run/%label%.pid\nlabel = web\n"))
    assert reading.settings.pid_file == b"/run/web.pid"
    assert [note.text for note in reading.notes] == [
        misread(f"{desk.base}/c.conf:2: pid-file", f"{desk.base}/c.conf:3")
    ]


def test_a_label_that_clsync_sees_too_is_not_worth_a_word(desk: Desk) -> None:
    text = "[default]\nlabel = web\nconfig-block-inherits = base\n[base]\nstatus-file = /run/%label%\n"
    reading = desk.reading("-Wsrc", *SHELL, desk.config(text))
    assert (reading.settings.status_file, reading.notes) == (b"/run/web", ())
    text = "[default]\nstatus-file = /run/%label%\n"
    reading = desk.reading("-Wsrc", *SHELL, desk.config(text), "-lweb")
    assert (reading.settings.status_file, reading.notes) == (b"/run/web", ())


def test_references_in_a_circle_end(desk: Desk) -> None:
    settings = desk.settings(*SHELL, desk.config("[default]\nlabel = a%status-file%\nstatus-file = /%label%\n"))
    assert settings.label in (b"a", b"a/", b"a/nolabel")


def test_a_key_that_is_none_is_told_with_its_line(desk: Desk) -> None:
    text = "[default]\nlabel = x\nsyslog = 1\nrules-path = /r\nlabell = y\nqqqq = 1\nhelp = 1\nlabel[de] = z\n"
    reading = desk.reading("-Wsrc", *SHELL, desk.config(text))
    where = f"{desk.base}/c.conf"
    assert [note.text for note in reading.notes] == [
        f"{where}:3: there is no option syslog; the line is passed over, as clsync does. Today one writes output = syslog",
        f"{where}:4: there is no option rules-path; the line is passed over, as clsync does. Today one writes rules-file",
        f"{where}:5: there is no option labell; the line is passed over (did you mean label?)",
        f"{where}:6: there is no option qqqq; the line is passed over",
        f"{where}:7: help is a question for the command line; the line is passed over",
        f"{where}:8: there is no option label[de]; the line is passed over (did you mean label?)",
    ]
    assert reading.settings.rules_file is None


def test_a_block_that_was_asked_for_and_is_not_there_is_told(desk: Desk) -> None:
    notes = desk.reading("-Wsrc", *SHELL, desk.config("[default]\nlabel = x\n"), "-Knight").notes
    assert [(note.text, note.is_warning) for note in notes] == [(f"{desk.base}/c.conf has no block [night]", False)]


@pytest.mark.parametrize(
    ("text", "status", "message"),
    [
        ("[default]\nbackground = yes\n", 22, '@/c.conf:2: background: "yes": expected a whole number: 1 for on'),
        ("[default]\n\nmode = shell \n", 22, '@/c.conf:3: mode: "shell ": expected one of'),
        ("[default]\nlabel = a\0b\n", 22, r"c.conf:2: label: there is a zero byte in a\x00b"),
        ("label = x\n", 255, "@/c.conf:1: label = x stands before the first [block]"),
    ],
)
def test_a_line_that_makes_no_sense_is_named(desk: Desk, text: str, status: int, message: str) -> None:
    refusal = desk.refusal("-Wsrc", "-S./h", desk.config(text))
    assert refusal.status == status
    assert message.replace("@", str(desk.base)) in str(refusal)


def test_an_inherited_mode_and_a_value_by_itself(desk: Desk) -> None:
    text = (
        "[default]\nconfig-block-inherits = b\n[b]\nconfig-block-inherits = default\nmode = shell\nsync-handler = ./h\n"
    )
    reading = desk.reading("-Wsrc", desk.config(text), "-K", "default")
    assert reading.settings.mode is Mode.SHELL
    assert "in a circle: default -> b -> default" in reading.notes[0].text


# While the program runs.


def test_a_setting_is_changed(desk: Desk) -> None:
    settings = desk.settings(*SHELL, "-lx", "--", "%label%")
    reading = changed(settings, "label", b"y")
    assert (reading.settings.label, reading.settings.arguments) == (b"y", (b"y",))
    assert reading.notes == ()
    assert replace(reading.settings, label=b"x", arguments=(b"x",), dump_dir=settings.dump_dir, given={}) == replace(
        settings, given={}
    )
    assert changed(settings, "delay-sync", b"0").settings.delay_sync_s == 0
    assert changed(settings, "ignore-exitcode", b"7").settings.ignore_exitcode == {0, 7}
    assert changed(settings, "exit-hook", b"e").settings.exit_hook == bytes(desk.base / "src" / "e")
    assert changed(settings, "--", b"a 'b c'").settings.arguments == (b"a", b"b c")
    assert changed(settings, "ignore-failures", b"1").settings.ignore_failures


def test_a_changed_mode_brings_its_arguments(desk: Desk) -> None:
    settings = desk.settings(*SHELL, "-Ddst")
    direct = changed(settings, "mode", b"direct").settings
    assert direct.arguments == (b"%INCLUDE-LIST%", bytes(desk.base / "dst") + b"/")
    assert direct.sync_handler == bytes(desk.base) + b"/./h"


def test_what_is_away_by_now_does_not_matter(desk: Desk) -> None:
    settings = desk.settings(*SHELL, "-Ddst")
    (desk.base / "dst").rmdir()
    (desk.base / "src").rmdir()
    assert changed(settings, "retries", b"5").settings.retries == 5


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("watch-dir", b"/", "watch-dir cannot be changed while the program runs"),
        ("pid-file", b"/x", "pid-file cannot be changed"),
        ("help", b"1", "help is a question"),
        ("lable", b"x", "there is no option lable; did you mean label?"),
        ("retries", b"x", 'retries: "x": expected a whole number'),
        ("mode", b"simple", "--standby-file cannot be used in mode simple"),
        ("skip-initialsync\n", b"1", r"there is no option skip-initialsync\n"),
    ],
)
def test_a_change_that_cannot_be_is_refused(desk: Desk, name: str, value: bytes, message: str) -> None:
    settings = desk.settings(*SHELL, "--standby-file=x")
    with pytest.raises(Refused) as refusal:
        changed(settings, name, value)
    assert message in str(refusal.value)


def test_what_counts_at_the_start_alone_is_left_as_it_was(desk: Desk) -> None:
    settings = desk.settings(*SHELL)
    reading = changed(settings, "status-file", b"x")
    assert reading.settings is settings
    assert [note.text for note in reading.notes] == ["status-file counts at the start alone; nothing is changed"]


NIGHT = """[default]
label = day
config-block-inherits = common
[night]
label = night
-- = at %label%
retries = 3
pid-file = /other
status-file = /status
config-block-inherits = common
[common]
delay-sync = 7
retries = 9
status-file = /status
"""


def test_a_block_read_again_goes_before_everything(desk: Desk) -> None:
    settings = desk.settings(*SHELL, desk.config(NIGHT), "-lcli", "-r2", "--", "cli")
    assert (settings.label, settings.retries, settings.delay_sync_s) == (b"cli", 2, 7)
    reading = again(settings, "night")
    new = reading.settings
    assert (new.label, new.retries, new.delay_sync_s) == (b"night", 3, 7)
    assert new.arguments == (b"at", b"night")
    assert new.config_block == "night"
    assert (new.pid_file, new.status_file) == (None, b"/status")
    assert [note.text for note in reading.notes] == [
        f"{desk.base}/c.conf:8: pid-file cannot be changed while the program runs; it stays",
    ]


def test_the_file_is_found_again_wherever_the_process_is(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = desk.settings(*SHELL, desk.config(NIGHT))
    monkeypatch.chdir("/")
    desk.config(NIGHT.replace("label = night", "label = late"))
    assert again(settings, "night").settings.label == b"late"


def test_a_block_that_is_not_there_changes_nothing(desk: Desk) -> None:
    settings = desk.settings(*SHELL, desk.config(NIGHT))
    reading = again(settings, "noon")
    assert reading.settings is settings
    assert "has no block [noon]; nothing is changed" in reading.notes[0].text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[night]\nretries = x\n", "c.conf:2: retries"),
        ("[night]\nskip-initialsync = 1\nmode = foo\n", "c.conf:3: mode"),
        ("[night]\nthreading = full\n", "--threading and --max-iterations do not go together"),
        ("night\n", "c.conf:1: night"),
    ],
)
def test_a_block_that_makes_no_sense_is_refused(desk: Desk, text: str, message: str) -> None:
    settings = desk.settings(*SHELL, desk.config(NIGHT), "--max-iterations=5")
    desk.config(text)
    with pytest.raises(Refused) as refusal:
        again(settings, "night")
    assert message in str(refusal.value)


def test_without_a_file_there_is_no_block(desk: Desk) -> None:
    with pytest.raises(Refused, match="no configuration file"):
        again(desk.settings(*SHELL), "night")
