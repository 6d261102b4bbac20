//! Ranges that a persona takes from others for its life (`overlap: override`), and gives back when it ends.
//!
//! Whoever had such a range is known by a virtual one meanwhile, as a newcomer without `override` would be.
//! Its record says who took the range: when the last of them is gone, the range is its own again. Of several that take
//! the same, the one that [ends first](place::precedence) has it, and of those that end together whoever asked last.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use jiff::Timestamp;

use super::draft::Draft;
use super::{Hub, refused};
use crate::command::{Rejection, RejectionKind};
use crate::document::parts::OneOrMany;
use crate::document::persona::{OverlapDocument, PersonaDocument};
use crate::model::PersonaId;
use crate::model::persona::Persona;
use crate::model::prefix;
use crate::model::translation::Virtual;
use crate::systems::persona::claims::{World, range_pointer};
use crate::systems::persona::overlap::{self, Room};
use crate::systems::persona::{Life, Record, place};

impl Hub {
    /// Does what may fail half way: all of it, or nothing.
    pub(super) fn whole_or_nothing<T>(
        &mut self,
        change: impl FnOnce(&mut Self) -> Result<T, Rejection>,
    ) -> Result<T, Rejection> {
        let before = self.clone();
        let done = change(self);
        if done.is_err() {
            *self = before;
        }
        done
    }

    /// Has the holders of ranges that a persona takes make way, except where it keeps a virtual one.
    pub(super) fn make_way(
        &mut self,
        id: &PersonaId,
        persona: &Persona,
        document: &PersonaDocument,
        kept: &Virtual,
    ) -> Result<(), Rejection> {
        let single = matches!(document.ip_range, OneOrMany::One(_));
        for (index, range) in
            persona.ranges().iter().enumerate().filter(|(_, range)| kept.get(range).is_none())
        {
            let lent: Vec<(IpNet, PersonaId)> = self.claims.lent(range).cloned().collect();
            for (_, owner) in self.claims.holders(range).into_iter().chain(lent) {
                self.lend(&owner, range, (id, persona)).map_err(|detail| {
                    refused(RejectionKind::Conflict, &range_pointer(single, index), detail)
                })?;
            }
        }
        Ok(())
    }

    /// Of a persona that takes ranges before or after a change, and has let go of its claims: gives back what it
    /// no longer takes, and takes the rest. Returns the virtual ranges that it keeps.
    pub(super) fn retake(
        &mut self,
        old: &Record,
        draft: &Draft,
        now: Timestamp,
    ) -> Result<Virtual, Rejection> {
        let persona = &draft.persona;
        let touches = |range: &IpNet| persona.ranges().iter().any(|own| prefix::overlaps(own, range));
        let keeps = |range: &IpNet| persona.overrides() && touches(range);
        self.give_back(&old.id, &keeps, now);
        if !persona.overrides() {
            return Ok(old.virtuals.clone());
        }
        // Who asks for it only by now takes what others took from it, too.
        let before = if old.persona.overrides() { old.borrowed() } else { Virtual::default() };
        let kept = overlap::kept(persona, &before);
        self.make_way(&old.id, persona, &draft.document, &kept)?;
        Ok(kept)
    }

    /// Gives every range of a holder that overlaps another name until the taker ends. What is no range of its
    /// definition stays, and is in the taker's way.
    fn lend(
        &mut self,
        owner: &PersonaId,
        wanted: &IpNet,
        taker: (&PersonaId, &Persona),
    ) -> Result<(), String> {
        let Some(record) = self.records.get(owner) else { return Ok(()) };
        let (mut virtuals, mut overridden) = (record.virtuals.clone(), record.overridden.clone());
        for native in record.persona.ranges().iter().filter(|native| prefix::overlaps(native, wanted)) {
            if virtuals.get(native).is_none() {
                let instead = self.instead(record, native, &virtuals, taker.1)?;
                virtuals.insert(*native, instead);
                overridden.insert(*native, [taker.0.clone()].into());
            } else if let Some(takers) = overridden.get_mut(native) {
                takers.insert(taker.0.clone());
            }
        }
        let Some(record) = self.records.get_mut(owner) else { return Ok(()) };
        if record.overridden != overridden {
            self.claims.remove(record);
            (record.virtuals, record.overridden, record.view) = (virtuals, overridden, None);
            self.claims.insert(record);
        }
        Ok(())
    }

    /// What stands for a range of a holder: what its twins know it by, or something out of the pool.
    fn instead(
        &self,
        record: &Record,
        native: &IpNet,
        given: &Virtual,
        taker: &Persona,
    ) -> Result<IpNet, String> {
        let holder = self.describe(&record.id);
        if !record.persona.may_be_translated() {
            let why = if record.persona.has_ports() {
                "it has `overlap: reject`"
            } else {
                "it has no interface or endpoint of its own"
            };
            return Err(format!(
                "{native} of {holder} cannot be overridden, because {why}: change that, or use another range"
            ));
        }
        let given: Vec<IpNet> = given.iter().map(|(_, given)| *given).collect();
        let avoid = |candidate: &IpNet| {
            let mut ranges = given.iter().chain(taker.ranges()).chain(taker.nat().external());
            ranges.find(|other| prefix::overlaps(other, candidate)).copied()
        };
        let alias = record.aliases.get(native).filter(|alias| avoid(alias).is_none());
        let free = || self.with_room(|room| room.free(native, &avoid));
        alias.or_else(free).ok_or_else(|| {
            let length = native.prefix_len();
            format!("{native} of {holder} cannot be overridden: overlap_pool has no free /{length}: enlarge it in hub.yaml")
        })
    }

    pub(super) fn with_room<T>(&self, with: impl FnOnce(&Room<'_>) -> T) -> T {
        let describe = |id: &PersonaId| self.describe(id);
        let world = World {
            config: &self.config,
            inventory: &self.inventory,
            describe: &describe,
            single_range: false,
        };
        let made_up = IpNet::V6(self.unique_local);
        with(&Room { claims: &self.claims, graves: &self.graves, made_up, world: &world })
    }

    /// Gives back what a persona took, except from ranges that it keeps.
    pub(super) fn give_back(&mut self, taker: &PersonaId, keeps: &dyn Fn(&IpNet) -> bool, now: Timestamp) {
        let is_over = |record: &Record| {
            let lives = record.has_not_ended() && record.life != Life::Elsewhere;
            lives && record.overridden.iter().any(|(range, takers)| takers.contains(taker) && !keeps(range))
        };
        let lenders = self.records.values().filter(|record| is_over(record));
        let lenders: Vec<PersonaId> = lenders.map(|record| record.id.clone()).collect();
        for id in &lenders {
            self.let_go(id, taker, keeps, now);
        }
        if !lenders.is_empty() {
            self.revision += 1;
            self.name_twins();
        }
    }

    /// Gives back to a holder what a persona took from it, except ranges that it keeps.
    fn let_go(
        &mut self,
        lender: &PersonaId,
        taker: &PersonaId,
        keeps: &dyn Fn(&IpNet) -> bool,
        now: Timestamp,
    ) {
        let Some(record) = self.records.get_mut(lender) else { return };
        // One that is about to change has let go of its claims.
        let claims = self.claims.named(record.persona.name()) == Some(lender);
        if claims {
            self.claims.remove(record);
        }
        for (_, takers) in record.overridden.iter_mut().filter(|(range, _)| !keeps(range)) {
            takers.remove(taker);
        }
        for (range, _) in record.overridden.extract_if(.., |_, takers| takers.is_empty()) {
            record.virtuals.remove(&range);
        }
        record.view = None;
        let record = record.clone();
        self.bury(&record, now);
        if claims {
            self.claims.insert(&record);
        }
    }

    /// Those that took ranges from others that come before them by the order of ends: who comes first, and the taker.
    fn out_of_order(&self) -> Vec<(PersonaId, PersonaId)> {
        let precedence = |record: &Record| place::precedence(record, self.config.route_priority);
        let mut found = BTreeSet::new();
        for first in self.records.values().filter(|record| record.persona.overrides()) {
            let takers = first.overridden.values().flatten().filter_map(|id| self.records.get(id));
            let late = takers.filter(|taker| precedence(first) < precedence(taker));
            found.extend(late.map(|taker| (first.id.clone(), taker.id.clone())));
        }
        found.into_iter().collect()
    }

    /// Of a persona and those that took ranges from it, or that it took ranges from: has each have what it should by
    /// the order of their ends.
    pub(super) fn rank_takers(&mut self, id: &PersonaId, now: Timestamp) -> Result<(), Rejection> {
        let mut swaps = self.out_of_order();
        swaps.retain(|(first, second)| [first, second].contains(&id));
        swaps.into_iter().try_for_each(|(first, second)| self.put_before(&first, &second, now))
    }

    /// Gives the first what the second took from it, and has the second make way for the first.
    fn put_before(&mut self, first: &PersonaId, second: &PersonaId, now: Timestamp) -> Result<(), Rejection> {
        let Some(taker) = self.records.get(first).cloned() else { return Ok(()) };
        let taken = taker.overridden.iter().filter(|(_, takers)| takers.contains(second));
        for (range, _) in taken {
            self.lend(second, range, (first, &taker.persona)).map_err(|detail| {
                let whose = taker.persona.name();
                let detail =
                    format!("persona `{whose}` has {range} until it ends, before this one: {detail}");
                refused(RejectionKind::Conflict, "/ip_range", detail)
            })?;
        }
        self.let_go(first, second, &|_| false, now);
        self.revision += 1;
        self.name_twins();
        Ok(())
    }

    /// After a pass: of those that took ranges, whoever the kernel refused steps back, and whoever stepped back
    /// and works by now takes them again.
    pub(super) fn settle_takers(&mut self, ids: &[PersonaId], now: Timestamp) {
        for id in ids {
            let Some(record) = self.records.get(id).filter(|record| record.persona.overrides()) else {
                continue;
            };
            let record = record.clone();
            let settled = match record.life {
                Life::Failed { .. } => self.whole_or_nothing(|hub| hub.step_back(record, now)),
                Life::Active if record.has_stepped_back() => {
                    self.whole_or_nothing(|hub| hub.take_again(record, now))
                }
                Life::Provisioning | Life::Active | Life::Elsewhere | Life::Expired { .. } => continue,
            };
            // Where neither can be it stays as it is, and its conditions say so.
            if settled.is_ok() {
                self.revision += 1;
            }
        }
    }

    /// A persona that does not work gives back what it took, and gets virtual ranges for good.
    fn step_back(&mut self, mut record: Record, now: Timestamp) -> Result<(), Rejection> {
        self.claims.remove(&record);
        self.give_back(&record.id, &|_| false, now);
        let virtuals = self.with_room(|room| overlap::assign(&record.persona, &record.virtuals, room));
        let is_free = |range: &IpNet| self.claims.holder(range).is_none();
        record.virtuals = virtuals
            .map_err(|problem| Rejection { kind: RejectionKind::Conflict, problems: vec![problem] })?;
        if !record.main_ranges().iter().all(is_free) {
            return Err(refused(RejectionKind::Conflict, "/ip_range", "it has no virtual range"));
        }
        record.overridden.clear();
        self.keep(record, now);
        Ok(())
    }

    /// A persona that works takes what it gave back, unless somebody else took it meanwhile.
    fn take_again(&mut self, mut record: Record, now: Timestamp) -> Result<(), Rejection> {
        self.claims.remove(&record);
        let holders = record.persona.ranges().iter().flat_map(|range| self.claims.holders(range));
        let mut holders = holders.filter_map(|(_, id)| self.records.get(&id));
        if holders.any(|holder| holder.persona.overrides()) {
            return Err(refused(RejectionKind::Conflict, "/ip_range", "another persona took its range"));
        }
        record.virtuals = record.borrowed();
        self.make_way(&record.id, &record.persona, &record.document, &record.virtuals)?;
        let problems = self.with_room(|room| {
            let ranges = record.persona.ranges();
            room.claims.conflicts(&record.persona, &record.virtuals, ranges, room.world)
        });
        if !problems.is_empty() {
            return Err(Rejection { kind: RejectionKind::Conflict, problems });
        }
        self.keep(record, now);
        Ok(())
    }

    fn keep(&mut self, mut record: Record, now: Timestamp) {
        record.view = None;
        self.bury(&record, now);
        self.claims.insert(&record);
        self.records.insert(record.id.clone(), record);
        self.name_twins();
    }

    /// Gives back what nobody who lives here has: what was stored may be older than the configuration.
    pub(super) fn forget_takers(&mut self, now: Timestamp) {
        let takers = self.records.values().flat_map(|record| record.overridden.values().flatten());
        let lives = |record: &Record| record.has_not_ended() && record.life != Life::Elsewhere;
        let gone = takers.filter(|id| !self.records.get(id).is_some_and(lives));
        let gone: BTreeSet<PersonaId> = gone.cloned().collect();
        for id in gone {
            self.give_back(&id, &|_| false, now);
        }
        self.rank_all(now);
    }

    /// Has all that took ranges be in their order, after what decides it may have changed.
    pub(super) fn rank_all(&mut self, now: Timestamp) {
        for (first, second) in self.out_of_order() {
            // Where there is no room for another order, that of before stays.
            drop(self.whole_or_nothing(|hub| hub.put_before(&first, &second, now)));
        }
    }

    /// Sorts key: whoever takes ranges comes after those that have them.
    pub(super) fn takes(&self, document: &PersonaDocument) -> bool {
        let takes = |document: &PersonaDocument| document.overlap == Some(OverlapDocument::Override);
        let from_template = || self.whole(document.clone()).is_ok_and(|whole| takes(&whole));
        takes(document) || (document.template.is_some() && document.overlap.is_none() && from_template())
    }
}

impl Record {
    /// Its virtual ranges for those that others took.
    pub(super) fn borrowed(&self) -> Virtual {
        let mut borrowed = Virtual::default();
        for (native, instead) in
            self.virtuals.iter().filter(|(native, _)| self.overridden.contains_key(native))
        {
            borrowed.insert(*native, *instead);
        }
        borrowed
    }

    /// Who took its ranges, as far as it still has them.
    pub(super) fn takers(&self, virtuals: &Virtual) -> BTreeMap<IpNet, BTreeSet<PersonaId>> {
        let still =
            self.overridden.iter().filter(|(range, _)| virtuals.get(range) == self.virtuals.get(range));
        still.map(|(range, takers)| (*range, takers.clone())).collect()
    }
}
