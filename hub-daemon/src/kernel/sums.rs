//! Counters of very many elements, added up over all CPUs by a program instead of copied for each CPU.
//!
//! There is one place for sums, so who reads them waits for the others, across processes too.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use aya::Pod;
use aya::maps::{Array, IterableMap as _, MapData, PerCpuArray};
use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use hub_common::limits;
use hub_common::shared::Zero;
use hub_common::stats::{
    Hits, RuleHits, SUM_COUNTERS, SUM_FLOWS_BEGUN, SUM_RULE_HITS, SUM_WORDS, SegmentCounters, Sum,
};

use super::batch;
use super::maps::{self, from_program};
use super::reader::ReadError;

/// A frame for a program that does not look at it.
const FRAME: [u8; 64] = [0; 64];
/// Offsets of `mark` and `priority` in `struct __sk_buff`, and bytes of that up to behind them.
const MARK_OFFSET: usize = 8;
const PRIORITY_OFFSET: usize = 32;
const CONTEXT_BYTES: usize = 36;
/// CPUs as the kernel lists them.
const POSSIBLE_CPUS: &str = "/sys/devices/system/cpu/possible";

/// Values of a map that the program knows.
pub(crate) trait Summed: Pod + Zero {
    /// What the program calls the map.
    const WHICH: u32;

    fn of(words: [u64; SUM_WORDS]) -> Self;
}

impl Summed for SegmentCounters {
    const WHICH: u32 = SUM_COUNTERS;

    fn of(words: [u64; SUM_WORDS]) -> Self {
        let [ingress, egress, ingress_dropped, egress_dropped] = pairs(words);
        Self { ingress, egress, ingress_dropped, egress_dropped }
    }
}

/// The words two by two.
fn pairs(words: [u64; SUM_WORDS]) -> [Hits; SUM_WORDS / 2] {
    let mut words = words.into_iter();
    let mut next = || words.next().unwrap_or_default();
    [(); SUM_WORDS / 2].map(|()| Hits { packets: next(), bytes: next() })
}

impl Summed for [u64; 3] {
    const WHICH: u32 = SUM_FLOWS_BEGUN;

    fn of([ingress, egress, ended, ..]: [u64; SUM_WORDS]) -> Self {
        [ingress, egress, ended]
    }
}

impl Summed for RuleHits {
    const WHICH: u32 = SUM_RULE_HITS;

    fn of([packets, bytes, would_drop, ..]: [u64; SUM_WORDS]) -> Self {
        Self { judged: Hits { packets, bytes }, would_drop }
    }
}

/// The program that adds, and where it leaves sums.
pub(crate) struct Sums {
    program: SchedClassifier,
    places: Array<MapData, Sum>,
    pins: PathBuf,
    /// Whether the program sees all CPUs: they are not too many, and none is left out in between.
    is_whole: bool,
}

impl Sums {
    pub(crate) fn open(pins: &Path) -> Result<Self, ReadError> {
        let cpus = aya::util::nr_cpus().map_err(|(_, source)| ReadError::Map { map: "SUMS", source })?;
        let listed = std::fs::read_to_string(POSSIBLE_CPUS).unwrap_or_default();
        let has_no_gap = listed.trim() == format!("0-{}", cpus.saturating_sub(1)) || listed.trim() == "0";
        Ok(Self {
            program: maps::program(pins, "hub_sum")?,
            places: maps::array(pins, "SUMS")?,
            pins: pins.to_owned(),
            is_whole: has_no_gap && cpus <= limits::SUM_CPUS as usize,
        })
    }

    /// Calls `each` with `count` elements from index `first` on: with their sum, or the value of each CPU.
    pub(crate) fn range<V: Summed>(
        &self,
        map: &PerCpuArray<MapData, V>,
        first: u32,
        count: u32,
        mut each: impl FnMut(u32, &[V]),
    ) -> io::Result<()> {
        if !self.is_whole {
            return batch::range(map.map(), first, count, each);
        }
        // Held until the sums are read; the file closes with the value.
        let lock = File::open(&self.pins)?;
        lock.lock()?;
        let end = first.saturating_add(count).min(map.len());
        let mut next = first;
        while next < end {
            let place = next % limits::SUMS;
            let length = (end - next).min(limits::SUMS - place);
            self.run(V::WHICH, next, length)?;
            batch::range(self.places.map(), place, length, |at, sums: &[Sum]| {
                if let [sum] = sums {
                    each(next + (at - place), &[V::of(sum.words)]);
                }
            })?;
            next += length;
        }
        Ok(())
    }

    fn run(&self, which: u32, first: u32, count: u32) -> io::Result<()> {
        let mut context = [0; CONTEXT_BYTES];
        for (offset, value) in [(MARK_OFFSET, first), (PRIORITY_OFFSET, which)] {
            for (to, from) in context.iter_mut().skip(offset).zip(value.to_ne_bytes()) {
                *to = from;
            }
        }
        let (data_in, ctx_in) = (Some(&FRAME[..]), Some(&context[..]));
        let options = TestRunOptions { data_in, ctx_in, repeat: count, ..TestRunOptions::default() };
        self.program.test_run(options).map(drop).map_err(from_program)
    }
}
