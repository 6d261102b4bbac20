//! One rule, checked: what `security_policies` become.

mod agree;
mod terms;

use hub_common::application::Signature;
use ipnet::IpNet;

use self::agree::{agree, same_family};
use self::terms::terms;
use super::dscp::Dscp;
use super::expiry::Expiry;
use super::icmp::{self, IcmpNumber};
use super::policy::{Action, Terms};
use super::port::PortRange;
use super::problems::Problems;
use super::protocol::{self, Protocol, ProtocolSet, has_ports};
use super::tcp_flags::TcpFlags;
use super::{names, prefix, signature};
use crate::command::Problem;
use crate::document::parts::{OneOrMany, Scalar};
use crate::document::qos::PriorityDocument;
use crate::document::rule::{DirectionDocument, RuleDocument};

/// Which way a packet goes, seen from the members of a persona.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// Towards members.
    Ingress,
    /// From members.
    Egress,
}

impl Direction {
    /// Both, in order.
    pub const ALL: [Self; 2] = [Self::Ingress, Self::Egress];

    /// `ingress` or `egress`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

/// A rule whose parts agree with each other. An empty list matches everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    index: u16,
    direction: DirectionDocument,
    protocol: Protocol,
    ports: Vec<PortRange>,
    source_ports: Vec<PortRange>,
    sources: Vec<IpNet>,
    targets: Vec<IpNet>,
    icmp_type: Option<IcmpNumber>,
    icmp_code: Option<IcmpNumber>,
    tcp_flags: Option<TcpFlags>,
    action: Action,
    log: bool,
    dscp: Option<Dscp>,
    priority: Option<PriorityDocument>,
    source_sets: Vec<String>,
    target_sets: Vec<String>,
    expiry: Expiry,
    terms: Terms,
    signatures: Vec<Signature>,
    is_final: bool,
    identity: u64,
}

/// The fields of a list that are prefixes, and those that name sets.
#[derive(Default)]
struct Places {
    prefixes: Vec<IpNet>,
    sets: Vec<String>,
}

impl Rule {
    /// Reads the rule at position `index`; problems point below `LIST/INDEX`.
    pub fn new(list_at: &str, index: u16, document: &RuleDocument) -> Result<Self, Vec<Problem>> {
        let base = format!("{list_at}/{index}");
        let mut problems = Problems::default();
        let mut protocol = document
            .protocol
            .as_ref()
            .and_then(|written| problems.take(&format!("{base}/protocol"), Protocol::parse(written)));
        let mut numbers = |name: &str, written: Option<&OneOrMany<Scalar>>| {
            list(&mut problems, &format!("{base}/{name}"), written, PortRange::parse)
        };
        let ports = numbers("port", document.port.as_ref());
        let source_ports = numbers("source_port", document.source_port.as_ref());
        let sources = places(&mut problems, &format!("{base}/source"), document.source.as_ref());
        let targets = places(&mut problems, &format!("{base}/destination"), document.destination.as_ref());
        let Places { prefixes: sources, sets: source_sets } = sources;
        let Places { prefixes: targets, sets: target_sets } = targets;
        let terms = terms(&mut problems, &base, document);
        let expiry = life(&mut problems, &base, document);
        let mut icmp = |name: &str, written: Option<&Scalar>, parse: fn(&Scalar) -> _| {
            written.and_then(|written| problems.take(&format!("{base}/{name}"), parse(written)))
        };
        let icmp_type = icmp("icmp_type", document.icmp_type.as_ref(), icmp::parse_type);
        let icmp_code = icmp("icmp_code", document.icmp_code.as_ref(), icmp::parse_code);
        let tcp_flags = document
            .tcp_flags
            .as_ref()
            .and_then(|written| problems.take(&format!("{base}/tcp_flags"), TcpFlags::parse(written)));
        if document.protocol.is_none() {
            protocol = match (document.icmp_type.is_some(), document.tcp_flags.is_some()) {
                (true, _) => Some(Protocol::Icmp),
                (false, true) => Some(Protocol::Number(protocol::TCP)),
                (false, false) => Some(Protocol::Any),
            };
        }
        let mut signatures = Vec::new();
        if let Some(written) = &document.signature {
            let pointer = format!("{base}/signature");
            let (found, carrier) = signature::read(&mut problems, &pointer, written);
            signatures = found;
            let free = protocol == Some(Protocol::Any);
            if free && carrier.is_some() {
                protocol = carrier;
            } else if carrier.is_some() && carrier != protocol {
                problems.add(pointer, "no connection of this `protocol` begins so: leave `protocol` out");
            }
            if document.tcp_flags.is_some() || document.icmp_type.is_some() {
                problems.add(
                    format!("{base}/signature"),
                    "goes with ports and addresses, not with flags or types",
                );
            }
        }
        if let Some(protocol) = protocol {
            agree(&mut problems, &base, document, protocol);
        }
        let no_sets = source_sets.is_empty() && target_sets.is_empty();
        if no_sets && !sources.is_empty() && !targets.is_empty() && !same_family(&sources, &targets) {
            let detail = "source is of one address family and destination of the other: no packet is both";
            problems.add(format!("{base}/destination"), detail);
        }
        let dscp = document
            .dscp
            .as_ref()
            .and_then(|written| problems.take(&format!("{base}/dscp"), Dscp::parse(written)));
        for (name, given) in [("dscp", dscp.is_some()), ("priority", document.priority.is_some())] {
            if given && document.action != Action::Allow {
                problems.add(format!("{base}/{name}"), "needs `action: allow`: only what passes is marked");
            }
        }
        problems.settle(Self {
            index,
            direction: document.direction.unwrap_or_default(),
            protocol: protocol.unwrap_or(Protocol::Any),
            ports,
            source_ports,
            sources,
            targets,
            icmp_type,
            icmp_code,
            tcp_flags,
            action: document.action,
            log: document.log.unwrap_or(false) || !document.action.decides(),
            dscp,
            priority: document.priority,
            source_sets,
            target_sets,
            expiry,
            terms,
            signatures,
            is_final: document.is_final.unwrap_or(false),
            identity: identity(document),
        })
    }

    /// Stays the same when the rule moves in its list or, if it has a name, changes.
    pub fn identity(&self) -> u64 {
        self.identity
    }

    /// Tells the rule from an earlier one of the same name or content.
    pub(super) fn set_apart(&mut self, number: u64) {
        self.identity = self.identity.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    }

    /// Sets that the source may be in, beside the prefixes.
    pub fn source_sets(&self) -> &[String] {
        &self.source_sets
    }

    /// Sets that the target may be in, beside the prefixes.
    pub fn target_sets(&self) -> &[String] {
        &self.target_sets
    }

    /// When it ends.
    pub fn expiry(&self) -> Expiry {
        self.expiry
    }

    /// What it says beside what it matches, but for its end.
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// What first bytes must look like: one of these; empty is anything.
    pub fn signatures(&self) -> &[Signature] {
        &self.signatures
    }

    /// Whether an allow ends the questioning.
    pub fn is_final(&self) -> bool {
        self.is_final
    }

    /// Position in the document's list, from 0.
    pub fn index(&self) -> u16 {
        self.index
    }

    /// What it does.
    pub fn action(&self) -> Action {
        self.action
    }

    /// Whether it looks at packets of this direction.
    pub fn applies(&self, direction: Direction) -> bool {
        match self.direction {
            DirectionDocument::Both => true,
            DirectionDocument::Ingress => direction == Direction::Ingress,
            DirectionDocument::Egress => direction == Direction::Egress,
        }
    }

    /// The protocols that it can match.
    pub fn protocols(&self) -> ProtocolSet {
        let mut set = ProtocolSet::NONE;
        match self.protocol {
            Protocol::Any if !self.has_ports() => return ProtocolSet::ALL,
            Protocol::Any => {
                (0..=u8::MAX).filter(|number| has_ports(*number)).for_each(|number| set.insert(number));
            }
            Protocol::Icmp => {
                set.insert(protocol::ICMP);
                set.insert(protocol::ICMPV6);
            }
            Protocol::Number(number) => set.insert(number),
        }
        set
    }

    /// Directions it looks at.
    pub fn direction(&self) -> DirectionDocument {
        self.direction
    }

    /// Protocol it names.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Target ports; empty is any.
    pub fn ports(&self) -> &[PortRange] {
        &self.ports
    }

    /// Source ports; empty is any.
    pub fn source_ports(&self) -> &[PortRange] {
        &self.source_ports
    }

    /// Source prefixes; empty is any.
    pub fn sources(&self) -> &[IpNet] {
        &self.sources
    }

    /// Target prefixes; empty is any.
    pub fn targets(&self) -> &[IpNet] {
        &self.targets
    }

    /// ICMP type.
    pub fn icmp_type(&self) -> Option<IcmpNumber> {
        self.icmp_type
    }

    /// ICMP code.
    pub fn icmp_code(&self) -> Option<IcmpNumber> {
        self.icmp_code
    }

    /// TCP flags.
    pub fn tcp_flags(&self) -> Option<TcpFlags> {
        self.tcp_flags
    }

    /// Whether matches are reported.
    pub fn logs(&self) -> bool {
        self.log
    }

    /// Code point of packets of connections that it admits.
    pub fn dscp(&self) -> Option<Dscp> {
        self.dscp
    }

    /// Class of traffic of those packets.
    pub fn priority(&self) -> Option<PriorityDocument> {
        self.priority
    }

    /// Whether it looks at ports.
    pub fn has_ports(&self) -> bool {
        !self.ports.is_empty() || !self.source_ports.is_empty()
    }
}

fn list<W, T, E: std::fmt::Display>(
    problems: &mut Problems,
    base: &str,
    written: Option<&OneOrMany<W>>,
    parse: impl Fn(&W) -> Result<T, E>,
) -> Vec<T> {
    let Some(written) = written else { return Vec::new() };
    if written.as_slice().is_empty() {
        problems.add(base, "the list is empty: name at least one, or leave the field out");
    }
    written.pointed(base).filter_map(|(pointer, written)| problems.take(&pointer, parse(written))).collect()
}

/// Prefixes, and sets written as `@NAME`.
fn places(problems: &mut Problems, base: &str, written: Option<&OneOrMany<String>>) -> Places {
    let mut places = Places::default();
    let Some(written) = written else { return places };
    if written.as_slice().is_empty() {
        problems.add(base, "the list is empty: name at least one, or leave the field out");
    }
    for (pointer, text) in written.pointed(base) {
        match text.strip_prefix('@') {
            Some(name) => {
                problems.take(&pointer, names::set(name));
                places.sets.push(name.to_owned());
            }
            None => places.prefixes.extend(problems.take(&pointer, prefix::matched(text))),
        }
    }
    places
}

/// When a rule ends; the `ttl` of a quarantine is something else.
fn life(problems: &mut Problems, base: &str, document: &RuleDocument) -> Expiry {
    let ttl = document.ttl.as_deref().filter(|_| document.action != Action::Quarantine);
    let read = Expiry::parse(document.expires_at.as_deref(), ttl);
    read.unwrap_or_else(|problem| {
        let detail = problem.detail.replace("expiration", "expires_at");
        problems.add(format!("{base}{}", problem.pointer.replace("expiration", "expires_at")), detail);
        Expiry::Never
    })
}

/// The 64-bit FNV-1a hash of the rule's name, or of all it says.
fn identity(document: &RuleDocument) -> u64 {
    let text = match &document.name {
        Some(name) => format!("name {name}"),
        None => serde_json::to_string(document).unwrap_or_default(),
    };
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
