#!/bin/sh
# Brings in the programs that the tests drive, where it may; says what is skipped where it may not. Never fails.
set -u
PATH=$PATH:/usr/sbin:/sbin
wanted='rsync:rsync clsync:clsync lsyncd:lsyncd sshd:openssh-server ssh:openssh-client getfattr:attr setfacl:acl
mkfs.ext4:e2fsprogs mkfs.xfs:xfsprogs mkfs.btrfs:btrfs-progs setpriv:util-linux'

missing() {
    for pair in $wanted; do
        command -v "${pair%%:*}" >/dev/null 2>&1 || printf '%s ' "${pair##*:}"
    done
}

packages=$(missing)
[ -n "$packages" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    printf 'system packages: installing %s\n' "$packages" >&2
    export DEBIAN_FRONTEND=noninteractive
    # A daemon that a package starts by itself would meddle with the tests; 101 is policy-rc.d's "not allowed".
    if [ ! -e /usr/sbin/policy-rc.d ]; then
        printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d && chmod 755 /usr/sbin/policy-rc.d
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    fi
    install() { apt-get install -y -q --no-install-recommends "$@" >/dev/null 2>&1; }
    # shellcheck disable=SC2086  # a list of package names
    install $packages || { apt-get update -q >/dev/null 2>&1; install $packages; } ||
        for package in $packages; do install "$package"; done  # one unknown name must not keep the others away
fi
packages=$(missing)
[ -z "$packages" ] || printf 'system packages: still missing, so the tests that need them are skipped: %s\n' "$packages" >&2
exit 0
