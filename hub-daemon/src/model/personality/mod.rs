//! A personality whose document was checked whole; subnets, interfaces and other personalities are not asked.
//!
//! What it says of packets is said by a persona that is made from it, the carrier; the rest is what
//! [`crate::desired::interfaces`] has tables for.

mod carrier;
mod drain;
mod health;
mod placeholder;
mod route;
mod tunnel;
mod version;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

pub use self::carrier::{Carried, LEAVING, PLACEHOLDERS};
pub use self::drain::Drain;
pub use self::health::{Health, target};
pub use self::route::{Device, Route, RouteKey, Way};
pub use self::tunnel::{PersonalityTunnel, SECRET};
pub use self::version::{Digest, Version, Wanted, WantedError, digest, hexadecimal};
use super::application::{Applications, Defined};
use super::persona::{Persona, labels};
use super::problems::Problems;
use super::{names, prefix};
use crate::command::Problem;
use crate::desired::interfaces::AddressScope;
use crate::document::parts::AddressDocument;
use crate::document::personality::PersonalityDocument;

/// Version of the form of documents that this hub reads.
pub const SCHEMA_VERSION: u32 = 1;
/// Most addresses of one personality: each is a range of its carrier, and both of a switch's are there at once.
pub const ADDRESSES: usize = 8;
/// Most servers that answer names.
const SERVERS: usize = 8;
/// Most domains that names are looked for in (`MAXDNSRCH` of resolvers).
const SEARCH: usize = 6;

/// A checked personality.
#[derive(Clone, Debug, PartialEq)]
pub struct Personality {
    document: PersonalityDocument,
    addresses: BTreeMap<IpNet, AddressScope>,
    applications: Applications,
    tunnel: Option<PersonalityTunnel>,
    routes: BTreeMap<RouteKey, Route>,
    servers: Vec<IpAddr>,
    search: Vec<String>,
    health: Health,
    drain: Drain,
    /// Pointers of its texts with placeholders.
    open: BTreeSet<String>,
}

impl Personality {
    /// Checks a document. Problems carry JSON pointers into it.
    pub fn new(document: &PersonalityDocument) -> Result<Self, Vec<Problem>> {
        let mut problems = Problems::default();
        let version = document.schema_version.unwrap_or(SCHEMA_VERSION);
        if version != SCHEMA_VERSION {
            let detail = format!("schema_version {version}: this hub reads {SCHEMA_VERSION}");
            problems.add("/schema_version", detail);
        }
        let mut unnamed = Problems::default();
        let open = placeholder::places(&mut unnamed, document);
        let addresses = addresses(&mut problems, document);
        if let Some(subnet) = &document.subnet_id {
            problems.take("/subnet_id", names::persona(subnet));
        }
        let applications = document.application_access_policy.as_ref();
        let applications =
            applications.map(|written| Applications::new(&mut problems, written)).unwrap_or_default();
        let tunnel = document.vpn_tunnel_config.as_ref();
        let tunnel = tunnel.map(|written| PersonalityTunnel::new(&mut problems, written));
        let routes = route::routes(&mut problems, document, &addresses);
        let servers = servers(&mut problems, document.dns_servers.as_deref().unwrap_or_default());
        let search = search(&mut problems, document.dns_search.as_deref().unwrap_or_default());
        let health = Health::new(&mut problems, document.health.as_ref());
        labels::check(&mut problems, document.labels.as_ref());
        let drain = Drain::new(&mut problems, document.drain.as_ref());
        let personality = Self {
            document: PersonalityDocument { kind: None, ..document.clone() },
            addresses,
            applications,
            tunnel,
            routes,
            servers,
            search,
            health,
            drain,
            open,
        };
        problems.extend(personality.check_carrier());
        unnamed.extend(personality.settled(problems.into_vec()));
        unnamed.settle(personality)
    }

    /// The personality as it is on an interface: with what its record says in place of placeholders. Problems
    /// point into the record.
    pub fn on(
        &self,
        interface: &str,
        labels: &BTreeMap<String, String>,
    ) -> Result<Cow<'_, Self>, Vec<Problem>> {
        if self.open.is_empty() {
            return Ok(Cow::Borrowed(self));
        }
        let filled = placeholder::filled(&self.document, interface, labels)?;
        let own = Self::new(&filled).map_err(|problems| {
            let told = |problem: Problem| {
                let detail = format!("{} of {}: {}", problem.pointer, self.name(), problem.detail);
                Problem::new("/personality", detail)
            };
            problems.into_iter().map(told).collect::<Vec<_>>()
        })?;
        Ok(Cow::Owned(own))
    }

    /// Those of some problems that no placeholder is to blame for.
    pub fn settled(&self, problems: Vec<Problem>) -> Vec<Problem> {
        problems.into_iter().filter(|problem| !placeholder::is_open(&self.open, problem)).collect()
    }

    /// Name of all its versions.
    pub fn name(&self) -> &str {
        &self.document.name
    }

    /// The document, without its kind.
    pub fn document(&self) -> &PersonalityDocument {
        &self.document
    }

    /// Addresses with their scopes.
    pub fn addresses(&self) -> &BTreeMap<IpNet, AddressScope> {
        &self.addresses
    }

    /// All addresses that an interface has with it, those of its tunnel too.
    pub fn all_addresses(&self) -> impl Iterator<Item = IpAddr> {
        let of_tunnel = self.tunnel().into_iter().flat_map(|tunnel| &tunnel.addresses);
        self.addresses.keys().chain(of_tunnel).map(IpNet::addr)
    }

    /// The subnet that they are in.
    pub fn subnet(&self) -> Option<&str> {
        self.document.subnet_id.as_deref()
    }

    /// What it says about applications.
    pub fn applications(&self) -> &Applications {
        &self.applications
    }

    /// Its tunnel.
    pub fn tunnel(&self) -> Option<&PersonalityTunnel> {
        self.tunnel.as_ref()
    }

    /// Its routes.
    pub fn routes(&self) -> &BTreeMap<RouteKey, Route> {
        &self.routes
    }

    /// Servers that answer names, in order.
    pub fn servers(&self) -> &[IpAddr] {
        &self.servers
    }

    /// Domains that names without dots are looked for in.
    pub fn search(&self) -> &[String] {
        &self.search
    }

    /// Largest packet in bytes.
    pub fn mtu(&self) -> Option<u32> {
        self.document.mtu
    }

    /// What must work.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// How connections end that it would break.
    pub fn drain(&self) -> Drain {
        self.drain
    }

    /// Checks by the rules of personas what a carrier would be made of.
    fn check_carrier(&self) -> Vec<Problem> {
        let document =
            self.carrier(&self.document.name, &Carried::default(), &PLACEHOLDERS, None, &Defined::new());
        let found = Persona::new(&document).err().unwrap_or_default();
        found.into_iter().map(carrier::in_place).collect()
    }
}

fn addresses(problems: &mut Problems, document: &PersonalityDocument) -> BTreeMap<IpNet, AddressScope> {
    let written = document.ip_addresses.as_deref().unwrap_or_default();
    if written.is_empty() {
        problems.add("/ip_addresses", "an address is missing: give one like 10.20.0.5/24");
    }
    if written.len() > ADDRESSES {
        problems.add("/ip_addresses", format!("{} addresses: use at most {ADDRESSES}", written.len()));
    }
    let mut addresses: BTreeMap<IpNet, AddressScope> = BTreeMap::new();
    for (index, written) in written.iter().enumerate() {
        let base = format!("/ip_addresses/{index}");
        let (pointer, text, scope) = match written {
            AddressDocument::Text(text) => (base.clone(), text, None),
            AddressDocument::Placed(placed) => (format!("{base}/address"), &placed.address, placed.scope),
        };
        let Some(address) = problems.take(&pointer, prefix::placed(text)) else { continue };
        if addresses.keys().any(|other| other.addr() == address.addr()) {
            problems.add(pointer, format!("address {} is given twice", address.addr()));
            continue;
        }
        let scope = scope.unwrap_or_default();
        let is_beside = |other: &IpNet| other.addr().is_ipv4() && other.trunc() == address.trunc();
        if let Some((other, _)) = addresses.iter().find(|(other, found)| is_beside(other) && **found != scope)
        {
            // The kernel refuses the second (`__inet_insert_ifa`).
            let detail = format!("{other} is in the same network with another scope: give both the same");
            problems.add(format!("{base}/scope"), detail);
        }
        addresses.insert(address, scope);
    }
    addresses
}

fn servers(problems: &mut Problems, written: &[String]) -> Vec<IpAddr> {
    if written.len() > SERVERS {
        problems.add("/dns_servers", format!("{} servers: use at most {SERVERS}", written.len()));
    }
    let mut servers: Vec<IpAddr> = Vec::new();
    for (index, text) in written.iter().enumerate() {
        let pointer = format!("/dns_servers/{index}");
        let Some(server) = problems.take(&pointer, address(text)) else { continue };
        if servers.contains(&server) {
            problems.add(pointer, format!("server {server} is there twice"));
        } else {
            servers.push(server);
        }
    }
    servers
}

fn search(problems: &mut Problems, written: &[String]) -> Vec<String> {
    if written.len() > SEARCH {
        problems.add("/dns_search", format!("{} domains: use at most {SEARCH}", written.len()));
    }
    for (index, domain) in written.iter().enumerate() {
        if !is_domain(domain) {
            let detail = format!("domain `{domain}`: use letters, digits, `-` and dots, like lab.example");
            problems.add(format!("/dns_search/{index}"), detail);
        }
    }
    written.to_vec()
}

/// Whether a text is a name in the form of RFC 1035 section 2.3.1, as resolvers take it.
fn is_domain(text: &str) -> bool {
    let letter = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_');
    let label = |label: &str| !label.is_empty() && label.len() <= 63 && label.chars().all(letter);
    let text = text.strip_suffix('.').unwrap_or(text);
    text.len() <= 253 && text.split('.').all(label)
}

/// Reads an address without a length.
fn address(text: &str) -> Result<IpAddr, String> {
    text.trim().parse().map_err(|_format| format!("address `{text}`: use one like 10.20.0.1 or fd00:20::1"))
}

#[cfg(test)]
mod tests;
