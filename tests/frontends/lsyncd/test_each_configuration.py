"""Every kind of configuration that lsyncd's manual and its users have, beside the distribution's lsyncd.

The trees, the words of every program and what they read must be the same, but for what docs/lsyncd.md says differs.
"""

from __future__ import annotations

import pprint
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.frontends.lsyncd.beside import Change, Row, both, differences, step
from tests.frontends.lsyncd.conftest import Start
from tests.frontends.lsyncd.daemon import DEBIANS
from tests.system.rsyncd import serving
from tests.system.sshd import Sshd

pytestmark = pytest.mark.skipif(DEBIANS is None, reason="needs lsyncd")

HEAD = """
settings{ nodaemon=true, statusFile="@/status", statusInterval=1 }
local D = 0.3
"""


def plant(source: Path) -> None:
    (source / "d").mkdir()
    (source / "tmp").mkdir()
    for name in ("a", "d/b", "d/keep", "x.o", "tmp/t", "same"):
        (source / name).write_text(name)
    (source / "one").symlink_to("a")
    (source / "hard").hardlink_to(source / "d/keep")


def make(source: Path) -> None:
    (source / "n/m").mkdir(parents=True)
    (source / "n/m/z").write_text("z")
    (source / "tmp/u").write_text("u")
    (source / "a").write_text("longer")
    (source / "y.o").write_text("object")
    (source / 'it\'s "q" $x').write_text("odd")


def move(source: Path) -> None:
    (source / "n").rename(source / "k")
    (source / "a").rename(source / "aa")


def remove(source: Path) -> None:
    shutil.rmtree(source / "k")
    (source / "d/b").unlink()
    (source / "aa").chmod(0o600)


def rsync(name: str, options: str = "", more: str = "", **files: str) -> Row:
    """A sync of rsync's, through the recorder, into a directory that has something in it already."""
    text = f'sync{{ default.rsync, source="@/s", target="@/t", delay=D, {more} rsync={{ binary="WRAP", {options} }} }}'
    return Row(name, text, {"t/extra": "extra", **{key.replace("__", "/"): text for key, text in files.items()}})


def direct(name: str, more: str = "") -> Row:
    return Row(name, f'sync{{ default.direct, source="@/s", target="@/t", delay=D, {more} }}', {"t/extra": "extra"})


RSYNC = [
    rsync("plain"),
    rsync("archive", "archive=true"),
    rsync("archive-less", "archive=true, owner=false, group=false, perms=false"),
    rsync("preserve", """acls=true, group=true, owner=true, perms=true, executability=true, hard_links=true, xattrs=true,
        sparse=true, whole_file=true, one_file_system=true"""),
    rsync("compare", """checksum=true, compress=true, ignore_times=true, omit_dir_times=true, omit_link_times=true,
        verbose=true, quiet=true, ipv4=true"""),
    rsync("less", "links=false, times=false, protect_args=false, update=true, cvs_exclude=true, ipv6=true"),
    rsync("links", "copy_links=true, keep_dirlinks=true, copy_dirlinks=true, prune_empty_dirs=true"),
    rsync("backup", 'backup=true, suffix=".old", backup_dir="@/old", perms=true'),
    rsync("append", "append=true"),
    rsync("append-verify", "append_verify=true"),
    rsync("existing", "existing=true, inplace=true"),
    rsync("dry", "dry_run=true"),
    rsync("long", 'bwlimit=100000, timeout=30, temp_dir="@/new", chmod="u+rwX", rsync_path="rsync", rsh="ssh -x"',
          new__none=""),
    rsync("extra", '_extra={ "--omit-dir-times", "--exclude=no such" }'),
    rsync("inherited", "compress=false", '{ rsync={ compress=true, archive=true }, exclude="*.o" },'),
    rsync("markers", "", '{ delete=false, exclude="*.o", _merge={ exclude=true } },'),
    rsync("verbatim", "", 'exitcodes={ default.rsyncExitCodes, [99]="again" },'),
    rsync("excludes", "", 'exclude={ "*.o", "d/b" },'),
    rsync("exclude-from", "", 'excludeFrom="@/list",', list="# no\n\n*.o\n- /d/b\n+ a\n"),
    rsync("exclude-both", "", 'exclude="/d/b", excludeFrom="@/list",', list="*.o\n"),
    rsync("filter", "", 'filter={ "+ *.o", "- /d/b", "- x*" },'),
    rsync("filter-from", "", 'filterFrom="@/list",', list="# no\n- *.o\n+ *\n"),
    rsync("filter-exclude", "", 'filter={ "- *.o", "- /d/b" }, exclude={ "keep" },'),
    rsync("delete-never", "", "delete=false,"),
    rsync("delete-odd", "", 'delete="no",'),
    rsync("delete-startup", "", 'delete="startup",'),
    rsync("delete-running", "", 'delete="running",'),
    rsync("no-start", "", 'init=false, exclude="*.o",'),
    Row("hurried",
        'sync{ default.rsync, source="@/s", target="@/t", delay=1000, maxDelays=1, rsync={ binary="WRAP" } }'),
    Row("many", 'for _, each in ipairs{ "t", "u" } do sync{ default.rsync, source="@/s", target="@/" .. each .. "/", delay=D,'
        ' rsync={ binary="WRAP" } } end'),
    Row("changed-default", """
        local before = default.rsync.rsync
        default.rsync.rsync = { binary="WRAP", links=true, times=true, compress=true }
        local base = default.rsync.prepare
        default.rsync.prepare = function(config, level) config.delay = D; return base(config, level + 1) end
        sync{ default.rsync, source="@/s", target="@/t" }
        default.rsync.rsync, default.rsync.prepare = before, base
        """),
    Row("other-file", 'dofile("@/other.lua"){ source="@/s", target="@/t", binary="WRAP", delay=D }', {"other.lua": """
        return function(given)
            sync{ default.rsync, source=given.source, target=given.target, delay=given.delay,
                rsync={ binary=given.binary } }
        end"""}),
]  # fmt: skip

DIRECT = [
    direct("direct"),
    direct("direct-never", "delete=false,"),
    direct("direct-startup", 'delete="startup",'),
    direct("direct-excludes", 'exclude={ "*.o", "/tmp" },'),
    direct("direct-filter", 'filter={ "- *.o", "- keep" },'),
    direct("direct-archive", 'delete="running", rsync={ archive=true },'),
]


def compare(start: Start, top: Path, rows: Sequence[Row], steps: Sequence[Change], ssh: str = "ssh") -> None:
    sides = both(start, top, rows, plant=plant, head=HEAD, ssh=ssh)
    for number, change in enumerate(steps):
        step(sides, number, change)
    found = differences(sides)
    assert found == {}, pprint.pformat(found, width=150)


def test_built_in_kinds(start: Start, tmp_path: Path) -> None:
    compare(start, tmp_path, RSYNC + DIRECT, (make, move, remove))


ALL = """
local function all(event)
    local found = { event.config.target == event.target, event.inlet ~= nil, tostring(event.move) }
    for n, each in ipairs(found) do found[n] = tostring(each) end
    for _, name in ipairs{ "etype", "status", "isdir", "isList", "name", "basename", "path", "pathname", "pathdir",
            "source", "sourcePath", "sourcePathname", "sourcePathdir", "target", "targetPath", "targetPathname",
            "targetPathdir" } do
        found[#found + 1] = name .. "=" .. tostring(event[name])
    end
    return found
end
local function run(event, event2) spawn(event, "/bin/true", all(event), event2 and all(event2) or {}) end
"""

LAYERS = [
    Row("shell", """sync{ source="@/s", target="@/t/", delay=D,
        onStartup=[[mkdir -p ^target && cp -a ^source/. ^target]],
        onCreate=[[test -d ^sourcePath && mkdir -p ^targetPath || cp -p ^sourcePath ^targetPathdir # ^pathname ^pathdir ^path]],
        onModify=[[cp -p ^sourcePathname ^targetPathname # ^o.pathname ^o.path]],
        onAttrib=[[touch -r ^sourcePath ^targetPath # ^sourcePathdir]],
        onDelete=[[rm -r ^targetPathname ^unknown 2>/dev/null; true # ^source]],
        onMove=[[mv ^o.targetPathname ^d.targetPathname # ^o.path ^d.path ^d.sourcePathdir ^^o.pathdir]] }"""),
    Row("binary", """sync{ source="@/s", target="@/t/", delay=D,
        onCreate='/bin/true c ^pathname [^path] dir=^pathdir "q ^target"', onModify="  /bin/true  m  ^sourcePath ",
        onAttrib="^/bin/true ^sourcePath | cat", onDelete="/bin/true ^o.path ^source",
        onMove="/bin/true ^o.pathname ^d.pathname ^o.sourcePath ^d.targetPathdir ^d.path" }"""),
    Row("halves", """sync{ source="@/s", delay=D, maxProcesses=3,
        onCreate="true c ^sourcePath", onDelete="true d ^sourcePath" }"""),
    Row("fields", ALL + """sync{ source="@/s", target="@/t", delay=D, onStartup=run, onCreate=run, onModify=run,
        onAttrib=run, onDelete=run, onMove=run }"""),
    Row("words", """sync{ source="@/s", delay=D, init=false,
        onCreate=function(event) spawn(event, "/bin/true", "a", 1, 2.5, { "x", "y", 3 }, "z", event.sourcePath) end,
        onModify=function(event) spawn(event, "/usr/bin/wc", "<", "some\\ntext", "-", event.sourcePath) end,
        onAttrib=function(event) spawnShell(event, "true $1 $2", event.sourcePath, "it's") end,
        onDelete=function(event)
            local names = {}
            for name, isdir in pairs(readdir(event.source)) do names[#names + 1] = name .. tostring(isdir) end
            table.sort(names)
            spawn(event, "/bin/true", event.path, names, event.source)
        end }"""),
    Row("retry", """local tries = {}
        sync{ source="@/s", delay=D,
        onCreate=function(event)
            tries[event.path] = (tries[event.path] or 0) + 1
            spawn(event, "/bin/true", tries[event.path], event.sourcePath)
        end,
        collect=function(agent, code)
            if agent.etype == "Create" and agent.isdir and not agent.path:find("^end") and tries[agent.path] < 2 then
                return "again"
            end
            return "ok"
        end }"""),
    Row("codes", """sync{ source="@/s", delay=D, exitcodes={ [0]="ok", [3]="again", [4]="ok" },
        onCreate=[[case ^pathname in n|y.o) test -e ^source/../^pathname || { mkdir ^source/../^pathname; exit 3; } esac]],
        onDelete=[[exit 4 # ^source]] }"""),
    Row("list", """sync{ source="@/s", delay=D, onMove=true, init=function(event) event.inlet.discardEvent(event) end,
        action=function(inlet)
            local list = inlet.getEvents(function(event) return event.etype ~= "Attrib" end)
            local paths = list.getPaths(function(etype, path, path2) return etype .. path, path2 and "to" .. path2 end)
            if #paths == 0 then inlet.discardEvent((inlet.getEvent())) return end
            spawn(list, "/bin/sh", "<", table.concat(paths, "\\n"), "-c", "cat > /dev/null", "sh", "--include-from=-",
                inlet.getConfig().source)
        end, collect=function() end }"""),
    Row("one-by-one", ALL + """sync{ source="@/s", delay=D, target="@/t", onMove=true,
        init=function(event) spawn(event, "/bin/true", event.etype, event.source) end,
        action=function(inlet)
            local event, event2 = inlet.getEvent()
            if event.etype == "Attrib" or event.etype == "Modify" then inlet.discardEvent(event) else run(event, event2) end
        end }"""),
    Row("stops-at-moves", """sync{ source="@/s", delay=D, onMove=true, init=false,
        action=function(inlet)
            local event = inlet.getEvent()
            if event.etype == "Move" then spawn(event, "/bin/true", "move", event.sourcePath) return end
            local list = inlet.getEvents(function(each) return each.etype ~= "Move" or "break" end)
            spawn(list, "/bin/sh", "<", table.concat(list.getPaths(), "\\n"), "-c", "cat > /dev/null", "sh",
                "--include-from=-", inlet.getConfig().source)
        end }"""),
    Row("rules-while-running", """local known = false
        sync{ source="@/s", delay=D, checkgauge={ exclude=true }, exclude={ "/d" }, onDelete="true ^sourcePath",
        init=function(event)
            local inlet = event.inlet
            inlet.addExclude("*.o")
            inlet.addExclude("/tmp")
            inlet.rmExclude("/tmp")
            inlet.rmExclude("never")
            inlet.appendFilter("- it's*")
            assert(inlet.hasFilters() and #inlet.getFilters() == 3 and inlet.getFilters()[1] == "- it's*")
            inlet.discardEvent(event)
        end,
        onCreate=function(event) spawn(event, "/bin/true", event.sourcePath) end }"""),
    Row("after-each-list", """sync{ { default.rsync, checkgauge={ default.rsync.checkgauge, note=true },
        action=function(inlet)
            local event = inlet.getEvent()
            if event.etype == "Blanket" then
                spawn(event, "/bin/true", inlet.getConfig().note)
                return
            end
            inlet.createBlanketEvent()
            return default.rsync.action(inlet)
        end,
        collect=function(agent, code)
            if not agent.isList and agent.etype == "Blanket" then return end
            return default.collect(agent, code)
        end }, source="@/s", target="@/t", delay=D, note="@/note", rsync={ binary="WRAP" } }"""),
    Row("wrapped", """sync{ default.rsync, source="@/s", target="@/t", delay=D, rsync={ binary="WRAP" },
        prepare=function(config, level) config.exclude = { "*.o" }; return default.rsync.prepare(config, level + 1) end,
        init=function(event) event.config.rsync.bwlimit = 5; return default.rsync.init(event) end,
        collect=function(agent, code) return default.collect(agent, code) end }"""),
    Row("own-rsync", """sync{ source="@/s", target="@/t/", delay=D, maxProcesses=1, checkgauge={ mine=true }, mine={ "-a" },
        init=function(event) spawn(event, "WRAP", event.config.mine, "--delete", event.source, event.target) end,
        action=function(inlet)
            local config, list = inlet.getConfig(), inlet.getEvents()
            spawn(list, "WRAP", "<", table.concat(list.getPaths(), "\\n"), config.mine, "--delete", "--include-from=-",
                config.source, config.target)
        end,
        exitcodes=default.rsyncExitCodes }"""),
    Row("inherits", """local base = { delay=D, maxProcesses=2, onCreate="true base ^sourcePath", onDelete="true base ^sourcePath" }
        sync{ base, { onModify="true other ^sourcePath", delay=1000 }, source="@/s", onCreate="true own ^sourcePath" }"""),
    Row("alarms", """alarm(now() + 0.05, function(at, extra)
            assert(now() - at >= 0 and at <= now() and extra == "more")
            local file = io.open("@/rang", "w") file:write(extra) file:close()
        end, "more")
        local pipe = io.popen("echo popened") local word = pipe:read("*l") pipe:close()
        sync{ source="@/s", delay=D, onCreate="true " .. word .. (os.getenv("none") or "none") .. " ^sourcePath" }"""),
]  # fmt: skip


def fill(source: Path) -> None:
    (source / "n/m/z").write_text("z")


def deepen(source: Path) -> None:
    (source / "n/m").mkdir()


def make_simply(source: Path) -> None:
    """What is seen of what is made together with its directory is a matter of luck: once, or twice."""
    (source / "n").mkdir()
    (source / "a").write_text("longer")
    (source / "y.o").write_text("object")
    (source / 'it\'s "q" $x').write_text("odd")


def test_commands_and_functions(start: Start, tmp_path: Path) -> None:
    compare(start, tmp_path, LAYERS, (make_simply, deepen, fill, move, remove))


def far(name: str, more: str = "", ssh: str = "", target: str = "@/t") -> Row:
    """A sync of rsyncssh's, through both recorders."""
    return Row(
        name,
        f"""sync{{ default.rsyncssh, source="@/s", host="there", targetdir=[[{target}]], delay=D, {more}
        rsync={{ binary="WRAP" }}, ssh={{ binary="SSH", {ssh} }} }}""",
    )


FAR = [
    far("far"),
    far("far-never", "delete=false,", target="@/t/"),
    far("far-excludes", 'exclude={ "*.o", "/d/keep" },'),
    far("far-filter", 'filter={ "- *.o", "- keep" },'),
    far("far-options", "", 'options={ BatchMode="yes", ConnectTimeout="20", Compression="no" }, port=PORT'),
    far("far-key", "", 'identityFile="KEY", port="PORT", options={ IdentitiesOnly="yes" }'),
    far("far-quoted", "rsyncExitCodes={ default.rsyncExitCodes, [99]='again' },", target="@/it's $x"),
    Row("by-rsync", """sync{ default.rsync, source="@/s", target="there:@/t", delay=D,
        rsync={ binary="WRAP", rsh="ssh -x", rsync_path="rsync" } }"""),
    Row("module", """sync{ default.rsync, source="@/s", target="localhost::module/SIDE/t", delay=D,
        rsync={ binary="WRAP", _extra={ "--port=RSYNCD" } } }"""),
    Row("module-path", """sync{ default.rsync, source="@/s", target="rsync://localhost:RSYNCD/module/SIDE/t/", delay=D,
        rsync={ binary="WRAP", archive=true } }"""),
]  # fmt: skip


def test_far_sides(start: Start, tmp_path: Path, server: Sshd) -> None:
    with serving(tmp_path / "rsyncd", tmp_path) as rsyncd:
        values = {"RSYNCD": str(rsyncd.port), "PORT": str(server.port), "KEY": str(server.base / "user")}
        rows = [Row(row.name, _filled(row.text, values)) for row in FAR]
        compare(start, tmp_path, rows, (make, move, remove), ssh=str(server.programs / "ssh"))


def _filled(text: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        text = text.replace(name, value)
    return text


def sow(source: Path) -> None:
    """Names for patterns to match, or not."""
    for name in ("foo", "fool", "d/foo", "g/foo/k", "x.o", "d/x.o", "ab", "d/ab", "x", "d/x", "d/e/x", "f[ab]o", "fao",
                 "a$", "a^b", "+p", "{a,b}", "%x", "a b", "x]", "back\\slash"):  # fmt: skip
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name)


EXCLUDES = (
    *("foo", "/foo", "*.o", "a*", "/a*", "fo?", "f?o", "foo.*", "d/x", "d/e/x", "f**x", "/d/**/x", "/d/***", "fo+"),
    *("a$", "a^b", "{a,b}", "%x", "a b", "/g/foo", "?", "*/x", "e", "foo/", "/g/foo/", "**/x", "f[ab]o", "/d/*", "d/**"),
)  # fmt: skip
FILTERS = (
    ("- /ab**", "+ /a**", "- /d***"),
    ("- *.o", "+ d/*"),
    ("- foo", "+ foo"),
    ("+ */", "+ *.o", "- foo"),
    ("+ /d/e/", "- /d/*"),
)
OTHERWISE: dict[tuple[str, ...], tuple[set[str], set[str]]] = {
    ("**/x",): (set(), {"x"}),
    ("f[ab]o",): ({"f[ab]o"}, {"fao"}),
    ("/d/*",): ({"d"}, set()),
    ("d/**",): ({"d"}, set()),
    ("+ */", "+ *.o", "- foo"): ({"g/foo/k"}, set()),
    ("+ /d/e/", "- /d/*"): ({"d", "d/e", "d/e/x"}, set()),
}
"""What only we bring over, and what only they, where lsyncd reads patterns in a way that is not rsync's: at the start
it leaves them to rsync, and we read them like that all the time."""


def leaving_out(number: int, key: str, patterns: Sequence[str]) -> Row:
    words = ", ".join(f"[==[{pattern}]==]" for pattern in patterns)
    return Row(f"{key}{number}", f'sync{{ default.rsync, source="@/s", target="@/t", delay=D, {key}={{ {words} }} }}')


def test_what_is_left_out_while_it_runs(start: Start, tmp_path: Path) -> None:
    """What is made after the start is left out by the same patterns and rules; names with ``]`` are brought over."""
    lists = [("exclude", (pattern,)) for pattern in EXCLUDES] + [("filter", rules) for rules in FILTERS]
    rows = [leaving_out(number, key, patterns) for number, (key, patterns) in enumerate(lists)]
    sides = both(start, tmp_path, rows, plant=lambda _: None, head=HEAD)
    step(sides, 0, sow)
    ours, theirs = (side.seen() for side in sides)
    apart = {}
    for row, (_, patterns) in zip(rows, lists, strict=True):
        here, there = ({name.removeprefix("t/") for name in each[row.name].tree} - {"t"} for each in (ours, theirs))
        assert "x]" in here - there, row
        if here != there | {"x]"}:
            apart[patterns] = (here - there - {"x]"}, there - here)
    assert apart == OTHERWISE
