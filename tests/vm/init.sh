#!/usr/bin/sh
# PID 1 of a guest that runs tests: a node with the unified control group hierarchy and nothing but what the tests need.
# Kernel and init speak on the first serial port, the tests on the second. /etc/tests and /etc/tests-first, of which one may
# be missing, hold what to run, a word a line.
set -eu
export PATH=/usr/sbin:/usr/bin
finish() {
  poweroff -f
}
trap finish EXIT

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs tmpfs /tmp
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
ip link set lo up
# Part of every Kubernetes node; the tests say in each namespace what it does there.
modprobe br_netfilter
# Its device node comes with it; nobody is here to make the node that would load it.
modprobe tun

# As systemd gives its services.
ulimit -n 524288
# Linux below 5.11 counts eBPF's memory against it; the agent says so where it is too low.
ulimit -l unlimited

export KIAM_BIN_DIR=/usr/bin KIAM_PYTHON_VENV=/usr/lib/venv KIAM_TESTS_STS=plain
stty -F /dev/ttyS1 -opost
status=0
run() {
  set --
  while read -r word; do
    set -- "$@" "$word"
  done
  "$@" > /dev/ttyS1 2>&1 < /dev/null || status=$?
}
if [ -e /etc/tests ]; then
  run < /etc/tests
fi
# Those whose node is to be the kernel's first network namespace: this one, which has nothing but lo.
if [ -e /etc/tests-first ]; then
  export KIAM_TESTS_NODE=first
  run < /etc/tests-first
fi
# Only now is the result complete.
echo "exit status $status" > /dev/ttyS1
