//! What followers of events hear when one snapshot follows another.

use std::sync::Arc;

use crate::desired::shared_map::SharedMap;
use crate::model::PersonaId;
use crate::outputs::status::state_name;
use crate::systems::persona::{ENDS_IN_A_MINUTE, ENDS_SOON};
use crate::view::{PersonaState, PersonaView};

/// Personas by id.
type Personas = SharedMap<PersonaId, Arc<PersonaView>>;

/// One thing that changed about a persona.
#[derive(Debug, PartialEq, Eq)]
pub struct Change {
    /// `created`, `updated`, `deleted`, or the state it is in now.
    pub what: &'static str,
    /// Its name.
    pub persona: String,
    /// A sentence.
    pub message: String,
}

/// Conditions that say that the end is near.
fn is_warning(reason: &str) -> bool {
    reason == ENDS_SOON || reason == ENDS_IN_A_MINUTE
}

/// Who has ranges of a persona.
fn overridden(view: &PersonaView) -> String {
    let name = &view.definition.name;
    let taken = view.overridden.iter().map(|taken| format!("{} is persona `{}`'s", taken.range, taken.by));
    let taken: Vec<String> = taken.collect();
    if taken.is_empty() {
        format!("{name} has all its ranges")
    } else {
        format!("{name}: {}", taken.join(", "))
    }
}

/// Everything that is different between two snapshots, in order of ids; what is gone comes last.
pub fn changes(before: &Personas, after: &Personas) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut say = |what, persona: &str, message| {
        changes.push(Change { what, persona: persona.to_owned(), message });
    };
    let mut gone = Vec::new();
    for (id, old, view) in before.changes(after) {
        let Some(view) = view else {
            gone.extend(old.map(|old| (id, old)));
            continue;
        };
        let name = &view.definition.name;
        match old {
            Some(old) => {
                if old.generation != view.generation {
                    say("updated", name, format!("{name} is at generation {}", view.generation));
                }
                for condition in view.conditions.iter().filter(|condition| is_warning(&condition.reason)) {
                    if old.conditions.iter().all(|other| other.reason != condition.reason) {
                        say("ending", name, format!("{name}: {}", condition.message));
                    }
                }
                if old.overridden != view.overridden && view.state != PersonaState::Expired {
                    say("overridden", name, overridden(view));
                }
                if old.state != view.state {
                    let state = state_name(view.state);
                    say(state, name, format!("{name} is {state}"));
                }
            }
            None => say("created", name, format!("{name} was admitted")),
        }
    }
    for (id, view) in gone {
        let name = &view.definition.name;
        say("deleted", name, format!("{name} ({id}) is gone"));
    }
    changes
}
