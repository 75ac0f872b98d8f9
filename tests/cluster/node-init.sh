#!/bin/sh
# PID 1 of a node: node-init.sh STATE_FOLDER NODE_NAME v2|hybrid
#
# Runs in fresh mount, pid, uts, ipc and cgroup namespaces, and in the node's network namespace. Gives the node what is
# its own, tells so by the file `mounted` in the state folder, and then only reaps orphans. When it ends, the kernel
# ends every other process of the node and drops its mounts.
set -eu
state=$1 name=$2 cgroups=$3
hostname "$name"
v1_hierarchies=$(awk '$3 == "cgroup" { print $2 }' /proc/mounts)

mount -t proc proc /proc
# The kubelet insists on these six. They are the whole machine's, so it is shown what it expects and changes nothing.
mkdir "$state/sysctl"
while read -r key value; do
  file=$state/sysctl/$(echo "$key" | tr / .)
  echo "$value" > "$file"
  mount --bind "$file" "/proc/sys/$key"
  mount -o remount,bind,ro "/proc/sys/$key"
done << SYSCTLS
vm/overcommit_memory 1
vm/panic_on_oom 0
kernel/panic 10
kernel/panic_on_oops 1
kernel/keys/root_maxkeys 1000000
kernel/keys/root_maxbytes 25000000
SYSCTLS

# The control groups from the node's own down, which the new cgroup namespace makes the roots.
mount -t sysfs sysfs /sys
if [ "$cgroups" = v2 ]; then
  mount -t cgroup2 cgroup2 /sys/fs/cgroup
else
  mount -t tmpfs -o mode=755 cgroup /sys/fs/cgroup
  mkdir /sys/fs/cgroup/unified
  mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified
  for hierarchy in $v1_hierarchies; do
    controller=${hierarchy##*/}
    [ "$controller" = systemd ] && option=none,name=systemd || option=$controller
    mkdir "/sys/fs/cgroup/$controller"
    mount -t cgroup -o "$option" cgroup "/sys/fs/cgroup/$controller"
  done
fi
mount -t bpf bpf /sys/fs/bpf

# What Kubernetes keeps at fixed places of a machine, and must not leave on this one.
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=755 tmpfs /var/lib
mkdir "$state/log"
mount --bind "$state/log" /var/log
mount --bind "$state/hosts" /etc/hosts
# Gone with /run where it is a link to systemd-resolved's.
[ ! -e /etc/resolv.conf ] || mount --bind "$state/resolv.conf" /etc/resolv.conf

# As systemd does: what is mounted later shows up in the pods that ask for it.
mount --make-rshared /
touch "$state/mounted"
while sleep 1; do :; done
