//! Names of hosts: `HOST.PERSONA.hub` is the address that others dial, the virtual one where there is one.
//!
//! A host is an endpoint by its name, or any address of a range with dashes: `10-100-0-5`, `fd00--5`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::model::translation::Virtual;
use crate::view::{PersonaState, PersonaView, Snapshot};

/// Last label of all names.
pub const DOMAIN: &str = "hub";

/// One name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Name {
    /// `HOST.PERSONA.hub`.
    pub name: String,
    /// The persona.
    pub persona: String,
    /// Addresses that others dial.
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<IpAddr>,
    /// Addresses that personas with the same range dial instead, where there are any.
    #[schema(value_type = Vec<String>)]
    pub aliases: Vec<IpAddr>,
    /// Addresses that its own persona dials.
    #[schema(value_type = Vec<String>)]
    pub native: Vec<IpAddr>,
}

/// Names of all endpoints of personas that are alive, in order.
pub fn all(snapshot: &Snapshot) -> Vec<Name> {
    let mut names = Vec::new();
    for view in living(snapshot) {
        names.extend(view.members.iter().map(|(host, native)| known(view, host, native.clone())));
    }
    names.sort_by(|one, other| one.name.cmp(&other.name));
    names
}

/// What a name means, if anything.
pub fn resolve(snapshot: &Snapshot, name: &str) -> Option<Name> {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let (host, rest) = name.strip_suffix(DOMAIN)?.strip_suffix('.')?.split_once('.')?;
    let view = living(snapshot).find(|view| label(&view.definition.name) == rest)?;
    let named = view.members.iter().find(|(member, _)| label(member) == host);
    if let Some((member, native)) = named {
        return Some(known(view, member, native.clone()));
    }
    let address: IpAddr = host
        .replace('-', ".")
        .parse()
        .map(IpAddr::V4)
        .or_else(|_not_v4| host.replace('-', ":").parse().map(IpAddr::V6))
        .ok()?;
    ranges(view).any(|range| range.contains(&address)).then(|| known(view, host, vec![address]))
}

/// Names in the form of `/etc/hosts`, with the address of each that others dial.
pub fn hosts(snapshot: &Snapshot) -> String {
    let mut text = "# Made by hubd: it is written again when a persona changes.\n".to_owned();
    for name in all(snapshot) {
        for address in &name.addresses {
            text.extend([address.to_string().as_str(), " ", &name.name, "\n"]);
        }
    }
    text
}

fn living(snapshot: &Snapshot) -> impl Iterator<Item = &PersonaView> {
    let views = snapshot.personas.values().map(AsRef::as_ref);
    views.filter(|view| matches!(view.state, PersonaState::Active | PersonaState::Provisioning))
}

fn ranges(view: &PersonaView) -> impl Iterator<Item = IpNet> {
    // Those that it has: what is written may leave them to the hub.
    view.ranges.iter().filter_map(|range| range.parse().ok())
}

/// Names are looked up in lower case (RFC 4343); `_` is no letter of a host name.
fn label(name: &str) -> String {
    name.to_ascii_lowercase().replace('_', "-")
}

fn known(view: &PersonaView, host: &str, native: Vec<IpAddr>) -> Name {
    let moved = |ranges: &BTreeMap<IpNet, IpNet>| {
        let mut pairs = Virtual::default();
        for (range, instead) in ranges {
            pairs.insert(*range, *instead);
        }
        native.iter().map(|address| pairs.address(*address)).collect::<Vec<_>>()
    };
    let addresses = moved(&view.virtual_ranges);
    let own: BTreeSet<&IpAddr> = native.iter().collect();
    let aliases = moved(&view.aliases).into_iter().filter(|address| !own.contains(address)).collect();
    let persona = &view.definition.name;
    let name = format!("{}.{}.{DOMAIN}", label(host), label(persona));
    Name { name, persona: persona.clone(), addresses, aliases, native }
}
