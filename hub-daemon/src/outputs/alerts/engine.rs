//! Keeps where each alert stands. No IO, no clock: looks come in, events go out.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::readings::{Look, Looks};
use super::{AlertEvent, AlertView};
use crate::model::alert::{Alert, Stand, Turn, metric_name, op_name};

/// Whose alert: the id of a persona, or nothing for the hub.
pub(super) type Owner = Option<String>;

/// Alerts of one owner.
#[derive(Clone, Debug)]
pub(super) struct Watched {
    /// Who.
    pub(super) owner: Owner,
    /// Name of the persona.
    pub(super) persona: Option<String>,
    /// Its alerts.
    pub(super) alerts: Vec<Alert>,
}

/// What is stored: an alert that is not ok.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    owner: Owner,
    persona: Option<String>,
    view: AlertView,
    stand: Stand,
}

impl Kept {
    /// Whose alert, and where it stands.
    pub(super) fn stand(&self) -> String {
        format!("{:?} {} {:?}", self.owner, self.view.alert, self.stand)
    }
}

/// All alerts.
#[derive(Debug, Default)]
pub struct Engine {
    kept: BTreeMap<(Owner, String), Kept>,
    looks: BTreeMap<Owner, Looks>,
}

impl Engine {
    /// Goes on where an earlier run ended.
    pub fn restore(kept: Vec<Kept>) -> Self {
        let kept = kept.into_iter().map(|kept| ((kept.owner.clone(), kept.view.alert.clone()), kept));
        Self { kept: kept.collect(), looks: BTreeMap::new() }
    }

    /// What must outlive the process.
    pub fn stored(&self) -> Vec<Kept> {
        self.kept.values().filter(|kept| kept.stand != Stand::Ok).cloned().collect()
    }

    /// Every alert.
    pub(super) fn views(&self) -> Vec<AlertView> {
        self.kept.values().map(|kept| kept.view.clone()).collect()
    }

    /// Takes a look at every owner that could be read, and says what turned. What is watched no more ends.
    pub(super) fn look(
        &mut self,
        watched: &[Watched],
        mut looks: BTreeMap<Owner, Look>,
        now: Timestamp,
    ) -> Vec<AlertEvent> {
        let mut events = Vec::new();
        let mut wanted = BTreeMap::new();
        for one in watched {
            let seen = self.looks.entry(one.owner.clone()).or_default();
            let read = looks.remove(&one.owner).map(|look| seen.add(look, &one.alerts)).is_some();
            for alert in &one.alerts {
                let key = (one.owner.clone(), alert.name.clone());
                let stand = self.kept.get(&key).map_or(Stand::Ok, |kept| kept.stand);
                let value = if read { seen.value(alert) } else { None };
                let (stand, turn) = alert.step(stand, value, now);
                let view = view(one, alert, stand, value);
                events.extend(turn.map(|turn| event(&view, (turn, alert.rule.is_some()), now)));
                let (owner, persona) = (one.owner.clone(), one.persona.clone());
                wanted.insert(key, Kept { owner, persona, view, stand });
            }
        }
        self.looks.retain(|owner, _| watched.iter().any(|one| one.owner == *owner));
        for (key, kept) in std::mem::replace(&mut self.kept, wanted) {
            if !self.kept.contains_key(&key) && matches!(kept.stand, Stand::Firing(_)) {
                events.push(event(&AlertView { value: None, ..kept.view }, (Turn::Resolved, false), now));
            }
        }
        events
    }
}

fn view(watched: &Watched, alert: &Alert, stand: Stand, value: Option<f64>) -> AlertView {
    let (state, since) = match stand {
        Stand::Ok => ("ok", None),
        Stand::Pending(since) => ("pending", Some(since)),
        Stand::Firing(since) => ("firing", Some(since)),
        Stand::Resolved(since) => ("resolved", Some(since)),
    };
    AlertView {
        persona: watched.persona.clone(),
        alert: alert.name.clone(),
        state: state.to_owned(),
        since,
        metric: metric_name(alert.metric).to_owned(),
        of: alert.of.clone(),
        op: op_name(alert.op).to_owned(),
        threshold: alert.value,
        value,
    }
}

fn event(view: &AlertView, (turn, of_rule): (Turn, bool), time: Timestamp) -> AlertEvent {
    let state = match turn {
        Turn::Fired => "firing",
        Turn::Resolved => "resolved",
    };
    let subject =
        view.persona.as_ref().map_or_else(|| "the hub".to_owned(), |name| format!("persona {name}"));
    let of = view.of.as_ref().map(|of| format!(" of {of}")).unwrap_or_default();
    let message = match (turn, view.value) {
        (_, None) => format!("{subject}: {} is watched no more", view.alert),
        (Turn::Fired, Some(value)) if of_rule => {
            format!("{subject}: {} matched {value:.0} packets within a minute", view.alert)
        }
        (Turn::Resolved, Some(_)) if of_rule => {
            format!("{subject}: {} matched nothing for a minute", view.alert)
        }
        (Turn::Fired, Some(value)) => {
            format!("{subject}: {}{of} is {value:.1}, {} {}", view.metric, view.op, view.threshold)
        }
        (Turn::Resolved, Some(value)) => format!("{subject}: {}{of} is {value:.1} again", view.metric),
    };
    AlertEvent {
        time,
        persona: view.persona.clone(),
        alert: view.alert.clone(),
        state: state.to_owned(),
        metric: view.metric.clone(),
        of: view.of.clone(),
        op: view.op.clone(),
        threshold: view.threshold,
        value: view.value,
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath_view::{Count, SegmentCounts};
    use crate::model::problems::Problems;
    use serde_json::json;

    fn watched(persona: &str) -> Watched {
        let document = serde_json::from_value(json!({"metric": "ingress_pps", "value": 10, "clear": 5}));
        let alerts = Alert::list(&mut Problems::default(), "", &[document.unwrap()]);
        Watched { owner: Some(persona.into()), persona: Some(persona.into()), alerts }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// One look a second at a persona that got so many packets so far.
    fn looks(persona: &str, second: i64, packets: u64) -> BTreeMap<Owner, Look> {
        let counts = SegmentCounts { ingress: Count { packets, bytes: 0 }, ..SegmentCounts::default() };
        [(Some(persona.into()), Look { time: at(second), counts, ..Look::default() })].into()
    }

    #[test]
    fn a_restart_neither_repeats_nor_forgets() {
        let watched = [watched("a")];
        let mut engine = Engine::default();
        assert_eq!(engine.look(&watched, looks("a", 1, 0), at(1)), []);
        let fired = engine.look(&watched, looks("a", 2, 100), at(2));
        assert_eq!(fired.len(), 1);
        assert_eq!((fired[0].state.as_str(), fired[0].value), ("firing", Some(100.0)));
        let stored = serde_json::to_string(&engine.stored()).unwrap();

        let mut engine = Engine::restore(serde_json::from_str(&stored).unwrap());
        assert_eq!(engine.look(&watched, looks("a", 9, 100), at(9)), [], "nothing is known yet");
        assert_eq!(engine.look(&watched, looks("a", 10, 200), at(10)), [], "it fires still");
        let ended = engine.look(&watched, looks("a", 11, 201), at(11));
        assert_eq!(ended.iter().map(|event| event.state.as_str()).collect::<Vec<_>>(), ["resolved"]);
    }

    #[test]
    fn an_alert_that_goes_away_ends() {
        let mut engine = Engine::default();
        engine.look(&[watched("a")], looks("a", 1, 0), at(1));
        engine.look(&[watched("a")], looks("a", 2, 100), at(2));
        let ended = engine.look(&[], BTreeMap::new(), at(3));
        assert_eq!((ended.len(), ended[0].value), (1, None));
        assert!(ended[0].message.contains("watched no more"));
        assert!(engine.views().is_empty() && engine.look(&[], BTreeMap::new(), at(4)).is_empty());
    }

    #[test]
    fn what_cannot_be_read_stays_as_it_is() {
        let watched = [watched("a")];
        let mut engine = Engine::default();
        engine.look(&watched, looks("a", 1, 0), at(1));
        engine.look(&watched, looks("a", 2, 100), at(2));
        assert_eq!(engine.look(&watched, BTreeMap::new(), at(3)), []);
        assert_eq!(engine.views()[0].state, "firing");
    }
}
