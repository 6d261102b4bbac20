//! Bulk TCP between real stacks, everything on one CPU: bytes per second, and bytes per CPU second.

use std::process::{Child, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::{
    bound::{command_inside, cpu},
    lab::{FIRST_MEMBER, TCP_PORT, member_address},
    place::Kind,
    sample::{quantile, ratio},
    stacks::Stacks,
    stop,
    wait::until,
};
use crate::{command::text, say::say};

/// Runs of one contender.
#[derive(Debug)]
pub(super) struct Bulk {
    pub(super) title: &'static str,
    pub(super) kind: Kind,
    /// Gigabits per second by round.
    pub(super) rate: Vec<f64>,
    /// Gigabits per second of CPU time by round.
    pub(super) per_cpu: Vec<f64>,
}

/// A program that ends with the value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Measures rounds of one second each.
pub(super) fn measure(places: &[Stacks], rounds: u32) -> Result<Vec<Bulk>> {
    let mut runs: Vec<Bulk> = places
        .iter()
        .map(|place| Bulk { title: place.title, kind: place.kind, rate: Vec::new(), per_cpu: Vec::new() })
        .collect();
    for round in 1..=rounds {
        say("bench", &format!("bulk TCP, round {round} of {rounds}"));
        for (place, run) in places.iter().zip(&mut runs) {
            stop::check()?;
            let report = transfer(place).with_context(|| format!("bulk TCP through {}", place.title))?;
            let (rate, per_cpu) = read(&report)?;
            run.rate.push(rate);
            run.per_cpu.push(per_cpu);
        }
    }
    Ok(runs)
}

fn transfer(place: &Stacks) -> Result<String> {
    let (port, cpu) = (TCP_PORT.to_string(), cpu().to_string());
    let mut server = command_inside(place.members(), "taskset");
    server.args(["-c", &cpu, "iperf3", "--server", "--one-off", "--port", &port]);
    let server = server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let _server = Running(server.context("start iperf3")?);
    let listening = until(3_000, || {
        let mut sockets = command_inside(place.members(), "ss");
        let filter = format!("sport = :{port}");
        Ok(text(sockets.args(["-Hltn", &filter]))?.contains(&port))
    })?;
    if !listening {
        bail!("iperf3 does not listen");
    }
    let member = member_address(FIRST_MEMBER).to_string();
    let mut client = command_inside(place.peer(), "taskset");
    client.args(["-c", &cpu, "iperf3", "--client", &member, "--port", &port]);
    text(client.args(["--time", "1", "--json"]))
}

/// Gigabits per second, and per second of CPU time of both ends. What the middle does is part of it: its
/// softirqs run on top of the ends' own work.
fn read(report: &str) -> Result<(f64, f64)> {
    let report: Value = serde_json::from_str(report).context("read iperf3's report")?;
    let number = |pointer| {
        let value = report.pointer(pointer).and_then(Value::as_f64);
        value.with_context(|| format!("iperf3's report has no number {pointer}"))
    };
    let rate = number("/end/sum_received/bits_per_second")? / 1e9;
    let client = number("/end/cpu_utilization_percent/host_total")?;
    let server = number("/end/cpu_utilization_percent/remote_total")?;
    let cpu = (client + server) / 100.0;
    Ok((rate, rate / cpu))
}

impl Bulk {
    /// Median rate in Gbit/s.
    pub(super) fn median(&self) -> f64 {
        quantile(&self.rate, 0.5)
    }

    /// Median rate by CPU time.
    pub(super) fn median_per_cpu(&self) -> f64 {
        quantile(&self.per_cpu, 0.5)
    }

    /// Rate as a multiple of another contender's, median of the rounds.
    pub(super) fn against(&self, other: &Self) -> f64 {
        ratio(&self.rate, &other.rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_and_cpu_are_read() {
        let report = r#"{"end": {"sum_received": {"bits_per_second": 8e9},
            "cpu_utilization_percent": {"host_total": 30.0, "remote_total": 50.0}}}"#;
        let (rate, per_cpu) = read(report).unwrap();
        assert!((rate - 8.0).abs() < 1e-9 && (per_cpu - 10.0).abs() < 1e-9);
    }

    #[test]
    fn a_refused_connection_is_an_error() {
        assert!(read(r#"{"error": "unable to connect"}"#).is_err());
    }
}
