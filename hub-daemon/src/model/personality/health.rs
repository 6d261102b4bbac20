//! What must work with a personality.

use std::net::SocketAddr;

use super::{address, is_domain};
use crate::document::personality::{HealthDocument, OnUnhealthyDocument, TargetDocument};
use crate::model::check::Check;
use crate::model::names;
use crate::model::page::{NoPage, Page};
use crate::model::problems::Problems;

/// Most targets of one personality.
const TARGETS: usize = 32;
/// Name that servers are asked for where the document names none.
const ROOT: &str = ".";

/// What must work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// What the document asks.
    pub targets: Vec<Check>,
    /// Name that servers are asked for.
    pub dns_name: String,
    /// What happens when checks fail later.
    pub on_unhealthy: OnUnhealthyDocument,
}

impl Health {
    /// Checks `health`; problems point below it.
    pub(super) fn new(problems: &mut Problems, document: Option<&HealthDocument>) -> Self {
        let written = document.map(|document| document.targets.as_slice()).unwrap_or_default();
        if written.len() > TARGETS {
            problems.add("/health/targets", format!("{} targets: use at most {TARGETS}", written.len()));
        }
        let read = |(index, written)| target(problems, &format!("/health/targets/{index}"), written);
        let targets = written.iter().enumerate().filter_map(read).collect();
        let dns_name = document.and_then(|document| document.dns_name.clone());
        if let Some(name) = &dns_name {
            name_fits(problems, "/health/dns_name", name);
        }
        Self {
            targets,
            dns_name: dns_name.unwrap_or_else(|| ROOT.to_owned()),
            on_unhealthy: document.and_then(|document| document.on_unhealthy).unwrap_or_default(),
        }
    }
}

/// Reads one question; problems point below `base`.
pub fn target(problems: &mut Problems, base: &str, written: &TargetDocument) -> Option<Check> {
    let TargetDocument { ping, tcp, http, ca, dns, name, route, device, neighbour } = written;
    let given = [ping, tcp, http, dns, route, neighbour];
    if given.iter().filter(|field| field.is_some()).count() != 1 {
        problems.add(base, "give exactly one of ping, tcp, http, dns, route and neighbour");
        return None;
    }
    for (field, is_there, needs) in [
        ("ca", ca.is_some() && http.is_none(), "http"),
        ("name", name.is_some() && dns.is_none(), "dns"),
        ("device", device.is_some() && route.is_none(), "route"),
    ] {
        if is_there {
            problems.add(format!("{base}/{field}"), format!("{field} belongs to `{needs}`: leave it out"));
        }
    }
    let mut at = |field: &str, text: &String| problems.take(&format!("{base}/{field}"), address(text));
    if let Some(text) = ping {
        return at("ping", text).map(Check::Ping);
    }
    if let Some(text) = neighbour {
        return at("neighbour", text).map(Check::Neighbour);
    }
    if let Some(text) = dns {
        let server = at("dns", text);
        let name = name.as_deref().unwrap_or(ROOT);
        name_fits(problems, &format!("{base}/name"), name);
        return server.map(|server| Check::Dns { server, name: name.to_owned() });
    }
    if let Some(text) = route {
        let target = at("route", text);
        if let Some(device) = device {
            problems.take(&format!("{base}/device"), names::interface(device));
        }
        return target.map(|target| Check::Route { target, device: device.clone() });
    }
    if let Some(text) = tcp {
        let parsed = text.parse::<SocketAddr>().map_err(|_format| {
            format!("tcp `{text}`: use an address and a port, like 10.20.0.9:443 or [fd00:20::9]:443")
        });
        return problems.take(&format!("{base}/tcp"), parsed).map(Check::Tcp);
    }
    let url = http.as_ref()?;
    let page = Page::new(url, ca.as_deref());
    let field = if matches!(page, Err(NoPage::Needless | NoPage::Relative(_))) { "ca" } else { "http" };
    problems.take(&format!("{base}/{field}"), page).map(Check::Http)
}

fn name_fits(problems: &mut Problems, pointer: &str, name: &str) {
    if name != ROOT && !is_domain(name) {
        problems.add(pointer, format!("name `{name}`: use one like www.example, or `.`"));
    }
}
