"""What handlers are told: the same command line, tree and actions for both programs, in tables."""

from __future__ import annotations

import os
from pathlib import Path

from tests.system.clsync.scenarios import Differs, Scenario, check

OURSELVES = f"-u{os.geteuid()} -g{os.getegid()}"
"""Where lists are kept: whoever the original becomes by default cannot enter the tests' directory."""

# ---- the life of objects ----

TREE = """
mkdir -p d/e stay gone mvd/sub out rd/x @/in/s
touch d/e/f w c l a rd/x/y rd/z mvd/sub/f out/f @/in/f @/in/s/g
"""
LIFE = """
echo 1 > w; chmod 600 c; ln l l2; ln -s w s; mkfifo p
mv a d/b; mv mvd stay/mvd; mv out @/out; mv @/in in; rm -r rd
mkdir -p n/m; touch n/m/f; mkdir tmp; rmdir tmp
"""
FAST = "n/ tmp"
PATHS = ". a c d d/e d/e/f gone l mvd mvd/sub mvd/sub/f out out/f rd rd/x rd/x/y rd/z stay w"
MASKS = """
1073742080:. 256:a 256:c 1073742080:d 1073742080:d/e 256:d/e/f 1073742080:gone 256:l 1073742080:mvd 1073742080:mvd/sub
256:mvd/sub/f 1073742080:out 256:out/f 1073742080:rd 1073742080:rd/x 256:rd/x/y 256:rd/z 1073742080:stay 256:w
"""
LIFE_PATHS = """
w c l2 s p a d/b mvd stay/mvd stay/mvd/sub stay/mvd/sub/f out in in/f in/s in/s/g rd rd/x rd/x/y rd/z n n/m n/m/f tmp
"""
LIFE_MASKS = """
10:w 4:c 256:l2 256:s 256:p 64:a 128:d/b 1073741888:mvd 1073744128:stay/mvd 1073742080:stay/mvd/sub 256:stay/mvd/sub/f
1073741888:out 1073742080:in 256:in/f 1073742080:in/s 256:in/s/g 1073743360:rd 1073743360:rd/x 512:rd/x/y 512:rd/z
1073742080:n *:n/m *:n/m/f *:tmp
"""
LIFE_RSYNC = """
+/w +/c +/l2 +/s +/p +/a +/d/b +/d +/mvd/*** +/mvd +/stay/mvd/*** +/stay +/out/*** +/out +/in/*** +/rd/*** +/rd +/n/***
+/tmp/*** +/tmp
"""
MOVED_OUT = Differs(
    "mask of a moved directory: MOVE_SELF only where it is known to be inside", 1,
    ours="1073741888:out", theirs="1073743936:out",
)  # fmt: skip
WHOLE = Differs("B-24", 1, ours="+/mvd/*** +/out/*** +/rd/*** +/tmp", theirs="+/rd/x +/rd/x/y +/rd/z")
RSYNCSHELL = "(rsynclist,test,LIST,EXCLIST)"
RSYNCDIRECT = "(-aH,--delete,--exclude-from,EXCLIST,--include-from,LIST,--exclude=*,@/src/,@/dst/)"


def life(name: str, options: str, *told: str, differs: tuple[Differs, ...] = ()) -> Scenario:
    return Scenario(name, options, told, [LIFE], TREE, fast=FAST, differs=differs, after="rm -rf @/out")


LIVES = [
    life("simple", "-Msimple", MASKS, LIFE_MASKS, differs=(MOVED_OUT,)),
    life("direct", "-Mdirect -D@/dst", PATHS, LIFE_PATHS),
    life(
        "shell", "-Mshell", f"(synclist,test,LIST) {MASKS}", f"(synclist,test,LIST) {LIFE_MASKS}", differs=(MOVED_OUT,)
    ),
    life(
        "simplified",
        f"-Mshell --synclist-simplify -L@/lists {OURSELVES}",
        f"(synclist,test,LIST) {PATHS}",
        f"(synclist,test,LIST) {LIFE_PATHS}",
    ),
    life("rsyncshell", "-Mrsyncshell", f"{RSYNCSHELL} +/***", f"{RSYNCSHELL} {LIFE_RSYNC}", differs=(WHOLE,)),
    life(
        "rsyncdirect", "-Mrsyncdirect -D@/dst", f"{RSYNCDIRECT} +/***", f"{RSYNCDIRECT} {LIFE_RSYNC}", differs=(WHOLE,)
    ),
]


def test_life(tmp_path: Path) -> None:
    check(LIVES, tmp_path)


# ---- rules ----

RULED = """
mkdir -p ssh/keys web/sub Dontsync d/sess
touch passwd group ssh/sshd_config ssh/keys/k1 web/index.c web/index.h web/sub/deep.c Dontsync/x d/sess/s1 sess_1
ln -s passwd lnk
"""
WRITES = """
for f in passwd group ssh/sshd_config ssh/keys/k1 web/index.c web/index.h web/sub/deep.c Dontsync/x d/sess/s1 sess_1
do echo 1 >> $f; done
touch -h lnk; touch dontsync2
"""
FILES = (
    "passwd group lnk ssh/sshd_config ssh/keys/k1 web/index.c web/index.h web/sub/deep.c Dontsync/x d/sess/s1 sess_1"
)
DIRECTORIES = ". ssh ssh/keys web web/sub Dontsync d d/sess"


def without(words: str, *left_out: str) -> str:
    return " ".join(word for word in words.split() if not word.startswith(left_out))


def ruled(name: str, rules: str, initial: str, events: str, *, differs: tuple[Differs, ...] = ()) -> Scenario:
    call = "(synclist,test,LIST)"
    return Scenario(
        name,
        f"-Mshell --synclist-simplify -L@/lists -R@/rules {OURSELVES}",
        [f"{call} {initial}", f"{call} {events}"],
        [WRITES],
        RULED,
        files={"rules": f"+*^zz[0-9]$\n{rules}\n"},
        differs=differs,
    )


ALLOWED = "+f^passwd$\n+f^group$\n+f^ssh/sshd_config$"
THREE = "passwd group ssh/sshd_config"
WRITTEN = f"{FILES} dontsync2"
RULES = [
    ruled("no rules", "", f"{FILES} {DIRECTORIES}", WRITTEN),
    ruled("only some files", f"{ALLOWED}\n+w^$\n+w^ssh$\n-*", THREE, THREE),
    ruled("W is w", f"{ALLOWED}\n+W^$\n+W^ssh$\n-*", THREE, THREE),
    ruled("with directories", f"{ALLOWED}\n+d^$\n+d^ssh$\n-*", f"{THREE} . ssh", THREE),
    ruled(
        "by suffix", "+f.c$\n-f", f"web/index.c web/sub/deep.c {DIRECTORIES}", "web/index.c web/sub/deep.c lnk",
    ),
    ruled(
        "a directory", "-d^[Dd]ont[Ss]ync$\n+*.*",
        without(f"{FILES} {DIRECTORIES}", "Dontsync"), without(WRITTEN, "Dontsync"),
    ),
    ruled(
        "sessions", "-f^sess_\n-d/sess(ion)?s?$\n+*",
        without(f"{FILES} {DIRECTORIES}", "sess_1", "d/sess"), without(WRITTEN, "sess_1", "d/sess"),
    ),
    ruled("not synced", "-s^web$", f"{FILES} {DIRECTORIES}".replace(" web ", " "), WRITTEN),
    ruled(
        "not walked", "-w^web$",
        without(f"{FILES} {DIRECTORIES}", "web/"), without(WRITTEN, "web/"),
    ),
    ruled(
        "the first counts", "+f^passwd$\n-f^pass\n-f^group$\n+f^group$",
        without(f"{FILES} {DIRECTORIES}", "group"), without(WRITTEN, "group"),
    ),
    ruled(
        "no slash in front", "-*/ssh\n-*^/web\n-*^ssh/$",
        without(f"{FILES} {DIRECTORIES}", "ssh/sshd"), without(WRITTEN, "ssh/sshd"),
    ),
    ruled("links are no files", "-f^lnk$", without(f"{FILES} {DIRECTORIES}", "lnk"), WRITTEN),
]  # fmt: skip


def listed(name: str, rules: str, told: str, options: str = "", differs: tuple[Differs, ...] = ()) -> Scenario:
    return Scenario(
        name, f"-Mrsyncshell -R@/rules --only-initialsync {options}", [f"{RSYNCSHELL} {told}"], tree=RULED,
        files={"rules": f"{rules}\n"}, ends=0, differs=differs,
    )  # fmt: skip


LISTED = [
    listed("excluded", "-d^web$\n-f^group$", "+/*** -/web -/group"),
    listed("excluded: not walked", "-w^web$", "+/***"),
    listed("excluded: not synced", "-s^web$", "+/*** -/web"),
    listed(
        "excluded: all but some", f"{ALLOWED}\n+d^$\n+d^ssh$\n-*",
        "+/*** -/ssh/keys -/web -/Dontsync -/d -/sess_1 -/lnk",
    ),
    listed("full-initialsync", "-d^web$", "+/***", "-F"),
    Scenario(
        "prefer-include", "-Mrsyncshell -R@/rules --rsync-prefer-include --only-initialsync",
        ["(rsynclist,test,LIST) + +/passwd"], tree=RULED, files={"rules": "-d^[^/]\n+f^passwd$\n-f\n"}, ends=0,
    ),
]  # fmt: skip


def test_rules(tmp_path: Path) -> None:
    check(RULES, tmp_path)


def test_rules_of_rsync(tmp_path: Path) -> None:
    check(LISTED, tmp_path)


# ---- options that say what is told, and how ----

DIRECT = "-Mdirect -D@/dst"
SMALL = ". a d d/b"
MOUNT = "mkdir mnt; mount -t tmpfs none mnt; mkdir mnt/sub; touch a mnt/in mnt/sub/deep"
MANY = " ".join(f"n{number}" for number in range(300))
OPTIONS = [
    Scenario("only-initialsync", f"{DIRECT} --only-initialsync", [SMALL], ends=0, runs=1),
    Scenario("skip-initialsync", f"{DIRECT} --skip-initialsync", ["", "a"], ["echo 1 > a"]),
    Scenario(
        "signature of sizes", f"{DIRECT} --modification-signature=size", [SMALL, "a d/b", "d/b"],
        ["echo 1 > a; chmod 600 d/b", "chmod 600 a; echo 1 > d/b"],
    ),
    Scenario(
        "all of the signature", f"{DIRECT} --modification-signature=*", [SMALL, "a", "d/b"],
        ["echo 1 > a", ": >> a; chmod 600 d/b"],
    ),
    Scenario(
        "B-9", f"{DIRECT} --modification-signature=uid,gid", [SMALL, "a", "a", "a"], ["echo 1 > a", "rm a", ": > a"],
        differs=[Differs("B-9", 3, ours="a")],
    ),
    Scenario(
        "mon_stat", "-Mshell --cancel-syscalls=mon_stat",
        ["(synclist,test,LIST) 1073742080:. 256:a 1073742080:d 256:d/b", "(synclist,test,LIST) 10:a"], ["echo 1 > a"],
    ),
    Scenario(
        "root touched", "-Mshell",
        ["(synclist,test,LIST) 1073742080:. 256:a 1073742080:d 256:d/b", "(synclist,test,LIST) 1073741828:."],
        ["touch ."],
    ),
    Scenario(
        "recursive", "-Mshell --have-recursive-sync", ["(initialsync,test,@/src)", "(initialsync,test,@/src/n)"],
        ["mkdir n"], arguments="initialsync %label% %INCLUDE-LIST%",
    ),
    Scenario(
        "rsync-inclimit", "-Mrsyncshell --rsync-prefer-include --rsync-inclimit=3 --only-initialsync",
        ["(rsynclist,test,LIST) + +/a +/d +/d/b"], ends=0, runs=3,
    ),
    Scenario("one run an object", "-Mdirect --only-initialsync", ["(build)"], arguments="build", ends=0, runs=5),
    Scenario(
        "arguments", "-Mdirect --only-initialsync", [f"x=test synclist y {SMALL}"],
        arguments="x=%label% %TYPE% %INCLUDE-LIST% y", ends=0,
    ),
    Scenario(
        "many paths", f"{DIRECT} --only-initialsync", [f". {MANY}"], tree="for n in $(seq 0 299); do : > n$n; done",
        ends=0, runs=2, original=False,  # It crashes now and then.
    ),
    Scenario(
        "one-file-system", f"{DIRECT} --one-file-system", [". a mnt", "mnt/direct"],
        ["touch mnt/direct mnt/sub/below"], MOUNT, needs_root=True, after="umount -l mnt",
    ),
    Scenario(
        "one-file-system, with rules", "-Mrsyncshell --one-file-system -R@/rules",
        [f"{RSYNCSHELL} +/***", f"{RSYNCSHELL} +/mnt/direct +/mnt"], ["touch mnt/direct mnt/sub/below"], MOUNT,
        files={"rules": "-f^secret\n"}, needs_root=True, after="umount -l mnt",
    ),
    Scenario(
        "exclude-mount-points, directly", f"{DIRECT} -X", [". a mnt", "mnt/direct"],
        ["touch mnt/direct mnt/sub/below"], MOUNT, needs_root=True, after="umount -l mnt",
    ),
    Scenario(
        "all file systems", DIRECT, [". a mnt mnt/in mnt/sub mnt/sub/deep", "mnt/direct mnt/sub/below"],
        ["touch mnt/direct mnt/sub/below"], MOUNT, needs_root=True, after="umount -l mnt",
    ),
    Scenario(
        "exclude-mount-points", "-Mrsyncshell -X --only-initialsync", [f"{RSYNCSHELL} +/*** -/mnt/**"], tree=MOUNT,
        needs_root=True, after="umount -l mnt", ends=0,
    ),
]  # fmt: skip


def test_options(tmp_path: Path) -> None:
    check([row for row in OPTIONS if not row.needs_root or os.geteuid() == 0], tmp_path)


# ---- ends ----

ONCE = f"{DIRECT} --only-initialsync"
ENDS = [
    Scenario("a failure", DIRECT, [SMALL], then="exit 5", ends=5, runs=1),
    Scenario("tries", f"{DIRECT} -r3 -w0", [SMALL], then="exit 5", ends=5, runs=3),
    Scenario("a good try", f"{ONCE} -r3", [SMALL], then="mkdir @/x || exit 0; exit 5", ends=0, runs=2),
    Scenario("accepted", f"{ONCE} -x4,5", [SMALL], then="exit 5", ends=0, runs=1),
    Scenario("ignored", f"{ONCE} --ignore-failures", [SMALL], then="exit 5", ends=0, runs=1),
    Scenario("simple", "-Msimple --only-initialsync", ["1073742080:."], then="exit 5", ends=255, runs=1),
    Scenario("one by one", "-Mdirect --only-initialsync", ["(x)"], arguments="x", then="exit 5", ends=255, runs=1),
    Scenario("24 of rsync", "-Mrsyncdirect -D@/dst --only-initialsync", [f"{RSYNCDIRECT} +/***"], then="exit 24", ends=0),
    Scenario("24 of a script", "-Mrsyncshell --only-initialsync", [f"{RSYNCSHELL} +/***"], then="exit 24", ends=24),
    Scenario("B-5", ONCE, [SMALL], then="kill -9 $$", ends=137, original_ends=0),
    Scenario(
        # The original waits for it all the same.
        "B-6", f"{DIRECT} -k1", [SMALL], then="case @ in *-original-*) sleep 2;; *) sleep 1000;; esac", ends=62,
        original_ends=0,
    ),
    Scenario(
        "a handler that is gone", DIRECT, [SMALL, "a"], ["echo 1 > a"], last="rm @/handler; echo 2 > a", ends=2
    ),
    Scenario(
        "a handler that is none any more", DIRECT, [SMALL, "a"], ["echo 1 > a"], last="chmod -x @/handler; echo 2 > a",
        ends=13,
    ),
    Scenario("max-iterations 1", f"{DIRECT} --max-iterations=1", [SMALL], ends=0, runs=1),
    Scenario("max-iterations 2", f"{DIRECT} --max-iterations=2", [SMALL], ends=0, runs=1),
    Scenario(
        "max-iterations 3", f"{DIRECT} --max-iterations=3", [SMALL, "a"], ["echo 1 > a"], ends=0, runs=2,
    ),
    Scenario("exit-on-no-events", f"{DIRECT} --exit-on-no-events -w30 -t30", [SMALL], ends=0, runs=1),
    Scenario(
        "exit-on-no-events, busy", f"{DIRECT} --exit-on-no-events -w30 -t30", [f"{SMALL} new"], ends=0, runs=2,
        then="[ -e new ] || : > new",
    ),
    Scenario(
        "hooks", f"{DIRECT} --exit-on-no-events --pre-exit-hook=@/handler --exit-hook=@/handler", [f"{SMALL} test"],
        ends=0, runs=3,
    ),
    Scenario("exit hook", f"{ONCE} --exit-hook=@/handler", [f"{SMALL} test"], ends=0, runs=2),
    Scenario("no exit hook", f"{ONCE} --exit-hook=@/handler", [SMALL], then="exit 5", ends=5, runs=1),
    Scenario(
        "TERM", f"{DIRECT} --exit-hook=@/handler", [SMALL, "a", "test"], ["echo 1 > a"], signal=15, ends=0,
        may="a", original=False,  # It may hit the end of a run, which is told again then. B-18
    ),
    Scenario("INT", DIRECT, [SMALL, "a"], ["echo 1 > a"], signal=2, ends=0, may="a", original=False),
    Scenario("ALRM", DIRECT, [SMALL, "a"], ["echo 1 > a"], signal=14, ends=0, may="a", original=False),
    Scenario(
        "QUIT", f"{DIRECT} -t30 --sync-on-quit --exit-hook=@/handler --pre-exit-hook=@/handler", [SMALL, "a test"],
        last="echo 1 > a", signal=3, ends=0, runs=4,
    ),
]  # fmt: skip


def test_ends(tmp_path: Path) -> None:
    check(ENDS, tmp_path)
