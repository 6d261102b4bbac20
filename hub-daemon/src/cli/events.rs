//! `hubctl events`: the event stream, one line each.

use std::time::Duration;

use axum::http::Method;
use http_body_util::BodyExt as _;
use serde::de::DeserializeOwned;

use super::arguments::{EventsAsked, Format};
use super::client::{self, Client};
use super::exit::Failure;
use super::output::{self, Output};
use crate::datapath_view::{ChangeEvent, EventView, PacketEvent};
use crate::inputs::rest::Lagged;

/// Silence that ends the command unless it follows.
const QUIET: Duration = Duration::from_secs(1);

pub(super) async fn run(client: &Client, output: Output, asked: &EventsAsked) -> Result<(), Failure> {
    let parameters = [("type", asked.kind.as_deref()), ("persona", asked.persona.as_deref())];
    let path = client::query("/v1/events", parameters);
    let mut body = client.open(Method::GET, &path, None, None).await?.into_body();
    let mut records = Records::default();
    let mut left = asked.count;
    while left != Some(0) {
        let frame = match tokio::time::timeout(QUIET, body.frame()).await {
            Err(_elapsed) if asked.follow => continue,
            Err(_elapsed) => return Ok(()),
            Ok(None) if asked.follow => return Err(Failure::Answer("the event stream ended".to_owned())),
            Ok(None) => return Ok(()),
            Ok(Some(frame)) => frame.map_err(Failure::answer)?,
        };
        records.take(frame.data_ref().map_or(&[], |data| data));
        while let Some(record) = records.next() {
            show(output, &record, asked.headers)?;
            left = left.map(|left| left.saturating_sub(1));
            if left == Some(0) {
                break;
            }
        }
    }
    Ok(())
}

/// One server-sent event.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) name: String,
    pub(super) data: String,
}

/// Bytes of the stream that are not yet a whole event.
#[derive(Debug, Default)]
pub(super) struct Records(Vec<u8>);

impl Records {
    pub(super) fn take(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// The next whole event; comments, which keep the stream alive, are passed over.
    pub(super) fn next(&mut self) -> Option<Record> {
        loop {
            let end = self.0.windows(2).position(|pair| pair == b"\n\n")?;
            let rest = self.0.split_off(end + 2);
            let text = std::mem::replace(&mut self.0, rest);
            let record = parse(&String::from_utf8_lossy(&text));
            if !record.data.is_empty() {
                return Some(record);
            }
        }
    }
}

fn parse(text: &str) -> Record {
    let mut record = Record::default();
    for line in text.lines() {
        match line.split_once(':') {
            Some(("event", value)) => value.trim_start().clone_into(&mut record.name),
            Some(("data", value)) => record.data.push_str(value.strip_prefix(' ').unwrap_or(value)),
            Some(_) | None => {}
        }
    }
    record
}

/// Shows a record to a program, as one line of JSON or a document of YAML.
pub(super) fn whole(output: Output, record: &Record) -> Result<(), Failure> {
    if output.format() == Format::Json {
        return output.line(&record.data);
    }
    let value: serde_json::Value = typed(record)?;
    output.line(&format!("---\n{}", output::yaml(&value)?))
}

fn show(output: Output, record: &Record, headers: bool) -> Result<(), Failure> {
    match output.format() {
        Format::Json | Format::Yaml => whole(output, record),
        Format::Table if record.name == "lagged" => {
            let Lagged { lost } = typed(record)?;
            output.line(&format!("… {lost} events missed: this terminal is too slow"))
        }
        Format::Table => match typed(record)? {
            EventView::Packet(packet) => {
                output.line(&packet_line(&packet))?;
                match packet.headers.as_deref().filter(|_| headers) {
                    Some(bytes) => output.line(&hex_lines(bytes)),
                    None => Ok(()),
                }
            }
            EventView::Change(change) => output.line(&change_line(&change)),
            EventView::Alert(alert) => {
                output.line(&format!("{} {} {} {}", alert.time, alert.state, alert.alert, alert.message))
            }
        },
    }
}

pub(super) fn typed<T: DeserializeOwned>(record: &Record) -> Result<T, Failure> {
    serde_json::from_str(&record.data).map_err(Failure::answer)
}

fn packet_line(packet: &PacketEvent) -> String {
    let rule = packet.rule.map(|rule| format!(" rule {rule}")).unwrap_or_default();
    let reason = packet.detector.as_deref().or(packet.reason.as_deref()).unwrap_or("-");
    format!("{} {} {reason} {}{rule}", packet.time, packet.action, ends(packet))
}

/// Bytes as `tcpdump -x` shows them: 16 in a line, in pairs.
fn hex_lines(bytes: &str) -> String {
    let digits: Vec<char> = bytes.chars().collect();
    let lines = digits.chunks(32).zip((0..).step_by(16)).map(|(line, at)| {
        let pairs: Vec<String> = line.chunks(4).map(|pair| pair.iter().collect()).collect();
        format!("\t0x{at:04x}:  {}", pairs.join(" "))
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Who sends what to whom.
pub(super) fn ends(packet: &PacketEvent) -> String {
    let end = |address, port| std::net::SocketAddr::new(address, port).to_string();
    let persona = |name: &Option<String>| name.clone().unwrap_or_else(|| "-".to_owned());
    format!(
        "{} {} > {} on {} ({} > {}, {} B)",
        packet.protocol,
        end(packet.source, packet.source_port),
        end(packet.target, packet.target_port),
        packet.port,
        persona(&packet.source_persona),
        persona(&packet.target_persona),
        packet.length_bytes
    )
}

fn change_line(change: &ChangeEvent) -> String {
    format!("{} {} {} {}", change.time, change.what, change.persona.as_deref().unwrap_or("-"), change.message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_as_tcpdump_does() {
        let bytes = "450000280001000040060000c0000201".to_owned() + "0a01";
        assert_eq!(hex_lines(&bytes), "\t0x0000:  4500 0028 0001 0000 4006 0000 c000 0201\n\t0x0010:  0a01");
    }

    #[test]
    fn events_are_found_however_the_stream_is_cut() {
        let stream = b":\n\nevent: change\ndata: {\"a\":1}\n\nevent: lagged\ndata: {}\n\n";
        for cut in 0..stream.len() {
            let (mut records, mut found) = (Records::default(), Vec::new());
            for part in [&stream[..cut], &stream[cut..]] {
                records.take(part);
                while let Some(record) = records.next() {
                    found.push(record);
                }
            }
            assert_eq!(found.len(), 2, "cut at {cut}");
            assert_eq!(found[0], Record { name: "change".into(), data: "{\"a\":1}".into() });
        }
    }
}
