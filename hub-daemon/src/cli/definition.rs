//! Definitions of personas as hubctl gets them from files and flags; what they mean is the hub's business.

use std::io::Read as _;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::arguments::CreateAsked;
use super::exit::Failure;
use super::output;
use crate::inputs::reload::FileProblem;

/// The kind of personas' documents.
const PERSONA: &str = "persona";
/// Most bytes of a file of documents.
const FILE_BYTES: u64 = 64 * 1_024 * 1_024;

/// The documents of a YAML or JSON file; `-` is standard input.
pub(super) fn read(path: &Path) -> Result<Vec<Value>, Failure> {
    parse(path, &text(path)?)
}

fn text(path: &Path) -> Result<String, Failure> {
    let failed = |source| Failure::local("read", path.display(), source);
    let mut text = String::new();
    if path.as_os_str() == "-" {
        std::io::stdin().take(FILE_BYTES).read_to_string(&mut text).map_err(failed)?;
    } else {
        let file = std::fs::File::open(path).map_err(failed)?;
        file.take(FILE_BYTES).read_to_string(&mut text).map_err(failed)?;
    }
    Ok(text)
}

/// The documents of a text in YAML, of which JSON is a part; personas without their kind.
pub(super) fn parse(path: &Path, text: &str) -> Result<Vec<Value>, Failure> {
    let mut documents = parse_as_written(path, text)?;
    for document in &mut documents {
        // It tells kinds of files apart; the API has a path for each.
        if let Some(fields) = document.as_object_mut()
            && fields.get("kind") == Some(&json!(PERSONA))
        {
            fields.shift_remove("kind");
        }
    }
    Ok(documents)
}

fn parse_as_written(path: &Path, text: &str) -> Result<Vec<Value>, Failure> {
    let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
    let documents: Vec<Value> = serde_saphyr::from_multiple_with_options(text, options).map_err(|error| {
        let place = error.location();
        Failure::Documents(vec![FileProblem {
            file: path.to_owned(),
            line: place.map_or(0, |place| place.line() as u32),
            column: place.map_or(0, |place| place.column() as u32),
            detail: error.to_string().lines().next().unwrap_or_default().to_owned(),
            ..FileProblem::default()
        }])
    })?;
    if documents.is_empty() {
        return Err(Failure::Usage(format!("{}: no document in it", path.display())));
    }
    Ok(documents)
}

/// The documents of one kind in a file; those without a kind are of it. Says how many others there are.
pub(super) fn of_kind(path: &Path, kind: &str) -> Result<(Vec<Value>, usize), Failure> {
    let all = parse_as_written(path, &text(path)?)?;
    let count = all.len();
    let is = |document: &Value| document.get("kind").is_none_or(|written| *written == json!(kind));
    let those: Vec<Value> = all.into_iter().filter(is).collect();
    if those.is_empty() {
        return Err(Failure::Usage(format!("{}: no document of kind {kind} in it", path.display())));
    }
    let others = count - those.len();
    Ok((those, others))
}

/// A definition of a persona as a document of the documents folder.
pub(super) fn document(definition: &Value) -> Result<String, Failure> {
    document_of(PERSONA, definition)
}

/// A definition as a document of the documents folder.
pub(super) fn document_of(kind: &str, definition: &Value) -> Result<String, Failure> {
    let mut document = Map::new();
    document.insert("kind".to_owned(), json!(kind));
    if let Value::Object(fields) = definition {
        document.extend(fields.iter().map(|(key, value)| (key.clone(), value.clone())));
    }
    document.retain(|_, value| !value.is_null());
    output::yaml(&document)
}

/// The definition that flags describe.
pub(super) fn from_flags(asked: &CreateAsked) -> Result<Value, Failure> {
    let mut fields = Map::new();
    let mut put = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    put("name", json!(asked.name));
    if let Some(template) = &asked.template {
        put("template", json!(template));
    }
    match asked.ip_range.as_slice() {
        [] if asked.template.is_some() => None,
        [] => return Err(Failure::Usage("--ip-range is missing".to_owned())),
        [only] => put("ip_range", json!(only)),
        several => put("ip_range", json!(several)),
    };
    if !asked.protocols.is_empty() {
        put("protocols", json!(asked.protocols));
    }
    let qos: Map<String, Value> = [("bandwidth", &asked.bandwidth), ("latency", &asked.latency)]
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), json!(value.as_ref()?))))
        .collect();
    if !qos.is_empty() {
        put("qos", Value::Object(qos));
    }
    if !asked.rules.is_empty() {
        let rules: Result<Vec<Value>, Failure> = asked.rules.iter().map(|rule| self::rule(rule)).collect();
        put("security_policies", Value::Array(rules?));
    }
    for (name, values) in [("interfaces", &asked.interfaces), ("peers", &asked.peers)] {
        if !values.is_empty() {
            put(name, json!(values));
        }
    }
    if !asked.labels.is_empty() {
        put("labels", labels("--label", &asked.labels)?);
    }
    let mut gateway = Map::new();
    for (name, value) in [("node", &asked.node), ("choose", &asked.choose)] {
        gateway.extend(value.iter().map(|value| (name.to_owned(), json!(value))));
    }
    if !asked.node_labels.is_empty() {
        gateway.insert("labels".to_owned(), labels("--node-label", &asked.node_labels)?);
    }
    if !gateway.is_empty() {
        put("gateway", Value::Object(gateway));
    }
    if let Some(ttl) = &asked.ttl {
        put("ttl", json!(ttl));
    }
    if let Some(until) = &asked.until {
        put("expiration", json!(until));
    }
    Ok(Value::Object(fields))
}

fn labels(flag: &str, given: &[String]) -> Result<Value, Failure> {
    let pairs: Option<Map<String, Value>> = given
        .iter()
        .map(|label| label.split_once('=').map(|(key, value)| (key.to_owned(), json!(value))))
        .collect();
    match pairs {
        Some(pairs) => Ok(Value::Object(pairs)),
        None => Err(Failure::Usage(format!("{flag}: use KEY=VALUE"))),
    }
}

/// `ACTION:PROTOCOL[/PORT]`
fn rule(text: &str) -> Result<Value, Failure> {
    let Some((action, rest)) = text.split_once(':') else {
        return Err(Failure::Usage(format!("--rule `{text}`: use ACTION:PROTOCOL[/PORT], as allow:tcp/80")));
    };
    let (protocol, port) = match rest.split_once('/') {
        Some((protocol, port)) => (protocol, Some(port)),
        None => (rest, None),
    };
    let mut rule = Map::new();
    rule.insert("protocol".to_owned(), json!(protocol));
    if let Some(port) = port {
        let number: Result<u16, _> = port.parse();
        rule.insert("port".to_owned(), number.map_or_else(|_| json!(port), |number| json!(number)));
    }
    rule.insert("action".to_owned(), json!(action));
    Ok(Value::Object(rule))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_flag_becomes_the_rule_of_a_document() {
        assert_eq!(rule("allow:tcp/80").unwrap(), json!({"protocol": "tcp", "port": 80, "action": "allow"}));
        let range = json!({"protocol": "udp", "port": "1000-2000", "action": "deny"});
        assert_eq!(rule("deny:udp/1000-2000").unwrap(), range);
        assert_eq!(rule("log:icmp").unwrap(), json!({"protocol": "icmp", "action": "log"}));
        assert!(rule("tcp").is_err());
    }

    #[test]
    fn a_file_holds_several_documents_in_yaml_or_one_in_json() {
        let path = Path::new("personas.yaml");
        assert_eq!(parse(path, "name: a\n---\nname: b\n").unwrap().len(), 2);
        assert_eq!(parse(path, r#"{"name": "a"}"#).unwrap(), [json!({"name": "a"})]);
        assert!(parse(path, "").is_err());
        let Err(Failure::Documents(problems)) = parse(path, "name: [a\n") else { panic!("accepted") };
        assert!(problems[0].line > 0);
    }

    #[test]
    fn a_document_reads_back() {
        let definition = json!({"name": "a", "ttl": null, "security_policies": [{"port": 80}]});
        let text = document(&definition).unwrap();
        assert!(text.starts_with("kind: persona\n"), "{text}");
        let read = parse(Path::new("x"), &text).unwrap();
        assert_eq!(read, [json!({"name": "a", "security_policies": [{"port": 80}]})]);
    }
}
