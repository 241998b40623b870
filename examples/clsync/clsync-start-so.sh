#!/bin/sh
# Mode so: a function in C, with the changed paths.
# Keeps testdir/to in step with testdir/from, beside this script, within seven seconds. Ends with Ctrl-C.
# What is given here goes to clsync too: ./clsync-start-so.sh -w0 -t0 -T0 -d1
cd "$(dirname "$0")" || exit
mkdir -p testdir/from testdir/to
include=$("${PYTHON:-python3}" -c "from instep.engines.sharedobject import build; print(build.INCLUDE)") || exit
(umask 022 && cc -shared -fPIC -I "$include" -o testdir/synchandler-so.so synchandler-so.c) || exit
exec clsync -K example-so -Mso -S testdir/synchandler-so.so -W testdir/from -D testdir/to -R rules -w2 -t5 "$@"
