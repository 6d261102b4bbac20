//! Where members may go outside, and what their packets carry there.

use std::net::IpAddr;

use ipnet::IpNet;

use super::prefix;
use super::problems::Problems;
use super::translation::{self, Nat};
use crate::document::parts::OneOrMany;
use crate::document::persona::{EgressDocument, NatDocument};

/// Most prefixes in each list of `egress`.
pub const PREFIXES: usize = 256;

pub(super) fn lists(problems: &mut Problems, egress: &EgressDocument) -> (Option<Vec<IpNet>>, Vec<IpNet>) {
    let mut list = |base: &str, written: &OneOrMany<String>| {
        let count = written.as_slice().len();
        if count > PREFIXES {
            problems.add(base, format!("{count} prefixes: use at most {PREFIXES}"));
        }
        let parsed = written.pointed(base);
        let parsed = parsed.filter_map(|(pointer, text)| problems.take(&pointer, prefix::matched(text)));
        parsed.collect::<Vec<IpNet>>()
    };
    let allow = egress.allow.as_ref().map(|written| list("/egress/allow", written));
    let deny = egress.deny.as_ref().map(|written| list("/egress/deny", written));
    (allow, deny.unwrap_or_default())
}

pub(super) fn next_hops(problems: &mut Problems, egress: &EgressDocument, ranges: &[IpNet]) -> Vec<IpAddr> {
    let Some(written) = &egress.next_hop else { return Vec::new() };
    let mut hops: Vec<IpAddr> = Vec::new();
    for (pointer, text) in written.pointed("/egress/next_hop") {
        let Ok(hop) = text.parse::<IpAddr>() else {
            problems.add(
                pointer,
                format!("next hop `{text}`: use the address of a router, for example 192.0.2.1"),
            );
            continue;
        };
        if hop.is_loopback() || hop.is_multicast() || hop.is_unspecified() {
            problems.add(pointer, format!("next hop {hop} is not the address of a router"));
        } else if !ranges.iter().any(|range| range.addr().is_ipv4() == hop.is_ipv4()) {
            problems.add(pointer, format!("next hop {hop} is of a family that ip_range does not have"));
        } else if ranges.iter().any(|range| range.contains(&hop)) {
            problems.add(pointer, format!("next hop {hop} is inside ip_range: use a router outside"));
        } else if hops.iter().any(|other| other.is_ipv4() == hop.is_ipv4()) {
            problems.add(pointer, format!("next hop {hop} is the second of its family: keep one"));
        } else {
            hops.push(hop);
        }
    }
    hops
}

pub(super) fn nat(problems: &mut Problems, written: Option<&NatDocument>, ranges: &[IpNet]) -> Nat {
    let written = match written {
        None | Some(NatDocument::None) => return Nat::None,
        Some(NatDocument::Masquerade) => return Nat::Masquerade { v6: false },
        Some(NatDocument::MasqueradeAll) => return Nat::Masquerade { v6: true },
        Some(NatDocument::Static(written)) => written,
    };
    let parsed: Vec<(String, IpNet)> = written
        .pointed("/egress/nat/static")
        .filter_map(|(pointer, text)| {
            let prefix = problems.take(&pointer, prefix::owned(text))?;
            Some((pointer, prefix))
        })
        .collect();
    match translation::pairs(ranges, &parsed) {
        Ok(pairs) => Nat::Static(pairs),
        Err((pointer, detail)) => {
            problems.add(pointer, detail);
            Nat::None
        }
    }
}
