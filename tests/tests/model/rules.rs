//! Segments, policies and first packets.

use super::*;

/// A name, a change to a segment, and what becomes of its packets.
type Changed = (&'static str, fn(&mut Segment), Verdict);

#[test]
fn segments_without_life_pass_nothing() {
    let changed = |change: fn(&mut Segment)| {
        let mut model = hub();
        change(model.segments.get_mut(&1).unwrap());
        model
    };
    let table: [Changed; 8] = [
        ("no policy", |s| s.policy = None, Drop(Reason::NoPolicy)),
        ("blocked", |s| s.life = Life::Block, Drop(Reason::Blocked)),
        ("draining", |s| s.life = Life::Drain, Drop(Reason::Draining)),
        ("expires now", |s| s.expires_tick = NOW, Drop(Reason::Expired)),
        ("drains now", |s| s.drains_tick = NOW, Drop(Reason::Draining)),
        ("drains later", |s| s.drains_tick = NOW + 1, Pass),
        ("expires later", |s| s.expires_tick = NOW + 1, Pass),
        ("blocked and expired", |s| (s.life, s.expires_tick) = (Life::Block, 0), Drop(Reason::Expired)),
    ];
    for (name, change, expected) in table {
        for (interface, packet) in [
            (UPLINK, syn(REMOTE, MEMBER, 80)),
            (PORT_A, udp(MEMBER6, REMOTE6)),
            (SHARED, syn(MEMBER, OTHER, 80)),
            (SHARED, syn(OTHER, MEMBER, 80)),
        ] {
            assert_eq!(judge(&mut changed(change), interface, &packet), expected, "{name}: {packet:?}");
        }
    }
    let mut both = changed(|s| s.life = Life::Block);
    both.segments.get_mut(&2).unwrap().expires_tick = 0;
    assert_eq!(
        judge(&mut both, SHARED, &syn(OTHER, MEMBER, 80)),
        Drop(Reason::Expired),
        "the source's first"
    );
    let unknown = udp(REMOTE, "10.1.99.1");
    assert_eq!(judge(&mut hub(), UPLINK, &unknown), Drop(Reason::NoPolicy));
}

#[test]
fn rules_decide_about_first_packets() {
    assert_table(&[
        ("allowed after a log", UPLINK, syn(REMOTE, MEMBER, 80), Pass),
        ("denied", UPLINK, syn(REMOTE, MEMBER, 22), Drop(Reason::RuleDeny)),
        ("rejected", UPLINK, syn(REMOTE6, MEMBER6, 23), Reject(Reason::RuleReject)),
        ("mentioned protocol, no rule", UPLINK, syn(REMOTE6, MEMBER6, 443), Drop(Reason::DefaultDeny)),
        ("protocol that passes by default", UPLINK, udp(REMOTE, MEMBER), Pass),
        ("protocol not permitted", UPLINK, Datagram::gre(ip(REMOTE), ip(MEMBER)), Drop(Reason::Protocol)),
        ("egress by default", PORT_A, syn(MEMBER, REMOTE, 80), Pass),
        ("egress rule", PORT_A, syn(MEMBER, REMOTE, 25), Drop(Reason::RuleDeny)),
        ("egress protocol", PORT_A, Datagram::sctp((MEMBER6, 1), (REMOTE6, 2)), Drop(Reason::Protocol)),
        ("ping allowed by type", UPLINK, Datagram::ping(ip(REMOTE), ip(MEMBER), 1), Pass),
        (
            "ping of the other family",
            UPLINK,
            Datagram::ping(ip(REMOTE6), ip(MEMBER6), 1),
            Drop(Reason::DefaultDeny),
        ),
        ("own members: both lists", SHARED, syn(MEMBER, "10.1.0.6", 80), Pass),
        ("own members: ingress list", SHARED, syn(MEMBER, "10.1.0.6", 22), Drop(Reason::RuleDeny)),
        ("own members: egress list", SHARED, syn(MEMBER, "10.1.0.6", 25), Drop(Reason::RuleDeny)),
    ]);
    let mut telling = hub();
    telling.segments.get_mut(&1).unwrap().policy.as_mut().unwrap().default_reject = true;
    assert_eq!(judge(&mut telling, UPLINK, &syn(REMOTE, MEMBER, 443)), Reject(Reason::DefaultDeny));
}

#[test]
fn each_field_of_a_rule_can_refuse() {
    let base = Rule {
        source: [0x20, 1, 0x0d, 0xb8, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        source_bits: 48,
        target_port: [70, 90],
        tcp_mask: TCP_SYN | TCP_ACK,
        tcp_value: TCP_SYN,
        ..rule(6, 0, ACTION_ALLOW)
    };
    let verdict = |rule: Rule, packet: &Datagram| {
        let mut model = hub();
        model.segments.get_mut(&1).unwrap().policy.as_mut().unwrap().ingress = vec![rule];
        judge(&mut model, UPLINK, packet)
    };
    let packet = syn(REMOTE6, MEMBER6, 80);
    assert_eq!(verdict(base, &packet), Pass);
    let refuse = Drop(Reason::DefaultDeny);
    assert_eq!(verdict(Rule { source_bits: 128, ..base }, &packet), refuse, "source prefix");
    assert_eq!(verdict(Rule { target_port: [81, 90], ..base }, &packet), refuse, "port too low");
    assert_eq!(verdict(Rule { target_port: [70, 79], ..base }, &packet), refuse, "port too high");
    assert_eq!(verdict(Rule { tcp_value: TCP_ACK, ..base }, &packet), refuse, "TCP flags");
    assert_eq!(verdict(Rule { target_bits: 1, target: [0xff; 16], ..base }, &packet), refuse, "target");
    assert_eq!(verdict(base, &syn(REMOTE, MEMBER, 80)), refuse, "family of the prefix");
}

#[test]
fn two_segments_need_a_pair_and_both_policies() {
    assert_table(&[
        ("peers", SHARED, syn(MEMBER, OTHER, 80), Pass),
        ("no peers", SHARED, syn(MEMBER, "10.3.0.5", 80), Drop(Reason::InterPersona)),
        ("the sender's rules first", SHARED, syn(MEMBER, "10.3.0.5", 25), Drop(Reason::RuleDeny)),
        ("the receiver's rules last", SHARED, syn(MEMBER6, OTHER6, 22), Drop(Reason::RuleDeny)),
    ]);
}

#[test]
fn tcp_needs_a_syn_to_begin() {
    let with = |flags| Datagram::tcp((MEMBER, 40_000), (REMOTE, 80), flags);
    let (odd, late) = (Drop(Reason::TcpFlags), Drop(Reason::NoFlow));
    assert_table(&[
        ("syn", PORT_A, with(SYN), Pass),
        ("ack", PORT_A, with(ACK), late),
        ("syn ack", PORT_A, with(SYN | ACK), late),
        ("rst", PORT_A, with(RST), late),
        ("fin", PORT_A, with(FIN), late),
        ("none", PORT_A, with(0), odd),
        ("syn fin", PORT_A, with(SYN | FIN), odd),
        ("syn rst", PORT_A, with(SYN | RST), odd),
    ]);
    let mut loose = hub();
    loose.loose_tcp_until_tick = NOW + 1;
    assert_eq!(judge(&mut loose, PORT_A, &with(ACK)), Pass);
    loose.loose_tcp_until_tick = NOW;
    assert_eq!(judge(&mut loose, PORT_A, &syn(MEMBER, REMOTE, 81).answer(ACK).answer(ACK)), late);
}

#[test]
fn later_pieces_of_a_failsafe_answer_leave_whatever_changed_in_between() {
    let mut model = hub();
    model.failsafe.insert((17, 68));
    let piece = |position, more| {
        let mut piece = Datagram::udp((HUB, 68), (MEMBER, 4_000)).with_payload(&[1; 64]).with_id(7);
        piece.fragment = Fragment { position, more };
        if position > 0 {
            piece.transport = Transport::Raw { protocol: 17, payload: vec![1; 64] };
        }
        piece.frame()
    };
    let out = Entry::Out { port: PORT_A, came_by: 0 };
    assert_eq!(model.judge(out, &piece(0, true), NOW), Pass);
    let segment = model.segments.get_mut(&1).unwrap();
    segment.policy.as_mut().unwrap().protocols.remove(&17);
    segment.version += 1;
    assert_eq!(model.judge(out, &piece(9, false), NOW), Skip, "its port is that of the first piece");
    model.failsafe.clear();
    assert_eq!(model.judge(out, &piece(9, false), NOW), Drop(Reason::Protocol));
}

#[test]
fn the_hub_itself_is_reached_by_icmp_and_failsafe_ports() {
    assert_table(&[
        ("service of the hub", PORT_A, syn(MEMBER, HUB, 80), Drop(Reason::HubLocal)),
        ("another address of the hub", SHARED, udp(MEMBER, "203.0.113.1"), Drop(Reason::HubLocal)),
        ("ping", PORT_A, Datagram::ping(ip(MEMBER), ip(HUB), 1), Pass),
        ("ping of a peer's gateway", PORT_A, Datagram::ping(ip(MEMBER), ip(GATEWAYS[0]), 1), Pass),
        ("the same in IPv6", PORT_A, Datagram::ping(ip(MEMBER6), ip(GATEWAYS[1]), 1), Pass),
        (
            "ping of another's gateway",
            PORT_A,
            Datagram::ping(ip(MEMBER), ip(GATEWAYS[2]), 1),
            Drop(Reason::InterPersona),
        ),
        (
            "the same in IPv6",
            PORT_A,
            Datagram::ping(ip(MEMBER6), ip(GATEWAYS[3]), 1),
            Drop(Reason::InterPersona),
        ),
        ("ping of an address of nobody", PORT_A, Datagram::ping(ip(MEMBER), ip("203.0.113.1"), 1), Pass),
        ("failsafe port from a member", PORT_A, syn(MEMBER, HUB, 22), Drop(Reason::HubLocal)),
        ("other port from outside", UPLINK, syn(REMOTE, HUB, 443), Skip),
        ("failsafe port", UPLINK, syn(MEMBER, HUB, 22), Skip),
        ("other port, same spoofed source", UPLINK, syn(MEMBER, HUB, 23), Drop(Reason::Spoof)),
        ("not in any segment", UPLINK, syn(REMOTE, "203.0.113.1", 443), Skip),
    ]);
}

#[test]
fn what_leaves_the_host_is_judged_by_its_receiver() {
    let mut model = hub();
    let mut out =
        |came_by, packet: &Datagram| model.judge(Entry::Out { port: PORT_A, came_by }, &packet.frame(), NOW);
    assert_eq!(out(UPLINK, &syn(REMOTE, MEMBER, 22)), Skip, "the uplink judged it");
    assert_eq!(out(0, &syn("203.0.113.1", MEMBER, 22)), Drop(Reason::RuleDeny));
    assert_eq!(out(0, &syn("203.0.113.1", MEMBER, 80)), Pass);
    assert_eq!(out(77, &syn(REMOTE, MEMBER, 22)), Drop(Reason::RuleDeny), "a foreign interface");
    assert_eq!(out(0, &syn("203.0.113.1", REMOTE, 22)), Skip, "to nobody's member");
    assert_eq!(out(77, &syn(OTHER, MEMBER, 80)), Drop(Reason::Spoof), "a member's address from there");
    let answer = syn("203.0.113.1", MEMBER, 80).answer(SYN | ACK);
    assert_eq!(model.judge(Entry::In(PORT_A), &answer.frame(), NOW), Pass, "members answer the hub");
}
