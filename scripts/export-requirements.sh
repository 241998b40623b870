#!/bin/sh
# Writes requirements.txt (to run), requirements-dev.txt (to develop) and requirements-far.txt (what the extra `far` adds)
# from uv.lock, for machines without uv.
# With --check: writes nothing, fails when they are not what uv.lock gives.
set -eu
cd "$(dirname "$0")/.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
options='--quiet --frozen --no-emit-project --no-header --no-annotate'
header='# Made from uv.lock by scripts/export-requirements.sh; do not edit.'
for pair in 'requirements.txt:--no-dev --group build' 'requirements-dev.txt:--group dev' \
    'requirements-far.txt:--no-dev --extra far --prune rich'; do
    file=${pair%%:*}
    # shellcheck disable=SC2086  # lists of options
    { echo "$header"; uv export $options ${pair#*:}; } >"$scratch/$file"
    if [ "${1:-}" = --check ]; then diff -u "$file" "$scratch/$file"; else cp "$scratch/$file" "$file"; fi
done
