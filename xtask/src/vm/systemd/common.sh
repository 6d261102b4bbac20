# What all parts use.
export DEBIAN_FRONTEND=noninteractive LC_ALL=C PAGER=cat
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
not() { ! "$@"; }
# Whether the answer of a command has such a line.
says() {
    local pattern=$1
    shift
    "$@" 2>&1 | grep -q -- "$pattern"
}
active() { [ "$(systemctl is-active hubd)" = active ]; }
pid() { systemctl show --value --property MainPID hubd; }
another() { active && [ "$(pid)" != "$1" ] && [ "$(pid)" != 0 ]; }
program() { hubctl status --json | grep -A6 '"tc_in"' | grep -m 1 program_id; }
# Emulation is slow, by how much depends on who else works: deadlines are 11 s, or four starts where that is longer.
restarts() {
    local begun=$SECONDS
    systemctl restart hubd || return 1
    limit=$((4 * (SECONDS - begun + 1)))
    [ "$limit" -gt 11 ] || limit=11
    echo "@@ a restart takes $((SECONDS - begun)) s, the limit is $limit s"
}
# Port 80, or another one, of an address as a namespace finds it.
reaches() { ip netns exec "$1" nc -z -w 3 "$2" "${3:-80}"; }
answers() { ip netns exec "$1" ping -c 1 -W 3 "$2" >/dev/null; }
# Words for a connection are taken on these ports, in IPv4 and IPv6, and not answered.
serve() {
    local name=$1 port
    shift
    for port in "$@"; do ip netns exec "$name" nc -6 -l -k -p "$port" >/dev/null & done
}
# Whether an interface has a personality, and nothing is under way: record, version.
has() { hubctl interface show "$1" --json | jq -e ".state == \"active\" and .operation == null and .current == \"$2\"" >/dev/null; }
# What the API answers to the outside: the code, and what curl is told beside.
asks() {
    local code=$1
    shift
    [ "$(ip netns exec outside curl -s -m 10 --cacert /etc/hub/server.pem -o /dev/null -w '%{http_code}' "$@" \
        https://192.0.2.2:8443/v1/status)" = "$code" ]
}
# Pings that came to a namespace, of both families.
pings() { ip netns exec "$1" nstat -asz IcmpInEchos Icmp6InEchos | awk '/InEchos/ { sum += $2 } END { print sum + 0 }'; }
# A persona of the API: its name, its number, what becomes of port 80, further lines.
lives() {
    cat <<END
kind: persona
name: $1
ip_range: [10.$2.0.0/24, "fd00:$2::/64"]
security_policies: [{protocol: tcp, port: 80, action: $3}]
endpoints: [{name: $1, namespace: $1, address: [10.$2.0.10, "fd00:$2::10"]}]
$4
END
}
# Nothing came through that may not, though it was sent all the time.
tries() { ip netns exec "$1" nstat -asz IcmpOutEchos Icmp6OutEchos | awk '/OutEchos/ { print $2 }' | sort -n | head -n 1; }
nothing_passed() {
    echo "@@ pings of each family at least: $(tries outside) inwards, $(tries gap) outwards; passed: $(pings gap), $(pings outside)"
    [ "$(pings gap)" = 0 ] && [ "$(pings outside)" = 0 ] && [ "$(tries outside)" -gt 100 ]
}
# Orders a switch of `web` and follows it.
switches() { hubctl personality switch web "$1" --why "a test" --no-confirm; }
# Everything of a personality of `web`: the end of its address, its own port, the other's, the end of its server.
whole() {
    echo "@@ looking at what web has: .$1"
    check "addresses" says "inet 10.20.0.$1/24" ip netns exec web ip -oneline address show dev eth0
    check "its port is open, IPv4" within 30 reaches outside 10.20.0.5 "$2"
    check "its port is open, IPv6" within 30 reaches outside fd00:20::5 "$2"
    check "the other's port is closed" not reaches outside 10.20.0.5 "$3"
    check "its route decides" says "src 10.20.0.$1 " ip netns exec web ip route get 198.51.100.1
    check "its name server is asked" says "^nameserver 192.0.2.$4\$" ip netns exec web cat /etc/resolv.conf
    check "and answers" says "203.0.113.$4" ip netns exec web getent hosts hub.test
    check "its rate has a queue" says '^qdisc htb 177:' tc qdisc show dev seg0
}
# The process of a tunnel.
encrypts() { pgrep -u hub -f /usr/libexec/hub/hub-wg; }
gone() { [ -z "$(encrypts)" ]; }
# What systemd-resolved knows of the interface of the machine itself, and what becomes of it.
tells() { [ "$(resolvectl dns lan0 | sed 's/.*: *//')" = "$1" ]; }
resolves() { resolvectl query --cache=no --legend=no hub.test | grep -q "$1"; }
# Nothing that the service or its processes tried was forbidden to them, since the machine was made.
unrefused() {
    ! journalctl -u hubd --no-pager | grep -iE "permission denied|not permitted|access denied|EPERM|EACCES" &&
        ! journalctl -k --no-pager | grep -E 'type=1326.*(hubd|hub-wg)'
}
