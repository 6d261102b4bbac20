//! Batches against the kernel, and against the slow way through the same maps.

use super::*;
use crate::kernel::may_make_maps;
use aya::maps::{Array, HashMap, IterableMap as _, PerCpuHashMap, PerCpuValues};
use std::collections::BTreeMap;

fn read(map: &MapData) -> [BTreeMap<u32, u64>; 2] {
    let mut found = [BTreeMap::new(), BTreeMap::new()];
    let [batched, single] = &mut found;
    let each = |to: &mut BTreeMap<u32, u64>, key: &u32, values: &[u64]| {
        assert_eq!(to.insert(*key, values.iter().sum()), None, "{key} is seen once");
        ControlFlow::Continue(())
    };
    entries(map, |key: &u32, values: &[u64]| each(batched, key, values)).unwrap();
    let form = Form { key: 1, value: width::<u32, u64>(map).unwrap() };
    one_by_one(map, form, &[], usize::MAX, &mut |keys: &[u32], values: &[u64]| {
        each(single, &keys[0], values)
    })
    .unwrap();
    found
}

#[test]
fn every_entry_is_seen_once_and_goes_once() {
    if !may_make_maps() {
        return;
    }
    let mut map = HashMap::<_, u32, u64>::create(10_000, 0).unwrap();
    (0..5_000u32).for_each(|key| map.insert(key, u64::from(key) + 7, 0).unwrap());
    let expected: BTreeMap<u32, u64> = (0..5_000).map(|key| (key, u64::from(key) + 7)).collect();
    assert_eq!(read(map.map()), [expected.clone(), expected]);
    let keys: Vec<u32> = (0..3_000).map(|key| key * 2).collect();
    assert_eq!(remove(map.map(), &keys).unwrap(), 2_500, "500 were never there");
    assert_eq!(remove_one_by_one(map.map(), &[0, 1, 3]).unwrap(), 2);
    assert_eq!(read(map.map()).map(|found| found.len()), [2_498; 2]);
}

#[test]
fn values_of_all_cpus_come_together() {
    if !may_make_maps() {
        return;
    }
    let mut map = PerCpuHashMap::<_, u32, u64>::create(100, 0).unwrap();
    let cpus = aya::util::nr_cpus().unwrap();
    (0..50u32).for_each(|key| map.insert(key, PerCpuValues::try_from(vec![3; cpus]).unwrap(), 0).unwrap());
    let expected: BTreeMap<u32, u64> = (0..50).map(|key| (key, 3 * cpus as u64)).collect();
    assert_eq!(read(map.map()), [expected.clone(), expected]);
}

#[test]
fn ranges_end_with_the_array() {
    if !may_make_maps() {
        return;
    }
    for flags in [0, BPF_F_MMAPABLE] {
        let mut map = Array::<_, [u64; 5]>::create(3_000, flags).unwrap();
        (0..3_000).for_each(|index| map.set(index, [u64::from(index); 5], 0).unwrap());
        for (first, count, expected) in [
            (0, 3_000, 0..3_000),
            (0, 2, 0..2),
            (5, 2_000, 5..2_005),
            (2_999, 10, 2_999..3_000),
            (3_000, 1, 0..0),
            (9_000, 1, 0..0),
            (7, 0, 0..0),
        ] {
            let mut found = Vec::new();
            range(map.map(), first, count, |index, values: &[[u64; 5]]| {
                assert_eq!(values, [[u64::from(index); 5]]);
                found.push(index);
            })
            .unwrap();
            assert_eq!(found, expected.collect::<Vec<u32>>(), "{count} from {first}, flags {flags}");
        }
        let error = range(map.map(), 0, 1, |_, _: &[u64]| ()).unwrap_err();
        assert!(error.to_string().contains("the value has 40 bytes, not 8"), "{error}");
    }
}

#[test]
fn maps_of_other_sizes_are_refused() {
    if may_make_maps() {
        let map = HashMap::<_, u64, u64>::create(8, 0).unwrap();
        let error = entries(map.map(), |_: &u32, _: &[u64]| ControlFlow::Continue(())).unwrap_err();
        assert!(error.to_string().contains("the key has 8 bytes, not 4"), "{error}");
    }
}

#[test]
fn elements_that_are_stored_are_there_and_no_others() {
    if !may_make_maps() {
        return;
    }
    for flags in [0, BPF_F_MMAPABLE] {
        let map = Array::<_, [u64; 5]>::create(3_000, flags).unwrap();
        let store = Store::open(map.map());
        let values: Vec<[u64; 5]> = (0..200).map(|index| [index; 5]).collect();
        store.set(map.map(), 1_700, &values).unwrap();
        store.set(map.map(), 2_999, &[[7, 8, 9, 10, 11]]).unwrap();
        let mut sum = [0; 5];
        for index in 0..3_000_u32 {
            let found: [u64; 5] = map.get(&index, 0).unwrap();
            let stored =
                index.checked_sub(1_700).filter(|index| *index < 200).map_or([0; 5], |i| [i.into(); 5]);
            assert_eq!(found, if index == 2_999 { [7, 8, 9, 10, 11] } else { stored }, "flags {flags}");
            sum.iter_mut().zip(found).for_each(|(sum, word)| *sum += word);
        }
        assert_eq!(sum[0], 199 * 100 + 7);
        assert!(store.set(map.map(), 2_999, &values[..2]).is_err(), "behind the end");
        // Of another size: the kernel's word for it.
        assert!(Store::<[u64; 4]>::open(map.map()).set(map.map(), 0, &[[1; 4]]).is_err());
    }
}

#[test]
fn stores_take_less_time_than_calls() {
    if !may_make_maps() {
        return;
    }
    let values: Vec<[u64; 8]> = (0..80_000).map(|index| [index; 8]).collect();
    let times = [0, BPF_F_MMAPABLE].map(|flags| {
        let map = Array::<_, [u64; 8]>::create(100_000, flags).unwrap();
        let store = Store::open(map.map());
        let write = || {
            let begun = clock_ns();
            for (first, values) in (0..).step_by(8).zip(values.chunks(8)) {
                store.set(map.map(), first, values).unwrap();
            }
            clock_ns() - begun
        };
        (0..5).map(|_| write()).min().unwrap()
    });
    assert!(times[1] < times[0], "ns by calls and by stores: {times:?}");
}

/// CPU time of the thread in nanoseconds: others work on the machine, too.
fn clock_ns() -> i64 {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap();
    time.tv_sec() * 1_000_000_000 + time.tv_nsec()
}
