//! Personalities and interfaces of the folder of documents.

use jiff::Timestamp;

use super::documents::origin;
use super::{Hub, refused};
use crate::command::{FileDocument, Rejection, RejectionKind};
use crate::document::interface::InterfaceRecordDocument;
use crate::document::personality::PersonalityDocument;
use crate::model::personality::Version;
use crate::view::Origin;

impl Hub {
    /// Keeps a personality of a file. A content that differs is another version; interfaces stay with theirs.
    pub(super) fn file_personality(
        &mut self,
        file: &FileDocument<PersonalityDocument>,
        listed: &[String],
        now: Timestamp,
    ) -> Result<(), Rejection> {
        let name = &file.document.name;
        if listed.iter().filter(|other| *other == name).count() > 1 {
            let detail = format!("name `{name}` is there twice");
            return Err(refused(RejectionKind::Conflict, "/name", detail));
        }
        let last = self.interfaces.versions.named(name).next_back();
        if last.is_some_and(|kept| kept.origin == Origin::Api) {
            let detail = format!("personality `{name}` was created by the API: delete it there first");
            return Err(refused(RejectionKind::Conflict, "/name", detail));
        }
        self.keep_version(&file.document, origin(file), now).map(drop)
    }

    /// Makes a record be as a file says; which personality it has is not a file's business but at first.
    pub(super) fn file_interface(
        &mut self,
        file: &FileDocument<InterfaceRecordDocument>,
        now: Timestamp,
    ) -> Result<(), Rejection> {
        match self.interfaces.records.get(&file.document.name) {
            None => self.whole_or_nothing(|hub| hub.enlist(&file.document, origin(file), now)),
            Some(record) if record.origin == Origin::Api => {
                let detail = format!(
                    "interface `{}` was created by the API: delete it there first",
                    record.settings.name
                );
                Err(refused(RejectionKind::Conflict, "/name", detail))
            }
            Some(_) => self.relist(&file.document, origin(file)),
        }
    }

    /// Forgets interfaces of files that no file has any more.
    pub(super) fn drop_interfaces(
        &mut self,
        listed: &[FileDocument<InterfaceRecordDocument>],
        now: Timestamp,
    ) -> Result<(), Rejection> {
        for (index, file) in listed.iter().enumerate() {
            let name = &file.document.name;
            if listed.iter().take(index).any(|other| other.document.name == *name) {
                let detail = format!("interface `{name}` is there twice ({})", file.path.display());
                return Err(refused(RejectionKind::Conflict, "", detail));
            }
        }
        let records = self.interfaces.records.iter();
        let gone = records.filter(|(name, record)| {
            let of_file = matches!(record.origin, Origin::File { .. });
            of_file && !listed.iter().any(|file| file.document.name == **name)
        });
        let gone: Vec<String> = gone.map(|(name, _)| name.clone()).collect();
        gone.iter().try_for_each(|name| self.delist(name, now))
    }

    /// Forgets personalities of files that no file has any more.
    pub(super) fn drop_personalities(&mut self, listed: &[String]) -> Result<(), Rejection> {
        let versions = self.interfaces.versions.values();
        let gone = versions.filter(|kept| {
            matches!(kept.origin, Origin::File { .. }) && !listed.contains(&kept.version.name)
        });
        let gone: Vec<Version> = gone.map(|kept| kept.version.clone()).collect();
        if gone.is_empty() {
            return Ok(());
        }
        self.unused(&gone)?;
        for version in &gone {
            self.interfaces_mut().versions.remove(version);
        }
        Ok(())
    }
}
