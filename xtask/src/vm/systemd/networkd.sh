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
check "what networkd made stays" says "proto static" ip route show 203.0.113.0/24
check "doctor warns of networkd" says "ManageForeignRoutes=no" hubctl doctor
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
check "doctor is content with networkd" not says "ManageForeignRoutes=no" hubctl doctor
systemctl stop systemd-networkd.socket systemd-networkd

rm -r /etc/systemd/network/10-up.network /etc/systemd/networkd.conf.d
