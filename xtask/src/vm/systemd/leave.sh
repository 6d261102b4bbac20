# What is under way when the machine starts anew: a switch that waits, one that was kept, ends.
# The hub asks systemd-resolved, which asks polkit, for two seconds: emulation may be slower, and then it goes back.
check "a switch is kept" within 60 hubctl personality switch lan night --why "for good" --no-confirm
check "it has it" within 60 has lan night@1
check "a switch waits for somebody" hubctl personality switch web shut --confirm 600s --detach
waits() { hubctl interface show web --json | jq -e '.state == "awaiting_confirm"' >/dev/null; }
check "it was made" within 60 waits
check "and decides" reaches outside 10.20.0.5 7002

# A member that has addresses of its own, behind a port that forwards from the first moment on if nobody stops it.
cat >/etc/hub/documents/gap.yaml <<'END'
kind: persona
name: gap
ip_range: [10.103.0.0/24, "fd00:103::/64"]
protocols: [tcp, udp]
security_policies: [{protocol: tcp, port: 80, action: allow}]
interfaces: [seg1]
END
check "a persona behind a port" systemctl reload hubd
check "it is reached" within 30 reaches outside 10.103.0.10
# The machine is a router whether the hub is there or not.
printf 'net.ipv4.ip_forward=1\nnet.ipv6.conf.all.forwarding=1\n' >/etc/sysctl.d/50-router.conf

lives tried 112 allow >/hub/tried.yaml
lives short 113 allow 'ttl: 20s' >/hub/short.yaml
lives kept 114 allow 'ttl: 4m' >/hub/kept.yaml
check "a persona of the API" hubctl persona create -f /hub/tried.yaml
check "it is reached" within 30 reaches outside 10.112.0.10
check "one that ends after the start" hubctl persona create -f /hub/kept.yaml
hubctl persona show kept --json | jq -r .expires_at >/hub/kept-until
check "it is reached, too" within 30 reaches outside 10.114.0.10
check "one that ends before the start" hubctl persona create -f /hub/short.yaml
check "nothing was refused to it before the end" unrefused
echo reboot >/run/end
