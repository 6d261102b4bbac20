//! CPU time of processes, and what the daemon says in its log of the time that it took.

use std::fs;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::super::{
    hub::Hub,
    sample::{number, quantile},
};

/// `USER_HZ`: what the kernel counts CPU time of processes in, the same on all machines.
const TICK_MS: u64 = 10;

/// Times of one kind of work in milliseconds.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) title: String,
    pub(super) wall: Vec<f64>,
    /// CPU time of the daemon for each.
    pub(super) cpu: Option<f64>,
}

impl Taken {
    /// For people.
    pub(super) fn row(&self) -> String {
        let [p50, p99] = [0.5, 0.99].map(|part| quantile(&self.wall, part));
        let cpu = self.cpu.map_or_else(|| "-".to_owned(), |cpu| format!("{cpu:.1}"));
        format!("{:<48} {p50:>10.1} {p99:>10.1} {cpu:>12}", self.title)
    }

    /// For programs.
    pub(super) fn json(&self) -> Value {
        json!({"name": self.title, "wall_ms": self.wall, "cpu_ms": self.cpu})
    }
}

/// CPU time that the daemon has used.
pub(super) fn process_ms(hub: &Hub) -> Result<f64> {
    // utime and stime, from 0 behind the name.
    used(&format!("/proc/{}/stat", hub.process()), [11, 12])
}

/// CPU time that ended children of this process had used.
pub(super) fn children_ms() -> Result<f64> {
    used("/proc/self/stat", [13, 14])
}

fn used(path: &str, fields: [usize; 2]) -> Result<f64> {
    let text = fs::read_to_string(path).with_context(|| format!("read {path}"))?;
    let (_, numbers) = text.rsplit_once(") ").context("a line of stat")?;
    let numbers: Vec<&str> = numbers.split(' ').collect();
    let ticks = fields.map(|field| numbers.get(field).and_then(|text| text.parse::<u64>().ok()));
    let ticks: Option<u64> = ticks.into_iter().sum();
    Ok(number(ticks.context("two numbers")? * TICK_MS))
}

/// How many lines of the daemon's log have this field.
pub(super) fn lines(hub: &Hub, field: &str) -> Result<usize> {
    Ok(log(hub)?.matches(&format!("{field}=")).count())
}

/// The field of the last line of the log that has it.
pub(super) fn logged(hub: &Hub, field: &str) -> Result<f64> {
    let log = log(hub)?;
    let (_, after) =
        log.rsplit_once(&format!("{field}=")).with_context(|| format!("no {field} in the log"))?;
    let text = after.split_whitespace().next().unwrap_or_default();
    text.parse().with_context(|| format!("{field} of `{text}`"))
}

/// The log without the colours of its terminal.
fn log(hub: &Hub) -> Result<String> {
    let path = hub.folder().join("hubd.log");
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let mut plain = String::with_capacity(text.len());
    let mut parts = text.split("\u{1b}[");
    plain.push_str(parts.next().unwrap_or_default());
    for part in parts {
        plain.push_str(part.split_once('m').map_or(part, |(_, rest)| rest));
    }
    Ok(plain)
}
