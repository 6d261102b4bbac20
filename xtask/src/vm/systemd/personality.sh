# An interface of a namespace is switched and put back, by the packaged service with the drop-in for personalities.
mkdir -p /etc/systemd/system/hubd.service.d
cp /usr/share/doc/hub/examples/personalities.conf /etc/systemd/system/hubd.service.d/
install -d -g hub -m 2775 /etc/netns
systemctl daemon-reload
check "it restarts with the drop-in" systemctl restart hubd
# NET_RAW 13 beside the four.
check "its capabilities are five" grep -q 'CapEff:.000000c000203000' "/proc/$(pid)/status"
echo "@@ exposure with the drop-in $(exposure)"

# Keys of both ends; the other one is the kernel's, and is there after the next start as well.
install -d -g hub -m 0750 /etc/hub/keys
(umask 027 && wg genkey >/etc/hub/keys/web.key && wg genkey >/hub/outside.key)
chown root:hub /etc/hub/keys/web.key && chmod 0640 /etc/hub/keys/web.key
cat >/hub/wireguard <<END
ip netns exec outside sh -c 'ip link add wg0 type wireguard; ip address add 10.9.0.1/24 dev wg0; ip link set wg0 up
    wg set wg0 private-key /hub/outside.key listen-port 51820 peer $(wg pubkey </etc/hub/keys/web.key) allowed-ips 10.9.0.5/32'
END
. /hub/wireguard

personality() {
    cat <<END
---
kind: personality
name: $1
ip_addresses: [10.20.0.5/24, "fd00:20::5/64", 10.20.0.$2/24]
subnet_id: front
firewall_rules:
  - {protocol: tcp, port: [7000, $3], action: allow}
  - {protocol: icmp, action: allow}
default_action: reject
qos_settings: {bandwidth: $4}
dns_servers: [192.0.2.$5]
health: {dns_name: hub.test}
drain: {timeout: 1s}
END
}
tunnel() {
    cat <<END
vpn_tunnel_config:
  backend: $1
  private_key_file: /etc/hub/keys/web.key
  listen_port: 51821
  addresses: [10.9.0.5/32]
  peers:
    - public_key: $(wg pubkey </hub/outside.key)
      endpoint: 192.0.2.10:51820
      allowed_ips: [10.9.0.0/24]
      keepalive: 25
routing_table:
  - {destination: 198.51.100.0/24, via: 10.20.0.1, source: 10.20.0.7}
  - {destination: 10.9.0.0/24, device: tunnel}
END
}
{
    personality open 6 7001 50Mbps 53
    echo 'routing_table: [{destination: 198.51.100.0/24, via: 10.20.0.1, source: 10.20.0.6}]'
    personality shut 7 7002 20Mbps 54
    tunnel userspace
    printf -- '---\nkind: interface\nname: web\ninterface: eth0\nnamespace: web\nport: seg0\npersonality: open\ndefault: open\n'
} >/hub/web.yaml
check "personalities are kept" hubctl personality create -f /hub/web.yaml
check "an interface gets its first one" hubctl interface create -f /hub/web.yaml
check "it has it" within 60 has web open@1

whole 6 7001 7002 53
check "it is switched, with a tunnel of a process" switches shut
whole 7 7002 7001 54
tunnel_process=$(encrypts)
check "a process encrypts" test -n "$tunnel_process"
echo "@@ its rights $(grep CapEff "/proc/$tunnel_process/status")"
# Its own part of the system calls is needed no more: what firewall marks need is left.
check "which keeps one right" grep -q 'CapEff:.0000000000001000' "/proc/$tunnel_process/status"
check "the tunnel carries" within 20 answers web 10.9.0.1
check "the service restarts" restarts
check "the process is the same" test "$(encrypts)" = "$tunnel_process"
check "the tunnel carries on" within 20 answers web 10.9.0.1
check "it goes back" hubctl personality revert web
check "it has the one before" within 60 has web open@1
whole 6 7001 7002 53
# The tunnel is kept for a minute, and with it the session of the last time.
check "it is switched again at once" switches shut
check "the tunnel carries again" within 20 answers web 10.9.0.1
check "and back" switches open
check "the process is gone with what was before" within 150 gone
check "nothing was refused to it with personalities" unrefused
