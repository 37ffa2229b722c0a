#!/usr/bin/env bash
# Runs root tests under user-mode Linux (boot.sh), then looks for what they have left:
#   suite.sh ROOT-TESTS LEFTOVERS-TEST [--units UNIT-TESTS] [--as USER] ARGUMENT-OF-LIBTEST...
# With `--units`, it runs those of cgroups first. With `--as`, which needs systemd as the first process, that user plays the pods, and has a systemd of the user's own.
set -euo pipefail

root_tests=$1 leftovers=$2
shift 2

# As somebody's login does, and without the services that a unit has by itself: one of them empties /tmp, where the repository
# may be.
log_in() {
    local unit units=/run/systemd/system
    if ! id "$1" >/dev/null || [ ! -e /lib/systemd/system/dbus.service ] || [ ! -e /usr/share/pam-configs/systemd ]; then
        echo 'suite.sh: needs what .ci/deps installs'
        exit 77
    fi
    for unit in dbus.socket dbus.service systemd-logind.service user-runtime-dir@.service user@.service; do
        mkdir -p "$units/$unit.d"
        printf '[Unit]\nDefaultDependencies=no\n' >"$units/$unit.d/alone.conf"
    done
    systemctl daemon-reload
    # Between cgroups of others nobody but root moves a process, which root's systemd does, asked by the user's over the bus.
    systemctl start dbus.socket systemd-logind.service
    systemctl start "user@$(id -u "$1").service"
}

# State is on a file system of its own, since overlays cannot be stacked on one another; not on tmpfs, whose ids this kernel
# cannot map. What is deleted there is given back, or in the end there is no memory for what is written.
make_room() {
    mkdir -p /run/tests
    truncate -s 4G /dev/shm/tests.ext4
    mkfs.ext4 -q -O ^has_journal /dev/shm/tests.ext4
    mount -o loop,discard /dev/shm/tests.ext4 /run/tests
    chmod 1777 /run/tests
    mount -t tmpfs tmpfs /var/lib/containers
}

make_room
# All is there that CI has.
export TMPDIR=/run/tests CI=true
status=0
if [ "${1:-}" = --units ]; then
    "$2" sys::cgroup || status=$?
    shift 2
fi
if [ "${1:-}" = --as ]; then
    log_in "$2"
    export KPLAY_TEST_AS=$2
    shift 2
fi
"$root_tests" --test-threads 2 "$@" || status=$?
"$leftovers" || status=$?
exit "$status"
