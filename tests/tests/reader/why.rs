//! Questions about packets, and what the loaded program says.

use std::net::IpAddr;

use hub_common::segment::{STATE_BLOCK, STATE_DRAIN};
use hub_daemon::datapath_view::{Answer, Question};
use hub_daemon::kernel::reader::ReadError;
use hub_daemon::model::SegmentId;

use crate::lab::{MEMBER, MEMBER_PORT, OUTSIDE, WEB, lab, syn, syn_ack};

fn to_member(protocol: &str, port: Option<u16>) -> Question {
    Question {
        protocol: protocol.into(),
        source: OUTSIDE.into(),
        source_port: None,
        target: MEMBER.into(),
        target_port: port,
        port: Some("lo".into()),
    }
}

fn verdict(answer: &Answer) -> (&str, Option<&str>) {
    (&answer.verdict, answer.reason.as_deref())
}

#[test]
fn rules_that_decide_are_named() {
    lab(|lab| {
        let reader = lab.reader();
        let pass = reader.why(&to_member("tcp", Some(443))).unwrap();
        assert_eq!(verdict(&pass), ("pass", None));
        assert_eq!((pass.source_persona.as_deref(), pass.target_persona.as_deref()), (None, Some("web")));
        assert_eq!((pass.port.as_str(), pass.leaves_by.as_deref()), ("lo", Some(MEMBER_PORT)));
        let [rule] = pass.rules.as_slice() else { panic!("{pass:?}") };
        assert_eq!((rule.persona.as_str(), rule.direction.as_str(), rule.rule), ("web", "ingress", Some(0)));
        assert_eq!(
            (rule.written.as_str(), rule.text.as_str()),
            ("web.yaml:7", "allow tcp from any to any port 443")
        );

        let deny = reader.why(&to_member("6", Some(22))).unwrap();
        assert_eq!(verdict(&deny), ("drop", Some("rule_deny")));
        assert_eq!((deny.rules[0].rule, deny.rules[0].written.as_str()), (Some(1), "web.yaml:9"));
        assert_eq!(deny.rules[0].text, "deny tcp from any to any port 22, logged");

        let reject = reader.why(&to_member("udp", Some(53))).unwrap();
        assert_eq!(verdict(&reject), ("reject", Some("rule_reject")));
        assert_eq!(reject.rules[0].rule, Some(2));

        let default = reader.why(&to_member("tcp", Some(8080))).unwrap();
        assert_eq!(verdict(&default), ("drop", Some("default_deny")));
        assert_eq!((default.rules[0].rule, default.rules[0].written.as_str()), (None, "api"));
        assert_eq!(default.rules[0].text, "no rule matches: the default denies");

        let ping = reader.why(&to_member("icmp", None)).unwrap();
        assert_eq!((verdict(&ping), ping.rules[0].rule), (("pass", None), None), "a rule of no document");
        assert_eq!(ping.rules[0].text, "allow icmp from any to any, type 8");
    });
}

#[test]
fn state_and_deadline_of_a_persona_count() {
    lab(|lab| {
        let reader = lab.reader();
        let ask = |question| reader.why(&question).unwrap();
        let web = || to_member("tcp", Some(80));
        lab.segment(|segment| segment.state = STATE_BLOCK);
        assert_eq!(verdict(&ask(web())), ("drop", Some("blocked")));
        lab.segment(|segment| segment.state = STATE_DRAIN);
        assert_eq!(verdict(&ask(web())), ("drop", Some("draining")));
        let past = jiff::Timestamp::now() - jiff::SignedDuration::from_millis(20);
        let (past, soon) = (
            lab.clock.deadline_tick(Some(past)),
            lab.clock.deadline_tick(Some(jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1))),
        );
        lab.segment(|segment| segment.expires_tick = past);
        let expired = ask(web());
        assert_eq!(verdict(&expired), ("drop", Some("expired")));
        assert!(expired.rules.is_empty() && expired.explanation.contains("expiration"), "{expired:?}");
        lab.segment(|segment| segment.expires_tick = soon);
        assert_eq!(verdict(&ask(web())), ("pass", None));
    });
}

#[test]
fn port_is_where_the_kernel_looks_for_the_sender() {
    lab(|lab| {
        let reader = lab.reader();
        let from_member = Question {
            protocol: "udp".into(),
            source: MEMBER.into(),
            source_port: None,
            target: OUTSIDE.into(),
            target_port: None,
            port: None,
        };
        let answer = reader.why(&from_member).unwrap();
        assert_eq!((verdict(&answer), answer.port.as_str()), (("pass", None), MEMBER_PORT));
        assert_eq!(answer.rules[0].text, "no rule matches: the default allows");
        assert_eq!(answer.rules[0].direction, "egress");
        let spoofed = Question { port: Some("lo".into()), ..from_member.clone() };
        assert_eq!(verdict(&reader.why(&spoofed).unwrap()), ("drop", Some("spoof")));
        let foreign = Question { source: IpAddr::from([198, 51, 100, 1]), ..from_member.clone() };
        let foreign = Question { port: Some(MEMBER_PORT.into()), ..foreign };
        assert_eq!(verdict(&reader.why(&foreign).unwrap()), ("drop", Some("spoof")));
        let elsewhere =
            Question { source: OUTSIDE.into(), target: IpAddr::from([198, 51, 100, 1]), ..spoofed };
        assert_eq!(verdict(&reader.why(&elsewhere).unwrap()), ("skip", None));
        let ends = ["2001:db8::1", "2001:db8::2"].map(|text| text.parse().unwrap());
        let v6 = Question { protocol: "icmp".into(), source: ends[0], target: ends[1], ..elsewhere };
        assert_eq!(verdict(&reader.why(&v6).unwrap()), ("skip", None));
        let nowhere = Question { port: Some("nothing0".into()), ..from_member };
        assert!(matches!(reader.why(&nowhere), Err(ReadError::Question(text)) if text.contains("nothing0")));
    });
}

#[test]
fn established_connections_are_recognised() {
    lab(|lab| {
        lab.inbound(syn(40_000, 80));
        lab.outbound(syn_ack(80, 40_000));
        let answer = lab.reader().why(&to_member("tcp", Some(80))).unwrap();
        assert_eq!((verdict(&answer), answer.established), (("pass", None), true));
        assert_eq!(answer.rules[0].rule, Some(0), "the rule that admitted it");
    });
}

#[test]
fn asking_changes_nothing() {
    lab(|lab| {
        let reader = lab.reader();
        for port in [80, 22, 8080] {
            reader.why(&to_member("tcp", Some(port))).unwrap();
        }
        let counts = reader.segment(SegmentId(WEB)).unwrap();
        assert_eq!((counts.ingress.packets, counts.ingress_dropped.packets), (0, 0));
        assert!(reader.flows(None, 10).unwrap().is_empty());
        assert!(reader.hooks().unwrap().iter().all(|hook| hook.received == 0 && hook.reasons.is_empty()));
    });
}

#[test]
fn questions_asked_at_once_get_their_own_answers() {
    lab(|lab| {
        let readers = [lab.reader(), lab.reader(), lab.reader()];
        std::thread::scope(|scope| {
            for (reader, (port, reason)) in
                readers.iter().zip([(80, None), (22, Some("rule_deny")), (8080, Some("default_deny"))])
            {
                scope.spawn(move || {
                    for _ in 0..300 {
                        let answer = reader.why(&to_member("tcp", Some(port))).unwrap();
                        assert_eq!(answer.reason.as_deref(), reason);
                    }
                });
            }
        });
    });
}
