//! The folder of documents as one change: all of it is admitted, or nothing changes.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::Hub;
use super::admit::Author;
use crate::command::{FileDocument, FileDocuments, Problem, Rejection, RejectionKind, Reply};
use crate::model::PersonaId;
use crate::model::expiry::Expiry;
use crate::systems::persona::{Life, Record};
use crate::view::Origin;

impl Hub {
    /// Makes file-owned personas be as the documents say. A name keeps its identity.
    pub(super) fn documents(&mut self, documents: FileDocuments, now: Timestamp) -> Result<Reply, Rejection> {
        let mut next = self.clone();
        match next.apply_documents(documents, now) {
            Ok(()) => {
                next.documents_read = Some(now);
                next.documents_error = None;
                next.revision = next.revision.max(self.revision + 1);
                next.heard.get_or_insert(next.revision);
                *self = next;
                Ok(Reply::Done)
            }
            Err(rejection) => {
                let details: Vec<&str> =
                    rejection.problems.iter().map(|problem| problem.detail.as_str()).collect();
                self.documents_failed(details.join("; "));
                Err(rejection)
            }
        }
    }

    fn apply_documents(&mut self, documents: FileDocuments, now: Timestamp) -> Result<(), Rejection> {
        let FileDocuments { personas: documents, personalities, interfaces } = documents;
        let names = unique_names(&documents)?;
        let mut problems = Vec::new();
        let mut kind = None;
        let first = documents.len();
        let last = first + personalities.len();
        self.drop_interfaces(&interfaces, now)?;
        self.drop_unlisted(&names, now);
        let owned = self.owned_by_files();
        let mut unsettled: Vec<(usize, FileDocument)> = Vec::new();
        for (index, document) in documents.into_iter().enumerate() {
            let settled =
                owned.get(&document.document.name).into_iter().flatten().find(|id| {
                    self.records.get(id).is_some_and(|record| *record.document == document.document)
                });
            match settled {
                Some(id) => self.moved(id, author(&document)),
                None => unsettled.push((index, document)),
            }
        }
        // Whoever takes ranges comes after those that have them.
        unsettled.sort_by_cached_key(|(_, document)| self.takes(&document.document));
        // Ranges may move between documents: whoever changes lets go first.
        for (_, document) in &unsettled {
            for id in owned.get(&document.document.name).into_iter().flatten() {
                if let Some(record) = self.records.get(id) {
                    self.claims.remove(record);
                }
            }
        }
        for (index, document) in unsettled {
            if let Err(rejection) = self.apply_document(document, &owned, now) {
                kind = kind.max(Some(severity(rejection.kind)));
                problems.extend(rejection.problems.into_iter().map(|problem| below(index, problem)));
            }
        }
        let listed: Vec<String> = personalities.iter().map(|file| file.document.name.clone()).collect();
        let kept = personalities.into_iter().map(|file| self.file_personality(&file, &listed, now));
        let kept: Vec<Result<(), Rejection>> = kept.collect();
        let enlisted = interfaces.iter().map(|file| self.file_interface(file, now));
        let enlisted: Vec<Result<(), Rejection>> = enlisted.collect();
        let those = (first..).zip(kept).chain((last..).zip(enlisted));
        for (index, rejection) in those.filter_map(|(index, done)| Some((index, done.err()?))) {
            kind = kind.max(Some(severity(rejection.kind)));
            problems.extend(rejection.problems.into_iter().map(|problem| below(index, problem)));
        }
        match kind {
            None => self.drop_personalities(&listed),
            Some((_, kind)) => Err(Rejection { kind, problems }),
        }
    }

    /// Removes live file-owned personas that no document names, and lets go of their tombstones.
    fn drop_unlisted(&mut self, names: &BTreeMap<String, usize>, now: Timestamp) {
        let unlisted = self.records.values().filter(|record| {
            matches!(record.origin, Origin::File { .. }) && !names.contains_key(record.persona.name())
        });
        let ids: Vec<PersonaId> = unlisted.map(|record| record.id.clone()).collect();
        for id in ids {
            match self.records.get_mut(&id).map(|record| &mut record.life) {
                Some(Life::Expired { listed, .. }) => *listed = false,
                Some(_) => self.remove(&id, now),
                None => {}
            }
        }
        self.advance(now);
    }

    /// Personas of files by name: those alive, or else those that ended.
    fn owned_by_files(&self) -> BTreeMap<String, Vec<PersonaId>> {
        let mut owned: BTreeMap<String, Vec<PersonaId>> = BTreeMap::new();
        for record in self.records.values().filter(|record| matches!(record.origin, Origin::File { .. })) {
            let ids = owned.entry(record.persona.name().to_owned()).or_default();
            if record.has_not_ended() {
                ids.clear();
            }
            ids.push(record.id.clone());
        }
        owned
    }

    fn apply_document(
        &mut self,
        document: FileDocument,
        owned: &BTreeMap<String, Vec<PersonaId>>,
        now: Timestamp,
    ) -> Result<(), Rejection> {
        let author = author(&document);
        let mut owners = owned.get(&document.document.name).into_iter().flatten();
        let alive = owners.find(|id| self.records.get(id).is_some_and(Record::has_not_ended));
        if let Some(id) = alive {
            return self.change(id, document.document, author, now);
        }
        let written = document.document.expiration.as_deref();
        if let Ok(Expiry::At(end)) = Expiry::parse(written, None)
            && end <= now
            && document.document.ttl.is_none()
        {
            return self.stillborn(document.document, end, author, now);
        }
        self.admit(document.document, author, now).map(drop)
    }
}

/// Where a document is written.
pub(super) fn origin<D>(document: &FileDocument<D>) -> Origin {
    Origin::File { path: document.path.clone(), line: document.line }
}

fn author(document: &FileDocument) -> Author {
    Author { origin: origin(document), rule_lines: document.rule_lines.clone() }
}

/// Positions by name; a name that is there twice is refused where it is there again.
fn unique_names(documents: &[FileDocument]) -> Result<BTreeMap<String, usize>, Rejection> {
    let mut names: BTreeMap<String, usize> = BTreeMap::new();
    let mut problems = Vec::new();
    for (index, document) in documents.iter().enumerate() {
        let name = &document.document.name;
        match names.get(name).and_then(|first| documents.get(*first)) {
            Some(first) => {
                let detail = format!("name `{name}` is taken by {}:{}", first.path.display(), first.line);
                problems.push(below(index, Problem::new("/name", detail)));
            }
            None => _ = names.insert(name.clone(), index),
        }
    }
    if problems.is_empty() {
        return Ok(names);
    }
    Err(Rejection { kind: RejectionKind::Conflict, problems })
}

pub(super) fn below(index: usize, problem: Problem) -> Problem {
    Problem { pointer: format!("/{index}{}", problem.pointer), ..problem }
}

/// What is said of a set of documents with problems of several kinds: the one that an author can mend.
pub(super) fn severity(kind: RejectionKind) -> (u8, RejectionKind) {
    let rank = match kind {
        RejectionKind::Full => 0,
        RejectionKind::NotFound | RejectionKind::Changed => 1,
        RejectionKind::Conflict => 2,
        RejectionKind::Invalid => 3,
    };
    (rank, kind)
}
