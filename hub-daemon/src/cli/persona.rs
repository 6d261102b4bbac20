//! `hubctl persona`: list, show, create, extend and delete.

use std::collections::BTreeMap;

use axum::http::Method;
use ipnet::IpNet;
use jiff::{SpanRelativeTo, Timestamp};
use serde_json::{Value, json};

use super::arguments::{CreateAsked, Format, ListAsked, NewEnd, PersonaVerb};
use super::client::{self, Client};
use super::exit::Failure;
use super::output::{self, Output};
use super::table::{cell, pairs, section, table};
use super::{candidate, clone, definition, edit, lists, template, watch};
use crate::outputs::status::state_name;
use crate::view::{Condition, Origin, PersonaView};

/// Personas asked for at once.
const PAGE: &str = "1000";

pub(super) async fn run(client: &Client, output: Output, verb: PersonaVerb) -> Result<(), Failure> {
    match verb {
        PersonaVerb::List(asked) if asked.watch => watch::run(client, output, &asked).await,
        PersonaVerb::List(asked) => list(client, output, &asked).await,
        PersonaVerb::Show { persona } => {
            let answer = client.get(&path(&persona)).await?;
            show(output, &answer.body)
        }
        PersonaVerb::Create(asked) => create(client, output, &asked).await,
        PersonaVerb::Edit { persona } => edit::run(client, output, &persona).await,
        PersonaVerb::Extend { persona, end } => extend(client, output, &persona, &end).await,
        PersonaVerb::Set(verb) => lists::set(client, output, verb).await,
        PersonaVerb::Quarantine(verb) => lists::quarantine(client, output, verb).await,
        PersonaVerb::Try(asked) => candidate::run(client, output, &asked).await,
        PersonaVerb::Clone { persona, name, set } => clone::run(client, output, &persona, &name, &set).await,
        PersonaVerb::Template { name } => template::show(client, output, name.as_deref()).await,
        PersonaVerb::FromTemplate { template, name, set } => {
            template::create(client, output, &template, &name, &set).await
        }
        PersonaVerb::Delete { drain, personas } => {
            for persona in personas {
                let path = client::query(&path(&persona), [("drain", drain.as_deref())]);
                client.ask(Method::DELETE, &path, None, None).await?;
                let what =
                    drain.as_ref().map_or_else(|| "deleted".to_owned(), |time| format!("drains for {time}"));
                output.done(&format!("{persona} {what}"))?;
            }
            Ok(())
        }
    }
}

/// Path of one persona.
pub(super) fn path(persona: &str) -> String {
    format!("/v1/personas/{}", client::step(persona))
}

async fn list(client: &Client, output: Output, asked: &ListAsked) -> Result<(), Failure> {
    let mut personas: Vec<Value> = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let labels = asked.labels.iter().map(|label| ("label", Some(label.as_str())));
        let parameters = [
            ("limit", Some(PAGE)),
            ("state", asked.state.as_deref()),
            ("origin", asked.origin.as_deref()),
            ("cursor", cursor.as_deref()),
        ];
        let page =
            client.get(&client::query("/v1/personas", parameters.into_iter().chain(labels))).await?.body;
        personas.extend(page.get("personas").and_then(Value::as_array).into_iter().flatten().cloned());
        cursor = page.get("next_cursor").and_then(Value::as_str).map(str::to_owned);
        if cursor.is_none() {
            break;
        }
    }
    match output.format() {
        Format::Yaml => {
            let documents: Result<Vec<String>, Failure> =
                personas.iter().map(|persona| definition::document(definition_of(persona))).collect();
            output.line(&documents?.join("---\n"))
        }
        Format::Table | Format::Json => output.show(&Value::Array(personas), |all: &Vec<PersonaView>| {
            table(["NAME", "STATE", "RANGE", "EXPIRES", "ORIGIN", "CONDITIONS"], all.iter().map(row))
        }),
    }
}

/// What a line about a persona says.
pub(super) fn row(persona: &PersonaView) -> [String; 6] {
    let reasons: Vec<&str> = persona.conditions.iter().map(|condition| condition.reason.as_str()).collect();
    [
        persona.definition.name.clone(),
        state_name(persona.state).to_owned(),
        persona.ranges.join(", "),
        persona.expires_at.map_or_else(|| "never".to_owned(), |end| end.to_string()),
        origin(&persona.origin),
        reasons.join(","),
    ]
}

/// Who owns something.
pub(super) fn origin(origin: &Origin) -> String {
    match origin {
        Origin::Api => "api".to_owned(),
        Origin::Interface => "interface".to_owned(),
        Origin::File { path, line } => format!("{}:{line}", path.display()),
    }
}

/// Shows one persona.
pub(super) fn show(output: Output, persona: &Value) -> Result<(), Failure> {
    match output.format() {
        Format::Yaml => output.line(&definition::document(definition_of(persona))?),
        Format::Table | Format::Json => output.show(persona, describe),
    }
}

fn definition_of(persona: &Value) -> &Value {
    persona.get("definition").unwrap_or(&Value::Null)
}

fn describe(persona: &PersonaView) -> String {
    let definition = serde_json::to_value(&persona.definition).unwrap_or_default();
    let field = |name: &str| cell(definition.get(name));
    let mut text = pairs(&[
        ("name", persona.definition.name.clone()),
        ("id", persona.id.to_string()),
        ("state", state_name(persona.state).to_owned()),
        ("generation", persona.generation.to_string()),
        ("origin", origin(&persona.origin)),
        ("created", persona.created_at.to_string()),
        ("expires", persona.expires_at.map_or_else(|| "never".to_owned(), |end| end.to_string())),
        ("range", persona.ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
        ("virtual", ranges(&persona.virtual_ranges)),
        ("alias", ranges(&persona.aliases)),
        ("mtu", field("mtu")),
        ("protocols", field("protocols")),
        ("qos", field("qos")),
        ("interfaces", field("interfaces")),
        ("endpoints", field("endpoints")),
        ("peers", field("peers")),
        ("egress", field("egress")),
        ("established", field("established")),
        ("enforcement", field("enforcement")),
        ("labels", field("labels")),
        ("gateway", field("gateway")),
    ]);
    text.push_str(&section("rules, first match wins", &rules(&definition, &persona.rule_sources)));
    text.push_str(&section("conditions", &conditions(&persona.conditions)));
    text.push_str(&section("warnings", &persona.warnings.join("\n")));
    text
}

fn ranges(ranges: &BTreeMap<IpNet, IpNet>) -> String {
    ranges.iter().map(|(range, other)| format!("{range} as {other}")).collect::<Vec<_>>().join(", ")
}

fn rules(definition: &Value, sources: &[String]) -> String {
    let Some(rules) = definition.get("security_policies").and_then(Value::as_array) else {
        return String::new();
    };
    if rules.is_empty() {
        return String::new();
    }
    let rows = rules.iter().enumerate().map(|(index, rule)| {
        let field = |name: &str| cell(rule.get(name));
        let direction = rule.get("direction").map_or_else(|| "ingress".to_owned(), |value| cell(Some(value)));
        [
            index.to_string(),
            field("action"),
            direction,
            field("protocol"),
            field("port"),
            field("source"),
            field("destination"),
            sources.get(index).cloned().unwrap_or_default(),
        ]
    });
    table(["#", "ACTION", "DIRECTION", "PROTOCOL", "PORT", "SOURCE", "DESTINATION", "WRITTEN"], rows)
}

/// Conditions, one per line.
pub(super) fn conditions(conditions: &[Condition]) -> String {
    let lines: Vec<_> =
        conditions.iter().map(|condition| (condition.reason.as_str(), condition.message.clone())).collect();
    pairs(&lines)
}

async fn create(client: &Client, output: Output, asked: &CreateAsked) -> Result<(), Failure> {
    let documents = match &asked.file {
        Some(file) => definition::read(file)?,
        None => vec![definition::from_flags(asked)?],
    };
    for document in documents {
        let answer = client.send(Method::POST, "/v1/personas", &document).await?;
        show_change(output, &answer.body, "created")?;
    }
    Ok(())
}

/// Says what became of a persona: one line to people, the whole view to programs.
pub(super) fn show_change(output: Output, persona: &Value, what: &str) -> Result<(), Failure> {
    match output.format() {
        Format::Table => output.show(persona, |persona: &PersonaView| {
            let end = persona.expires_at.map_or_else(String::new, |end| format!(", until {end}"));
            let node = persona.definition.gateway.as_ref().and_then(|gateway| gateway.node.as_deref());
            let mut text = format!(
                "{} {what}{}: {}, id {}{end}",
                persona.definition.name,
                node.map_or_else(String::new, |node| format!(" on {node}")),
                state_name(persona.state),
                persona.id
            );
            text.push_str(&section("conditions", &conditions(&persona.conditions)));
            text.push_str(&section("warnings", &persona.warnings.join("\n")));
            text
        }),
        Format::Json => output.line(&output::pretty(persona)?),
        Format::Yaml => show(output, persona),
    }
}

async fn extend(client: &Client, output: Output, persona: &str, end: &NewEnd) -> Result<(), Failure> {
    let until = match (end.until, &end.ttl) {
        (Some(until), _) => until,
        (None, Some(ttl)) => after(Timestamp::now(), ttl)?,
        (None, None) => return Err(Failure::Usage("--ttl or --until is missing".to_owned())),
    };
    let patch = json!({"expiration": until, "ttl": null});
    let answer = client.send(Method::PATCH, &path(persona), &patch).await?;
    show_change(output, &answer.body, "extended")
}

/// The time that is `ttl` (as `4h` or `2d12h`) after `now`.
fn after(now: Timestamp, ttl: &str) -> Result<Timestamp, Failure> {
    let usage =
        |error: jiff::Error| Failure::Usage(format!("--ttl `{ttl}`: {error}; use for example 4h or 2d12h"));
    let span: jiff::Span = ttl.parse().map_err(usage)?;
    let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(usage)?;
    if duration.as_secs() <= 0 {
        return Err(Failure::Usage(format!("--ttl `{ttl}`: must be longer than nothing")));
    }
    let end = now.checked_add(duration).map_err(usage)?;
    // Sub-second digits say nothing to people.
    Timestamp::from_second(end.as_second()).map_err(usage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_is_counted_from_here_on() {
        let now: Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(after(now, "4h").unwrap().to_string(), "2030-01-01T04:00:00Z");
        assert_eq!(after(now, "2d12h").unwrap().to_string(), "2030-01-03T12:00:00Z");
        assert!(after(now, "-1h").is_err());
        assert!(after(now, "soon").is_err());
    }
}
