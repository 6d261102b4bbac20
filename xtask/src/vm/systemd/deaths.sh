# One connection over restarts and deaths of the daemon: it must still be there at the end.
mkfifo /run/words
ip netns exec before nc -6 -l -p 8080 >/run/heard &
cat >/etc/hub/documents/before.yaml.new <<'END'
kind: persona
name: before
ip_range: [10.101.0.0/24, "fd00:101::/64"]
security_policies: [{protocol: tcp, port: [80, 8080], action: allow}]
endpoints: [{name: before, namespace: before, address: [10.101.0.10, "fd00:101::10"]}]
END
mv /etc/hub/documents/before.yaml.new /etc/hub/documents/before.yaml
systemctl reload hubd
sleep 3
ip netns exec outside nc 10.101.0.10 8080 </run/words &
exec 5>/run/words
heard() { grep -q "$1" /run/heard; }
say() { echo "$1" >&5; within 20 heard "$1"; }
check "a connection begins" say one

first=$(pid)
kill -KILL "$first"
check "the connection lives while the daemon is dead" say two
begun=$SECONDS
check "a kill as of a full memory is followed by a start in time" within "$limit" another "$first"
echo "@@ started again $((SECONDS - begun)) s after SIGKILL"
check "the connection goes on" say three
check "policies hold after it" within 20 reaches outside fd00:101::10

# systemd watches a service once it is ready.
check "it is ready again" within 120 active
second=$(pid)
kill -STOP "$second"
check "the connection lives while the daemon hangs" say four
# The watchdog ends it 30 s after its last sign of life, with SIGABRT.
check "a hung daemon is replaced: the watchdog's 30 s and a start" within $((33 + limit)) another "$second"
check "the watchdog did it" says "[Ww]atchdog" journalctl -u hubd --no-pager
check "the connection goes on after it" say five
check "hubctl answers again" within 120 hubctl status
before=$(program)
check "a restart works" systemctl restart hubd
check "the connection survives a restart" say six
echo "@@ program before $before, after $(program)"
check "an upgrade to itself keeps the connection" dpkg --install /hub/hub.deb
check "it is active after the upgrade" within 60 active
check "the connection survives the upgrade" say seven

