//! What is asked of an interface with a personality, and which answers count.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::contribute::tunnel_name;
use super::seat::Seat;
use crate::model::SegmentId;
use crate::model::check::{Check, CheckAsked, CheckResult};
use crate::model::personality::{Device, Personality, Way};

/// Oldest handshake of a tunnel that is in use (`REJECT_AFTER_TIME` of WireGuard).
pub const HANDSHAKE: Duration = Duration::from_mins(3);

/// Kinds of checks, as far as answers of before say something about answers of after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Whether the interface is as the personality wants it: must be so, whatever was before.
    Own,
    Neighbour,
    Ping,
    Dns,
}

fn kind(check: &Check) -> Kind {
    match check {
        Check::Carrier
        | Check::Addresses(_)
        | Check::Applied
        | Check::Rules
        | Check::Drops { .. }
        | Check::Route { .. }
        | Check::Handshake { .. } => Kind::Own,
        Check::Neighbour(_) => Kind::Neighbour,
        Check::Ping(_) | Check::Tcp(_) | Check::Http(_) => Kind::Ping,
        Check::Dns { .. } => Kind::Dns,
    }
}

/// What is asked of an interface with a personality.
pub fn asked(personality: &Personality, seat: &Seat, segment: SegmentId) -> Vec<CheckAsked> {
    let mut checks = vec![Check::Carrier];
    checks.push(Check::Addresses(personality.addresses().keys().copied().collect()));
    checks.extend([Check::Applied, Check::Rules]);
    let link = personality.tunnel().map(|tunnel| tunnel_name(tunnel, segment));
    let mut routers = seat.routers.clone();
    let mut targets = Vec::new();
    for (key, route) in personality.routes() {
        let Way::Device { via, device } = &route.way else { continue };
        let expected = match device {
            Device::Interface => None,
            Device::Tunnel => link.clone(),
            Device::Name(name) => Some(name.clone()),
        };
        routers.extend(via.filter(|via| *device == Device::Interface && !routers.contains(via)));
        targets.push(Check::Route { target: inside(&key.target), device: expected });
    }
    checks.extend(targets);
    checks.extend(routers.iter().flat_map(|router| [Check::Neighbour(*router), Check::Ping(*router)]));
    let name = &personality.health().dns_name;
    let servers = personality.servers().iter();
    checks.extend(servers.map(|server| Check::Dns { server: *server, name: name.clone() }));
    checks.extend(link.map(|link| Check::Handshake { link, within: HANDSHAKE }));
    let own = checks.into_iter().map(|check| CheckAsked::new(check, false));
    let named = personality.health().targets.iter();
    own.chain(named.map(|check| CheckAsked::new(check.clone(), true))).collect()
}

/// Devices that routes of a personality lead by, beside its interface.
pub fn devices(personality: &Personality, segment: SegmentId) -> Vec<String> {
    let ways = personality.routes().values().map(|route| &route.way);
    let named = ways.filter_map(|way| match way {
        Way::Device { device: Device::Tunnel, .. } => {
            personality.tunnel().map(|tunnel| tunnel_name(tunnel, segment))
        }
        Way::Device { device: Device::Name(name), .. } => Some(name.clone()),
        Way::Device { device: Device::Interface, .. } | Way::Blackhole | Way::Unreachable | Way::Prohibit => {
            None
        }
    });
    named.collect::<BTreeSet<String>>().into_iter().collect()
}

/// An address that a route leads to. Beyond a default route: one that no more specific route is for
/// (RFC 5737, RFC 3849).
fn inside(target: &ipnet::IpNet) -> IpAddr {
    match (target, target.prefix_len()) {
        (ipnet::IpNet::V4(_), 0) => Ipv4Addr::new(192, 0, 2, 1).into(),
        (ipnet::IpNet::V6(_), 0) => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
        (target, length) if length < target.max_prefix_len() => crate::model::prefix::nth(target, 1),
        (target, _) => target.addr(),
    }
}

/// What was asked, with the answers.
pub fn answered<'a>(
    asked: &'a [CheckAsked],
    results: &'a [CheckResult],
) -> impl Iterator<Item = (&'a CheckAsked, Option<&'a CheckResult>)> {
    asked.iter().enumerate().map(|(index, asked)| (asked, results.get(index)))
}

/// How a check came out in the past: its words, its kind by the check itself, and whether it passed.
pub type Past = Vec<(Check, bool)>;

/// Answers as the past of those to come, with what was counted.
pub fn past(asked: &[CheckAsked], results: &[CheckResult]) -> Past {
    let one = |(asked, result): (&CheckAsked, Option<&CheckResult>)| {
        let check = if matches!(asked.check, Check::Drops { .. }) {
            Check::Drops { before: result.and_then(|result| result.counted) }
        } else {
            asked.check.clone()
        };
        (check, result.is_some_and(|result| result.passed))
    };
    answered(asked, results).map(one).collect()
}

/// The check that compares drops with those of before, where they were counted.
pub fn drops_after(before: &Past) -> Option<Check> {
    let counted = |(check, _): &&(Check, bool)| matches!(check, Check::Drops { before: Some(_) });
    before.iter().find(counted).map(|(check, _)| check.clone())
}

/// Whether a check must pass, given how those of before came out. What the document names must; what is about the
/// interface itself must; else only what has worked before: the same, or one of its kind if there was any.
pub fn is_required(asked: &CheckAsked, before: Option<&Past>) -> bool {
    let of = kind(&asked.check);
    let Some(before) = before else { return asked.named || of == Kind::Own };
    if asked.named || of == Kind::Own {
        return true;
    }
    if let Some((_, passed)) = before.iter().find(|(check, _)| *check == asked.check) {
        return *passed;
    }
    let mut alike = before.iter().filter(|(check, _)| kind(check) == of).peekable();
    alike.peek().is_none() || alike.any(|(_, passed)| *passed)
}

/// The first required check that did not pass, in words.
pub fn failure(asked: &[CheckAsked], results: &[CheckResult], before: Option<&Past>) -> Option<String> {
    answered(asked, results).filter(|(asked, _)| is_required(asked, before)).find_map(|(asked, result)| {
        match result {
            None => Some(format!("{}: it was not answered", asked.check)),
            Some(result) if !result.passed => Some(format!("{}: {}", result.check, result.detail)),
            Some(_) => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_worked_before_must_work_after() {
        let ping = |last: u8| Check::Ping([10, 0, 0, last].into());
        let dns = |last: u8| Check::Dns { server: [10, 0, 0, last].into(), name: ".".into() };
        let before: Past = vec![(ping(1), false), (dns(1), false), (dns(2), true)];
        let required = |check: Check, named| is_required(&CheckAsked::new(check, named), Some(&before));
        assert!(!required(ping(1), false), "it did not answer before either");
        assert!(!required(ping(9), false), "nothing of its kind answered before");
        assert!(!required(dns(1), false) && required(dns(2), false) && required(dns(9), false));
        assert!(required(ping(1), true), "the document names it");
        assert!(required(Check::Carrier, false));
        assert!(required(Check::Neighbour([10, 0, 0, 1].into()), false), "none of its kind was asked before");
        assert!(!is_required(&CheckAsked::new(dns(2), false), None), "nothing is known of before");
    }

    #[test]
    fn an_answer_that_is_missing_has_not_passed() {
        let asked = [CheckAsked::new(Check::Carrier, false)];
        assert_eq!(failure(&asked, &[], None).as_deref(), Some("carrier: it was not answered"));
        let result = CheckResult {
            check: "carrier".into(),
            passed: true,
            detail: String::new(),
            tries: 2,
            counted: None,
        };
        assert_eq!(failure(&asked, &[result], None), None);
    }
}
