# The power fails in the moment in which the hub has said yes: to a persona, and to a change that nobody confirms.
lives promised 115 allow >/hub/promised.yaml
lives tried 112 deny >/hub/tried.yaml
sync
echo "@@ boots again"
sleep 1
hubctl persona create -f /hub/promised.yaml &&
    within 120 hubctl apply /hub/tried.yaml --confirm 600s && echo b >/proc/sysrq-trigger
sleep 60
