#!/usr/bin/env bash
# Runs one command as root under user-mode Linux: a kernel that is an ordinary process, with pure cgroup v2.
#
#   tests/uml/boot.sh [--timeout SECONDS] [--memory SIZE] [--systemd] COMMAND [ARGUMENT...]
#
# Machines like CI's have cgroup v1 and no AppArmor; users have v2, and many have AppArmor. The kernel is Debian's,
# unpacked (not installed) into the cache folder, target/uml. Its root is this machine's own `/` under a throw-away overlay, so every program of the machine and
# the build are there, and nothing that is written stays. It has one processor, no network beyond loopback, and is 15 to
# 35 times slower at fork and execve than the machine.
#
# With `--systemd` the first process is systemd, and the command is a service, the only one.
#
# The root tests run in it as well, with their folders on tmpfs, because overlays cannot be stacked on one another:
#   tests/uml/boot.sh env TMPDIR=/dev/shm target/…/deps/root-… --test-threads 2 death::
#
# What the command prints (both streams) goes to standard output as it comes; its exit code is the exit code. Besides:
#   77   the kernel is not to be had: not root, no Debian, no way to its archive
#   124  the time is over
#   125  the kernel ended without the command's exit code; its last words are on standard error
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${CARGO_TARGET_DIR:-$here/../../target}/uml
memory=1G
timeout=300
init_system=none

unavailable() {
    printf 'boot.sh: %s\n' "$1" >&2
    exit 77
}

# Prints the folder with a package that is unpacked.
package() {
    local name=$1 found=$cache/$1
    if [ ! -d "$found" ]; then
        local work
        work=$(mktemp -d "$cache/download.XXXXXX")
        (cd "$work" && download "$name" >&2) || { rm -rf "$work"; return 1; }
        dpkg-deb -x "$work/$name"_*.deb "$work/unpacked"
        if [ "$name" = user-mode-linux ]; then
            cc -O2 -shared -fPIC -o "$work/unpacked/xstate.so" "$here/xstate.c"
        fi
        # Renamed, so that it is there complete or not at all; somebody else's is as good.
        mv -T "$work/unpacked" "$found" 2>/dev/null || [ -d "$found" ]
        rm -rf "$work"
    fi
    printf '%s\n' "$found"
}

# Fetches a package into the working directory. The machine's package lists may be missing or old: then with new ones,
# which are kept apart from the machine's.
download() {
    apt-get -qq download "$1" 2>/dev/null && return
    mkdir -p lists/partial
    apt-get -qq -o Dir::State::Lists="$PWD/lists" update &&
        apt-get -qq -o Dir::State::Lists="$PWD/lists" download "$1"
}

# Where the kernel keeps its memory, in a file: in memory, if so much of it is there.
memory_folder() {
    local free
    free=$(df --output=avail --block-size=1M /dev/shm 2>/dev/null | tail -n 1) || free=0
    if [ "${free:-0}" -gt 1024 ]; then echo /dev/shm; else echo "$1"; fi
}

main() {
    if [ "${1:-}" = --timeout ]; then
        timeout=$2
        shift 2
    fi
    if [ "${1:-}" = --memory ]; then
        memory=$2
        shift 2
    fi
    if [ "${1:-}" = --systemd ]; then
        init_system=systemd
        shift
    fi
    if [ $# = 0 ]; then
        sed -n '/^#   tests/{s/^# *//p;q}' "${BASH_SOURCE[0]}" >&2
        exit 64
    fi
    [ "$(id -u)" = 0 ] || unavailable 'needs root'
    [ -n "$(type -P apt-get)" ] && [ -n "$(type -P busybox)" ] && [ -n "$(type -P cc)" ] ||
        unavailable 'needs Debian with busybox-static and gcc'
    [ "$init_system" = none ] || [ -x /lib/systemd/systemd ] || unavailable 'needs systemd'
    mkdir -p "$cache"
    cache=$(cd "$cache" && pwd)
    local unpacked tools
    unpacked=$(package user-mode-linux) || unavailable 'cannot get the package user-mode-linux from the archive'
    # What loads AppArmor's profiles.
    tools=$(package apparmor) || unavailable 'cannot get the package apparmor from the archive'

    local job
    job=$(mktemp -d "$cache/job.XXXXXX")
    # shellcheck disable=SC2064 # The folder is known now.
    trap "rm -rf '$job'" EXIT
    { printf 'cd %q\n' "$PWD"; printf 'exec'; printf ' %q' "$@"; printf '\n'; } >"$job/command"

    # The kernel passes `job`, `modules` and `tools` on to its init as environment. Descriptor 1 is the command's terminal, and
    # the kernel's own goes to a file.
    local kernel=(
        "$unpacked/usr/bin/linux.uml" "mem=$memory" "uml_dir=$job/" quiet
        root=/dev/root rootfstype=hostfs rootflags=/ ro "init=$here/init.sh"
        cgroup_no_v1=all lsm=apparmor con=null con0=null,fd:2 con1=null,fd:1 console=tty0
        "init_system=$init_system" "job=$job" "tools=$tools/sbin" "modules=$(echo "$unpacked"/usr/lib/uml/modules/*/kernel)"
    )
    TMPDIR=$(memory_folder "$job") LD_PRELOAD=$unpacked/xstate.so \
        timeout --kill-after=5 "$timeout" "${kernel[@]}" </dev/null 2>"$job/kernel.log" &
    local process=$! ended=0
    # A signal to this script ends the kernel too: `timeout` passes it on.
    trap 'kill "$process" 2>/dev/null' INT TERM HUP
    wait "$process" || ended=$?
    if [ -s "$job/status" ]; then
        exit "$(cat "$job/status")"
    fi
    tail -n 20 "$job/kernel.log" >&2
    case $ended in
    124 | 137) printf 'boot.sh: not done after %s seconds\n' "$timeout" >&2; exit 124 ;;
    *) printf 'boot.sh: the kernel ended without an exit code of the command\n' >&2; exit 125 ;;
    esac
}

main "$@"
