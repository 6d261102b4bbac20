# A persona that uses much at once: bandwidth, a twin's range, translation, a detector, an alert, the API from afar.
cat >/etc/hub/documents/twin.yaml <<'END'
kind: persona
name: twin
ip_range: [10.101.0.0/24, "fd00:101::/64"]
protocols: [tcp, udp, icmp]
security_policies: [{protocol: tcp, port: 80, action: allow}]
egress: {nat: masquerade_all}
qos: {bandwidth: 2Mbps, latency: 100ms}
detectors:
  port_scan: {threshold: 5, window: 30s, action: quarantine, ttl: 10m}
alerts: [{name: scanned, metric: detections, op: ">=", value: 1}]
endpoints: [{name: twin, namespace: twin, address: [10.101.0.10, "fd00:101::10"]}]
END
check "a persona with all that is taken" systemctl reload hubd
state_of() { hubctl persona show "$1" --json | jq -r .state; }
becomes_active() { [ "$(state_of "$1")" = active ]; }
check "it is active" within 60 becomes_active twin
view=$(hubctl persona show twin --json)
echo "@@ virtual ranges $(jq -c .virtual_ranges <<<"$view")"
virtual4=$(jq -r '.virtual_ranges["10.101.0.0/24"]' <<<"$view")
virtual6=$(jq -r '.virtual_ranges["fd00:101::/64"]' <<<"$view")
virtual4=${virtual4%.0/24}.10
virtual6=${virtual6%/64}10
check "it is reached by its virtual range, IPv4" within 30 reaches outside "$virtual4"
check "it is reached by its virtual range, IPv6" within 30 reaches outside "$virtual6"
check "the other one is reached by the same range, IPv4" reaches outside 10.101.0.10
check "the other one is reached by the same range, IPv6" reaches outside fd00:101::10

# Who connects, as a server outside sees it: how it listens, what is dialled, who that is to be.
seen() {
    ip netns exec outside nc -n -v "$1" -l -p 7070 >/dev/null 2>/run/seen &
    local server=$!
    within 10 reaches twin "$2" 7070 && within 5 says "received on $3 " cat /run/seen
    local result=$?
    kill "$server" 2>/dev/null
    return "$result"
}
check "its connections have the hub's address, IPv4" seen -4 192.0.2.10 192.0.2.1
check "its connections have the hub's address, IPv6" seen -6 2001:db8:2::10 2001:db8:2::1

check "there are queues" says '^qdisc htb 177:' tc qdisc show dev up0
# Bytes of a member that arrive outside, in some six seconds.
brings() {
    ip netns exec outside timeout 7 nc -l -p 7071 2>/dev/null | wc -c >/run/bytes &
    local counter=$!
    sleep 1
    ip netns exec "$1" timeout 7 nc 192.0.2.10 7071 </dev/zero
    wait "$counter"
    cat /run/bytes
}
with=$(brings twin)
without=$(brings before)
echo "@@ in six seconds: $with bytes with 2 Mbit/s, $without bytes without a limit"
check "its bandwidth is kept" test "$with" -gt 300000 -a "$with" -lt 1900000
check "others have more" test "$without" -gt $((2 * with))

# Answers once it was told, as a receiver does.
alerted() { grep -qs '"scanned"' /run/alert; }
taken() {
    mkfifo /run/answer
    ip netns exec outside timeout 240 nc -l 192.0.2.10 8080 </run/answer >/run/alert &
    exec 6>/run/answer
    within 200 alerted
    printf 'HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n' >&6
}
taken &
for port in 1 2 3 4 5 6 7 8; do ip netns exec outside nc -z -w 1 "$virtual4" "$port"; done
quarantined() { hubctl persona quarantine list twin | grep -q 192.0.2.10; }
check "a scan is found and its source kept out" within 30 quarantined
check "it is kept out" not reaches outside "$virtual4"
check "a receiver of alerts is told" within 150 alerted
check "it is let in again" hubctl persona quarantine lift twin 192.0.2.10
check "and reaches the persona" within 30 reaches outside "$virtual4"

# It listens there since before the machine has the address, as services do that start before the network.
ip address add 192.0.2.2/24 dev up0
check "the API answers over TCP with the token" within 10 asks 200 -H "Authorization: Bearer $(cat /etc/hub/token)"
check "and not without" asks 401
check "there are metrics" says '^hub_persona_.*twin' curl -s http://127.0.0.1:9178/metrics
check "nothing was refused to it with all that" unrefused
