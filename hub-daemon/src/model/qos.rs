//! Quality of service, checked.

use std::time::Duration;

use hub_common::shape::SHAPED_SEGMENTS;

use super::bandwidth::Bandwidth;
use super::dscp::Dscp;
use super::problems::Problems;
use super::rule::Direction;
use super::span;
use crate::document::parts::{BandwidthDocument, Scalar};
use crate::document::qos::{PriorityDocument, QosDocument};

/// Queueing delay that is bearable where the document names none.
pub const LATENCY: Duration = Duration::from_millis(50);

/// Personas that have classes of HTB: a class is of a segment's number, and no persona has number 0.
pub const HTB_PERSONAS: usize = SHAPED_SEGMENTS as usize - 1;

/// What makes packets wait. Source: `hub.yaml`, `qos.engine`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// The hub's choice when it begins: HTB, which has classes of traffic and lets personas borrow what is idle, or
    /// departure times where there are more personas with a bandwidth than HTB has classes and the kernel has `fq`.
    #[default]
    Auto,
    /// HTB, for 4,095 personas; more are capped.
    Htb,
    /// Departure times and `fq`, for any number of personas, without `ceil` and classes of traffic.
    Edt,
}

impl Engine {
    /// Whether packets wait in `fq` for the time that the data path gives them.
    pub fn paces(self) -> bool {
        self == Self::Edt
    }

    /// What does it, as `tc` calls the queue that is put on interfaces.
    pub fn name(self) -> &'static str {
        if self.paces() { "edt" } else { "htb" }
    }
}

/// When interfaces have a queue at their root. The kernel drops what meets an interface in the moment that it
/// gets one or loses it; one without classes costs each packet about 0.1 µs. Source: `hub.yaml`, `qos.queues`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Queues {
    /// From the first bandwidth on, until there is no persona.
    #[default]
    Needed,
    /// As long as there is a persona, so that the first bandwidth costs no packet either.
    Always,
}

/// How bandwidths are kept. Source: `hub.yaml`, `qos`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queueing {
    /// What makes packets wait, as it is written.
    pub engine: Engine,
    /// When interfaces have queues.
    pub queues: Queues,
    /// What the hub chose when it began, where that was left to it; else [`Engine::Auto`].
    pub chosen: Engine,
}

impl Queueing {
    /// With the choice of a hub that begins with so many personas that have a bandwidth. Whether the kernel has `fq`
    /// is asked only where it matters.
    #[must_use]
    pub fn begun_with(self, limited: usize, has_fq: impl FnOnce() -> bool) -> Self {
        let chosen = match self.engine {
            Engine::Htb | Engine::Edt => Engine::Auto,
            Engine::Auto if limited > HTB_PERSONAS && has_fq() => Engine::Edt,
            Engine::Auto => Engine::Htb,
        };
        Self { chosen, ..self }
    }

    /// Whether both say the same in `hub.yaml`.
    pub fn is_written_as(self, other: Self) -> bool {
        (self.engine, self.queues) == (other.engine, other.queues)
    }

    /// What makes packets wait.
    pub fn engine(self) -> Engine {
        if self.engine == Engine::Auto { self.chosen } else { self.engine }
    }

    /// See [`Engine::paces`].
    pub fn paces(self) -> bool {
        self.engine().paces()
    }

    /// See [`Engine::name`].
    pub fn name(self) -> &'static str {
        self.engine().name()
    }
}

/// Quality of service asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Qos {
    ingress: Option<Limit>,
    egress: Option<Limit>,
    latency: Option<Duration>,
    dscp: Option<Dscp>,
    priority: PriorityDocument,
    police: bool,
}

/// Bandwidth of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What it gets.
    pub rate: Bandwidth,
    /// What it may use of what is idle; no less than `rate`.
    pub ceil: Bandwidth,
}

impl Qos {
    /// Checks `qos`; problems point below `/qos`.
    pub fn new(problems: &mut Problems, written: &QosDocument) -> Self {
        let [ingress, egress] = each(problems, "/qos/bandwidth", written.bandwidth.as_ref());
        let ceils = each(problems, "/qos/ceil", written.ceil.as_ref());
        let mut limit = |direction: Direction, rate: Option<Bandwidth>, ceil: Option<Bandwidth>| {
            let each = matches!(written.ceil, Some(BandwidthDocument::Each(_)));
            let pointer =
                if each { format!("/qos/ceil/{}", direction.name()) } else { "/qos/ceil".to_owned() };
            match (rate, ceil) {
                (Some(rate), Some(ceil)) if ceil < rate => {
                    problems.add(pointer, "ceil is less than bandwidth: raise it, or leave it out");
                    None
                }
                (None, Some(_)) if each || written.bandwidth.is_none() => {
                    problems.add(pointer, "ceil needs `bandwidth` of the same direction beside it");
                    None
                }
                (rate, ceil) => rate.map(|rate| Limit { rate, ceil: ceil.unwrap_or(rate) }),
            }
        };
        let ingress = limit(Direction::Ingress, ingress, ceils[0]);
        let egress = limit(Direction::Egress, egress, ceils[1]);
        let latency = written.latency.as_ref().and_then(|text| {
            let parsed = span::parse(text);
            let parsed = parsed.map_err(|error| error.to_string().replacen("duration", "latency", 1));
            problems.take("/qos/latency", parsed)
        });
        let dscp = written.dscp.as_ref().and_then(|text| problems.take("/qos/dscp", Dscp::parse(text)));
        let police = written.police.unwrap_or(false);
        if police && written.bandwidth.is_none() {
            problems.add("/qos/police", "police needs `bandwidth` beside it: it is what is capped");
        }
        Self { ingress, egress, latency, dscp, priority: written.priority.unwrap_or_default(), police }
    }

    /// Bandwidth of a direction.
    pub fn limit(&self, direction: Direction) -> Option<Limit> {
        match direction {
            Direction::Ingress => self.ingress,
            Direction::Egress => self.egress,
        }
    }

    /// Whether any direction is limited.
    pub fn is_limited(&self) -> bool {
        self.ingress.is_some() || self.egress.is_some()
    }

    /// Longest queueing delay added by the hub, if the document names one.
    pub fn latency(&self) -> Option<Duration> {
        self.latency
    }

    /// Code point of all its packets.
    pub fn dscp(&self) -> Option<Dscp> {
        self.dscp
    }

    /// Class of packets that no rule gives another.
    pub fn priority(&self) -> PriorityDocument {
        self.priority
    }

    /// Whether packets above the bandwidth are dropped instead of queued.
    pub fn police(&self) -> bool {
        self.police
    }
}

/// Ingress and egress of a bandwidth that is written for both or for each.
fn each(problems: &mut Problems, base: &str, written: Option<&BandwidthDocument>) -> [Option<Bandwidth>; 2] {
    let mut take = |pointer: &str, written: Option<&Scalar>| {
        written.and_then(|written| problems.take(pointer, Bandwidth::parse(written)))
    };
    match written {
        None => [None, None],
        Some(BandwidthDocument::Both(both)) => [take(base, Some(both)); 2],
        Some(BandwidthDocument::Each(each)) => [
            take(&format!("{base}/ingress"), each.ingress.as_ref()),
            take(&format!("{base}/egress"), each.egress.as_ref()),
        ],
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(written: &serde_json::Value) -> Result<Qos, Vec<String>> {
        let mut problems = Problems::default();
        let qos = Qos::new(&mut problems, &serde_json::from_value(written.clone()).unwrap());
        let shown = |found: Vec<crate::command::Problem>| {
            found.iter().map(|problem| format!("{}: {}", problem.pointer, problem.detail)).collect()
        };
        problems.settle(qos).map_err(shown)
    }

    #[test]
    fn both_directions_or_each_are_read() {
        let qos = read(&json!({"bandwidth": "10Mbps", "ceil": {"egress": "20Mbps"}, "dscp": "EF"})).unwrap();
        let rates = |direction| qos.limit(direction).map(|limit| (limit.rate.bps(), limit.ceil.bps()));
        assert_eq!(rates(Direction::Ingress), Some((10_000_000, 10_000_000)));
        assert_eq!(rates(Direction::Egress), Some((10_000_000, 20_000_000)));
        assert_eq!((qos.dscp().map(Dscp::number), qos.priority().number()), (Some(46), 2));
        let one = read(&json!({"bandwidth": {"ingress": 9000}, "ceil": "1Mbps"})).unwrap();
        assert!(one.limit(Direction::Egress).is_none() && one.is_limited());
    }

    #[test]
    fn the_engine_that_is_left_to_the_hub_follows_what_it_begins_with() {
        let begun = |engine, limited, has_fq| {
            let written = Queueing { engine, ..Queueing::default() };
            let begun = written.begun_with(limited, || has_fq);
            assert!(begun.is_written_as(written));
            begun.name()
        };
        for (limited, has_fq, chosen) in [
            (0, true, "htb"),
            (HTB_PERSONAS, true, "htb"),
            (HTB_PERSONAS + 1, true, "edt"),
            (HTB_PERSONAS + 1, false, "htb"),
        ] {
            assert_eq!(begun(Engine::Auto, limited, has_fq), chosen, "{limited} personas, fq {has_fq}");
            assert_eq!(begun(Engine::Htb, limited, has_fq), "htb");
            assert_eq!(begun(Engine::Edt, limited, has_fq), "edt");
        }
        let few = Queueing::default().begun_with(7, || panic!("`fq` is not asked for"));
        assert!(!few.paces());
    }

    #[test]
    fn what_contradicts_itself_is_named() {
        for (written, pointer, says) in [
            (json!({"bandwidth": "10Mbps", "ceil": "5Mbps"}), "/qos/ceil:", "less than bandwidth"),
            (json!({"ceil": "5Mbps"}), "/qos/ceil:", "needs `bandwidth`"),
            (
                json!({"bandwidth": {"ingress": "1Mbps"}, "ceil": {"egress": "5Mbps"}}),
                "/qos/ceil/egress:",
                "same direction",
            ),
            (json!({"police": true}), "/qos/police:", "capped"),
            (json!({"dscp": "AF99"}), "/qos/dscp:", "AF41"),
            (json!({"latency": "soon"}), "/qos/latency:", "latency"),
        ] {
            let problems = read(&written).unwrap_err();
            let fits = |problem: &String| problem.starts_with(pointer) && problem.contains(says);
            assert!(problems.iter().any(fits), "{written}: {problems:?}");
        }
    }
}
