# The machine has started anew: nothing came through before the hub was there, and everything is as it must be.
check "the service is active" within 300 active
when() { systemctl show --value --property ActiveEnterTimestampMonotonic "$1"; }
echo "@@ active after the kernel by: hubd $(when hubd) us, network.target $(when network.target) us"
check "the network waited for it" test "$(when hubd)" -gt 0 -a "$(when hubd)" -le "$(when network.target)"
check "it forwarded before the hub was there" grep -q 1 /proc/sys/net/ipv4/ip_forward
check "nothing passed that may not" nothing_passed
check "what may pass does, IPv4" within 30 reaches outside 10.103.0.10
check "what may pass does, IPv6" within 30 reaches outside fd00:103::10
check "nothing passed that may not, still" nothing_passed

ip address add 192.0.2.2/24 dev up0
check "the API answers at an address that came later" within 10 asks 200 -H "Authorization: Bearer $(cat /etc/hub/token)"
check "a persona of the API is there" within 30 reaches outside 10.112.0.10
check "the end of a persona is the same" test "$(hubctl persona show kept --json | jq -r .expires_at)" = "$(cat /hub/kept-until)"
check "one that ended meanwhile is not there" not reaches outside 10.113.0.10
check "and has no route" not says 10.113 ip route show table all

check "the switch that nobody confirmed went back" within 120 has web open@1
journal() { hubctl personality journal "$1" --json | jq -r '[.entries[] | {id, outcome}] | sort_by(.id) | last | .outcome'; }
check "the journal says so" test "$(journal web)" = rolled_back
whole 6 7001 7002 53
check "no process of it is left a minute later" within 90 gone
check "the switch that was kept is kept" within 120 has lan night@1
check "systemd-resolved was told of it" within 60 tells 10.30.0.54
check "and asks that server" within 30 resolves 203.0.113.54
check "and switches go on" switches shut
whole 7 7002 7001 54

# To the second: before its end it is reached, after it not.
seconds_left() { echo $(($(date --date "$(cat /hub/kept-until)" +%s) - $(date +%s))); }
echo "@@ the persona that ends has $(seconds_left) s left"
if [ "$(seconds_left)" -gt 15 ]; then
    check "it is reached until then" within 10 reaches outside 10.114.0.10
    while [ "$(seconds_left)" -gt 0 ]; do sleep 1; done
fi
sleep 1
check "it is not reached after its end" not reaches outside 10.114.0.10
check "nothing passed that may not, all the time" nothing_passed
check "nothing was refused to it after the start" unrefused
