//! Which personas a list shows.

use super::problem::ProblemDetails;
use super::query::Parameters;
use crate::outputs::status::state_name;
use crate::view::{Origin, PersonaView, Snapshot};

/// Personas in a page when the request does not say.
const PAGE: usize = 100;
/// Most personas in a page.
const PAGE_MAX: usize = 1_000;

/// What a list is asked for; everything that is set must hold.
#[derive(Debug, Default)]
pub(super) struct Filter {
    state: Option<String>,
    name: Option<String>,
    origin: Option<String>,
    labels: Vec<(String, String)>,
    cursor: Option<String>,
    limit: usize,
    pub(super) watch: bool,
}

impl Filter {
    /// Reads the query parameters.
    pub(super) fn read(mut parameters: Parameters) -> Result<Self, ProblemDetails> {
        let watch = parameters.flag("watch");
        for name in ["limit", "cursor"] {
            if watch && parameters.has(name) {
                parameters.refuse(name, "a watch has no pages: leave it out");
            }
        }
        let mut filter = Self {
            watch,
            state: parameters.one("state"),
            name: parameters.one("name"),
            origin: parameters.one("origin"),
            labels: Vec::new(),
            cursor: parameters.one("cursor"),
            limit: parameters.number("limit", PAGE, PAGE_MAX),
        };
        check(
            &mut parameters,
            "state",
            filter.state.as_deref(),
            &["pending", "provisioning", "active", "expiring", "expired", "deleting", "failed"],
        );
        check(&mut parameters, "origin", filter.origin.as_deref(), &["api", "file"]);
        for label in parameters.all("label") {
            match label.split_once('=') {
                Some((key, value)) if !key.is_empty() => {
                    filter.labels.push((key.to_owned(), value.to_owned()));
                }
                Some(_) | None => parameters.refuse("label", &format!("`{label}`: use key=value")),
            }
        }
        parameters.finish()?;
        Ok(filter)
    }

    /// One page, and the cursor of the next if there is one.
    pub(super) fn page(&self, snapshot: &Snapshot) -> (Vec<PersonaView>, Option<String>) {
        let mut personas: Vec<&PersonaView> = snapshot
            .personas
            .iter()
            .filter(|(id, _)| self.cursor.as_ref().is_none_or(|cursor| *id.0 > **cursor))
            .map(|(_, persona)| &**persona)
            .filter(|persona| self.takes(persona))
            .take(self.limit + 1)
            .collect();
        let more = personas.len() > self.limit;
        personas.truncate(self.limit);
        let next = if more { personas.last().map(|persona| persona.id.to_string()) } else { None };
        (personas.into_iter().cloned().collect(), next)
    }

    /// Whether it shows a persona.
    pub(super) fn takes(&self, persona: &PersonaView) -> bool {
        let origin = match persona.origin {
            Origin::Api => "api",
            Origin::File { .. } => "file",
            Origin::Interface => "interface",
        };
        self.state.as_ref().is_none_or(|state| state == state_name(persona.state))
            && self.name.as_ref().is_none_or(|name| *name == persona.definition.name)
            && self.origin.as_ref().is_none_or(|wanted| wanted == origin)
            && self.takes_labels(persona)
    }

    fn takes_labels(&self, persona: &PersonaView) -> bool {
        let labels = persona.definition.labels.as_ref();
        self.labels.iter().all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
    }
}

fn check(parameters: &mut Parameters, name: &str, value: Option<&str>, known: &[&str]) {
    if let Some(value) = value
        && !known.contains(&value)
    {
        parameters.refuse(name, &format!("`{value}`: use one of {}", known.join(", ")));
    }
}
