//! What the hub says: the kernel's tables, and views for the outside.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hub_common::rule::{ACTION_QUARANTINE, Rule as Compiled};
use hub_common::segment::{SEGMENT_CONNECTIONS, SEGMENT_HEARS, SEGMENT_QUARANTINE, SEGMENT_WATCHED};
use jiff::Timestamp;

use super::Hub;
use super::services::{Uses, contacts};
use crate::compile;
use crate::compile::services::compile_with;
use crate::desired::shared_map::SharedMap;
use crate::desired::{Desired, Segment, SegmentState, Settings, Trial};
use crate::model::detector::Detectors;
use crate::model::persona::Persona;
use crate::model::policy::Policy;
use crate::model::qos::Queues;
use crate::model::service::Service;
use crate::model::{PersonaId, SegmentId, protocol};
use crate::systems::persona::Record;
use crate::systems::persona::lists;
use crate::systems::persona::place::{self, Ground, Placement};
use crate::systems::persona::{condition, shaping, translate, view};
use crate::view::{NodeView, PersonaView, Snapshot};

/// The views that were shown last, and what they were made on beside the kernel's links and the configuration.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    /// The one interface that personas without ports of their own share.
    shared: Option<String>,
    views: SharedMap<PersonaId, Arc<PersonaView>>,
}

/// The feature bit of a persona with detectors.
fn watched(record: &Record) -> u32 {
    if record.persona.detectors().is_some() { SEGMENT_WATCHED } else { 0 }
}

/// The feature bit of a persona with rules that ask for first bytes of connections. What those of a candidate ask
/// for is heard before it decides.
fn hears(record: &Record) -> u32 {
    let candidate = record.candidate.iter().map(|candidate| &candidate.policy);
    let mut policies = candidate.chain([&record.policy]);
    if policies.all(|policy| policy.signatures.is_empty()) { 0 } else { SEGMENT_HEARS }
}

/// The feature bit of a persona whose members' connections are counted by source.
fn connections(record: &Record) -> u32 {
    if record.persona.rules.connections.is_some() { SEGMENT_CONNECTIONS } else { 0 }
}

impl Hub {
    /// What the kernel should hold at `now`. A persona past its deadline has its segment and prefixes left,
    /// which refuse its packets; one that the kernel refused as well.
    pub fn desired(&self, now: Timestamp) -> Desired {
        let mut desired = Desired { settings: self.settings(), ..Desired::default() };
        let ground = self.ground();
        ground.contribute(&mut desired);
        place::host_switches(&mut desired, false);
        let services = Uses::new(self.records.values());
        let records = self.records.values().map(|record| (record, record.works(now)));
        self.contribute(&mut desired, records, &ground, &services, now);
        self.contribute_interfaces(&mut desired, now);
        desired
    }

    /// Adds what personas contribute, each with whether it works, to what the ground does.
    pub(super) fn contribute<'a>(
        &'a self,
        desired: &mut Desired,
        records: impl Iterator<Item = (&'a Record, bool)>,
        ground: &Ground<'_>,
        services: &Uses<'a>,
        now: Timestamp,
    ) {
        let mut placed: Vec<(&Record, Placement)> = Vec::new();
        for (record, works) in records.filter(|(record, _)| record.holds_segment()) {
            let (peers, guests) = if works {
                (self.peers(record, now), services.of(self, record, now))
            } else {
                (Vec::new(), Vec::new())
            };
            let segment = self.segment(record, works, &peers, &guests);
            desired.detectors.extend(record.persona.detectors().map(|set| (record.segment, set.clone())));
            desired.connections.extend(record.persona.rules.connections.map(|most| (record.segment, most)));
            desired.segments.insert(record.segment, segment);
            lists::contribute(desired, record);
            for range in record.main_ranges() {
                desired.prefixes.insert(range, record.segment);
            }
            for peer in peers.into_iter().chain(guests.into_iter().map(|(guest, _)| guest)) {
                desired.peers.insert((record.segment.min(peer.segment), record.segment.max(peer.segment)));
            }
            if works {
                translate::contribute(desired, record, &self.twins(record));
                placed.push((record, place::place(record, ground)));
            }
        }
        for (record, placement) in &placed {
            place::contribute(desired, record, placement, ground);
        }
        let records: Vec<&Record> = placed.iter().map(|(record, _)| *record).collect();
        let stands = self.queues_stand
            || self.config.qos.queues == Queues::Always
            || (!self.interfaces.records.is_empty() && self.interfaces.versions.limit());
        shaping::contribute(desired, &records, ground, stands);
        place::routes(desired, &placed, self.config.route_priority);
        self.tables(desired, &placed, services, now);
        if placed.iter().any(|(record, _)| record.persona.has_family(false)) {
            place::host_switches(desired, true);
        }
    }

    fn segment(
        &self,
        record: &Record,
        works: bool,
        peers: &[&Record],
        guests: &[(&Record, Vec<&Service>)],
    ) -> Segment {
        let candidate = record.candidate.as_ref().filter(|candidate| works && !candidate.over);
        Segment {
            candidate: candidate.map(|candidate| Trial {
                policy: self.policy(
                    &Source {
                        record,
                        persona: &candidate.persona,
                        policy: &candidate.policy,
                        ends: &candidate.rule_ends,
                    },
                    peers,
                    guests,
                ),
                began: candidate.began,
                held: false,
            }),
            persona: record.id.clone(),
            policy: self.policy(
                &Source { record, persona: &record.persona, policy: &record.policy, ends: &record.rule_ends },
                peers,
                guests,
            ),
            expires: record.over_at(),
            drains: record.deadline().filter(|_| !record.drain().is_zero()),
            state: match (works, record.leaving) {
                (true, None) => SegmentState::Active,
                (true, Some(_)) => SegmentState::Drain,
                (false, _) => SegmentState::Block,
            },
            flags: translate::flags(record)
                | watched(record)
                | quarantine(record)
                | connections(record)
                | hears(record)
                | if works { shaping::flags(&record.persona) } else { 0 },
            set_generation: record.lists.generation,
            routed: !record.persona.next_hops().is_empty(),
            transition: None,
            lease: None,
        }
    }

    /// What the outside may see at `now`. Views that did not change are the same values as before.
    pub fn snapshot(&mut self, now: Timestamp) -> Snapshot {
        let unseen = self.records.take_unseen();
        let shown = self.shown.take();
        let ground = self.ground();
        let shown = shown.filter(|shown| shown.shared == ground.shared);
        let find = |name: &str| self.known(name);
        let is_shown = |record: &Record| {
            shown.is_some() && record.view.is_some() && is_still(record) && !unseen.contains(&record.id)
        };
        let fresh = |record: &Record| {
            let placement = place::place(record, &ground);
            let state = condition::state(record, now);
            let conditions = condition::conditions(record, &placement, &find, now);
            match &record.view {
                Some(view) if view.state == state && view.conditions == conditions => Arc::clone(view),
                _ => Arc::new(view::view(record, &placement, &find, now)),
            }
        };
        let news = self.records.iter().filter(|(_, record)| !is_shown(record));
        let news: Vec<(PersonaId, Arc<PersonaView>)> =
            news.map(|(id, record)| (id.clone(), fresh(record))).collect();
        let shared = ground.shared;
        let mut views = shown.map(|shown| shown.views).unwrap_or_default();
        for id in unseen.iter().filter(|id| !self.records.contains_key(id)) {
            views.remove(id);
        }
        for (id, view) in news {
            self.records.show(&id, &view);
            if !views.get(&id).is_some_and(|held| Arc::ptr_eq(held, &view)) {
                views.insert(id, view);
            }
        }
        self.shown = Some(Shown { shared, views: views.clone() });
        let mut snapshot = Snapshot {
            personas: views,
            conditions: self.conditions.clone(),
            documents_read: self.documents_read,
            documents_error: self.documents_error.clone(),
            ready: self.is_ready(),
            pools: self.pools(),
            qos: self.config.qos.engine(),
            templates: self.templates.clone(),
            node: self.node(),
            life: self.config.life,
            nodes: Arc::clone(&self.config.nodes),
            ..Snapshot::default()
        };
        self.show_interfaces(&mut snapshot, now);
        snapshot
    }

    /// What this hub is among several, and how full.
    fn node(&self) -> NodeView {
        let (personas, promised_bps) = self.claims.promised();
        self.config.node.view(self.is_ready(), self.config.limits.personas, personas, promised_bps)
    }

    /// One persona as the outside sees it.
    pub(super) fn view(&self, id: &PersonaId, now: Timestamp) -> Option<Arc<PersonaView>> {
        let record = self.records.get(id)?;
        let placement = place::place(record, &self.ground());
        Some(Arc::new(view::view(record, &placement, &|name| self.known(name), now)))
    }

    /// The persona alive under this name, or of this id.
    fn known(&self, name: &str) -> Option<&Record> {
        self.named(name).or_else(|| self.records.get(&PersonaId(name.into())))
    }

    pub(super) fn ground(&self) -> Ground<'_> {
        Ground::new(&self.config, &self.inventory, &self.claims)
    }

    /// Personas that a persona may talk to: alive, in the kernel or on the way, each naming the other.
    pub(super) fn peers(&self, record: &Record, now: Timestamp) -> Vec<&Record> {
        let named = record.persona.peers().iter().filter_map(|name| self.named(name));
        let mutual = named.filter(|peer| peer.persona.peers().contains(record.persona.name()));
        mutual.filter(|peer| peer.works(now)).collect()
    }

    /// Personas that keep ranges which this one has too.
    fn twins(&self, record: &Record) -> Vec<&Record> {
        let natives = record.virtuals.iter().map(|(native, _)| native);
        let ids: BTreeSet<PersonaId> =
            natives.flat_map(|native| self.claims.holders(native)).map(|(_, id)| id).collect();
        let others = ids.iter().filter(|id| **id != record.id);
        others.filter_map(|id| self.records.get(id)).collect()
    }

    fn tables(
        &self,
        desired: &mut Desired,
        placed: &[(&Record, Placement)],
        services: &Uses<'_>,
        now: Timestamp,
    ) {
        let by_segment: BTreeMap<SegmentId, &Placement> =
            placed.iter().map(|(record, placement)| (record.segment, placement)).collect();
        for (record, placement) in placed.iter().filter(|(record, _)| !record.persona.next_hops().is_empty())
        {
            let mut peers = self.peers(record, now);
            peers.extend(services.of(self, record, now).into_iter().map(|(guest, _)| guest));
            let peers: Vec<&Placement> =
                peers.iter().filter_map(|peer| by_segment.get(&peer.segment).copied()).collect();
            place::table(desired, record, placement, &peers);
        }
    }

    /// The policy of a persona; with `egress.allow` or services it depends on the ranges of its contacts.
    fn policy(
        &self,
        source: &Source<'_>,
        peers: &[&Record],
        guests: &[(&Record, Vec<&Service>)],
    ) -> Arc<Policy> {
        let Source { record, persona, policy, ends } = source;
        let depends = !guests.is_empty() || (!peers.is_empty() && persona.rules.egress_allow.is_some());
        if !depends {
            return Arc::clone(policy);
        }
        let mut policy = compile_with(persona, &contacts(record, peers, guests));
        compile::complete(&mut policy, persona, &self.config.baseline, ends);
        Arc::new(policy)
    }

    fn settings(&self) -> Settings {
        Settings {
            timeout_seconds: self.config.timeout_seconds,
            failsafe: self.config.failsafe.clone(),
            services: self.config.dns.iter().map(|address| (protocol::UDP, address.port())).collect(),
            masquerade_ports: self.config.masquerade_ports,
        }
    }
}

/// Whether what is said of a record depends on nothing but itself and the ground: neither on time nor on
/// other personas.
fn is_still(record: &Record) -> bool {
    let timeless = record.over_at().is_none() && record.rule_ends.is_empty() && record.overridden.is_empty();
    timeless && record.persona.peers().is_empty() && record.persona.uses().is_empty()
}

/// What a policy is made of.
struct Source<'a> {
    record: &'a Record,
    persona: &'a Persona,
    policy: &'a Arc<Policy>,
    ends: &'a BTreeMap<u64, Timestamp>,
}

/// The feature bit of a persona whose rules, detectors or operators put addresses into quarantine.
fn quarantine(record: &Record) -> u32 {
    let quarantines = |rule: &Compiled| rule.action == ACTION_QUARANTINE;
    let mut rules = record.policy.ingress.iter().chain(&record.policy.egress);
    let looks = !record.lists.quarantine.is_empty()
        || record.persona.detectors().is_some_and(Detectors::quarantine)
        || rules.any(quarantines);
    if looks { SEGMENT_QUARANTINE } else { 0 }
}
