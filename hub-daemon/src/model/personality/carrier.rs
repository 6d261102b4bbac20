//! The persona that a personality's packets are judged by.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hub_common::limits::LEAVING_PER_DIRECTION;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use super::Personality;
use crate::command::Problem;
use crate::document::parts::{InterfaceDocument, OneOrMany};
use crate::document::persona::{OverlapDocument, PersonaDocument, SetDocument};
use crate::document::qos::{PriorityDocument, QosDocument};
use crate::model::application::Defined;
use crate::model::is_default;

/// Ranges and addresses that go away with a personality, at most.
pub const LEAVING: usize = LEAVING_PER_DIRECTION as usize;

/// What a persona that carries a personality has that others have not: ranges of single addresses, and the
/// addresses by which the hub answers beside them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// Addresses that the hub puts on the port, at most one per family; none where it is the interface itself.
    pub gateways: Vec<IpAddr>,
    /// What only the other personality of the interface has, at most [`LEAVING`]: refused both ways.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leaving: Vec<IpNet>,
    /// How many rules in front of the others the personality does not say.
    #[serde(default, skip_serializing_if = "is_default")]
    pub inserted: u16,
}

/// Ranges that stand for those of an interface where rules are checked without one: documentation prefixes
/// (RFC 5737, RFC 3849).
pub const PLACEHOLDERS: [IpNet; 2] = [
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(192, 0, 2, 0), 24)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 64)),
];

impl Personality {
    /// The persona that judges the packets of `ranges` by what the personality says. It has the name of the
    /// interface's record, whose packets come by `port`.
    pub fn carrier(
        &self,
        record: &str,
        carried: &Carried,
        ranges: &[IpNet],
        port: Option<&str>,
        applications: &Defined,
    ) -> PersonaDocument {
        let document = self.document();
        let mut rules = document.firewall_rules.clone().unwrap_or_default();
        rules.extend(self.applications().rules(applications));
        let sets = document.sets.iter().flatten().map(|(name, set)| (apart(name, set), set.clone()));
        let sets: BTreeMap<String, SetDocument> = sets.collect();
        for places in rules.iter_mut().flat_map(|rule| [&mut rule.source, &mut rule.destination]).flatten() {
            refer(places, document.sets.as_ref());
        }
        PersonaDocument {
            name: record.to_owned(),
            ip_range: OneOrMany::Many(ranges.iter().map(ToString::to_string).collect()),
            protocols: document.protocols.clone(),
            qos: document.qos_settings.as_ref().map(with_code_point),
            security_policies: Some(rules),
            interfaces: port.map(|port| vec![InterfaceDocument::Name(port.to_owned())]),
            // Who asks for an address gets that one or none: the interface has it as it is.
            overlap: Some(OverlapDocument::Reject),
            mtu: document.mtu,
            default_action: document.default_action,
            strict: document.strict,
            sets: document.sets.is_some().then_some(sets),
            carried: Some(carried.clone()),
            ..PersonaDocument::default()
        }
    }
}

/// The name of a set in the data path: while two personalities are there, their sets of one name must not be one.
fn apart(name: &str, set: &SetDocument) -> String {
    let text = serde_json::to_string(set).unwrap_or_default();
    let hash =
        text.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("{name}-{hash:08x}")
}

/// Has a rule name sets as they are in the data path.
fn refer(places: &mut OneOrMany<String>, sets: Option<&BTreeMap<String, SetDocument>>) {
    let texts = match places {
        OneOrMany::One(text) => std::slice::from_mut(text),
        OneOrMany::Many(texts) => texts.as_mut_slice(),
    };
    for text in texts {
        let name = text.strip_prefix('@').unwrap_or_default();
        if let Some(set) = sets.and_then(|sets| sets.get(name)) {
            *text = format!("@{}", apart(name, set));
        }
    }
}

/// A class of traffic brings the code point that networks know it by (RFC 4594 section 3).
fn with_code_point(qos: &QosDocument) -> QosDocument {
    let name = qos.priority.and_then(|priority| match priority {
        PriorityDocument::Voice => Some("EF"),
        PriorityDocument::Video => Some("AF41"),
        PriorityDocument::Normal => None,
        PriorityDocument::Bulk => Some("CS1"),
    });
    QosDocument { dscp: qos.dscp.clone().or(name.map(Into::into)), ..qos.clone() }
}

/// A problem of the carrier as one of the personality.
pub(super) fn in_place(problem: Problem) -> Problem {
    let renamed = [("/security_policies", "/firewall_rules"), ("/qos", "/qos_settings")];
    let found = renamed.iter().find_map(|(from, to)| Some((problem.pointer.strip_prefix(from)?, *to)));
    let pointer = found.map(|(rest, to)| format!("{to}{rest}"));
    Problem { pointer: pointer.unwrap_or(problem.pointer), ..problem }
}
