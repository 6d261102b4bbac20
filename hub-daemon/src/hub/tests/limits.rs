//! Limits that are refused when a document is admitted, not by a table that is full.

use hub_common::limits::{RATE_LIMITS, RULES_PER_PERSONA};
use hub_common::segment::SEGMENT_CONNECTIONS;

use super::*;

/// So many rules with a limit of their own.
fn rules(number: usize) -> Value {
    let rule = |port| match port % 2 {
        0 => json!({"protocol": "udp", "port": port, "action": "rate_limit", "rate": "10/s"}),
        _ => json!({"protocol": "udp", "port": port, "action": "allow", "max_connections_per_source": 3}),
    };
    json!({"security_policies": (1..=number).map(rule).collect::<Vec<_>>()})
}

#[test]
fn more_limits_than_the_data_path_holds_are_refused_with_their_field() {
    let mut script = Script::with(Config::default());
    let whole = RULES_PER_PERSONA as usize;
    let mut held = 0;
    let refused = loop {
        let number = held / whole;
        let document = with(persona(&format!("p{number}"), &format!("10.{number}.0.0/24")), rules(whole));
        match script.create(document) {
            Ok(_) => held += whole,
            Err(rejection) => break rejection,
        }
    };
    // One persona's worth is left for the change of a persona, which is built beside.
    assert!((RATE_LIMITS as usize - 3 * whole..RATE_LIMITS as usize - whole).contains(&held), "{held}");
    assert_eq!(refused.kind, RejectionKind::Invalid);
    let [problem] = &refused.problems[..] else { panic!("{refused:?}") };
    assert_eq!(problem.pointer, "/security_policies");
    assert!(problem.detail.contains("use at most"), "{}", problem.detail);
    script.create(with(persona("free", "10.99.0.0/24"), json!({"protocols": ["tcp"]}))).unwrap();
    script.delete("p0").unwrap();
    script.create(with(persona("again", "10.98.0.0/24"), rules(whole))).unwrap();
}

#[test]
fn a_number_of_connections_reaches_the_data_path_and_goes_again() {
    let mut script = Script::with(Config::default());
    let view =
        script.create(with(persona("a", "10.1.0.0/24"), json!({"max_connections_per_source": 7}))).unwrap();
    let desired = script.desired();
    assert_eq!(desired.connections.get(&view.segment), Some(&7));
    assert_ne!(desired.segments[&view.segment].flags & SEGMENT_CONNECTIONS, 0);
    script.replace("a", persona("a", "10.1.0.0/24")).unwrap();
    let desired = script.desired();
    assert!(desired.connections.is_empty());
    assert_eq!(desired.segments[&view.segment].flags & SEGMENT_CONNECTIONS, 0);
    for wrong in [0, 1_000_001] {
        let document = with(persona("b", "10.2.0.0/24"), json!({"max_connections_per_source": wrong}));
        let problems = persona_from_value(document).unwrap_err();
        assert_eq!(problems[0].pointer, "/max_connections_per_source");
    }
}
