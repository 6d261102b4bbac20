# What the machine has at each start before the hub does: an uplink, neighbours behind it, namespaces, ports, servers.
. /hub/common.sh
# A name in each namespace that documents have an endpoint in; `after` comes later the first time.
for name in outside before twin web gap office tried short kept promised; do ip netns add "$name"; done
if [ -e /etc/hub/documents/after.yaml ]; then ip netns add after; fi

ip link add up0 type veth peer name eth0 netns outside
ip address add 192.0.2.1/24 dev up0
ip -6 address add 2001:db8:2::1/64 dev up0 nodad
ip link set up0 up
ip netns exec outside sh -c 'ip link set lo up; ip link set eth0 up
    for host in 10 53 54; do ip address add 192.0.2.$host/24 dev eth0; done
    ip -6 address add 2001:db8:2::10/64 dev eth0 nodad
    ip route add default via 192.0.2.1; ip -6 route add default via 2001:db8:2::1'

# Ports towards members: of an interface with a personality, and of a member that has its own addresses.
ip link add seg0 type veth peer name eth0 netns web
ip link add seg1 type veth peer name eth0 netns gap
for port in seg0 seg1; do ip link set "$port" up; done
ip netns exec web sh -c 'ip link set lo up; ip link set eth0 up'
ip netns exec gap sh -c 'ip link set lo up; ip link set eth0 up; ip address add 10.103.0.10/24 dev eth0
    ip -6 address add fd00:103::10/64 dev eth0 nodad
    ip route add default via 10.103.0.1; ip -6 route add default via fd00:103::1'

# An interface of the machine itself, with name servers behind it.
ip link add lan0 type veth peer name eth0 netns office
ip link set lan0 up
ip netns exec office sh -c 'ip link set lo up; ip link set eth0 up
    for host in 1 53 54; do ip address add 10.30.0.$host/24 dev eth0; done'
# Each tells another address for the same name.
for server in 192.0.2.53 192.0.2.54 10.30.0.53 10.30.0.54; do
    name=outside
    case $server in 10.*) name=office ;; esac
    ip netns exec "$name" dnsmasq --keep-in-foreground --conf-file=/dev/null --pid-file= --user=root --no-resolv \
        --no-hosts --bind-interfaces --listen-address="$server" --address="/hub.test/203.0.113.${server##*.}" &
done

serve before 80
serve twin 80
serve gap 80
serve tried 80
serve kept 80
serve web 7000 7001 7002
if [ -e /etc/hub/documents/after.yaml ]; then serve after 80; fi
# The other end of tunnels.
if [ -e /hub/wireguard ]; then . /hub/wireguard; fi

# From the second start on packets come all the time that no rule lets pass, from before the hub is there.
if [ -e /hub/boots ]; then
    for pair in outside:10.103.0.10 outside:fd00:103::10 gap:192.0.2.10 gap:2001:db8:2::10; do
        while :; do ip netns exec "${pair%%:*}" ping -q -i 0.05 -w 60 "${pair#*:}"; done >/dev/null 2>&1 &
    done
fi
exit 0
