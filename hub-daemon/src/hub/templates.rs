//! Templates of the documents folder, for personas that come over the API.

use super::{Hub, refused};
use crate::command::{Rejection, RejectionKind};
use crate::document::persona::PersonaDocument;
use crate::document::template::{self, Templates};

impl Hub {
    /// Takes the templates that the documents folder has; personas made of them before stay as they are.
    pub(super) fn take_templates(&mut self, templates: Templates) {
        if self.templates != templates {
            self.templates = templates;
            self.revision += 1;
        }
    }

    /// A definition with what its template adds.
    pub(super) fn whole(&self, document: PersonaDocument) -> Result<PersonaDocument, Rejection> {
        if template::is_template(&document) {
            let detail = "templates are files: write it into the documents folder";
            return Err(refused(RejectionKind::Invalid, "/kind", detail));
        }
        let whole = template::whole(document, &self.templates);
        let Some(name) = &whole.template else { return Ok(whole) };
        let known: Vec<&str> = self.templates.keys().map(String::as_str).collect();
        let there = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        let detail = format!(
            "there is no template `{name}`: write it with `kind: template` into the documents folder; there: {there}"
        );
        Err(refused(RejectionKind::Invalid, "/template", detail))
    }
}
