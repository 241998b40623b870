"""The recipes of clsync's two READMEs, each as it is printed there but for its paths."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.frontends.lsyncd.daemon import contents
from tests.system.clsync.recipes import Kitchen
from tests.system.rsyncd import RsyncDaemon

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")


@pytest.fixture
def kitchen(tmp_path: Path) -> Iterator[Kitchen]:
    kitchen = Kitchen(tmp_path / "kitchen")
    yield kitchen
    kitchen.close()


LOOKS = 150
"""How often both are seen idle, a hundredth of a second apart: for longer than any of their delays of a second."""


def equal(kitchen: Kitchen, one: str, other: str) -> bool:
    return contents(kitchen.top / one) == contents(kitchen.top / other)


# ---- mirrors ----

MIRRORS = {
    "mirroring": "clsync -Mrsyncdirect -W@/source_dir -D@/destination_dir",
    "faster": "clsync -w5 -t5 -T5 -Mrsyncdirect -W@/source_dir -D@/destination_dir",
    "instant": "clsync -w0 -t0 -T0 -Mrsyncdirect -W@/source_dir -D@/destination_dir",
}


@pytest.mark.parametrize("name", MIRRORS)
def test_mirroring(kitchen: Kitchen, name: str) -> None:
    kitchen.tree(source_dir__a="a", source_dir__d__b="b", destination_dir__extra="x")
    process = kitchen.start(f"exec {MIRRORS[name]} --sync-on-quit")
    kitchen.wait(lambda: equal(kitchen, "source_dir", "destination_dir"), "the initial sync")
    kitchen.tree(source_dir__new__c="c")
    if name != "instant":
        process.send_signal(3)  # Its delay is cut short.
    kitchen.wait(lambda: equal(kitchen, "source_dir", "destination_dir"), "a change")


def test_two_directories(kitchen: Kitchen) -> None:
    """A change is brought over in either direction; then both rest.

    With no delay at all, two mirrors of each other would lose what is in a new directory: the second one looks into it
    before the first has filled it, and takes away at its source what is not there yet.
    """
    kitchen.tree(dir1__a="a", dir2__a="a")
    shutil.copystat(kitchen.top / "dir1/a", kitchen.top / "dir2/a")
    common = "--background -z @/clsync{0}.pid --output syslog -Mrsyncdirect"
    recipe = f"clsync -Mrsyncdirect {common} -W@/dir{{1}} -D@/dir{{2}} --modification-signature '*' -w1 -t1 -T1"
    recipe += " --status-file @/state{0}"
    for number, (one, other) in enumerate([(1, 2), (2, 1)]):
        assert kitchen.run(recipe.format(number, one, other)) == 0, kitchen.said()
    pids = [int((kitchen.top / f"clsync{number}.pid").read_text()) for number in (0, 1)]
    # The initial sync of the second would take away what the first has not brought over yet.
    states = [kitchen.top / f"state{number}" for number in (0, 1)]
    kitchen.wait(lambda: all(path.read_text() == "running" for path in states), "both initial syncs")
    resting(kitchen, pids)
    kitchen.tree(dir1__one="1", dir1__d__deep="2")
    kitchen.wait((kitchen.top / "dir2/d/deep").exists, "one direction")
    kitchen.wait(lambda: equal(kitchen, "dir1", "dir2"), "one direction")
    resting(kitchen, pids)  # What changes while it comes back is overwritten.
    kitchen.tree(dir2__two="2")
    kitchen.wait(lambda: equal(kitchen, "dir1", "dir2"), "the other direction")
    resting(kitchen, pids)
    kitchen.tree(dir1__one="changed")
    kitchen.wait(lambda: (kitchen.top / "dir2/one").read_text() == "changed", "a changed file")
    resting(kitchen, pids)
    assert equal(kitchen, "dir1", "dir2")
    assert (kitchen.top / "dir2/d/deep").exists()


def resting(kitchen: Kitchen, pids: list[int]) -> None:
    """Wait until they use no time for longer than any of their delays.

    That is counted in looks: on a machine that is slow for them, they are slow too.
    """
    used, idle = -1, 0

    def rests() -> bool:
        nonlocal used, idle
        words = [Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split() for pid in pids]
        now = sum(int(word) for some in words for word in some[11:15])
        idle = idle + 1 if now == used and all(some[0] == "S" for some in words) else 0
        used = now
        return idle > LOOKS

    kitchen.wait(rests, "both at rest")


def test_copying_until_nothing_changes(kitchen: Kitchen) -> None:
    kitchen.tree(source__a="a", source__d__b="b", to__extra="x")
    (kitchen.top / "shm").mkdir()
    recipe = (
        "ionice -c 3 clsync -L @/shm/clsync --exit-on-no-events -x 23 -x 24 -M rsyncdirect "
        "-S $(which rsync) -W @/source -D @/to -d1"
    )
    assert kitchen.run(recipe) == 0, kitchen.said()
    assert equal(kitchen, "source", "to")
    assert not (kitchen.top / "shm/clsync").exists()


def test_atomic_sync(kitchen: Kitchen) -> None:
    """The original refuses it, for the destination is only in the arguments."""
    kitchen.tree(www_new__index="the new one", www__index="old", www__gone="x")
    recipe = (
        "clsync --exit-on-no-events --max-iterations=20 --mode=rsyncdirect -W@/www_new -Srsync -- "
        "%RSYNC-ARGS% @/www_new/ @/www/"
    )
    assert kitchen.run(recipe) == 0, kitchen.said()
    assert equal(kitchen, "www_new", "www")


def test_moving_a_web_server(kitchen: Kitchen) -> None:
    """What the server wrote before it was stopped arrives, then the other one is started."""
    kitchen.tree(www__index="the new one", served__www__gone="x")
    kitchen.program("stop-here.sh", 'echo "stop $1" >> @/hooks; echo last > @/www/last')
    kitchen.program("start-there.sh", 'echo "start $1 $(cat @/served/www/last)" >> @/hooks')
    server = RsyncDaemon(kitchen.top / "rsyncd", kitchen.top / "served")
    server.start()
    try:
        recipe = (
            "clsync --exit-on-no-events --max-iterations=20 --pre-exit-hook=@/programs/stop-here.sh "
            "--exit-hook=@/programs/start-there.sh --mode=rsyncdirect --ignore-exitcode=23,24 --retries=3 -W @/www -S rsync -- "
            f"%RSYNC-ARGS% @/www/ rsync://clsync@127.0.0.1:{server.port}/module/www/"
        )
        assert kitchen.run(recipe) == 0, kitchen.said()
    finally:
        server.stop()
    assert (kitchen.top / "hooks").read_text() == "stop nolabel\nstart nolabel last\n"
    assert equal(kitchen, "www", "served/www")


# ---- choosing and changing ----


def test_authorized_keys(kitchen: Kitchen) -> None:
    """The last rule has no line end; the original copies every key for that."""
    for home in ("mnt/master/home/anna", "mnt/master/home/ben"):
        for name in (".ssh/authorized_keys", ".ssh/id_rsa", "mail", "deep/.ssh/authorized_keys"):
            path = kitchen.top / home / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(home)
    (kitchen.top / "home").mkdir()
    recipe = r"""
        mkdir -p @/etc/clsync/rules
        printf "+w^$\n+w^[^/]+$\n+W^[^/]+/.ssh$\n+f^[^/]+/.ssh/authorized_keys$\n-*" > @/etc/clsync/rules/authorized_files_only
        exec clsync -Mdirect -Scp -W@/mnt/master/home/ -D@/home -R@/etc/clsync/rules/authorized_files_only -t0 -w0 -- -Pfp --parents %INCLUDE-LIST% %destination-dir%
    """
    kitchen.start(recipe)
    keys = {f"{name}/.ssh/authorized_keys" for name in ("anna", "ben")}

    def copied() -> set[str]:
        return {
            str(path.relative_to(kitchen.top / "home")) for path in (kitchen.top / "home").rglob("*") if path.is_file()
        }

    kitchen.wait(lambda: copied() == keys, "both files")
    (kitchen.top / "mnt/master/home/ben/.ssh/id_rsa").write_text("changed")
    (kitchen.top / "mnt/master/home/anna/.ssh/authorized_keys").write_text("changed")
    kitchen.wait(lambda: (kitchen.top / "home/anna/.ssh/authorized_keys").read_text() == "changed", "a change")
    assert copied() == keys


CHOWN = {
    "with a signature": "-w3 -t3 -T3 -x1 -W@/root -Mdirect -Schown --uid 0 --gid 0 -Ysyslog -b1 --modification-signature uid,gid",
    "without": "-w5 -t5 -T5 -x1 -W @/root -Mdirect -Schown --uid 0 --gid 0 -Ysyslog -b1",
}


@needs_root
@pytest.mark.parametrize("name", CHOWN)
def test_owners_of_a_web_site(kitchen: Kitchen, name: str) -> None:
    kitchen.tree(root__index="x", root__d__page="x")
    top = kitchen.top / "root"
    os.chown(top / "index", 1, 1)
    # Shorter delays than printed; the last value counts.
    recipe = f"clsync {CHOWN[name]} -w0 -t0 -T0 -- --from=root www-data:www-data %INCLUDE-LIST%"

    def owners() -> set[str]:
        return {path.owner() for path in (top, *top.rglob("*"))}

    assert kitchen.run(recipe) == 0, kitchen.said()
    kitchen.wait(lambda: owners() == {"www-data", "daemon"}, "the initial sync")
    kitchen.tree(root__new="x", root__n__deep="x")
    kitchen.wait(lambda: owners() == {"www-data", "daemon"}, "new files")
    (top / "new").unlink()
    kitchen.tree(root__new="x")
    kitchen.wait(lambda: owners() == {"www-data", "daemon"}, "a file that was removed and made again")
    assert (top / "index").owner() == "daemon"


# ---- telling others ----


def test_pdcp(kitchen: Kitchen) -> None:
    kitchen.recorder("pdcp")
    kitchen.tree(global__a="a")
    assert kitchen.run("clsync -Msimple -S pdcp -W @/global -b -Y syslog -- -a %INCLUDE-LIST% %INCLUDE-LIST%") == 0
    first = [["-a", "@/global", "@/global"], ["-a", "@/global/a", "@/global/a"]]
    kitchen.wait(lambda: kitchen.told() == first, "the initial sync")
    kitchen.tree(global__b="b")
    kitchen.wait(lambda: ["-a", "@/global/b", "@/global/b"] in kitchen.told(), "a new file")


def test_uftp(kitchen: Kitchen) -> None:
    kitchen.recorder("uftp")
    kitchen.tree(global__a="a")
    recipe = "clsync -Mdirect -S uftp -W@/global --background=1 --output=syslog -- -M 248.225.233.1 %INCLUDE-LIST%"
    assert kitchen.run(recipe) == 0
    kitchen.wait(lambda: kitchen.told() == [["-M", "248.225.233.1", ".", "a"]], "the initial sync")


def test_dry_run_of_rsync(kitchen: Kitchen) -> None:
    kitchen.tree(source_dir__a="a", destination_dir__x="x")
    kitchen.start("exec clsync -Mrsyncdirect -S echo -W@/source_dir -D@/destination_dir")
    out = kitchen.top / "out0"
    kitchen.wait(lambda: out.read_text().endswith("\n"), "the arguments")
    words = out.read_text().split()
    assert words[:3] == ["-aH", "--delete", "--exclude-from"]
    assert words[4] == "--include-from"
    assert words[6:] == ["--exclude=*", f"{kitchen.top}/source_dir/", f"{kitchen.top}/destination_dir/"]
    assert not (kitchen.top / "destination_dir/a").exists()


def test_dry_run_of_pdcp(kitchen: Kitchen) -> None:
    kitchen.tree(global__a="a")
    kitchen.start("exec clsync -Msimple -S echo -W @/global -b0 -- pdcp -a %INCLUDE-LIST% %INCLUDE-LIST%")
    top = kitchen.top
    first = f"pdcp -a {top}/global {top}/global\npdcp -a {top}/global/a {top}/global/a\n"
    kitchen.wait(lambda: (top / "out0").read_text() == first, "the arguments")


# ---- acting ----


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_on_change(kitchen: Kitchen) -> None:
    """The rules come from a pipe."""
    kitchen.tree(work__Makefile="build:\n\t@echo built >> ../built\n", work__a__c="", work__b="")
    shutil.move(kitchen.top / "work/a/c", kitchen.top / "work/a.c")
    recipe = (
        r'printf "%s\n" "+f.c$" "-f" | clsync --have-recursive-sync -W . -R /dev/stdin -Mdirect -r1 --ignore-failures '
        "-t1 -w1 -Smake -- build"
    )
    process = kitchen.start(recipe, cwd=kitchen.top / "work")
    built = kitchen.top / "built"

    def count() -> int:
        return built.read_text().count("built") if built.exists() else 0

    kitchen.wait(lambda: count() == 1, "the first")
    with kitchen.asleep(process):
        (kitchen.top / "work/b").write_text("no source")
        (kitchen.top / "work/a.c").write_text("source")
    kitchen.wait(lambda: count() == 2, "another for the changed file")
    with kitchen.asleep(process):
        (kitchen.top / "work/a.c").write_text("source again")
    kitchen.wait(lambda: count() == 3, "one more, and none for what is no source")


# ---- of 2013 ----


def test_an_action_script(kitchen: Kitchen) -> None:
    kitchen.recorder("action")
    kitchen.tree(watched__a="a")
    process = kitchen.start(
        "exec clsync-actionscript --collectdelay 1 --commondelay 1 --label old @/watched @/programs/action"
    )
    kitchen.wait(lambda: ["initialsync", "old", "@/watched"] in kitchen.told(), "the initial sync")
    with kitchen.asleep(process):
        kitchen.tree(watched__b="b")
    kitchen.wait(lambda: ["sync", "old", "266", "@/watched/b"] in kitchen.told(), "a new file")
