"""What holds for modules in Python alone."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from instep.errors import ModuleRefused
from instep.frontends.clsync.modules import module_spec
from instep.frontends.clsync.settings import Mode, Settings, Threading
from instep.model import Call, ProgramEnd, Told
from instep.spec import ModuleSpec
from tests.engines.modules.rig import module, spec, told, written

EXAMPLES = Path(__file__).parents[3] / "examples/clsync"


def ends(what: ModuleSpec, *calls: Call) -> list[ProgramEnd]:
    async def play() -> list[ProgramEnd]:
        one = module(what)
        await one.open()
        try:
            return [await one.call(call) for call in calls]
        finally:
            await one.close()

    return asyncio.run(play())


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [vars(record)["fields"]["text"] for record in caplog.records if record.getMessage() == "module-says"]


def settings(place: Path, file: Path, **more: object) -> Settings:
    return Settings(
        watch_dir=os.fsencode(place / "src"),
        mode=Mode.PY,
        sync_handler=os.fsencode(file),
        arguments=(),
        initial_arguments=None,
        default_arguments=True,
        destination_dir=os.fsencode(place / "dst"),
        label=b"LAB",
        **more,  # type: ignore[arg-type]  # passed on
    )


def test_what_the_functions_get(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    text = """
from instep.engines.pymodule.api import Event, Kind
def init(settings):
    open("out", "w").write(repr(tuple(settings)) + "\\n")
def sync(events):
    assert all(type(event) is Event and type(event.new) is Kind for event in events)
    open("out", "a").write(repr([tuple(event) for event in events]))
"""
    file = written(text, tmp_path / "m.py")
    what = module_spec(settings(tmp_path, file, retries=0, debug=1, threading=Threading.SAFE))
    events = (Told(b"a\xff \n", 0x40000100, True, 1, 3), Told(b"", 2, False, 0, 2))
    assert ends(what, Call(events)) == [ProgramEnd(0)]
    init, sync = (tmp_path / "src/out").read_text().splitlines()
    assert init == repr((what.watch_dir, what.destination_dir, b"LAB", None, 0, 1, True))
    assert sync == (
        "[(b'a\\xff \\n', 1073742080, True, <Kind.ABSENT: 1>, <Kind.DIRECTORY: 3>),"
        " (b'', 2, False, <Kind.UNKNOWN: 0>, <Kind.FILE: 2>)]"
    )


def test_an_exception_is_a_failure_with_its_traceback(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = "def inner():\n    raise KeyError('lost')\ndef sync(events):\n    inner()\n"
    assert ends(spec(written(text, tmp_path / "m.py"), tmp_path), told("x"), told("x")) == [ProgramEnd(1)] * 2
    lines = said(caplog)
    first = lines[: len(lines) // 2]
    assert first[0] == "Traceback (most recent call last):"
    assert [line for line in first if "host.py" in line] == []
    assert "in inner" in "".join(first)
    assert first[-1] == "KeyError: 'lost'"


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ("return True", 1, "sync returned True: None or an exit code is expected"),
        ("return 'done'", 1, "sync returned 'done'"),
        ("return 300", 255, ""),
        ("return -1", 255, ""),
        ("raise SystemExit(5)", 5, ""),
        ("raise SystemExit", 0, ""),
        ("raise SystemExit('no more')", 1, "no more"),
        ("import os\n    if os.fork(): os.wait()", 0, ""),
    ],
)
def test_what_it_returns(tmp_path: Path, caplog: pytest.LogCaptureFixture, body: str, status: int, words: str) -> None:
    file = written(f"def sync(events):\n    {body}\n", tmp_path / "m.py")
    assert ends(spec(file, tmp_path), told("x"), told("x")) == [ProgramEnd(status)] * 2
    assert words in "\n".join(said(caplog))


@pytest.mark.parametrize(
    ("text", "words", "status"),
    [
        ("def sync(:", "SyntaxError", 255),
        ("import no_such_library\n", "No module named 'no_such_library'", 255),
        ("raise SystemExit(3)\n", "SystemExit: 3", 255),
        ("sync = 3\n", "has no function sync", 22),
        ("def rsync(i, e): pass\n", "has no function sync", 22),
        ("def sync(e): pass\ndef init(s): raise ValueError('x')\n", "returned 1", 1),
    ],
)
def test_what_is_refused_at_start(tmp_path: Path, text: str, words: str, status: int) -> None:
    with pytest.raises(ModuleRefused, match=words) as caught:
        ends(spec(written(text, tmp_path / "m.py"), tmp_path))
    assert caught.value.status == status


def test_it_may_import_what_lies_beside_it_but_not_what_is_watched(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "lib").mkdir()
    for name in ("socket", "json", "beside"):
        written("raise SystemExit('from the watched directory')\n", tmp_path / f"src/{name}.py")
    written("VALUE = 7\n", tmp_path / "lib/beside.py")
    written("raise SystemExit('instead of the library')\n", tmp_path / "lib/json.py")
    text = "import beside, json, socket\ndef sync(events):\n    return beside.VALUE\n"
    file = written(text, tmp_path / "lib/m.py")
    assert ends(spec(file, tmp_path / "src"), told("x")) == [ProgramEnd(7)]
    assert not list(tmp_path.rglob("__pycache__"))


def test_nothing_is_imported_from_where_anybody_can_write(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    written("VALUE = 7\n", tmp_path / "lib/beside.py")
    file = written("import beside\ndef sync(events): pass\n", tmp_path / "lib/m.py")
    (tmp_path / "lib").chmod(0o777)
    with pytest.raises(ModuleRefused, match="No module named 'beside'"):
        ends(spec(file, tmp_path), told("x"))


def test_nothing_of_the_daemon_is_loaded_where_it_runs(tmp_path: Path) -> None:
    text = "import sys\ndef sync(events):\n    open('out', 'w').write('\\n'.join(sorted(sys.modules)))\n"
    ends(spec(written(text, tmp_path / "m.py"), tmp_path), told("x"))
    loaded = {name for name in (tmp_path / "out").read_text().splitlines() if name.startswith("instep.")}
    assert not {name for name in loaded if name.startswith(("instep.daemon", "instep.frontends", "instep.linux"))}


def test_the_example(tmp_path: Path) -> None:
    file = Path(shutil.copy(EXAMPLES / "synchandler-py.py", tmp_path))
    file.chmod(0o644)
    (tmp_path / "src/d").mkdir(parents=True)
    (tmp_path / "dst/gone/below").mkdir(parents=True)
    (tmp_path / "src/d/f").write_text("content")
    events = (Told(b"d", 0x40000100, False, 1, 3), Told(b"d/f", 0x100, False, 1, 2), Told(b"gone", 0x200, False, 3, 1))
    assert ends(module_spec(settings(tmp_path, file)), Call(events)) == [ProgramEnd(0)]
    assert (tmp_path / "dst/d/f").read_text() == "content"
    assert not (tmp_path / "dst/gone").exists()


def test_the_example_wants_a_destination(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = Path(shutil.copy(EXAMPLES / "synchandler-py.py", tmp_path))
    file.chmod(0o644)
    with pytest.raises(ModuleRefused, match="returned 22"):
        ends(spec(file, tmp_path))
    assert said(caplog) == ["there must be a destination-dir"]
