//! `hubctl persona set` and `hubctl persona quarantine`.

use std::collections::BTreeMap;

use axum::http::Method;
use clap::Subcommand;
use serde_json::json;

use super::client::{self, Client};
use super::exit::{Failure, count};
use super::output::Output;
use super::persona::path;
use super::table::table;
use crate::datapath_view::QuarantinedView;
use crate::inputs::rest::SetView;

#[derive(Debug, Subcommand)]
pub(super) enum SetVerb {
    /// List the sets of a persona with their elements
    List {
        /// Name or id
        persona: String,
    },
    /// Put prefixes into a set
    Add {
        /// Name or id
        persona: String,
        /// Name of the set
        set: String,
        /// Prefixes or addresses
        #[arg(required = true)]
        entries: Vec<String>,
        /// How long they stay, as 10m; default: what the set says
        #[arg(long)]
        ttl: Option<String>,
    },
    /// Take prefixes out of a set
    Remove {
        /// Name or id
        persona: String,
        /// Name of the set
        set: String,
        /// Prefixes or addresses
        #[arg(required = true)]
        entries: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum QuarantineVerb {
    /// List the addresses that a persona does not talk to
    List {
        /// Name or id
        persona: String,
    },
    /// Keep an address out for a while
    Add {
        /// Name or id
        persona: String,
        /// The address
        address: String,
        /// How long, as 10m
        #[arg(long)]
        ttl: String,
    },
    /// Let an address in again, whoever kept it out
    Lift {
        /// Name or id
        persona: String,
        /// The address
        address: String,
    },
}

pub(super) async fn set(client: &Client, output: Output, verb: SetVerb) -> Result<(), Failure> {
    let entries_of =
        |persona: &str, set: &str| format!("{}/sets/{}/entries", path(persona), client::step(set));
    match verb {
        SetVerb::List { persona } => {
            let answer = client.get(&format!("{}/sets", path(&persona))).await?;
            output.show(&answer.body, |sets: &BTreeMap<String, SetView>| {
                let rows = sets.iter().flat_map(|(name, set)| {
                    set.elements.iter().map(move |element| {
                        let end =
                            element.expires_at.map_or_else(|| "never".to_owned(), |end| end.to_string());
                        let origin = if element.defined { "definition" } else { "run time" };
                        [name.clone(), element.prefix.to_string(), end, origin.to_owned()]
                    })
                });
                table(["SET", "PREFIX", "EXPIRES", "ORIGIN"], rows)
            })
        }
        SetVerb::Add { persona, set, entries, ttl } => {
            let mut body = json!({ "entries": entries });
            if let (Some(ttl), Some(body)) = (ttl, body.as_object_mut()) {
                body.insert("ttl".to_owned(), ttl.into());
            }
            client.send(Method::POST, &entries_of(&persona, &set), &body).await?;
            output.done(&format!("{} put into {set}", count(entries.len(), "element")))
        }
        SetVerb::Remove { persona, set, entries } => {
            let body = json!({ "entries": entries });
            client.send(Method::DELETE, &entries_of(&persona, &set), &body).await?;
            output.done(&format!("{} taken out of {set}", count(entries.len(), "element")))
        }
    }
}

pub(super) async fn quarantine(client: &Client, output: Output, verb: QuarantineVerb) -> Result<(), Failure> {
    match verb {
        QuarantineVerb::List { persona } => {
            let answer = client.get(&format!("{}/quarantine", path(&persona))).await?;
            output.show(&answer.body, |out: &Vec<QuarantinedView>| {
                let rows = out.iter().map(|entry| [entry.address.to_string(), entry.expires_at.to_string()]);
                table(["ADDRESS", "EXPIRES"], rows)
            })
        }
        QuarantineVerb::Add { persona, address, ttl } => {
            let body = json!({ "address": address, "ttl": ttl });
            client.send(Method::POST, &format!("{}/quarantine", path(&persona)), &body).await?;
            output.done(&format!("{address} is kept out of {persona}"))
        }
        QuarantineVerb::Lift { persona, address } => {
            let path = format!("{}/quarantine/{}", path(&persona), client::step(&address));
            client.ask(Method::DELETE, &path, None, None).await?;
            output.done(&format!("{address} is let in"))
        }
    }
}
