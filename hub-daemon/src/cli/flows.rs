//! `hubctl flows`.

use super::client::{self, Client};
use super::exit::Failure;
use super::output::Output;
use super::table::table;
use crate::inputs::rest::{FlowList, NamedFlow};

pub(super) async fn run(
    client: &Client,
    output: Output,
    persona: Option<&str>,
    limit: u32,
) -> Result<(), Failure> {
    let path = match persona {
        Some(persona) => format!("{}/flows", super::persona::path(persona)),
        None => "/v1/flows".to_owned(),
    };
    let limit = limit.to_string();
    let answer = client.get(&client::query(&path, [("limit", Some(limit.as_str()))])).await?;
    output.show(&answer.body, |list: &FlowList| {
        let columns = ["PROTOCOL", "SOURCE", "TARGET", "STATE", "SENT", "RECEIVED", "IDLE", "PERSONAS"];
        let room = &list.flow_table;
        format!(
            "{}\n\n{} shown; established {} of {}, opening {} of {}",
            table(columns, list.flows.iter().map(row)),
            list.flows.len(),
            room.established,
            room.established_max,
            room.opening,
            room.opening_max
        )
    })
}

fn row(named: &NamedFlow) -> [String; 8] {
    let flow = &named.flow;
    let persona = |name: &Option<String>| name.clone().unwrap_or_else(|| "-".to_owned());
    [
        flow.protocol.clone(),
        std::net::SocketAddr::new(flow.source, flow.source_port).to_string(),
        std::net::SocketAddr::new(flow.target, flow.target_port).to_string(),
        flow.state.clone(),
        format!("{} / {} B", flow.sent.packets, flow.sent.bytes),
        format!("{} / {} B", flow.received.packets, flow.received.bytes),
        format!("{:.1} s", flow.idle_seconds),
        format!("{} > {}", persona(&named.source_persona), persona(&named.target_persona)),
    ]
}
