//! One rule, checked: what `security_policies` become.

use ipnet::IpNet;

use super::dscp::Dscp;
use super::icmp::{self, IcmpNumber};
use super::policy::Action;
use super::port::PortRange;
use super::prefix;
use super::problems::Problems;
use super::protocol::{self, Protocol, ProtocolSet, has_ports};
use super::tcp_flags::TcpFlags;
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
}

impl Rule {
    /// Reads the rule at position `index`; problems point below `/security_policies/INDEX`.
    pub fn new(index: u16, document: &RuleDocument) -> Result<Self, Vec<Problem>> {
        let base = format!("/security_policies/{index}");
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
        let mut prefixes = |name: &str, written: Option<&OneOrMany<String>>| {
            list(&mut problems, &format!("{base}/{name}"), written, |text| prefix::matched(text))
        };
        let sources = prefixes("source", document.source.as_ref());
        let targets = prefixes("destination", document.destination.as_ref());
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
        if let Some(protocol) = protocol {
            agree(&mut problems, &base, document, protocol);
        }
        if !sources.is_empty() && !targets.is_empty() && !same_family(&sources, &targets) {
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
            log: document.log.unwrap_or(false) || document.action == Action::Log,
            dscp,
            priority: document.priority,
        })
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

fn same_family(sources: &[IpNet], targets: &[IpNet]) -> bool {
    let v4 = |prefix: &IpNet| prefix.addr().is_ipv4();
    let v6 = |prefix: &IpNet| prefix.addr().is_ipv6();
    (sources.iter().any(v4) && targets.iter().any(v4)) || (sources.iter().any(v6) && targets.iter().any(v6))
}

/// Refuses fields that the protocol does not have.
fn agree(problems: &mut Problems, base: &str, document: &RuleDocument, protocol: Protocol) {
    let is = |allowed: &dyn Fn(u8) -> bool| match protocol {
        Protocol::Any => true,
        Protocol::Icmp => allowed(protocol::ICMP),
        Protocol::Number(number) => allowed(number),
    };
    for (name, given) in [("port", document.port.is_some()), ("source_port", document.source_port.is_some())]
    {
        if given && !is(&has_ports) {
            let detail = "only tcp, udp, sctp and udplite have ports: remove the field or change `protocol`";
            problems.add(format!("{base}/{name}"), detail);
        }
    }
    let icmp = |number| matches!(number, protocol::ICMP | protocol::ICMPV6);
    if document.icmp_type.is_some() && (protocol == Protocol::Any || !is(&icmp)) {
        problems.add(format!("{base}/icmp_type"), "needs `protocol: icmp` or `protocol: icmpv6`");
    }
    if document.icmp_code.is_some() && document.icmp_type.is_none() {
        problems.add(format!("{base}/icmp_code"), "needs `icmp_type` beside it");
    }
    if document.tcp_flags.is_some() && (protocol == Protocol::Any || !is(&|number| number == protocol::TCP)) {
        problems.add(format!("{base}/tcp_flags"), "needs `protocol: tcp`");
    }
}
