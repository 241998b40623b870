#!/bin/sh
# Makes or completes .venv from the locked requirements. Usage: environment.sh run|dev
# Needs a python3 >= 3.11 and a way to packages (PyPI, or what pip is configured for); nothing else.
set -eu
kind=${1:?run or dev}
cd "$(dirname "$0")/.."
here=$(pwd -P)

say() { printf 'environment: %s\n' "$*" >&2; }
fail() { say "$1"; say "fix: $2"; exit 1; }
new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

install_venv_package() {  # Debian keeps ensurepip in a package of its own.
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1 || return 1
    say "this python3 has no ensurepip: installing python3-venv"
    export DEBIAN_FRONTEND=noninteractive
    apt-get install -y -q python3-venv >&2 || { apt-get update -q >&2 && apt-get install -y -q python3-venv >&2; }
}

# An environment holds absolute paths: one that came from elsewhere with the checkout is of no use.
[ "$(cat .venv/made-in 2>/dev/null || echo "$here")" = "$here" ] || rm -rf .venv

if ! new_enough .venv/bin/python; then
    python=
    for candidate in ${PYTHON:-} python3 python3.14 python3.13 python3.12 python3.11; do
        if new_enough "$candidate"; then python=$candidate; break; fi
    done
    [ -n "$python" ] || fail "no Python >= 3.11 found (looked for python3, python3.14 … python3.11)" \
        "install one, or name it: make PYTHON=/path/to/python3 venv"
    rm -rf .venv
    if ! "$python" -m venv .venv >.venv.log 2>&1; then
        rm -rf .venv
        install_venv_package || { cat .venv.log >&2; rm -f .venv.log; fail "'$python -m venv' failed" \
            "install the venv module of this Python (Debian, Ubuntu: apt-get install python3-venv)"; }
        "$python" -m venv .venv >&2
    fi
    rm -f .venv.log
fi
.venv/bin/python -m pip --version >/dev/null 2>&1 || .venv/bin/python -m ensurepip -q >&2 ||
    fail ".venv has no pip and this Python cannot make it" "rm -rf .venv, install python3-venv, and try again"

requirements=requirements.txt
[ "$kind" = dev ] && requirements=requirements-dev.txt
pip() { .venv/bin/python -m pip --disable-pip-version-check --no-input -q "$@" 2>.venv/pip.log || { cat .venv/pip.log >&2; exit 1; }; }
say "installing $requirements into .venv (exact versions, checked by hash)"
# Root in a container is the usual user here, and the environment is ours alone: pip's warning has nothing to say.
export PIP_ROOT_USER_ACTION=ignore
pip install --require-hashes -r "$requirements"
# Without isolation: the build back end is the locked one too, and nothing is fetched here.
pip install --no-deps --no-build-isolation -e .
# Where it was made: an environment holds absolute paths, so a moved checkout needs a new one.
printf '%s\n' "$here" >.venv/made-in
touch .venv/run.done
[ "$kind" = run ] || touch .venv/dev.done
