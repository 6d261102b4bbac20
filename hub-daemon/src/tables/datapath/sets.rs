//! Elements of sets in their map, each with the tick at which it ends.
//!
//! The map answers with the longest prefix only, so an element holds the last end among the prefixes that
//! cover it: when a short-lived one ends, the wider one still counts.

use std::collections::BTreeMap;

use aya::Ebpf;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{IterableMap as _, MapData, MapError};
use hub_common::address::mapped;
use hub_common::set::{SET_KEY_BITS, SetKey};
use ipnet::{IpNet, Ipv6Net};
use jiff::Timestamp;

use super::{MapFault, failure, take};
use crate::compile::bits;
use crate::kernel::batch;
use crate::kernel::clock::Clock;
use crate::model::{SegmentId, prefix};
use crate::reconcile::Report;

const NAME: &str = "sets";

/// Segment and number of a set.
type Name = (SegmentId, u32);
/// Address and length of an element as the map holds it.
type Element = ([u8; 16], u8);

/// The map of sets.
pub(crate) struct Sets {
    map: LpmTrie<MapData, SetKey, u64>,
    live: BTreeMap<Name, BTreeMap<Element, u64>>,
}

impl Sets {
    /// Takes the map of an object and reads what an earlier run left.
    pub(crate) fn new(ebpf: &mut Ebpf) -> Result<Self, MapFault> {
        let map: LpmTrie<_, SetKey, u64> = take(ebpf, "SETS")?;
        let mut live: BTreeMap<Name, BTreeMap<Element, u64>> = BTreeMap::new();
        for key in map.keys().filter_map(Result::ok) {
            let data = key.data();
            let bits = key.prefix_len().saturating_sub(SET_KEY_BITS);
            let element = (data.address, u8::try_from(bits).unwrap_or(128));
            let until = map.get(&key, 0).unwrap_or_default();
            live.entry((SegmentId(data.segment), data.set)).or_default().insert(element, until);
        }
        Ok(Self { map, live })
    }

    /// Makes the sets that are wanted hold what is wanted; others stay for the policies that still ask them.
    pub(crate) fn put(
        &mut self,
        wanted: &BTreeMap<Name, BTreeMap<IpNet, Option<Timestamp>>>,
        clock: &Clock,
    ) -> Report {
        let mut report = Report { table: NAME, ..Report::default() };
        for (name, elements) in wanted {
            let wanted = ticks(elements, clock);
            let live = self.live.entry(*name).or_default();
            let gone: Vec<Element> =
                live.keys().filter(|element| !wanted.contains_key(*element)).copied().collect();
            for element in gone {
                match self.map.remove(&key(*name, &element)) {
                    Ok(()) => report.deleted += 1,
                    Err(source) => note(&mut report, source),
                }
                live.remove(&element);
            }
            let missing = wanted.iter().filter(|(element, until)| {
                live.get(*element).is_none_or(|there| there.abs_diff(**until) > 1)
            });
            let missing: Vec<(Element, u64)> = missing.map(|(element, until)| (*element, *until)).collect();
            let entries: Vec<_> =
                missing.iter().map(|(element, until)| (key(*name, element), *until)).collect();
            let (done, result) = batch::put(self.map.map(), &entries);
            report.put += done;
            live.extend(missing.into_iter().take(done));
            if let Err(error) = result {
                note(&mut report, MapError::IoError(error));
            }
        }
        report
    }

    /// Empties sets that are no longer wanted.
    pub(crate) fn delete(&mut self, wanted: &BTreeMap<Name, BTreeMap<IpNet, Option<Timestamp>>>) -> Report {
        let mut report = Report { table: NAME, ..Report::default() };
        let gone: Vec<_> = self.live.extract_if(.., |name, _| !wanted.contains_key(name)).collect();
        for (name, elements) in gone {
            for element in elements.keys() {
                match self.map.remove(&key(name, element)) {
                    Ok(()) => report.deleted += 1,
                    Err(source) => note(&mut report, source),
                }
            }
        }
        report
    }
}

fn note(report: &mut Report, source: MapError) {
    let error = MapFault::Kernel { map: "SETS", source };
    report.failures.extend(failure(NAME, &error).failures);
}

fn key((segment, set): Name, (address, bits): &Element) -> Key<SetKey> {
    Key::new(SET_KEY_BITS + u32::from(*bits), SetKey { segment: segment.0, set, address: *address })
}

/// Elements as the map holds them, with the last tick among the prefixes that cover each.
fn ticks(elements: &BTreeMap<IpNet, Option<Timestamp>>, clock: &Clock) -> BTreeMap<Element, u64> {
    let mut ticks: BTreeMap<Element, u64> = BTreeMap::new();
    // Wider ones come first among those that begin alike, so only those before can cover.
    for (prefix, end) in elements {
        let own = clock.deadline_tick(*end);
        let until = covers(prefix).filter_map(|wider| elements.get(&wider));
        let until = until.map(|end| clock.deadline_tick(*end)).fold(own, u64::max);
        for part in parts(prefix) {
            let there = ticks.entry(bits(&part)).or_default();
            *there = until.max(*there);
        }
    }
    ticks
}

fn covers(prefix: &IpNet) -> impl Iterator<Item = IpNet> + use<> {
    std::iter::successors(prefix.supernet(), IpNet::supernet)
}

/// An IPv6 prefix without the addresses that stand for IPv4 in the map.
fn parts(prefix: &IpNet) -> Vec<IpNet> {
    let IpNet::V6(_) = prefix else { return vec![*prefix] };
    match Ipv6Net::new(mapped([0; 4]).into(), 96) {
        Ok(inside) => prefix::without(prefix, &[IpNet::V6(inside)]),
        Err(_) => vec![*prefix],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wider_element_outlives_a_narrow_one() {
        let clock = Clock::new(1_000, 0, 4_000_000);
        let soon = Timestamp::now().checked_add(jiff::SignedDuration::from_secs(60)).unwrap();
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        let elements = BTreeMap::from([
            (net("10.0.0.0/8"), None),
            (net("10.1.0.0/16"), Some(soon)),
            (net("::/0"), None),
        ]);
        let ticks = ticks(&elements, &clock);
        assert_eq!(ticks[&bits(&net("10.1.0.0/16"))], u64::MAX);
        assert!(!ticks.contains_key(&([0; 16], 0)), "::/0 must not hold IPv4");
        assert!(ticks.keys().filter(|(_, bits)| *bits > 0).count() > 90);
    }
}
