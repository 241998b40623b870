#!/bin/sh
# A sync handler for mode rsyncshell, called as: rsynclist LABEL INCLUDE-LIST EXCLUDE-LIST. We are in the watched directory.
[ "$1" = rsynclist ] || exit 22
rsync -avH --delete-before --exclude-from="$4" --include-from="$3" --exclude='*' "$PWD/" "$PWD/../to/"
status=$?
# 24: something vanished while rsync looked; that is told as well.
[ $status -eq 24 ] || exit $status
