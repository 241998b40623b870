#!/bin/sh
# Runs the tests that need no root as user 65534, in a copy that this user may read.
set -eu
cd "$(dirname "$0")/.."
if [ "$(id -u)" != 0 ]; then
    exec .venv/bin/pytest -n 2 -m 'not root and not slow'
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
as_user() { setpriv --reuid 65534 --regid 65534 --clear-groups env HOME="$scratch" TMPDIR="$scratch" "$@"; }
chmod 755 "$scratch"
if ! as_user .venv/bin/python -c 'import pytest' 2>/dev/null; then
    echo "test-user: user 65534 cannot run $(readlink -f .venv/bin/python) from $(pwd -P)" >&2
    echo "  fix: use a checkout and a Python that every user may read (make PYTHON=/usr/bin/python3 …), or run make test as a user" >&2
    exit 1
fi
cp -a src tests benchmarks docs examples scripts pyproject.toml uv.lock requirements*.txt Makefile ./*.md LICENSE "$scratch/"
chown -R 65534:65534 "$scratch"
python=$(pwd -P)/.venv/bin/python
cd "$scratch"
as_user PYTHONPATH="$scratch/src" "$python" -m pytest -n 2 -m 'not root and not slow'
