//! Which system calls the daemon makes in a phase, counted in a run without faults, and what can befall each.
//!
//! `strace` counts the calls of each thread by themselves, so a fault at number N meets the Nth call of every
//! thread that makes so many. A row of calls that do the same, like reads of a whole table, counts by its ends.

use std::collections::{BTreeMap, BTreeSet};

/// A call, and what befalls it in long runs; the first fault of every call comes before any second.
pub(crate) type Kind = (&'static str, &'static [&'static str]);

const KILL: &str = "signal=KILL";
const ENOMEM: &str = "error=ENOMEM";
const EPERM: &str = "error=EPERM";
const EINTR: &str = "error=EINTR";
const ENOSPC: &str = "error=ENOSPC";
const EIO: &str = "error=EIO";
const EAGAIN: &str = "error=EAGAIN";

/// Calls by which the hub speaks with the kernel, keeps its state, and gets what it works with.
pub(crate) const KINDS: [Kind; 19] = [
    ("bpf", &[KILL, ENOMEM, EPERM]),
    ("sendto", &[KILL, EPERM, ENOMEM]),
    ("recvfrom", &[KILL, ENOMEM, EINTR]),
    ("membarrier", &[KILL, EPERM]),
    ("ioctl", &[KILL, EPERM]),
    ("socket", &[KILL, ENOMEM]),
    ("openat", &[KILL, EIO, ENOMEM]),
    ("write", &[KILL, ENOSPC, EIO]),
    ("fsync", &[KILL, EIO, ENOSPC]),
    ("fdatasync", &[KILL, EIO, ENOSPC]),
    ("ftruncate", &[KILL, EIO]),
    ("rename", &[KILL, EIO, ENOSPC]),
    ("linkat", &[KILL, ENOSPC, EIO]),
    ("unlink", &[KILL, EPERM, EIO]),
    ("mkdir", &[KILL, ENOSPC]),
    ("flock", &[KILL, EIO]),
    ("mmap", &[KILL, ENOMEM]),
    ("clone3", &[KILL, EAGAIN]),
    ("setns", &[KILL, EPERM]),
];

/// Calls whose faults are real on the state file alone: a thread that wakes another writes as well.
pub(crate) const OF_STATE: [&str; 1] = ["write"];

/// Calls by which the hub keeps its state.
pub(crate) const ON_FILES: [&str; 8] =
    ["openat", "write", "fsync", "fdatasync", "ftruncate", "rename", "linkat", "unlink"];

/// Numbers of each call that are worth a fault, out of what `strace` wrote.
pub(crate) fn places(trace: &str) -> BTreeMap<&'static str, BTreeSet<u64>> {
    let mut places: BTreeMap<&'static str, BTreeSet<u64>> = BTreeMap::new();
    // Of each thread and call the last number, and what it did.
    let mut last: BTreeMap<(&str, &'static str), (u64, String)> = BTreeMap::new();
    for line in trace.lines() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let Some((name, arguments)) = rest.trim_start().split_once('(') else { continue };
        let Some((call, _)) = KINDS.iter().find(|(call, _)| *call == name) else { continue };
        let does = subject(arguments);
        let (number, before) = last.entry((thread, call)).or_default();
        *number += 1;
        if *before != does {
            let of_call = places.entry(call).or_default();
            of_call.extend([*number - 1, *number].into_iter().filter(|number| *number > 0));
            *before = does;
        }
    }
    for ((_, call), (number, _)) in last {
        places.entry(call).or_default().insert(number);
    }
    places
}

/// What tells a call from the one before: all its words up to the first that is an address or a buffer.
fn subject(arguments: &str) -> String {
    let end = arguments.find(", key=").or_else(|| arguments.find("0x")).unwrap_or(arguments.len());
    arguments.get(..end.min(48)).unwrap_or(arguments).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_count_by_their_ends() {
        let row = |thread: u32, fd: u32| {
            format!("{thread} bpf(BPF_MAP_LOOKUP_ELEM, {{map_fd={fd}, key=0x7f01, value=0x7f02}}, 128) = 0\n")
        };
        let trace =
            row(7, 4).repeat(5) + &row(7, 9).repeat(3) + &row(8, 4) + "7 fsync(3) = 0\n7 read(3) = 1\n";
        let places = places(&trace);
        assert_eq!(places["bpf"], BTreeSet::from([1, 5, 6, 8]));
        assert_eq!(places["fsync"], BTreeSet::from([1]));
        assert_eq!(places.len(), 2);
    }
}
