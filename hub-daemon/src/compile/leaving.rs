//! What refuses addresses that an interface loses with its personality.
//!
//! These rules come before all others: nothing may begin there during the drain, and what is left after the flip is
//! cut and told so, whatever the personality to come allows.

use hub_common::rule::Rule as Compiled;

use super::{SYNTHETIC_RULE, between, denied};
use crate::model::persona::Persona;
use crate::model::rule::Direction;

/// The rules of one direction.
pub(super) fn leaving(persona: &Persona, direction: Direction) -> Vec<Compiled> {
    let base = Compiled { action: denied(persona), index: SYNTHETIC_RULE, ..Compiled::ZERO };
    let refused = persona.carried().into_iter().flat_map(|carried| &carried.leaving);
    let rules = refused.filter_map(|range| match direction {
        Direction::Ingress => between(base, None, Some(range)),
        Direction::Egress => between(base, Some(range), None),
    });
    rules.collect()
}
