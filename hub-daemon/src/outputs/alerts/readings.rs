//! Values of metrics, from two looks at the counters.

use std::time::Duration;

use jiff::Timestamp;

use super::recent::Recent;
use crate::datapath_view::{Count, RuleCount, SegmentCounts};
use crate::document::alert::MetricDocument;
use crate::model::alert::Alert;

/// The counters of one persona, or of all, at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Look {
    /// When.
    pub(super) time: Timestamp,
    /// Counters.
    pub(super) counts: SegmentCounts,
    /// Connections in the flow table, where they were counted.
    pub(super) flows: Option<u64>,
    /// Handshakes by time, where they were read.
    pub(super) handshakes: Option<Vec<u64>>,
    /// How long packets wait in microseconds, by direction, where that was read.
    pub(super) delay_us: Option<[u64; 2]>,
}

/// The last looks.
#[derive(Clone, Debug, Default)]
pub(super) struct Looks {
    before: Option<Look>,
    after: Option<Look>,
    /// Detections by detector so far.
    fired: Recent<Vec<(String, u64)>>,
    handshakes: Recent<Vec<u64>>,
    /// Packets that rules with `action: alert` matched so far, by identity.
    hits: Recent<Vec<(u64, u64)>>,
}

impl Looks {
    /// Adds a look for these alerts.
    pub(super) fn add(&mut self, look: Look, alerts: &[Alert]) {
        if alerts.iter().any(|alert| alert.rule.is_some()) {
            let watched = |hit: &&RuleCount| alerts.iter().any(|alert| alert.rule == Some(hit.identity));
            let hits = look.counts.rules.iter().filter(watched);
            self.hits.add(look.time, hits.map(|hit| (hit.identity, hit.count.packets)).collect());
        }
        let fired = look.counts.detections.iter().map(|one| (one.detector.clone(), one.times)).collect();
        self.fired.add(look.time, fired);
        if let Some(buckets) = &look.handshakes {
            self.handshakes.add(look.time, buckets.clone());
        }
        self.before = self.after.replace(look);
    }

    /// The value that an alert looks at; none before the second look.
    pub(super) fn value(&self, alert: &Alert) -> Option<f64> {
        let (before, after) = (self.before.as_ref()?, self.after.as_ref()?);
        let seconds = past(before.time, after.time).as_secs_f64();
        if seconds <= 0.0 {
            return None;
        }
        let rate = |pick: &dyn Fn(&SegmentCounts) -> u64| {
            Some(float(pick(&after.counts).saturating_sub(pick(&before.counts))) / seconds)
        };
        let part = |name: &str| alert.of.as_deref().is_none_or(|of| of == name);
        let bits = |count: Count| count.bytes.saturating_mul(8);
        if let Some(rule) = alert.rule {
            let sum = |hits: &[(u64, u64)]| -> u64 {
                hits.iter().filter(|(identity, _)| *identity == rule).map(|(_, packets)| packets).sum()
            };
            let (first, last) = self.hits.ends()?;
            return Some(float(sum(last).saturating_sub(sum(first))));
        }
        match alert.metric {
            MetricDocument::IngressBps => rate(&|counts| bits(counts.ingress)),
            MetricDocument::EgressBps => rate(&|counts| bits(counts.egress)),
            MetricDocument::IngressPps => rate(&|counts| counts.ingress.packets),
            MetricDocument::EgressPps => rate(&|counts| counts.egress.packets),
            MetricDocument::Flows => after.flows.map(float),
            MetricDocument::NewFlows => rate(&|counts| counts.flows.ingress + counts.flows.egress),
            MetricDocument::Drops => rate(&|counts| {
                let fitting = counts.drops.iter().filter(|drop| part(&drop.reason));
                fitting.map(|drop| drop.count.packets).sum()
            }),
            MetricDocument::RuleHits => rate(&|counts| {
                let fitting = counts.rules.iter().filter(|hit| part(&hit.rule.to_string()));
                fitting.map(|hit| hit.count.packets).sum()
            }),
            MetricDocument::Detections => {
                let sum = |fired: &[(String, u64)]| -> u64 {
                    fired.iter().filter(|(name, _)| part(name)).map(|(_, times)| times).sum()
                };
                let (first, last) = self.fired.ends()?;
                Some(float(sum(last).saturating_sub(sum(first))))
            }
            MetricDocument::RttP95 => {
                after.handshakes.as_ref().map(|_| float(self.handshakes.quantile_us(950).unwrap_or(0)) / 1e3)
            }
            MetricDocument::QueueDelay => {
                let [ingress, egress] = after.delay_us?;
                let longest = match alert.of.as_deref() {
                    Some("ingress") => ingress,
                    Some("egress") => egress,
                    _ => ingress.max(egress),
                };
                Some(float(longest) / 1e3)
            }
        }
    }
}

fn past(since: Timestamp, now: Timestamp) -> Duration {
    now.duration_since(since).try_into().unwrap_or(Duration::ZERO)
}

#[expect(clippy::cast_precision_loss, reason = "a value to compare needs no more than 53 bits")]
fn float(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath_view::{DetectionCount, DropCount, FlowsBegun};
    use crate::model::problems::Problems;
    use serde_json::json;

    fn alert(written: serde_json::Value) -> Alert {
        let documents = [serde_json::from_value(written).unwrap()];
        Alert::list(&mut Problems::default(), "", &documents).remove(0)
    }

    fn look(second: i64, packets: u64, fired: u64) -> Look {
        let count = Count { packets, bytes: packets * 100 };
        Look {
            time: Timestamp::from_second(second).unwrap(),
            flows: Some(7),
            handshakes: None,
            delay_us: Some([1_500, 250]),
            counts: SegmentCounts {
                ingress: count,
                egress: Count::default(),
                drops: ["spoof", "protocol"]
                    .map(|reason| DropCount { reason: reason.into(), direction: "egress".into(), count })
                    .into(),
                flows: FlowsBegun { ingress: packets, egress: packets },
                detections: vec![DetectionCount { detector: "port_scan".into(), times: fired }],
                ..SegmentCounts::default()
            },
        }
    }

    #[test]
    fn rates_are_differences_by_time() {
        let mut looks = Looks::default();
        let value = |looks: &Looks, written| looks.value(&alert(written));
        looks.add(look(100, 1_000, 0), &[]);
        assert_eq!(value(&looks, json!({"metric": "drops", "value": 1})), None, "one look has no rate");
        looks.add(look(102, 1_050, 3), &[]);
        for (written, expected) in [
            (json!({"metric": "ingress_bps", "value": 1}), 20_000.0),
            (json!({"metric": "ingress_pps", "value": 1}), 25.0),
            (json!({"metric": "egress_pps", "value": 1}), 0.0),
            (json!({"metric": "flows", "value": 1}), 7.0),
            (json!({"metric": "queue_delay", "value": 1}), 1.5),
            (json!({"metric": "queue_delay", "of": "egress", "value": 1}), 0.25),
            (json!({"metric": "new_flows", "value": 1}), 50.0),
            (json!({"metric": "drops", "value": 1}), 50.0),
            (json!({"metric": "drops", "of": "spoof", "value": 1}), 25.0),
            (json!({"metric": "detections", "of": "port_scan", "value": 1}), 3.0),
            (json!({"metric": "detections", "of": "land", "value": 1}), 0.0),
        ] {
            assert_eq!(value(&looks, written.clone()), Some(expected), "{written}");
        }
        for second in 103..=165 {
            looks.add(look(second, 1_050, 3), &[]);
        }
        let detections = json!({"metric": "detections", "value": 1});
        assert_eq!(value(&looks, detections.clone()), Some(0.0), "a minute later they are over");
        // The clock goes back: nothing of before counts, and nothing of now for longer than a minute.
        for second in 10..=80 {
            looks.add(look(second, 1_050, if second < 12 { 3 } else { 4 }), &[]);
        }
        assert_eq!(value(&looks, detections), Some(0.0), "a minute later they are over again");
        assert!(looks.fired.len() <= 62, "{}", looks.fired.len());
    }

    #[test]
    fn a_rule_is_watched_for_a_minute_whatever_its_place() {
        let (mut looks, rule) = (Looks::default(), Some(7));
        let watched = [Alert { rule, ..alert(json!({"metric": "rule_hits", "of": 3, "value": 0})) }];
        let hit = |rule, identity, direction: &'static str, packets| RuleCount {
            rule,
            identity,
            baseline: false,
            direction: direction.into(),
            count: Count { packets, bytes: 0 },
            would_drop: 0,
        };
        let at = |second: i64, rules: Vec<RuleCount>| {
            let time = Timestamp::from_second(second).unwrap();
            Look { time, counts: SegmentCounts { rules, ..SegmentCounts::default() }, ..Look::default() }
        };
        let both = |place, packets| vec![hit(place, 7, "ingress", packets), hit(place, 7, "egress", 1)];
        looks.add(at(0, both(3, 5)), &watched);
        looks.add(at(1, both(3, 5)), &watched);
        assert_eq!(looks.value(&watched[0]), Some(0.0), "what was before is not recent");
        looks.add(at(2, both(3, 7)), &watched);
        assert_eq!(looks.value(&watched[0]), Some(2.0));
        // Another rule, which counted much, is in its place now.
        let moved = |packets| [both(4, packets), vec![hit(3, 8, "ingress", 1_000)]].concat();
        looks.add(at(3, moved(7)), &watched);
        assert_eq!(looks.value(&watched[0]), Some(2.0));
        looks.add(at(62, moved(7)), &watched);
        assert_eq!(looks.value(&watched[0]), Some(0.0), "a minute later it is over");
    }

    #[test]
    fn handshakes_count_for_a_minute() {
        let mut looks = Looks::default();
        let slow = alert(json!({"metric": "rtt_p95", "value": 20}));
        let timed = |second, late| {
            let mut buckets = vec![100; 12];
            buckets.push(late);
            Look { handshakes: Some(buckets), ..look(second, 0, 0) }
        };
        looks.add(timed(0, 0), &[]);
        looks.add(timed(1, 0), &[]);
        assert_eq!(looks.value(&slow), Some(0.0), "those of before are not recent");
        looks.add(timed(2, 10), &[]);
        // All ten took 2,048 to 4,096 us.
        assert_eq!(looks.value(&slow), Some(4.096));
        looks.add(timed(61, 10), &[]);
        assert_eq!(looks.value(&slow), Some(4.096));
        looks.add(timed(63, 10), &[]);
        assert_eq!(looks.value(&slow), Some(0.0), "a minute later they are over");
        looks.add(timed(0, 10), &[]);
        looks.add(timed(62, 10), &[]);
        assert_eq!(looks.value(&slow), Some(0.0), "nor are they when the clock goes back");
        looks.add(look(64, 0, 0), &[]);
        assert_eq!(looks.value(&slow), None, "not read");
    }
}
