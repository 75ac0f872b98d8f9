#!/usr/bin/sh
# PID 1 of a guest that runs tests: a node with the unified control group hierarchy and only what the tests need.
# The kernel and init print to the first serial port, the tests to the second. /etc/tests and /etc/tests-first, one of
# which may be missing, contain the commands to run, one word per line.
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
# Part of every Kubernetes node; the tests configure it in each namespace.
modprobe br_netfilter
# Loading it creates its device node, which would otherwise load it on first use; no udev runs here.
modprobe tun

# The limit of systemd services.
ulimit -n 524288
# Linux below 5.11 counts eBPF's memory against it; the agent reports a limit that is too low.
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
# The tests that use the kernel's first network namespace as their node: this one, which has only lo.
if [ -e /etc/tests-first ]; then
  export KIAM_TESTS_NODE=first
  run < /etc/tests-first
fi
# Only now is the result complete.
echo "exit status $status" > /dev/ttyS1
