//! Ranges that a persona takes from others for its life.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::*;
use crate::command::Deadline;
use crate::hub::state::State;

const V4: &str = "10.1.0.0/24";
const V6: &str = "fd00::/64";

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

/// A persona of both families with a port of its own.
fn holder(name: &str) -> Value {
    json!({"name": name, "ip_range": [V4, V6], "interfaces": [format!("eth-{name}")]})
}

fn taker(name: &str) -> Value {
    with(holder(name), json!({"overlap": "override"}))
}

/// One that takes the range and lives for so long.
fn ending(name: &str, ttl: &str) -> Value {
    with(taker(name), json!({"ttl": ttl}))
}

impl Script {
    /// Starts the hub anew with what it stored.
    fn restart(&mut self, config: Config, state: &State) {
        let state = serde_json::from_str(&serde_json::to_string(state).unwrap()).unwrap();
        self.hub = Hub::restore(config, IdSource::new(2), state, self.now);
    }

    /// Who has the range in the hub, by name.
    fn owner(&mut self, range: &str) -> String {
        let desired = self.desired();
        let id = &desired.segments[&desired.prefixes[&net(range)]].persona;
        self.hub.records.get(id).unwrap().persona.name().to_owned()
    }

    /// Who has both ranges.
    fn owners(&mut self) -> String {
        let [v4, v6] = [V4, V6].map(|range| self.owner(range));
        assert_eq!(v4, v6);
        v4
    }

    fn virtuals(&mut self, name: &str) -> BTreeMap<IpNet, IpNet> {
        self.view(name).virtual_ranges
    }

    /// Names of those that have ranges of a persona.
    fn takers(&mut self, name: &str) -> Vec<String> {
        let taken = self.view(name).overridden.into_iter();
        taken.filter(|taken| taken.range == net(V4)).map(|taken| taken.by).collect()
    }
}

#[test]
fn a_newcomer_has_the_range_until_it_ends_and_its_holder_is_reached_by_another() {
    let mut script = Script::new();
    script.create(holder("old")).unwrap();
    script.reconciled(&[]);
    for by_deadline in [true, false] {
        let document = with(taker("new"), json!({"ttl": "1h"}));
        let view = script.create(document).unwrap();
        assert!(view.virtual_ranges.is_empty());
        assert_eq!(script.owners(), "new");
        let virtuals = script.virtuals("old");
        assert_eq!(virtuals[&net(V4)], net("100.64.0.0/24"));
        assert_eq!(virtuals[&net(V6)].prefix_len(), 64);
        assert_eq!(script.owner("100.64.0.0/24"), "old");
        let old = script.view("old");
        assert_eq!((old.state, old.generation), (PersonaState::Active, 1));
        let taken = &old.overridden[0];
        assert_eq!((taken.by.as_str(), taken.until), ("new", view.expires_at));
        let said = &old.conditions.iter().find(|condition| condition.reason == "Overridden").unwrap().message;
        let end = view.expires_at.unwrap().to_string();
        assert!(["`new`", V4, "100.64.0.0/24", &end].iter().all(|part| said.contains(part)), "{said}");
        let longer = with(taker("new"), json!({"ttl": "2h"}));
        let until = script.replace("new", longer).unwrap().expires_at;
        assert_eq!(script.view("old").overridden[0].until, until, "as long as the newcomer lives by now");
        assert_eq!(script.virtuals("old"), virtuals);
        if by_deadline {
            script.pass(7_200);
        } else {
            script.delete("new").unwrap();
        }
        assert_eq!(script.owners(), "old");
        assert!(script.virtuals("old").is_empty() && script.view("old").overridden.is_empty());
        assert_eq!(script.reasons("old"), ["InterfaceMissing"]);
        let desired = script.desired();
        assert!(desired.translations.is_empty() && !desired.prefixes.contains_key(&net("100.64.0.0/24")));
        assert_eq!(desired.segments[&script.view("old").segment].flags, 0);
    }
}

#[test]
fn of_several_the_last_has_it_and_the_one_before_takes_over() {
    let mut script = Script::new();
    script.create(holder("first")).unwrap();
    script.create(taker("second")).unwrap();
    script.create(taker("third")).unwrap();
    assert_eq!(script.owners(), "third");
    assert_eq!(
        (script.takers("first"), script.takers("second")),
        (vec!["second".to_owned(), "third".to_owned()], vec!["third".to_owned()])
    );
    let before = script.virtuals("first");
    // A change of the one in the middle changes nothing about who has the range.
    script.replace("second", with(taker("second"), json!({"protocols": ["tcp"]}))).unwrap();
    script.replace("first", with(holder("first"), json!({"protocols": ["tcp"]}))).unwrap();
    assert_eq!((script.owners(), script.virtuals("first")), ("third".to_owned(), before.clone()));
    script.delete("third").unwrap();
    assert_eq!((script.owners(), script.takers("first")), ("second".to_owned(), vec!["second".to_owned()]));
    script.create(taker("third")).unwrap();
    script.delete("second").unwrap();
    assert_eq!((script.owners(), script.takers("first")), ("third".to_owned(), vec!["third".to_owned()]));
    assert_eq!(script.virtuals("first"), before, "one virtual range for as long as it is needed");
    script.delete("third").unwrap();
    assert_eq!(script.owners(), "first");
    assert!(script.virtuals("first").is_empty());
}

#[test]
fn of_several_the_one_that_ends_first_has_it_and_then_the_next() {
    let mut script = Script::new();
    script.create(holder("base")).unwrap();
    script.create(ending("long", "3h")).unwrap();
    script.create(ending("short", "1h")).unwrap();
    assert_eq!(script.owners(), "short");
    // A newcomer that ends later than who has it waits behind a range of its own.
    let view = script.create(ending("middle", "2h")).unwrap();
    assert_eq!((script.owners(), view.virtual_ranges.len()), ("short".to_owned(), 2));
    assert_eq!(script.takers("middle"), ["short"]);
    assert!(script.virtuals("short").is_empty() && script.takers("short").is_empty());
    assert_eq!(script.takers("long").len(), 2);
    script.create(taker("endless")).unwrap();
    assert_eq!((script.owners(), script.takers("endless").len()), ("short".to_owned(), 3));
    let desired = script.desired();
    let state = script.hub.state();
    script.restart(Config::default(), &state);
    assert_eq!(script.desired(), desired);
    // Each takes over from the one before, and nobody's name changes that waits.
    let waits = script.virtuals("long");
    script.pass(3_600);
    assert_eq!((script.owners(), script.virtuals("long")), ("middle".to_owned(), waits));
    assert!(script.virtuals("middle").is_empty());
    script.pass(3_600);
    assert_eq!(script.owners(), "long");
    script.pass(3_600);
    assert_eq!((script.owners(), script.takers("base")), ("endless".to_owned(), vec!["endless".to_owned()]));
    script.delete("endless").unwrap();
    assert_eq!((script.owners(), script.virtuals("base").len()), ("base".to_owned(), 0));
}

#[test]
fn another_end_or_another_order_changes_who_has_the_range() {
    use crate::model::config::RoutePriority;

    let mut script = Script::new();
    script.create(holder("base")).unwrap();
    script.create(ending("one", "1h")).unwrap();
    script.create(ending("two", "2h")).unwrap();
    assert_eq!((script.owners(), script.takers("two")), ("one".to_owned(), vec!["one".to_owned()]));
    script.replace("one", ending("one", "3h")).unwrap();
    assert_eq!((script.owners(), script.takers("one")), ("two".to_owned(), vec!["two".to_owned()]));
    script.replace("one", ending("one", "90m")).unwrap();
    assert_eq!((script.owners(), script.takers("one")), ("one".to_owned(), Vec::new()));
    let config = Config { route_priority: RoutePriority::LatestExpiry, ..Config::default() };
    script.hub.handle(Command::Configure(Box::new(config)), script.now).unwrap();
    assert_eq!((script.owners(), script.takers("one")), ("two".to_owned(), vec!["two".to_owned()]));
    let state = script.hub.state();
    script.restart(Config::default(), &state);
    assert_eq!(script.owners(), "one", "the hub was started with another order");
    // Of those that end together the one of higher priority, and then whoever has it.
    script.replace("two", with(ending("two", "90m"), json!({"priority": 7}))).unwrap();
    assert_eq!(script.owners(), "two");
    script.replace("one", with(ending("one", "90m"), json!({"priority": 7}))).unwrap();
    assert_eq!(script.owners(), "two");
}

#[test]
fn who_waits_for_a_range_needs_another_one_meanwhile() {
    let config = Config { overlap_pool: vec![net("100.64.0.0/24")], ..Config::default() };
    let mut script = Script::with(config);
    let of_v4 = |name: &str, ttl: &str| with(taker(name), json!({"ip_range": V4, "ttl": ttl}));
    script.create(of_v4("first", "1h")).unwrap();
    let state = script.hub.state();
    let (kind, text) = refusal(script.create(of_v4("second", "2h")));
    assert!(kind == RejectionKind::Conflict, "{text}");
    for part in ["`first` has 10.1.0.0/24 until it ends", "overlap_pool has no free /24"] {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(script.hub.state(), state, "nothing of it was done");
}

#[test]
fn a_change_takes_ranges_and_gives_them_back() {
    let mut script = Script::new();
    script.create(holder("old")).unwrap();
    script.create(holder("new")).unwrap();
    let stands_for = script.virtuals("new");
    let alias = script.view("old").aliases;
    script.replace("new", taker("new")).unwrap();
    assert_eq!((script.owners(), script.virtuals("new").len()), ("new".to_owned(), 0));
    assert_eq!(script.virtuals("old"), alias, "whoever knew it by its other name still does");
    // Away from the range, half of it, and back.
    script.replace("new", with(taker("new"), json!({"ip_range": "10.9.0.0/24"}))).unwrap();
    assert_eq!(script.owners(), "old");
    script.replace("new", with(taker("new"), json!({"ip_range": [V4, "10.9.0.0/24"]}))).unwrap();
    assert_eq!((script.owner(V4), script.owner(V6)), ("new".to_owned(), "old".to_owned()));
    script.replace("new", holder("new")).unwrap();
    assert_eq!((script.owners(), script.virtuals("new").len()), ("old".to_owned(), 2));
    assert_eq!(script.virtuals("new")[&net(V4)], stands_for[&net(V4)], "the first that is free");
    // Each takes it from the other.
    script.replace("new", taker("new")).unwrap();
    script.replace("old", taker("old")).unwrap();
    assert_eq!((script.owners(), script.takers("new")), ("old".to_owned(), vec!["old".to_owned()]));
    assert!(script.takers("old").is_empty());
    // What the other has it does not get by a refused change.
    let state = script.hub.state();
    let (kind, text) = refusal(script.replace("new", with(taker("new"), json!({"overlap": "reject"}))));
    assert!(kind == RejectionKind::Conflict && text.contains("of persona `old`"), "{text}");
    assert_eq!(script.hub.state(), state);
    script.delete("old").unwrap();
    assert_eq!(script.owners(), "new");
}

#[test]
fn ranges_that_overlap_in_part_are_taken_whole_and_kept_for_their_holder() {
    let mut script = Script::new();
    script.create(with(holder("old"), json!({"ip_range": "10.1.0.0/16"}))).unwrap();
    script.create(with(taker("new"), json!({"ip_range": "10.1.2.0/24"}))).unwrap();
    assert_eq!(script.virtuals("old")[&net("10.1.0.0/16")], net("100.64.0.0/16"));
    // The rest is nobody's now, and yet not free.
    let third = script.create(with(holder("third"), json!({"ip_range": "10.1.3.0/24"}))).unwrap();
    assert_eq!(third.virtual_ranges[&net("10.1.3.0/24")], net("100.65.1.0/24"), "behind the alias of `new`");
    let fourth = with(persona("fourth", "10.1.4.0/24"), json!({"overlap": "reject"}));
    let (kind, text) = refusal(script.create(fourth));
    assert!(kind == RejectionKind::Conflict && text.contains("goes back to persona `old`"), "{text}");
    script.delete("new").unwrap();
    assert_eq!(script.owner("10.1.0.0/16"), "old");
}

#[test]
fn what_cannot_be_overridden_is_refused_and_stays_as_it_was() {
    let pools = BTreeMap::from([("dev".to_owned(), vec![net("10.5.0.0/16")].into())]);
    let config = Config { overlap_pool: vec![net("100.64.0.0/24")], pools, ..Config::default() };
    let mut script = Script::with(config);
    script.create(with(holder("strict"), json!({"ip_range": "10.1.0.0/24", "overlap": "reject"}))).unwrap();
    script.create(persona("shared", "10.2.0.0/24")).unwrap();
    script.create(with(holder("wide"), json!({"ip_range": "10.3.0.0/16"}))).unwrap();
    script.create(with(holder("plain"), json!({"ip_range": "10.4.0.0/24"}))).unwrap();
    let route = Inventory { foreign_routes: vec![net("10.6.0.0/16")], ..Inventory::default() };
    script.inventory(route);
    let state = script.hub.state();
    for (range, wanted) in [
        (
            json!("10.1.0.0/25"),
            "/ip_range 10.1.0.0/24 of persona `strict` (the API) cannot be overridden, because it has `overlap: reject`",
        ),
        (
            json!(["10.4.0.0/24", "10.2.0.0/24"]),
            "/ip_range/1 10.2.0.0/24 of persona `shared` (the API) cannot be overridden, because it has no interface",
        ),
        (json!("10.3.0.0/24"), "no free /16: enlarge it in hub.yaml"),
        (json!("10.6.1.0/24"), "which the kernel routes already: use another range, or remove that route"),
        (json!("10.5.1.0/24"), "overlaps 10.5.0.0/16 of pool `dev`: use `auto`"),
    ] {
        let (kind, text) = refusal(script.create(with(taker("new"), json!({"ip_range": range}))));
        assert!(kind == RejectionKind::Conflict && text.contains(wanted), "{text}");
        assert_eq!(script.hub.state(), state, "nothing of it was done");
    }
    script.create(with(taker("new"), json!({"ip_range": "10.4.0.0/24"}))).unwrap();
}

#[test]
fn one_that_the_kernel_refuses_gives_back_and_takes_again_when_it_works() {
    let mut script = Script::new();
    script.create(holder("old")).unwrap();
    script.reconciled(&[]);
    let id = script.create(taker("new")).unwrap().id;
    script.reconciled(&[(&id, "no such namespace")]);
    assert_eq!(script.view("new").state, PersonaState::Failed);
    assert_eq!(script.owners(), "old");
    assert!(script.virtuals("old").is_empty());
    assert_eq!(script.virtuals("new").len(), 2, "it is tried where it disturbs nobody");
    assert!(script.reasons("new").contains(&"SteppedBack".to_owned()));
    script.pass(3);
    script.reconciled(&[(&id, "no such namespace")]);
    assert_eq!(script.owners(), "old");
    script.pass(10);
    script.reconciled(&[]);
    assert_eq!((script.view("new").state, script.owners()), (PersonaState::Active, "new".to_owned()));
    assert!(!script.reasons("new").contains(&"SteppedBack".to_owned()));
    assert_eq!(script.takers("old"), ["new"]);
}

#[test]
fn one_that_stepped_back_does_not_push_those_that_came_after_it() {
    let mut script = Script::new();
    script.create(holder("old")).unwrap();
    let id = script.create(taker("new")).unwrap().id;
    script.reconciled(&[(&id, "no")]);
    script.create(taker("newer")).unwrap();
    script.pass(3);
    script.reconciled(&[]);
    assert_eq!((script.view("new").state, script.owners()), (PersonaState::Active, "newer".to_owned()));
    script.delete("newer").unwrap();
    assert_eq!(script.owners(), "old");
    script.replace("new", with(taker("new"), json!({"protocols": ["tcp"]}))).unwrap();
    assert_eq!(script.owners(), "new", "asked again, it takes the range");
}

#[test]
fn who_has_what_survives_a_restart_and_a_change_that_goes_back() {
    let mut script = Script::new();
    script.create(holder("old")).unwrap();
    let apply = Command::Apply {
        documents: vec![persona_from_value(taker("new")).unwrap()],
        confirm: Some(Deadline { until: script.now + 2.minutes(), boot_ns: 0, boot_id: String::new() }),
    };
    script.hub.handle(apply, script.now).unwrap();
    assert_eq!(script.owners(), "new");
    script.hub.handle(Command::Revert { why: "asked".into() }, script.now).unwrap();
    assert_eq!((script.owners(), script.virtuals("old").len()), ("old".to_owned(), 0));
    script.create(with(taker("new"), json!({"ttl": "1h"}))).unwrap();
    let (desired, state) = (script.desired(), script.hub.state());
    script.restart(Config::default(), &state);
    assert_eq!(script.desired(), desired);
    // Gone while the hub was not there: it ended, or nobody knows it any more.
    let mut without = state.clone();
    without.personas.retain(|persona| persona.definition.name != "new");
    script.restart(Config::default(), &without);
    assert_eq!((script.owners(), script.virtuals("old").len()), ("old".to_owned(), 0));
    script.now += 2.hours();
    script.restart(Config::default(), &state);
    assert_eq!((script.owners(), script.virtuals("old").len()), ("old".to_owned(), 0));
}

#[test]
fn documents_of_one_folder_come_in_the_order_of_who_takes_from_whom() {
    let mut script = Script::new();
    script.documents(&[taker("new"), holder("old")]).unwrap();
    assert_eq!((script.owners(), script.takers("old")), ("new".to_owned(), vec!["new".to_owned()]));
    // Both change at once.
    let change = json!({"protocols": ["tcp"]});
    script.documents(&[with(taker("new"), change.clone()), with(holder("old"), change)]).unwrap();
    assert_eq!((script.owners(), script.takers("old")), ("new".to_owned(), vec!["new".to_owned()]));
    // The one is gone and the other changes.
    script.documents(&[holder("old")]).unwrap();
    assert_eq!((script.owners(), script.virtuals("old").len()), ("old".to_owned(), 0));
}
