//! Copies in the kernel, and what changes meanwhile.

use super::*;
use crate::kernel::may_make_maps;
use aya::maps::{Array, HashMap, IterableMap as _, PerCpuArray, PerCpuHashMap, PerCpuValues};

/// A connection: its last tick and something else.
type Connection = [u64; 2];
type Connections = HashMap<MapData, u32, Connection>;

fn connections(room: u32, held: impl IntoIterator<Item = (u32, Connection)>) -> Connections {
    let mut map = Connections::create(room, 0).unwrap();
    held.into_iter().for_each(|(key, value)| map.insert(key, value, 0).unwrap());
    map
}

fn held(map: &Connections) -> BTreeMap<u32, Connection> {
    map.iter().map(Result::unwrap).collect()
}

#[test]
fn connections_with_the_last_packets_find_room_first() {
    if !may_make_maps() {
        return;
    }
    let old = connections(4_000, (0..3_000).map(|key| (key, [u64::from(key % 1_000), 7])));
    for (room, expected) in [(5_000, 3_000), (3_000, 3_000), (1_500, 1_500), (1, 1)] {
        let (new, mut noted) = (connections(room, []), Noted::default());
        let left_out = all(Kind::Flows, old.map(), new.map(), &mut noted).unwrap();
        let copied = held(&new);
        assert_eq!((copied.len(), left_out), (expected, 3_000 - expected as u64), "room for {room}");
        let least = copied.values().map(|[tick, _]| *tick).min().unwrap();
        let newer = (0..3_000_u64).filter(|key| key % 1_000 > least).count();
        assert!(copied.len() >= newer && copied.values().all(|[_, rest]| *rest == 7), "room for {room}");
        assert_eq!(copied.values().filter(|[tick, _]| *tick > least).count(), newer, "room for {room}");
    }
}

#[test]
fn connections_of_the_time_between_are_put_where_nothing_later_is() {
    if !may_make_maps() {
        return;
    }
    let mut old = connections(16, [(1, [10, 0]), (2, [20, 0]), (3, [30, 0]), (4, [29, 0])]);
    let (mut new, mut noted) = (connections(16, []), Noted::default());
    assert_eq!(all(Kind::Flows, old.map(), new.map(), &mut noted).unwrap(), 0);
    assert_eq!(held(&new), held(&old));
    // One comes, one goes on here, one goes on there, one ends there, one is open by now.
    old.insert(5, [31, 1], 0).unwrap();
    old.insert(1, [32, 1], 0).unwrap();
    old.insert(3, [31, 1], 0).unwrap();
    new.insert(3, [33, 2], 0).unwrap();
    new.remove(&2).unwrap();
    old.insert(6, [33, 1], 0).unwrap();
    let open = connections(16, [(6, [34, 2])]);
    since(Kind::Flows, old.map(), new.map(), Some(open.map()), &mut noted).unwrap();
    let expected = [(1, [32, 1]), (3, [33, 2]), (4, [29, 0]), (5, [31, 1])];
    assert_eq!(held(&new), expected.into());
    // What came after the last look but one is looked at, and what was before is not.
    new.remove(&4).unwrap();
    old.insert(7, [40, 1], 0).unwrap();
    for _ in 0..2 {
        since(Kind::Flows, old.map(), new.map(), Some(open.map()), &mut noted).unwrap();
    }
    assert_eq!(held(&new).keys().copied().collect::<Vec<_>>(), [1, 3, 5, 7]);
    // A daemon that follows one that died knows nothing of what was copied.
    since(Kind::Flows, old.map(), new.map(), Some(open.map()), &mut Noted::default()).unwrap();
    assert_eq!(held(&new).keys().copied().collect::<Vec<_>>(), [1, 2, 3, 4, 5, 7]);
}

#[test]
fn notes_that_went_do_not_come_back() {
    if !may_make_maps() {
        return;
    }
    let mut old = connections(16, [(1, [1, 1]), (2, [2, 2])]);
    let (mut new, mut noted) = (connections(16, []), Noted::default());
    all(Kind::State, old.map(), new.map(), &mut noted).unwrap();
    new.remove(&1).unwrap();
    old.insert(2, [3, 3], 0).unwrap();
    old.insert(4, [4, 4], 0).unwrap();
    for _ in 0..2 {
        since(Kind::State, old.map(), new.map(), None, &mut noted).unwrap();
        assert_eq!(held(&new), [(2, [3, 3]), (4, [4, 4])].into());
    }
    new.insert(4, [5, 5], 0).unwrap();
    since(Kind::State, old.map(), new.map(), None, &mut Noted::default()).unwrap();
    assert_eq!(held(&new), [(1, [1, 1]), (2, [3, 3]), (4, [5, 5])].into(), "what the new one has, it keeps");
}

#[test]
fn counts_are_sums_of_both() {
    if !may_make_maps() {
        return;
    }
    let cpus = aya::util::nr_cpus().unwrap();
    let each = |value: Connection| PerCpuValues::try_from(vec![value; cpus]).unwrap();
    let sum = |values: &PerCpuValues<Connection>| {
        values.iter().fold([0; 2], |[a, b], value| [a + value[0], b + value[1]])
    };
    let many = cpus as u64;
    for words in [1, 2] {
        let mut old = PerCpuArray::<_, Connection>::create(100, 0).unwrap();
        let mut new = PerCpuArray::<_, Connection>::create(50, 0).unwrap();
        for index in [1, 49, 50] {
            old.set(index, each([3, 5]), 0).unwrap();
        }
        let mut noted = Noted::default();
        assert_eq!(all(Kind::Counts(words), old.map(), new.map(), &mut noted).unwrap(), 1);
        assert_eq!(sum(&new.get(&49, 0).unwrap()), [3 * many, 5 * many]);
        new.set(1, each([10, 10]), 0).unwrap();
        old.set(1, each([4, 7]), 0).unwrap();
        for _ in 0..2 {
            since(Kind::Counts(words), old.map(), new.map(), None, &mut noted).unwrap();
            let second = if words == 1 { 10 } else { 12 };
            assert_eq!(sum(&new.get(&1, 0).unwrap()), [11 * many, second * many]);
            assert_eq!(sum(&new.get(&49, 0).unwrap()), [3 * many, 5 * many]);
        }
    }
    let mut old = PerCpuHashMap::<_, u32, Connection>::create(10, 0).unwrap();
    let new = PerCpuHashMap::<_, u32, Connection>::create(10, 0).unwrap();
    let mut noted = Noted::default();
    // Of a daemon that died it is not known what was added already.
    old.insert(1, each([1, 1]), 0).unwrap();
    since(Kind::Counts(2), old.map(), new.map(), None, &mut noted).unwrap();
    assert!(new.get(&1, 0).is_err());
    old.insert(2, each([2, 2]), 0).unwrap();
    since(Kind::Counts(2), old.map(), new.map(), None, &mut noted).unwrap();
    assert!(new.get(&1, 0).is_err());
    assert_eq!(sum(&new.get(&2, 0).unwrap()), [2 * many, 2 * many]);
}

#[test]
fn arrays_are_copied_by_index_and_full_tables_say_so() {
    if !may_make_maps() {
        return;
    }
    for flags in [0, 1 << 10] {
        let mut old = Array::<_, [u64; 3]>::create(5_000, flags).unwrap();
        (0..5_000)
            .filter(|index| index % 3 == 0)
            .for_each(|index| old.set(index, [index.into(); 3], 0).unwrap());
        for room in [5_000, 7_000, 2_000] {
            let new = Array::<_, [u64; 3]>::create(room, flags).unwrap();
            let left_out = all(Kind::Policy, old.map(), new.map(), &mut Noted::default()).unwrap();
            assert_eq!(left_out, if room == 2_000 { 1_000 } else { 0 });
            for index in 0..room {
                let is_held = index % 3 == 0 && index < 5_000;
                let expected = [if is_held { index.into() } else { 0 }; 3];
                assert_eq!(new.get(&index, 0).unwrap(), expected, "{index} of {room}, flags {flags}");
            }
        }
    }
    let old = connections(2_000, (0..1_800).map(|key| (key, [1, 1])));
    let new = connections(1_000, []);
    assert_eq!(all(Kind::State, old.map(), new.map(), &mut Noted::default()).unwrap(), 800);
    assert_eq!(held(&new).len(), 1_000);
}
