"""Configurations in Lua: inheritance, what is refused with its place, and which syncs are plain mirrors."""

from __future__ import annotations

import itertools
import os
import re
from pathlib import Path
from typing import Any

import pytest

from instep.errors import OperatorError
from instep.frontends.lsyncd.load import Loader, LoadError
from instep.frontends.lsyncd.log import Log
from instep.frontends.lsyncd.words import read as words
from instep.spec import EngineName, MirrorSpec

pytest.importorskip("lupa")

NOW_S = 1000.25
"""Sums with it are exact, which sums with any time are not."""


class Lua:
    """Reads configurations in a directory with a source ``s``."""

    def __init__(self, top: Path) -> None:
        self.top = top
        (top / "s").mkdir()

    def load(self, text: str, *options: str) -> Loader:
        text = text.replace("@", str(self.top))
        loader = Loader(words([*options, "c.lua"]), Log(), clock=lambda: NOW_S)
        loader.read(text.encode())
        return loader

    def config(self, text: str, *options: str) -> dict[str, Any]:
        """The effective configuration of the first sync."""
        return plain(self.load(text, *options).syncs[0].config)

    def computed(self, options: str) -> list[bytes]:
        table = self.config(f'sync{{ default.rsync, source="@/s", target="@/t", rsync={{ {options} }} }}')
        return list(table["rsync"]["_computed"].values())

    def mirrors(self, text: str, *options: str) -> list[MirrorSpec]:
        loader = self.load(text, *options)
        try:
            return [plain.spec for plain in loader.serve()]
        finally:
            loader.close()


def plain(table: Any) -> dict[str, Any]:
    return {
        os.fsdecode(key) if isinstance(key, bytes) else key: plain(value) if hasattr(value, "items") else value
        for key, value in table.items()
    }


@pytest.fixture
def lua(tmp_path: Path) -> Lua:
    return Lua(tmp_path)


# ---- inheritance ----------------------------------------------------------------------------------------------------


def test_defaults_of_the_built_in_kinds(lua: Lua) -> None:
    rsync = lua.config('sync{ default.rsync, source="@/s", target="@/t" }')
    assert (rsync["delay"], rsync["delete"], rsync["maxProcesses"], rsync["maxDelays"]) == (15, True, 1, 1000)
    assert rsync["target"] == os.fsencode(lua.top / "t") + b"/"
    assert rsync["source"] == os.fsencode(lua.top / "s") + b"/"
    assert rsync["exitcodes"][24] == b"ok"


def test_the_first_writer_wins_and_tables_merge(lua: Lua) -> None:
    found = lua.config("""
        local base = { default.rsync, delay=3, rsync={ compress=true, archive=true, _extra={"--x"} }, exclude="a" }
        sync{ base, source="@/s", target="@/t", delay=4, rsync={ compress=false } }
    """)
    assert found["delay"] == 4
    assert found["rsync"]["compress"] is False
    assert found["rsync"]["archive"] is True
    assert found["exclude"] == b"a"
    assert set(found["rsync"]["_computed"].values()) >= {b"--x"}


def test_a_map_of_exit_codes_replaces_or_extends(lua: Lua) -> None:
    alone = lua.config('sync{ exitcodes={[1]="ok"}, source="@/s", action=function() end }')
    assert alone["exitcodes"] == {1: b"ok"}
    both = lua.config(
        'sync{ default.rsync, source="@/s", target="@/t", exitcodes={default.rsyncExitCodes,[23]="again"} }'
    )
    assert (both["exitcodes"][23], both["exitcodes"][0], both["exitcodes"][12]) == (b"again", b"ok", b"again")


def test_markers(lua: Lua) -> None:
    found = lua.config(
        """
        local one = { host="h", delay=9, _merge={ delay=true } }
        local other = { rsync={ _merge=false, compress=true } }
        sync{ default.rsync, one, other, source="@/s", target="@/t", rsync={ verbose=true } }
    """.replace("default.rsync, one", "one, default.rsync")
    )
    assert (found["delay"], "host" in found) == (9, False)
    assert (found["rsync"].get("compress"), found["rsync"]["verbose"]) == (None, True)


def test_settings_and_options_override_each_sync(lua: Lua) -> None:
    text = 'settings{ maxDelays=5, maxProcesses=2 } sync{ default.rsync, source="@/s", target="@/t", delay=9 }'
    found = lua.config(text, "-delay", "0.25")
    assert (found["delay"], found["maxDelays"], found["maxProcesses"]) == (0.25, 5, 2)


def test_prepare_and_templates_may_be_replaced(lua: Lua) -> None:
    found = lua.config("""
        default.rsync.rsync.binary = "/bin/wrapper"
        local old = default.rsync.prepare
        default.rsync.prepare = function(config, level) config.host = nil; return old(config, level + 1) end
        sync{ default.rsync, source="@/s", target="@/t", host="h" }
    """)
    assert found["rsync"]["binary"] == b"/bin/wrapper"


# ---- rsync's words --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", [{"l", "t", "s"}]),
        ("archive=true", [set("tpgsolD")]),
        ("archive=true, owner=false, group=false, perms=false", [set("ltsD")]),
        ("acls=true, compress=true, whole_file=true, xattrs=true", [set("ltsAzWX")]),
        ('_extra={"-a","b c"}, bwlimit=5, rsh="ssh -x"', [set("lts"), "-a", "b c", "--bwlimit=5", "--rsh=ssh -x"]),
        ("inplace=true, existing=true, temp_dir='/t'", [set("lts"), "--existing", "--inplace", "--temp-dir=/t"]),
        ("links=false, times=false, protect_args=false", []),
    ],
)
def test_computed_words(lua: Lua, options: str, expected: list[object]) -> None:
    found = [
        set(word.decode()[1:]) if isinstance(want, set) else word.decode()
        for word, want in zip(lua.computed(options), expected, strict=True)
    ]
    assert found == expected


# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = = 1", "error loading .*c.lua: .*c.lua:1: "),
        ("\nsync{ target='x' }", "c.lua:2: source missing from sync."),
        ("\nsync{ default.rsync, source='@/s', target='t', rsync={ archve=true } }",
            'c.lua:2: Parameter "rsync.archve" unknown. [(] if this is not a typo add it to checkgauge [)]'),
        ("sync{ default.rsync, source='@/s', target='t', rsync=true }", 'c.lua:1: Parameter "rsync" must be a table.'),
        ("sync{ source='@/s', exclude='x', action=function() end }", 'Parameter "exclude" unknown'),
        ("sync{ default.rsync, source='@/s' }", 'c.lua:1: default.rsync needs "target" configured'),
        ("sync{ default.rsyncssh, source='@/s' }", 'c.lua:1: default.rsyncssh needs "host" configured'),
        ("sync{ default.rsyncssh, source='@/s', host='h' }", 'default.rsyncssh needs "targetdir" configured'),
        ("sync{ default.rsyncssh, source='@/s', host='h', targetdir='t', maxProcesses=3 }", "c.lua:1: .*maxProcesses set to 1"),
        ("sync{ default.rsyncssh, source='@/s', host='-oProxyCommand=x', targetdir='t' }", "begins with a hyphen"),
        ("sync{ default.rsync, source='@/none', target='t' }", "^Cannot access source directory: .*/none"),
        ("sync{ default.rsync, source='@/s', target='t', delay=-1 }", "delay must be a number and >= 0"),
        ("sync{ default.rsync, source='@/s', target='t', exclude=5 }", "type for exclude must be table or string"),
        ("sync{ default.rsync, source='@/s', target='t', excludeFrom='/none' }", 'Cannot open exclude file "/none"'),
        ("sync{ default.rsync, source='@/s', target='t', filter={'zzz'} }", 'Unknown filter rule: "zzz"'),
        ("sync{ default.rsync, source='@/s', target='t', rsync={_extra='x'} }", 'c.lua:1: .*_extra" must be a list'),
        ("sync{ default.rsync, source='@/s', target='t', rsync={_extra={true}} }", r'c.lua:1: .*_extra" \[1\] must be a text'),
        ("sync{ default.rsync, source='@/s', target='t', rsync={binary=5} }", 'c.lua:1: "rsync.binary" must be a text'),
        ("sync{ default.rsync, source='@/s', target='t', rsync={bwlimit=true} }", 'c.lua:1: "rsync.bwlimit" must be a text'),
        ("\nsync{ default.direct, source='@/s', target=true }", 'c.lua:2: "target" must be a text'),
        ("\nsync{ default.rsyncssh, source='@/s', host={}, targetdir='t' }", 'c.lua:2: "host" must be a text'),
        ("\nsync{ default.rsync, source='@/s', target='' }", 'c.lua:2: "target" is empty'),
        ("sync{ default.rsyncssh, source='@/s', host='h', targetdir='' }", 'c.lua:1: "targetdir" is empty'),
        ("sync{ default.rsyncssh, source='@/s', host='h', targetdir='t', ssh={options={'A=b'}} }", "names and values"),
        ("sync{ default.rsync, source='@/s', target='t', exitcodes=5 }", 'c.lua:1: "exitcodes" must be a table'),
        ("sync{ default.rsync, source='@/s', target='t', init=true }", 'c.lua:1: "init" must be a function'),
        ("sync{ source='@/s', checkgauge=5 }", 'c.lua:1: "checkgauge" must be a table'),
        ("sync{ source='a\\0b' }", 'c.lua:1: "source" holds a NUL byte'),
        ("readdir({})", "c.lua:1: the path for readdir must be a text"),
        ("\nlocal x = substitudeCommands('^a', 5)", "c.lua:2: .*attempt to index a number value"),
        ("tunnel{ command='ssh', parallel=2^63, mode='pool' }", 'c.lua:1: "tunnel.parallel" must be a number'),
        ("settings{ foo=1 }", 'c.lua:1: setting "foo" unknown.'),
        ("settings{ logfile={} }", 'c.lua:1: setting "logfile" must be a text'),
        ("settings{ statusInterval=0/0 }", 'c.lua:1: setting "statusInterval" must be a number and >= 0'),
        ("settings{ logfacility=true }", 'c.lua:1: .*logfacility" must be a number or string'),
        ("settings = { foo=1 }", 'settings = { ... }: setting "foo" unknown'),
        ("settings{ inotifyMode='Foo' } sync{ default.rsync, source='@/s', target='t' }", "'Foo' not a valid inotfiyMode"),
        ("settings{ logfacility='zz' } sync{ default.rsync, source='@/s', target='t' }", "Logging facility 'zz' unknown"),
        ("settings{ nodaemon=true }", "Nothing to watch!"),
        ("sync{ default.rsync, source='@/s', target='t', crontab={'0 * *'} }", 'c.lua:1: "0 . ." has not the six fields'),
        ("sync{ default.rsync, source='@/s', target='t', crontab={'99 * * * * *'} }", 'c.lua:1: "99" is no second'),
        ("sync{ default.rsync, source='@/s', target='t', tunnel={} }", "c.lua:1: .*tunnel. must be made by tunnel"),
        ("tunnel{ mode='pool' }", 'c.lua:1: tunnel needs a "command"'),
        ("tunnel{ command='ssh', parralel=2 }", 'c.lua:1: Parameter "tunnel.parralel" unknown'),
        ("observefd('x')", "c.lua:1: observefd needs a file descriptor"),
    ],
)  # fmt: skip
def test_what_is_refused(lua: Lua, text: str, said: str) -> None:
    with pytest.raises(LoadError, match=said):
        lua.load(text)


KEYS = (
    "action", "checkgauge", "collect", "delay", "exitcodes", "init", "maxDelays", "maxProcesses", "onMove",
    "prepare", "full", "collapse", "crontab", "tunnel", "name", "delete", "exclude", "excludeFrom", "filter",
    "filterFrom", "batchSizeLimit", "rsync", "ssh", "rsyncExitCodes", "sshExitCodes", "source", "host",
    "targetdir", "rsync._extra", "rsync.binary", "rsync.rsh", "rsync.links", "ssh.options", "ssh.port",
    "ssh._extra",
)  # fmt: skip


def test_no_value_of_any_key_goes_unnoticed(lua: Lua) -> None:
    """Each is taken, or refused with its place: nothing else happens."""
    sync = "\nsync{ default.rsyncssh, source='@/s', host='h', targetdir='t', MORE }"
    for key, value in itertools.product(KEYS, ("5", "true", "{ {}, a={} }")):
        table, _, inner = key.rpartition(".")
        text = f"{table}={{ {inner}={value} }}" if table else f"{key}={value}"
        bare = re.sub(rf"\b{key}='[^']*',", "", sync)
        said = "c.lua:2: "
        try:
            lua.load(bare.replace("MORE", text)).close()
        except LoadError as error:
            said = str(error)
        assert re.search(r"c\.lua:2: |^Cannot ", said), (text, said)
        assert "attempt to" not in said, (text, said)


def test_numbers_are_texts_and_anything_is_true(lua: Lua, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(lua.top)
    (lua.top / "5").write_text("b")
    found = lua.config("""
        settings{ nodaemon=1, insist="no", logfile=false, pidfile=false, statusFile=6, logident=7, maxDelays=false }
        sync{ default.rsync, source="@/s", target=8, exclude={9, "a"}, excludeFrom=5, name=4, exitcodes=false,
            rsync={ _extra={3}, bwlimit=2.5 } }
    """)
    assert (found["target"], set(found["exclude"].values()), found["name"]) == (b"8/", {b"9", b"a"}, b"4")
    assert list(found["rsync"]["_computed"].values())[1:] == [b"3", b"--bwlimit=2.5"]
    loader = lua.load("settings{ nodaemon=1, insist=0, logfile=false, statusFile=6 } sync{ source='@/s' }")
    assert loader.settings() == {b"nodaemon": True, b"insist": True, b"statusFile": b"6"}
    far = lua.config("sync{ default.rsyncssh, source='@/s', host=1, targetdir=2, ssh={ port=3, options={ A=4 } } }")
    assert (far["host"], far["targetdir"]) == (b"1", b"2/")
    assert list(far["ssh"]["_computed"].values()) == [b"-o", b"A=4", b"-p", b"3"]


def test_dangerous_targets_are_refused(lua: Lua) -> None:
    (lua.top / "s/in").mkdir()
    for target in ("@/s", "@", "@/s/in"):
        for kind in ("rsync", "direct"):
            with pytest.raises(OperatorError, match=re.escape("source")):
                lua.load(f'sync{{ default.{kind}, source="@/s", target="{target}", rsync={{ binary="/bin/true" }} }}')


def test_a_daemons_target_is_where_it_was_meant_to_be(lua: Lua, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(lua.top)
    text = 'sync{ default.rsync, source="s", target="t", rsync={ binary="/bin/true" } }'
    assert lua.config(text)["target"] == os.fsencode(lua.top / "t") + b"/"
    assert lua.config("settings{ nodaemon=true } " + text)["target"] == b"t/"


def test_historical_keys_are_only_warned_about(lua: Lua, capsys: pytest.CaptureFixture[str]) -> None:
    lua.load("""
        settings = { nodaemon=true, statusIntervall=3 }
        for n = 1, 2 do
            sync{ default.rsync, name="n", subdirs=false, rsyncOps="-avz", source="@/s", target="@/t" .. n }
        end
    """)
    err = capsys.readouterr().err
    assert err.count('Parameter "subdirs" has no effect') == 1
    assert 'Parameter "rsyncOps" has no effect: write rsync = { ... }' in err
    assert '"name"' not in err, "it is the one in the status file"
    assert 'setting "statusIntervall" has no effect' in err


def test_a_gauge_may_be_extended(lua: Lua) -> None:
    found = lua.config(
        'sync{ action=function() end, source="@/s", checkgauge={ mine=true, exclude=true }, mine=3, exclude="x" }'
    )
    assert found["mine"] == 3


def test_what_log_shows(lua: Lua, capsys: pytest.CaptureFixture[str]) -> None:
    lua.load("""
        log("Normal", "a", 1, 2.5, nil, true, {}, now())
        sync{ default.rsync, source="@/s", target="@/t" }
    """)
    assert re.search(
        r"^Normal: a12.5\(nil\)\(true\)\(Table: 0x\w+\)\(Timestamp: \d+\.\d\d\)$", capsys.readouterr().err, re.MULTILINE
    )


def test_terminate_in_a_configuration(lua: Lua) -> None:
    assert lua.load("terminate(300)").handler.exit_status == 44


def test_the_dialect(lua: Lua) -> None:
    lua.load("""
        assert(string.starts("abc", "ab") and not string.starts("abc", "b") and string.ends("abc", "bc"))
        assert(undefined == nil and arg == nil and python == nil)
        assert(bit32.band(6, 3) == 2 and math.pow(2, 3) == 8)
        local t = now()
        assert((t + 5) - t == 5 and t < t + 1 and t <= t and (t - 1) < t and t == t)
        assert(not pcall(function() return t + t end))
        assert(lsyncd_version == "2.3.1" and readdir("@/none") == nil)
        assert(readdir("@").s == true)
        sync{ default.rsync, source="@/s", target="@/t" }
    """)


def test_commands_and_pipes(lua: Lua) -> None:
    """What the Lua in lupa cannot do by itself."""
    lua.load("""
        local fine, kind, code = os.execute("exit 3")
        assert(fine == nil and kind == "exit" and code == 3 and os.execute("true") and os.execute())
        fine, kind, code = os.execute("kill -9 $$")
        assert(fine == nil and kind == "signal" and code == 9)
        local pipe = io.popen("printf '1\\n2 x'; exit 4")
        assert(io.type(pipe) == "file" and pipe:read("n", "l") == 1 and pipe:read("a") == "2 x")
        fine, kind, code = pipe:close()
        assert(fine == nil and kind == "exit" and code == 4 and io.type(pipe) == "closed file")
        local lines = {}
        pipe = io.popen("printf 'a\\nb'", "r")
        for line in pipe:lines() do lines[#lines + 1] = line end
        assert(#lines == 2 and lines[2] == "b" and pipe:close())
        pipe = io.popen("cat > @/piped", "w")
        assert(pipe:write("some", 1) == pipe and io.close(pipe))
        assert(not pcall(io.popen, "true", "x"))
        sync{ default.rsync, source="@/s", target="@/t" }
    """)
    assert (lua.top / "piped").read_text() == "some1"


def test_words_of_bits_and_numbers(lua: Lua) -> None:
    lua.load("""
        assert(bit32.band() == 0xffffffff and bit32.band(7, 6, 12) == 4 and bit32.bor(1, 2, 4) == 7 and bit32.bxor(3, 1) == 2)
        assert(bit32.bnot(0) == 0xffffffff and bit32.lshift(1, 31) == 0x80000000 and bit32.lshift(1, 32) == 0)
        assert(bit32.rshift(0x80000000, 31) == 1 and bit32.lshift(4, -1) == 2)
        assert(bit32.arshift(0x80000000, 4) == 0xf8000000 and bit32.arshift(16, 2) == 4)
        assert(bit32.lrotate(0x80000001, 1) == 3 and bit32.rrotate(3, 1) == 0x80000001 and bit32.lrotate(5, 0) == 5)
        assert(bit32.extract(0xf0, 4, 4) == 15 and bit32.replace(0, 5, 4, 4) == 0x50 and bit32.btest(6, 2))
        local part, exponent = math.frexp(6)
        assert(part == 0.75 and exponent == 3 and math.frexp(0) == 0 and select(2, math.frexp(0.125)) == -2)
        assert(math.sinh(0) == 0 and math.cosh(0) == 1 and math.abs(math.tanh(1) - 0.76159415595) < 1e-9)
        sync{ default.rsync, source="@/s", target="@/t" }
    """)


# ---- the fast road --------------------------------------------------------------------------------------------------


def test_plain_syncs_are_mirrors(lua: Lua) -> None:
    (rsync, direct, far) = lua.mirrors("""
        sync{ default.rsync, source="@/s", target="@/t", delay=2, exclude={"*.o"}, rsync={ archive=true, bwlimit=10 } }
        sync{ default.direct, source="@/s", target="@/u" }
        sync{ default.rsync, source="@/s", target="h:/v", filter={"+ a", "- *"}, rsync={ rsh="ssh -p 9", compress=true } }
    """)
    top = os.fsencode(lua.top)
    assert [each.address for each in (*rsync.targets, *direct.targets, *far.targets)] == [
        top + b"/t",
        top + b"/u",
        b"h:/v",
    ]
    assert (rsync.pace.quiet_s, rsync.pace.hold_s) == (2, 2)
    assert (rsync.preserve.owner, rsync.preserve.mode, rsync.preserve.times) == (True, True, True)
    assert (direct.preserve.owner, direct.preserve.mode) == (True, True)
    assert (far.preserve.mode, far.preserve.times) == (False, True)
    assert rsync.bandwidth_bytes_per_s == 10240
    assert [(rule.include, rule.pattern) for rule in rsync.rules] == [(False, b"*.o")]
    assert [(rule.include, rule.pattern) for rule in far.rules] == [(True, b"a"), (False, b"*")]
    assert far.rsync_args == (b"-zs", b"--rsh=ssh -p 9") or set(far.rsync_args) == {b"-z", b"-s", b"--rsh=ssh -p 9"}
    assert [each.targets[0].engine for each in (rsync, direct, far)] == [EngineName.NATIVE] * 2 + [EngineName.RSYNC]


def test_what_tutorials_set_takes_nothing_from_the_fast_road(lua: Lua) -> None:
    found = lua.mirrors("""
        settings{ logfile="@/log", statusFile="@/status", statusInterval=20, insist=true, maxProcesses=2, maxDelays=1,
            inotifyMode="CloseWrite" }
        sync{ default.rsync, source="@/s", target="@/t", delay=9 }
        sync{ default.direct, source="@/s", target="@/u" }
    """)
    assert [each.pace.hold_s for each in found] == [0, 0]


@pytest.mark.parametrize(
    "text",
    [
        'sync{ default.rsync, source="@/s", target="@/t", rsync={ binary="/bin/true" } }',
        'sync{ default.rsync, source="@/s", target="@/t", rsync={ update=true } }',
        'sync{ default.rsync, source="@/s", target="@/t", rsync={ _extra={"--chmod=a+r"} } }',
        'sync{ default.rsync, source="@/s", target="@/t", delete="running" }',
        'sync{ default.rsync, source="@/s", target="@/t", batchSizeLimit=10 }',
        'settings{ maxProcesses=1 } sync{ default.rsync, source="@/s", target="h:t" }',
        'sync{ default.rsync, source="@/s", target="@/t", delay=5, maxDelays=100 }',
        'sync{ default.rsync, source="@/s", target="@/t", init=false }',
        'sync{ default.rsync, source="@/s", target="@/t", exitcodes={default.rsyncExitCodes, [23]="again"} }',
        'default.rsync.init = function(e) end sync{ default.rsync, source="@/s", target="@/t" }',
        'sync{ default.rsyncssh, source="@/s", host="h", targetdir="t" }',
        'sync{ default.rsync, source="@/s", target="@/t" } alarm(now() + 5, function() end)',
        'sync{ default.rsync, source="@/s", target="@/t" } sync{ source="@/s", onCreate="true" }',
        'settings{ onepass=true } sync{ default.rsync, source="@/s", target="@/t" }',
        'settings{ inotifyMode="Modify" } sync{ default.rsync, source="@/s", target="@/t" }',
        # What cannot be made, or not yet: without "insist" it is the end, as always.
        'sync{ default.rsync, source="@/s", target="@/none/t" }',
        'sync{ default.rsync, source="@/s", target="/dev/null/t" }',
        # What one of them puts there a mirror of the other would delete.
        'sync{ default.rsync, source="@/s", target="@/t" } sync{ default.rsync, source="@/s", target="@/t/s/" }',
        'sync{ default.rsync, source="@/s", target="h:t" } sync{ default.rsync, source="@/s", target="h:t/" }',
    ],
)
def test_whatever_is_customised_keeps_its_steps(lua: Lua, text: str) -> None:
    assert lua.mirrors(text) == []


def test_plain_syncs_begin_and_end_in_the_log_as_others(lua: Lua) -> None:
    top = lua.top
    rsync, direct, far = lua.load("""
        sync{ default.rsync, source="@/s", target="@/t", exclude="*.o" }
        sync{ default.direct, source="@/s", target="@/u" }
        sync{ default.rsync, source="@/s", target="h:", filter={"+ a", "- *"}, exclude="b" }
    """).serve()
    assert rsync.begins == b"recursive startup rsync: %b/s/ -> %b/t/ excluding\n*.o" % (
        os.fsencode(top),
        os.fsencode(top),
    )
    assert rsync.done == f"Startup of {top}/s/ -> {top}/t/ finished.".encode()
    assert direct.begins == f"recursive startup rsync: {top}/s/ -> {top}/u/".encode()
    assert direct.done == f'Startup of "{top}/s/" finished: 0'.encode()
    assert far.begins == f"recursive startup rsync: {top}/s/ -> h: filtering\n+ a\n- *\n- b".encode()


def test_two_ways_between_two_trees_are_warned_of(lua: Lua, capsys: pytest.CaptureFixture[str]) -> None:
    (lua.top / "t").mkdir()
    there = 'sync{ default.rsync, source="@/s", target="@/t", init=false }'
    lua.load(there)
    assert capsys.readouterr().err == ""
    lua.load(there + 'sync{ default.rsync, source="@/t", target="@/s/", init=false }')
    assert f"Warn: there are syncs from {lua.top}/s to {lua.top}/t and back" in capsys.readouterr().err


def test_which_syncs_fold_events(lua: Lua) -> None:
    """What the built-in kinds do is the same; functions of the user's see every event unless told otherwise."""
    loader = lua.load("""
        sync{ default.rsync, source="@/s", target="@/t", rsync={ update=true } }
        sync{ default.rsync, source="@/s", target="@/u", rsync={ update=true }, collapse=false }
        sync{ source="@/s", onCreate="true" }
        sync{ source="@/s", onCreate="true", collapse=true }
    """)
    loader.serve()
    assert [sync.collapses for sync in loader.syncs] == [True, False, False, True]


def test_the_table_of_2_3(lua: Lua) -> None:
    lua.load("""
        local words = lsyncd.splitQuotedString([[-o "a b" 'c d' e]])
        assert(#words == 4 and words[2] == "a b" and words[3] == "c d" and words[4] == "e")
        assert(lsyncd.get_free_port() > 1023)
        assert(lsyncd.realdir("@/s/../s") == "@/s/" and lsyncd.realdir("@/none") == nil)
        assert(lsyncd.get_file_size("@/none") == 0 and lsyncd.get_process_info() == 0)
        assert(lsyncd.readdir("@").s == true)
        assert(not lsyncd.kill(2147483646, 0))
        assert(lsyncd.now() - lsyncd.jiffies_from_seconds(0) > 0)
        local data = { localhost = "h", localport = 7 }
        assert(substitudeCommands("^localhost:${localport}^other", data) == "h:7^other")
        assert(substitudeCommands({ "-p", "^localport" }, data)[2] == "7")
        assert(dump{ 1 } == "{ [1] = 1 }")
        local queue = Queue.new()
        local a, b, c = queue:push("a"), queue:push("b"), queue:inject("c")
        assert(c < a and a < b and queue:size() == 3 and queue:remove(a) == "a" and not queue:remove(a))
        assert(queue:remove(b) == "b" and queue:remove(c) == "c" and queue:size() == 0 and queue:push("d"))
        sync{ default.rsync, source="@/s", target="@/t" }
    """)
