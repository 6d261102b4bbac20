//! The hub goes, and everything of it.

use anyhow::Result;

use crate::demo::{
    shell::Place::{Client, Hub, Web},
    tour::Tour,
};

pub(super) fn run(tour: &mut Tour) -> Result<()> {
    let ids = tour.lab.run(Hub, "hubctl status --json | jq -r '.attachments[].program_id'")?;
    let refused = tour.run(Hub, "hubctl down --bpffs bpf --runtime-dir run")?;
    tour.check(
        "`hubctl down` waits for the end of hubd",
        refused.code == Some(1) && refused.has("stop it first"),
    );
    let pid = tour.lab.hubd_pid()?;
    tour.run(Hub, &format!("kill -TERM {pid}"))?;
    tour.lab.reap_hubd()?;
    let page = tour.run(Client, "curl -sS --max-time 2 http://10.100.0.10/")?;
    let ping = tour.run_lines(Client, "ping -c 1 -W 0.5 10.100.0.10", 4)?;
    let judged = page.has("hello from dev") && ping.number_after("transmitted,") == Some(0.0);
    tour.check("without hubd, packets are still judged", judged);
    let down = tour.run(Hub, "hubctl down --bpffs bpf --runtime-dir run")?;
    tour.check("`hubctl down` takes it away", down.succeeded());

    let left = tour.run(Hub, "ip route show table all proto 177; ip -6 route show table all proto 177")?;
    tour.check("no routes", left.text.trim().is_empty());
    let rules = tour.run(Hub, "ip rule show; ip -6 rule show")?;
    tour.check("no rules", !rules.has("177000"));
    let links = tour.run(Hub, "ip -br link show")?;
    let foreign = links.has("wan0") && links.has("lan0");
    tour.check("no interfaces but those that were there before", foreign && !links.has("hub"));
    let member = tour.lab.run(Web, "ip -br link show")?;
    tour.check("none in the member's namespace", !member.has("eth0"));
    let mut alive = 0;
    for id in ids.text.lines() {
        alive += usize::from(tour.lab.run(Hub, &format!("bpftool prog show id {id}"))?.succeeded());
    }
    tour.check("no programs", alive == 0 && !ids.text.is_empty());
    let pins = tour.run(Hub, "ls bpf/hub")?;
    tour.check("no maps", !pins.succeeded());
    Ok(())
}
