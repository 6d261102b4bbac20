//! The tables that tell the programs what to do, byte for byte.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use aya::Pod;
use aya::maps::{LpmTrie, MapData};
use hub_common::address::Address;
use hub_common::nets::NetLine;
use hub_common::rule::Rule;
use hub_common::segment::{Failsafe, Peer, Policy, Port, Segment, Settings};
use hub_common::shared::Zero;
use hub_daemon::kernel::batch;

/// Entries that are not zero, by table and key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dump(BTreeMap<(&'static str, Vec<u8>), Vec<u8>>);

impl Dump {
    /// Reads what the hub that keeps its pins in this BPF file system has told its programs. Left out are
    /// what packets write, and the number that says that routes of the kernel have changed.
    pub fn of(bpffs: &Path) -> Self {
        let mut dump = Self::default();
        let pins = bpffs.join("hub/v1");
        let open =
            |name: &str| MapData::from_pin(pins.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        dump.take::<u32, Settings>("SETTINGS", &open("SETTINGS"), |settings| Settings {
            route_generation: 0,
            ..settings
        });
        dump.take::<u32, Port>("PORTS", &open("PORTS"), |port| port);
        dump.take::<u32, Segment>("SEGMENTS", &open("SEGMENTS"), |segment| segment);
        dump.take::<u32, Policy>("POLICIES", &open("POLICIES"), |policy| policy);
        dump.take::<u32, Rule>("RULES", &open("RULES"), |rule| rule);
        dump.take::<u32, u32>("V4_ROOT", &open("V4_ROOT"), |entry| entry);
        dump.take::<u32, NetLine>("NETS", &open("NETS"), |line| line);
        dump.take::<Address, u32>("LOCALS", &open("LOCALS"), |entry| entry);
        dump.take::<Failsafe, u32>("FAILSAFE", &open("FAILSAFE"), |entry| entry);
        dump.take::<Peer, u32>("PEERS", &open("PEERS"), |entry| entry);
        let trie: LpmTrie<_, Address, u32> =
            LpmTrie::try_from(aya::maps::Map::LpmTrie(open("V6_PREFIXES"))).unwrap();
        for entry in &trie {
            let (key, value) = entry.unwrap();
            let mut bytes = key.prefix_len().to_ne_bytes().to_vec();
            bytes.extend(key.data());
            dump.0.insert(("V6_PREFIXES", bytes), value.to_ne_bytes().to_vec());
        }
        dump
    }

    fn take<K: Pod + Zero, V: Pod + Zero>(&mut self, name: &'static str, map: &MapData, mask: fn(V) -> V) {
        let zero = bytes(&V::ZERO);
        batch::entries::<K, V>(map, |key, values| {
            let value = bytes(&mask(values[0]));
            if value != zero {
                self.0.insert((name, bytes(key)), value);
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the tables hold nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Tables and keys that differ.
    pub fn differences(&self, other: &Self) -> Vec<(&'static str, Vec<u8>)> {
        let keys = self.0.keys().chain(other.0.keys());
        let mut differ: Vec<_> = keys.filter(|key| self.0.get(*key) != other.0.get(*key)).cloned().collect();
        differ.dedup();
        differ
    }
}

#[expect(unsafe_code, reason = "the bytes of a value as the kernel sees them")]
fn bytes<T: Pod>(value: &T) -> Vec<u8> {
    // SAFETY: a `Pod` has no padding and may be read as bytes.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast(), size_of::<T>()) }.to_vec()
}
