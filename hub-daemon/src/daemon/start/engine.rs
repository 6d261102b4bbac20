//! What keeps bandwidths, where `hub.yaml` leaves it to the hub: chosen once, by what the hub begins with.
//!
//! Personas that come later change nothing: with another engine all queues would be others.

use std::collections::BTreeMap;

use super::documents;
use crate::document::persona::PersonaDocument;
use crate::document::source;
use crate::hub::state::State;
use crate::kernel::queues::pacer;
use crate::model::config::Config;
use crate::model::qos::{Engine, HTB_PERSONAS, Queueing};

/// The engine that is written, or the one that is chosen.
pub(super) fn choose(config: &Config, state: &State) -> Queueing {
    if config.qos.engine != Engine::Auto {
        return config.qos;
    }
    if state.personas.len() + documents::most(&config.documents) <= HTB_PERSONAS {
        return config.qos.begun_with(0, || false);
    }
    // Documents that cannot be read are refused, and reported, when the hub takes them.
    let files = documents::read(&config.documents).unwrap_or_default();
    let files = source::documents(&files).personas;
    let stored = state.personas.iter().map(|stored| &stored.definition);
    let all: Vec<&PersonaDocument> = stored.chain(files.iter().map(|file| &file.document)).collect();
    let limited = limited(&all);
    config.qos.begun_with(limited, || match pacer::probe() {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(
                personas = limited,
                classes = HTB_PERSONAS,
                %error,
                "more personas have a bandwidth than HTB has classes: the others are capped"
            );
            false
        }
    })
}

/// How many personas need a queue of their own; of one that is stored and in a file, the last one says so.
fn limited(all: &[&PersonaDocument]) -> usize {
    let waits = |document: &PersonaDocument| {
        let qos = document.qos.as_ref();
        qos.is_some_and(|qos| qos.bandwidth.is_some() && qos.police != Some(true))
    };
    let last: BTreeMap<&str, bool> =
        all.iter().map(|document| (document.name.as_str(), waits(document))).collect();
    last.into_values().filter(|waits| *waits).count()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn who_waits_in_a_queue_is_counted_once() {
        let document = |name: &str, qos: serde_json::Value| {
            let persona = json!({"name": name, "ip_range": "10.0.0.0/24", "qos": qos});
            serde_json::from_value::<PersonaDocument>(persona).unwrap()
        };
        let all = [
            document("a", json!({"bandwidth": "1Mbps"})),
            document("a", json!({"bandwidth": "2Mbps"})),
            document("b", json!({"bandwidth": {"egress": "1Mbps"}, "police": false})),
            document("c", json!({"bandwidth": "1Mbps"})),
            document("c", json!({"bandwidth": "1Mbps", "police": true})),
            document("d", json!({"dscp": "EF"})),
        ];
        assert_eq!(limited(&all.each_ref()), 2);
    }
}
