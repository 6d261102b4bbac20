//! Personas of other hubs: known by name, with an end, and nothing in this kernel.

use jiff::Timestamp;

use super::admit::Author;
use super::draft::Draft;
use super::{Hub, refused};
use crate::command::{Rejection, RejectionKind};
use crate::document::persona::PersonaDocument;
use crate::model::{PersonaId, SegmentId};
use crate::systems::persona::{Life, Record};
use crate::view::Origin;

impl Hub {
    /// Notes a persona that lives on another hub.
    pub(super) fn admit_elsewhere(
        &mut self,
        document: PersonaDocument,
        author: Author,
        now: Timestamp,
    ) -> Result<PersonaId, Rejection> {
        let draft = self.draft(document, None, &author, now)?;
        self.name_is_free(&draft)?;
        let id = self.fresh_id(now);
        self.revision += 1;
        let record = draft.record(id.clone(), SegmentId(0), author, Default::default(), now, self.revision);
        self.keep_elsewhere(record);
        Ok(id)
    }

    /// Changes a persona that lives on another hub, before or after. One that moves is another one here.
    pub(super) fn change_elsewhere(
        &mut self,
        old: &Record,
        document: PersonaDocument,
        author: Author,
        now: Timestamp,
    ) -> Result<(), Rejection> {
        let stays = old.life == Life::Elsewhere && self.config.node.is_elsewhere(&document);
        if !stays {
            if author.origin == Origin::Api {
                let detail = "its gateway would be another hub: delete it, and create it there";
                return Err(refused(RejectionKind::Conflict, "/gateway", detail));
            }
            self.remove(&old.id, now);
            return self.admit(document, author, now).map(drop);
        }
        let draft = self.draft(document, Some(old), &author, now)?;
        self.claims.remove(old);
        if let Err(rejection) = self.name_is_free(&draft) {
            self.claims.insert(old);
            return Err(rejection);
        }
        self.revision += 1;
        let given = Default::default();
        let record = draft.record(old.id.clone(), SegmentId(0), author, given, old.created_at, self.revision);
        let mut record = Record { generation: old.generation + 1, ..record };
        record.see_moments(now);
        self.keep_elsewhere(record);
        Ok(())
    }

    fn keep_elsewhere(&mut self, record: Record) {
        let record = Record { life: Life::Elsewhere, ..record };
        self.claims.insert(&record);
        self.records.insert(record.id.clone(), record);
    }

    fn name_is_free(&self, draft: &Draft) -> Result<(), Rejection> {
        let name = draft.persona.name();
        let Some(id) = self.claims.named(name) else { return Ok(()) };
        let detail = format!("name `{name}` belongs to {}", self.describe(id));
        Err(refused(RejectionKind::Conflict, "/name", detail))
    }
}
