#!/usr/bin/env bash
# Plays pods on cgroup v2 and prints what it finds, as `NAME: VALUE` lines, which tests/uml/main.rs compares with what
# should be. Runs under user-mode Linux, on a machine of its own: `checks.sh KPLAY REPOSITORY [FUNCTION]`.
set -uo pipefail

kplay=$1 repository=$2
cgroups=/sys/fs/cgroup
pods=$cgroups/kplay

fact() {
    printf '%s: %s\n' "$1" "${*:2}"
}

# What a command says, on one line, and its exit code if that is not 0.
said() {
    local text code
    text=$("${@:2}" 2>&1) && code=0 || code=$?
    text=$(tr '\n' ' ' <<<"$text")
    text=${text% }
    [ "$code" = 0 ] || text+=${text:+ }"($code)"
    fact "$1" "$text"
}

# A pod's identity.
uid_of() {
    "$kplay" get pod "$1" -o 'jsonpath={.metadata.uid}'
}

# The folder of a pod's cgroup, in that of its class.
cgroup_of() {
    find "$pods" -maxdepth 2 -name "$(uid_of "$1")"
}

# The values of a key in a pod's JSON.
of_pod() {
    "$kplay" get pod "$1" -o json | sed -nE "s/^ *\"$2\": \"?([^\",]*)\"?,?$/\1/p"
}

# Prints files of a cgroup of a pod, of which the folder is given.
values() {
    local name=$1 folder=$2 file value
    for file in "${@:3}"; do
        value=$(<"$folder/$file")
        fact "$name $file" "${value//$'\n'/ }"
    done
}

# The cgroups and processes of pods: none after the last one.
left() {
    fact "cgroups left after $1" "$(find "$pods" -mindepth 1 -type d 2>/dev/null | wc -l)"
    local process name cgroup found=()
    for process in /proc/[0-9]*; do
        # One that has ended meanwhile is not left.
        { read -r name <"$process/comm" && read -r cgroup <"$process/cgroup"; } 2>/dev/null || continue
        case $name,$cgroup in kplay* | *,*/kplay/*) found+=("$name in $cgroup") ;; esac
    done
    fact "processes left after $1" "${found[*]:-none}"
}

executors() {
    local process name
    for process in /proc/[0-9]*; do
        { read -r name <"$process/comm"; } 2>/dev/null && [ "$name" = kplay-executor ] && echo "${process#/proc/}"
    done
}

readme() {
    local manifest=$repository/manifests/hello.yaml
    said hello "$kplay" apply -q "$manifest"
    fact 'page' "$(busybox wget -qO- http://127.0.0.1:8080/ | head -n 1)"
    fact 'log' "$("$kplay" logs hello -c clock | head -n 1)"
    fact 'exec' "$("$kplay" exec hello -c web -- /toolbox env | grep HOSTNAME)"
    said 'delete hello' "$kplay" delete -f "$manifest"
    left hello
}

# Two pods at once, on which the machine's controllers are enabled at the same moment.
limits() {
    said limits "$kplay" apply -q "$repository/testdata/uml/limits.yaml"
    local files=(cpu.weight cpu.max memory.max memory.swap.max memory.oom.group pids.max) reserved=(memory.min memory.low memory.high)
    limited=$(cgroup_of limited) unlimited=$(cgroup_of unlimited)
    fact 'classes' "$(cd "$pods" && for one in "$limited" "$unlimited"; do dirname "${one#"$pods"/}"; done | tr '\n' ' ')"
    values limited "$limited" "${reserved[@]}"
    values limited/half "$limited/half-0" "${reserved[@]}"
    values besteffort "$pods/besteffort" cpu.weight
    values all "$pods" cpu.weight memory.max
    values limited "$limited" "${files[@]}" cgroup.procs cgroup.subtree_control
    values limited/half "$limited/half-0" "${files[@]}"
    values limited/one "$limited/one-0" "${files[@]}"
    values limited/pause "$limited/_sandbox" cpu.weight
    values unlimited "$unlimited" "${files[@]}"
    values unlimited/only "$unlimited/only-0" "${files[@]}"
    fact "kplay's own processes" "$(<"$pods/cgroup.procs")"
    fact 'executors' "$(for process in $(executors); do cat "/proc/$process/cgroup"; done | sort -u)"
}

# What the machine is fit for.
doctor() {
    "$kplay" system doctor >/run/doctor
    fact 'doctor' "$?, $(grep -v '^ok' /run/doctor | sed -n 's/^\(limited\|fails\)  *\([a-z ]*[a-z]\)  .*/\1 \2/p' | tr '\n' ' ')"
    fact 'doctor on cgroups' "$(sed -n 's/^ok *cgroups *//p' /run/doctor)"
    fact 'left by the doctor' "$(find "$cgroups" /var/lib -maxdepth 2 -name '*doctor*' | wc -l)"
}

# As long as the pods of `limits` run.
top() {
    fact 'top' "$("$kplay" top pods limited --no-headers | awk '{ print $1 "/" $2, $3 ~ /m$/, $4 ~ /Mi$/, $5 }' | tr '\n' ' ')"
}

# What is used of a processor, of which the container may have a half, in per cent.
quota() {
    local stat=$limited/half-0/cpu.stat before used begin
    begin=$(date +%s%N)
    before=$(sed -n 's/^usage_usec //p' "$stat")
    "$kplay" exec limited -c half -- /busybox timeout 2 /busybox sh -c 'while :; do :; done'
    used=$((($(sed -n 's/^usage_usec //p' "$stat") - before) * 100000 / ($(date +%s%N) - begin)))
    # What comes before and after the loop takes time, too.
    fact 'at most a half' "$( ((used > 25 && used < 58)) && echo yes || echo "$used")"
}

# What a container sees of its cgroup.
view() {
    in_half() { "$kplay" exec limited -c half -- /busybox "$@"; }
    said 'own cgroup' in_half cat /proc/self/cgroup
    said 'own mount' in_half sh -c \
        'grep /sys/fs/cgroup /proc/self/mountinfo | /busybox cut -d " " -f 4-6,8-9 | /busybox tr , " "'
    said 'own limit' in_half cat /sys/fs/cgroup/memory.max
    said 'a new cgroup' in_half mkdir /sys/fs/cgroup/new
    said 'a new limit' in_half sh -c 'echo max >/sys/fs/cgroup/memory.max'
}

devices() {
    said 'write /dev/null' in_half sh -c 'echo text >/dev/null'
    said 'read /dev/urandom' in_half sh -c '/busybox head -c 8 /dev/urandom | /busybox wc -c'
    said 'make a block device' in_half mknod /disk b 98 0
    said 'open a block device' in_half cat /disk
    said 'make /dev/kmsg' in_half mknod /kmsg c 1 11
    said 'open /dev/kmsg' in_half head -c 1 /kmsg
    said 'make another null' in_half mknod /null c 1 3
    said 'write another null' in_half sh -c 'echo text >/null'
    said 'open as privileged' "$kplay" exec unlimited -- /busybox sh -c \
        '/busybox mknod /kmsg c 1 11 && /busybox head -c 1 /kmsg | /busybox wc -c'
}

# The shell would say "survived" and exit with 3 if only the process that takes the memory were killed.
out_of_memory() {
    "$kplay" apply -q --wait=complete "$repository/testdata/uml/oom.yaml" >/dev/null 2>&1
    fact 'out of memory' "apply exits with $?, the container with $(of_pod eater exitCode), $("$kplay" get pod eater | grep -o OOMKilled)"
    said 'log of the killed' "$kplay" logs eater
    "$kplay" delete pod eater >/dev/null
}

# With the executors dies what has their death as its signal; the rest dies with the pod's cgroup.
killed_executors() {
    local process patience=100 members
    for process in $(executors); do
        kill -9 "$process"
    done
    while mapfile -t members <"$unlimited/only-0/cgroup.procs" && [ "${#members[@]}" != 1 ] && ((patience-- > 0)); do
        sleep 0.1
    done
    fact 'alive without executors' "$(tr '\0' ' ' <"/proc/${members[0]}/cmdline")"
    said 'delete without executors' "$kplay" delete pod limited unlimited
    left killed
}

# A pod's own resources, and a resize of it and of a container, both ways.
resize() {
    local manifest whole uid files=(cpu.max memory.max memory.swap.max)
    said whole "$kplay" apply -q "$repository/testdata/uml/whole.yaml"
    uid=$(uid_of whole)
    whole=$(cgroup_of whole)
    values 'burstable' "$pods/burstable" cpu.weight cpu.max memory.max pids.max
    # Another one is as heavy; together they weigh what both do.
    said 'second' "$kplay" apply -q - <<<"$(sed 's/name: whole/name: second/' "$repository/testdata/uml/whole.yaml")"
    values 'burstable with second' "$pods/burstable" cpu.weight
    "$kplay" delete pod second >/dev/null
    values 'burstable without second' "$pods/burstable" cpu.weight
    values whole "$whole" cpu.weight "${files[@]}" memory.oom.group
    # Without limits of its own, it has the pod's.
    values whole/free "$whole/free-0" "${files[@]}" memory.oom.group
    values whole/held "$whole/held-0" "${files[@]}"
    manifest=$(sed 's/requests: { cpu: 500m }/requests: { cpu: 1 }/; s/cpu: 2, memory: 96Mi/cpu: 3, memory: 128Mi/; s/400m, memory: 32Mi/600m, memory: 64Mi/' \
        "$repository/testdata/uml/whole.yaml")
    said more "$kplay" apply -q - <<<"$manifest"
    values 'more whole' "$whole" "${files[@]}"
    values 'more burstable' "$pods/burstable" cpu.weight
    values 'more whole/free' "$whole/free-0" "${files[@]}"
    values 'more whole/held' "$whole/held-0" "${files[@]}"
    said less "$kplay" apply -q "$repository/testdata/uml/whole.yaml"
    values 'less whole' "$whole" "${files[@]}"
    values 'less whole/held' "$whole/held-0" "${files[@]}"
    fact 'the same pod' "$([ "$uid" = "$(uid_of whole)" ] && echo yes), restarts $(of_pod whole restartCount | tr '\n' ' ')"
    "$kplay" delete pod whole >/dev/null
}

# This kernel has bridges, links and packet filtering, but no NAT in nftables. Pods run without, and say so.
network() {
    local manifest=$repository/testdata/uml/network.yaml address
    # As on a machine that is no router.
    echo 0 >/proc/sys/net/ipv4/ip_forward
    said network "$kplay" apply -q "$manifest"
    fact 'network limits' "$("$kplay" events --for pod/client | grep -c NetworkLimited)"
    fact 'forwarding' "$(</proc/sys/net/ipv4/ip_forward)"
    address=$("$kplay" get pod web -o 'jsonpath={.status.podIP}')
    fact 'by udp' "$("$kplay" exec client -- /toolbox lookup web | grep -c "$address")"
    fact 'by tcp' "$("$kplay" exec client -- /toolbox lookup --tcp web | grep -c "$address")"
    said 'pod to pod' "$kplay" exec client -- /busybox wget -qO /dev/null http://web:8080/
    said 'machine to pod' busybox wget -qO /dev/null "http://$address:8080/"
    "$kplay" delete -f "$manifest" >/dev/null
    said 'host network' "$kplay" apply -q "$repository/testdata/uml/host-network.yaml"
    fact 'host network limits' "$("$kplay" events --for pod/guest | grep -o 'has no nftables for IP')"
    "$kplay" delete -f "$repository/testdata/uml/host-network.yaml" >/dev/null
    fact 'bridges left' "$(ip -o link show type bridge | wc -l)"
    left network
}

# On a file system whose ids can be mapped: tmpfs can only from Linux 6.3 on.
users() {
    local root=/run/users
    truncate -s 400M /run/users.ext4
    mkfs.ext4 -q /run/users.ext4
    mkdir "$root"
    mount -o loop /run/users.ext4 "$root"
    said users "$kplay" --root "$root" apply -q "$repository/testdata/uml/users.yaml"
    said 'who it is' "$kplay" --root "$root" exec mapped -- /toolbox id
    fact 'ids' "$("$kplay" --root "$root" exec mapped -- /toolbox cat /proc/self/uid_map | xargs)"
    said 'a file of its own' "$kplay" --root "$root" exec mapped -- /toolbox write /space/file text
    fact 'on disk' "$(stat -c %u "$(find "$root" -name file -path '*space*')")"
    "$kplay" --root "$root" delete pod mapped >/dev/null
    left users
    umount "$root"
}

# A profile of the machine's, which forbids one file; one that is not there; and containers without.
app_armor() {
    printf '%s\n' 'profile kplay-uml flags=(attach_disconnected) {' 'file,' 'capability,' 'network,' 'mount,' \
        'signal,' 'ptrace,' 'unix,' 'deny /space/secret rw,' '}' >/run/kplay-uml.profile
    # shellcheck disable=SC2154 # The kernel hands it down.
    said 'load a profile' "$tools/apparmor_parser" --add --skip-cache --quiet --config-file /dev/null \
        /run/kplay-uml.profile
    said 'app armor' "$kplay" apply -q "$repository/testdata/uml/apparmor.yaml"
    local container
    for container in confined beside privileged open default; do
        said "profile of $container" "$kplay" exec armored -c "$container" -- /toolbox cat /proc/1/attr/current
        said "profile of what runs in $container" "$kplay" exec armored -c "$container" -- /toolbox cat /proc/self/attr/current
    done
    said 'a file of the confined' "$kplay" exec armored -c confined -- /toolbox write /space/file text
    said 'a forbidden file of the confined' "$kplay" exec armored -c confined -- /toolbox write /space/secret text
    said 'a forbidden file of the open' "$kplay" exec armored -c open -- /toolbox write /space/secret text
    fact 'a profile that is not there' "$(sed 's/kplay-uml/kplay-none/; s/name: armored/name: unarmed/' \
        "$repository/testdata/uml/apparmor.yaml" | "$kplay" apply -q - 2>&1 | grep -o 'CreateContainerError.*')"
    "$kplay" delete pod armored >/dev/null
    left 'app armor'
}

# As within a container: its root cgroup has processes, which have to make room before it hands controllers down.
without_controllers() {
    umount "$cgroups"
    mount -t cgroup2 cgroup2 "$cgroups"
    fact 'controllers of a container' "$(<"$cgroups/cgroup.controllers")"
    said 'no limits there' "$kplay" apply -q "$repository/manifests/hello.yaml"
    said 'exec there' "$kplay" exec hello -c web -- /toolbox print text
    "$kplay" delete pod hello >/dev/null
    fact 'processes there' "$(wc -l <"$cgroups/cgroup.procs"), $( (($(wc -l <"$cgroups/init/cgroup.procs") > 0)) && echo moved)"
    said 'limits there' "$kplay" apply -q - <<<"$(sed 's/, cpu: 500m\|cpu: 500m, //' "$repository/testdata/uml/of-user.yaml")"
    values 'limited there' "$(cgroup_of limited)" memory.max pids.max
    "$kplay" delete pod limited >/dev/null
    fact 'other limits there' "$("$kplay" apply -q "$repository/testdata/uml/of-user.yaml" 2>&1 | grep -o 'this machine.* needs')"
    left refused
}

# systemd writes to the cgroups that it knows, and may take a controller back that no unit of its own needs.
under_systemd() {
    local tree=$cgroups/kplay-pods.scope process
    pods=$tree/kplay
    touch /run/applied
    # Two that want the scope at once, from a terminal that ends before the pods do.
    systemd-run --quiet --scope --slice=user.slice --unit=terminal "$BASH" -c '
        "$0" apply -q "$1/limits.yaml" & "$0" apply -q "$1/of-user.yaml" --namespace other & wait; sleep 1000' \
        "$kplay" "$repository/testdata/uml" >/run/applied 2>&1 &
    for _ in {1..600}; do [ "$(wc -l </run/applied)" = 3 ] && break; sleep 0.1; done
    fact 'from a terminal' "$(sort /run/applied | tr '\n' ' ')"
    fact 'executors from a terminal' "$(for process in $(executors); do cat "/proc/$process/cgroup"; done | sort -u)"
    said 'end of the terminal' systemctl stop terminal.scope
    fact 'scope' "$(systemctl show -P Delegate -P TasksMax -P Slice kplay-pods.scope | tr '\n' ' ')"
    printf '%s\n' '[Unit]' DefaultDependencies=no '[Service]' Type=oneshot ExecStart=/bin/true CPUQuota=50% MemoryMax=99M \
        >/run/systemd/system/limited.service
    said 'another unit' systemctl start limited
    said 'reload' systemctl daemon-reload
    said 'another systemd' systemctl daemon-reexec
    values limited "$(cgroup_of limited)" cpu.max memory.max cgroup.subtree_control
    fact 'top' "$("$kplay" top pods limited --no-headers | wc -l)"
    # An executor that a service has started stays in it.
    said 'whole' "$kplay" apply -q "$repository/testdata/uml/whole.yaml"
    fact 'executors' "$(for process in $(executors); do cat "/proc/$process/cgroup"; done | sort | uniq -c | awk '{ print $1, $2 }' | tr '\n' ' ')"
    fact 'who keeps it' "$(wc -l <"$tree/_executor/cgroup.procs")"
    for process in $(executors); do kill -9 "$process"; done
    said delete "$kplay" delete pod --force limited unlimited whole
    said 'delete other' "$kplay" delete pod --force limited --namespace other
    for _ in {1..50}; do [ -e "$tree" ] || break; sleep 0.1; done
    fact 'scope left' "$(find "$cgroups" -name '*kplay*' | wc -l), $(systemctl is-active kplay-pods.scope)"
    # The next one makes it anew.
    said 'again' "$kplay" apply -q "$repository/testdata/uml/limits.yaml"
    said 'delete again' "$kplay" delete pod limited unlimited
    for _ in {1..50}; do [ -e "$tree" ] || break; sleep 0.1; done
    fact 'scope left again' "$(find "$cgroups" -name '*kplay*' | wc -l)"
    left delete
}

# A unit is started when its pods are ready; stopped, they are gone; after kplay was killed, they are there again. None of
# the services that a unit has by itself is there.
as_service() {
    local units=/run/systemd/system manifest=$repository/testdata/uml/service.yaml unit main before instance patience=300
    unit() {
        mkdir -p "$units/$1.d"
        printf '[Unit]\nDefaultDependencies=no\n' >"$units/$1.d/alone.conf"
    }
    ln -s /dev/null "$units/network-online.target"
    "$kplay" generate systemd "$manifest" >"$units/web.service"
    "$kplay" generate systemd --template >"$units/kplay@.service"
    unit web.service
    unit kplay@.service
    systemctl daemon-reload
    said 'start' systemctl start web
    fact 'ready' "$("$kplay" get pod service -o 'jsonpath={.status.containerStatuses[0].ready}')"
    fact 'status' "$(systemctl show -P StatusText web)"
    fact 'executor' "$(cat "/proc/$(executors)/cgroup")"
    before=$(uid_of service)
    main=$(systemctl show -P MainPID web)
    kill -9 "$main"
    while [ "$(systemctl show -P NRestarts web) $(systemctl show -P ActiveState web)" != '1 active' ] && ((patience-- > 0)); do
        sleep 0.1
    done
    fact 'again' "$(systemctl show -P ActiveState web), $("$kplay" get pod service -o 'jsonpath={.status.phase}')"
    fact 'another pod' "$([ "$before" != "$(uid_of service)" ] && echo yes)"
    said 'stop' systemctl stop web
    fact 'result' "$(systemctl show -P ActiveState web) $(systemctl show -P Result web)"
    left service
    instance=kplay@$(systemd-escape "$manifest").service
    said 'start an instance' systemctl start "$instance"
    fact 'instance' "$("$kplay" get pod service -o 'jsonpath={.status.phase}')"
    said 'stop the instance' systemctl stop "$instance"
    left instance
    # A file of podman's kind, of which kplay makes a unit when systemd reloads.
    mkdir -p /etc/systemd/system-generators /etc/kplay/systemd
    ln -s "$(realpath "$kplay")" /etc/systemd/system-generators/kplay-generator
    printf '%s\n' '[Kube]' "Yaml=$manifest" '[Install]' WantedBy=multi-user.target >/etc/kplay/systemd/written.kube
    unit written.service
    systemctl daemon-reload
    fact 'generated' "$(systemctl show -P UnitFileState written), $(readlink /run/systemd/generator/multi-user.target.wants/written.service)"
    said 'start the generated' systemctl start written
    fact 'the generated' "$("$kplay" get pod service -o 'jsonpath={.status.phase}')"
    said 'stop the generated' systemctl stop written
    left generated
}

# A user who is not root, whom .ci/deps makes.
user=kplay-test-one

as_user() {
    setpriv --reuid "$user" --regid "$user" --init-groups env -i HOME=/dev/shm/home "XDG_RUNTIME_DIR=/run/user/$(id -u "$user")" \
        PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"
}

# `pod_of_user NAME TREE FILE...`: a pod of a user's, who may divide the cgroup TREE, in which this shell is: in a scope of the
# user's systemd, or beside it. It must have these files.
pod_of_user() {
    local name=$1 tree=$2 folder folder_name uid
    said "$name" as_user "$kplay" apply -q "$repository/testdata/uml/of-user.yaml"
    folder=$(<"/run/user/$(id -u "$user")/kplay/pods/default_limited/cgroup")
    uid=$(as_user "$kplay" get pod limited -o 'jsonpath={.metadata.uid}')
    folder_name=${folder#"$tree"/}
    fact "$name, its folder" "${folder_name/$uid/UID}"
    values "$name, pod" "$folder/kplay/$uid" "${@:3}"
    values "$name, container" "$folder/kplay/$uid/main-0" memory.oom.group "${@:3}"
    said "$name, own limit" as_user "$kplay" exec limited -- /toolbox cat /sys/fs/cgroup/memory.max
    fact "$name, counted" "$(as_user "$kplay" top limited -o json | grep -c '"pids"')"
    said "$name, exceed it" as_user "$kplay" exec limited -- /toolbox eat-memory 100
    fact "$name, not enforced" "$(as_user "$kplay" events | grep -c LimitsNotEnforced)"
    said "$name, delete" as_user "$kplay" delete pod limited
    # systemd takes the scope away when it is empty.
    for _ in {1..50}; do [ -e "$folder" ] || break; sleep 0.1; done
    fact "$name, cgroups left" "$(find "$tree" -name '*kplay*' | wc -l)"
    left "$name"
}

prepare_user() {
    mkdir -p "/run/user/$(id -u "$user")" /dev/shm/home
    chown "$user:" "/run/user/$(id -u "$user")" /dev/shm/home
    chmod 700 "/run/user/$(id -u "$user")"
}

# Makes a cgroup that the user may divide, with this shell in a child of it.
enter_cgroup_of_user() {
    mkdir -p "$1/login"
    chown "$user:" "$1" "$1"/cgroup.{procs,subtree_control} "$1/login" "$1/login/cgroup.procs"
    echo $$ >"$1/login/cgroup.procs"
}

of_user_under_systemd() {
    local tree=$cgroups/user.slice/manager.service
    prepare_user
    mkdir -p /etc/systemd/user-generators /etc/kplay/systemd/users
    ln -s "$(realpath "$kplay")" /etc/systemd/user-generators/kplay-generator
    printf '%s\n' '[Kube]' "Yaml=$repository/testdata/uml/of-user.yaml" >/etc/kplay/systemd/users/written.kube
    # What comes with the usual dependencies empties /tmp, where the repository may be.
    systemd-run --quiet --unit=manager --uid="$user" -p DefaultDependencies=no -p Delegate=yes -p Slice=user.slice \
        -E "XDG_RUNTIME_DIR=/run/user/$(id -u "$user")" /lib/systemd/systemd --user --unit=basic.target
    until [ -S "/run/user/$(id -u "$user")/systemd/private" ]; do sleep 0.1; done
    fact 'generated' "$(as_user systemctl --user show -P UnitFileState written)"
    # Between the cgroups of others nobody but root moves a process, which root's systemd does by its bus.
    enter_cgroup_of_user "$tree"
    pod_of_user scope "$tree/app.slice" memory.max cpu.max
}

of_user() {
    prepare_user
    said 'nothing given' as_user "$kplay" apply -q "$repository/testdata/uml/of-user.yaml"
    fact 'not enforced' "$(as_user "$kplay" events | grep -c LimitsNotEnforced)"
    said 'end' as_user "$kplay" delete pod limited
    left 'nothing given'
    mkdir -p "$cgroups/user.slice/given"
    enter_cgroup_of_user "$cgroups/user.slice/given"
    pod_of_user given "$cgroups/user.slice/given" memory.max
}

# Of who logs out, logind removes what is in /dev/shm.
home=/var/lib/kplay/home

# Makes the units of a login: the bus, logind, and what a user has. What comes with the usual dependencies empties /tmp, where
# the repository may be, and logind's sandbox takes more than this kernel has.
prepare_logins() {
    local units=/run/systemd/system unit
    for unit in dbus.socket dbus.service user@.service user-runtime-dir@.service; do
        mkdir -p "$units/$unit.d"
        printf '%s\n' '[Unit]' DefaultDependencies=no >"$units/$unit.d/alone.conf"
    done
    printf '%s\n' '[Unit]' DefaultDependencies=no Requires=dbus.socket After=dbus.socket '[Service]' \
        BusName=org.freedesktop.login1 ExecStart=/lib/systemd/systemd-logind StateDirectory=systemd/linger \
        'RuntimeDirectory=systemd/sessions systemd/seats systemd/users systemd/inhibit systemd/shutdown' \
        >"$units/systemd-logind.service"
    # The user's systemd ends with the last session, not some seconds later.
    mkdir -p /run/systemd/logind.conf.d
    printf '%s\n' '[Login]' UserStopDelaySec=0 >/run/systemd/logind.conf.d/at-once.conf
    local service
    for service in systemd-user kplay-test; do
        printf '%s\n' 'account required pam_permit.so' 'session required pam_systemd.so' >"/etc/pam.d/$service"
    done
    mkdir "$home"
    chown "$user:" "$home"
    systemctl daemon-reload
    systemctl start dbus.socket systemd-logind.service
}

# A session of the user's: one command, with the environment that a login has.
session() {
    systemd-run --quiet --wait --pipe --collect -p DefaultDependencies=no -p PAMName=kplay-test -p User="$user" \
        -E HOME="$home" -E PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"
}

# As the user, with next to no environment.
without_session() {
    setpriv --reuid "$user" --regid "$user" --init-groups env -i HOME="$home" PATH=/usr/bin:/bin "$@"
}

# The user has no session any more, and with it no systemd: not one that is still ending either.
until_logged_out() {
    local patience=600
    until [ "$(systemctl show -P ActiveState "user@$(id -u "$user")")" = inactive ] || ((patience-- == 0)); do sleep 0.1; done
}

# Pods of a user who logs out: they end with the user's systemd, which lives on if the user lingers.
logged_out() {
    local manifest=$repository/testdata/uml/of-user.yaml where
    prepare_logins
    where=$(session printenv XDG_RUNTIME_DIR)
    fact 'session' "${where/$(id -u "$user")/UID}"
    fact 'told' "$(session "$kplay" up -d "$manifest" 2>&1 | grep -c 'loginctl enable-linger')"
    until_logged_out
    left 'logout'
    fact 'after logout' "$(session "$kplay" get pods --no-headers | tr -s ' ' | cut -d ' ' -f 1-4)"
    said 'delete after logout' session "$kplay" delete pod limited

    said 'linger' loginctl enable-linger "$user"
    fact 'not told' "$(session "$kplay" apply "$manifest" 2>&1 | grep -c 'loginctl enable-linger')"
    fact 'lives' "$(executors | wc -l)"
    where=$(cat "/proc/$(executors)/cgroup")
    where=${where//$(id -u "$user")/UID}
    fact 'where' "${where%/kplay-*}"
    # From another session, and from what is none: cron has no XDG_RUNTIME_DIR.
    fact 'another session' "$(session "$kplay" exec limited -- /toolbox id)"
    said 'no session' without_session "$kplay" exec limited -- /toolbox id
    said 'logs from no session' without_session "$kplay" logs limited
    said 'delete from no session' without_session "$kplay" delete pod limited
    left 'linger'

    # Images are others' files, too, in a namespace with their ids.
    echo 0 >/proc/sys/user/max_user_namespaces
    said 'images without namespaces' without_session "$kplay" images
    fact 'doctor without namespaces' "$(without_session "$kplay" system doctor 2>&1 | grep -o 'sysctl -w user.max_user_namespaces=[0-9]*' | sort -u)"
}

# A command below the service that runs the jobs, with nothing in the environment but what all of them have.
in_job() {
    (echo "$BASHPID" >"$cgroups/system.slice/hosted-compute-agent.service/cgroup.procs" &&
        exec "${who[@]}" env -i CI=true PATH=/usr/sbin:/usr/bin:/sbin:/bin "${told[@]}" "$@")
}

# A pod of a job's; the rest are files of its cgroup.
job() {
    local name=$1 folder where
    said "$name" in_job "$kplay" apply -q "$repository/testdata/uml/of-user.yaml"
    where=$(cat "/proc/$(executors)/cgroup")
    where=${where//$(id -u "$user")/UID}
    where=${where/$(in_job "$kplay" get pod limited -o 'jsonpath={.metadata.uid}')/POD}
    fact "$name, where" "$where"
    folder=$(find "$cgroups" -type d -name 'main-0')
    [ $# = 1 ] || values "$name, container" "$folder" "${@:2}"
    fact "$name, not enforced" "$(in_job "$kplay" events | grep -c LimitsNotEnforced)"
    said "$name, exec" in_job "$kplay" exec limited -- /toolbox id
    said "$name, delete" in_job "$kplay" delete pod limited
    left "$name"
}

# What a doctor says that is not in order.
job_doctor() {
    in_job "$kplay" system doctor >/run/doctor 2>&1
    fact "$1, doctor" "$?, $(sed -n 's/^\(limited\|fails\)  *\([a-z ]*[a-z]\)  .*/\1 \2/p' /run/doctor | tr '\n' ' ')"
}

# As on machines that CI lends: jobs are below a service of the machine's, of a user who has no session, and who may become root without
# a password. Then as on GitHub's, whose user lingers, and where everybody is told of that user's folder, root too.
as_runner() {
    local who told unprivileged uid
    uid=$(id -u "$user")
    unprivileged=(setpriv --reuid "$user" --regid "$user" --init-groups)
    prepare_logins
    systemd-run --quiet --unit=hosted-compute-agent -p DefaultDependencies=no -p User="$user" sleep infinity
    who=("${unprivileged[@]}") told=("HOME=$home")
    job_doctor 'job'
    job 'job'
    who=() told=(HOME=/root "SUDO_UID=$uid")
    job 'sudo' memory.max cpu.max

    loginctl enable-linger "$user"
    until [ -S "/run/user/$uid/systemd/private" ]; do sleep 0.1; done
    who=("${unprivileged[@]}") told=("HOME=$home" "XDG_RUNTIME_DIR=/run/user/$uid")
    job_doctor 'lingering job'
    job 'lingering job' memory.max cpu.max
    who=() told=(HOME=/root "SUDO_UID=$uid" "XDG_RUNTIME_DIR=/run/user/$uid")
    job 'lingering sudo' memory.max cpu.max
    fact "root's in the user's folder" "$(find "/run/user/$uid" -name '*kplay*' -uid 0 | wc -l)"
    who=("${unprivileged[@]}") told=("HOME=$home" "XDG_RUNTIME_DIR=/run/user/$uid")
    restricted
}

# As Ubuntu restricts whom it does not know: user namespaces can be made, and nothing can be done in them. It has a setting of the
# kernel for that, and this kernel has none.
restricted() {
    mkdir /run/restricted /run/settings
    cp "$kplay" /run/restricted/kplay
    cp -r /proc/sys/kernel/. /run/settings 2>/dev/null
    echo 1 >/run/settings/apparmor_restrict_unprivileged_userns
    mount --bind /run/settings /proc/sys/kernel
    printf '%s\n' 'profile kplay-restricted /run/restricted/kplay {' 'file,' 'network,' 'signal,' 'ptrace,' 'unix,' \
        '/usr/bin/newuidmap Ux,' '/usr/bin/newgidmap Ux,' '}' >/run/kplay-restricted.profile
    said 'restrict' "$tools/apparmor_parser" --add --skip-cache --quiet --config-file /dev/null /run/kplay-restricted.profile
    kplay=/run/restricted/kplay
    said 'restricted' in_job "$kplay" apply -q "$repository/testdata/uml/of-user.yaml"
    job_doctor 'restricted'
    fact 'restricted, mend' "$(sed -n 's/^ *mend: //p' /run/doctor | grep apparmor)"
    left 'restricted'
    umount /proc/sys/kernel
}

if [ $# = 3 ]; then
    "$3"
    exit
fi

doctor
limits
top
quota
view
devices
out_of_memory
killed_executors
resize
network
users
app_armor
readme
unshare --mount --cgroup "$0" "$@" without_controllers
