//! Alerts: thresholds with hysteresis. What happens next is a function of the state, the value and the time.

mod of_rules;

use std::collections::BTreeSet;
use std::time::Duration;

use hub_common::detect::Detector;
use hub_common::event::Reason;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use self::of_rules::{of_persona, of_rules};
use super::bandwidth::Bandwidth;
use super::names;
use super::problems::Problems;
use super::span;
use crate::document::alert::{AlertDocument, MetricDocument, OpDocument};
use crate::document::parts::Scalar;

/// Most alerts of one document.
pub const ALERTS: usize = 32;
/// How long an alert that ended is shown as such.
const SHOWN: Duration = Duration::from_mins(5);

/// A checked threshold.
#[derive(Clone, Debug, PartialEq)]
pub struct Alert {
    /// Unique in its document.
    pub name: String,
    /// What is looked at.
    pub metric: MetricDocument,
    /// Which part of it.
    pub of: Option<String>,
    /// Identity of the rule with `action: alert` that it belongs to; its value is what the rule matched in the last
    /// minute.
    pub rule: Option<u64>,
    /// How it compares with the threshold when something is wrong.
    pub op: OpDocument,
    /// Where it begins.
    pub value: f64,
    /// Where it ends.
    pub clear: f64,
    /// How long the value must be beyond the threshold.
    pub lasting: Duration,
}

/// Where an alert stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "state", content = "since")]
pub enum Stand {
    /// Nothing is wrong.
    #[default]
    Ok,
    /// Beyond the threshold, not for long enough.
    Pending(Timestamp),
    /// Something is wrong, and was reported.
    Firing(Timestamp),
    /// It ended a short while ago.
    Resolved(Timestamp),
}

/// What is worth telling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The alert fired.
    Fired,
    /// It ended.
    Resolved,
}

impl Alert {
    /// Checks a list below `base`.
    pub fn list(problems: &mut Problems, base: &str, written: &[AlertDocument]) -> Vec<Self> {
        if written.len() > ALERTS {
            problems.add(base, format!("{} alerts: use at most {ALERTS}", written.len()));
            return Vec::new();
        }
        let mut used = BTreeSet::new();
        let mut alerts = Vec::with_capacity(written.len());
        for (index, document) in written.iter().enumerate() {
            let alert = Self::new(problems, &format!("{base}/{index}"), document);
            if !used.insert(alert.name.clone()) {
                let detail = format!("name `{}` is used twice: give each alert its own", alert.name);
                problems.add(format!("{base}/{index}/name"), detail);
            }
            alerts.push(alert);
        }
        alerts
    }

    fn new(problems: &mut Problems, base: &str, document: &AlertDocument) -> Self {
        let metric = document.metric;
        let name = document.name.clone().unwrap_or_else(|| metric_name(metric).to_owned());
        problems.take(&format!("{base}/name"), names::persona(&name));
        let of = document.of.as_ref().map(ToString::to_string);
        if let Some(part) = &of {
            problems.take(&format!("{base}/of"), fits(metric, part));
        }
        let mut number = |field: &str, written: &Scalar| {
            problems.take(&format!("{base}/{field}"), threshold(metric, written)).unwrap_or_default()
        };
        let value = number("value", &document.value);
        let clear = document.clear.as_ref().map_or(value, |written| number("clear", written));
        let op = document.op.unwrap_or_default();
        let wrong_way = match op {
            OpDocument::Above | OpDocument::AtLeast => clear > value,
            OpDocument::Below | OpDocument::AtMost => clear < value,
        };
        if wrong_way {
            let detail = "is beyond `value`: the alert would end before it begins";
            problems.add(format!("{base}/clear"), detail);
        }
        let lasting = document.lasting.as_deref().filter(|text| !["0", "0s"].contains(text));
        let lasting = lasting.and_then(|text| problems.take(&format!("{base}/for"), span::parse(text)));
        Self { name, metric, of, rule: None, op, value, clear, lasting: lasting.unwrap_or_default() }
    }

    fn is_beyond(&self, value: f64, threshold: f64) -> bool {
        match self.op {
            OpDocument::Above => value > threshold,
            OpDocument::AtLeast => value >= threshold,
            OpDocument::Below => value < threshold,
            OpDocument::AtMost => value <= threshold,
        }
    }

    /// The next stand. Without a value nothing is known, and nothing changes.
    pub fn step(&self, stand: Stand, value: Option<f64>, now: Timestamp) -> (Stand, Option<Turn>) {
        let Some(value) = value else { return (stand, None) };
        let beyond = self.is_beyond(value, self.value);
        // Where the clock was set back, time begins anew.
        let stand = match stand {
            Stand::Pending(since) => Stand::Pending(since.min(now)),
            Stand::Resolved(since) => Stand::Resolved(since.min(now)),
            Stand::Ok | Stand::Firing(_) => stand,
        };
        let passed = |since: Timestamp| now.duration_since(since).try_into().unwrap_or(Duration::ZERO);
        match stand {
            Stand::Firing(_) if self.is_beyond(value, self.clear) => (stand, None),
            Stand::Firing(_) => (Stand::Resolved(now), Some(Turn::Resolved)),
            Stand::Pending(since) if beyond && passed(since) >= self.lasting => {
                (Stand::Firing(now), Some(Turn::Fired))
            }
            Stand::Pending(_) if beyond => (stand, None),
            Stand::Ok | Stand::Resolved(_) if beyond && self.lasting.is_zero() => {
                (Stand::Firing(now), Some(Turn::Fired))
            }
            Stand::Ok | Stand::Resolved(_) if beyond => (Stand::Pending(now), None),
            Stand::Resolved(since) if passed(since) < SHOWN => (stand, None),
            Stand::Ok | Stand::Pending(_) | Stand::Resolved(_) => (Stand::Ok, None),
        }
    }
}

/// The name of a metric, as documents spell it.
pub const fn metric_name(metric: MetricDocument) -> &'static str {
    match metric {
        MetricDocument::IngressBps => "ingress_bps",
        MetricDocument::EgressBps => "egress_bps",
        MetricDocument::IngressPps => "ingress_pps",
        MetricDocument::EgressPps => "egress_pps",
        MetricDocument::Flows => "flows",
        MetricDocument::NewFlows => "new_flows",
        MetricDocument::Drops => "drops",
        MetricDocument::RuleHits => "rule_hits",
        MetricDocument::Detections => "detections",
        MetricDocument::RttP95 => "rtt_p95",
        MetricDocument::QueueDelay => "queue_delay",
    }
}

/// The sign of a comparison.
pub const fn op_name(op: OpDocument) -> &'static str {
    match op {
        OpDocument::Above => ">",
        OpDocument::AtLeast => ">=",
        OpDocument::Below => "<",
        OpDocument::AtMost => "<=",
    }
}

fn fits(metric: MetricDocument, part: &str) -> Result<(), String> {
    match metric {
        MetricDocument::Drops if Reason::ALL.iter().any(|reason| reason.name() == part) => Ok(()),
        MetricDocument::Drops => Err(format!("no reason is called `{part}`: use one like default_deny")),
        MetricDocument::Detections if Detector::ALL.iter().any(|one| one.name() == part) => Ok(()),
        MetricDocument::Detections => Err(format!("no detector is called `{part}`: use one like port_scan")),
        MetricDocument::RuleHits if part.parse::<u16>().is_ok() => Ok(()),
        MetricDocument::RuleHits => Err("use the position of a rule in `security_policies`, from 0".into()),
        MetricDocument::QueueDelay if ["ingress", "egress"].contains(&part) => Ok(()),
        MetricDocument::QueueDelay => Err(format!("`{part}`: use ingress or egress")),
        MetricDocument::RttP95
        | MetricDocument::IngressBps
        | MetricDocument::EgressBps
        | MetricDocument::IngressPps
        | MetricDocument::EgressPps
        | MetricDocument::Flows
        | MetricDocument::NewFlows => Err(format!("{} has no parts: remove `of`", metric_name(metric))),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a threshold needs no more than 53 bits")]
fn threshold(metric: MetricDocument, written: &Scalar) -> Result<f64, String> {
    let is_bandwidth = matches!(metric, MetricDocument::IngressBps | MetricDocument::EgressBps);
    let is_time = matches!(metric, MetricDocument::RttP95 | MetricDocument::QueueDelay);
    match written {
        Scalar::Number(number) => Ok(*number as f64),
        Scalar::Text(text) if is_time => {
            let time = span::parse(text).map_err(|e| e.to_string().replacen("duration", "time", 1))?;
            Ok(time.as_secs_f64() * 1e3)
        }
        Scalar::Text(_) if is_bandwidth => {
            Bandwidth::parse(written).map(|bandwidth| bandwidth.bps() as f64).map_err(|e| e.to_string())
        }
        Scalar::Text(text) => Err(format!("`{text}`: use a whole number")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn alerts(value: serde_json::Value) -> Result<Vec<Alert>, Vec<String>> {
        let documents: Vec<AlertDocument> = serde_json::from_value(value).unwrap();
        let mut problems = Problems::default();
        let alerts = Alert::list(&mut problems, "/alerts", &documents);
        problems.settle(alerts).map_err(|found| {
            found.iter().map(|problem| format!("{} {}", problem.pointer, problem.detail)).collect()
        })
    }

    /// Turns with the second they came at, of an alert that sees one value a second.
    fn turns(alert: &Alert, values: &[f64]) -> Vec<(i64, Turn)> {
        let mut stand = Stand::Ok;
        let mut turns = Vec::new();
        for (second, value) in (0..).zip(values) {
            let now = Timestamp::from_second(1_000 + second).unwrap();
            let turn;
            (stand, turn) = alert.step(stand, Some(*value), now);
            turns.extend(turn.map(|turn| (second, turn)));
        }
        turns
    }

    #[test]
    fn it_fires_once_and_ends_below_clear() {
        let written = json!([{"metric": "ingress_bps", "value": "80Mbps", "clear": "60Mbps", "for": "3s"}]);
        let alert = &alerts(written).unwrap()[0];
        let mega = |values: &[f64]| values.iter().map(|value| value * 1e6).collect::<Vec<_>>();
        let values = mega(&[90., 90., 90., 90., 90., 70., 90., 61., 60., 90., 10.]);
        assert_eq!(turns(alert, &values), [(3, Turn::Fired), (8, Turn::Resolved)]);
        assert_eq!(turns(alert, &mega(&[90., 90., 80., 90., 90., 90.])), [], "never long enough");
        assert_eq!(turns(alert, &mega(&[80.; 10])), [], "not beyond");
    }

    #[test]
    fn times_are_milliseconds() {
        let written = json!([
            {"metric": "rtt_p95", "value": "20ms", "clear": "500us"},
            {"metric": "queue_delay", "of": "egress", "value": 30},
        ]);
        let found: Vec<_> = alerts(written).unwrap().iter().map(|one| (one.value, one.clear)).collect();
        assert_eq!(found, [(20.0, 0.5), (30.0, 30.0)]);
    }

    #[test]
    fn without_for_one_look_is_enough_and_below_works() {
        let written = json!([{"name": "quiet", "metric": "egress_pps", "op": "<", "value": 5, "clear": 10}]);
        let alert = &alerts(written).unwrap()[0];
        let fired = turns(alert, &[7., 4., 4., 9., 10., 6.]);
        assert_eq!(fired, [(1, Turn::Fired), (4, Turn::Resolved)]);
    }

    #[test]
    fn what_is_unknown_changes_nothing_and_ends_are_forgotten() {
        let alert = &alerts(json!([{"metric": "drops", "of": "spoof", "value": 0}])).unwrap()[0];
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(alert.step(Stand::Firing(at(1)), None, at(2)), (Stand::Firing(at(1)), None));
        let ended = Stand::Resolved(at(1));
        assert_eq!(alert.step(ended, Some(0.), at(300)), (ended, None));
        assert_eq!(alert.step(ended, Some(0.), at(301)), (Stand::Ok, None));
        assert_eq!(alert.step(ended, Some(1.), at(9)), (Stand::Firing(at(9)), Some(Turn::Fired)));
    }

    #[test]
    fn nonsense_is_refused_with_its_place() {
        let problems = alerts(json!([
            {"metric": "drops", "of": "bad_luck", "value": 1},
            {"metric": "drops", "value": "10Mbps"},
            {"name": "c", "metric": "flows", "value": 10, "clear": 11},
            {"name": "d", "metric": "flows", "of": "x", "value": 10, "for": "soon"},
            {"name": "e", "metric": "detections", "of": "mind_reading", "value": 1},
            {"name": "f", "metric": "rule_hits", "of": "ssh", "value": 1},
            {"name": "g", "metric": "queue_delay", "of": "up", "value": "soon"},
            {"name": "h", "metric": "rtt_p95", "of": "ingress", "value": 1},
        ]))
        .unwrap_err();
        for wanted in [
            "/alerts/0/of no reason",
            "/alerts/1/value",
            "/alerts/1/name name `drops` is used twice",
            "/alerts/2/clear",
            "/alerts/3/of",
            "/alerts/3/for",
            "/alerts/4/of no detector",
            "/alerts/5/of",
            "/alerts/6/of `up`: use ingress or egress",
            "/alerts/6/value time `soon`",
            "/alerts/7/of rtt_p95 has no parts",
        ] {
            assert!(problems.iter().any(|problem| problem.starts_with(wanted)), "{wanted}: {problems:?}");
        }
    }
}
