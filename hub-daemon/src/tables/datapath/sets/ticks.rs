//! Elements of one set as the maps hold them, and what makes one such value out of another.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::iter::Peekable;

use hub_common::address::mapped;
use ipnet::{IpNet, Ipv6Net};

use crate::compile::bits;
use crate::kernel::clock::Clock;
use crate::model::prefix;
use crate::model::set::Elements;

/// Bits of an element that is one address.
pub(super) const HOST_BITS: u8 = 128;

/// Address and length of an element, IPv4 as IPv6.
pub(super) type Element = ([u8; 16], u8);
/// Elements with the tick at which each ends; sorted, each once.
pub(super) type Ticks = Vec<(Element, u64)>;

/// What makes one value out of another.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Change {
    /// Elements that are held as they are wanted.
    pub(super) stays: Ticks,
    /// Elements that are not wanted.
    pub(super) gone: Vec<Element>,
    /// Elements that are wanted, and not held so.
    pub(super) missing: Ticks,
}

impl Change {
    /// What makes `wanted` out of `held`. Ends one tick apart are the same: clocks are not read at once.
    pub(super) fn between(held: Ticks, wanted: Ticks) -> Self {
        let mut change = Self::default();
        let (mut held, mut wanted) = (held.into_iter().peekable(), wanted.into_iter().peekable());
        while let Some(first) = first(&mut held, &mut wanted) {
            match (first != Ordering::Greater, first != Ordering::Less) {
                (true, false) => change.gone.extend(held.next().map(|(element, _)| element)),
                (false, _) => change.missing.extend(wanted.next()),
                (true, true) => {
                    let Some((there, new)) = held.next().zip(wanted.next()) else { break };
                    let is_same = there.1.abs_diff(new.1) <= 1;
                    if is_same { change.stays.push(there) } else { change.missing.push(new) }
                }
            }
        }
        change
    }
}

/// How the next of one compares with the next of the other; nothing comes after everything.
fn first(
    held: &mut Peekable<impl Iterator<Item = (Element, u64)>>,
    wanted: &mut Peekable<impl Iterator<Item = (Element, u64)>>,
) -> Option<Ordering> {
    match (held.peek(), wanted.peek()) {
        (None, None) => None,
        (Some(_), None) => Some(Ordering::Less),
        (None, Some(_)) => Some(Ordering::Greater),
        (Some((there, _)), Some((new, _))) => Some(there.cmp(new)),
    }
}

/// Elements as the maps hold them, with the last tick among the prefixes that cover each.
pub(super) fn of(elements: &Elements, clock: &Clock) -> Ticks {
    let mut ticks: Ticks = Vec::with_capacity(elements.len());
    // Prefixes nest or are disjoint, and a wider one comes before those in it.
    let mut covers: Vec<(&IpNet, u64)> = Vec::new();
    for (prefix, end) in elements {
        while covers.pop_if(|(wider, _)| !wider.contains(prefix)).is_some() {}
        let covered = covers.last().map_or(0, |(_, until)| *until);
        let until = clock.deadline_tick(*end).max(covered);
        if prefix.prefix_len() < prefix.max_prefix_len() {
            covers.push((prefix, until));
        }
        ticks.extend(parts(prefix).iter().map(|part| (bits(part), until)));
    }
    ticks.sort_unstable();
    // Of one element's ticks the last counts.
    ticks.dedup_by(|later, kept| {
        let is_same = later.0 == kept.0;
        if is_same {
            kept.1 = later.1;
        }
        is_same
    });
    ticks
}

/// An IPv6 prefix without the addresses that stand for IPv4 in the map.
fn parts(prefix: &IpNet) -> Cow<'_, [IpNet]> {
    let IpNet::V6(v6) = prefix else { return std::slice::from_ref(prefix).into() };
    match Ipv6Net::new(mapped([0; 4]).into(), 96) {
        Ok(inside) if v6.contains(&inside) || inside.contains(v6) => {
            prefix::without(prefix, &[IpNet::V6(inside)]).into()
        }
        _ => std::slice::from_ref(prefix).into(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::{SignedDuration, Timestamp};
    use proptest::prelude::*;

    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn tick(ticks: &Ticks, element: Element) -> Option<u64> {
        ticks.iter().find(|(there, _)| *there == element).map(|(_, until)| *until)
    }

    #[test]
    fn a_wider_element_outlives_a_narrow_one() {
        let clock = Clock::new(1_000, 0, 4_000_000);
        let soon = Timestamp::now().checked_add(SignedDuration::from_secs(60)).unwrap();
        let elements = Elements::from([
            (net("10.0.0.0/8"), None),
            (net("10.1.0.0/16"), Some(soon)),
            (net("10.1.2.0/24"), Some(soon)),
            (net("11.0.0.0/8"), Some(soon)),
            (net("::/0"), None),
            (net("::fffe:0:0/95"), Some(soon)),
        ]);
        let ticks = of(&elements, &clock);
        assert_eq!(tick(&ticks, bits(&net("10.1.0.0/16"))), Some(u64::MAX));
        assert_eq!(tick(&ticks, bits(&net("10.1.2.0/24"))), Some(u64::MAX));
        assert!(tick(&ticks, bits(&net("11.0.0.0/8"))).unwrap() < u64::MAX);
        assert_eq!(tick(&ticks, ([0; 16], 0)), None, "::/0 must not hold IPv4");
        assert_eq!(tick(&ticks, bits(&net("::fffe:0:0/96"))), Some(u64::MAX));
        assert!(ticks.iter().filter(|((_, bits), _)| *bits > 0).count() > 90);
    }

    fn some_ticks() -> impl Strategy<Value = Ticks> {
        prop::collection::btree_map((0u8..30, 0u8..2), 0u64..9, 0..40).prop_map(|map: BTreeMap<_, _>| {
            map.into_iter().map(|((last, bits), until)| (([last; 16], 127 + bits), until)).collect()
        })
    }

    proptest! {
        #[test]
        fn a_change_makes_what_is_wanted_and_touches_nothing_else(held in some_ticks(), wanted in some_ticks()) {
            let change = Change::between(held.clone(), wanted.clone());
            let mut made: BTreeMap<Element, u64> = held.iter().copied().collect();
            for element in &change.gone {
                prop_assert!(made.remove(element).is_some());
            }
            for (element, until) in &change.missing {
                let before = made.insert(*element, *until);
                prop_assert!(before.is_none_or(|before| before.abs_diff(*until) > 1));
            }
            let wanted: BTreeMap<Element, u64> = wanted.into_iter().collect();
            prop_assert!(made.keys().eq(wanted.keys()));
            prop_assert!(made.iter().all(|(element, until)| until.abs_diff(wanted[element]) <= 1));
            let stays: BTreeMap<Element, u64> = change.stays.into_iter().collect();
            prop_assert_eq!(stays.len() + change.missing.len(), wanted.len());
            prop_assert!(stays.iter().all(|(element, until)| made[element] == *until));
        }
    }
}
