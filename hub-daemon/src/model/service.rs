//! Services: what one persona exposes and another uses. Everything else between the two stays closed.

use std::collections::BTreeSet;

use super::names;
use super::port::PortRange;
use super::problems::Problems;
use super::protocol::{self, Protocol, ProtocolSet};
use crate::document::service::ServiceDocument;

/// Most services of one persona, and most that it uses.
pub const SERVICES: usize = 64;
/// Most permitted protocols of a persona that exposes services: each is a rule for every guest.
const PROTOCOLS: usize = 16;

/// A service that others may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Name, unique in its persona.
    pub name: String,
    /// Protocol number; it has ports.
    pub protocol: u8,
    /// Target ports.
    pub ports: Vec<PortRange>,
}

/// A service of another persona.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Used {
    /// Name of the persona that exposes it.
    pub host: String,
    /// Name of the service there.
    pub service: String,
}

/// Checks `expose`.
pub fn exposed(
    problems: &mut Problems,
    written: &[ServiceDocument],
    permitted: &ProtocolSet,
) -> Vec<Service> {
    if written.len() > SERVICES {
        problems.add("/expose", format!("{} services: use at most {SERVICES}", written.len()));
    }
    if !written.is_empty() && permitted.iter().count() > PROTOCOLS {
        let detail = format!("with `expose`, list the protocols that are needed, at most {PROTOCOLS}");
        problems.add("/protocols", detail);
    }
    let mut names_seen = BTreeSet::new();
    let mut services = Vec::new();
    for (index, document) in written.iter().enumerate() {
        let base = format!("/expose/{index}");
        problems.take(&format!("{base}/name"), names::persona(&document.name));
        if !names_seen.insert(&document.name) {
            problems.add(format!("{base}/name"), format!("service `{}` is there twice", document.name));
        }
        let protocol = match document.protocol.as_ref().map(Protocol::parse) {
            None => protocol::TCP,
            Some(Ok(Protocol::Number(number))) if protocol::has_ports(number) => number,
            Some(_) => {
                problems
                    .add(format!("{base}/protocol"), "a service has ports: use tcp, udp, sctp or udplite");
                continue;
            }
        };
        if !permitted.contains(protocol) {
            let detail = format!("{} is not in `protocols`: add it there", protocol::name(protocol));
            problems.add(format!("{base}/protocol"), detail);
        }
        if document.port.as_slice().is_empty() {
            problems.add(format!("{base}/port"), "the list is empty: name at least one port");
        }
        let base = format!("{base}/port");
        let pointed = document.port.pointed(&base);
        let ports = pointed.filter_map(|(pointer, port)| problems.take(&pointer, PortRange::parse(port)));
        let ports = ports.collect();
        services.push(Service { name: document.name.clone(), protocol, ports });
    }
    services
}

/// Checks `use`.
pub fn used(problems: &mut Problems, written: &[String], own: &str) -> BTreeSet<Used> {
    if written.len() > SERVICES {
        problems.add("/use", format!("{} services: use at most {SERVICES}", written.len()));
    }
    let mut used = BTreeSet::new();
    for (index, text) in written.iter().enumerate() {
        let pointer = format!("/use/{index}");
        let parts = text
            .split_once('/')
            .filter(|(host, service)| names::persona(host).is_ok() && names::persona(service).is_ok());
        match parts {
            None => {
                problems.add(pointer, format!("service `{text}`: use PERSONA/NAME, for example shop/web"));
            }
            Some((host, _)) if host == own => {
                problems.add(pointer, "a persona needs no leave to use its own services");
            }
            Some((host, service)) => {
                _ = used.insert(Used { host: host.to_owned(), service: service.to_owned() });
            }
        }
    }
    used
}

/// The ports that none of these ranges holds, as ranges.
pub fn gaps(ranges: &[PortRange]) -> Vec<[u16; 2]> {
    let mut sorted: Vec<[u16; 2]> = ranges.iter().map(|range| range.bounds()).collect();
    sorted.sort_unstable();
    let mut gaps = Vec::new();
    let mut next: u32 = 0;
    for [first, last] in sorted {
        if u32::from(first) > next {
            gaps.push([next as u16, first - 1]);
        }
        next = next.max(u32::from(last) + 1);
    }
    if let Ok(first) = u16::try_from(next) {
        gaps.push([first, u16::MAX]);
    }
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::parts::Scalar;

    fn range(text: &str) -> PortRange {
        PortRange::parse(&Scalar::from(text)).unwrap()
    }

    #[test]
    fn gaps_are_what_is_left_of_all_ports() {
        assert_eq!(gaps(&[]), [[0, 65_535]]);
        assert_eq!(gaps(&[range("80")]), [[0, 79], [81, 65_535]]);
        assert_eq!(gaps(&[range("0-79"), range("90-65535"), range("85")]), [[80, 84], [86, 89]]);
        assert_eq!(gaps(&[range("10-30"), range("20-25"), range("31")]), [[0, 9], [32, 65_535]]);
        assert_eq!(gaps(&[range("0-65535")]), [[0_u16; 2]; 0]);
    }

    #[test]
    fn each_problem_is_told_where_it_is() {
        let service = |name: &str, protocol: &str, port: &str| ServiceDocument {
            name: name.into(),
            protocol: Some(protocol.into()),
            port: crate::document::parts::OneOrMany::One(port.into()),
        };
        let mut permitted = ProtocolSet::NONE;
        permitted.insert(protocol::TCP);
        let mut problems = Problems::default();
        let written = [service("a", "icmp", "1"), service("b", "udp", "53"), service("b", "tcp", "x")];
        exposed(&mut problems, &written, &permitted);
        used(&mut problems, &["shop".into(), "me/web".into(), "shop/web".into()], "me");
        let pointers: Vec<_> = problems.into_vec().into_iter().map(|problem| problem.pointer).collect();
        let wanted = [
            "/expose/0/protocol",
            "/expose/1/protocol",
            "/expose/2/name",
            "/expose/2/port",
            "/use/0",
            "/use/1",
        ];
        assert_eq!(pointers, wanted);
    }
}
