//! What becomes of each map of an earlier run.

use std::collections::BTreeMap;
use std::io;

use super::shapes::{Form, Kind, Shape};

/// Maps without which the others mean nothing.
const CORE: [&str; 5] = ["SETTINGS", "SEGMENTS", "POLICIES", "RULES", "FLOWS"];

/// What becomes of one map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is used as it is.
    Adopted,
    /// It is made anew beside, with the entries of the one that is there.
    Carried,
    /// It is made anew and begins empty: there is none, or, with the reason, none that can be used.
    Empty(Option<String>),
}

/// What becomes of all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// There are none.
    New,
    /// All begin empty, for a reason.
    Cold(String),
    /// Each has a fate of its own, by name.
    Each(BTreeMap<&'static str, Fate>),
}

/// Decides by how maps are to be made, how those that are there were made, and how many entries one must have to hold
/// what is in use.
pub(crate) fn decide(
    wanted: &[Shape],
    found: &BTreeMap<&str, Form>,
    needed: &dyn Fn(&Shape) -> io::Result<u32>,
) -> io::Result<Plan> {
    if found.is_empty() {
        return Ok(Plan::New);
    }
    if let Some(name) = CORE.iter().find(|name| !found.contains_key(**name)) {
        return Ok(Plan::Cold(format!("map {name} is not pinned, and {} others are", found.len())));
    }
    // Before anything in them is looked at.
    let is_lost = |kind: Kind| matches!(kind, Kind::Policy | Kind::Flows | Kind::State);
    let other = |shape: &&Shape| found.get(shape.name).is_some_and(|found| !found.has_layout(&shape.form));
    if let Some(shape) = wanted.iter().filter(other).find(|shape| is_lost(shape.kind)) {
        return Ok(Plan::Cold(misfit(shape, found)));
    }
    let mut fates = BTreeMap::new();
    for shape in wanted {
        let fate = match found.get(shape.name) {
            None => Fate::Empty(None),
            Some(found) if *found == shape.form => Fate::Adopted,
            Some(_) if matches!(shape.kind, Kind::Hops | Kind::Moment) || other(&shape) => {
                Fate::Empty(Some(misfit(shape, found)))
            }
            Some(before) => {
                let is_less = shape.kind == Kind::Policy && before.entries > shape.form.entries;
                let needed = if is_less { needed(shape)? } else { 0 };
                if needed > shape.form.entries {
                    let why = misfit(shape, found);
                    return Ok(Plan::Cold(format!("{why}; what is in use needs {needed}")));
                }
                Fate::Carried
            }
        };
        fates.insert(shape.name, fate);
    }
    join(wanted, &mut fates);
    Ok(Plan::Each(fates))
}

/// Programs of before go on with the maps of before until those of now take their places. What they read together they
/// must not share in part with the ones of now: if one of such maps is made anew, so are the others.
fn join(wanted: &[Shape], fates: &mut BTreeMap<&'static str, Fate>) {
    for kind in [Kind::Policy, Kind::Flows, Kind::Hops] {
        let names: Vec<&str> =
            wanted.iter().filter(|shape| shape.kind == kind).map(|shape| shape.name).collect();
        let is_anew = |name: &&&str| matches!(fates.get(**name), Some(Fate::Carried | Fate::Empty(Some(_))));
        let Some(first) = names.iter().find(is_anew).copied() else { continue };
        for name in names {
            if let Some(fate) = fates.get_mut(name).filter(|fate| **fate == Fate::Adopted) {
                *fate = if kind == Kind::Hops {
                    Fate::Empty(Some(format!("map {name} goes with {first}")))
                } else {
                    Fate::Carried
                };
            }
        }
    }
}

/// What is different about a map that is there.
fn misfit(Shape { name, form, .. }: &Shape, found: &BTreeMap<&str, Form>) -> String {
    let words = |form: &Form| (form.map, form.key, form.value, form.entries);
    let there = found.get(name).map(words);
    let there = there.map_or_else(String::new, |words| format!("{words:?}"));
    format!("map {name} has (type, key, value, entries) {there}, wanted {:?}", words(form))
}

#[cfg(test)]
mod tests {
    use super::super::shapes::Capacities;
    use super::*;

    fn pinned(capacities: &Capacities) -> BTreeMap<&'static str, Form> {
        capacities.maps().map(|shape| (shape.name, shape.form)).into()
    }

    /// The plan for maps of the default sizes; in use are so many entries of each.
    fn plan(found: &BTreeMap<&str, Form>, in_use: u32) -> Plan {
        decide(&Capacities::default().maps(), found, &|_| Ok(in_use)).unwrap()
    }

    /// Names of the maps that are not adopted, with what becomes of them.
    fn others(plan: Plan) -> BTreeMap<&'static str, Fate> {
        let Plan::Each(mut fates) = plan else { panic!("{plan:?}") };
        assert_eq!(fates.len(), Capacities::default().maps().len());
        fates.retain(|_, fate| *fate != Fate::Adopted);
        fates
    }

    fn of_kind(kind: Kind) -> Vec<&'static str> {
        let mut names: Vec<_> = Capacities::default()
            .maps()
            .iter()
            .filter(|shape| shape.kind == kind)
            .map(|shape| shape.name)
            .collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn what_fits_is_adopted_and_without_maps_there_is_nothing_to_lose() {
        assert!(others(plan(&pinned(&Capacities::default()), 0)).is_empty());
        assert_eq!(plan(&BTreeMap::new(), 0), Plan::New);
    }

    #[test]
    fn other_numbers_of_connections_concern_connections_alone() {
        for flows in [1_024, 1 << 20] {
            let found = pinned(&Capacities { flows, ..Capacities::default() });
            let fates = others(plan(&found, u32::MAX));
            assert_eq!(fates.keys().copied().collect::<Vec<_>>(), of_kind(Kind::Flows));
            assert!(fates.values().all(|fate| *fate == Fate::Carried), "{fates:?}");
        }
    }

    #[test]
    fn policies_are_carried_together_or_not_at_all() {
        let larger = pinned(&Capacities { rules: 1 << 20, ..Capacities::default() });
        let Plan::Cold(why) = plan(&larger, 131_073) else { panic!("it has no room") };
        assert!(why.starts_with("map RULES has") && why.ends_with("needs 131073"), "{why}");
        for (found, in_use) in
            [(larger, 131_072), (pinned(&Capacities { rules: 16, ..Capacities::default() }), u32::MAX)]
        {
            let fates = others(plan(&found, in_use));
            let mut expected = of_kind(Kind::Policy);
            expected.push("RULE_HITS");
            expected.sort_unstable();
            assert_eq!(fates.keys().copied().collect::<Vec<_>>(), expected);
            assert!(fates.values().all(|fate| *fate == Fate::Carried), "{fates:?}");
        }
    }

    #[test]
    fn other_layouts_end_what_can_be_made_again_and_else_everything() {
        for shape in Capacities::default().maps() {
            let mut found = pinned(&Capacities::default());
            found.get_mut(shape.name).unwrap().value += 8;
            let plan = plan(&found, 0);
            match shape.kind {
                Kind::Policy | Kind::Flows | Kind::State => {
                    assert!(matches!(&plan, Plan::Cold(why) if why.contains(shape.name)), "{plan:?}");
                }
                Kind::Hops => {
                    assert_eq!(others(plan).keys().copied().collect::<Vec<_>>(), of_kind(Kind::Hops));
                }
                Kind::Memory | Kind::Counts(_) | Kind::Moment => {
                    let fates = others(plan);
                    assert_eq!(fates.keys().copied().collect::<Vec<_>>(), [shape.name]);
                    let Some(Fate::Empty(Some(why))) = fates.get(shape.name) else { panic!("{fates:?}") };
                    assert!(why.contains(shape.name), "{why}");
                }
            }
        }
    }

    #[test]
    fn maps_that_are_not_there_begin_empty_and_those_that_all_hangs_on_begin_all() {
        for shape in Capacities::default().maps() {
            let mut found = pinned(&Capacities::default());
            found.remove(shape.name);
            match plan(&found, 0) {
                Plan::Cold(why) => assert!(CORE.contains(&shape.name), "{why}"),
                plan @ (Plan::New | Plan::Each(_)) => {
                    assert!(!CORE.contains(&shape.name), "{}", shape.name);
                    assert_eq!(others(plan), [(shape.name, Fate::Empty(None))].into());
                }
            }
        }
    }
}
