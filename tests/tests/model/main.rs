//! The reference model against expectations written by hand: one table per kind of decision.

mod flows;
mod frames;
mod rules;

use std::collections::BTreeSet;
use std::net::IpAddr;

use hub_common::event::Reason;
use hub_common::packet::{TCP_ACK, TCP_SYN};
use hub_common::rule::{
    ACTION_ALLOW, ACTION_DENY, ACTION_LOG, ACTION_REJECT, RULE_ICMP_TYPE, RULE_PROTOCOL, RULE_TARGET_PORT,
    Rule,
};
use hub_tests::model::Verdict::{Drop, Pass, Reject, Skip};
use hub_tests::model::{Enforcement, Entry, Life, Model, Policy, Prefix, Role, Segment, Verdict};
use hub_tests::packet::flags::{ACK, FIN, RST, SYN};
use hub_tests::packet::{Datagram, Extension, Fragment, Transport, arp, ip};

const UPLINK: u32 = 2;
const PORT_A: u32 = 3;
const SHARED: u32 = 4;
const NOW: u64 = 1_000;

const MEMBER: &str = "10.1.0.5";
const OTHER: &str = "10.2.0.5";
const REMOTE: &str = "192.0.2.1";
const MEMBER6: &str = "2001:db8:1::5";
const OTHER6: &str = "2001:db8:2::5";
const REMOTE6: &str = "2001:db8:ffff::1";
const HUB: &str = "10.1.0.1";
/// Gateways of the other segments.
const GATEWAYS: [&str; 4] = ["10.2.0.1", "2001:db8:2::1", "10.3.0.1", "2001:db8:3::1"];

fn rule(protocol: u8, port: u16, action: u8) -> Rule {
    Rule {
        protocol,
        target_port: [port, port],
        action,
        flags: RULE_PROTOCOL | RULE_TARGET_PORT,
        ..Rule::ZERO
    }
}

fn set(protocols: &[u8]) -> BTreeSet<u8> {
    protocols.iter().copied().collect()
}

/// Web traffic in, everything but port 25 out.
fn policy() -> Policy {
    Policy {
        protocols: set(&[1, 6, 17, 58]),
        ingress_default: set(&[17]),
        egress_default: set(&[1, 6, 17, 58]),
        ingress: vec![
            rule(6, 22, ACTION_DENY),
            rule(6, 23, ACTION_REJECT),
            rule(6, 80, ACTION_LOG),
            rule(6, 80, ACTION_ALLOW),
            rule(6, 80, ACTION_DENY),
            Rule {
                protocol: 1,
                icmp_type: 8,
                action: ACTION_ALLOW,
                flags: RULE_PROTOCOL | RULE_ICMP_TYPE,
                ..Rule::ZERO
            },
        ],
        egress: vec![rule(6, 25, ACTION_DENY)],
        preserve: false,
        default_reject: false,
        untracked: false,
        enforcement: Enforcement::Enforce,
    }
}

fn segment(policy: Policy) -> Segment {
    Segment {
        policy: Some(policy),
        version: 1,
        life: Life::Active,
        expires_tick: u64::MAX,
        drains_tick: u64::MAX,
        capped: false,
        set_generation: 0,
        connections: None,
    }
}

/// Segments 1 and 2 are peers; 3 has no peer, 4 no policy.
fn hub() -> Model {
    let mut model = Model::default();
    for number in 1..=3 {
        model.segments.insert(number, segment(policy()));
        model.prefixes.extend([
            Prefix { address: ip(&format!("10.{number}.0.0")), bits: 16, segment: number },
            Prefix { address: ip(&format!("2001:db8:{number}::")), bits: 48, segment: number },
        ]);
    }
    model.segments.insert(4, Segment { policy: None, ..segment(policy()) });
    model.prefixes.push(Prefix { address: ip("10.1.99.0"), bits: 24, segment: 4 });
    model.peers.insert((1, 2));
    model.ports.extend([(UPLINK, Role::Uplink), (PORT_A, Role::Segment(1)), (SHARED, Role::Shared)]);
    model.locals.extend([ip(HUB), ip("203.0.113.1")]);
    model.locals.extend(GATEWAYS.map(ip));
    model.failsafe.insert((6, 22));
    model
}

fn judge(model: &mut Model, interface: u32, datagram: &Datagram) -> Verdict {
    model.judge(Entry::In(interface), &datagram.frame(), NOW)
}

fn assert_table(table: &[(&str, u32, Datagram, Verdict)]) {
    for (name, interface, datagram, expected) in table {
        assert_eq!(judge(&mut hub(), *interface, datagram), *expected, "{name}: {datagram:?}");
    }
}

fn syn(source: &str, target: &str, port: u16) -> Datagram {
    Datagram::tcp((source, 40_000), (target, port), SYN)
}

fn udp(source: &str, target: &str) -> Datagram {
    Datagram::udp((source, 40_000), (target, 53))
}

/// Judges packets one after the other with one hub; each step is (interface, packet, verdict).
fn assert_story(model: &mut Model, steps: &[(u32, &Datagram, Verdict)]) {
    for (number, (interface, packet, expected)) in steps.iter().enumerate() {
        assert_eq!(judge(model, *interface, packet), *expected, "step {number}: {packet:?}");
    }
}
