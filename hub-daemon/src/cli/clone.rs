//! `hubctl persona clone`: a persona like another one, with some fields different.

use axum::http::Method;
use serde_json::{Map, Value};

use super::client::Client;
use super::exit::Failure;
use super::output::Output;
use super::persona::{path, show_change};

pub(super) async fn run(
    client: &Client,
    output: Output,
    persona: &str,
    name: &str,
    set: &[String],
) -> Result<(), Failure> {
    let held = client.get(&path(persona)).await?.body;
    let definition = held.get("definition").and_then(Value::as_object).cloned().unwrap_or_default();
    let document = changed(definition, name, set)?;
    let answer = client.send(Method::POST, "/v1/personas", &document).await?;
    show_change(output, &answer.body, "created")
}

/// The definition under another name, with fields set; `null` removes one. A new end replaces the old one,
/// whichever way either is written.
pub(super) fn changed(
    mut definition: Map<String, Value>,
    name: &str,
    set: &[String],
) -> Result<Value, Failure> {
    definition.insert("name".to_owned(), Value::from(name));
    for assignment in set {
        let usage = |why: &str| Failure::Usage(format!("--set `{assignment}`: {why}"));
        let (field, written) = assignment.split_once('=').ok_or_else(|| usage("use FIELD=VALUE"))?;
        let value: Value = serde_saphyr::from_str(written).map_err(|error| usage(&error.to_string()))?;
        match field {
            "name" => return Err(usage("the name stands on its own")),
            "ttl" => _ = definition.remove("expiration"),
            "expiration" => _ = definition.remove("ttl"),
            _ => {}
        }
        if value.is_null() {
            definition.remove(field);
        } else {
            definition.insert(field.to_owned(), value);
        }
    }
    Ok(Value::Object(definition))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_are_set_as_yaml() {
        let definition =
            json!({"name": "a", "ip_range": "auto", "expiration": "2030-01-01T00:00:00Z", "strict": true});
        let set = ["ttl=4h", "protocols=[tcp, udp]", "strict=null", "labels={team: qa}"].map(str::to_owned);
        let made = changed(definition.as_object().unwrap().clone(), "b", &set).unwrap();
        let wanted = json!({
            "name": "b", "ip_range": "auto", "ttl": "4h", "protocols": ["tcp", "udp"], "labels": {"team": "qa"},
        });
        assert_eq!(made, wanted);
        assert!(changed(Map::new(), "b", &["ttl".to_owned()]).is_err());
        assert!(changed(Map::new(), "b", &["name=c".to_owned()]).is_err());
    }
}
