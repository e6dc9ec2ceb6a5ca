#!/bin/sh
# Records what the cgroup layer reads on a real system, for tests/linux/recorded/: run as root,
#   sh record_cgroups.sh > recorded/hybrid.txt
# With "v1" or "v2" it first mounts that kind in a system that has mounted none (a bare guest with a disk /dev/vda).
# The output is a list of files: a line "== PATH", then its text.
set -u

show() { [ -r "$1" ] && printf '== %s\n' "$1" && cat "$1" && echo; }

case "${1:-}" in
v2)
    mkdir -p /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup
    for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do
        echo "+$controller" > /sys/fs/cgroup/cgroup.subtree_control
    done
    ;;
v1)
    mount -t tmpfs none /sys/fs/cgroup
    for controller in cpuset cpu,cpuacct memory pids blkio; do
        mkdir -p "/sys/fs/cgroup/$controller"
        mount -t cgroup -o "$controller" none "/sys/fs/cgroup/$controller"
    done
    ;;
esac

offset=0
echo '== /proc/self/mountinfo'
grep ' - cgroup2\? ' /proc/self/mountinfo
echo
show /proc/self/cgroup
grep ' - cgroup2\? ' /proc/self/mountinfo | cut -d ' ' -f 5 | while read -r mount_point; do
    show "$mount_point/cgroup.controllers"
    show "$mount_point/cgroup.subtree_control"
    group="$mount_point/benchbox-recorded"
    mkdir "$group" || continue
    if [ -e "$group/cpuset.mems" ] && [ ! -e "$group/cgroup.type" ]; then
        cat "$mount_point/cpuset.mems" > "$group/cpuset.mems"
        cat "$mount_point/cpuset.cpus" > "$group/cpuset.cpus"
    fi
    [ -e "$group/memory.max" ] && echo 268435456 > "$group/memory.max"
    [ -e "$group/memory.limit_in_bytes" ] && echo 268435456 > "$group/memory.limit_in_bytes"
    [ -e "$group/pids.max" ] && echo 512 > "$group/pids.max"
    [ -e "$group/cpu.max" ] && echo "50000 100000" > "$group/cpu.max"
    [ -e "$group/cpu.cfs_quota_us" ] && echo 50000 > "$group/cpu.cfs_quota_us"
    [ -e "$group/cpuset.cpus" ] && [ -e "$group/cgroup.type" ] && echo 0 > "$group/cpuset.cpus"
    # Some work inside, so that the counters are not all zero.
    # What was read once comes from memory the next time, so each group reads another part of the disk.
    offset=$((offset + 8))
    work="i=0; while [ \$i -lt 20000 ]; do i=\$((i + 1)); done; cat /proc/self/maps"
    disk="[ ! -b /dev/vda ] || dd if=/dev/vda bs=1M count=1 skip=$offset"
    sh -c "echo 0 > $group/cgroup.procs; { $work; $disk; } > /dev/null" 2> /dev/null
    for file in "$group"/*.* ; do
        case "$file" in *.event_control | *.force_empty | *.reclaim) continue ;; esac
        [ -f "$file" ] && show "$file" 2> /dev/null
    done
    rmdir "$group"
done
