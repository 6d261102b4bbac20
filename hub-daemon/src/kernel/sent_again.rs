//! How many TCP segments the hosts of a namespace sent, and sent again (RFC 4022), as their kernel counts them.
//!
//! Programs of the data path do not count them: they would have to remember how far each direction of a connection is,
//! and to write that for every packet.

use std::fs;
use std::io;

use super::namespace::{NamespaceError, OpenNamespace};
use crate::desired::Namespace;

/// Counters of the namespace of the thread that reads.
const FILE: &str = "/proc/thread-self/net/snmp";
/// Lines of TCP: names of counters, then their values.
const TCP: &str = "Tcp:";

/// Why they cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CountError {
    /// The namespace cannot be entered.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// The file cannot be read.
    #[error("read {FILE}: {0}")]
    File(#[from] io::Error),
    /// The counters are not there.
    #[error("{FILE} does not tell of TCP")]
    Missing,
}

/// Segments sent for the first time, and sent again; IPv4 and IPv6 together.
pub fn segments(namespace: &Namespace) -> Result<[u64; 2], CountError> {
    let text = OpenNamespace::open(namespace)?.run(|| fs::read_to_string(FILE))??;
    read(&text).ok_or(CountError::Missing)
}

fn read(text: &str) -> Option<[u64; 2]> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(TCP));
    let (names, values) = (lines.next()?, lines.next()?);
    let value = |wanted: &str| {
        let mut both = names.split_whitespace().zip(values.split_whitespace());
        both.find(|(name, _)| *name == wanted)?.1.parse().ok()
    };
    Some([value("OutSegs")?, value("RetransSegs")?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_their_names() {
        let text = "Ip: Forwarding DefaultTTL\nIp: 1 64\n\
                    Tcp: RtoAlgorithm MaxConn InSegs OutSegs RetransSegs InErrs\nTcp: 1 -1 70 81 9 0\n\
                    Udp: InDatagrams\nUdp: 3\n";
        assert_eq!(read(text), Some([81, 9]));
        assert_eq!(read("Tcp: OutSegs\nTcp: 1\n"), None);
        assert_eq!(read(""), None);
    }
}
