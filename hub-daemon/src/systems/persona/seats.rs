//! What endpoints get: a number that names their link, and addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::command::Problem;
use crate::desired::LINK_PREFIX;
use crate::model::SegmentId;
use crate::model::endpoint::Endpoint;
use crate::model::persona::Persona;
use crate::model::prefix;

/// What one endpoint got. It stays when the persona changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seat {
    /// Names the hub's end.
    pub number: u16,
    /// Addresses of the member.
    pub addresses: Vec<IpAddr>,
}

/// Name of the hub's end of an endpoint: at most 14 letters of the kernel's 15.
pub fn link_name(segment: SegmentId, number: u16) -> String {
    format!("{LINK_PREFIX}{segment}e{number}")
}

/// Gives every endpoint of a persona a seat, the one it had if it still fits.
pub fn assign(
    persona: &Persona,
    before: &BTreeMap<String, Seat>,
) -> Result<BTreeMap<String, Seat>, Vec<Problem>> {
    let endpoints = persona.endpoints();
    let asked: BTreeSet<IpAddr> =
        endpoints.iter().flat_map(|endpoint| endpoint.addresses.iter().flatten()).copied().collect();
    let mut used = asked.clone();
    let mut numbers: BTreeSet<u16> =
        endpoints.iter().filter_map(|endpoint| before.get(&endpoint.name)).map(|seat| seat.number).collect();
    let kept: BTreeMap<&str, &Seat> = endpoints
        .iter()
        .filter(|endpoint| endpoint.addresses.is_none())
        .filter_map(|endpoint| Some((endpoint.name.as_str(), before.get(&endpoint.name)?)))
        .filter(|(_, seat)| fits(persona, seat, &asked))
        .collect();
    used.extend(kept.values().flat_map(|seat| &seat.addresses));
    let mut seats = BTreeMap::new();
    let mut problems = Vec::new();
    for (index, endpoint) in endpoints.iter().enumerate() {
        let addresses = match (&endpoint.addresses, kept.get(endpoint.name.as_str())) {
            (Some(addresses), _) => addresses.clone(),
            (None, Some(seat)) => seat.addresses.clone(),
            (None, None) => match choose(persona, endpoint, &mut used) {
                Ok(addresses) => addresses,
                Err(detail) => {
                    problems.push(Problem::new(format!("/endpoints/{index}/address"), detail));
                    continue;
                }
            },
        };
        let number = match before.get(&endpoint.name) {
            Some(seat) => seat.number,
            None => (0..=u16::MAX).find(|number| !numbers.contains(number)).unwrap_or_default(),
        };
        numbers.insert(number);
        seats.insert(endpoint.name.clone(), Seat { number, addresses });
    }
    if problems.is_empty() { Ok(seats) } else { Err(problems) }
}

/// Whether automatic addresses can stay: usable, one for each family, asked for by nobody else.
fn fits(persona: &Persona, seat: &Seat, asked: &BTreeSet<IpAddr>) -> bool {
    let usable = |address: &IpAddr| {
        !asked.contains(address) && persona.ranges().iter().any(|range| prefix::usable(range, *address))
    };
    let families = [true, false].into_iter().filter(|v4| persona.has_family(*v4)).count();
    seat.addresses.len() == families && seat.addresses.iter().all(usable)
}

/// The lowest free address of each family.
fn choose(
    persona: &Persona,
    endpoint: &Endpoint,
    used: &mut BTreeSet<IpAddr>,
) -> Result<Vec<IpAddr>, String> {
    let mut addresses = Vec::new();
    for v4 in [true, false] {
        let mut ranges = persona.ranges().iter().filter(|range| range.addr().is_ipv4() == v4).peekable();
        if ranges.peek().is_none() {
            continue;
        }
        let free = ranges.find_map(|range| lowest(range, used)).ok_or_else(|| {
            let family = if v4 { "IPv4" } else { "IPv6" };
            format!(
                "no {family} address is free in ip_range for endpoint `{}`: use a larger range",
                endpoint.name
            )
        })?;
        used.insert(free);
        addresses.push(free);
    }
    Ok(addresses)
}

fn lowest(range: &IpNet, used: &BTreeSet<IpAddr>) -> Option<IpAddr> {
    // Of as many candidates as there are used addresses, the gateway and the ends, one is free.
    let candidates = (2..used.len() as u64 + 5).map(|offset| prefix::nth(range, offset));
    candidates.filter(|address| prefix::usable(range, *address)).find(|address| !used.contains(address))
}
