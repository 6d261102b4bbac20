//! A system call fails, or the daemon dies at it, in the middle of a life, of an end, and of a start: the data path
//! goes on, and what comes back is what was before or what was asked for, whole.
//!
//! A life is a persona made, changed and deleted; an end is one that comes to its deadline; a start is that of a
//! daemon which takes over the pins, maps and programs of the one before it, as in an upgrade; a resize is a start
//! whose maps have another size, so that they are made anew beside the programs that run, with what they held. With many personas
//! a change is a line of the journal, whose calls have cases of their own; so have lives of a persona that has
//! everything. Each case names
//! one system call, what befalls it, and which of the calls of each thread is meant.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that cannot go on fails the test that called it"
)]

mod calls;
mod phases;
mod rich;
mod strike;
mod switch;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};

use hub_tests::effort::{Effort, Part, figure, is_long};
use hub_tests::lab::Stopwatch;
use hub_tests::root;

use calls::{KINDS, Places};
use phases::Site;
use strike::Fault;

/// Calls by which the hub speaks with the kernel, in everyday runs.
const KERNEL: [&str; 4] = ["bpf", "sendto", "recvfrom", "membarrier"];
/// Calls by which it keeps its state, in everyday runs.
const DISK: [&str; 6] = ["openat", "write", "fsync", "rename", "linkat", "unlink"];
/// What befalls a call, in everyday runs.
const FAULTS: [&str; 6] =
    ["signal=KILL", "error=ENOMEM", "error=EPERM", "error=EINTR", "error=ENOSPC", "error=EIO"];
/// Which of the calls to the kernel, in everyday runs; long ones take every one that there is.
const AT: [u64; 3] = [2, 9, 31];
/// After so many faults a lab says how far it is.
const TELL: u64 = 50;
/// Labs of a long run, which work beside each other: most of the time of a fault is waiting.
const LABS: usize = 4;

/// What goes on meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Life,
    End,
    Start,
    Resize,
    /// A life beside so many that changes are lines of the journal.
    Journal,
    /// A life of a persona that has everything.
    Rich,
}

const PHASES: [What; 4] = [What::Life, What::End, What::Start, What::Resize];

/// Faults at the journal, in everyday runs: each change of a life is a line of it, a start begins it anew.
const AT_JOURNAL: [(What, &str, &str, u64); 6] = [
    (What::Journal, "write", "signal=KILL", 2),
    (What::Journal, "fdatasync", "signal=KILL", 1),
    (What::Journal, "fdatasync", "error=EIO", 2),
    (What::Journal, "write", "error=ENOSPC", 3),
    (What::Start, "rename", "signal=KILL", 2),
    (What::Start, "rename", "error=EIO", 1),
];
/// Faults in the life of a persona that has everything, in everyday runs.
const IN_RICH: [(&str, &str, u64); 6] = [
    ("setns", "error=EPERM", 1),
    ("sendto", "signal=KILL", 40),
    ("sendto", "error=EPERM", 25),
    ("bpf", "error=ENOMEM", 60),
    ("sendto", "signal=KILL", 70),
    ("sendto", "error=ENOMEM", 90),
];

/// One fault, and what it befalls.
#[derive(Clone, Copy, Debug)]
struct Case {
    what: What,
    fault: Fault,
}

/// Cases of everyday runs: each call and each fault has its turn, in lives and in starts.
fn few() -> Vec<Case> {
    let kernel = AT.iter().flat_map(|at| KERNEL.map(|call| (call, *at)));
    let places = kernel.chain(DISK.map(|call| (call, 1)));
    let case = |(number, (call, at)): (usize, (&'static str, u64))| Case {
        what: if number.is_multiple_of(2) == (number / KERNEL.len()).is_multiple_of(2) {
            What::Life
        } else {
            What::Start
        },
        fault: Fault { call, befalls: FAULTS[number % FAULTS.len()], at, of_state: DISK.contains(&call) },
    };
    let ends = [("bpf", 1, "signal=KILL"), ("write", 1, "error=ENOSPC")].map(|(call, at, fault)| Case {
        what: What::End,
        fault: Fault { call, befalls: fault, at, of_state: call == "write" },
    });
    let resizes = [
        ("unlink", 4, "signal=KILL"),
        ("bpf", 200, "error=ENOMEM"),
        ("rename", 1, "signal=KILL"),
        ("rename", 12, "signal=KILL"),
        ("rename", 29, "error=EIO"),
        ("bpf", 700, "signal=KILL"),
        ("bpf", 1, "error=E2BIG"),
        ("bpf", 20, "error=E2BIG"),
    ];
    let resizes = resizes.map(|(call, at, fault)| Case {
        what: What::Resize,
        fault: Fault { call, befalls: fault, at, of_state: false },
    });
    places.enumerate().map(case).chain(ends).chain(resizes).collect()
}

/// Every fault at every place of every phase, as a run without faults has them: the first fault of each call
/// everywhere, then the second, so that what there is no time for is a fault rather than a place.
fn all(site: &mut Site, phases: &[What]) -> Vec<Case> {
    let mut found = Vec::new();
    for what in phases.iter().copied() {
        let places = site.count(what);
        let deaths = |call| places.deaths.get(call).map_or(0, BTreeSet::len);
        let each = places.all.iter().map(|(call, at)| format!("{call} {} ({})", at.len(), deaths(call)));
        figure(
            "R4",
            &format!("places in a {what:?} (and for deaths): {}", each.collect::<Vec<_>>().join(", ")),
        );
        found.push((what, places));
    }
    let found: Vec<(What, &str, &Places)> = found
        .iter()
        .flat_map(|(what, places)| places.all.keys().map(move |call| (*what, *call, places)))
        .collect();
    let rounds = KINDS.iter().map(|(_, faults)| faults.len()).max().unwrap();
    let round = |round: usize| {
        let mut cases = Vec::new();
        for (what, call, places) in &found {
            let (_, faults) = KINDS.iter().find(|(kind, _)| kind == call).unwrap();
            let Some(fault) = faults.get(round) else { continue };
            let of_state = site.is_of_many() || calls::OF_STATE.contains(call);
            let places = places.of(call, fault);
            for (number, at) in places.iter().enumerate() {
                let case = Case { what: *what, fault: Fault { call, befalls: fault, at: *at, of_state } };
                cases.push((number * 1_000 / places.len(), case));
            }
        }
        // Phases and calls go on beside each other.
        cases.sort_by_key(|(share, _)| *share);
        cases.into_iter().map(|(_, case)| case)
    };
    (0..rounds).flat_map(round).collect()
}

#[test]
fn a_fault_at_any_call_leaves_old_or_new() {
    if root() {
        strike(Site::new, &PHASES, few());
    }
}

#[test]
fn a_fault_at_the_journal_leaves_old_or_new() {
    if root() {
        let case =
            |(what, call, befalls, at)| Case { what, fault: Fault { call, befalls, at, of_state: true } };
        strike(Site::of_many, &[What::Journal, What::Start], AT_JOURNAL.map(case).into());
    }
}

#[test]
fn a_fault_in_the_life_of_a_rich_persona_leaves_all_or_nothing() {
    if root() {
        let case = |(call, befalls, at)| Case {
            what: What::Rich,
            fault: Fault { call, befalls, at, of_state: false },
        };
        strike(Site::of_rich, &[What::Rich], IN_RICH.map(case).into());
    }
}

/// The next of a list of faults, which labs share. A lab that fails leaves the others nothing.
#[derive(Debug, Default)]
pub(crate) struct Turns(AtomicUsize);

impl Turns {
    fn take<'a, T>(&self, all: &'a [T]) -> Option<&'a T> {
        all.get(self.0.fetch_add(1, Ordering::Relaxed))
    }

    /// Lives as long as a lab works.
    fn lab(&self) -> impl Drop + use<'_> {
        struct Lab<'a>(&'a Turns);
        impl Drop for Lab<'_> {
            fn drop(&mut self) {
                if std::thread::panicking() {
                    self.0.0.store(usize::MAX / 2, Ordering::Relaxed);
                }
            }
        }
        Lab(self)
    }
}

/// How many labs work beside each other.
fn labs() -> usize {
    if is_long() { LABS } else { 1 }
}

/// Lets faults strike, these or, in long runs, all that there are.
fn strike(make: fn() -> Site, phases: &[What], few: Vec<Case>) {
    let watch = Stopwatch::start();
    let mut first = make();
    let cases = if is_long() { all(&mut first, phases) } else { few };
    let (planned, part) = (cases.len(), Part::asked());
    let cases: Vec<Case> = cases.into_iter().filter(|case| part.has(&format!("{case:?}"))).collect();
    let counted = watch.elapsed().as_secs_f64();
    let effort = Effort::new(u64::MAX, u64::MAX);
    let turns = Turns::default();
    let work = |mut site: Site| {
        let _lab = turns.lab();
        let mut counts = Counts::default();
        while let Some(case) = turns.take(&cases).filter(|_| effort.goes_on(0)) {
            let entry = counts.0.entry((case.what, case.fault.call)).or_default();
            entry.tried += 1;
            entry.struck += u64::from(site.strike(case));
            entry.last = entry.last.max(case.fault.at);
            let (tried, struck) = counts.sum();
            if tried.is_multiple_of(TELL) {
                figure(
                    "R4",
                    &format!("{struck} of {tried} faults so far in this lab, the last was {case:?}"),
                );
            }
        }
        site.assert_as_before();
        counts
    };
    let mut counts = std::thread::scope(|scope| {
        let others: Vec<_> = (1..labs()).map(|_| scope.spawn(|| work(make()))).collect();
        let own = work(first);
        others.into_iter().fold(own, |counts, other| counts.and(other.join().unwrap()))
    });
    let (tried, struck) = counts.sum();
    let seconds = watch.elapsed().as_secs_f64();
    for ((what, call), count) in &mut counts.0 {
        let Count { tried, struck, last } = count;
        figure("R4", &format!("{what:?} {call}: {struck} of {tried} met a call, the last place was {last}"));
    }
    figure(
        "R4",
        &format!(
            "{struck} faults of {tried} tried, {} planned ({part}, {planned} in all): 0 mixed, {seconds:.0} s, \
             {:.0} a minute",
            cases.len(),
            f64::from(u32::try_from(tried).unwrap()) * 60.0 / (seconds - counted)
        ),
    );
    assert!(!cases.is_empty(), "no fault is meant by these words");
    let is_meant = |what: &&What| !part.is_narrowed() || cases.iter().any(|case| case.what == **what);
    for what in phases.iter().filter(is_meant) {
        assert!(counts.struck(*what) > 0, "no fault met a call in a {what:?}");
    }
}

/// Faults of one phase and call.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    tried: u64,
    /// Those that met a call.
    struck: u64,
    /// The highest place.
    last: u64,
}

/// What was done.
#[derive(Debug, Default)]
struct Counts(BTreeMap<(What, &'static str), Count>);

impl Counts {
    fn and(mut self, other: Self) -> Self {
        for (key, count) in other.0 {
            let own = self.0.entry(key).or_default();
            own.tried += count.tried;
            own.struck += count.struck;
            own.last = own.last.max(count.last);
        }
        self
    }

    fn sum(&self) -> (u64, u64) {
        self.0.values().fold((0, 0), |(tried, struck), count| (tried + count.tried, struck + count.struck))
    }

    fn struck(&self, what: What) -> u64 {
        self.0.iter().filter(|((phase, _), _)| *phase == what).map(|(_, count)| count.struck).sum()
    }
}
