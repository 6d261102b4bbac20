//! Elements of sets in their maps, each with the tick at which it ends.
//!
//! Addresses are in a hash table, wider prefixes in a trie that is asked for what the table does not hold. Each
//! answers with one element only, so an element holds the last end among the prefixes that cover it: when a
//! short-lived one ends, the wider one still counts.

mod ticks;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use aya::Ebpf;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{HashMap, IterableMap as _, MapData};
use hub_common::set::{SET_KEY_BITS, SetKey};

use super::{MapFault, failure, fault, take};
use crate::desired::shared_map::SharedMap;
use crate::kernel::batch;
use crate::kernel::clock::Clock;
use crate::model::SegmentId;
use crate::model::set::Elements;
use crate::reconcile::Report;
use ticks::{Change, Element, HOST_BITS, Ticks};

const NAME: &str = "sets";
const HOSTS: &str = "SET_HOSTS";
const NETS: &str = "SETS";

/// Segment and number of a set.
type Name = (SegmentId, u32);

/// The maps of sets.
pub(crate) struct Sets {
    hosts: HashMap<MapData, SetKey, u64>,
    nets: LpmTrie<MapData, SetKey, u64>,
    live: BTreeMap<Name, Live>,
}

/// What the maps hold of one set.
#[derive(Default)]
struct Live {
    ticks: Ticks,
    /// What that was made of, if it is whole and says the same at any time.
    made_of: Option<Arc<Elements>>,
}

impl Sets {
    /// Takes the maps of an object and reads what an earlier run left.
    pub(crate) fn new(ebpf: &mut Ebpf) -> Result<Self, MapFault> {
        let hosts: HashMap<_, SetKey, u64> = take(ebpf, HOSTS)?;
        let nets: LpmTrie<_, SetKey, u64> = take(ebpf, NETS)?;
        let mut live: BTreeMap<Name, Live> = BTreeMap::new();
        let mut add = |key: &SetKey, bits, until| {
            live.entry((SegmentId(key.segment), key.set))
                .or_default()
                .ticks
                .push(((key.address, bits), until));
        };
        let each = |key: &SetKey, until: &[u64]| {
            add(key, HOST_BITS, until.first().copied().unwrap_or_default());
            ControlFlow::Continue(())
        };
        batch::entries(hosts.map(), each).map_err(fault(HOSTS))?;
        for pair in &nets {
            let (key, until) = pair.map_err(|source| MapFault::Kernel { map: NETS, source })?;
            let bits = u8::try_from(key.prefix_len().saturating_sub(SET_KEY_BITS)).unwrap_or(HOST_BITS);
            add(&key.data(), bits, until);
        }
        for set in live.values_mut() {
            set.ticks.sort_unstable();
        }
        Ok(Self { hosts, nets, live })
    }

    /// Makes the sets that are wanted hold what is wanted; others stay for the policies that still ask them.
    pub(crate) fn put(&mut self, wanted: &SharedMap<Name, Arc<Elements>>, clock: &Clock) -> Report {
        let mut report = Report { table: NAME, ..Report::default() };
        for (name, elements) in wanted {
            let mut live = self.live.remove(name).unwrap_or_default();
            if !live.made_of.as_ref().is_some_and(|made_of| Arc::ptr_eq(made_of, elements)) {
                let failures = report.failures.len();
                let change = Change::between(live.ticks, ticks::of(elements, clock));
                live.ticks = self.apply(*name, change, &mut report);
                let is_whole = report.failures.len() == failures && elements.values().all(Option::is_none);
                live.made_of = is_whole.then(|| Arc::clone(elements));
            }
            self.live.insert(*name, live);
        }
        report
    }

    /// Does what a change asks. Returns what the maps hold of the set then.
    fn apply(&mut self, name: Name, change: Change, report: &mut Report) -> Ticks {
        let Change { mut stays, gone, missing } = change;
        match self.remove(name, &gone) {
            Ok(removed) => report.deleted += removed,
            Err(error) => {
                note(report, &error);
                // It is tried again: what is gone already does not matter.
                stays.extend(gone.into_iter().map(|element| (element, 0)));
            }
        }
        let (hosts, nets): (Ticks, Ticks) =
            missing.into_iter().partition(|((_, bits), _)| *bits == HOST_BITS);
        let host_entries: Vec<(SetKey, u64)> =
            hosts.iter().map(|((address, _), until)| (key(name, *address), *until)).collect();
        let net_entries: Vec<(Key<SetKey>, u64)> =
            nets.iter().map(|(element, until)| (prefix(name, element), *until)).collect();
        let put = [
            (HOSTS, hosts, batch::put(self.hosts.map(), &host_entries)),
            (NETS, nets, batch::put(self.nets.map(), &net_entries)),
        ];
        for (map, ticks, (done, result)) in put {
            report.put += done;
            stays.extend(ticks.into_iter().take(done));
            if let Err(error) = result {
                note(report, &fault(map)(error));
            }
        }
        stays.sort_unstable();
        stays
    }

    fn remove(&self, name: Name, elements: &[Element]) -> Result<usize, MapFault> {
        let (hosts, nets): (Vec<&Element>, Vec<&Element>) =
            elements.iter().partition(|(_, bits)| *bits == HOST_BITS);
        let hosts: Vec<SetKey> = hosts.into_iter().map(|(address, _)| key(name, *address)).collect();
        let nets: Vec<Key<SetKey>> = nets.into_iter().map(|element| prefix(name, element)).collect();
        let hosts = batch::remove(self.hosts.map(), &hosts).map_err(fault(HOSTS))?;
        Ok(hosts + batch::remove(self.nets.map(), &nets).map_err(fault(NETS))?)
    }

    /// Empties sets that are no longer wanted.
    pub(crate) fn delete(&mut self, wanted: &SharedMap<Name, Arc<Elements>>) -> Report {
        let mut report = Report { table: NAME, ..Report::default() };
        let gone: Vec<_> = self.live.extract_if(.., |name, _| !wanted.contains_key(name)).collect();
        for (name, live) in gone {
            let elements: Vec<Element> = live.ticks.iter().map(|(element, _)| *element).collect();
            match self.remove(name, &elements) {
                Ok(removed) => report.deleted += removed,
                Err(error) => {
                    note(&mut report, &error);
                    self.live.insert(name, live);
                }
            }
        }
        report
    }
}

fn note(report: &mut Report, error: &MapFault) {
    report.failures.extend(failure(NAME, error).failures);
}

/// What the kernel said of a map.
fn key((segment, set): Name, address: [u8; 16]) -> SetKey {
    SetKey { segment: segment.0, set, address }
}

fn prefix(name: Name, (address, bits): &Element) -> Key<SetKey> {
    Key::new(SET_KEY_BITS + u32::from(*bits), key(name, *address))
}
