//! The table against longest prefix match, after every single store.

use std::net::Ipv6Addr;

use hub_common::nets::{NETS_SHORTER, NETS_SITES};
use proptest::prelude::*;

use super::*;

type Prefixes = BTreeMap<Ipv6Net, SegmentId>;

fn longest(prefixes: &Prefixes, address: Ipv6Addr) -> u32 {
    let matching = prefixes.iter().filter(|(net, _)| net.contains(&address));
    matching.max_by_key(|(net, _)| net.prefix_len()).map_or(0, |(_, id)| id.0)
}

/// As the programs look an address up; `None` asks the trie.
fn find(lines: &BTreeMap<u32, NetLine>, address: Ipv6Addr) -> Option<u32> {
    const NOT_KEPT: u32 = u32::MAX;
    let empty = NetLine::ZERO;
    let kept = |key: u64| {
        let line = lines.get(&line(key)).unwrap_or(&empty);
        let held = line.keys.iter().position(|held| *held == key).map(|place| line.segments[place]);
        held.unwrap_or(if line.keys[NETS_PER_LINE - 1] == 0 { NOT_KEPT } else { ASK })
    };
    let network = network(&address.octets());
    if !is_kept(network) {
        return None;
    }
    let header = lines.get(&NET_LINES).unwrap_or(&empty).keys[0];
    let mut found = kept(network);
    if found == NOT_KEPT && header & NETS_SITES != 0 {
        found = kept(site(network));
    }
    match found {
        NOT_KEPT if header & NETS_SHORTER == 0 => Some(0),
        NOT_KEPT | ASK => None,
        segment => Some(segment),
    }
}

/// Prefixes that meet often: few sites, few networks, all lengths.
fn prefixes() -> impl Strategy<Value = Prefixes> {
    let net =
        (0_u128..3, 0_u128..3, 0_u128..3, prop::sample::select(vec![20, 47, 48, 49, 56, 63, 64, 65, 128]));
    let net = net.prop_map(|(site, network, host, bits)| {
        let address = 0xfd00 << 112 | site << 80 | network << 64 | host;
        Ipv6Net::new(Ipv6Addr::from(address), bits).unwrap().trunc()
    });
    prop::collection::btree_map(net, (1_u32..100).prop_map(SegmentId), 0..12)
}

fn probes() -> impl Iterator<Item = Ipv6Addr> {
    let numbers = (0_u128..4).flat_map(|site| (0_u128..4).map(move |network| (site, network)));
    numbers.flat_map(|(site, network)| {
        (0_u128..3).map(move |host| Ipv6Addr::from(0xfd00 << 112 | site << 80 | network << 64 | host))
    })
}

proptest! {
    #[test]
    fn each_store_leaves_every_address_as_before_or_as_after(steps in prop::collection::vec(prefixes(), 1..6)) {
        let mut table = Lines::default();
        let mut kernel: BTreeMap<u32, NetLine> = BTreeMap::new();
        let mut before = Prefixes::new();
        for after in steps {
            let mut wrong = None;
            let stored = table.put(after.iter().map(|(net, id)| (*net, *id)), |index, line| {
                kernel.insert(index, line);
                // The trie has been written already.
                wrong = wrong.or(probes().find(|probe| {
                    let found = find(&kernel, *probe).unwrap_or(longest(&after, *probe));
                    found != longest(&before, *probe) && found != longest(&after, *probe)
                }));
                Ok::<(), ()>(())
            });
            prop_assert_eq!(stored, Ok(()));
            prop_assert_eq!(wrong, None);
            for probe in probes() {
                prop_assert_eq!(find(&kernel, probe).unwrap_or(longest(&after, probe)), longest(&after, probe));
            }
            before = after;
        }
    }
}

/// Networks of one line.
fn crowd(count: usize) -> Vec<Ipv6Net> {
    let nets =
        (1_u128..).map(|number| Ipv6Net::new(Ipv6Addr::from(0xfd00 << 112 | number << 64), 64).unwrap());
    let wanted = line(network(&nets.clone().next().unwrap().network().octets()));
    nets.filter(|net| line(network(&net.network().octets())) == wanted).take(count).collect()
}

#[test]
fn what_a_full_line_cannot_hold_asks_the_trie_until_there_is_room() {
    let nets = crowd(7);
    let mut kernel: BTreeMap<u32, NetLine> = BTreeMap::new();
    let mut table = Lines::default();
    let mut put = |range: std::ops::Range<usize>, kernel: &mut BTreeMap<u32, NetLine>| {
        let prefixes = nets[range].iter().map(|net| (*net, SegmentId(7)));
        table
            .put(prefixes, |index, line| {
                kernel.insert(index, line);
                Ok::<_, ()>(())
            })
            .unwrap();
        nets.iter().map(|net| find(kernel, net.network())).collect::<Vec<_>>()
    };
    let found = put(0..7, &mut kernel);
    assert_eq!(found.iter().filter(|found| **found == Some(7)).count(), 5);
    assert_eq!(found.iter().filter(|found| found.is_none()).count(), 2);
    let found = put(3..7, &mut kernel);
    assert!(found.iter().take(3).all(|found| found.is_none_or(|segment| segment == 0)), "{found:?}");
    assert!(found.iter().skip(3).all(|found| *found == Some(7)), "{found:?}");
    assert!(put(0..0, &mut kernel).iter().all(|found| *found == Some(0)));
}

#[test]
fn a_network_and_its_site_are_two_entries() {
    let prefix = |text: &str, id| (text.parse().unwrap(), SegmentId(id));
    let nets = [prefix("fd00::/48", 1), prefix("fd00::/64", 2), prefix("fd00:0:1::/48", 3)];
    let (entries, flags) = entries(nets.into_iter());
    assert_eq!(flags, NETS_SITES);
    assert_eq!(entries.values().copied().collect::<BTreeSet<_>>(), BTreeSet::from([1, 2, 3]));
}
