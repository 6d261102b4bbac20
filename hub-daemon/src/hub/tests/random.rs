//! Random sequences of commands keep what must always hold.

use std::collections::BTreeSet;

use ipnet::IpNet;
use proptest::prelude::*;

use super::*;
use crate::desired::Via;
use crate::document::persona::OverlapDocument;
use crate::model::{SegmentId, prefix};
use crate::systems::persona::place::MAIN_TABLE;

#[derive(Clone, Debug)]
enum Step {
    Create(u8, u8, Option<u8>),
    Replace(u8, u8, Option<u8>),
    Delete(u8),
    Documents(Vec<(u8, u8, Option<u8>)>),
    Link(bool, bool),
    Faults(u8),
    Pass(u32),
    Restart,
}

fn step(names: std::ops::Range<u8>, ranges: u8) -> impl Strategy<Value = Step> {
    let one = move || (names.clone(), 0_u8..ranges, prop::option::of(1_u8..100));
    let name = one().prop_map(|(name, _, _)| name);
    prop_oneof![
        4 => one().prop_map(|(name, range, ttl)| Step::Create(name, range, ttl)),
        3 => one().prop_map(|(name, range, ttl)| Step::Replace(name, range, ttl)),
        2 => name.prop_map(Step::Delete),
        2 => prop::collection::vec(one(), 0..4).prop_map(Step::Documents),
        1 => any::<(bool, bool)>().prop_map(|(there, up)| Step::Link(there, up)),
        2 => (0_u8..4).prop_map(Step::Faults),
        3 => prop_oneof![1_u32..5, 10_u32..90, 80_000_u32..90_000].prop_map(Step::Pass),
        1 => Just(Step::Restart),
    ]
}

/// Personas from this number on are mostly lone: what they contribute depends on nobody else.
const LONE: u8 = 12;

fn document(name: u8, range: u8, ttl: Option<u8>) -> Value {
    let range_number = range;
    // Ranges 8 and 9 hold the others: overlaps are common.
    let range = if range < 8 || name >= LONE {
        format!("10.0.{range}.0/24")
    } else {
        format!("10.0.{}.0/22", (range - 8) * 4)
    };
    let mut document = persona(&format!("n{name}"), &range);
    if let Some(ttl) = ttl {
        document = with(document, json!({"ttl": format!("{ttl}s")}));
    }
    if name >= LONE {
        // One of them is no longer lone when it has this, and the others are not when their ranges meet.
        let v6 = format!("fd00:{range_number}::/64");
        return match name % 6 {
            0 => document,
            1 => with(document, json!({"ip_range": [range, v6], "egress": {"nat": "masquerade"}})),
            2 => with(document, json!({"endpoints": [{"name": "e", "pid": u32::from(name) + 1}]})),
            3 => with(document, json!({"interfaces": ["lan"]})),
            4 => with(document, json!({"ip_range": [range, v6], "detectors": "default"})),
            _ => with(document, json!({"egress": {"next_hop": "192.0.2.1"}})),
        };
    }
    // Each kind overrides, too: behind endpoints, behind an interface, and behind nothing of its own.
    if name >= 6 {
        document = with(document, json!({"overlap": "override"}));
    }
    match name % 3 {
        0 => {
            with(document, json!({"endpoints": [{"name": "e", "pid": u32::from(name) + 1}], "peers": ["n1"]}))
        }
        1 => with(document, json!({"peers": ["n0"], "egress": {"allow": "10.9.0.0/16"}})),
        _ => with(document, json!({"interfaces": ["lan"], "egress": {"next_hop": "192.0.2.1"}})),
    }
}

/// What must hold after any step. Returns how many ranges others have, and whether what is wanted was amended.
fn check(script: &mut Script) -> (u32, bool) {
    let snapshot = script.hub.snapshot(script.now);
    let desired = script.desired();
    let amended = script.hub.amend(script.now);
    let is_amended = amended.is_some();
    let wanted = amended.unwrap_or_else(|| script.hub.wanted(script.now));
    assert_eq!(wanted, desired, "what is wanted, as made from nothing");
    let live: BTreeSet<&PersonaId> = snapshot
        .personas
        .values()
        .filter(|view| view.state != PersonaState::Expired && view.state != PersonaState::Failed)
        .map(|view| &view.id)
        .collect();
    let segment_of = |id: SegmentId| &desired.segments[&id];
    for route in desired.routes.values() {
        assert!(live.contains(&route.persona), "a route of nobody alive: {route:?}");
    }
    for (id, segment) in &desired.segments {
        assert_eq!(segment.state == SegmentState::Active, live.contains(&segment.persona), "{id}");
        assert_eq!(snapshot.personas[&segment.persona].segment, *id);
    }
    let prefixes: Vec<_> = desired.prefixes.iter().collect();
    for (index, (one, owner)) in prefixes.iter().enumerate() {
        assert!(desired.segments.contains_key(owner), "a prefix of no segment");
        let rest = prefixes.iter().skip(index + 1);
        assert!(rest.into_iter().all(|(other, _)| !prefix::overlaps(one, other)), "two owners of {one}");
    }
    for (name, port) in &desired.ports {
        assert!(port.segment.is_none_or(|id| segment_of(id).state == SegmentState::Active), "{name}");
    }
    assert!(desired.endpoints.keys().all(|name| desired.ports.contains_key(name) && name.len() <= 15));
    assert!(desired.addresses.keys().all(|(name, _)| desired.ports.contains_key(name)));
    for (low, high) in &desired.peers {
        assert!(low < high && desired.segments.contains_key(low) && desired.segments.contains_key(high));
    }
    for route in desired.routes.values() {
        if let Via::Interface(name) = &route.via {
            assert!(desired.ports.contains_key(name), "a route to a port without programs");
        }
    }
    for view in snapshot.personas.values().filter(|view| live.contains(&view.id)) {
        let range: IpNet = view.definition.ip_range.as_slice()[0].parse().unwrap();
        let range = view.virtual_ranges.get(&range).copied().unwrap_or(range);
        let covered = desired.routes.keys().any(|key| key.table == MAIN_TABLE && key.target == range);
        assert!(covered, "packets to {range} would leave by the default route");
    }
    let names: Vec<_> = live.iter().map(|id| &snapshot.personas[*id].definition.name).collect();
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "a name twice");
    let mut taken = 0;
    for view in snapshot.personas.values().filter(|view| live.contains(&view.id)) {
        for overridden in &view.overridden {
            let mut others = snapshot.personas.values();
            let taker = others
                .find(|other| other.definition.name == overridden.by && other.state != PersonaState::Expired);
            let taker = taker.unwrap_or_else(|| panic!("nobody has {}", overridden.range));
            let range: IpNet = taker.definition.ip_range.as_slice()[0].parse().unwrap();
            assert!(taker.definition.overlap == Some(OverlapDocument::Override));
            assert!(
                prefix::overlaps(&range, &overridden.range)
                    && view.virtual_ranges.contains_key(&overridden.range)
            );
            taken += 1;
        }
        let lent =
            view.virtual_ranges.keys().all(|range| view.overridden.iter().any(|taken| taken.range == *range));
        let stepped_back = view.conditions.iter().any(|condition| condition.reason == "SteppedBack");
        let overrides = view.definition.overlap == Some(OverlapDocument::Override);
        assert!(!overrides || lent != stepped_back, "a range that its taker does not have");
    }
    assert!(script.hub.deadline().is_none_or(|deadline| deadline > script.now), "a deadline was missed");
    (taken, is_amended)
}

/// A twin of the hub that was taken back, and what was stored change by change, are the hub.
struct Shadow {
    before: undo::Before,
    state: state::State,
    desired: Desired,
    stored: state::State,
    resting: crate::hub::changes::Resting,
}

impl Shadow {
    fn new(script: &mut Script, stored: state::State, resting: crate::hub::changes::Resting) -> Self {
        let (state, desired) = (script.hub.state(), script.desired());
        Self { before: script.hub.mark(), state, desired, stored, resting }
    }

    /// Compares, and goes on to the next step.
    fn check(mut self, script: &mut Script, is_restart: bool) -> Self {
        if !is_restart {
            let mut twin = script.hub.clone();
            twin.undo(self.before);
            assert_eq!(twin.state(), self.state, "taken back");
            let earlier = twin.desired(script.now);
            assert_eq!(earlier.prefixes.keys().count(), self.desired.prefixes.len());
            let (claims, graves) = (format!("{:?}", twin.claims), format!("{:?}", twin.graves));
            let again =
                Hub::restore(Config::default(), IdSource::new(1), twin.state(), Timestamp::UNIX_EPOCH);
            assert_eq!(claims, format!("{:?}", again.claims));
            assert_eq!(graves, format!("{:?}", again.graves));
        }
        let mut fresh = script.hub.clone();
        fresh.shown = None;
        let (fresh, kept) = (fresh.snapshot(script.now), script.hub.snapshot(script.now));
        assert_eq!(fresh.personas, kept.personas, "views that were kept");
        self.stored.change([script.hub.changes(&self.resting)]);
        assert_eq!(self.stored, script.hub.state(), "stored change by change");
        script.hub.saved();
        Self::new(script, self.stored, script.hub.resting())
    }
}

fn run(steps: Vec<Step>) -> [u32; 5] {
    let mut script = Script::new();
    let mut outcomes = [0; 5];
    let mut taken_before = 0;
    let mut ended: BTreeSet<PersonaId> = BTreeSet::new();
    let mut freed: BTreeMap<SegmentId, Timestamp> = BTreeMap::new();
    let (state, resting) = (script.hub.state(), script.hub.resting());
    let mut shadow = Shadow::new(&mut script, state, resting);
    for (seed, step) in (1..).zip(steps) {
        let is_restart = matches!(step, Step::Restart);
        let before: BTreeMap<SegmentId, PersonaId> =
            script.desired().segments.into_iter().map(|(id, segment)| (id, segment.persona)).collect();
        let done = match step {
            Step::Create(name, range, ttl) => script.create(document(name, range, ttl)).is_ok(),
            Step::Replace(name, range, ttl) => {
                script.replace(&format!("n{name}"), document(name, range, ttl)).is_ok()
            }
            Step::Delete(name) => script.delete(&format!("n{name}")).is_ok(),
            Step::Documents(list) => {
                let list: Vec<_> =
                    list.into_iter().map(|(name, range, ttl)| document(name, range, ttl)).collect();
                script.documents(&list).is_ok()
            }
            Step::Link(there, up) => {
                script.links(if there { &[("lan", true)] } else { &[] });
                script.links(if there { if up { &[("lan", true)] } else { &[("lan", false)] } } else { &[] });
                true
            }
            Step::Faults(skip) => {
                let ids: Vec<_> = before.values().skip(skip.into()).step_by(3).cloned().collect();
                let faults: Vec<_> = ids.iter().map(|id| (id, "no")).collect();
                script.reconciled(&faults);
                true
            }
            Step::Pass(seconds) => {
                script.pass(seconds.into());
                true
            }
            Step::Restart => {
                let text = serde_json::to_string(&script.hub.state()).unwrap();
                let state = serde_json::from_str(&text).unwrap();
                let inventory = script.hub.inventory.clone();
                script.hub = Hub::restore(Config::default(), IdSource::new(seed), state, script.now);
                script.inventory(inventory);
                true
            }
        };
        outcomes[usize::from(done)] += 1;
        let (taken, is_amended) = check(&mut script);
        outcomes[4] += u32::from(is_amended);
        outcomes[2] += u32::from(taken > taken_before);
        outcomes[3] += u32::from(taken < taken_before);
        taken_before = taken;
        shadow = shadow.check(&mut script, is_restart);
        for view in script.hub.snapshot(script.now).personas.values() {
            let expired = view.state == PersonaState::Expired;
            assert!(expired || !ended.contains(&view.id), "{} came back", view.id);
            if expired {
                ended.insert(view.id.clone());
            }
        }
        let after = script.desired().segments;
        for (id, owner) in before {
            if after.get(&id).is_none_or(|segment| segment.persona != owner) {
                assert!(!after.contains_key(&id), "segment {id} changed hands at once");
                freed.insert(id, script.now);
            }
        }
        for id in after.keys() {
            if let Some(at) = freed.remove(id) {
                assert!(script.now.duration_since(at) >= QUARANTINE, "segment {id} did not rest");
            }
        }
    }
    outcomes
}

/// Outcomes of random lives: refused, done, taken, given back, amended.
fn lives(names: std::ops::Range<u8>, ranges: u8, count: usize) -> [u32; 5] {
    use proptest::strategy::ValueTree as _;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut outcomes = [0; 5];
    for _ in 0..count {
        let steps = prop::collection::vec(step(names.clone(), ranges), 1..40);
        let steps = steps.new_tree(&mut runner).unwrap().current();
        outcomes.iter_mut().zip(run(steps)).for_each(|(sum, count)| *sum += count);
    }
    outcomes
}

#[test]
fn a_thousand_random_lives_keep_the_invariants() {
    let outcomes = lives(0..12, 10, 1_000);
    assert!(outcomes[0] > 2_000 && outcomes[1] > 2_000, "refused and done: {outcomes:?}");
    assert!(outcomes[2] > 300 && outcomes[3] > 200, "taken and given back: {outcomes:?}");
}

#[test]
fn what_lone_lives_want_is_amended_to_what_it_would_be_from_nothing() {
    let [refused, done, _, _, amended] = lives(LONE..30, 40, 500);
    assert!(refused > 300 && done > 2_000, "{refused} refused, {done} done");
    assert!(amended > 1_000, "{amended} amended");
    // Among those that know each other.
    let [_, done, _, _, amended] = lives(6..20, 12, 300);
    assert!(done > 1_000 && amended > 100, "{done} done, {amended} amended");
}
