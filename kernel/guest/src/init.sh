#!/bin/busybox sh
# PID 1 of the guest. Prepares what a distribution's init and udev would, runs the agent as a
# child, reaps what is left to it meanwhile, and powers off when the agent ends.
export PATH=/bin HOME=/root TMPDIR=/tmp LC_ALL=C

# What goes wrong is said as a kernel message: those reach the console before the power is off,
# and the outside looks for this prefix.
fail() {
    echo "<2>efuse-init: FAILED: $*" >/dev/kmsg
    poweroff -f
    sleep 60
}

# For what must not fail: its own message becomes the reason.
must() {
    said=$("$@" 2>&1) || fail "$*: $said"
}

# The kernel has mounted nothing, and before /dev there is nowhere to complain.
mount -t devtmpfs -o mode=755 dev /dev
# A failure before this line is the bare kernel's; see Guest::boot.
echo "<4>efuse-init: started" >/dev/kmsg
mkdir -p /dev/pts /dev/shm /dev/virtio-ports
ln -s /proc/self/fd /dev/fd
ln -s /proc/self/fd/0 /dev/stdin
ln -s /proc/self/fd/1 /dev/stdout
ln -s /proc/self/fd/2 /dev/stderr
# All of /etc/fstab in one process: starting one is dear under emulation.
must mount -a

# One line each so that a kernel without the knob only leaves it out. The traces of hung tasks
# are informational messages: without the higher console level they would stay in the guest.
set_to() {
    [ ! -w "$2" ] || echo "$1" >"$2"
}
set_to 7 /proc/sys/kernel/printk
set_to 1 /proc/sys/kernel/panic_on_oops
set_to 60 /proc/sys/kernel/hung_task_timeout_secs
set_to 0 /proc/sys/kernel/hung_task_panic
set_to 1 /proc/sys/kernel/sysrq
set_to /bin/modprobe /proc/sys/kernel/modprobe
set_to efuse /proc/sys/kernel/hostname

# Built-in modules count as loaded. crc32c_intel is what udev would load on a processor that has
# it; ext4's checksums are far dearer without.
must modprobe -a configfs virtio_pci virtio_console virtio_blk null_blk loop
modprobe -q -a crc32c_intel virtio_rng
[ -d /sys/kernel/config ] && must mount -t configfs config /sys/kernel/config
must insmod /lib/efuse.ko
[ -d /sys/fs/fuse/connections ] && mount -t fusectl fusectl /sys/fs/fuse/connections

# udev's link by the port's name. The port appears some time after its driver does.
port=
tries=0
while [ -z "$port" ]; do
    for device in /sys/class/virtio-ports/*; do
        [ -r "$device/name" ] || continue
        read -r name <"$device/name"
        [ "$name" = efuse.agent ] || continue
        port=/dev/virtio-ports/$name
        ln -s "../${device##*/}" "$port"
    done
    [ -n "$port" ] && break
    tries=$((tries + 1))
    [ "$tries" -lt 500 ] || fail "the virtio-serial port efuse.agent did not appear in 10 s"
    usleep 20000
done

# As services get from systemd: daemons that hold a descriptor for each node they were asked
# for need more than 1024 where the kernel forgets late.
ulimit -n 65536 || fail "no process may have 65536 descriptors"

/bin/eval agent --port "$port"
status=$?
[ "$status" -eq 0 ] || fail "the agent ended with status $status"
sync
poweroff -f
sleep 60
