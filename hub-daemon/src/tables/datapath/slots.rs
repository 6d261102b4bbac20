//! Runs of free slots in an array map, first fit.

use std::collections::BTreeMap;

/// Free runs of an array: start to length. Neighbours are merged.
#[derive(Debug)]
pub(crate) struct Slots {
    free: BTreeMap<u32, u32>,
    capacity: u32,
}

impl Slots {
    /// Slots `first..capacity`, all free.
    pub(crate) fn new(first: u32, capacity: u32) -> Self {
        let length = capacity.saturating_sub(first);
        let free = if length == 0 { BTreeMap::new() } else { BTreeMap::from([(first, length)]) };
        Self { free, capacity }
    }

    /// Number of slots there are in the array.
    pub(crate) fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Takes `length` slots in a row; an empty run begins at 0.
    pub(crate) fn take(&mut self, length: u32) -> Option<u32> {
        if length == 0 {
            return Some(0);
        }
        let (start, room) = self.free.iter().find(|(_, room)| **room >= length).map(|(s, r)| (*s, *r))?;
        self.free.remove(&start);
        if room > length {
            self.free.insert(start + length, room - length);
        }
        Some(start)
    }

    /// Takes exactly the slots from `start` on; false where one of them is not free.
    pub(crate) fn claim(&mut self, start: u32, length: u32) -> bool {
        if length == 0 {
            return true;
        }
        let Some((run, room)) = self.free.range(..=start).next_back().map(|(s, r)| (*s, *r)) else {
            return false;
        };
        let Some(end) = start.checked_add(length).filter(|end| *end <= run + room) else { return false };
        self.free.remove(&run);
        if start > run {
            self.free.insert(run, start - run);
        }
        if run + room > end {
            self.free.insert(end, run + room - end);
        }
        true
    }

    /// Gives slots back.
    pub(crate) fn give(&mut self, start: u32, length: u32) {
        if length == 0 {
            return;
        }
        let (mut start, mut length) = (start, length);
        if let Some((before, room)) = self.free.range(..start).next_back().map(|(s, r)| (*s, *r))
            && before + room == start
        {
            self.free.remove(&before);
            start = before;
            length += room;
        }
        if let Some(room) = self.free.remove(&(start + length)) {
            length += room;
        }
        self.free.insert(start, length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_back_can_be_taken_whole() {
        let mut slots = Slots::new(1, 11);
        let runs: Vec<u32> = (0..5).map(|_| slots.take(2).unwrap()).collect();
        assert_eq!(runs, [1, 3, 5, 7, 9]);
        assert_eq!(slots.take(1), None);
        for run in [3, 9, 1, 7, 5] {
            slots.give(run, 2);
        }
        assert_eq!(slots.take(10), Some(1));
    }

    #[test]
    fn claimed_slots_are_not_given_out() {
        let mut slots = Slots::new(0, 10);
        assert!(slots.claim(4, 2));
        assert!(!slots.claim(5, 1) && !slots.claim(9, 2));
        assert_eq!(slots.take(5), None);
        assert_eq!((slots.take(4), slots.take(4)), (Some(0), Some(6)));
    }
}
