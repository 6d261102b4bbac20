//! Personas by id, and which of them were changed: since the hub was marked, saved, and shown.
//!
//! A record that is changed while somebody else holds it is copied first, so that what was before can be
//! taken back without a copy of everything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use crate::model::PersonaId;
use crate::systems::persona::Record;
use crate::view::PersonaView;

/// All records.
#[derive(Clone, Debug, Default)]
pub(super) struct Records {
    held: BTreeMap<PersonaId, Arc<Record>>,
    /// What records that changed since the mark were then; `None` for those that are new.
    before: BTreeMap<PersonaId, Option<Arc<Record>>>,
    /// Changed, made or removed since they were stored last.
    unsaved: BTreeSet<PersonaId>,
    /// Changed, made or removed since they were shown last.
    unseen: BTreeSet<PersonaId>,
    dues: Dues,
}

/// When time alone changes what is wanted or said of records, the earliest first.
#[derive(Clone, Debug, Default)]
struct Dues {
    by_time: BTreeSet<(Timestamp, PersonaId)>,
    by_id: BTreeMap<PersonaId, Timestamp>,
    /// Records that were changed since: theirs are not known.
    stale: BTreeSet<PersonaId>,
}

impl Records {
    /// The record of this id.
    pub(super) fn get(&self, id: &PersonaId) -> Option<&Record> {
        self.held.get(id).map(Arc::as_ref)
    }

    /// The record of this id, to change it.
    pub(super) fn get_mut(&mut self, id: &PersonaId) -> Option<&mut Record> {
        self.note(id);
        self.held.get_mut(id).map(Arc::make_mut)
    }

    /// Adds a record, or replaces one.
    pub(super) fn insert(&mut self, id: PersonaId, record: Record) {
        self.note(&id);
        self.held.insert(id, Arc::new(record));
    }

    /// Removes a record.
    pub(super) fn remove(&mut self, id: &PersonaId) -> Option<Record> {
        self.note(id);
        self.held.remove(id).map(Arc::unwrap_or_clone)
    }

    /// Whether there is a record of this id.
    pub(super) fn contains_key(&self, id: &PersonaId) -> bool {
        self.held.contains_key(id)
    }

    /// All records, in order of ids.
    pub(super) fn values(&self) -> impl DoubleEndedIterator<Item = &Record> {
        self.held.values().map(Arc::as_ref)
    }

    /// All records with their ids, in order.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (&PersonaId, &Record)> {
        self.held.iter().map(|(id, record)| (id, record.as_ref()))
    }

    /// All records with their ids, in order, to be held on to.
    pub(super) fn shared(&self) -> impl Iterator<Item = (&PersonaId, &Arc<Record>)> {
        self.held.iter()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    /// Every record, to change it.
    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut Record> {
        self.select_mut(|_| true)
    }

    /// The records that need a change, to change them.
    pub(super) fn select_mut(
        &mut self,
        needs: impl Fn(&Record) -> bool,
    ) -> impl Iterator<Item = &mut Record> {
        let those = self.held.values().filter(|record| needs(record)).map(|record| record.id.clone());
        let ids: Vec<PersonaId> = those.collect();
        for id in &ids {
            self.note(id);
        }
        self.held.values_mut().filter(move |record| needs(record)).map(Arc::make_mut)
    }

    fn note(&mut self, id: &PersonaId) {
        if !self.before.contains_key(id) {
            self.before.insert(id.clone(), self.held.get(id).cloned());
        }
        if !self.unsaved.contains(id) {
            self.unsaved.insert(id.clone());
        }
        if !self.unseen.contains(id) {
            self.unseen.insert(id.clone());
        }
        if !self.dues.stale.contains(id) {
            self.dues.stale.insert(id.clone());
        }
    }

    /// From here on changes can be taken back.
    pub(super) fn mark(&mut self) {
        self.before.clear();
    }

    /// Takes back what changed since the mark.
    pub(super) fn undo(&mut self) {
        for (id, before) in std::mem::take(&mut self.before) {
            match before {
                Some(record) => self.held.insert(id.clone(), record),
                None => self.held.remove(&id),
            };
            self.unseen.insert(id.clone());
            self.dues.stale.insert(id);
        }
    }

    /// Takes the place of others, so that an undo brings those back.
    pub(super) fn supersede(&mut self, others: &Self) {
        let new = self.held.keys().map(|id| (id.clone(), None));
        self.before = new.collect();
        self.before.extend(others.held.iter().map(|(id, record)| (id.clone(), Some(Arc::clone(record)))));
        self.before.extend(others.before.iter().map(|(id, record)| (id.clone(), record.clone())));
        self.unsaved = self.before.keys().cloned().collect();
        self.unseen = self.held.keys().cloned().collect();
        self.dues.stale.extend(self.before.keys().cloned());
    }

    /// When time alone changes what is wanted or said of any record; looks at those that were changed only.
    pub(super) fn deadline(&mut self, due: impl Fn(&Record) -> Option<Timestamp>) -> Option<Timestamp> {
        self.learn(due);
        self.dues.by_time.first().map(|(at, _)| *at)
    }

    /// Ids of the records that something is due of by `now`, in order.
    pub(super) fn due(
        &mut self,
        now: Timestamp,
        due: impl Fn(&Record) -> Option<Timestamp>,
    ) -> BTreeSet<PersonaId> {
        self.learn(due);
        let over = self.dues.by_time.iter().take_while(|(at, _)| *at <= now);
        over.map(|(_, id)| id.clone()).collect()
    }

    /// Looks at what was changed.
    fn learn(&mut self, due: impl Fn(&Record) -> Option<Timestamp>) {
        for id in std::mem::take(&mut self.dues.stale) {
            if let Some(at) = self.dues.by_id.remove(&id) {
                self.dues.by_time.remove(&(at, id.clone()));
            }
            if let Some(at) = self.held.get(&id).and_then(|record| due(record)) {
                self.dues.by_time.insert((at, id.clone()));
                self.dues.by_id.insert(id, at);
            }
        }
    }

    /// Ids of what was changed, made or removed since [`Self::saved`].
    pub(super) fn unsaved(&self) -> impl ExactSizeIterator<Item = &PersonaId> {
        self.unsaved.iter()
    }

    /// Everything is stored.
    pub(super) fn saved(&mut self) {
        self.unsaved.clear();
    }

    /// Keeps the view that a record is shown by, which is no change.
    pub(super) fn show(&mut self, id: &PersonaId, view: &Arc<PersonaView>) {
        if let Some(record) = self.held.get_mut(id)
            && !record.view.as_ref().is_some_and(|shown| Arc::ptr_eq(shown, view))
        {
            Arc::make_mut(record).view = Some(Arc::clone(view));
        }
    }

    /// Ids of what was changed, made or removed since this was asked last.
    pub(super) fn take_unseen(&mut self) -> BTreeSet<PersonaId> {
        std::mem::take(&mut self.unseen)
    }
}
