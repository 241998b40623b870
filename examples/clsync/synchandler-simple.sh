#!/bin/sh
# A sync handler for mode simple, called as: sync LABEL MASK PATH. The path is absolute, and we are in the watched
# directory; what is there now counts, whatever happened.
[ "$1" = sync ] || exit 22
path=$4
name=${path#"$PWD"}
[ -n "$name" ] || exit 0
there=../to$name

if [ -d "$path" ] && [ ! -L "$path" ]; then
    [ -d "$there" ] && [ ! -L "$there" ] || rm -f -- "$there"
    exec mkdir -p -- "$there"
fi
if [ -e "$path" ] || [ -L "$path" ]; then
    [ ! -d "$there" ] || [ -L "$there" ] || rm -rf -- "$there"
    mkdir -p -- "$(dirname -- "$there")"
    cp -a --remove-destination -- "$path" "$there" && exit
    # It may have gone meanwhile: then that is told as well.
    [ ! -e "$path" ] && [ ! -L "$path" ]
    exit
fi
exec rm -rf -- "$there"
