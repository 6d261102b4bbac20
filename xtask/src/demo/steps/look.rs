//! How to look inside with the tools of the system.

use anyhow::Result;

use crate::demo::{shell::Place::Hub, tour::Tour};

pub(super) fn routes(tour: &mut Tour) -> Result<()> {
    let v4 = tour.run(Hub, "ip route show proto 177")?;
    tour.check("the API's persona is behind lan0", v4.has("10.100.0.0/24 dev lan0"));
    tour.check("the member's address is behind the interface made for it", v4.has("10.50.0.10 dev hub"));
    let v6 = tour.run(Hub, "ip -6 route show proto 177")?;
    tour.check("the same in IPv6", v6.has("fd00:50::10 dev hub"));
    tour.run(Hub, "ip rule show; ip -6 rule show")?;
    let table = tour.run(Hub, "ip route show table $(ip rule show | awk '/from 10.50.0.0/ {print $5}')")?;
    tour.check("a persona with a router of its own has a routing table", table.has("default via 192.0.2.10"));
    Ok(())
}

pub(super) fn maps(tour: &mut Tour) -> Result<()> {
    let segments =
        tour.run_lines(Hub, "bpftool map dump pinned bpf/hub/v1/SEGMENTS | grep -B 5 'state\": [1-9]'", 18)?;
    let active = segments.text.matches("\"state\": 1").count();
    tour.check(
        "two segments are active; every field has its name",
        active == 2 && segments.has("\"policy\": "),
    );
    let flows = tour.run_lines(Hub, "bpftool map dump pinned bpf/hub/v1/FLOWS", 30)?;
    tour.check("connections, likewise", flows.has("\"low_port\"") || flows.has("port"));
    tour.run(Hub, "hubctl flows")?;
    Ok(())
}

pub(super) fn metrics(tour: &mut Tour) -> Result<()> {
    let metrics = tour.run_lines(
        Hub,
        "curl -sS http://127.0.0.1:9178/metrics | grep -E '^hub_(ready|personas|persona_(packets|drops))'",
        18,
    )?;
    let counted =
        metrics.has("hub_persona_drops_total{persona=\"TempDevNetwork\"") && metrics.has("hub_ready 1");
    tour.check("Prometheus reads the same numbers", counted);
    Ok(())
}
