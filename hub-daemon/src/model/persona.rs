//! A persona whose document was checked whole; time and other personas are not asked here.

pub(super) mod labels;
mod overlap;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use hub_common::limits::RULES_PER_PERSONA;
use ipnet::IpNet;

use super::alert::{Alert, of_rules};
use super::detector::Detectors;
use super::endpoint::{self, Attachment, Endpoint};
use super::expiry::Expiry;
use super::life::{self, OnExpiry};
use super::personality::Carried;
use super::problems::Problems;
use super::protocol::{self, Protocol, ProtocolSet};
use super::qos::Qos;
use super::range::{Asked, Auto};
use super::rule::Rule;
use super::service::{self, Service, Used};
use super::set::{self, Set};
use super::translation::Nat;
use super::{connections, names, prefix};
use crate::command::Problem;
use crate::compile;
use crate::document::parts::{OneOrMany, Scalar};
use crate::document::persona::{
    DefaultActionDocument, EnforcementDocument, EstablishedDocument, OverlapDocument, PersonaDocument,
    TrackingDocument,
};

/// Most ranges of one persona.
pub const RANGES: usize = 16;
/// Most peers of one persona.
pub const PEERS: usize = 64;
/// Lengths in bytes that `mtu` may be.
const MTU: std::ops::RangeInclusive<u32> = 1_280..=9_216;

/// A checked persona. Source: "a persona is defined by" range, protocols, qos, policies, expiration.
#[derive(Clone, Debug, PartialEq)]
pub struct Persona {
    name: String,
    ranges: Vec<IpNet>,
    autos: BTreeMap<usize, Auto>,
    allotted: BTreeMap<usize, IpNet>,
    pub(crate) rules: RuleSet,
    qos: Option<Qos>,
    expiry: Expiry,
    max_ttl: Option<Duration>,
    on_expiry: OnExpiry,
    attachments: Vec<Attachment>,
    endpoints: Vec<Endpoint>,
    peers: BTreeSet<String>,
    services: Vec<Service>,
    uses: BTreeSet<Used>,
    next_hops: Vec<IpAddr>,
    overlap: OverlapDocument,
    mtu: Option<u32>,
    nat: Nat,
    detectors: Option<Detectors>,
    alerts: Vec<Alert>,
    sets: BTreeMap<String, Set>,
    carried: Option<Carried>,
}

/// What a policy is compiled from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RuleSet {
    pub(crate) permitted: ProtocolSet,
    pub(crate) rules: Vec<Rule>,
    pub(crate) default_action: DefaultActionDocument,
    pub(crate) strict: bool,
    pub(crate) established: EstablishedDocument,
    pub(crate) tracking: TrackingDocument,
    pub(crate) enforcement: EnforcementDocument,
    pub(crate) connections: Option<u32>,
    pub(crate) egress_allow: Option<Vec<IpNet>>,
    pub(crate) egress_deny: Vec<IpNet>,
}

impl Persona {
    /// Checks a document. Problems carry JSON pointers into it. Ranges that the hub is to choose are ones
    /// that nobody can own.
    pub fn new(document: &PersonaDocument) -> Result<Self, Vec<Problem>> {
        Self::with_ranges(document, &BTreeMap::new())
    }

    /// As [`Self::new`], with ranges that were chosen, by position in `ip_range`.
    pub fn with_ranges(
        document: &PersonaDocument,
        allotted: &BTreeMap<usize, IpNet>,
    ) -> Result<Self, Vec<Problem>> {
        let mut problems = Problems::default();
        problems.take("/name", names::persona(&document.name));
        let carried = document.carried.as_ref();
        let (ranges, autos) = ranges(&mut problems, &document.ip_range, allotted, carried);
        let permitted = permitted(&mut problems, document.protocols.as_deref(), &ranges);
        let qos = document.qos.as_ref().map(|written| Qos::new(&mut problems, written));
        let rules = rules(&mut problems, document);
        let sets = set::sets(&mut problems, document.sets.as_ref());
        set::known(&mut problems, document, &sets);
        let expiry = Expiry::parse(document.expiration.as_deref(), document.ttl.as_deref());
        let expiry = expiry.map_err(|problem| problems.extend([problem])).ok();
        let (max_ttl, on_expiry) = life::read(&mut problems, document);
        let interfaces = document.interfaces.as_deref().unwrap_or_default();
        let attachments = endpoint::attachments(&mut problems, interfaces, &ranges);
        let written = document.endpoints.as_deref().unwrap_or_default();
        let endpoints = endpoint::endpoints(&mut problems, written, &ranges);
        let peers = peers(&mut problems, document);
        let exposed = document.expose.as_deref().unwrap_or_default();
        let services = service::exposed(&mut problems, exposed, &permitted);
        let uses = service::used(&mut problems, document.uses.as_deref().unwrap_or_default(), &document.name);
        let egress = document.egress.clone().unwrap_or_default();
        let (egress_allow, egress_deny) = super::egress::lists(&mut problems, &egress);
        let next_hops = super::egress::next_hops(&mut problems, &egress, &ranges);
        let nat = super::egress::nat(&mut problems, egress.nat.as_ref(), &ranges);
        if let Some(mtu) = document.mtu.filter(|mtu| !MTU.contains(mtu)) {
            // RFC 8200 section 5: no IPv6 link may have less than 1280.
            problems.add("/mtu", format!("mtu {mtu}: use {} to {} bytes", MTU.start(), MTU.end()));
        }
        labels::check(&mut problems, document.labels.as_ref());
        let connections = connections::read(&mut problems, "", document.max_connections_per_source);
        super::node::gateway(&mut problems, document);
        let detectors = document.detectors.as_ref().map(|written| Detectors::new(&mut problems, written));
        let written = document.alerts.as_deref().unwrap_or_default();
        let mut alerts = Alert::list(&mut problems, "/alerts", written);
        let written = document.security_policies.as_deref().unwrap_or_default();
        alerts.extend(of_rules(&mut problems, ("/security_policies", "rule"), written, &rules, &alerts));
        let persona = Self {
            name: document.name.clone(),
            ranges,
            allotted: allotted.clone(),
            autos,
            rules: RuleSet {
                permitted,
                rules,
                default_action: document.default_action.unwrap_or_default(),
                strict: document.strict.unwrap_or(false),
                established: document.established.unwrap_or_default(),
                tracking: document.tracking.unwrap_or_default(),
                enforcement: document.enforcement.unwrap_or_default(),
                connections,
                egress_allow,
                egress_deny,
            },
            qos,
            expiry: expiry.unwrap_or(Expiry::Never),
            max_ttl,
            on_expiry,
            attachments,
            endpoints,
            peers,
            services,
            uses,
            next_hops,
            overlap: document.overlap.unwrap_or_default(),
            mtu: document.mtu,
            nat,
            detectors,
            alerts,
            sets,
            carried: carried.cloned(),
        };
        if problems.is_empty() {
            problems.take("/security_policies", compile::check(&persona));
        }
        problems.settle(persona)
    }

    /// Unique name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its prefixes; none overlaps another.
    pub fn ranges(&self) -> &[IpNet] {
        &self.ranges
    }

    /// Ranges that the hub is to choose, by position in `ip_range`.
    pub fn autos(&self) -> &BTreeMap<usize, Auto> {
        &self.autos
    }

    /// Ranges that the hub chose, by position in `ip_range`.
    pub fn allotted(&self) -> &BTreeMap<usize, IpNet> {
        &self.allotted
    }

    /// Longest life from admission on.
    pub fn max_ttl(&self) -> Option<Duration> {
        self.max_ttl
    }

    /// What its end does to connections.
    pub fn on_expiry(&self) -> OnExpiry {
        self.on_expiry
    }

    /// Services that others may use.
    pub fn services(&self) -> &[Service] {
        &self.services
    }

    /// Services of others that members may reach.
    pub fn uses(&self) -> &BTreeSet<Used> {
        &self.uses
    }

    /// Quality of service asked for.
    pub fn qos(&self) -> Option<Qos> {
        self.qos
    }

    /// When it ends.
    pub fn expiry(&self) -> Expiry {
        self.expiry
    }

    /// Existing interfaces that belong to it.
    pub fn attachments(&self) -> &[Attachment] {
        &self.attachments
    }

    /// Veth pairs to make for it.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// Names of personas that it wants to talk to.
    pub fn peers(&self) -> &BTreeSet<String> {
        &self.peers
    }

    /// Routers of its own default routes, at most one per family.
    pub fn next_hops(&self) -> &[IpAddr] {
        &self.next_hops
    }

    /// Largest packet of members in bytes, if given.
    pub fn mtu(&self) -> Option<u32> {
        self.mtu
    }

    /// What packets carry beyond uplinks.
    pub fn nat(&self) -> &Nat {
        &self.nat
    }

    /// What its packets are watched for.
    pub fn detectors(&self) -> Option<&Detectors> {
        self.detectors.as_ref()
    }

    /// Thresholds whose crossing is reported.
    pub fn alerts(&self) -> &[Alert] {
        &self.alerts
    }

    /// Its sets by name.
    pub fn sets(&self) -> &BTreeMap<String, Set> {
        &self.sets
    }

    /// What it has if it carries a personality.
    pub fn carried(&self) -> Option<&Carried> {
        self.carried.as_ref()
    }

    /// What its rules do.
    pub fn enforcement(&self) -> EnforcementDocument {
        self.rules.enforcement
    }

    /// Its rules, in order.
    pub fn rules(&self) -> &[Rule] {
        &self.rules.rules
    }

    /// Whether it has a range of the family.
    pub fn has_family(&self, v4: bool) -> bool {
        self.ranges.iter().any(|range| range.addr().is_ipv4() == v4)
    }
}

fn ranges(
    problems: &mut Problems,
    written: &OneOrMany<String>,
    allotted: &BTreeMap<usize, IpNet>,
    carried: Option<&Carried>,
) -> (Vec<IpNet>, BTreeMap<usize, Auto>) {
    if written.as_slice().is_empty() {
        problems.add("/ip_range", "a range is missing: give a prefix like 10.100.0.0/24");
    }
    if written.as_slice().len() > RANGES {
        problems.add("/ip_range", format!("{} ranges: use at most {RANGES}", written.as_slice().len()));
    }
    let mut ranges: Vec<IpNet> = Vec::new();
    let mut autos = BTreeMap::new();
    for (index, (pointer, text)) in written.pointed("/ip_range").enumerate() {
        let asked = match carried {
            Some(_) => prefix::carried(text).map(Asked::Given).map_err(Into::into),
            None => Asked::parse(text),
        };
        let Some(asked) = problems.take(&pointer, asked) else { continue };
        let range = match asked {
            Asked::Given(range) => range,
            Asked::Auto(auto) => {
                let range = allotted.get(&index).copied().unwrap_or_else(|| auto.placeholder(index));
                autos.insert(index, auto);
                range
            }
        };
        match ranges.iter().find(|other| prefix::overlaps(other, &range)) {
            Some(other) => problems.add(pointer, format!("prefix `{text}` overlaps {other} of this list")),
            None => ranges.push(range),
        }
    }
    (ranges, autos)
}

fn permitted(problems: &mut Problems, written: Option<&[Scalar]>, ranges: &[IpNet]) -> ProtocolSet {
    let default = [Scalar::from("tcp"), Scalar::from("udp"), Scalar::from("icmp")];
    let written = written.unwrap_or(&default);
    if written.is_empty() {
        problems.add("/protocols", "the list is empty: name at least one protocol, for example tcp");
    }
    let mut permitted = ProtocolSet::NONE;
    for (index, written) in written.iter().enumerate() {
        match problems.take(&format!("/protocols/{index}"), Protocol::parse(written)) {
            Some(Protocol::Any) => return ProtocolSet::ALL,
            Some(Protocol::Icmp) => {
                permitted.insert(protocol::ICMP);
                if ranges.iter().any(|range| range.addr().is_ipv6()) {
                    permitted.insert(protocol::ICMPV6);
                }
            }
            Some(Protocol::Number(number)) => permitted.insert(number),
            None => {}
        }
    }
    permitted
}

pub(super) fn rules(problems: &mut Problems, document: &PersonaDocument) -> Vec<Rule> {
    let written = document.security_policies.as_deref().unwrap_or_default();
    if written.len() > RULES_PER_PERSONA as usize {
        let detail = format!("{} rules: use at most {RULES_PER_PERSONA}", written.len());
        problems.add("/security_policies", detail);
        return Vec::new();
    }
    let mut rules = Vec::with_capacity(written.len());
    for (index, rule) in (0_u16..).zip(written) {
        match Rule::new("/security_policies", index, rule) {
            Ok(rule) => rules.push(rule),
            Err(found) => problems.extend(found),
        }
        if rule.is_final.is_some() {
            let detail = "only rules of the hub's `baseline` have `final`: remove the field";
            problems.add(format!("/security_policies/{index}/final"), detail);
        }
    }
    tell_apart(&mut rules);
    rules
}

/// Rules of one name, or with nothing different about them, are counted apart by their order.
pub(super) fn tell_apart(rules: &mut [Rule]) {
    let mut seen: BTreeMap<u64, u64> = BTreeMap::new();
    for rule in rules {
        let number = seen.entry(rule.identity()).or_default();
        rule.set_apart(*number);
        *number += 1;
    }
}

fn peers(problems: &mut Problems, document: &PersonaDocument) -> BTreeSet<String> {
    let written = document.peers.as_deref().unwrap_or_default();
    if written.len() > PEERS {
        problems.add("/peers", format!("{} peers: use at most {PEERS}", written.len()));
    }
    for (index, peer) in written.iter().enumerate() {
        let pointer = format!("/peers/{index}");
        problems.take(&pointer, names::persona(peer));
        if *peer == document.name {
            problems.add(pointer, "a persona is no peer of itself: remove the entry");
        }
    }
    written.iter().cloned().collect()
}
