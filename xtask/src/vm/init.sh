#!/bin/busybox sh
# The first and only service of a test machine: runs what /hub/suite lists, one program after the other, and
# switches the machine off. Lines that begin with @@ are for whoever listens to the serial line.
export PATH=/usr/bin:/bin HOME=/ TMPDIR=/tmp HUB_TEST_ROOT=1 HUB_BIN_DIR=/hub RUST_BACKTRACE=0
# The clock is this machine's alone: tests may set it.
export HUB_TEST_CLOCK=1
# Emulation is slow: deadlines are longer, and random tests shorter.
export HUB_TEST_PATIENCE=8 HUB_DIFFERENTIAL_WORLDS=40 HUB_TEST_CYCLES=20
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm /sys/fs/bpf
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
mount -t bpf bpf /sys/fs/bpf
ip link set lo up
# Duplicate address detection makes addresses come late, in every namespace.
echo 1 >/proc/sys/net/core/devconf_inherit_init_net
echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad
echo 0 >/proc/sys/net/ipv6/conf/all/accept_dad
for module in veth bridge tun vrf ifb dummy 8021q cls_bpf sch_ingress sch_htb sch_fq nf_tables nf_conntrack; do
    modprobe -q "$module"
done
# Runs a program for at most so long, a quarter of an hour unless said otherwise; keeps what it says, and how it ended
# in `code`.
heard() {
    {
        timeout -s KILL "${HUB_STEP_SECONDS:-900}" "$@" 3<&-
        echo $? >/tmp/code
    } 2>&1 | tee /tmp/heard
    code=$(cat /tmp/code)
}
echo "@@ booted $(uname -r)"
while read -r name program arguments <&3; do
    echo "@@ $name begins"
    begun=$(cut -d. -f1 /proc/uptime)
    # Arguments are words without spaces.
    # shellcheck disable=SC2086
    heard "$program" $arguments
    if [ "$code" = 101 ]; then
        failed=$(sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' /tmp/heard)
        # What stood still for too long beside others gets a second try alone, as in `cargo xtask test`.
        if [ -n "$failed" ] && [ "$(echo "$failed" | wc -l)" -le 3 ]; then
            echo "@@ $name again: $(echo "$failed" | tr '\n' ' ')"
            # shellcheck disable=SC2086
            heard "$program" --exact --test-threads 1 $failed
        fi
    fi
    took=$(($(cut -d. -f1 /proc/uptime) - begun))
    if [ "$code" = 0 ]; then echo "@@ $name passed $took s"; else echo "@@ $name failed $took s: $code"; fi
done 3<"${HUB_SUITE:-/hub/suite}"
echo "@@ done"
poweroff -f
