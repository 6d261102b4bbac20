//! Connections, the errors about them, and fragments.

use super::*;

#[test]
fn replies_pass_without_rules() {
    for (member, remote) in [(MEMBER, REMOTE), (MEMBER6, REMOTE6)] {
        let open = Datagram::tcp((member, 40_000), (remote, 22), SYN);
        let ping = Datagram::ping(ip(member), ip(remote), 9);
        let question = udp(member, remote);
        assert_story(
            &mut hub(),
            &[
                (UPLINK, &open.answer(SYN | ACK), Drop(Reason::NoFlow)),
                (PORT_A, &open, Pass),
                (UPLINK, &open.answer(SYN | ACK), Pass),
                (PORT_A, &open.answer(0).answer(ACK), Pass),
                (UPLINK, &open.answer(FIN | ACK), Pass),
                (UPLINK, &ping.answer(0), Drop(Reason::NoFlow)),
                (PORT_A, &ping, Pass),
                (UPLINK, &ping.answer(0), Pass),
                (PORT_A, &question, Pass),
                (UPLINK, &question.answer(0), Pass),
            ],
        );
    }
}

#[test]
fn idle_flows_are_forgotten() {
    let open = Datagram::tcp((MEMBER, 40_000), (REMOTE, 22), SYN);
    let answer = open.answer(SYN | ACK).frame();
    let timeout = Model::default().timeouts.opening;
    for (wait, expected) in [(timeout, Pass), (timeout + 1, Drop(Reason::NoFlow))] {
        let mut model = hub();
        assert_eq!(judge(&mut model, PORT_A, &open), Pass);
        assert_eq!(model.judge(Entry::In(UPLINK), &answer, NOW + wait), expected, "after {wait} ticks");
    }
}

#[test]
fn only_an_answer_makes_a_connection_last() {
    let question = udp(MEMBER, REMOTE);
    let one_way = Model::default().timeouts.one_way;
    for (is_answered, expected) in [(false, Drop(Reason::DefaultDeny)), (true, Pass)] {
        let mut model = hub();
        let policy = model.segments.get_mut(&1).unwrap().policy.as_mut().unwrap();
        policy.ingress_default.remove(&17);
        assert_story(&mut model, &[(PORT_A, &question, Pass), (PORT_A, &question, Pass)]);
        if is_answered {
            assert_story(&mut model, &[(UPLINK, &question.answer(0), Pass)]);
        }
        let late = model.judge(Entry::In(UPLINK), &question.answer(0).frame(), NOW + one_way + 1);
        assert_eq!(late, expected, "answered: {is_answered}");
    }
}

#[test]
fn another_policy_is_asked_about_the_request_of_a_ping() {
    let ping = Datagram::ping(ip(REMOTE), ip(MEMBER), 9);
    let mut model = hub();
    assert_story(&mut model, &[(UPLINK, &ping, Pass)]);
    model.segments.get_mut(&1).unwrap().version = 2;
    assert_story(&mut model, &[(PORT_A, &ping.answer(0), Pass)]);
}

#[test]
fn a_closed_connection_opens_only_by_rules() {
    let open = Datagram::tcp((REMOTE, 40_000), (MEMBER, 80), SYN);
    let mut model = hub();
    assert_story(&mut model, &[(UPLINK, &open, Pass), (PORT_A, &open.answer(RST | ACK), Pass)]);
    model.segments.get_mut(&1).unwrap().policy.as_mut().unwrap().ingress.clear();
    assert_story(
        &mut model,
        &[(UPLINK, &open, Drop(Reason::DefaultDeny)), (UPLINK, &open.answer(0).answer(ACK), Pass)],
    );
}

#[test]
fn another_policy_is_asked_about_old_flows() {
    let open = Datagram::tcp((REMOTE, 40_000), (MEMBER, 80), SYN);
    let data = open.answer(0).answer(ACK);
    let story = |change: fn(&mut Segment), expected: &[Verdict]| {
        let mut model = hub();
        assert_story(&mut model, &[(UPLINK, &open, Pass), (PORT_A, &open.answer(SYN | ACK), Pass)]);
        let segment = model.segments.get_mut(&1).unwrap();
        segment.version = 2;
        change(segment);
        for expected in expected {
            assert_eq!(judge(&mut model, UPLINK, &data), *expected);
        }
    };
    story(|s| s.policy.as_mut().unwrap().egress.clear(), &[Pass, Pass]);
    story(|s| s.policy.as_mut().unwrap().ingress.clear(), &[Drop(Reason::DefaultDeny), Drop(Reason::NoFlow)]);
    story(|s| s.policy.as_mut().unwrap().protocols.clear(), &[Drop(Reason::Protocol), Drop(Reason::NoFlow)]);
    story(
        |s| {
            let policy = s.policy.as_mut().unwrap();
            policy.ingress.clear();
            policy.preserve = true;
        },
        &[Pass, Pass],
    );
    story(|s| s.life = Life::Drain, &[Pass, Pass]);
}

#[test]
fn replies_ask_about_the_packet_that_opened() {
    let open = Datagram::tcp((REMOTE, 40_000), (MEMBER, 80), SYN);
    let mut model = hub();
    assert_story(&mut model, &[(UPLINK, &open, Pass)]);
    model.segments.get_mut(&1).unwrap().version = 2;
    model.segments.get_mut(&1).unwrap().policy.as_mut().unwrap().ingress =
        vec![rule(6, 40_000, ACTION_ALLOW)];
    assert_eq!(judge(&mut model, PORT_A, &open.answer(SYN | ACK)), Drop(Reason::DefaultDeny));
}

#[test]
fn errors_pass_with_the_flow_they_speak_of() {
    for (member, remote, router) in [(MEMBER, REMOTE, "198.51.100.9"), (MEMBER6, REMOTE6, "2001:db8:ffff::9")]
    {
        let open = Datagram::tcp((member, 40_000), (remote, 80), SYN);
        let unreachable = if open.source.is_ipv4() { 3 } else { 1 };
        let error = Datagram::error_about(ip(router), &open, unreachable, 1);
        let other = Datagram::error_about(ip(router), &syn(member, remote, 81), unreachable, 1);
        let mut elsewhere = error.clone();
        elsewhere.target = ip(if open.source.is_ipv4() { "10.1.0.6" } else { "2001:db8:1::6" });
        let back = Datagram::error_about(ip(member), &open.answer(SYN | ACK), unreachable, 3);
        let refused = Drop(Reason::IcmpError);
        assert_story(
            &mut hub(),
            &[
                (UPLINK, &error, refused),
                (PORT_A, &open, Pass),
                (UPLINK, &error, Pass),
                (UPLINK, &other, refused),
                (UPLINK, &elsewhere, refused),
                (PORT_A, &back, Pass),
            ],
        );
    }
    let open = Datagram::tcp((MEMBER, 40_000), (REMOTE, 80), SYN);
    let redirect = Datagram::error_about(ip(REMOTE), &open, 5, 1);
    let from_another = Datagram::error_about(ip(OTHER), &open, 3, 1);
    assert_story(
        &mut hub(),
        &[
            (PORT_A, &open, Pass),
            (UPLINK, &redirect, Drop(Reason::IcmpError)),
            (SHARED, &from_another, Drop(Reason::IcmpError)),
        ],
    );
}

#[test]
fn later_fragments_follow_the_first() {
    for (member, remote) in [(MEMBER, REMOTE), (MEMBER6, REMOTE6)] {
        let whole = udp(remote, member).with_payload(&[1; 60]);
        let pieces = whole.fragments(24);
        let unknown = Drop(Reason::FragmentUnknown);
        assert_story(
            &mut hub(),
            &[
                (UPLINK, &pieces[1], unknown),
                (UPLINK, &pieces[0], Pass),
                (UPLINK, &pieces[2], Pass),
                (UPLINK, &pieces[1], Pass),
            ],
        );
        let refused = Datagram::tcp((remote, 1), (member, 22), SYN).with_payload(&[1; 60]).fragments(24);
        assert_story(
            &mut hub(),
            &[(UPLINK, &refused[0], Drop(Reason::RuleDeny)), (UPLINK, &refused[1], unknown)],
        );
        let tiny = Datagram::tcp((remote, 1), (member, 80), SYN).with_payload(&[1; 60]).fragments(16);
        assert_story(&mut hub(), &[(UPLINK, &tiny[0], Drop(Reason::FragmentTiny))]);
        let mut model = hub();
        assert_eq!(judge(&mut model, UPLINK, &pieces[0]), Pass);
        let late = NOW + model.timeouts.fragment + 1;
        assert_eq!(model.judge(Entry::In(UPLINK), &pieces[1].frame(), late), unknown);
    }
    let mut overlap = Datagram::raw(ip(REMOTE), ip(MEMBER), 6, &[0; 24]);
    overlap.fragment = Fragment { position: 1, more: false };
    assert_eq!(judge(&mut hub(), UPLINK, &overlap), Drop(Reason::FragmentTiny));
}

#[test]
fn protocols_without_ports_are_flows_too() {
    let mut model = hub();
    model.segments.get_mut(&1).unwrap().policy.as_mut().unwrap().protocols.insert(47);
    model.segments.get_mut(&1).unwrap().policy.as_mut().unwrap().egress_default.insert(47);
    let tunnel = Datagram::gre(ip(MEMBER), ip(REMOTE));
    assert_story(
        &mut model,
        &[
            (UPLINK, &tunnel.answer(0), Drop(Reason::DefaultDeny)),
            (PORT_A, &tunnel, Pass),
            (UPLINK, &tunnel.answer(0), Pass),
        ],
    );
    let mapped =
        Datagram::new(ip(MEMBER), ip(REMOTE), Transport::Raw { protocol: 58, payload: vec![135; 24] });
    assert_eq!(judge(&mut hub(), PORT_A, &mapped), Pass, "58 over IPv4 is no neighbour discovery");
}
