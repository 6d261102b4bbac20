//! Sets and quarantine at run time: elements come and go without a change of the definition.

use hub_common::limits::{ELEMENTS_PER_SET, QUARANTINED as QUARANTINED_ALL, SET_ELEMENTS};
use jiff::Timestamp;
use std::net::IpAddr;
use std::time::Duration;

use super::admit::not_found;
use super::{Hub, refused};
use crate::command::{Elements, Problem, Rejection, RejectionKind, Reply};
use crate::model::PersonaId;
use crate::systems::persona::Record;
use crate::systems::persona::lists::QUARANTINED;

impl Hub {
    /// Changes what a set holds.
    pub(super) fn elements(
        &mut self,
        persona: &str,
        set: &str,
        change: &Elements,
        now: Timestamp,
    ) -> Result<Reply, Rejection> {
        let record = self.alive(persona, now)?;
        let Some(defined) = record.persona.sets().get(set) else {
            let detail = format!("persona `{}` has no set `{set}`", record.persona.name());
            return Err(refused(RejectionKind::NotFound, "", detail));
        };
        let mut lists = record.lists.clone();
        match change {
            Elements::Add { entries, ttl } => {
                let ttl = ttl.or(defined.ttl);
                let end = ttl.map(|ttl| now.checked_add(ttl)).transpose().map_err(|_range| {
                    refused(
                        RejectionKind::Invalid,
                        "/ttl",
                        "ttl: ends after the year 9999; use a shorter one",
                    )
                })?;
                let elements = lists.sets.entry(set.to_owned()).or_default();
                elements.extend(entries.iter().map(|entry| (*entry, end)));
            }
            Elements::Remove(entries) => {
                let written =
                    entries.iter().enumerate().filter(|(_, entry)| defined.entries.contains_key(entry));
                let problems: Vec<Problem> = written
                    .map(|(index, entry)| {
                        let detail = format!("{entry} is in the document of the persona: change it there");
                        Problem::new(format!("/entries/{index}"), detail)
                    })
                    .collect();
                if !problems.is_empty() {
                    return Err(Rejection { kind: RejectionKind::Conflict, problems });
                }
                if let Some(elements) = lists.sets.get_mut(set) {
                    elements.retain(|element, _| !entries.contains(element));
                }
                lists.sets.retain(|_, elements| !elements.is_empty());
            }
        }
        lists.generation = lists.generation.wrapping_add(1);
        let id = record.id.clone();
        self.put_lists(&id, set, lists)
    }

    fn put_lists(
        &mut self,
        id: &PersonaId,
        set: &str,
        lists: crate::systems::persona::lists::Lists,
    ) -> Result<Reply, Rejection> {
        let Some(record) = self.records.get(id) else { return Err(not_found(&id.0)) };
        let changed = Record { lists, view: None, ..record.clone() };
        let here = changed.elements(set).len();
        if here > ELEMENTS_PER_SET {
            let detail = format!("set `{set}` would hold {here} elements: use at most {ELEMENTS_PER_SET}");
            return Err(refused(RejectionKind::Full, "/entries", detail));
        }
        let others = self.records.values().filter(|other| other.id != *id).map(Record::element_count);
        let all = others.sum::<usize>() + changed.element_count();
        if all > SET_ELEMENTS as usize {
            let detail = format!("all sets would hold {all} elements: the hub has room for {SET_ELEMENTS}");
            return Err(refused(RejectionKind::Full, "/entries", detail));
        }
        self.records.insert(id.clone(), changed);
        self.revision += 1;
        Ok(Reply::Done)
    }

    /// Keeps an address out of a persona, or lets it in again.
    pub(super) fn quarantine(
        &mut self,
        persona: &str,
        address: IpAddr,
        time: Option<Duration>,
        now: Timestamp,
    ) -> Result<Reply, Rejection> {
        let id = self.alive(persona, now)?.id.clone();
        let all: usize = self.records.values().map(|record| record.lists.quarantine.len()).sum();
        let Some(record) = self.records.get_mut(&id) else { return Err(not_found(persona)) };
        record.view = None;
        let out = &mut record.lists.quarantine;
        match time {
            None => {
                out.remove(&address);
            }
            Some(time) => {
                let known = out.contains_key(&address);
                if !known && (out.len() >= QUARANTINED || all >= QUARANTINED_ALL as usize / 2) {
                    let detail = format!("the quarantine is full: use at most {QUARANTINED} addresses");
                    return Err(refused(RejectionKind::Full, "/address", detail));
                }
                let end = now.checked_add(time).map_err(|_range| {
                    refused(
                        RejectionKind::Invalid,
                        "/ttl",
                        "ttl: ends after the year 9999; use a shorter one",
                    )
                })?;
                out.insert(address, end);
            }
        }
        self.revision += 1;
        Ok(Reply::Segment(record.segment))
    }

    fn alive(&self, persona: &str, now: Timestamp) -> Result<&Record, Rejection> {
        let record = self.find(persona).ok_or_else(|| not_found(persona))?;
        if record.is_live(now) {
            return Ok(record);
        }
        let detail = "expired: a persona that ended never comes back; create another one";
        Err(refused(RejectionKind::Conflict, "", detail))
    }

    /// Refuses a definition whose sets do not fit beside the others'.
    pub(super) fn sets_fit(&self, except: Option<&PersonaId>, entries: usize) -> Result<(), Rejection> {
        if entries == 0 {
            return Ok(());
        }
        let others = self.records.values().filter(|record| Some(&record.id) != except);
        let all = others.map(Record::element_count).sum::<usize>() + entries;
        if all <= SET_ELEMENTS as usize {
            return Ok(());
        }
        let detail = format!("all sets would hold {all} elements: the hub has room for {SET_ELEMENTS}");
        Err(refused(RejectionKind::Full, "/sets", detail))
    }
}
