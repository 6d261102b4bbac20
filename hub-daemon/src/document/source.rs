//! Files of documents: parsed whole, every error with file, line and column.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::interface::InterfaceRecordDocument;
use super::located::{Node, Place};
use super::persona::PersonaDocument;
use super::personality::PersonalityDocument;
use super::read::{Reading, UNKNOWN_FIELD};
use super::snippet::Diagnostic;
use super::template::{self, Templates};
use crate::command::{FileDocument, FileDocuments, Problem, Rejection};
use crate::model::personality::SECRET;

/// One parsed file; keeps its text, so that what the hub refuses later can still be shown in place.
#[derive(Clone, Debug)]
pub struct Source {
    path: PathBuf,
    text: String,
    documents: Vec<(FileDocument, Node)>,
    personalities: Vec<(FileDocument<PersonalityDocument>, Node)>,
    interfaces: Vec<(FileDocument<InterfaceRecordDocument>, Node)>,
    templates: Vec<(PersonaDocument, Node)>,
}

/// Kinds of documents beside personas and templates.
const PERSONALITY: &str = "personality";
const INTERFACE: &str = "interface";

/// Parses one YAML file with any number of documents of any kind. All errors at once, except that a file which
/// is not YAML has one.
pub fn parse(path: &Path, text: &str) -> Result<Source, Vec<Diagnostic>> {
    let mut source = Source {
        path: path.to_owned(),
        text: text.to_owned(),
        documents: Vec::new(),
        personalities: Vec::new(),
        interfaces: Vec::new(),
        templates: Vec::new(),
    };
    let mut errors = Vec::new();
    for node in nodes(path, text)? {
        if let Err((node, problems)) = source.add(node) {
            errors.extend(show_all(path, text, &node, &problems));
        }
    }
    if errors.is_empty() { Ok(source) } else { Err(errors) }
}

/// Reads the one document of a YAML text, whose kind is known.
pub fn one<T: DeserializeOwned>(
    path: &Path,
    text: &str,
    read: impl FnOnce(Value) -> Reading<T>,
) -> Result<T, Vec<Diagnostic>> {
    let mut nodes = nodes(path, text)?;
    let (Some(node), true) = (nodes.pop(), nodes.is_empty()) else {
        return Err(vec![Diagnostic::new(path, text, Place::default(), "", "use one document")]);
    };
    read(node.to_value()).settle().map_err(|problems| show_all(path, text, &node, &problems))
}

impl Source {
    /// Reads one document.
    fn add(&mut self, node: Node) -> Result<(), (Node, Vec<Problem>)> {
        let value = node.to_value();
        let path = self.path.as_path();
        match value.get("kind").and_then(|kind| kind.as_str()) {
            Some(PERSONALITY) => match Reading::personality(value).settle() {
                Ok(document) => {
                    let rules = document.firewall_rules.as_ref().map_or(0, Vec::len);
                    let file = placed(path, &node, document, ("firewall_rules", rules));
                    self.personalities.push((file, node));
                }
                Err(problems) => return Err((node, problems)),
            },
            Some(INTERFACE) => match Reading::interface(value).settle() {
                Ok(document) => {
                    let file = placed(path, &node, document, ("", 0));
                    self.interfaces.push((file, node));
                }
                Err(problems) => return Err((node, problems)),
            },
            _ => match read(path, &node) {
                Ok(file) if template::is_template(&file.document) => {
                    self.templates.push((file.document, node));
                }
                Ok(file) => self.documents.push((file, node)),
                Err(problems) => return Err((node, problems)),
            },
        }
        Ok(())
    }
}

/// The documents of all files, in order, personas with what their templates add: what
/// [`crate::command::Command::Documents`] takes.
pub fn documents(sources: &[Source]) -> FileDocuments {
    let all = sources.iter().flat_map(|source| &source.templates);
    let templates = all.map(|(template, _)| (template.name.clone(), template.clone())).collect();
    let documents = sources.iter().flat_map(|source| &source.documents);
    let whole = |(file, _): &(FileDocument, Node)| FileDocument {
        document: template::whole(file.document.clone(), &templates),
        ..file.clone()
    };
    let personalities = sources.iter().flat_map(|source| &source.personalities);
    let interfaces = sources.iter().flat_map(|source| &source.interfaces);
    FileDocuments {
        personas: documents.map(whole).collect(),
        personalities: personalities.map(|(file, _)| file.clone()).collect(),
        interfaces: interfaces.map(|(file, _)| file.clone()).collect(),
    }
}

/// The templates of all files. A name that is there twice is refused where it is there again.
pub fn templates(sources: &[Source]) -> Result<Templates, Vec<Diagnostic>> {
    let mut found = Templates::new();
    let mut problems = Vec::new();
    for source in sources {
        for (template, node) in &source.templates {
            if found.insert(template.name.clone(), template.clone()).is_some() {
                let detail = format!("there is another template `{}`", template.name);
                let problem = Problem::new("/name", detail);
                problems.extend(show_all(&source.path, &source.text, node, &[problem]));
            }
        }
    }
    if problems.is_empty() { Ok(found) } else { Err(problems) }
}

/// Shows in place why the hub refused the [`documents`] of these files.
pub fn explain(sources: &[Source], rejection: &Rejection) -> Vec<Diagnostic> {
    let personas =
        sources.iter().flat_map(|source| source.documents.iter().map(move |(_, node)| (source, node)));
    let personalities =
        sources.iter().flat_map(|source| source.personalities.iter().map(move |(_, node)| (source, node)));
    let interfaces =
        sources.iter().flat_map(|source| source.interfaces.iter().map(move |(_, node)| (source, node)));
    let all: Vec<(&Source, &Node)> = personas.chain(personalities).chain(interfaces).collect();
    let show = |problem: &Problem| {
        let (index, rest) = split_first(&problem.pointer);
        let Some((source, node)) = index.and_then(|index| all.get(index)) else {
            return Diagnostic::new("", "", Place::default(), "", problem.detail.clone());
        };
        show(&source.path, &source.text, node, &Problem::new(rest, problem.detail.clone()))
    };
    rejection.problems.iter().map(show).collect()
}

/// The documents of a YAML text as trees.
pub(super) fn nodes(path: &Path, text: &str) -> Result<Vec<Node>, Vec<Diagnostic>> {
    serde_saphyr::from_multiple_with_options(text, options()).map_err(|error| {
        let place = error.location().map(Place::from).unwrap_or_default();
        let detail = error.without_snippet().to_string();
        vec![Diagnostic::new(path, text, place, "", strip_place(&detail))]
    })
}

/// Shows problems of one document in place.
pub(super) fn show_all(path: &Path, text: &str, node: &Node, problems: &[Problem]) -> Vec<Diagnostic> {
    problems.iter().map(|problem| show(path, text, node, problem)).collect()
}

fn read(path: &Path, node: &Node) -> Result<FileDocument, Vec<Problem>> {
    let mut reading = Reading::persona(node.to_value());
    if let Some(document) = &reading.document
        && document.kind.is_none()
    {
        let detail = "field `kind` is missing: write `kind: persona`";
        reading.add(vec![Problem::new("/kind", detail)]);
    }
    let document = reading.settle()?;
    let rules = document.security_policies.as_ref().map_or(0, Vec::len);
    Ok(placed(path, node, document, ("security_policies", rules)))
}

/// A document with where it and its rules are written.
fn placed<D>(path: &Path, node: &Node, document: D, (rules, count): (&str, usize)) -> FileDocument<D> {
    let rule_lines = (0..count).map(|rule| node.find(&format!("/{rules}/{rule}")).1.line).collect();
    FileDocument { path: path.to_owned(), line: node.place().line, rule_lines, document }
}

fn show(path: &Path, text: &str, node: &Node, problem: &Problem) -> Diagnostic {
    let (key, value) = node.find(&problem.pointer);
    let place = if problem.detail.starts_with(UNKNOWN_FIELD) { key.unwrap_or(value) } else { value };
    let line = (place.line as usize).checked_sub(1).and_then(|line| text.lines().nth(line));
    // The line would show the secret, to whoever reads the log.
    let shows = problem.detail.starts_with(SECRET) || line.is_some_and(has_secret);
    let text = if shows { "" } else { text };
    Diagnostic::new(path, text, place, &problem.pointer, problem.detail.clone())
}

/// Whether a line may have a key in it: `private_key` and `preshared_key` have, their files have not.
fn has_secret(line: &str) -> bool {
    ["private_key", "preshared_key"].iter().any(|field| {
        line.match_indices(field).any(|(at, _)| {
            !line
                .get(at..)
                .is_some_and(|rest| rest.get(field.len()..).is_some_and(|rest| rest.starts_with("_file")))
        })
    })
}

fn split_first(pointer: &str) -> (Option<usize>, &str) {
    let rest = pointer.strip_prefix('/').unwrap_or(pointer);
    let (first, _) = rest.split_once('/').unwrap_or((rest, ""));
    (first.parse().ok(), rest.strip_prefix(first).unwrap_or_default())
}

/// The place is shown by the snippet already.
fn strip_place(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    let line = line.strip_prefix("error: ").unwrap_or(line);
    let end = line.find(" at line ").unwrap_or(line.len());
    line.get(..end).unwrap_or(line).to_owned()
}

/// Room for 100,000 personas; aliases stay bounded, so that a small file cannot become a large tree.
fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: 40_000_000,
            max_nodes: 20_000_000,
            max_documents: 200_000,
            max_total_scalar_bytes: 512 * 1024 * 1024,
            max_depth: 32,
            max_aliases: 10_000,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 200_000,
            max_replay_stack_depth: 8,
        },
        strict_booleans: true,
        with_snippet: false,
    }
}
