#!/bin/sh
# Mode simple: a script for each event.
# Keeps testdir/to in step with testdir/from, beside this script, within seven seconds. Ends with Ctrl-C.
# What is given here goes to clsync too: ./clsync-start-simple.sh -w0 -t0 -T0 -d1
cd "$(dirname "$0")" || exit
mkdir -p testdir/from testdir/to
exec clsync -K example-simple -Msimple -S ./synchandler-simple.sh -W testdir/from -R rules -w2 -t5 "$@"
