//! Detectors of a persona, checked, with defaults filled in.

use std::time::Duration;

use hub_common::detect::{DISTINCT_MAX, Detector};

use super::problems::Problems;
use super::span;
use crate::document::detect::{DetectorDocument, DetectorsEach, ResponseDocument};
use crate::document::parts::DetectorsDocument;

/// Longest window and quarantine: what fits into 32 bits of ticks at any rate.
const LONGEST: Duration = Duration::from_hours(24 * 7);
/// Largest threshold of detectors that count.
const COUNT_MAX: u64 = 1_000_000_000;
const DEFAULT_TTL: Duration = Duration::from_mins(10);

/// What a persona's packets are watched for, by number of [`Detector`].
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Detectors([Option<Setting>; Detector::ALL.len()]);

/// When a detector fires, and what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Setting {
    /// Signs in a window at which it fires; at least one.
    pub threshold: u32,
    /// Length of a window.
    pub window: Duration,
    /// What follows beside the event.
    pub response: Response,
}

/// What follows when a detector fires, beside the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Response {
    /// Nothing.
    Alert,
    /// Flows are refused until the window ends.
    Drop,
    /// The source is in quarantine for so long.
    Quarantine(Duration),
}

impl Detectors {
    /// Checks `detectors`; what is wrong is noted.
    pub fn new(problems: &mut Problems, written: &DetectorsDocument) -> Self {
        let each = match written {
            DetectorsDocument::Preset(name) if name == "default" => {
                return Self(Detector::ALL.map(|detector| Some(default(detector))));
            }
            DetectorsDocument::Preset(name) => {
                let detail =
                    format!("detectors `{name}`: use `default`, or a mapping like {{port_scan: {{}}}}");
                problems.add("/detectors", detail);
                return Self::default();
            }
            DetectorsDocument::Each(each) => each,
        };
        Self(
            Detector::ALL
                .map(|detector| document(each, detector).map(|written| setting(problems, detector, written))),
        )
    }

    /// Whether one of them puts sources into quarantine.
    pub fn quarantine(&self) -> bool {
        self.iter().any(|(_, setting)| matches!(setting.response, Response::Quarantine(_)))
    }

    /// The detectors that are on.
    pub fn iter(&self) -> impl Iterator<Item = (Detector, Setting)> {
        Detector::ALL.into_iter().zip(self.0).filter_map(|(detector, setting)| Some((detector, setting?)))
    }
}

fn document(each: &DetectorsEach, detector: Detector) -> Option<&DetectorDocument> {
    let setting = match detector {
        Detector::PortScan => &each.port_scan,
        Detector::HostSweep => &each.host_sweep,
        Detector::SynFlood => &each.syn_flood,
        Detector::IcmpFlood => &each.icmp_flood,
        Detector::TcpFlags => &each.tcp_flags,
        Detector::Land => &each.land,
        Detector::Spoof => &each.spoof,
        Detector::Fragments => &each.fragments,
        Detector::FlowRate => &each.flow_rate,
    };
    setting.as_ref()
}

/// Far above what honest clients do, far below what scanners and floods do.
fn default(detector: Detector) -> Setting {
    let (threshold, seconds) = match detector {
        Detector::PortScan => (20, 10),
        Detector::HostSweep => (100, 10),
        Detector::SynFlood => (2_000, 1),
        Detector::IcmpFlood => (200, 1),
        Detector::TcpFlags => (5, 10),
        Detector::Land => (1, 10),
        Detector::Spoof => (10, 10),
        Detector::Fragments => (50, 10),
        Detector::FlowRate => (1_000, 1),
    };
    Setting { threshold, window: Duration::from_secs(seconds), response: Response::Alert }
}

fn setting(problems: &mut Problems, detector: Detector, written: &DetectorDocument) -> Setting {
    let base = format!("/detectors/{}", detector.name());
    let fallback = default(detector);
    let mut span = |field: &str, text: Option<&String>| {
        let pointer = format!("{base}/{field}");
        let span = text.and_then(|text| problems.take(&pointer, span::parse(text)))?;
        if span > LONGEST {
            problems.add(pointer, "use at most 7d");
        }
        Some(span)
    };
    let window = span("window", written.window.as_ref()).unwrap_or(fallback.window);
    let ttl = span("ttl", written.ttl.as_ref());
    if window < Duration::from_millis(100) {
        problems.add(format!("{base}/window"), "use at least 100ms: the clock ticks every few milliseconds");
    }
    let most = if detector.is_distinct() { DISTINCT_MAX.into() } else { COUNT_MAX };
    let threshold = written.threshold.unwrap_or(fallback.threshold.into());
    if threshold == 0 || threshold > most {
        let detail = format!("threshold {threshold}: use 1 to {most}; leave the detector out to turn it off");
        problems.add(format!("{base}/threshold"), detail);
    }
    let action = written.action.unwrap_or_default();
    if ttl.is_some() && action != ResponseDocument::Quarantine {
        problems.add(format!("{base}/ttl"), "is for `action: quarantine`: remove it, or change the action");
    }
    let forged = matches!(detector, Detector::Land | Detector::Spoof);
    if forged && action != ResponseDocument::Alert {
        let detail = "use alert: the packets are dropped anyway, and their source is the victim's";
        problems.add(format!("{base}/action"), detail);
    }
    if detector == Detector::SynFlood && action == ResponseDocument::Quarantine {
        problems.add(format!("{base}/action"), "use alert or drop: sources of a flood are forged");
    }
    let response = match action {
        ResponseDocument::Alert => Response::Alert,
        ResponseDocument::Drop => Response::Drop,
        ResponseDocument::Quarantine => Response::Quarantine(ttl.unwrap_or(DEFAULT_TTL)),
    };
    Setting { threshold: u32::try_from(threshold).unwrap_or(u32::MAX), window, response }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: serde_json::Value) -> Result<Detectors, Vec<String>> {
        let document: DetectorsDocument = serde_json::from_value(value).unwrap();
        let mut problems = Problems::default();
        let detectors = Detectors::new(&mut problems, &document);
        let settled = problems.settle(detectors);
        settled.map_err(|found| found.iter().map(|p| format!("{} {}", p.pointer, p.detail)).collect())
    }

    #[test]
    fn the_default_is_all_of_them_and_they_alert() {
        let detectors = read(json!("default")).unwrap();
        assert_eq!(detectors.iter().count(), Detector::ALL.len());
        assert!(detectors.iter().all(|(_, setting)| setting.response == Response::Alert));
    }

    #[test]
    fn settings_that_are_left_out_have_defaults() {
        let detectors = read(json!({
            "port_scan": {"threshold": 50, "action": "quarantine", "ttl": "1h"},
            "land": {},
        }));
        let found: Vec<_> = detectors.unwrap().iter().collect();
        let scan = Setting {
            threshold: 50,
            window: Duration::from_secs(10),
            response: Response::Quarantine(Duration::from_hours(1)),
        };
        assert_eq!(found, [(Detector::PortScan, scan), (Detector::Land, default(Detector::Land))]);
    }

    #[test]
    fn nonsense_is_refused_with_its_place() {
        let problems = read(json!({
            "port_scan": {"threshold": 513, "ttl": "1m"},
            "host_sweep": {"threshold": 0, "window": "1ms"},
            "syn_flood": {"action": "quarantine"},
            "spoof": {"action": "drop"},
            "flow_rate": {"window": "8d"},
            "icmp_flood": {"window": "soon"},
        }))
        .unwrap_err();
        for wanted in [
            "/detectors/port_scan/threshold threshold 513: use 1 to 512",
            "/detectors/port_scan/ttl",
            "/detectors/host_sweep/threshold",
            "/detectors/host_sweep/window use at least 100ms",
            "/detectors/syn_flood/action",
            "/detectors/spoof/action",
            "/detectors/flow_rate/window use at most 7d",
            "/detectors/icmp_flood/window duration `soon`",
        ] {
            assert!(problems.iter().any(|problem| problem.starts_with(wanted)), "{wanted}: {problems:?}");
        }
        assert_eq!(problems.len(), 8, "{problems:?}");
        assert!(read(json!("all")).unwrap_err()[0].contains("use `default`"));
    }
}
