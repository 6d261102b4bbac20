//! `hubctl persona edit`: the definition in an editor, put back if it is what the hub still holds.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::Command;

use axum::http::Method;
use serde_json::Value;

use super::client::Client;
use super::exit::Failure;
use super::output::Output;
use super::{definition, persona};

pub(super) async fn run(client: &Client, output: Output, name: &str) -> Result<(), Failure> {
    let held = client.get(&persona::path(name)).await?;
    let held_definition = held.body.get("definition").cloned().unwrap_or_default();
    let text = definition::document(&held_definition)?;
    let file = std::env::temp_dir().join(format!("hub-{}.yaml", ulid::Ulid::new()));
    write(&file, &text).map_err(|source| Failure::local("write", file.display(), source))?;
    edit(&file)?;
    let edited =
        std::fs::read_to_string(&file).map_err(|source| Failure::local("read", file.display(), source))?;
    if edited == text {
        remove(&file);
        return output.done("nothing changed");
    }
    let changed = async {
        let documents = definition::parse(&file, &edited)?;
        let [document] = documents.as_slice() else {
            return Err(Failure::Usage("one document is wanted".to_owned()));
        };
        client.ask(Method::PUT, &persona::path(id_or(name, &held.body)), Some(document), held.tag).await
    };
    match changed.await {
        Ok(answer) => {
            remove(&file);
            persona::show_change(output, &answer.body, "changed")
        }
        Err(failure) => {
            output.done(&format!("what you wrote is kept in {}", file.display()))?;
            Err(failure)
        }
    }
}

/// The id, so that a change of the name in the editor does not lose the persona.
fn id_or<'a>(name: &'a str, held: &'a Value) -> &'a str {
    held.get("id").and_then(Value::as_str).unwrap_or(name)
}

fn write(file: &Path, text: &str) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    file.write_all(text.as_bytes())
}

fn edit(file: &Path) -> Result<(), Failure> {
    let editor = ["VISUAL", "EDITOR"].into_iter().find_map(|name| std::env::var(name).ok());
    let editor = editor.filter(|editor| !editor.is_empty()).unwrap_or_else(|| "vi".to_owned());
    // The variable may hold arguments: the shell takes it apart.
    let status = Command::new("sh").arg("-c").arg(format!("{editor} \"$1\"")).arg("sh").arg(file).status();
    let status = status.map_err(|source| Failure::local("start the editor", &editor, source))?;
    if !status.success() {
        remove(file);
        return Err(Failure::Usage(format!(
            "the editor `{editor}` ended with {status}; nothing was changed"
        )));
    }
    Ok(())
}

fn remove(file: &Path) {
    // A temporary file that stays is swept with the folder.
    drop(std::fs::remove_file(file));
}
