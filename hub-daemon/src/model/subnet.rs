//! Subnets: where the addresses of personalities are.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::problems::Problems;
use super::{names, prefix};
use crate::document::read::escape;
use crate::document::subnet::SubnetDocument;

const VLANS: std::ops::RangeInclusive<u16> = 1..=4_094;

/// A subnet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// Its prefixes.
    pub prefixes: Vec<IpNet>,
    /// Addresses that the hub answers by in it, at most one per family.
    pub gateways: Vec<IpAddr>,
    /// VLAN that it is on.
    pub vlan: Option<u16>,
    /// Persona that its interfaces may talk to.
    pub persona: Option<String>,
}

impl Subnet {
    /// Whether an address is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.prefixes.iter().any(|prefix| prefix.contains(&address))
    }
}

/// Reads `subnets`.
pub fn read(problems: &mut Problems, written: &BTreeMap<String, SubnetDocument>) -> BTreeMap<String, Subnet> {
    let mut subnets = BTreeMap::new();
    for (name, document) in written {
        let base = format!("/subnets/{}", escape(name));
        problems.take(&base, names::persona(name));
        if document.cidr.as_slice().is_empty() {
            problems.add(format!("{base}/cidr"), "the list is empty: give a prefix like 10.20.0.0/24");
        }
        let cidr = format!("{base}/cidr");
        let pointed = document.cidr.pointed(&cidr);
        let prefixes: Vec<IpNet> =
            pointed.filter_map(|(pointer, text)| problems.take(&pointer, prefix::owned(text))).collect();
        let gateways = match &document.gateway {
            None => firsts(&prefixes),
            Some(written) => {
                let gateway = format!("{base}/gateway");
                let pointed = written.pointed(&gateway);
                pointed
                    .filter_map(|(pointer, text)| gateway_of(problems, &pointer, text, &prefixes))
                    .collect()
            }
        };
        for v4 in [true, false] {
            if gateways.iter().filter(|gateway: &&IpAddr| gateway.is_ipv4() == v4).count() > 1 {
                problems.add(format!("{base}/gateway"), "use at most one gateway of each family");
            }
        }
        if let Some(vlan) = document.vlan.filter(|vlan| !VLANS.contains(vlan)) {
            let detail = format!("vlan {vlan}: use {} to {}", VLANS.start(), VLANS.end());
            problems.add(format!("{base}/vlan"), detail);
        }
        if let Some(persona) = &document.persona {
            problems.take(&format!("{base}/persona"), names::persona(persona));
        }
        let (vlan, persona) = (document.vlan, document.persona.clone());
        subnets.insert(name.clone(), Subnet { prefixes, gateways, vlan, persona });
    }
    subnets
}

/// The gateway of the first prefix of each family.
fn firsts(prefixes: &[IpNet]) -> Vec<IpAddr> {
    let first = |v4: bool| prefixes.iter().find(|prefix| prefix.addr().is_ipv4() == v4);
    [true, false].into_iter().filter_map(first).map(prefix::gateway).collect()
}

fn gateway_of(problems: &mut Problems, pointer: &str, text: &str, prefixes: &[IpNet]) -> Option<IpAddr> {
    let parsed = text.parse().map_err(|_format| format!("address `{text}`: use one like 10.20.0.1"));
    let address: IpAddr = problems.take(pointer, parsed)?;
    if !prefixes.is_empty() && !prefixes.iter().any(|prefix| prefix.contains(&address)) {
        problems.add(pointer, format!("address {address} is not in `cidr`"));
        return None;
    }
    Some(address)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read_one(written: serde_json::Value) -> Result<Subnet, Vec<String>> {
        let mut problems = Problems::default();
        let document = serde_json::from_value(written).unwrap();
        let mut subnets = read(&mut problems, &BTreeMap::from([("web".to_owned(), document)]));
        let subnet = subnets.remove("web").unwrap();
        problems.settle(subnet).map_err(|found| {
            found.into_iter().map(|problem| format!("{} {}", problem.pointer, problem.detail)).collect()
        })
    }

    #[test]
    fn gateways_are_the_first_addresses_unless_they_are_given() {
        let subnet = read_one(json!({"cidr": ["10.20.0.0/24", "fd00:20::/64"]})).unwrap();
        let shown: Vec<String> = subnet.gateways.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["10.20.0.1", "fd00:20::1"]);
        let subnet = read_one(json!({"cidr": "10.20.0.0/24", "gateway": "10.20.0.254"})).unwrap();
        assert_eq!(subnet.gateways, ["10.20.0.254".parse::<IpAddr>().unwrap()]);
        assert!(
            subnet.contains("10.20.0.7".parse().unwrap()) && !subnet.contains("10.21.0.7".parse().unwrap())
        );
    }

    #[test]
    fn every_problem_of_a_subnet_is_named() {
        let problems = read_one(json!({"cidr": "10.20.0.0/24", "gateway": ["10.9.0.1", "x"], "vlan": 0}));
        let problems = problems.unwrap_err().join("; ");
        for part in
            ["/subnets/web/gateway/0 address 10.9.0.1 is not", "gateway/1 address `x`", "/vlan vlan 0"]
        {
            assert!(problems.contains(part), "{problems}");
        }
    }
}
