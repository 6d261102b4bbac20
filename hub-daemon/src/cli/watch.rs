//! `hubctl persona list --watch`: personas as they are, and what becomes of them, one line each.

use axum::http::Method;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use super::arguments::{Format, ListAsked};
use super::client::{self, Client};
use super::events::{Record, Records, typed};
use super::exit::Failure;
use super::output::{self, Output};
use super::persona::row;
use crate::view::PersonaView;

pub(super) async fn run(client: &Client, output: Output, asked: &ListAsked) -> Result<(), Failure> {
    let labels = asked.labels.iter().map(|label| ("label", Some(label.as_str())));
    let parameters =
        [("watch", Some("true")), ("state", asked.state.as_deref()), ("origin", asked.origin.as_deref())];
    let path = client::query("/v1/personas", parameters.into_iter().chain(labels));
    let mut body = client.open(Method::GET, &path, None, None).await?.into_body();
    let mut records = Records::default();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(Failure::answer)?;
        records.take(frame.data_ref().map_or(&[], |data| data));
        while let Some(record) = records.next() {
            show(output, &record)?;
        }
    }
    Err(Failure::Answer("the stream of changes ended".to_owned()))
}

/// One line: programs get an object with the event's name and its data.
fn show(output: Output, record: &Record) -> Result<(), Failure> {
    let value: Value = typed(record)?;
    match output.format() {
        Format::Table if record.name == "current" => Ok(()),
        Format::Table => {
            let persona: PersonaView = typed(record)?;
            let words = row(&persona).into_iter().filter(|word| !word.is_empty());
            output.line(&format!("{} {}", record.name, words.collect::<Vec<_>>().join(" ")))
        }
        Format::Json => output.line(&json!({"event": record.name, "data": value}).to_string()),
        Format::Yaml => {
            let event = json!({"event": record.name, "data": value});
            output.line(&format!("---\n{}", output::yaml(&event)?))
        }
    }
}
