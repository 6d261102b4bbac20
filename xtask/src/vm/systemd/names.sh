# Name servers of an interface of the machine itself: systemd-resolved is told, as far as polkit lets the service.
check "systemd-resolved runs" systemctl start systemd-resolved
# What an operator set before.
check "it is told of a server" resolvectl dns lan0 10.30.0.99
check "it tells it" within 20 tells 10.30.0.99
sets() {
    runuser -u hub -- busctl call org.freedesktop.resolve1 /org/freedesktop/resolve1 \
        org.freedesktop.resolve1.Manager SetLinkDefaultRoute ib "$(cat /sys/class/net/lan0/ifindex)" true
}
check "without the rule polkit refuses" not sets
mkdir -p /etc/polkit-1/rules.d
check "the rule is put where it belongs" cp /usr/share/doc/hub/examples/resolved.rules /etc/polkit-1/rules.d/hub.rules
check "with it polkit allows" within 30 sets

for pair in day:53 night:54; do
    cat <<END
---
kind: personality
name: ${pair%:*}
ip_addresses: [10.30.0.2/24]
subnet_id: office
dns_servers: [10.30.0.${pair#*:}]
health: {dns_name: hub.test}
END
done >/hub/lan.yaml
printf -- '---\nkind: interface\nname: lan\ninterface: lan0\npersonality: day\n' >>/hub/lan.yaml
check "personalities of an interface of the machine" hubctl personality create -f /hub/lan.yaml
check "the interface gets its first one" hubctl interface create -f /hub/lan.yaml
check "it has it" within 60 has lan day@1
check "systemd-resolved knows the server" within 30 tells 10.30.0.53
check "and asks it" within 30 resolves 203.0.113.53
check "it is switched" within 60 hubctl personality switch lan night --why "a test" --no-confirm
check "systemd-resolved knows the other server" tells 10.30.0.54
check "and asks that" within 30 resolves 203.0.113.54
check "it goes back" hubctl personality revert lan
check "it has the one before" within 60 has lan day@1
check "systemd-resolved knows the server from before" tells 10.30.0.53
check "and asks it again" within 30 resolves 203.0.113.53
check "the interface is forgotten" hubctl interface delete lan
check "what the operator had set is back" within 30 tells 10.30.0.99
check "it is there again" hubctl interface create -f /hub/lan.yaml
check "with its server" within 60 tells 10.30.0.53
check "nothing was refused to it with name servers" unrefused
