//! How fast and how late packets are between two namespaces, as `iperf3` and `ping` see it.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::Value;

use super::{Space, wait_until};

/// Longest that a transfer may take with all that is around it.
const LIMIT: Duration = Duration::from_mins(1);

/// Runs `iperf3` from one space to another; what it said at the end.
#[track_caller]
pub fn iperf(from: &Space, to: &Space, target: IpAddr, port: u16, words: &str) -> Value {
    let _server = to.background(&format!("iperf3 --server --one-off --port {port}"));
    let listening = format!("ss -Hltn 'sport = :{port}' | grep -q LISTEN");
    wait_until("iperf3 listens", Duration::from_secs(10), || to.succeeds(&listening, LIMIT));
    let said = from.try_sh(&format!("iperf3 --json --client {target} --port {port} {words}"), LIMIT);
    let said = said.expect_success();
    serde_json::from_str::<Value>(&said).unwrap()["end"].clone()
}

/// Megabits per second that arrived over TCP within 10 s, after the first two.
#[track_caller]
pub fn goodput(from: &Space, to: &Space, target: IpAddr, port: u16) -> f64 {
    goodput_within(from, to, target, port, 10)
}

/// Megabits per second that arrived over TCP within so many seconds, after the first two.
#[track_caller]
pub fn goodput_within(from: &Space, to: &Space, target: IpAddr, port: u16, seconds: u64) -> f64 {
    let end = iperf(from, to, target, port, &format!("--omit 2 --time {seconds}"));
    end["sum_received"]["bits_per_second"].as_f64().unwrap() / 1e6
}

/// Times of pings in milliseconds, the shortest first; those that were lost are missing.
#[track_caller]
pub fn ping(from: &Space, target: IpAddr, count: u32) -> Vec<f64> {
    let said = from.try_sh(&format!("ping -n -i 0.05 -c {count} -W 2 {target}"), LIMIT).stdout;
    let time = |line: &str| line.split_once("time=")?.1.split(' ').next()?.parse().ok();
    let mut times: Vec<f64> = said.lines().filter_map(time).collect();
    times.sort_by(f64::total_cmp);
    assert!(!times.is_empty(), "{said}");
    times
}

/// The time within which this many of a hundred pings came back.
pub fn quantile(times: &[f64], percent: usize) -> f64 {
    times[(times.len() - 1) * percent / 100]
}

/// Whether a value is this close to what it should be.
pub fn is_within(value: f64, wanted: f64, percent: f64) -> bool {
    (value - wanted).abs() <= wanted * percent / 100.0
}

/// Megabits per second of datagrams that arrived.
#[track_caller]
pub fn arrived(from: &Space, to: &Space, target: IpAddr, port: u16, words: &str) -> f64 {
    let sum = &iperf(from, to, target, port, words)["sum"];
    let of = |name: &str| sum[name].as_f64().unwrap();
    of("bits_per_second") * (100.0 - of("lost_percent")) / 1e8
}
