#!/bin/sh
# Mode rsyncshell: a script with lists for rsync.
# Keeps testdir/to in step with testdir/from, beside this script, within seven seconds. Ends with Ctrl-C.
# What is given here goes to clsync too: ./clsync-start-rsyncshell.sh -w0 -t0 -T0 -d1
cd "$(dirname "$0")" || exit
mkdir -p testdir/from testdir/to
exec clsync -K example-rsyncshell -Mrsyncshell -S ./synchandler-rsyncshell.sh -W testdir/from -R rules -p safe -w2 -t5 "$@"
