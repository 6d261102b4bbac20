//! A map of which copies share what they have in common.
//!
//! Entries are in order, in leaves of some dozens. A copy points at the same leaves, a change copies the leaf that
//! it is in, and two maps that came from one are compared by the leaves that differ. So a table of very many
//! entries is kept, passed on and compared with its predecessor for what a change costs.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Index;
use std::sync::Arc;

/// Most entries of a leaf; a longer one becomes two.
const LEAF: usize = 128;

type Leaf<K, V> = Arc<Vec<(K, V)>>;

/// An ordered map, cheap to copy and to compare with its copies.
pub struct SharedMap<K, V> {
    /// None is empty; keys ascend within and from one to the next.
    leaves: Vec<Leaf<K, V>>,
    length: usize,
}

/// One entry that differs between two maps: its key, what the first has, what the second has.
pub type Change<'a, K, V> = (&'a K, Option<&'a V>, Option<&'a V>);

impl<K, V> SharedMap<K, V> {
    /// A map without entries.
    pub const fn new() -> Self {
        Self { leaves: Vec::new(), length: 0 }
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// All entries, in order of keys.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> + Clone {
        self.leaves.iter().flat_map(|leaf| leaf.iter()).map(|(key, value)| (key, value))
    }

    /// All keys, in order.
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &K> + Clone {
        self.iter().map(|(key, _)| key)
    }

    /// All values, in order of keys.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = &V> + Clone {
        self.iter().map(|(_, value)| value)
    }
}

impl<K: Ord, V> SharedMap<K, V> {
    /// The value of a key.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let leaf = self.leaves.get(self.leaf_of(key)?)?;
        let place = leaf.binary_search_by(|(held, _)| held.borrow().cmp(key)).ok()?;
        leaf.get(place).map(|(_, value)| value)
    }

    /// Whether there is a value of this key.
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).is_some()
    }

    /// The entries from a key on, in order.
    pub fn range_from(&self, first: &K) -> impl Iterator<Item = (&K, &V)> {
        let leaf = self.leaf_of::<K>(first).unwrap_or_default();
        let entries = self.leaves.iter().skip(leaf).flat_map(|leaf| leaf.iter());
        entries.map(|(key, value)| (key, value)).skip_while(move |(key, _)| *key < first)
    }

    /// The leaf that a key is in, if it is anywhere.
    fn leaf_of<Q: Ord + ?Sized>(&self, key: &Q) -> Option<usize>
    where
        K: Borrow<Q>,
    {
        let begins_before = |leaf: &Leaf<K, V>| leaf.first().is_some_and(|(first, _)| first.borrow() <= key);
        self.leaves.partition_point(begins_before).checked_sub(1)
    }
}

impl<K: Ord + Clone, V: Clone> SharedMap<K, V> {
    /// The value of a key, to change it.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let index = self.leaf_of(key)?;
        let leaf = self.leaves.get_mut(index)?;
        let place = leaf.binary_search_by(|(held, _)| held.borrow().cmp(key)).ok()?;
        Arc::make_mut(leaf).get_mut(place).map(|(_, value)| value)
    }

    /// Puts a value; returns the one before.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let index = self.leaf_of::<K>(&key).unwrap_or_default();
        let last = index + 1 >= self.leaves.len();
        let Some(leaf) = self.leaves.get_mut(index) else {
            self.leaves.push(Arc::new(vec![(key, value)]));
            self.length = 1;
            return None;
        };
        let place = match leaf.binary_search_by(|(held, _)| held.cmp(&key)) {
            Ok(place) => {
                let held = Arc::make_mut(leaf).get_mut(place);
                return held.map(|(_, held)| std::mem::replace(held, value));
            }
            Err(place) => place,
        };
        self.length += 1;
        if leaf.len() < LEAF {
            Arc::make_mut(leaf).insert(place, (key, value));
        } else if last && place == leaf.len() {
            // Keys that come in order fill their leaves.
            self.leaves.push(Arc::new(vec![(key, value)]));
        } else {
            let leaf = Arc::make_mut(leaf);
            let mut upper = leaf.split_off(LEAF / 2);
            match place.checked_sub(LEAF / 2) {
                Some(place) => upper.insert(place, (key, value)),
                None => leaf.insert(place, (key, value)),
            }
            self.leaves.insert(index + 1, Arc::new(upper));
        }
        None
    }

    /// Removes a key; returns its value.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let index = self.leaf_of(key)?;
        let leaf = self.leaves.get_mut(index)?;
        let place = leaf.binary_search_by(|(held, _)| held.borrow().cmp(key)).ok()?;
        let leaf = Arc::make_mut(leaf);
        let (_, value) = leaf.remove(place);
        self.length -= 1;
        let left = leaf.len();
        if left == 0 {
            self.leaves.remove(index);
        } else if self.leaves.get(index + 1).is_some_and(|next| left + next.len() <= LEAF / 2) {
            let next = self.leaves.remove(index + 1);
            if let Some(leaf) = self.leaves.get_mut(index) {
                Arc::make_mut(leaf).extend(Arc::unwrap_or_clone(next));
            }
        }
        Some(value)
    }
}

impl<K: Ord, V: PartialEq> SharedMap<K, V> {
    /// What is different in another map, in order of keys. Leaves that both have are not looked at.
    pub fn changes<'a>(&'a self, to: &'a Self) -> impl Iterator<Item = Change<'a, K, V>> {
        let (mut old, mut new) = (self.apart_from(to).peekable(), to.apart_from(self).peekable());
        std::iter::from_fn(move || {
            loop {
                let order = match (old.peek(), new.peek()) {
                    (None, None) => return None,
                    (Some((old, _)), Some((new, _))) => old.cmp(new),
                    (Some(_), None) => std::cmp::Ordering::Less,
                    (None, Some(_)) => std::cmp::Ordering::Greater,
                };
                let before = if order.is_le() { old.next() } else { None };
                let after = if order.is_ge() { new.next() } else { None };
                let (key, _) = before.or(after)?;
                let (before, after) = (before.map(|(_, value)| value), after.map(|(_, value)| value));
                if before != after {
                    return Some((key, before, after));
                }
            }
        })
    }

    /// Entries of the leaves that another map does not have.
    fn apart_from<'a>(&'a self, other: &Self) -> impl Iterator<Item = (&'a K, &'a V)> {
        let theirs: BTreeSet<*const Vec<(K, V)>> = other.leaves.iter().map(Arc::as_ptr).collect();
        let own = self.leaves.iter().filter(move |leaf| !theirs.contains(&Arc::as_ptr(leaf)));
        own.flat_map(|leaf| leaf.iter()).map(|(key, value)| (key, value))
    }
}

impl<K, V> Default for SharedMap<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K, V> Clone for SharedMap<K, V> {
    fn clone(&self) -> Self {
        Self { leaves: self.leaves.clone(), length: self.length }
    }
}

impl<K: Ord, V: PartialEq> PartialEq for SharedMap<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.length == other.length && self.changes(other).next().is_none()
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for SharedMap<K, V> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_map().entries(self.iter()).finish()
    }
}

impl<K: Ord + Borrow<Q>, Q: Ord + ?Sized, V> Index<&Q> for SharedMap<K, V> {
    type Output = V;

    fn index(&self, key: &Q) -> &V {
        self.get(key).expect("the key is in the map, as for any map that is indexed")
    }
}

impl<K: Ord + Clone, V: Clone> Extend<(K, V)> for SharedMap<K, V> {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, entries: I) {
        for (key, value) in entries {
            self.insert(key, value);
        }
    }
}

impl<K: Ord + Clone, V: Clone> FromIterator<(K, V)> for SharedMap<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        entries.into_iter().collect::<BTreeMap<K, V>>().into()
    }
}

impl<K: Ord + Clone, V: Clone> From<BTreeMap<K, V>> for SharedMap<K, V> {
    fn from(entries: BTreeMap<K, V>) -> Self {
        let mut map = Self::new();
        map.extend(entries);
        map
    }
}

impl<K: Ord + Clone, V: Clone, const N: usize> From<[(K, V); N]> for SharedMap<K, V> {
    fn from(entries: [(K, V); N]) -> Self {
        entries.into_iter().collect()
    }
}

impl<K: Ord + Clone, V: Clone> IntoIterator for SharedMap<K, V> {
    type Item = (K, V);
    type IntoIter =
        std::iter::FlatMap<std::vec::IntoIter<Leaf<K, V>>, Vec<(K, V)>, fn(Leaf<K, V>) -> Vec<(K, V)>>;

    fn into_iter(self) -> Self::IntoIter {
        self.leaves.into_iter().flat_map(Arc::unwrap_or_clone)
    }
}

impl<'a, K, V> IntoIterator for &'a SharedMap<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Box<dyn Iterator<Item = (&'a K, &'a V)> + 'a>;

    fn into_iter(self) -> Self::IntoIter {
        Box::new(self.iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Steps = Vec<(u16, Option<u8>)>;

    fn steps(most: usize) -> impl Strategy<Value = Steps> {
        prop::collection::vec((0_u16..600, prop::option::weighted(0.6, any::<u8>())), 0..most)
    }

    fn walk(map: &mut SharedMap<u16, u8>, model: &mut BTreeMap<u16, u8>, steps: &Steps) {
        for (key, value) in steps {
            match value {
                Some(value) => assert_eq!(map.insert(*key, *value), model.insert(*key, *value)),
                None => assert_eq!(map.remove(key), model.remove(key)),
            }
        }
    }

    proptest! {
        #[test]
        fn it_is_a_map_and_changes_are_what_differs(first in steps(2_000), then in steps(40), from in 0_u16..600) {
            let (mut map, mut model) = (SharedMap::new(), BTreeMap::new());
            walk(&mut map, &mut model, &first);
            let (old, old_model) = (map.clone(), model.clone());
            walk(&mut map, &mut model, &then);
            for (map, model) in [(&map, &model), (&old, &old_model)] {
                prop_assert!(map.iter().eq(model.iter()) && map.len() == model.len());
                prop_assert!(map.range_from(&from).eq(model.range(from..)));
                prop_assert!((0..600).all(|key| map.get(&key) == model.get(&key)));
                prop_assert!(map.leaves.iter().all(|leaf| !leaf.is_empty() && leaf.len() <= LEAF));
            }
            let keys: BTreeSet<&u16> = model.keys().chain(old_model.keys()).collect();
            let differ = keys.into_iter().map(|key| (key, old_model.get(key), model.get(key)));
            let differ: Vec<_> = differ.filter(|(_, old, new)| old != new).collect();
            prop_assert_eq!(old.changes(&map).collect::<Vec<_>>(), differ);
            prop_assert_eq!(old == map, old_model == model);
            prop_assert_eq!(&model.clone().into_iter().collect::<SharedMap<_, _>>(), &map);
            prop_assert!(map.into_iter().eq(model));
        }
    }

    #[test]
    fn a_change_leaves_the_rest_shared() {
        let map: SharedMap<u32, u32> = (0..10_000).map(|key| (key, key)).collect();
        let mut changed = map.clone();
        changed.insert(5_000, 0);
        assert_eq!(map.apart_from(&changed).count(), LEAF);
        assert_eq!(map.changes(&changed).collect::<Vec<_>>(), [(&5_000, Some(&5_000), Some(&0))]);
        assert_eq!(map.leaves.len(), 10_000_usize.div_ceil(LEAF), "keys in order fill their leaves");
    }
}
