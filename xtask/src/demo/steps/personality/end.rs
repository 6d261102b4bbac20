//! What was written down, and that nothing is left.

use anyhow::Result;

use crate::demo::{
    shell::Place::{Dev, Hub},
    tour::Tour,
};

pub(in crate::demo::steps) fn told(tour: &mut Tour) -> Result<()> {
    let journal = tour.run_lines(Hub, "hubctl personality journal app", 60)?;
    let all = ["an attack", "a repair", "committed", "rolled back"].iter().all(|words| journal.has(words));
    tour.check("the journal has every switch, and how it ended", all);
    let metrics = tour.run(
        Hub,
        "curl -sS http://127.0.0.1:9178/metrics | grep '^hub_\\(switch_total\\|interface_personality\\)'",
    )?;
    tour.check("Prometheus as well", metrics.has("hub_switch_total"));
    Ok(())
}

pub(in crate::demo::steps) fn finish(tour: &mut Tour) -> Result<()> {
    let pid = tour.lab.hubd_pid()?;
    tour.run(Hub, "rm documents/app.yaml")?;
    let applied = tour.run(Hub, "hubctl apply")?;
    tour.check("the record goes with its file", applied.succeeded());
    let left = tour.run(Dev, "ip -br address show eth0; ip rule show; ip route show table all proto 177")?;
    tour.check("nothing of it is left in the namespace", !left.has("10.20.0.5") && !left.has("177"));
    tour.run(Hub, &format!("kill -TERM {pid}"))?;
    tour.lab.reap_hubd()?;
    let down = tour.run(Hub, "hubctl down --bpffs bpf --runtime-dir run")?;
    tour.check("`hubctl down` takes the data path away", down.succeeded());
    let routes = tour.run(Hub, "ip route show table all proto 177; ip -6 route show table all proto 177")?;
    tour.check("no routes", routes.text.trim().is_empty());
    let pins = tour.run(Hub, "ls bpf/hub")?;
    tour.check("no maps", !pins.succeeded());
    Ok(())
}
