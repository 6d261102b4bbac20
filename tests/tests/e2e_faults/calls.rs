//! Which system calls the daemon makes in a phase, counted in a run without faults, and what can befall each.
//!
//! `strace` counts the calls of each thread by themselves, so a fault at number N meets the Nth call of every
//! thread that makes so many. A row of calls that do the same, like reads of a whole table, counts by its ends.
//!
//! Who is killed leaves what the kernel and the files hold, and nothing else. So of a row of calls that change
//! nothing there, of all threads, only the first is worth a death: at each of the others everything is as it is
//! there, or, where an answer went out meanwhile, as at the call that ends the row.

use std::collections::{BTreeMap, BTreeSet};

/// A call, and what befalls it in long runs; the first fault of every call comes before any second.
pub(crate) type Kind = (&'static str, &'static [&'static str]);

/// Death of the daemon.
pub(crate) const KILL: &str = "signal=KILL";
/// A map that is full.
const E2BIG: &str = "error=E2BIG";
const ENOMEM: &str = "error=ENOMEM";
const EPERM: &str = "error=EPERM";
const EINTR: &str = "error=EINTR";
const ENOSPC: &str = "error=ENOSPC";
const EIO: &str = "error=EIO";
const EAGAIN: &str = "error=EAGAIN";

/// Calls by which the hub speaks with the kernel, keeps its state, and gets what it works with.
pub(crate) const KINDS: [Kind; 19] = [
    ("bpf", &[KILL, E2BIG, ENOMEM, EPERM]),
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

/// Numbers of each call.
pub(crate) type Numbers = BTreeMap<&'static str, BTreeSet<u64>>;

/// Numbers of each call that are worth a fault.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places {
    /// Those that are worth an error.
    pub(crate) all: Numbers,
    /// Those of them that are worth a death.
    pub(crate) deaths: Numbers,
}

impl Places {
    /// Those of either.
    pub(crate) fn extend(&mut self, other: Self) {
        for (own, other) in [(&mut self.all, other.all), (&mut self.deaths, other.deaths)] {
            for (call, numbers) in other {
                own.entry(call).or_default().extend(numbers);
            }
        }
    }

    /// Those that are worth this fault, in order.
    pub(crate) fn of(&self, call: &str, befalls: &str) -> Vec<u64> {
        let numbers = if befalls == KILL { &self.deaths } else { &self.all };
        numbers.get(call).into_iter().flatten().copied().collect()
    }
}

/// Numbers of each call that are worth a fault, out of what `strace` wrote.
pub(crate) fn places(trace: &str) -> Places {
    let mut places = Numbers::new();
    // First calls of rows that change nothing, and those that change something.
    let mut changes = Numbers::new();
    let mut is_in_row = false;
    // Of each thread and call the last number, and what it did.
    let mut last: BTreeMap<(&str, &'static str), (u64, String)> = BTreeMap::new();
    for line in trace.lines() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let Some((name, arguments)) = rest.trim_start().split_once('(') else { continue };
        let Some((call, _)) = KINDS.iter().find(|(call, _)| *call == name) else { continue };
        let does = subject(arguments);
        let (number, before) = last.entry((thread, call)).or_default();
        *number += 1;
        let stays = outlives(call, arguments);
        if stays || !is_in_row {
            changes.entry(call).or_default().insert(*number);
        }
        is_in_row = !stays;
        if *before != does {
            let of_call = places.entry(call).or_default();
            of_call.extend([*number - 1, *number].into_iter().filter(|number| *number > 0));
            *before = does;
        }
    }
    for ((_, call), (number, _)) in last {
        places.entry(call).or_default().insert(number);
    }
    let both = |(call, numbers): (&&'static str, &BTreeSet<u64>)| {
        Some((*call, numbers & changes.get(call)?)).filter(|(_, both)| !both.is_empty())
    };
    let deaths = places.iter().filter_map(both).collect();
    Places { all: places, deaths }
}

/// Whether a call changes what is there after the daemon is gone: not what it reads, and not what goes with it, like
/// maps and programs that nothing holds yet.
fn outlives(call: &str, arguments: &str) -> bool {
    const READS: [&str; 12] = [
        "BPF_MAP_LOOKUP_ELEM",
        "BPF_MAP_LOOKUP_BATCH",
        "BPF_MAP_GET_NEXT_KEY",
        "BPF_OBJ_GET",
        "BPF_PROG_GET_",
        "BPF_MAP_GET_",
        "BPF_LINK_GET_",
        "BPF_BTF_GET_",
        "BPF_PROG_QUERY",
        "BPF_MAP_CREATE",
        "BPF_PROG_LOAD",
        "BPF_BTF_LOAD",
    ];
    match call {
        "recvfrom" | "mmap" | "socket" | "membarrier" | "clone3" | "setns" | "flock" => false,
        "bpf" => !READS.iter().any(|read| arguments.starts_with(read)),
        "sendto" => !arguments.contains("nlmsg_type=RTM_GET"),
        "openat" => ["O_CREAT", "O_TRUNC"].iter().any(|flag| arguments.contains(flag)),
        _ => true,
    }
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
        let places = places(&trace).all;
        assert_eq!(places["bpf"], BTreeSet::from([1, 5, 6, 8]));
        assert_eq!(places["fsync"], BTreeSet::from([1]));
        assert_eq!(places.len(), 2);
    }

    #[test]
    fn rows_that_change_nothing_are_worth_one_death() {
        let trace = "7 openat(AT_FDCWD, \"/a\", O_RDONLY) = 3
7 mmap(NULL, 4096) = 0
8 recvfrom(5, 0x7f01, 9) = 4
7 bpf(BPF_MAP_UPDATE_ELEM, {map_fd=4, key=0x7f01}, 128) = 0
8 sendto(5, [{nlmsg_len=20, nlmsg_type=RTM_GETLINK}], 20) = 20
7 bpf(BPF_PROG_LOAD, {prog_type=3}, 128) = 9
8 sendto(5, [{nlmsg_len=20, nlmsg_type=RTM_NEWROUTE}], 20) = 20
7 openat(AT_FDCWD, \"/b\", O_WRONLY|O_CREAT, 0600) = 3
";
        let places = places(trace);
        assert_eq!(places.of("bpf", "error=EPERM"), [1, 2]);
        assert_eq!(places.of("bpf", KILL), [1], "a program that nothing holds goes with the daemon");
        assert_eq!(places.of("sendto", KILL), [1, 2], "the first question begins a row");
        assert_eq!(places.of("openat", KILL), [1, 2]);
        assert_eq!(places.of("mmap", KILL), [0; 0]);
        assert_eq!(places.of("recvfrom", KILL), [0; 0]);
    }
}
