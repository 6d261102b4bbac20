//! Whether the parts of a rule agree with each other.

use ipnet::IpNet;

use crate::document::rule::RuleDocument;
use crate::model::problems::Problems;
use crate::model::protocol::{self, Protocol, has_ports};

/// Refuses fields that the protocol does not have.
pub(super) fn agree(problems: &mut Problems, base: &str, document: &RuleDocument, protocol: Protocol) {
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

pub(super) fn same_family(sources: &[IpNet], targets: &[IpNet]) -> bool {
    let v4 = |prefix: &IpNet| prefix.addr().is_ipv4();
    let v6 = |prefix: &IpNet| prefix.addr().is_ipv6();
    (sources.iter().any(v4) && targets.iter().any(v4)) || (sources.iter().any(v6) && targets.iter().any(v6))
}
