//! Files of documents: parsed whole, every error with file, line and column.

use std::path::{Path, PathBuf};

use super::located::{Node, Place};
use super::persona::PersonaDocument;
use super::read::{Reading, UNKNOWN_FIELD};
use super::snippet::Diagnostic;
use super::template::{self, Templates};
use crate::command::{FileDocument, Problem, Rejection};

/// One parsed file; keeps its text, so that what the hub refuses later can still be shown in place.
#[derive(Clone, Debug)]
pub struct Source {
    path: PathBuf,
    text: String,
    documents: Vec<(FileDocument, Node)>,
    templates: Vec<(PersonaDocument, Node)>,
}

/// Parses one YAML file with any number of `kind: persona` and `kind: template` documents. All errors at once, except that a
/// file which is not YAML has one.
pub fn parse(path: &Path, text: &str) -> Result<Source, Vec<Diagnostic>> {
    let mut documents = Vec::new();
    let mut templates = Vec::new();
    let mut errors = Vec::new();
    for node in nodes(path, text)? {
        match read(path, &node) {
            Ok(file) if template::is_template(&file.document) => templates.push((file.document, node)),
            Ok(document) => documents.push((document, node)),
            Err(problems) => errors.extend(show_all(path, text, &node, &problems)),
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    Ok(Source { path: path.to_owned(), text: text.to_owned(), documents, templates })
}

/// The personas of all files, in order, with what their templates add: what
/// [`crate::command::Command::Documents`] takes.
pub fn documents(sources: &[Source]) -> Vec<FileDocument> {
    let all = sources.iter().flat_map(|source| &source.templates);
    let templates = all.map(|(template, _)| (template.name.clone(), template.clone())).collect();
    let documents = sources.iter().flat_map(|source| &source.documents);
    let whole = |(file, _): &(FileDocument, Node)| FileDocument {
        document: template::whole(file.document.clone(), &templates),
        ..file.clone()
    };
    documents.map(whole).collect()
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
    let all: Vec<(&Source, &Node)> = sources
        .iter()
        .flat_map(|source| source.documents.iter().map(move |(_, node)| (source, node)))
        .collect();
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
    let document = match reading.document {
        Some(document) if reading.problems.is_empty() => document,
        _ => return Err(reading.problems),
    };
    let rules = document.security_policies.as_ref().map_or(0, Vec::len);
    let rule_lines = (0..rules).map(|rule| node.find(&format!("/security_policies/{rule}")).1.line).collect();
    Ok(FileDocument { path: path.to_owned(), line: node.place().line, rule_lines, document })
}

fn show(path: &Path, text: &str, node: &Node, problem: &Problem) -> Diagnostic {
    let (key, value) = node.find(&problem.pointer);
    let place = if problem.detail.starts_with(UNKNOWN_FIELD) { key.unwrap_or(value) } else { value };
    Diagnostic::new(path, text, place, &problem.pointer, problem.detail.clone())
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
