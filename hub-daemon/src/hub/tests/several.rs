//! Several hubs, and what personas have in common: gateways, capacity, priorities, templates.

use super::*;
use crate::document::hub::HubDocument;
use crate::document::template::Templates;
use crate::view::NodeRoom;

/// A hub of this name that takes two personas and a gigabit.
fn node(name: &str) -> Config {
    let written = json!({
        "node": {"name": name, "role": "gateway", "labels": {"site": name, "kind": "any"},
                 "capacity": {"personas": 2, "bandwidth": "1Gbps"}},
        "pools": {"lab": "10.200.0.0/16"},
    });
    let document: HubDocument = serde_json::from_value(written).unwrap();
    Config::new(&document, std::path::Path::new("/")).unwrap()
}

#[expect(clippy::needless_pass_by_value, reason = "scripts read better with `json!` as it stands")]
fn of(name: &str, range: &str, gateway: Value) -> Value {
    with(persona(name, range), json!({"gateway": gateway}))
}

#[test]
fn the_same_documents_divide_among_hubs() {
    use PersonaState::{Active, Elsewhere};
    let documents = [
        of("a", "10.1.0.0/24", json!({"node": "east"})),
        of("b", "10.2.0.0/24", json!({"labels": {"site": "west"}})),
        persona("c", "10.3.0.0/24"),
    ];
    let states = |name: &str| {
        let mut script = Script::with(node(name));
        script.documents(&documents).unwrap();
        script.reconciled(&[]);
        let desired = script.desired();
        let states = ["a", "b", "c"].map(|name| script.view(name).state);
        let held: Vec<String> = desired.prefixes.keys().map(ToString::to_string).collect();
        (states, held.join(" "), script.reasons("a").contains(&"Elsewhere".to_owned()))
    };
    assert_eq!(states("east"), ([Active, Elsewhere, Active], "10.1.0.0/24 10.3.0.0/24".into(), false));
    assert_eq!(states("west"), ([Elsewhere, Active, Active], "10.2.0.0/24 10.3.0.0/24".into(), true));
}

#[test]
fn a_persona_of_another_hub_takes_nothing_here_and_ends() {
    let mut script = Script::with(node("east"));
    let away = with(of("a", "10.1.0.0/24", json!({"node": "west"})), json!({"ttl": "1h"}));
    let view = script.create(away.clone()).unwrap();
    assert_eq!((view.state, view.segment.0), (PersonaState::Elsewhere, 0));
    let route = ["10.1.0.0/24".parse().unwrap()];
    script.inventory(Inventory { foreign_routes: route.into(), ..Inventory::default() });
    let longer = with(away, json!({"ttl": "2h"}));
    assert_eq!(script.replace("a", longer).unwrap().state, PersonaState::Elsewhere);
    assert_eq!(refusal(script.create(persona("a", "10.9.0.0/24"))).0, RejectionKind::Conflict);
    let here = with(persona("a", "10.9.0.0/24"), json!({"ttl": "2h"}));
    let (kind, text) = refusal(script.replace("a", here));
    assert!(kind == RejectionKind::Conflict && text.starts_with("/gateway"), "{text}");
    // A restart finds it again, and a hub that is renamed has to be told anew.
    let text = serde_json::to_string(&script.hub.state()).unwrap();
    let again =
        |config, now| Hub::restore(config, IdSource::new(2), serde_json::from_str(&text).unwrap(), now);
    let mut same = Script { hub: again(node("east"), script.now), now: script.now };
    assert_eq!(same.view("a").state, PersonaState::Elsewhere);
    assert!(again(node("west"), script.now).named("a").is_none());
    script.pass(2 * 3_600);
    assert_eq!(script.view("a").state, PersonaState::Expired);
    script.create(persona("a", "10.9.0.0/24")).unwrap();
    assert_eq!(script.desired().segments.len(), 1);
}

#[test]
fn a_document_moves_to_this_hub_and_away() {
    let mut script = Script::with(node("east"));
    let at = |name: &str| [of("a", "10.1.0.0/24", json!({"node": name}))];
    for (name, segments) in [("west", 0), ("east", 1), ("west", 0)] {
        script.documents(&at(name)).unwrap();
        assert_eq!(script.desired().segments.len(), segments, "{name}");
    }
}

#[test]
fn a_full_node_says_which_limit() {
    let mut script = Script::with(node("east"));
    let with_rate =
        |name: &str, range: &str, rate: &str| with(persona(name, range), json!({"qos": {"bandwidth": rate}}));
    script.create(with_rate("a", "10.1.0.0/24", "700Mbps")).unwrap();
    let (kind, text) = refusal(script.create(with_rate("b", "10.2.0.0/24", "301Mbps")));
    assert_eq!(kind, RejectionKind::Invalid);
    assert!(text.starts_with("/qos/bandwidth node `east` is full"), "{text}");
    script.create(with_rate("b", "10.2.0.0/24", "300Mbps")).unwrap();
    script.create(of("away", "10.8.0.0/24", json!({"node": "west"}))).unwrap();
    let (kind, text) = refusal(script.create(persona("c", "10.3.0.0/24")));
    assert!(kind == RejectionKind::Invalid && text.contains("`node.capacity.personas` is 2"), "{text}");
    assert!(script.replace("a", with_rate("a", "10.1.0.0/24", "701Mbps")).is_err());
    script.delete("b").unwrap();
    script.replace("a", with_rate("a", "10.1.0.0/24", "1Gbps")).unwrap();
}

#[test]
fn each_hub_counts_for_itself() {
    let fits_both = |name: &str| {
        let mut document = of(name, "10.1.0.0/24", json!({"labels": {"kind": "any"}}));
        document["ip_range"] = json!(format!("10.{}.0.0/24", name.len()));
        document
    };
    let documents = ["a", "bb"].map(fits_both);
    for mut script in ["east", "west"].map(|name| Script::with(node(name))) {
        // A persona that several gateways fit lives on each: none of them knows what the others hold.
        script.documents(&documents).unwrap();
        assert_eq!(script.desired().segments.len(), 2);
        // One too many is refused with everything else of the folder, and moves nowhere.
        let (kind, text) = refusal(script.documents(&["a", "bb", "ccc"].map(fits_both)));
        assert!(kind == RejectionKind::Invalid && text.contains("choose another gateway"), "{text}");
        assert_eq!(script.desired().segments.len(), 2);
    }
}

#[test]
fn a_node_tells_how_full_it_is_as_personas_come_and_end() {
    let mut script = Script::with(node("east"));
    let told = |script: &mut Script| script.hub.snapshot(script.now).node;
    let empty = told(&mut script);
    assert!(!empty.ready && empty.name.as_deref() == Some("east") && empty.labels["site"] == "east");
    let room =
        |personas, bps: [u64; 2]| NodeRoom { personas, ingress_bps: Some(bps[0]), egress_bps: Some(bps[1]) };
    let giga = 1_000_000_000;
    assert_eq!([empty.capacity, empty.free], [room(2, [giga; 2]); 2]);
    let rates = json!({"ttl": "1h", "qos": {"bandwidth": {"ingress": "700Mbps", "egress": "100Mbps"}}});
    script.documents(&[with(persona("a", "10.1.0.0/24"), rates)]).unwrap();
    script.create(of("away", "10.8.0.0/24", json!({"node": "west"}))).unwrap();
    script.reconciled(&[]);
    let half = told(&mut script);
    assert!(half.ready, "its documents are in the kernel");
    assert_eq!(half.used, room(1, [700_000_000, 100_000_000]), "what lives elsewhere takes nothing");
    assert_eq!(half.free, room(1, [300_000_000, 900_000_000]));
    script.pass(3_600);
    assert_eq!(told(&mut script).free, room(2, [giga; 2]), "what ended gives it back");
    let unlimited = told(&mut Script::with(Config::default()));
    assert_eq!(unlimited.capacity, NodeRoom { personas: 10_000, ..NodeRoom::default() });
}

#[test]
fn a_file_cannot_leave_the_choice_to_a_hub() {
    let mut script = Script::with(node("east"));
    let open = of("a", "10.1.0.0/24", json!({"labels": {"kind": "any"}, "choose": "free"}));
    let problems = persona_from_value(open.clone()).unwrap_err();
    let [problem] = problems.as_slice() else { panic!("{problems:?}") };
    assert_eq!(problem.pointer, "/gateway/choose");
    for wanted in ["Files are read by all hubs", "write `node: NAME`"] {
        assert!(problem.detail.contains(wanted), "{wanted} in {}", problem.detail);
    }
    // Nor does the core: who takes requests chooses before.
    let document = Box::new(serde_json::from_value(open).unwrap());
    let (kind, text) = refusal(script.hub.handle(Command::Create { document }, script.now));
    assert!(kind == RejectionKind::Invalid && text.starts_with("/gateway/choose"), "{text}");
}

#[test]
fn templates_make_whole_personas() {
    let mut script = Script::with(node("east"));
    let asked = json!({"name": "a", "template": "dev", "strict": true});
    let (kind, text) = refusal(script.create(asked.clone()));
    assert!(
        kind == RejectionKind::Invalid && text.starts_with("/template there is no template `dev`"),
        "{text}"
    );
    let template = |ttl: &str| {
        let dev = json!({"kind": "template", "name": "dev", "ttl": ttl, "protocols": ["udp"]});
        Command::Templates(Templates::from([("dev".to_owned(), persona_from_value(dev).unwrap())]))
    };
    script.hub.handle(template("4h"), script.now).unwrap();
    assert_eq!(script.hub.snapshot(script.now).templates.len(), 1);
    let view = script.create(asked.clone()).unwrap();
    let whole = json!({"name": "a", "ip_range": "auto", "ttl": "4h", "protocols": ["udp"], "strict": true});
    assert_eq!(serde_json::to_value(&view.definition).unwrap(), whole);
    assert_eq!(
        (view.expires_at, view.ranges),
        (Some(script.now + 4.hours()), vec!["10.200.0.0/24".to_owned()])
    );
    // What was made of it before stays; a replacement is made of what it says by then.
    script.hub.handle(template("9h"), script.now).unwrap();
    assert_eq!(script.view("a").definition, view.definition);
    assert_eq!(script.replace("a", asked).unwrap().definition.ttl.as_deref(), Some("9h"));
    let (_, text) =
        refusal(script.replace("a", json!({"name": "a", "template": "dev", "ip_range": "10.1.0.0/33"})));
    assert!(text.contains("/ip_range"), "{text}");
    let (_, text) = refusal(script.create(json!({"kind": "template", "name": "dev"})));
    assert!(text.starts_with("/kind"), "{text}");
}
