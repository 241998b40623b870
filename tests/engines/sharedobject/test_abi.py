"""The binary interface: what a module sees of us is what it sees of clsync."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from instep.errors import ModuleRefused
from instep.frontends.clsync.modules import module_spec
from instep.frontends.clsync.settings import Mode, Settings
from instep.model import Call, ListFile, ProgramEnd, Told
from instep.spec import ModuleSpec
from tests.engines.modules.rig import compiled, module, needs_compiler, spec, told

pytestmark = needs_compiler
needs_clsync = pytest.mark.skipif(shutil.which("clsync") is None, reason="clsync is not installed")
EXAMPLES = Path(__file__).parents[3] / "examples/clsync"

# By offset, as those modules were built whose header is not ours.
PRINTING = r"""
#include <stdlib.h>
#include <string.h>
static char *c;
static void print(const char *when)
{
    FILE *f = fopen(getenv("PRINTED"), "a");
    fprintf(f, "%s state=%d children=%d\n", when, *(int *)c, *(int *)(c + 1140));
    if (strcmp(when, "deinit"))
        fprintf(f, "iteration=%u\n", *(unsigned *)(c + 1144));
    int strings[] = {44200, 44208, 44248, 44264, 44272, 44376, 44440};
    for (int i = 0; i < 7; i++)
        fprintf(f, "%d=%s\n", strings[i], *(char **)(c + strings[i]) ? *(char **)(c + strings[i]) : "(null)");
    fprintf(f, "retries=%d version=%d\n", *(int *)(c + 44472), clsyncapi_getapiversion());
    for (int i = 0; i < 1024; i++)
        if (((int *)(c + 31888))[i])
            fprintf(f, "flag %d=%d\n", i, ((int *)(c + 31888))[i]);
    fclose(f);
}
int clsyncapi_init(struct ctx *ctx, struct indexes *indexes) { c = (char *)ctx; print("init"); return 0; }
int clsyncapi_sync(int n, api_eventinfo_t *e)
{
    print("sync");
    FILE *f = fopen(getenv("EVENTS"), "a");
    for (int i = 0; i < n; i++) {
        char *b = (char *)e + 32 * i;
        fprintf(f, "%u %u %zu '%s' %d %d\n", *(unsigned *)b, *(unsigned *)(b + 4), *(size_t *)(b + 8),
                *(char **)(b + 16), *(int *)(b + 24), *(int *)(b + 28));
    }
    fclose(f);
    return 0;
}
int clsyncapi_deinit(void) { print("deinit"); return 0; }
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A source with a file in a directory, and an empty destination."""
    (tmp_path / "src/d").mkdir(parents=True)
    (tmp_path / "dst").mkdir()
    (tmp_path / "src/d/f").write_text("content")
    (tmp_path / "src/x[y]*").write_text("odd")
    return tmp_path


def settings(tree: Path, so: Path, mode: Mode) -> Settings:
    return Settings(
        watch_dir=os.fsencode(tree / "src"),
        mode=mode,
        sync_handler=os.fsencode(so),
        arguments=(),
        initial_arguments=None,
        default_arguments=True,
        destination_dir=os.fsencode(tree / "dst"),
        label=b"LABEL",
        retries=3,
        only_initialsync=True,
        debug=0,
        dont_unlink_lists=True,
    )


def by_us(what: ModuleSpec, *calls: Call) -> list[ProgramEnd]:
    async def play() -> list[ProgramEnd]:
        one = module(what)
        await one.open()
        try:
            return [await one.call(call) for call in calls]
        finally:
            await one.close()

    return asyncio.run(play())


def by_clsync(tree: Path, so: Path, mode: str, *more: str) -> None:
    words = ["clsync", "-H/NULL/", f"-M{mode}", "-S", str(so), "-W", str(tree / "src"), "-D", str(tree / "dst")]
    words += ["-lLABEL", "-r3", "-U", f"-u{os.getuid()}", f"-g{os.getgid()}", "--only-initialsync", *more]
    subprocess.run(words, check=True, timeout=60, env={**os.environ, "TMPDIR": str(tree)})


INITIAL = Call(
    (
        Told(b"", 0x40000100, False, 1, 3),
        Told(b"d", 0x40000100, False, 1, 3),
        Told(b"d/f", 0x100, False, 1, 2),
        Told(b"x[y]*", 0x100, False, 1, 2),
    ),
    environment={b"CLSYNC_ITERATION": b"1"},
)


@needs_clsync
def test_a_module_sees_the_same_of_both(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    so = compiled(PRINTING, tree / "printing.so")
    seen = []
    for name in ("clsync", "us"):
        monkeypatch.setenv("PRINTED", str(tree / f"{name}.printed"))
        monkeypatch.setenv("EVENTS", str(tree / f"{name}.events"))
        if name == "us":
            assert by_us(module_spec(settings(tree, so, Mode.SO)), INITIAL) == [ProgramEnd(0)]
        else:
            by_clsync(tree, so, "so")
        events = sorted((tree / f"{name}.events").read_text().splitlines())
        seen.append(([line for line in (tree / f"{name}.printed").read_text().splitlines() if _counts(line)], events))
    theirs, ours = seen
    assert ours == theirs
    assert len(ours[1]) == 4


def _counts(line: str) -> bool:
    """Not what differs by nature: states of an initial sync have other numbers; users, capabilities, splitting."""
    word = line.partition("=")[0]
    return not line.startswith(("sync ", "deinit ")) and word not in {f"flag {n}" for n in (67, 103, 117, 532, 541)}


@pytest.mark.parametrize("host", [pytest.param("clsync", marks=needs_clsync), "us"])
@pytest.mark.parametrize("mode", [Mode.SO, Mode.RSYNCSO])
def test_the_examples(tree: Path, host: str, mode: Mode) -> None:
    if mode is Mode.RSYNCSO and shutil.which("rsync") is None:
        pytest.skip("no rsync")
    so = compiled(EXAMPLES / f"synchandler-{mode.value}.c", tree / "example.so")
    if host == "clsync":
        by_clsync(tree, so, mode.value)
    else:
        include = os.fsencode(tree / "include")
        call = INITIAL if mode is Mode.SO else Call(include=include, files=(ListFile(include, b"/***\n"),))
        assert by_us(module_spec(settings(tree, so, mode)), call) == [ProgramEnd(0)]
    assert (tree / "dst/d/f").read_text() == "content"
    assert (tree / "dst/x[y]*").read_text() == "odd"


def test_the_example_for_so_removes_what_is_gone(tree: Path) -> None:
    so = compiled(EXAMPLES / "synchandler-so.c", tree / "example.so")
    (tree / "dst/gone/below").mkdir(parents=True)
    what = module_spec(settings(tree, so, Mode.SO))
    gone = Told(b"gone", 0x40000200, False, 3, 1)
    assert by_us(what, Call((gone,))) == [ProgramEnd(0)]
    assert not (tree / "dst/gone").exists()


@pytest.mark.parametrize("mode", ["so", "rsyncso"])
def test_the_examples_want_a_destination(tree: Path, mode: str, caplog: pytest.LogCaptureFixture) -> None:
    so = compiled(EXAMPLES / f"synchandler-{mode}.c", tree / "example.so")
    with pytest.raises(ModuleRefused, match="returned 22"):
        by_us(spec(so, tree, takes_lists=mode == "rsyncso"))
    (said,) = (vars(record)["fields"] for record in caplog.records)
    assert (said["text"], said["function"]) == ("there must be a destination-dir", "clsyncapi_init")


@pytest.mark.parametrize("takes_lists", [False, True])
def test_a_module_without_the_function_is_refused_at_start(tmp_path: Path, takes_lists: bool) -> None:
    has, lacks = ("sync", "rsync") if takes_lists else ("rsync", "sync")
    parameters = "int n, api_eventinfo_t *e" if has == "sync" else "const char *i, const char *e"
    so = compiled(f"int clsyncapi_{has}({parameters}) {{ return 0; }}", tmp_path / "half.so")
    with pytest.raises(ModuleRefused, match=f"has no function clsyncapi_{lacks}") as caught:
        by_us(spec(so, tmp_path, takes_lists=takes_lists))
    assert caught.value.status == 22


def test_what_cannot_be_loaded(tmp_path: Path) -> None:
    text = "int no_such_function(void); int clsyncapi_sync(int n, api_eventinfo_t *e) { return no_such_function(); }"
    for so in (compiled(text, tmp_path / "undefined.so"), tmp_path / "text.so"):
        if not so.exists():
            so.write_text("text")
        with pytest.raises(ModuleRefused, match="cannot load the module") as caught:
            by_us(spec(so, tmp_path))
        assert caught.value.status == 255
        assert so.name in caught.value.what


@pytest.mark.parametrize(
    ("text", "status", "words"), [("*(volatile int *)0 = 1;", 139, "SIGSEGV"), ("_exit(7);", 7, "exit status 7")]
)
def test_a_crash_in_init(tmp_path: Path, text: str, status: int, words: str) -> None:
    init = f"#include <unistd.h>\nint clsyncapi_init(struct ctx *c, struct indexes *i) {{ {text} return 0; }}"
    so = compiled(init + "\nint clsyncapi_sync(int n, api_eventinfo_t *e) { return 0; }", tmp_path / "crash.so")
    with pytest.raises(ModuleRefused, match=words) as caught:
        by_us(spec(so, tmp_path))
    assert caught.value.status == status


def test_critical_ends_the_process_with_the_error_number(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = (
        '#include <errno.h>\nint clsyncapi_sync(int n, api_eventinfo_t *e) { errno = ENOSPC; _critical("f", "full"); }'
    )
    (end,) = by_us(spec(compiled(text, tmp_path / "m.so"), tmp_path), told("x"))
    assert end.status == 28
    said, died = caplog.records
    assert vars(said)["fields"]["errno"] == 28
    assert died.getMessage() == "module-died"


def test_no_more_than_256_children(tmp_path: Path) -> None:
    text = r"""
    #include <errno.h>
    #include <signal.h>
    #include <sys/wait.h>
    #include <unistd.h>
    static struct ctx *c;
    int clsyncapi_init(struct ctx *ctx, struct indexes *i) { c = ctx; return 0; }
    int clsyncapi_sync(int n, api_eventinfo_t *e)
    {
        int made = 0, refused;
        pid_t pid;
        while ((pid = clsyncapi_fork(c)) > 0)
            made++;
        if (pid == 0)
            for (;;) pause();
        refused = made == 256 && c->children == 256 && errno == ECANCELED;
        for (int i = 0; i < made; i++)
            kill(c->child_pid[i], SIGKILL);
        while (wait(NULL) > 0)
            ;
        pid = clsyncapi_fork(c); /* those that ended do not count */
        if (pid == 0)
            _exit(0);
        waitpid(pid, NULL, 0);
        return refused && c->children == 1 ? 0 : 1;
    }
    """
    (end,) = by_us(spec(compiled(text, tmp_path / "m.so"), tmp_path), told("x"))
    assert end.status == 0


LISTING = r"""
#include <stdlib.h>
static struct indexes *in;
int clsyncapi_init(struct ctx *ctx, struct indexes *i) { in = i; return 0; }
int clsyncapi_sync(int n, api_eventinfo_t *e)
{
    FILE *f = fopen(getenv("LIST"), "a");
    int status = apievinfo2rsynclist(in, f, n, e);
    fclose(f);
    return status;
}
"""


@pytest.mark.parametrize("host", [pytest.param("clsync", marks=needs_clsync), "us"])
def test_a_list_for_rsync(tree: Path, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    so = compiled(LISTING, tree / "listing.so")
    monkeypatch.setenv("LIST", str(tree / "list"))
    if host == "clsync":
        by_clsync(tree, so, "so")
    else:
        by_us(module_spec(settings(tree, so, Mode.SO)), INITIAL)
    lines = sorted(line for line in (tree / "list").read_text().splitlines() if line)
    assert lines == ["/d", "/d/f", r"/x\[y\]\*"]


def test_lists_for_rsync_of_recursive_and_odd_names(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    so = compiled(LISTING, tree / "listing.so")
    monkeypatch.setenv("LIST", str(tree / "list"))
    src = os.fsencode(tree / "src")
    calls = [Call((Told(path, 2, True, 2, 2),)) for path in (b"", src, b"a/b\\c", src + b"/d")] + [
        Call((Told(b"back\\slash", 2, False, 2, 2), Told(b"a]", 2, False, 2, 2)))
    ]
    by_us(module_spec(settings(tree, so, Mode.SO)), *calls)
    assert (tree / "list").read_text().splitlines() == [
        *("/***", "/***", "/a", r"/a/b\\c/***", "/d/***"),
        *("/a]", r"/back\slash"),  # no wildcard in them: rsync takes them as they are
    ]


def test_rsync_understands_the_list(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("rsync") is None:
        pytest.skip("no rsync")
    names = ["a\\b", "c]d", "e*f", "g[h]", "i?j\\k", "plain"]
    for name in names:
        (tree / "src" / name).write_text("x")
    so = compiled(LISTING, tree / "listing.so")
    monkeypatch.setenv("LIST", str(tree / "list"))
    by_us(spec(so, tree / "src"), Call(tuple(Told(os.fsencode(name), 2, False, 2, 2) for name in names)))
    words = ["rsync", "-a", f"--include-from={tree}/list", "--exclude=*", f"{tree}/src/", f"{tree}/dst/"]
    subprocess.run(words, check=True, timeout=60)
    assert sorted(path.name for path in (tree / "dst").iterdir()) == sorted(names)
