//! What the hub says: the kernel's tables, and views for the outside.

use std::collections::BTreeMap;
use std::sync::Arc;

use hub_common::rule::{ACTION_QUARANTINE, Rule as Compiled};
use hub_common::segment::SEGMENT_QUARANTINE;
use ipnet::IpNet;
use jiff::Timestamp;

use super::Hub;
use crate::compile;
use crate::desired::{Desired, Segment, SegmentState, Settings};
use crate::model::policy::Policy;
use crate::model::{PersonaId, SegmentId};
use crate::systems::persona::lists;
use crate::systems::persona::place::{self, Ground, Placement};
use crate::systems::persona::view;
use crate::systems::persona::{Life, Record};
use crate::view::{PersonaView, Snapshot};

impl Hub {
    /// What the kernel should hold at `now`. A persona past its deadline has its segment and prefixes left,
    /// which refuse its packets; one that the kernel refused as well.
    pub fn desired(&self, now: Timestamp) -> Desired {
        let mut desired = Desired { settings: self.settings(), ..Desired::default() };
        let ground = self.ground();
        let mut placed: Vec<(&Record, Placement)> = Vec::new();
        for record in self.records.values().filter(|record| record.holds_segment()) {
            let works = record.is_live(now) && !matches!(record.life, Life::Failed { .. });
            let peers = if works { self.peers(record, now) } else { Vec::new() };
            let segment = Segment {
                persona: record.id.clone(),
                policy: self.policy(record, &peers),
                expires: record.expires_at,
                state: if works { SegmentState::Active } else { SegmentState::Block },
                flags: flags(record),
                set_generation: record.lists.generation,
            };
            desired.segments.insert(record.segment, segment);
            lists::contribute(&mut desired, record);
            for range in record.persona.ranges() {
                desired.prefixes.insert(*range, record.segment);
            }
            for peer in peers {
                desired.peers.insert((record.segment.min(peer.segment), record.segment.max(peer.segment)));
            }
            if works {
                placed.push((record, place::place(record, &ground)));
            }
        }
        for (record, placement) in &placed {
            place::contribute(&mut desired, record, placement, &ground);
        }
        ground.contribute(&mut desired);
        place::routes(&mut desired, &placed);
        self.tables(&mut desired, &placed, now);
        place::host_switches(&mut desired, placed.iter().any(|(record, _)| record.persona.has_family(false)));
        desired
    }

    /// What the outside may see at `now`. Views that did not change are the same values as before.
    pub fn snapshot(&mut self, now: Timestamp) -> Snapshot {
        let views: BTreeMap<PersonaId, Arc<PersonaView>> = {
            let ground = self.ground();
            let find = |name: &str| self.named(name);
            let fresh = |record: &Record| {
                let placement = place::place(record, &ground);
                let state = crate::systems::persona::condition::state(record, now);
                let conditions =
                    crate::systems::persona::condition::conditions(record, &placement, &find, now);
                match &record.view {
                    Some(view) if view.state == state && view.conditions == conditions => Arc::clone(view),
                    _ => Arc::new(view::view(record, &placement, &find, now)),
                }
            };
            self.records.iter().map(|(id, record)| (id.clone(), fresh(record))).collect()
        };
        for (id, record) in &mut self.records {
            record.view = views.get(id).cloned();
        }
        Snapshot {
            personas: views,
            conditions: self.conditions.clone(),
            documents_read: self.documents_read,
            documents_error: self.documents_error.clone(),
            ready: self.is_ready(),
        }
    }

    /// One persona as the outside sees it.
    pub(super) fn view(&self, id: &PersonaId, now: Timestamp) -> Option<Arc<PersonaView>> {
        let record = self.records.get(id)?;
        let placement = place::place(record, &self.ground());
        Some(Arc::new(view::view(record, &placement, &|name| self.named(name), now)))
    }

    fn ground(&self) -> Ground<'_> {
        Ground::new(&self.config, &self.inventory, &self.claims)
    }

    /// Personas that a persona may talk to: alive, in the kernel or on the way, each naming the other.
    fn peers(&self, record: &Record, now: Timestamp) -> Vec<&Record> {
        let named = record.persona.peers().iter().filter_map(|name| self.named(name));
        let mutual = named.filter(|peer| peer.persona.peers().contains(record.persona.name()));
        mutual.filter(|peer| peer.is_live(now) && !matches!(peer.life, Life::Failed { .. })).collect()
    }

    fn tables(&self, desired: &mut Desired, placed: &[(&Record, Placement)], now: Timestamp) {
        let by_segment: BTreeMap<SegmentId, &Placement> =
            placed.iter().map(|(record, placement)| (record.segment, placement)).collect();
        for (record, placement) in placed.iter().filter(|(record, _)| !record.persona.next_hops().is_empty())
        {
            let peers = self.peers(record, now);
            let peers: Vec<&Placement> =
                peers.iter().filter_map(|peer| by_segment.get(&peer.segment).copied()).collect();
            place::table(desired, record, placement, &peers);
        }
    }

    /// The policy of a persona; with `egress.allow` it depends on the ranges of its peers.
    fn policy(&self, record: &Record, peers: &[&Record]) -> Arc<Policy> {
        let ranges: Vec<IpNet> = peers.iter().flat_map(|peer| peer.persona.ranges()).copied().collect();
        if ranges.is_empty() || record.persona.rules.egress_allow.is_none() {
            return Arc::clone(&record.policy);
        }
        let mut policy = compile::compile(&record.persona, &ranges);
        compile::complete(&mut policy, &record.persona, &self.config.baseline, &record.rule_ends);
        Arc::new(policy)
    }

    fn settings(&self) -> Settings {
        Settings { timeout_seconds: self.config.timeout_seconds, failsafe: self.config.failsafe.clone() }
    }
}

/// What else the data path looks up for a persona's packets.
fn flags(record: &Record) -> u32 {
    let quarantines = |rule: &Compiled| rule.action == ACTION_QUARANTINE;
    let rules = record.policy.ingress.iter().chain(&record.policy.egress);
    let looks = !record.lists.quarantine.is_empty() || rules.into_iter().any(quarantines);
    if looks { SEGMENT_QUARANTINE } else { 0 }
}
