//! `hubctl node`.

use super::client::Client;
use super::exit::Failure;
use super::output::Output;
use super::table::table;
use super::top::scaled;
use crate::document::node::NodeRole;
use crate::inputs::rest::{NodeList, NodeStanding};

pub(super) async fn run(client: &Client, output: Output) -> Result<(), Failure> {
    let answer = client.get("/v1/nodes").await?;
    output.show(&answer.body, |list: &NodeList| {
        let columns =
            ["NODE", "WHERE", "ROLE", "LABELS", "FREE PERSONAS", "FREE INGRESS", "FREE EGRESS", "STATE"];
        table(columns, list.nodes.iter().map(row))
    })
}

fn row(standing: &NodeStanding) -> [String; 8] {
    let name = if standing.name.is_empty() { "-".to_owned() } else { standing.name.clone() };
    let place = standing.url.clone().unwrap_or_else(|| "here".to_owned());
    let Some(node) = &standing.node else {
        let dash = || "-".to_owned();
        let why = standing.unreachable.as_deref().unwrap_or("no answer");
        return [name, place, dash(), dash(), dash(), dash(), dash(), format!("unreachable: {why}")];
    };
    let role = match node.role {
        NodeRole::Hub => "hub",
        NodeRole::Gateway => "gateway",
    };
    let labels: Vec<String> = node.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let rate = |free: Option<u64>, all: Option<u64>| match (free, all) {
        (Some(free), Some(all)) => {
            let [free, all] = [free, all].map(|bps| scaled(approximately(bps), "bit/s"));
            format!("{free} of {all}")
        }
        _ => "no limit".to_owned(),
    };
    let (free, all) = (node.free, node.capacity);
    [
        name,
        place,
        role.to_owned(),
        labels.join(","),
        format!("{} of {}", free.personas, all.personas),
        rate(free.ingress_bps, all.ingress_bps),
        rate(free.egress_bps, all.egress_bps),
        if node.ready { "ready" } else { "not ready" }.to_owned(),
    ]
}

/// A number to be shown with three digits.
#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
fn approximately(number: u64) -> f64 {
    number as f64
}
