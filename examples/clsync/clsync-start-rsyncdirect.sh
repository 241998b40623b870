#!/bin/sh
# Mode rsyncdirect: no script at all. Two directories of this machine need not even rsync.
# Keeps testdir/to in step with testdir/from, beside this script, within seven seconds. Ends with Ctrl-C.
# What is given here goes to clsync too: ./clsync-start-rsyncdirect.sh -w0 -t0 -T0 -d1
cd "$(dirname "$0")" || exit
mkdir -p testdir/from testdir/to
exec clsync -K example-rsyncdirect -Mrsyncdirect -W testdir/from -D testdir/to -R rules -p safe -w2 -t5 "$@"
