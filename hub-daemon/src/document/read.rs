//! A tree of values into a document, with every structural problem at once.
//!
//! Serde stops at the first error. Here the part that is wrong is noted, left out, and the rest is read
//! again, until what is left is a document.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::Segment;

use super::interface::InterfaceRecordDocument;
use super::persona::PersonaDocument;
use super::personality::PersonalityDocument;
use super::template;
use crate::command::Problem;
use crate::model::interface::InterfaceRecord;
use crate::model::persona::Persona;
use crate::model::personality::Personality;

/// Most problems reported for one document.
const PROBLEMS: usize = 50;

/// A document and what is wrong with it.
#[derive(Debug)]
pub struct Reading<T> {
    /// What is left without the wrong parts; `None` if that is not a document.
    pub document: Option<T>,
    /// Every problem found, in the order of reading.
    pub problems: Vec<Problem>,
    removed: BTreeMap<String, BTreeSet<usize>>,
}

impl<T: DeserializeOwned> Reading<T> {
    /// Reads a tree of values.
    pub fn new(mut value: Value) -> Self {
        let mut reading = Self { document: None, problems: Vec::new(), removed: BTreeMap::new() };
        reading.refuse_nulls(&mut value, "");
        while reading.problems.len() < PROBLEMS {
            let error = match serde_path_to_error::deserialize::<_, T>(&value) {
                Ok(document) => {
                    reading.document = Some(document);
                    break;
                }
                Err(error) => error,
            };
            let mut path: Vec<String> = error.path().iter().filter_map(step).collect();
            let (detail, field) = in_words(&error.inner().to_string());
            if let Some(field) = field
                && path.last() != Some(&field)
            {
                path.push(field);
            }
            let pointer = reading.original(&path);
            reading.problems.push(Problem::new(&pointer, detail));
            if !reading.remove(&mut value, &path) {
                break;
            }
        }
        reading
    }

    /// The document, if nothing is wrong with it.
    pub fn settle(self) -> Result<T, Vec<Problem>> {
        match self.document {
            Some(document) if self.problems.is_empty() => Ok(document),
            _ => Err(self.problems),
        }
    }

    /// Adds problems found in the document that is left, unless they follow from what was left out.
    pub fn add(&mut self, problems: Vec<Problem>) {
        let structural: Vec<String> = self.problems.iter().map(|problem| problem.pointer.clone()).collect();
        for problem in problems {
            let path: Vec<String> = problem.pointer.split('/').skip(1).map(str::to_owned).collect();
            let pointer = self.original(&path);
            if !structural.contains(&pointer) {
                self.problems.push(Problem { pointer, ..problem });
            }
        }
    }

    /// A blank value is a forgotten one: the default would be silent.
    fn refuse_nulls(&mut self, value: &mut Value, pointer: &str) {
        match value {
            Value::Object(fields) => {
                fields.retain(|key, field| {
                    let below = format!("{pointer}/{}", escape(key));
                    if field.is_null() {
                        let detail = format!("`{key}` has no value: give it one or leave it out");
                        self.problems.push(Problem::new(below, detail));
                        return false;
                    }
                    self.refuse_nulls(field, &below);
                    true
                });
            }
            Value::Array(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.refuse_nulls(item, &format!("{pointer}/{index}"));
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    /// The pointer that a path had before anything was left out.
    fn original(&self, path: &[String]) -> String {
        let mut pointer = String::new();
        for step in path {
            let shifted = self.removed.get(&pointer).and_then(|gone| {
                let index: usize = step.parse().ok()?;
                (0..).filter(|original| !gone.contains(original)).nth(index)
            });
            pointer.push('/');
            match shifted {
                Some(index) => pointer.push_str(&index.to_string()),
                None => pointer.push_str(step),
            }
        }
        pointer
    }

    /// Leaves out what is at `path`, or the nearest thing around it that exists.
    fn remove(&mut self, value: &mut Value, path: &[String]) -> bool {
        let Some((last, parents)) = path.split_last() else { return false };
        let parent_pointer: String = parents.iter().flat_map(|step| ["/", step]).collect();
        let removed = match value.pointer_mut(&parent_pointer) {
            Some(Value::Object(fields)) => fields.shift_remove(&unescape(last)).is_some(),
            Some(Value::Array(items)) => match last.parse::<usize>() {
                Ok(index) if index < items.len() => {
                    let original = self.original(path);
                    items.remove(index);
                    let original_index: Option<usize> =
                        original.rsplit('/').next().and_then(|step| step.parse().ok());
                    let list = self.original(parents);
                    self.removed.entry(list).or_default().extend(original_index);
                    true
                }
                _ => false,
            },
            _ => false,
        };
        removed || self.remove(value, parents)
    }
}

impl Reading<PersonaDocument> {
    /// Reads a persona and checks what it says; the clock and other personas are not asked.
    pub fn persona(value: Value) -> Self {
        Self::new(value).checked(false)
    }

    /// As [`Self::persona`], of a persona whose hub is chosen before anybody admits it.
    pub fn newcomer(value: Value) -> Self {
        Self::new(value).checked(true)
    }

    fn checked(mut self, may_choose: bool) -> Self {
        let bare = |document: &PersonaDocument| PersonaDocument { gateway: None, ..document.clone() };
        let chooses = |document: &PersonaDocument| {
            may_choose && document.gateway.as_ref().is_some_and(|gateway| gateway.choose.is_some())
        };
        let problems = match &self.document {
            Some(document) if template::is_template(document) => template::check(document),
            // What its template adds is known to the hub alone, which checks the whole.
            Some(document) if document.template.is_some() => Vec::new(),
            Some(document) if chooses(document) => Persona::new(&bare(document)).err().unwrap_or_default(),
            Some(document) => Persona::new(document).err().unwrap_or_default(),
            None => Vec::new(),
        };
        self.add(problems);
        self
    }
}

impl Reading<PersonalityDocument> {
    /// Reads a personality and checks what it says; subnets are not asked.
    pub fn personality(value: Value) -> Self {
        let mut reading = Self::new(value);
        let problems = reading.document.as_ref().and_then(|document| Personality::new(document).err());
        reading.add(problems.unwrap_or_default());
        reading
    }
}

impl Reading<InterfaceRecordDocument> {
    /// Reads an interface record and checks what it says; personalities are not asked.
    pub fn interface(value: Value) -> Self {
        let mut reading = Self::new(value);
        let problems = reading.document.as_ref().and_then(|document| InterfaceRecord::new(document).err());
        reading.add(problems.unwrap_or_default());
        reading
    }
}

/// Reads a persona from a tree of JSON values. Every problem at once, with JSON pointers.
pub fn persona_from_value(value: Value) -> Result<PersonaDocument, Vec<Problem>> {
    Reading::persona(value).settle()
}

/// Reads a personality from a tree of JSON values. Every problem at once, with JSON pointers.
pub fn personality_from_value(value: Value) -> Result<PersonalityDocument, Vec<Problem>> {
    Reading::personality(value).settle()
}

/// Reads an interface record from a tree of JSON values. Every problem at once, with JSON pointers.
pub fn interface_from_value(value: Value) -> Result<InterfaceRecordDocument, Vec<Problem>> {
    Reading::interface(value).settle()
}

/// Reads a persona from a JSON text. Every problem at once, with JSON pointers.
pub fn persona_from_slice(bytes: &[u8]) -> Result<PersonaDocument, Vec<Problem>> {
    let value = serde_json::from_slice(bytes)
        .map_err(|error| vec![Problem::new("", format!("not JSON: {error}"))])?;
    persona_from_value(value)
}

fn step(segment: &Segment) -> Option<String> {
    match segment {
        Segment::Seq { index } => Some(index.to_string()),
        Segment::Map { key } => Some(escape(key)),
        Segment::Enum { .. } | Segment::Unknown => None,
    }
}

/// Escapes one step of a JSON pointer (RFC 6901 section 3).
pub(crate) fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

fn unescape(step: &str) -> String {
    step.replace("~1", "/").replace("~0", "~")
}

/// How serde says what is unknown; the caret goes to the key then, not to the value.
pub(super) const UNKNOWN_FIELD: &str = "unknown field";

/// Serde's message in the words of the other messages, and the field that it names as unknown.
fn in_words(message: &str) -> (String, Option<String>) {
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let Some((name, known)) = quoted.split_first() else { return (message.to_owned(), None) };
    if message.starts_with(UNKNOWN_FIELD) {
        let hint = match nearest(name, known) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("use one of {}", known.join(", ")),
        };
        return (format!("{UNKNOWN_FIELD} `{name}`: {hint}"), Some(escape(name)));
    }
    if message.starts_with("unknown variant") {
        return (format!("`{name}` is not known here: use {}", listed(known)), None);
    }
    if message.starts_with("missing field") {
        return (format!("field `{name}` is missing"), None);
    }
    (message.to_owned(), None)
}

fn listed(words: &[&str]) -> String {
    match words.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => words.join(""),
    }
}

/// The known word that differs least, if it differs little.
pub(crate) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let (distance, near) = known.iter().map(|other| (distance(word, other), *other)).min()?;
    (distance <= 2 + word.len() / 5).then_some(near)
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, left) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut previous = i + 1;
        for (cell, right) in row.iter_mut().skip(1).zip(b.chars()) {
            let here = (diagonal + usize::from(left != right)).min(previous + 1).min(*cell + 1);
            diagonal = *cell;
            previous = here;
            *cell = here;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}
