# Installs the package under systemd, uses it, breaks it, and removes it. Every check prints one line.
exec 2>&1
export DEBIAN_FRONTEND=noninteractive LC_ALL=C
check() {
    local name=$1
    shift
    if "$@"; then echo "@@ ok $name"; else
        echo "@@ FAILED $name"
        systemctl status hubd --no-pager --lines=0
        journalctl -u hubd --no-pager --lines=15
    fi
}
# Asks until the answer is yes, for so many seconds.
within() {
    local limit=$((SECONDS + $1))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$limit" ] || return 1
        sleep 0.2
    done
}
active() { [ "$(systemctl is-active hubd)" = active ]; }
pid() { systemctl show --value --property MainPID hubd; }
reaches() { ip netns exec "$1" nc -z -w 3 "$2" 80; }
answers() { ip netns exec "$1" ping -c 1 -W 3 "$2" >/dev/null; }
another() { active && [ "$(pid)" != "$1" ] && [ "$(pid)" != 0 ]; }
program() { hubctl status --json | grep -A6 '"tc_in"' | grep -m 1 program_id; }

echo "@@ booted $(uname -r), $(systemctl --version | head -n 1)"
depmod "$(uname -r)"
for module in veth cls_bpf sch_ingress; do modprobe "$module"; done
for name in outside before after; do ip netns add "$name"; done
ip link add up0 type veth peer name eth0 netns outside
ip address add 192.0.2.1/24 dev up0
ip -6 address add 2001:db8:2::1/64 dev up0 nodad
ip link set up0 up
ip netns exec outside sh -c 'ip link set lo up; ip link set eth0 up; ip address add 192.0.2.10/24 dev eth0
    ip -6 address add 2001:db8:2::10/64 dev eth0 nodad
    ip route add default via 192.0.2.1; ip -6 route add default via 2001:db8:2::1'
ip netns delete after

check "the package installs" dpkg --install /hub/hub.deb
check "the service is active after the installation" within 60 active
check "it is enabled" systemctl is-enabled --quiet hubd
cat >/etc/hub/hub.yaml <<'END'
interfaces: [{name: up0, role: uplink}]
END
persona() {
    cat >"/etc/hub/documents/$1.yaml" <<END
kind: persona
name: $1
ip_range: [10.$2.0.0/24, "fd00:$2::/64"]
security_policies: [{protocol: tcp, port: 80, action: allow}]
endpoints: [{name: $1, namespace: $1, address: [10.$2.0.10, "fd00:$2::10"]}]
END
}
persona before 101
chmod 0644 /etc/hub/documents/before.yaml
begun=$SECONDS
check "it restarts with interfaces" systemctl restart hubd
# Emulation is slow, by how much depends on who else works: deadlines are 11 s, or four starts where that is longer.
start=$((SECONDS - begun + 1))
limit=$((4 * start))
[ "$limit" -gt 11 ] || limit=11
echo "@@ a restart takes $start s, the limit is $limit s"
ip netns exec before nc -6 -l -k -p 80 >/dev/null &
check "hubctl answers" hubctl status
check "a persona forwards IPv4" within 30 reaches outside 10.101.0.10
check "a persona forwards IPv6" within 30 reaches outside fd00:101::10
check "other ports are closed" bash -c '! ip netns exec outside nc -z -w 2 10.101.0.10 81'
# A namespace that is made while the service runs.
ip netns add after
persona after 102
check "it reloads" systemctl reload hubd
ip netns exec after nc -6 -l -k -p 80 >/dev/null &
check "a namespace made later is reached" within 30 reaches outside 10.102.0.10

# A networkd that manages every link and takes what others made for left over.
mkdir -p /etc/systemd/network /etc/systemd/networkd.conf.d
cat >/etc/systemd/network/10-up.network <<'END'
[Match]
Name=up0
[Network]
Address=2001:db8:2::1/64
IPv6AcceptRA=no
[Address]
Address=192.0.2.1/24
Broadcast=no
[Route]
Destination=203.0.113.0/24
Gateway=192.0.2.10
END
cat >/etc/systemd/network/20-rest.network <<'END'
[Match]
Name=hub*
[Network]
IPv6AcceptRA=no
END
echo 'egress: {next_hop: [192.0.2.10, "2001:db8:2::10"]}' >>/etc/hub/documents/after.yaml
systemctl reload hubd
has_rules() { ip rule show priority 17700 | grep -q 10.102 && ip -6 rule show priority 17700 | grep -q fd00:102; }
check "a persona has rules of its own" within 60 has_rules
ours() { ip route show table all proto 177; ip rule show priority 17700; ip -6 rule show priority 17700; ip -oneline address show | grep -o ' hub[^ ]* *inet6* [^ ]*' | grep -v fe80; }
whole=$(ours)
check "it has routes, rules and addresses" test "$(wc -l <<<"$whole")" -ge 15
# What an earlier run left would look like a networkd that is done.
renew() { rm -f /run/systemd/netif/links/*; systemctl restart systemd-networkd; }
same() { [ "$(ours)" = "$whole" ]; }
configured() { grep -qs ADMIN_STATE=configured "/run/systemd/netif/links/$(cat /sys/class/net/up0/ifindex)"; }
drifts() { journalctl -u hubd --no-pager | grep -c "drift repaired"; }
check "networkd runs" systemctl start systemd-networkd
check "networkd has configured the uplink" within 120 configured
check "the hub has put right what networkd removed" within "$limit" same
before=$(drifts)
check "networkd restarts" renew
check "networkd has configured the uplink again" within 120 configured
check "the hub puts it right again" within "$limit" same
check "it tells of drift" test "$(drifts)" -gt "$before"
check "a persona forwards beside networkd, IPv4" within 30 reaches outside 10.101.0.10
check "a persona forwards beside networkd, IPv6" within 30 reaches outside fd00:101::10
check "what networkd made stays" bash -c 'ip route show 203.0.113.0/24 | grep -q "proto static"'
check "doctor warns of networkd" bash -c 'hubctl doctor | grep -q "ManageForeignRoutes=no"'
printf '[Network]\nManageForeignRoutes=no\nManageForeignRoutingPolicyRules=no\n' >/etc/systemd/networkd.conf.d/hub.conf
rm /etc/systemd/network/20-rest.network
renew
check "networkd with its switches off" within 120 configured
sleep 2
before=$(drifts)
check "it restarts with its switches off" renew
check "it has configured the uplink with its switches off" within 120 configured
sleep 3
check "and has removed nothing" test "$(drifts)" = "$before"
check "doctor is content with networkd" bash -c '! hubctl doctor | grep -q "ManageForeignRoutes=no"'
systemctl stop systemd-networkd.socket systemd-networkd

sleep 1
echo "@@ rights $(grep -E 'CapEff|CapBnd' "/proc/$(pid)/status" | tr -s '\n\t' ' ')user $(ps -o user= -p "$(pid)")"
# NET_ADMIN 12, SYS_ADMIN 21, PERFMON 38, BPF 39.
check "its capabilities are four" grep -q 'CapEff:.000000c000201000' "/proc/$(pid)/status"
check "it runs as its own user" test "$(ps -o user= -p "$(pid)")" = hub
check "system calls are filtered" grep -q 'Seccomp:.2' "/proc/$(pid)/status"
score=$(systemd-analyze security hubd.service --no-pager | sed -n 's/.*exposure level for hubd.service: \([0-9.]*\) .*/\1/p')
echo "@@ exposure $score"
check "exposure is at most 2.0" awk "BEGIN { exit !($score > 0 && $score <= 2.0) }"
check "the pins are its own alone" test "$(stat -c '%a %U' /sys/fs/bpf/hub)" = "700 hub"
check "the socket is its group's" test "$(stat -c '%a %G' /run/hub/hubd.sock)" = "660 hub"
check "members of the group may ask" runuser -u nobody -g nogroup -G hub -- hubctl --socket /run/hub/hubd.sock status
check "others may not" bash -c '! runuser -u nobody -- hubctl --socket /run/hub/hubd.sock status 2>/dev/null'
check "nothing was refused to it" bash -c '! journalctl -u hubd --no-pager | grep -iE "permission denied|not permitted"'

# One connection over restarts and deaths of the daemon: it must still be there at the end.
mkfifo /run/words
ip netns exec before nc -6 -l -p 8080 >/run/heard &
cat >/etc/hub/documents/before.yaml.new <<'END'
kind: persona
name: before
ip_range: [10.101.0.0/24, "fd00:101::/64"]
security_policies: [{protocol: tcp, port: [80, 8080], action: allow}]
endpoints: [{name: before, namespace: before, address: [10.101.0.10, "fd00:101::10"]}]
END
mv /etc/hub/documents/before.yaml.new /etc/hub/documents/before.yaml
systemctl reload hubd
sleep 3
ip netns exec outside nc 10.101.0.10 8080 </run/words &
exec 5>/run/words
heard() { grep -q "$1" /run/heard; }
say() { echo "$1" >&5; within 20 heard "$1"; }
check "a connection begins" say one

first=$(pid)
kill -KILL "$first"
check "the connection lives while the daemon is dead" say two
begun=$SECONDS
check "a kill as of a full memory is followed by a start in time" within "$limit" another "$first"
echo "@@ started again $((SECONDS - begun)) s after SIGKILL"
check "the connection goes on" say three
check "policies hold after it" within 20 reaches outside fd00:101::10

# systemd watches a service once it is ready.
check "it is ready again" within 120 active
second=$(pid)
kill -STOP "$second"
check "the connection lives while the daemon hangs" say four
# The watchdog ends it 30 s after its last sign of life, with SIGABRT.
check "a hung daemon is replaced: the watchdog's 30 s and a start" within $((33 + limit)) another "$second"
check "the watchdog did it" bash -c 'journalctl -u hubd --no-pager | grep -qi watchdog'
check "the connection goes on after it" say five
check "hubctl answers again" within 120 hubctl status
before=$(program)
check "a restart works" systemctl restart hubd
check "the connection survives a restart" say six
echo "@@ program before $before, after $(program)"
check "an upgrade to itself keeps the connection" dpkg --install /hub/hub.deb
check "it is active after the upgrade" within 60 active
check "the connection survives the upgrade" say seven

check "the package goes" dpkg --remove hub
check "nothing of it is in the kernel" bash -c '! ls /sys/fs/bpf/hub 2>/dev/null && ! ip -o link | grep -q ": hub" &&
    test -z "$(ip route show table all proto 177; tc filter show dev up0 ingress)"'
check "its configuration stays" test -e /etc/hub/hub.yaml
check "the package is purged" dpkg --purge hub
check "nothing is left of it" bash -c '! ls -d /etc/hub /var/lib/hub /run/hub /usr/share/doc/hub /usr/sbin/hubd \
    /etc/systemd/system/multi-user.target.wants/hubd.service 2>/dev/null && ! getent passwd hub'
echo "@@ done"
