#!/bin/bash
# The first process under user-mode Linux (boot.sh): makes a machine of the root that it finds, runs $job/command,
# leaves its exit code in $job/status, and powers off.
#
# It is run twice: first with the machine's read-only `/` as the root, then in the overlay over it; and once more where
# systemd is wanted as the first process.
set -euo pipefail
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb LANG=C.UTF-8
exec </dev/null

overlay_root() {
    local module
    # There is no udev, and the kernel finds no modprobe: what it would load when it is asked for. Of what pods need,
    # this kernel is built without NAT in nftables.
    for module in fs/overlayfs/overlay lib/crc-ccitt net/ipv6/ipv6 net/llc/llc net/802/stp net/bridge/bridge \
        drivers/net/veth drivers/net/tun net/netfilter/nfnetlink net/netfilter/nf_tables drivers/block/loop; do
        busybox insmod "$modules/$module.ko"
    done
    mount -t tmpfs -o mode=755 tmpfs /mnt
    mkdir /mnt/upper /mnt/work /mnt/root
    mount -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work overlay /mnt/root
    cd /mnt/root
    pivot_root . mnt
    exec chroot . "$0" in_overlay
}

# What an init system mounts, and tmpfs where kplay keeps containers: overlays cannot be stacked on one another.
mount_all() {
    mount -t proc -o nosuid,nodev,noexec proc /proc
    umount -l /mnt
    mount -t sysfs -o nosuid,nodev,noexec sysfs /sys
    mount -t securityfs -o nosuid,nodev,noexec securityfs /sys/kernel/security
    mount -t devtmpfs -o nosuid,mode=755 devtmpfs /dev
    mkdir -p /dev/pts /dev/shm
    mount -t devpts -o nosuid,noexec,gid=5,mode=620,ptmxmode=666 devpts /dev/pts
    mount -t tmpfs -o nosuid,nodev tmpfs /dev/shm
    mount -t tmpfs -o nosuid,nodev,mode=755 tmpfs /run
    ln -sfn /proc/self/fd /dev/fd
    mkdir -p /var/lib/kplay
    mount -t tmpfs -o mode=755 tmpfs /var/lib/kplay
    # As systemd mounts it, and the controllers that it hands down.
    mount -t cgroup2 -o nosuid,nodev,noexec,nsdelegate,memory_recursiveprot cgroup2 /sys/fs/cgroup
    echo '+cpu +io +memory +pids' >/sys/fs/cgroup/cgroup.subtree_control
}

# Moves to where a login session would be: not in the root cgroup, where other rules hold.
enter_session() {
    mkdir -p /sys/fs/cgroup/user.slice/session.scope
    echo '+memory +pids' >/sys/fs/cgroup/user.slice/cgroup.subtree_control
    echo 0 >/sys/fs/cgroup/user.slice/session.scope/cgroup.procs
}

# The job is all that systemd starts.
write_unit() {
    mkdir -p /run/systemd/system
    cat >/run/systemd/system/job.service <<UNIT
[Unit]
DefaultDependencies=no
[Service]
Type=oneshot
Environment=job=$job "tools=${tools:-}"
ExecStart=$0 job
UNIT
    rm -rf /lib/systemd/system-generators /.dockerenv
}

run_job() {
    mkdir -p /run/job
    mount -t hostfs -o "$job" job /run/job
    ip link set lo up
    hostname uml
    stty -F /dev/tty1 -opost -echo
    local status=0
    bash /run/job/command >/dev/tty1 2>&1 || status=$?
    sync
    echo "$status" >/run/job/status
}

# Whatever fails here, the kernel must end: without its first process it would only panic.
power_off() {
    exec busybox poweroff -f
}

case ${1:-} in
'')
    overlay_root
    ;;
in_overlay)
    mount_all || power_off
    if [ "${init_system:-}" = systemd ]; then
        write_unit
        exec /lib/systemd/systemd --unit=job.service --show-status=0
    fi
    (enter_session && run_job) || true
    power_off
    ;;
job)
    run_job || true
    power_off
    ;;
esac
