//! Layouts: the carrier of an interface is made to judge by one personality, and to know the other.
//!
//! A carrier has the ranges of both; the one beside refuses what only the one that decides has, and goes on with that
//! once it decides. A flip takes the policy that was compiled for the one beside, as it is.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use jiff::Timestamp;

use super::Hub;
use super::admit::{Author, invalid, not_found};
use super::draft::{Draft, rule_ends};
use crate::command::Rejection;
use crate::command::switch::Connection;
use crate::document::parts::{OneOrMany, Scalar};
use crate::document::persona::PersonaDocument;
use crate::document::rule::RuleDocument;
use crate::model::PersonaId;
use crate::model::interface::InterfaceRecord;
use crate::model::personality::{Carried, LEAVING, Personality, Version};
use crate::model::policy::{Action, Policy};
use crate::systems::persona::candidate::Candidate;
use crate::systems::persona::{self, Life};
use crate::systems::personality::seat::Seat;
use crate::systems::personality::{Layout, Record};
use crate::view::Origin;

/// Personalities as they are on an interface, where that differs.
type Worn = BTreeMap<Version, Arc<Personality>>;
/// What personalities refuse already because the other one has it alone.
type Lost = BTreeMap<Version, Vec<IpNet>>;

/// What a layout is made with of what was before it.
#[derive(Clone, Copy)]
struct Past<'a> {
    spared: &'a BTreeMap<Version, Connection>,
    lost: &'a Lost,
    departed: &'a [Version],
}

fn author() -> Author {
    Author { origin: Origin::Interface, rule_lines: Vec::new() }
}

/// Name of the rule for the session that a switch is ordered in.
const ORDERED_BY: &str = "ordered-by";

/// A rule before all others that lets one connection go on, if it is one of the interface's.
fn lets_go_on([client, server]: Connection, seat: &Seat) -> Option<RuleDocument> {
    let has = |address: IpAddr| seat.ranges.iter().any(|range| range.contains(&address));
    let port = |port: u16| Some(OneOrMany::One(Scalar::from(u64::from(port))));
    (has(client.0) || has(server.0)).then(|| RuleDocument {
        name: Some(ORDERED_BY.to_owned()),
        protocol: Some(Scalar::from("tcp")),
        source: Some(OneOrMany::One(client.0.to_string())),
        source_port: port(client.1),
        destination: Some(OneOrMany::One(server.0.to_string())),
        port: port(server.1),
        ..RuleDocument::new(Action::Allow)
    })
}

impl Hub {
    /// Makes the carrier of an interface that has none yet.
    pub(super) fn first_carrier(
        &mut self,
        settings: &InterfaceRecord,
        layout: &Layout,
        now: Timestamp,
    ) -> Result<PersonaId, Rejection> {
        let worn = self.wear(settings, layout)?;
        let port = self.port_of(settings);
        let past = Past { spared: &BTreeMap::new(), lost: &Lost::new(), departed: &[] };
        let (live, _) = self.carriers(settings, layout, &worn, past, &port)?;
        self.admit(live, author(), now)
    }

    /// Makes the carrier of an interface be as a layout says, whole or not at all.
    pub(super) fn lay(&mut self, name: &str, layout: Layout, now: Timestamp) -> Result<(), Rejection> {
        let port = self.port_of(&Arc::clone(&self.record(name)?.settings));
        self.lay_on(name, layout, &port, now)
    }

    /// The same, with packets that come by this port.
    pub(super) fn lay_on(
        &mut self,
        name: &str,
        layout: Layout,
        port: &str,
        now: Timestamp,
    ) -> Result<(), Rejection> {
        let record = self.record(name)?;
        let (settings, carrier) = (Arc::clone(&record.settings), record.carrier.clone());
        let worn = self.wear(&settings, &layout)?;
        let lost = self.lost(record, &layout);
        let past = Past { spared: &record.spared, lost: &lost, departed: &record.departed };
        let (live, other) = self.carriers(&settings, &layout, &worn, past, port)?;
        if !self.flip(&carrier, &live, other.as_ref(), now) {
            self.whole_or_nothing(|hub| {
                hub.change(&carrier, live, author(), now)?;
                hub.beside(&carrier, other, now)
            })?;
        }
        self.with_record(name, |record| {
            record.spared.retain(|version, _| layout.holds(version));
            (record.layout, record.worn) = (layout, worn);
        });
        self.hold(name, now);
        Ok(())
    }

    /// Has the policy ready that packets are judged by at the end of a temporary personality, while other ones are in
    /// both slots.
    pub(super) fn hold(&mut self, name: &str, now: Timestamp) {
        let Some(record) = self.interfaces.records.get(name) else { return };
        let back = record.temporary.as_ref().map(|temporary| &temporary.back);
        let absent = back.filter(|back| !record.layout.holds(back));
        let held = absent.and_then(|back| self.policy_beside(record, back, now).ok().flatten());
        if held != record.held {
            self.with_record(name, |record| record.held = held);
        }
    }

    /// The policy of a personality as it would be beside the one that decides.
    fn policy_beside(
        &self,
        record: &Record,
        version: &Version,
        now: Timestamp,
    ) -> Result<Option<Arc<Policy>>, Rejection> {
        let (settings, layout) = (&record.settings, record.layout.with(Some(version.clone())));
        let worn = self.wear(settings, &layout)?;
        let port = self.port_of(settings);
        let past = Past { spared: &record.spared, lost: &Lost::new(), departed: &[] };
        let (_, other) = self.carriers(settings, &layout, &worn, past, &port)?;
        let carrier = self.records.get(&record.carrier).ok_or_else(|| not_found(&record.carrier.0))?;
        let draft = other.map(|document| self.draft_beside(document, carrier, now)).transpose()?;
        Ok(draft.map(|draft| Arc::new(draft.policy)))
    }

    fn draft_beside(
        &self,
        document: PersonaDocument,
        carrier: &persona::Record,
        now: Timestamp,
    ) -> Result<Draft, Rejection> {
        let baseline = &self.config.baseline;
        let mut draft = Draft::checked(document, &BTreeMap::new(), None, BTreeMap::new(), baseline)?;
        draft.end_rules(rule_ends(&draft.persona, Some(carrier), now));
        Ok(draft)
    }

    /// The personalities of a layout that have placeholders, as they are on an interface.
    pub(super) fn wear(&self, settings: &InterfaceRecord, layout: &Layout) -> Result<Worn, Rejection> {
        let mut worn = Worn::new();
        for version in [&layout.live].into_iter().chain(&layout.other) {
            let personality = &self.kept(version)?.personality;
            if let Cow::Owned(own) = personality.on(&settings.name, &settings.labels).map_err(invalid)? {
                worn.insert(version.clone(), Arc::new(own));
            }
        }
        Ok(worn)
    }

    /// A personality as it is on an interface; none if it cannot be there.
    pub(super) fn worn<'a>(&'a self, record: &'a Record, version: &Version) -> Option<Cow<'a, Personality>> {
        if let Some(worn) = record.worn.get(version) {
            return Some(Cow::Borrowed(worn.as_ref()));
        }
        let kept = self.interfaces.versions.get(version)?;
        kept.personality.on(&record.settings.name, &record.settings.labels).ok()
    }

    /// Makes carriers follow a configuration that changed. What does not fit it stays as it is, and is said.
    pub(super) fn lay_anew(&mut self, now: Timestamp) {
        let records = self.interfaces.records.iter();
        let layouts = records.filter(|(_, record)| record.switch.is_none());
        let layouts: Vec<(String, Layout)> =
            layouts.map(|(name, record)| (name.clone(), record.layout.clone())).collect();
        for (name, layout) in layouts {
            if let Err(rejection) = self.lay(&name, layout, now) {
                let why = rejection.problems.first().map_or("", |problem| problem.detail.as_str());
                let said = format!("it stays as it was before hub.yaml changed: {why}");
                self.interfaces_mut().notices.push((name, said));
            }
        }
    }

    /// What the personalities of a layout refuse already. Packets see nothing of one that is put beside, so that the
    /// one that decides goes on as it is.
    fn lost(&self, record: &Record, layout: &Layout) -> Lost {
        let (Some(carrier), Some(other)) = (self.records.get(&record.carrier), &layout.other) else {
            return Lost::new();
        };
        let refused = |document: &PersonaDocument| {
            document.carried.as_ref().map(|carried| carried.leaving.clone()).unwrap_or_default()
        };
        let before = &record.layout;
        let mut lost = Lost::from([(before.live.clone(), refused(&carrier.document))]);
        // One that stays beside is asked anew.
        if let Some((version, candidate)) = before.other.as_ref().zip(carrier.candidate.as_ref())
            && version != other
        {
            lost.insert(version.clone(), refused(&candidate.document));
        }
        lost
    }

    /// Personas of a layout: the one that decides, and the one beside it. Both have the ranges of both.
    fn carriers(
        &self,
        settings: &InterfaceRecord,
        layout: &Layout,
        worn: &Worn,
        past: Past<'_>,
        port: &str,
    ) -> Result<(PersonaDocument, Option<PersonaDocument>), Rejection> {
        let Past { spared, lost, departed } = past;
        let as_worn = |version| match worn.get(version) {
            Some(personality) => Ok(personality.as_ref()),
            None => self.kept(version).map(|kept| &kept.personality),
        };
        let live = as_worn(&layout.live)?;
        let mut seat = Seat::new(live, settings, &self.config).map_err(invalid)?;
        let mut refused = lost.get(&layout.live).cloned();
        let other = if let Some(version) = &layout.other {
            let other = as_worn(version)?;
            let own = Seat::new(other, settings, &self.config).map_err(invalid)?;
            // The order must not depend on which of the two decides.
            let (first, second) = if layout.live <= *version {
                (seat.clone(), own.clone())
            } else {
                (own.clone(), seat.clone())
            };
            let leaving = lost.get(version).cloned().unwrap_or_else(|| seat.lost(live, &own, other));
            // One that decides without having been beside, after a restart, goes back.
            refused.get_or_insert_with(|| own.lost(other, &seat, live));
            seat = Seat { peer: seat.peer, ..first.or(&second) };
            Some((other, Seat { peer: own.peer, ..seat.clone() }, leaving))
        } else {
            let mut leaving = Vec::new();
            for (gone, own) in departed.iter().filter_map(|version| self.seated(version, settings)) {
                leaving.extend(
                    own.lost(&gone, &seat, live)
                        .into_iter()
                        .filter(|it| !leaving.contains(it))
                        .collect::<Vec<_>>(),
                );
                seat = Seat { peer: seat.peer.clone(), ..seat.or(&own) };
            }
            leaving.truncate(LEAVING);
            refused = Some(leaving);
            None
        };
        let made = |version: &Version, personality: &Personality, seat: &Seat, leaving: Vec<IpNet>| {
            let own = spared.get(version).and_then(|connection| lets_go_on(*connection, seat));
            let inserted = u16::from(own.is_some());
            let carried = Carried { gateways: seat.gateways.clone(), leaving, inserted };
            let document = personality.carrier(
                &settings.name,
                &carried,
                &seat.ranges,
                Some(port),
                &self.config.applications,
            );
            let rules = own.into_iter().chain(document.security_policies.into_iter().flatten());
            PersonaDocument {
                peers: seat.peer.clone().map(|peer| vec![peer]),
                security_policies: Some(rules.collect()),
                ..document
            }
        };
        let other = layout.other.as_ref().zip(other);
        let other = other.map(|(version, (other, seat, leaving))| made(version, other, &seat, leaving));
        Ok((made(&layout.live, live, &seat, refused.unwrap_or_default()), other))
    }

    /// A personality as it is on an interface, and where.
    fn seated(&self, version: &Version, settings: &InterfaceRecord) -> Option<(Cow<'_, Personality>, Seat)> {
        let kept = self.interfaces.versions.get(version)?;
        let personality = kept.personality.on(&settings.name, &settings.labels).ok()?;
        let seat = Seat::new(&personality, settings, &self.config).ok()?;
        Some((personality, seat))
    }

    /// If the definition beside is wanted to decide, and the one that decides to be beside: has them change
    /// places, with their compiled policies. Returns whether it was so.
    fn flip(
        &mut self,
        id: &PersonaId,
        live: &PersonaDocument,
        other: Option<&PersonaDocument>,
        now: Timestamp,
    ) -> bool {
        let Some(record) = self.records.get(id) else { return false };
        let Some(candidate) = &record.candidate else { return false };
        if *candidate.document != *live || other != Some(record.document.as_ref()) || candidate.over {
            return false;
        }
        self.claims.remove(record);
        self.revision += 1;
        let revision = self.revision;
        if let Some(record) = self.records.get_mut(id)
            && let Some(next) = record.candidate.take()
        {
            record.candidate = Some(Candidate {
                document: Arc::clone(&record.document),
                persona: Arc::clone(&record.persona),
                policy: Arc::clone(&record.policy),
                rule_ends: record.rule_ends.clone(),
                began: now,
                until: Timestamp::MAX,
                over: false,
            });
            record.document = next.document;
            record.persona = next.persona;
            record.policy = next.policy;
            record.rule_ends = next.rule_ends;
            record.generation += 1;
            record.since = revision;
            record.lists.sets.retain(|name, _| record.persona.sets().contains_key(name));
            record.lists.generation = record.lists.generation.wrapping_add(1);
            record.view = None;
            let record = record.clone();
            self.claims.insert(&record);
        }
        true
    }

    /// Puts a definition beside the one that decides, or takes it away.
    fn beside(
        &mut self,
        id: &PersonaId,
        document: Option<PersonaDocument>,
        now: Timestamp,
    ) -> Result<(), Rejection> {
        let record = self.records.get(id).ok_or_else(|| not_found(&id.0))?;
        let before = record.candidate.as_ref();
        if before.map(|candidate| candidate.document.as_ref()) == document.as_ref() {
            return Ok(());
        }
        let candidate = match document {
            None => None,
            Some(document) => {
                let draft = self.draft_beside(document, record, now)?;
                self.claims.room(&draft.persona, &record.virtuals, &draft.policy, &self.config)?;
                Some(Candidate {
                    document: Arc::new(draft.document),
                    persona: Arc::new(draft.persona),
                    policy: Arc::new(draft.policy),
                    rule_ends: draft.rule_ends,
                    began: now,
                    until: Timestamp::MAX,
                    over: false,
                })
            }
        };
        self.revision += 1;
        if let Some(record) = self.records.get_mut(id) {
            record.candidate = candidate;
            record.view = None;
        }
        Ok(())
    }

    /// Whether the carrier of an interface lives, in the kernel or on its way there.
    pub(super) fn carrier_works(&self, id: &PersonaId, now: Timestamp) -> bool {
        self.records.get(id).is_some_and(|record| record.is_live(now) && record.life != Life::Elsewhere)
    }
}
