//! What is asked of an interface with a personality, and which answers count.

use std::collections::BTreeSet;
use std::time::Duration;

use ipnet::IpNet;

use super::contribute::tunnel_name;
use super::lookups::lookups;
use super::seat::Seat;
use crate::model::SegmentId;
use crate::model::check::{Check, CheckAsked, CheckResult};
use crate::model::personality::{Device, Personality, PersonalityTunnel, Way};

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

/// What is asked of an interface with a personality. `beside` are addresses that it has of another one.
pub fn asked(
    personality: &Personality,
    seat: &Seat,
    segment: SegmentId,
    beside: &[IpNet],
) -> Vec<CheckAsked> {
    let mut checks = vec![Check::Carrier];
    checks.push(Check::Addresses(personality.addresses().keys().copied().collect()));
    checks.extend([Check::Applied, Check::Rules]);
    let link = personality.tunnel().map(|tunnel| tunnel_name(tunnel, segment));
    let mut routers = seat.routers.clone();
    for route in personality.routes().values() {
        let Way::Device { via, device: Device::Interface } = &route.way else { continue };
        routers.extend(via.filter(|via| !routers.contains(via)));
    }
    checks.extend(lookups(personality, seat, beside).into_iter().filter_map(|(target, route)| {
        let Way::Device { device, .. } = &route.way else { return None };
        let device = match device {
            Device::Interface => None,
            Device::Tunnel => link.clone(),
            Device::Name(name) => Some(name.clone()),
        };
        Some(Check::Route { target, device })
    }));
    checks.extend(routers.iter().flat_map(|router| [Check::Neighbour(*router), Check::Ping(*router)]));
    let name = &personality.health().dns_name;
    let servers = personality.servers().iter();
    checks.extend(servers.map(|server| Check::Dns { server: *server, name: name.clone() }));
    checks.extend(personality.tunnel().map(|tunnel| handshake(tunnel, segment)));
    let own = checks.into_iter().map(|check| CheckAsked::new(check, false));
    let named = personality.health().targets.iter();
    own.chain(named.map(|check| CheckAsked::new(check.clone(), true))).collect()
}

/// The check of a tunnel's handshakes: of all other ends that the document says the place of, for these can be called.
pub fn handshake(tunnel: &PersonalityTunnel, segment: SegmentId) -> Check {
    let placed = tunnel.peers.iter().filter(|(_, peer)| peer.endpoint.is_some());
    let peers = placed.map(|(key, _)| key.clone()).collect();
    Check::Handshake { link: tunnel_name(tunnel, segment), peers, within: HANDSHAKE }
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

/// Why no check could be asked at all, if that is so: they were not tried even once.
pub fn unasked(results: &[CheckResult]) -> Option<&str> {
    let first = results.first()?;
    results.iter().all(|result| result.tries == 0 && !result.passed).then_some(first.detail.as_str())
}

/// Whose answers are judged by those of before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goes {
    /// Those of a personality that is there to stay.
    On,
    /// Those of the personality that answered before, which is back because another one failed.
    Back,
}

/// Whether a check must pass, given how those of before came out. What the document names must; what is about the
/// interface itself must; else only what has worked before: the same, or one of its kind if there was any. On the way
/// back nothing must that had failed already, but what the hub itself does must be done.
pub fn is_required(asked: &CheckAsked, before: Option<&Past>, goes: Goes) -> bool {
    let same = before.and_then(|before| before.iter().find(|(check, _)| *check == asked.check));
    if goes == Goes::Back {
        let is_done_by_hub = matches!(asked.check, Check::Applied | Check::Rules);
        match (before, same) {
            // Whether anything else worked is not known.
            (None, _) => return is_done_by_hub || matches!(asked.check, Check::Addresses(_)),
            (Some(_), Some((_, passed))) => return is_done_by_hub || *passed,
            (Some(_), None) => {}
        }
    }
    let of = kind(&asked.check);
    let Some(before) = before else { return asked.named || of == Kind::Own };
    if asked.named || of == Kind::Own {
        return true;
    }
    if let Some((_, passed)) = same {
        return *passed;
    }
    let mut alike = before.iter().filter(|(check, _)| kind(check) == of).peekable();
    alike.peek().is_none() || alike.any(|(_, passed)| *passed)
}

/// The first required check that did not pass, in words.
pub fn failure(
    asked: &[CheckAsked],
    results: &[CheckResult],
    before: Option<&Past>,
    goes: Goes,
) -> Option<String> {
    let required = answered(asked, results).filter(|(asked, _)| is_required(asked, before, goes));
    required.into_iter().find_map(|(asked, result)| match result {
        None => Some(format!("{}: it was not answered", asked.check)),
        Some(result) if !result.passed => Some(format!("{}: {}", result.check, result.detail)),
        Some(_) => None,
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
        let required =
            |check: Check, named| is_required(&CheckAsked::new(check, named), Some(&before), Goes::On);
        assert!(!required(ping(1), false), "it did not answer before either");
        assert!(!required(ping(9), false), "nothing of its kind answered before");
        assert!(!required(dns(1), false) && required(dns(2), false) && required(dns(9), false));
        assert!(required(ping(1), true), "the document names it");
        assert!(required(Check::Carrier, false));
        assert!(required(Check::Neighbour([10, 0, 0, 1].into()), false), "none of its kind was asked before");
        assert!(!is_required(&CheckAsked::new(dns(2), false), None, Goes::On), "nothing is known of before");
    }

    #[test]
    fn on_the_way_back_nothing_must_work_that_did_not_before() {
        let ping = |last: u8| Check::Ping([10, 0, 0, last].into());
        let before: Past = vec![
            (Check::Carrier, false),
            (ping(1), false),
            (ping(2), true),
            (Check::Applied, false),
            (Check::Rules, false),
        ];
        let required =
            |check: Check, named| is_required(&CheckAsked::new(check, named), Some(&before), Goes::Back);
        assert!(!required(Check::Carrier, false) && !required(ping(1), true), "they had failed before");
        assert!(required(ping(2), false) && required(ping(2), true));
        assert!(required(ping(3), true) && required(Check::Addresses(Vec::new()), false), "not asked before");
        assert!(
            required(Check::Applied, false) && required(Check::Rules, false),
            "the hub does these itself"
        );
        let unknown = |check| is_required(&CheckAsked::new(check, true), None, Goes::Back);
        assert!([Check::Applied, Check::Rules, Check::Addresses(Vec::new())].into_iter().all(unknown));
        assert!(!unknown(Check::Carrier) && !unknown(ping(1)), "nothing is known of before");
    }

    #[test]
    fn an_answer_that_is_missing_has_not_passed() {
        let asked = [CheckAsked::new(Check::Carrier, false)];
        assert_eq!(failure(&asked, &[], None, Goes::On).as_deref(), Some("carrier: it was not answered"));
        let result = CheckResult {
            check: "carrier".into(),
            passed: true,
            detail: String::new(),
            tries: 2,
            counted: None,
        };
        assert_eq!(failure(&asked, &[result], None, Goes::On), None);
    }
}
