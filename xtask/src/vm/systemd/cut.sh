# The power fails in the moment in which the hub has said yes.
cat >/hub/promised.yaml <<'END'
kind: persona
name: promised
ip_range: [10.115.0.0/24, "fd00:115::/64"]
endpoints: [{name: promised, namespace: promised}]
END
echo "@@ boots again"
sleep 1
hubctl persona create -f /hub/promised.yaml && echo b >/proc/sysrq-trigger
sleep 60
