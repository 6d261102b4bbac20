//! `hubctl trace`: packets with their verdicts, one line each, as they happen.

use axum::http::Method;
use clap::Args;
use http_body_util::BodyExt as _;

use super::arguments::Format;
use super::client::Client;
use super::events::{Record, Records, ends, typed, whole};
use super::exit::Failure;
use super::output::Output;
use crate::inputs::trace::{TraceEnd, TraceQuestion, TracedPacket};
use crate::model::span;

/// Which packets to show.
#[derive(Debug, Args)]
pub(super) struct TraceAsked {
    /// Name or id of a persona at either end
    #[arg(short, long)]
    persona: Option<String>,
    /// Address or prefix of the sender
    #[arg(long, value_name = "PREFIX")]
    source: Option<String>,
    /// Address or prefix of the receiver
    #[arg(long, value_name = "PREFIX")]
    target: Option<String>,
    /// Port of either end, or ICMP identifier
    #[arg(long)]
    port: Option<u16>,
    /// IP protocol, by name or number
    #[arg(long)]
    protocol: Option<String>,
    /// Dropped packets only
    #[arg(long)]
    drops: bool,
    /// End after this many
    #[arg(short = 'n', long)]
    count: Option<u64>,
    /// End after this long, at most 1h
    #[arg(long, default_value = "60s", value_name = "TIME")]
    duration: String,
}

pub(super) async fn run(client: &Client, output: Output, asked: TraceAsked) -> Result<(), Failure> {
    let life = span::parse(&asked.duration).map_err(|error| Failure::Usage(error.to_string()))?;
    let question = TraceQuestion {
        persona: asked.persona,
        source: asked.source,
        target: asked.target,
        port: asked.port,
        protocol: asked.protocol,
        drops: asked.drops,
        count: asked.count,
        seconds: Some(u32::try_from(life.as_millis().div_ceil(1_000)).unwrap_or(u32::MAX)),
    };
    let question = serde_json::to_value(&question).map_err(Failure::answer)?;
    let mut body = client.open(Method::POST, "/v1/trace", Some(&question), None).await?.into_body();
    let mut records = Records::default();
    loop {
        let Some(frame) = body.frame().await else {
            return Err(Failure::Answer("the trace was cut off: the hub stopped".to_owned()));
        };
        let frame = frame.map_err(Failure::answer)?;
        records.take(frame.data_ref().map_or(&[], |data| data));
        while let Some(record) = records.next() {
            show(output, &record)?;
            if record.name == "end" {
                return Ok(());
            }
        }
    }
}

fn show(output: Output, record: &Record) -> Result<(), Failure> {
    match output.format() {
        Format::Json | Format::Yaml => whole(output, record),
        Format::Table if record.name == "end" => {
            let TraceEnd { matched, shown, lost } = typed(record)?;
            output.line(&format!("{matched} matched, {shown} shown, {lost} too many at once to be shown"))
        }
        Format::Table => output.line(&line(&typed(record)?)),
    }
}

fn line(traced: &TracedPacket) -> String {
    let packet = &traced.packet;
    let reason = packet.reason.as_ref().map(|reason| format!(" {reason}")).unwrap_or_default();
    let reply = if traced.reply { " reply" } else { "" };
    let rule = match (packet.rule, &traced.rule_persona) {
        (Some(rule), Some(persona)) => {
            let written = traced.rule_written.as_deref().unwrap_or("api");
            format!(" rule {rule} of {persona} ({written})")
        }
        _ => String::new(),
    };
    format!(
        "{} {} {}{reason} {}{reply} {}{rule}",
        packet.time,
        packet.hook,
        traced.verdict,
        traced.connection,
        ends(packet)
    )
}
