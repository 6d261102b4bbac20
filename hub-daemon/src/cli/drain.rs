//! `hubctl personality drain`: what the switch of an interface waits for.

use super::client::{self, Client};
use super::exit::{Failure, count};
use super::interface;
use super::output::Output;
use super::table::table;
use crate::datapath_view::ImpactedFlow;
use crate::inputs::rest::DrainView;
use crate::view::switch::InterfaceView;

pub(super) async fn run(client: &Client, output: Output, name: &str, limit: u32) -> Result<(), Failure> {
    let held = client.get(&interface::path(name)).await?.body;
    let held: InterfaceView = serde_json::from_value(held).map_err(Failure::answer)?;
    let Some(operation) = held.operation else {
        return Err(Failure::Refused(format!("no switch of interface `{name}` is under way")));
    };
    let path = format!("/v1/operations/{}/connections", client::step(&operation.id.0));
    let limit = limit.to_string();
    let answer = client.get(&client::query(&path, [("limit", Some(limit.as_str()))])).await?.body;
    output.show(&answer, describe)
}

fn describe(view: &DrainView) -> String {
    let phase = view.phase.map_or("over", |phase| phase.words());
    let until = view.deadline.map_or_else(String::new, |deadline| format!(" until {deadline}"));
    let counted = view.flows.map_or_else(
        || "connections were not counted".to_owned(),
        |flows| {
            let active = usize::try_from(flows.active).unwrap_or(usize::MAX);
            format!("{} active, {} idle", count(active, "connection"), flows.idle)
        },
    );
    let mut text = format!("{} goes to {}: {phase}{until}; {counted}", view.interface, view.to);
    if !view.connections.is_empty() {
        let columns = ["WAITED FOR", "PROTOCOL", "SOURCE", "TARGET", "STATE", "IDLE", "AGE", "FATE", "BY"];
        text.push_str("\n\n");
        text.push_str(&table(columns, view.connections.iter().map(row)));
    }
    text
}

fn row(impacted: &ImpactedFlow) -> [String; 9] {
    let flow = &impacted.flow;
    [
        if impacted.active { "yes" } else { "no" }.to_owned(),
        flow.protocol.clone(),
        std::net::SocketAddr::new(flow.source, flow.source_port).to_string(),
        std::net::SocketAddr::new(flow.target, flow.target_port).to_string(),
        flow.state.clone(),
        format!("{:.1} s", flow.idle_seconds),
        format!("{:.1} s", flow.age_seconds),
        if impacted.survives { "goes on" } else { "ends" }.to_owned(),
        impacted.why(),
    ]
}
