//! `hubctl persona template` and `hubctl persona from-template`.

use axum::http::Method;
use serde_json::{Map, Value, json};

use super::client::Client;
use super::clone::changed;
use super::exit::Failure;
use super::output::Output;
use super::persona::show_change;
use super::table::{cell, table};
use crate::document::persona::PersonaDocument;
use crate::inputs::rest::TemplateList;

/// Lists templates, or shows one as the document that it is.
pub(super) async fn show(client: &Client, output: Output, name: Option<&str>) -> Result<(), Failure> {
    let answer = client.get("/v1/templates").await?;
    let Some(name) = name else {
        return output.show(&answer.body, |list: &TemplateList| {
            if list.templates.is_empty() {
                return "no `kind: template` in the documents folder".to_owned();
            }
            table(["TEMPLATE", "RANGE", "TTL", "PROTOCOLS", "RULES"], list.templates.iter().map(row))
        });
    };
    let all = answer.body.get("templates").and_then(Value::as_array);
    let found = all.into_iter().flatten().find(|template| template.get("name") == Some(&json!(name)));
    let found = found.ok_or_else(|| Failure::Refused(format!("there is no template `{name}`")))?;
    output.line(&super::output::yaml(found)?)
}

fn row(template: &PersonaDocument) -> [String; 5] {
    let fields = serde_json::to_value(template).unwrap_or_default();
    let field = |name: &str| cell(fields.get(name));
    let rules = template.security_policies.as_ref().map_or(0, Vec::len);
    [template.name.clone(), field("ip_range"), field("ttl"), field("protocols"), rules.to_string()]
}

/// Creates a persona of a template.
pub(super) async fn create(
    client: &Client,
    output: Output,
    template: &str,
    name: &str,
    set: &[String],
) -> Result<(), Failure> {
    let definition = Map::from_iter([("template".to_owned(), json!(template))]);
    let document = changed(definition, name, set)?;
    let answer = client.send(Method::POST, "/v1/personas", &document).await?;
    show_change(output, &answer.body, "created")
}
