# The package comes: what is in it, and that it runs.
check "the package installs" dpkg --install /hub/hub.deb
check "the service is active after the installation" within 60 active
check "it is enabled" systemctl is-enabled --quiet hubd

dpkg --listfiles hub >/hub/files
packed() { grep -qx "$1" /hub/files && [ -s "$1" ]; }
for page in man1/hubctl.1 man8/hubd.8; do
    check "there is a man page: $page" packed "/usr/share/man/$page.gz"
done
check "man shows that of hubctl" says "Control a running hub" man hubctl
check "man shows that of hubd" says "^hubd(8)" man hubd
check "man shows that of a verb" says "hubctl.persona" man hubctl-persona
check "bash completes" bash -c '. /usr/share/bash-completion/completions/hubctl && complete -p hubctl'
completes() { bash -c '. /usr/share/bash-completion/completions/hubctl; COMP_WORDS=(hubctl perso); COMP_CWORD=1
    $(complete -p hubctl | sed "s/.*-F \([^ ]*\).*/\1/") hubctl perso hubctl; printf "%s\n" "${COMPREPLY[@]}"'; }
check "it completes verbs" says '^personality$' completes
check "zsh has completions" says '^#compdef hubctl' cat /usr/share/zsh/vendor-completions/_hubctl
check "fish has completions" says '^complete -c hubctl' cat /usr/share/fish/vendor_completions.d/hubctl.fish
is_schema() { jq -e '.["$schema"] and .type == "object"' "/usr/share/hub/schema/$1.json" >/dev/null; }
for schema in hub persona personality interface; do check "there is a schema: $schema" is_schema "$schema"; done
check "there are schemas" test "$(ls /usr/share/hub/schema | wc -l)" = 4
check "there are examples" test "$(ls /usr/share/doc/hub/examples/*.yaml | wc -l)" -ge 10
for name in endpoints-by-pid.conf personalities.conf resolved.rules bird/hub.conf; do
    check "there is an example: $name" packed "/usr/share/doc/hub/examples/$name"
done
for name in README.md LICENSE-MIT LICENSE-APACHE copyright changelog.gz; do
    check "there is a document: $name" packed "/usr/share/doc/hub/$name"
done
check "examples are accepted" hubctl check /etc/hub/hub.yaml /usr/share/doc/hub/examples/persona-{web,watched,rules}.yaml
check "the configuration is a conffile" says '/etc/hub/hub.yaml' dpkg-query --show --showformat='${Conffiles}' hub
check "what was installed is as it was packed" test -z "$(dpkg --verify hub)"
check "its user is a system user without a shell" says ':[1-9][0-9]\{0,2\}:.*/nologin$' getent passwd hub
check "its configuration comes from sysusers" says '^u hub' systemd-sysusers --cat-config hub.conf

cat >/etc/hub/hub.yaml <<'END'
interfaces:
  - {name: up0, role: uplink}
  - {match: "seg*", role: segment}
  - {name: lan0, role: segment}
subnets:
  front: {cidr: [10.20.0.0/24, "fd00:20::/64"], gateway: [10.20.0.1, "fd00:20::1"]}
  office: {cidr: 10.30.0.0/24}
api: {listen: "192.0.2.2:8443", token_file: token, tls: {cert: server.pem, key: server.key}}
webhooks: [{url: "http://192.0.2.10:8080/alerts"}]
END
# As README says of secrets.
(umask 077 && head -c 24 /dev/urandom | base64 >/etc/hub/token)
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=hub -addext subjectAltName=IP:192.0.2.2 \
    -keyout /etc/hub/server.key -out /etc/hub/server.pem 2>/dev/null
chown root:hub /etc/hub/token /etc/hub/server.key && chmod 0640 /etc/hub/token /etc/hub/server.key
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
check "it restarts with interfaces" restarts
check "hubctl answers" hubctl status
check "a persona forwards IPv4" within 30 reaches outside 10.101.0.10
check "a persona forwards IPv6" within 30 reaches outside fd00:101::10
check "other ports are closed" not reaches outside 10.101.0.10 81
check "ip knows the hub's routes by name" says '^10\.101\.0\.' ip route show table all proto hub
check "and those of IPv6" says '^fd00:101:' ip -6 route show table all proto hub
check "and names it" says ' proto hub' ip route show table all
# A namespace that is made while the service runs.
ip netns add after
persona after 102
check "it reloads" systemctl reload hubd
serve after 80
check "a namespace made later is reached" within 30 reaches outside 10.102.0.10

sleep 1
echo "@@ rights $(grep -E 'CapEff|CapBnd' "/proc/$(pid)/status" | tr -s '\n\t' ' ')user $(ps -o user= -p "$(pid)")"
# NET_ADMIN 12, SYS_ADMIN 21, PERFMON 38, BPF 39.
check "its capabilities are four" grep -q 'CapEff:.000000c000201000' "/proc/$(pid)/status"
check "it runs as its own user" test "$(ps -o user= -p "$(pid)")" = hub
check "system calls are filtered" grep -q 'Seccomp:.2' "/proc/$(pid)/status"
exposure() { systemd-analyze security hubd.service --no-pager | sed -n 's/.*exposure level for hubd.service: \([0-9.]*\) .*/\1/p'; }
score=$(exposure)
echo "@@ exposure $score"
check "exposure is at most 2.0" awk "BEGIN { exit !($score > 0 && $score <= 2.0) }"
check "the pins are its own alone" test "$(stat -c '%a %U' /sys/fs/bpf/hub)" = "700 hub"
check "the socket is its group's" test "$(stat -c '%a %G' /run/hub/hubd.sock)" = "660 hub"
check "members of the group may ask" runuser -u nobody -g nogroup -G hub -- hubctl status
check "others may not" not runuser -u nobody -- hubctl status
check "nothing was refused to it" unrefused
