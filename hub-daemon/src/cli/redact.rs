//! Takes secrets out of what leaves the machine: tokens, keys, passwords, credentials in addresses.
//!
//! Errs on the side of taking out too much: a value goes because of its name, or because of how it looks.

use serde_json::Value;

/// What stands where a secret was.
pub(super) const REMOVED: &str = "[removed]";

/// Parts of names whose values are secrets.
const NAMES: [&str; 13] = [
    "token",
    "secret",
    "password",
    "passwd",
    "passphrase",
    "apikey",
    "api_key",
    "api-key",
    "private",
    "credential",
    "authorization",
    "cookie",
    "webhook",
];
/// How texts begin that are secrets whatever their name.
const LOOKS: [&str; 8] = ["ghp_", "gho_", "github_pat_", "xoxb-", "xoxp-", "AKIA", "sk-", "eyJ"];
/// Letters and digits in a row without a break that no word has.
const LONG: usize = 32;

/// A tree of values without secrets.
pub(super) fn value(tree: &Value) -> Value {
    match tree {
        Value::Object(fields) => fields
            .iter()
            .map(|(name, field)| {
                let kept = if is_secret_name(name) && !field.is_object() && !field.is_array() {
                    Value::String(REMOVED.to_owned())
                } else if is_secret_name(name) {
                    hide(field)
                } else {
                    value(field)
                };
                (name.clone(), kept)
            })
            .collect(),
        Value::Array(items) => items.iter().map(value).collect(),
        Value::String(text) => Value::String(line(text)),
        other @ (Value::Null | Value::Bool(_) | Value::Number(_)) => other.clone(),
    }
}

fn hide(tree: &Value) -> Value {
    match tree {
        Value::Object(fields) => fields.iter().map(|(name, field)| (name.clone(), hide(field))).collect(),
        Value::Array(items) => items.iter().map(hide).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            Value::String(REMOVED.to_owned())
        }
    }
}

/// A text without secrets, line by line: YAML, logs, output of programs.
pub(super) fn text(text: &str) -> String {
    let mut kept = Vec::new();
    let mut in_key = false;
    // Lines below a name that is a secret's are its value, as long as they are further in.
    let mut below: Option<usize> = None;
    for written in text.lines() {
        if written.contains("-----BEGIN") {
            in_key = true;
            kept.push(REMOVED.to_owned());
        }
        if in_key {
            in_key = !written.contains("-----END");
            continue;
        }
        let indent = written.len() - written.trim_start().len();
        if let Some(outer) = below {
            if written.trim().is_empty() || indent > outer {
                kept.push(format!("{}{REMOVED}", " ".repeat(indent)));
                continue;
            }
            below = None;
        }
        match secret_line(written) {
            Some((name, is_open)) => {
                kept.push(format!("{name} {REMOVED}"));
                below = is_open.then_some(indent);
            }
            None => kept.push(line(written)),
        }
    }
    kept.join("\n") + "\n"
}

/// `name:` or `name=` of a line whose name is a secret's, and whether its value is on the lines below.
fn secret_line(written: &str) -> Option<(&str, bool)> {
    let at = written.find([':', '='])?;
    let (name, rest) = written.split_at(at + 1);
    let bare =
        name.trim_start_matches([' ', '-', '{', '"', '\'', '#']).trim_end_matches([':', '=', '"', '\'']);
    let is_name = !bare.is_empty()
        && bare.chars().all(|letter| letter.is_ascii_alphanumeric() || "_-.".contains(letter));
    let rest = rest.trim();
    let is_open = rest.is_empty() || rest.starts_with(['|', '>']);
    (is_name && is_secret_name(bare)).then_some((name, is_open))
}

/// Whether values of this name are secrets. A path to one is none, and as useful as its content is not.
fn is_secret_name(name: &str) -> bool {
    let name = name.to_lowercase();
    let is_path = name.ends_with("_file") || name.ends_with("_path") || name.ends_with("-file");
    !is_path && (name == "key" || name.ends_with("_key") || NAMES.iter().any(|part| name.contains(part)))
}

/// One line without what looks like a secret, wherever it stands.
fn line(written: &str) -> String {
    let mut kept = String::with_capacity(written.len());
    let mut secret_next = false;
    for piece in written.split_inclusive([' ', ',', '"', '\'', '{', '}', '[', ']', '\t', ';']) {
        let end = piece.len()
            - piece.chars().next_back().filter(|c| " ,\"'{}[]\t;".contains(*c)).map_or(0, char::len_utf8);
        let (word, break_) = piece.split_at(end);
        kept.push_str(&if secret_next && !word.is_empty() { REMOVED.to_owned() } else { self::word(word) });
        if !word.is_empty() {
            let bare = word.trim_end_matches([':', '=']);
            // "Bearer", "token=", "password:" and the like announce what follows.
            secret_next = word.eq_ignore_ascii_case("bearer")
                || word.eq_ignore_ascii_case("basic")
                || (bare.len() < word.len() && is_secret_name(bare));
        }
        kept.push_str(break_);
    }
    kept
}

fn word(word: &str) -> String {
    if let Some((scheme, rest)) = word.split_once("://") {
        return format!("{scheme}://{}", address(rest));
    }
    if let Some((name, _)) =
        word.split_once('=').filter(|(name, rest)| is_secret_name(name) && !rest.is_empty())
    {
        return format!("{name}={REMOVED}");
    }
    if looks_secret(word) { REMOVED.to_owned() } else { word.to_owned() }
}

/// An address without credentials, and without what only its owner should know: path and query.
fn address(rest: &str) -> String {
    let (host, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let host = host.rsplit_once('@').map_or_else(|| host.to_owned(), |(_, host)| format!("{REMOVED}@{host}"));
    if path.len() > 1 { format!("{host}/{REMOVED}") } else { format!("{host}{path}") }
}

fn looks_secret(word: &str) -> bool {
    if LOOKS.iter().any(|look| word.starts_with(look) && word.len() > look.len() + 8) {
        return true;
    }
    let run =
        |text: &str| text.chars().all(|letter| letter.is_ascii_alphanumeric() || "+_-=".contains(letter));
    let mixed =
        word.bytes().any(|byte| byte.is_ascii_digit()) && word.bytes().any(|byte| byte.is_ascii_alphabetic());
    word.len() >= LONG && run(word) && mixed
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn secrets_go_by_name_and_by_look() {
        let tree = json!({
            "labels": {"team": "web", "deploy-token": "abc", "note": "ghp_0123456789abcdef"},
            "api": {"token_file": "/etc/hub/token", "key": {"a": "b"}},
            "alerts": [{"webhook": "https://u:p@example.org/T0/secret", "url": "https://x:y@example.org/hook/1"}],
        });
        let kept = value(&tree);
        assert_eq!(kept["labels"], json!({"team": "web", "deploy-token": REMOVED, "note": REMOVED}));
        assert_eq!(kept["api"], json!({"token_file": "/etc/hub/token", "key": {"a": REMOVED}}));
        let alert = &kept["alerts"][0];
        assert_eq!(
            (&alert["webhook"], &alert["url"]),
            (&json!(REMOVED), &json!("https://[removed]@example.org/[removed]"))
        );
    }

    #[test]
    fn lines_keep_what_is_no_secret() {
        let kept = text(
            "name: web\n  password: hunter2\ntoken: |\n  line one\n  line two\nip_range: 10.0.0.0/8\n\
             -----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\nAuthorization header Bearer s3cr3t done\n",
        );
        for secret in ["hunter2", "line one", "line two", "AAAA", "s3cr3t"] {
            assert!(!kept.contains(secret), "{kept}");
        }
        for harmless in ["name: web", "ip_range: 10.0.0.0/8", "done"] {
            assert!(kept.contains(harmless), "{kept}");
        }
    }

    #[test]
    fn what_the_kernel_says_stays() {
        let rules = "32765: from 10.0.0.0/24 lookup 1001 proto 177\nfd00:100::/64 dev seg0 metric 1000\n";
        assert_eq!(text(rules), rules);
    }
}
