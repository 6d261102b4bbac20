//! Where a persona's members are: endpoints that the hub makes, and interfaces that exist.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::problems::Problems;
use super::{names, prefix};
use crate::desired::Namespace;
use crate::document::parts::InterfaceDocument;
use crate::document::persona::EndpointDocument;

/// Most endpoints of one persona.
pub const ENDPOINTS: usize = 1_024;
/// Most interfaces of one persona.
pub const INTERFACES: usize = 64;

/// A veth pair into a member's network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Name, unique in the persona.
    pub name: String,
    /// Where the member's end goes.
    pub namespace: Namespace,
    /// Name of the interface there.
    pub interface: String,
    /// Addresses asked for; `None` lets the hub choose one per family.
    pub addresses: Option<Vec<IpAddr>>,
}

/// An existing interface with what is behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Name of the interface.
    pub name: String,
    /// Prefixes behind it; parts of the persona's range.
    pub prefixes: Vec<IpNet>,
}

/// Checks `endpoints`.
pub fn endpoints(problems: &mut Problems, written: &[EndpointDocument], ranges: &[IpNet]) -> Vec<Endpoint> {
    let mut names_seen = BTreeSet::new();
    let mut places_seen = BTreeSet::new();
    let mut addresses_seen = BTreeSet::new();
    if written.len() > ENDPOINTS {
        problems.add("/endpoints", format!("{} endpoints: use at most {ENDPOINTS}", written.len()));
    }
    let mut endpoints = Vec::new();
    for (index, document) in written.iter().enumerate() {
        let base = format!("/endpoints/{index}");
        problems.take(&format!("{base}/name"), names::persona(&document.name));
        if !names_seen.insert(&document.name) {
            problems.add(format!("{base}/name"), format!("endpoint `{}` is there twice", document.name));
        }
        let namespace = namespace(problems, &base, document);
        let interface = document.interface.clone().unwrap_or_else(|| "eth0".to_owned());
        problems.take(&format!("{base}/interface"), names::interface(&interface));
        let addresses = addresses(problems, &base, document, ranges);
        for address in addresses.iter().flatten() {
            if !addresses_seen.insert(*address) {
                problems.add(format!("{base}/address"), format!("address {address} is given twice"));
            }
        }
        let Some(namespace) = namespace else { continue };
        if !places_seen.insert((namespace.clone(), interface.clone())) {
            let detail = format!("another endpoint makes `{interface}` in the same namespace");
            problems.add(format!("{base}/interface"), detail);
        }
        endpoints.push(Endpoint { name: document.name.clone(), namespace, interface, addresses });
    }
    endpoints
}

fn namespace(problems: &mut Problems, base: &str, document: &EndpointDocument) -> Option<Namespace> {
    match (&document.namespace, document.pid) {
        (Some(name), None) => {
            problems.take(&format!("{base}/namespace"), names::namespace(name))?;
            Some(Namespace::Name(name.clone()))
        }
        (None, Some(0)) => {
            problems.add(format!("{base}/pid"), "no process has id 0");
            None
        }
        (None, Some(pid)) => Some(Namespace::Pid(pid)),
        (Some(_), Some(_)) => {
            problems.add(format!("{base}/pid"), "`namespace` and `pid` are both given: keep one of them");
            None
        }
        (None, None) => {
            problems.add(base, "give `namespace: NAME` or `pid: NUMBER`");
            None
        }
    }
}

fn addresses(
    problems: &mut Problems,
    base: &str,
    document: &EndpointDocument,
    ranges: &[IpNet],
) -> Option<Vec<IpAddr>> {
    let written = document.address.as_ref()?;
    if let [text] = written.as_slice()
        && text == "auto"
    {
        return None;
    }
    let mut addresses = Vec::new();
    for (pointer, text) in written.pointed(&format!("{base}/address")) {
        let Ok(address) = text.parse::<IpAddr>() else {
            problems.add(pointer, format!("address `{text}`: use `auto`, or an address from ip_range"));
            continue;
        };
        match ranges.iter().find(|range| range.contains(&address)) {
            None => problems.add(pointer, format!("address {address} is not in ip_range")),
            Some(range) if !prefix::usable(range, address) => {
                let detail = format!("address {address} is reserved in {range}: use another one");
                problems.add(pointer, detail);
            }
            Some(_) => addresses.push(address),
        }
    }
    Some(addresses)
}

/// Checks `interfaces`. At most one may leave its prefixes out: the rest of the range is behind it.
pub fn attachments(
    problems: &mut Problems,
    written: &[InterfaceDocument],
    ranges: &[IpNet],
) -> Vec<Attachment> {
    let mut seen = BTreeSet::new();
    let mut taken: Vec<IpNet> = Vec::new();
    let mut rest = None;
    let mut attachments = Vec::new();
    if written.len() > INTERFACES {
        problems.add("/interfaces", format!("{} interfaces: use at most {INTERFACES}", written.len()));
    }
    for (index, document) in written.iter().enumerate() {
        let base = format!("/interfaces/{index}");
        let (name, prefixes) = match document {
            InterfaceDocument::Name(name) => (name, None),
            InterfaceDocument::Placed(placed) => (&placed.name, placed.prefixes.as_ref()),
        };
        problems.take(&base, names::interface(name));
        if !seen.insert(name) {
            problems.add(&base, format!("interface `{name}` is there twice"));
        }
        let Some(prefixes) = prefixes else {
            if rest.replace(index).is_some() {
                let detail = "with several interfaces each but one needs `prefixes`: write {name, prefixes}";
                problems.add(&base, detail);
            }
            attachments.push(Attachment { name: name.clone(), prefixes: ranges.to_vec() });
            continue;
        };
        let mut own = Vec::new();
        if prefixes.as_slice().is_empty() {
            problems.add(format!("{base}/prefixes"), "the list is empty: name at least one, or leave it out");
        }
        for (pointer, text) in prefixes.pointed(&format!("{base}/prefixes")) {
            let Some(prefix) = problems.take(&pointer, prefix::matched(text)) else { continue };
            if !ranges.iter().any(|range| range.contains(&prefix)) {
                problems.add(pointer, format!("prefix {prefix} is not in ip_range"));
            } else if let Some(other) = taken.iter().find(|other| prefix::overlaps(other, &prefix)) {
                problems
                    .add(pointer, format!("prefix {prefix} overlaps {other}, which is behind another port"));
            } else {
                taken.push(prefix);
                own.push(prefix);
            }
        }
        attachments.push(Attachment { name: name.clone(), prefixes: own });
    }
    attachments
}
