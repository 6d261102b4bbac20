# After the power failed everything is there; then the package goes, and nothing of it stays.
check "the service is active after the power failed" within 300 active
check "nothing passed that may not" nothing_passed
check "what was promised is there" within 60 says "^state *active" hubctl persona show promised
check "the change that nobody confirmed is back" within 30 reaches outside 10.112.0.10
check "and does not wait" not says ConfirmationPending hubctl status
check "interfaces have what they had: web" within 120 has web shut@1
check "interfaces have what they had: lan" within 120 has lan night@1
check "nothing was refused to it after the power failed" unrefused

check "the package goes" dpkg --remove hub
none() { ! ls /sys/fs/bpf/hub 2>/dev/null && ! ip -oneline link | grep ": hub" && [ -z "$(ip route show table all proto 177)" ] &&
    [ -z "$(ip rule show | grep -E '^177')" ] && [ -z "$(tc filter show dev up0 ingress)" ]; }
check "nothing of it is in the kernel" none
bare() { ! ip netns exec web ip -oneline address show dev eth0 | grep 10.20 && [ -z "$(ip netns exec web ip route show table all proto 177)" ]; }
check "nothing of it is in namespaces" bare
check "no process of it runs" not pgrep -u hub
check "name servers are as they were: files" test ! -e /etc/netns/web/resolv.conf
check "name servers are as they were: systemd-resolved" not says 10.30.0 resolvectl dns lan0
check "its configuration stays" test -e /etc/hub/hub.yaml
check "the package is purged" dpkg --purge hub
check "dpkg knows nothing of it" not dpkg-query --show hub
# Every file that it had, and what it made.
left() {
    while read -r path; do [ -d "$path" ] || [ ! -e "$path" ] || echo "$path"; done </hub/files
    ls -d /etc/hub /var/lib/hub /run/hub /usr/share/hub /usr/share/doc/hub /usr/libexec/hub /etc/polkit-1/rules.d/hub.rules \
        /etc/systemd/system/hubd.service* /etc/systemd/system/*/hubd.service /var/lib/systemd/deb-systemd-helper-*/hubd* 2>/dev/null
    getent passwd hub
    getent group hub
}
check "nothing is left of it" test -z "$(left)"
left

# The same packets as all the time, without the hub: they would have come.
ip address add 10.103.0.1/24 dev seg1
check "without the hub packets come that it did not let pass" within 20 eval '[ "$(pings gap)" -gt 0 ]'
