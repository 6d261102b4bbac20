//! A persona as the outside sees it.

use jiff::Timestamp;

use super::Record;
use super::candidate::Candidate;
use super::condition::{self, Find};
use super::place::Placement;
use crate::model::SegmentId;
use crate::view::{Origin, PersonaView};

/// Makes the view of a persona.
pub fn view(record: &Record, placement: &Placement, find: &Find<'_>, now: Timestamp) -> PersonaView {
    PersonaView {
        id: record.id.clone(),
        state: condition::state(record, now),
        generation: record.generation,
        ranges: record.persona.ranges().iter().map(ToString::to_string).collect(),
        // A number that was left behind may be somebody else's by now.
        segment: if record.holds_segment() { record.segment } else { SegmentId::default() },
        created_at: record.created_at,
        expires_at: record.deadline(),
        origin: record.origin.clone(),
        virtual_ranges: record.virtuals.iter().map(|(native, instead)| (*native, *instead)).collect(),
        aliases: record.aliases.iter().map(|(range, alias)| (*range, *alias)).collect(),
        overridden: condition::overridden(record, find),
        members: record.seats.iter().map(|(name, seat)| (name.clone(), seat.addresses.clone())).collect(),
        definition: record.document.as_ref().clone(),
        conditions: condition::conditions(record, placement, find, now),
        warnings: record.warnings.as_ref().clone(),
        rule_sources: rule_sources(record),
        candidate: record.candidate.as_ref().map(Candidate::view),
        lists: record.lists.clone(),
    }
}

/// Where each rule was written.
fn rule_sources(record: &Record) -> Vec<String> {
    let rules = record.document.security_policies.as_ref().map_or(0, Vec::len);
    match &record.origin {
        Origin::Api => vec!["api".to_owned(); rules],
        Origin::File { path, line } => (0..rules)
            .map(|rule| format!("{}:{}", path.display(), record.rule_lines.get(rule).unwrap_or(line)))
            .collect(),
        Origin::Interface => vec!["interface".to_owned(); rules],
    }
}
