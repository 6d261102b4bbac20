//! Admission: a persona comes, changes or goes. What is admitted compiles and fits.

use std::collections::BTreeMap;

use ipnet::IpNet;
use jiff::Timestamp;

use super::draft::{Draft, rule_ends};
use super::{Hub, refused};
use crate::command::{Problem, Rejection, RejectionKind, Reply};
use crate::document::parts::OneOrMany;
use crate::document::persona::PersonaDocument;
use crate::model::persona::Persona;
use crate::model::translation::Virtual;
use crate::model::{PersonaId, SegmentId};
use crate::systems::persona::claims::World;
use crate::systems::persona::seats::{self, Seat};
use crate::systems::persona::{Life, Record, overlap};
use crate::view::Origin;

/// Who gives a definition, and where it is written.
#[derive(Clone, Debug)]
pub(super) struct Author {
    pub(super) origin: Origin,
    pub(super) rule_lines: Vec<u32>,
}

impl Author {
    pub(super) fn api() -> Self {
        Self { origin: Origin::Api, rule_lines: Vec::new() }
    }
}

impl Hub {
    pub(super) fn create(&mut self, document: PersonaDocument, now: Timestamp) -> Result<Reply, Rejection> {
        let id = self.admit(document, Author::api(), now)?;
        self.reply(&id, now, Reply::Created)
    }

    pub(super) fn replace(
        &mut self,
        persona: &str,
        document: PersonaDocument,
        if_generation: Option<u64>,
        now: Timestamp,
    ) -> Result<Reply, Rejection> {
        let id = self.writable(persona, if_generation)?;
        self.change(&id, document, Author::api(), now)?;
        self.reply(&id, now, Reply::Updated)
    }

    pub(super) fn reply(
        &mut self,
        id: &PersonaId,
        now: Timestamp,
        wrap: fn(Box<crate::view::PersonaView>) -> Reply,
    ) -> Result<Reply, Rejection> {
        let view = self.view(id, now).ok_or_else(|| not_found(&id.0))?;
        Ok(wrap(Box::new(view.as_ref().clone())))
    }

    /// The persona that the API may change.
    pub(super) fn writable(&self, persona: &str, if_generation: Option<u64>) -> Result<PersonaId, Rejection> {
        let record = self.find(persona).ok_or_else(|| not_found(persona))?;
        let forgotten = matches!(record.life, Life::Expired { listed: false, .. });
        if let Origin::File { path, line } = &record.origin
            && !forgotten
        {
            let detail = format!(
                "managed_by_file: `{}` is defined in {}:{line}: change it there",
                record.persona.name(),
                path.display()
            );
            return Err(refused(RejectionKind::Conflict, "", detail));
        }
        if record.origin == Origin::Interface {
            let detail = format!(
                "managed_by_interface: `{0}` carries the personality of interface `{0}`: switch that instead",
                record.persona.name()
            );
            return Err(refused(RejectionKind::Conflict, "", detail));
        }
        if let Some(expected) = if_generation.filter(|expected| *expected != record.generation) {
            let detail = format!("generation is {}, not {expected}: read it again", record.generation);
            return Err(refused(RejectionKind::Changed, "", detail));
        }
        Ok(record.id.clone())
    }

    /// Admits a persona.
    pub(super) fn admit(
        &mut self,
        document: PersonaDocument,
        author: Author,
        now: Timestamp,
    ) -> Result<PersonaId, Rejection> {
        let document = self.whole(document)?;
        if self.config.node.is_elsewhere(&document) {
            return self.admit_elsewhere(document, author, now);
        }
        let draft = self.draft(document, None, &author, now)?;
        if draft.persona.overrides() {
            return self.whole_or_nothing(|hub| {
                let id = hub.admit_draft(draft, author, now)?;
                hub.rank_takers(&id, now).map(|()| id)
            });
        }
        self.admit_draft(draft, author, now)
    }

    fn admit_draft(&mut self, draft: Draft, author: Author, now: Timestamp) -> Result<PersonaId, Rejection> {
        let id = self.fresh_id(now);
        if draft.persona.overrides() {
            self.make_way(&id, &draft.persona, &draft.document, &Virtual::default())?;
        }
        let virtuals = self.check(&draft, &Virtual::default(), &[])?;
        let seats = seats(&draft.persona, &BTreeMap::new())?;
        self.make_room(now);
        let segment = self.segments.take().ok_or_else(|| {
            let detail = "the hub is full: every segment number is in use or rests; try again in a minute";
            refused(RejectionKind::Full, "", detail)
        })?;
        self.revision += 1;
        let record = draft.record(id.clone(), segment, author, (seats, virtuals), now, self.revision);
        self.bury(&record, now);
        self.claims.insert(&record);
        self.ranges.insert(&record);
        self.records.insert(id.clone(), record);
        self.name_twins();
        Ok(id)
    }

    /// Gives a live persona another definition; its identity, segment and seats stay.
    pub(super) fn change(
        &mut self,
        id: &PersonaId,
        document: PersonaDocument,
        author: Author,
        now: Timestamp,
    ) -> Result<(), Rejection> {
        let Some(old) = self.records.get(id).cloned() else { return Err(not_found(&id.0)) };
        if !old.has_not_ended() || old.is_past_deadline(now) {
            let detail = "expired: a persona that ended never comes back; create another one";
            return Err(refused(RejectionKind::Conflict, "", detail));
        }
        if let Some(end) = old.leaving {
            let detail = format!("deleting: it is deleted at {end}; create another one");
            return Err(refused(RejectionKind::Conflict, "", detail));
        }
        let document = self.whole(document)?;
        if *old.document == document {
            self.moved(id, author);
            return Ok(());
        }
        let is_elsewhere = self.config.node.is_elsewhere(&document);
        if is_elsewhere || old.life == Life::Elsewhere {
            return self.change_elsewhere(&old, document, author, now);
        }
        let draft = self.draft(document, Some(&old), &author, now)?;
        if old.persona.overrides() || draft.persona.overrides() {
            return self.whole_or_nothing(|hub| {
                hub.claims.remove(&old);
                let before = hub.retake(&old, &draft, now)?;
                hub.change_to(old, draft, &before, author, now)?;
                hub.rank_takers(id, now)
            });
        }
        self.claims.remove(&old);
        let before = old.virtuals.clone();
        self.change_to(old, draft, &before, author, now)
    }

    /// Gives a persona that has let go of its claims a definition that was checked.
    fn change_to(
        &mut self,
        old: Record,
        draft: Draft,
        before: &Virtual,
        author: Author,
        now: Timestamp,
    ) -> Result<(), Rejection> {
        let admitted = self
            .check(&draft, before, &old.main_ranges())
            .and_then(|virtuals| Ok((seats(&draft.persona, &old.seats)?, virtuals)));
        let given = match admitted {
            Ok(given) => given,
            Err(rejection) => {
                self.claims.insert(&old);
                return Err(rejection);
            }
        };
        self.revision += 1;
        let overridden = old.takers(&given.1);
        let id = old.id.clone();
        let changed = draft.record(id.clone(), old.segment, author, given, old.created_at, self.revision);
        let ranges = changed.main_ranges();
        let mut kept = Virtual::default();
        for (range, alias) in old.aliases.iter().filter(|(range, _)| ranges.contains(range)) {
            kept.insert(*range, *alias);
        }
        let late = old.late_for(&changed.document);
        let record = Record {
            generation: old.generation + 1,
            life: if old.life == Life::Active { Life::Active } else { Life::Provisioning },
            faults: old.faults,
            aliases: kept,
            overridden,
            is_taken_up: old.is_taken_up,
            late,
            lists: old.lists,
            ..changed
        };
        let mut record = kept_lists(record);
        record.see_moments(now);
        self.bury(&record, now);
        self.rest_ranges(&old.persona, Some(&record.persona), now);
        self.ranges.insert(&record);
        self.claims.insert(&record);
        self.records.insert(id, record);
        self.name_twins();
        Ok(())
    }

    /// Notes that the same definition is written elsewhere.
    pub(super) fn moved(&mut self, id: &PersonaId, author: Author) {
        let Some(record) = self.records.get_mut(id) else { return };
        if record.origin != author.origin || record.rule_lines != author.rule_lines {
            record.origin = author.origin;
            record.rule_lines = author.rule_lines;
            record.view = None;
            self.revision += 1;
        }
    }

    /// Keeps a persona that had ended before it was read, so that its end can be seen.
    pub(super) fn stillborn(
        &mut self,
        document: PersonaDocument,
        end: Timestamp,
        author: Author,
        now: Timestamp,
    ) -> Result<(), Rejection> {
        let baseline = &self.config.baseline;
        let draft = Draft::checked(document, &BTreeMap::new(), Some(end), BTreeMap::new(), baseline)?;
        let id = self.fresh_id(now);
        self.revision += 1;
        let record = draft.record(id.clone(), SegmentId(0), author, Default::default(), now, self.revision);
        let life = Life::Expired { at: end, holds: false, listed: true };
        self.records.insert(id, Record { life, ..record });
        Ok(())
    }

    /// Checks a definition, all of it at once. A `ttl` counts from now, unless the old definition has the same one.
    pub(super) fn draft(
        &self,
        document: PersonaDocument,
        old: Option<&Record>,
        author: &Author,
        now: Timestamp,
    ) -> Result<Draft, Rejection> {
        let is_elsewhere = self.config.node.is_elsewhere(&document);
        let end = self.life_ends(&document, old, author.origin == Origin::Api, now);
        let allotted = if is_elsewhere { Ok(BTreeMap::new()) } else { self.allot(&document, old) };
        let checked = allotted.and_then(|allotted| {
            Draft::checked(document, &allotted, None, BTreeMap::new(), &self.config.baseline)
        });
        let (mut draft, end) = match (checked, end) {
            (Ok(draft), Ok(end)) => (draft, end),
            (Ok(_), Err(problems)) => return Err(invalid(problems)),
            (Err(rejection), end) => return Err(with_end(rejection, end.err().unwrap_or_default())),
        };
        draft.end_rules(rule_ends(&draft.persona, old, now));
        (draft.expires_at, draft.cap) = end;
        Ok(draft)
    }

    /// Refuses a definition that takes from others, and gives it ranges instead of those that it may share.
    fn check(&self, draft: &Draft, before: &Virtual, held: &[IpNet]) -> Result<Virtual, Rejection> {
        let describe = |id: &PersonaId| self.describe(id);
        let single_range = matches!(draft.document.ip_range, OneOrMany::One(_));
        let world =
            World { config: &self.config, inventory: &self.inventory, describe: &describe, single_range };
        let conflict = |problems| Rejection { kind: RejectionKind::Conflict, problems };
        let virtuals = if draft.persona.overrides() {
            overlap::kept(&draft.persona, before)
        } else {
            let virtuals = self.with_room(|room| overlap::assign(&draft.persona, before, room));
            virtuals.map_err(|problem| conflict(vec![problem]))?
        };
        let problems = self.claims.conflicts(&draft.persona, &virtuals, held, &world);
        if !problems.is_empty() {
            return Err(conflict(problems));
        }
        self.check_services(&draft.persona)?;
        self.claims.room(&draft.persona, &virtuals, &draft.policy, &self.config)?;
        let entries = draft.persona.sets().values().map(|set| set.entries.len()).sum();
        self.sets_fit(self.claims.named(draft.persona.name()), entries)?;
        Ok(virtuals)
    }

    pub(super) fn describe(&self, id: &PersonaId) -> String {
        match self.records.get(id) {
            Some(record) => format!("persona `{}` ({})", record.persona.name(), record.written()),
            None => format!("persona {id}"),
        }
    }

    /// Gives ranges that somebody else has too, and that their holders keep, another name for those others.
    /// Where the pool has no room left there is none, and the two cannot talk.
    pub(super) fn name_twins(&mut self) {
        let translated = self.claims.translated().filter_map(|id| self.records.get(id));
        let natives: Vec<(PersonaId, IpNet)> = translated
            .flat_map(|record| record.virtuals.iter().map(|(native, _)| (record.id.clone(), *native)))
            .collect();
        for (own, native) in natives {
            for (range, id) in self.claims.holders(&native) {
                let Some(holder) = self.records.get(&id).filter(|_| id != own) else { continue };
                if holder.aliases.get(&range).is_some() || !holder.main_ranges().contains(&range) {
                    continue;
                }
                let Some(alias) = self.with_room(|room| room.free(&range, &|_| None)) else { continue };
                let Some(holder) = self.records.get_mut(&id) else { continue };
                self.claims.remove(holder);
                holder.aliases.insert(range, alias);
                holder.view = None;
                self.claims.insert(holder);
            }
        }
    }

    /// Takes tombstones out of the data path whose ranges are wanted again.
    pub(super) fn bury(&mut self, record: &Record, now: Timestamp) {
        for range in record.main_ranges() {
            for (_, grave) in self.graves.overlapping(&range) {
                self.release(&grave, now);
            }
        }
    }

    /// While numbers of segments are scarce, each newcomer takes the oldest tombstone out of the data path.
    fn make_room(&mut self, now: Timestamp) {
        if !self.segments.are_scarce() {
            return;
        }
        let holding = self.records.values().filter_map(|record| match record.life {
            Life::Expired { at, holds: true, .. } => Some((at, record.id.clone())),
            Life::Provisioning
            | Life::Active
            | Life::Failed { .. }
            | Life::Elsewhere
            | Life::Expired { .. } => None,
        });
        if let Some((_, oldest)) = holding.min() {
            self.release(&oldest, now);
        }
    }

    pub(super) fn fresh_id(&mut self, now: Timestamp) -> PersonaId {
        loop {
            let id = self.ids.next(now);
            if !self.records.contains_key(&id) {
                return id;
            }
        }
    }
}

/// Elements stay as long as their set does; sets that changed are looked at anew.
fn kept_lists(mut record: Record) -> Record {
    let Record { persona, lists, .. } = &mut record;
    lists.sets.retain(|name, _| persona.sets().contains_key(name));
    lists.generation = lists.generation.wrapping_add(1);
    record
}

fn seats(persona: &Persona, before: &BTreeMap<String, Seat>) -> Result<BTreeMap<String, Seat>, Rejection> {
    seats::assign(persona, before).map_err(invalid)
}

/// A refusal with what is wrong with the end of the life as well.
fn with_end(rejection: Rejection, end: Vec<Problem>) -> Rejection {
    if end.is_empty() {
        return rejection;
    }
    let known: Vec<String> = rejection.problems.iter().map(|problem| problem.pointer.clone()).collect();
    let end = end.into_iter().filter(|problem| !known.contains(&problem.pointer));
    invalid(rejection.problems.into_iter().chain(end).collect())
}

pub(super) fn invalid(problems: Vec<Problem>) -> Rejection {
    Rejection { kind: RejectionKind::Invalid, problems }
}

pub(super) fn not_found(persona: &str) -> Rejection {
    refused(RejectionKind::NotFound, "", format!("there is no persona `{persona}`"))
}
