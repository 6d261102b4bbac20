//! What holds after every step of the scripts of switches.

use hub_common::rule::{RULE_SOURCE_PORT, Rule};
use hub_common::segment::POLICY_RESET_CUT;
use ipnet::IpNet;

use super::switch::Switching;
use crate::compile::SYNTHETIC_RULE;
use crate::desired::interfaces::InterfaceVia;

impl Switching {
    /// Everything that is told to the kernel is of one personality.
    pub(super) fn check(&self) {
        let desired = self.script.desired();
        for (name, record) in &self.script.hub.interfaces.records {
            let kept = self.script.hub.interfaces.versions.get(&record.layout.live).unwrap();
            let live = kept.personality.on(&record.settings.name, &record.settings.labels).unwrap();
            let live = live.document();
            let carrier = &self.script.hub.records.get(&record.carrier).unwrap();
            let segment = &desired.segments[&carrier.segment];
            let port =
                live.firewall_rules.as_ref().unwrap()[0].port.as_ref().unwrap().as_slice()[0].to_string();
            let allows = |policy: &crate::model::policy::Policy| {
                // But for the connection that a switch was ordered by, and addresses that go away.
                let own = |rule: &&Rule| rule.flags & RULE_SOURCE_PORT == 0 && rule.index != SYNTHETIC_RULE;
                let rules = policy.ingress.iter().filter(own);
                rules.map(|rule| rule.target_port[0].to_string()).collect::<Vec<_>>()
            };
            assert_eq!(allows(&segment.policy), [port], "{name}: the policy");
            assert!(segment.policy.flags & POLICY_RESET_CUT != 0, "{name}: who is cut is told");
            let interface = &desired.interfaces[name];
            let ways = &interface.routes[interface.live.index()];
            let written = live.routing_table.as_ref().unwrap()[0].via.clone().unwrap();
            let default = ways.iter().find(|(key, _)| key.target.prefix_len() == 0).unwrap();
            let via = format!("{:?}", default.1.via);
            assert!(via.contains(&written), "{name}: {via}, not {written}");
            let on_link = ways.iter().filter(|(_, way)| matches!(way.via, InterfaceVia::Link(None)));
            assert_eq!(
                (ways.len(), on_link.count()),
                (2, 1),
                "{name}: its gateway alone is on the link: {ways:?}"
            );
            let addresses: Vec<String> =
                live.ip_addresses.iter().flatten().map(|it| it.text().to_owned()).collect();
            let chosen = interface.addresses.iter().filter(|(_, address)| !address.deprecated);
            let chosen: Vec<String> = chosen.map(|(address, _)| address.to_string()).collect();
            assert_eq!(chosen, addresses, "{name}: addresses");
            let servers: Vec<String> =
                desired.resolvers[name].servers.iter().map(ToString::to_string).collect();
            assert_eq!(Some(servers), live.dns_servers, "{name}: the resolver");
            let link = live.vpn_tunnel_config.as_ref().unwrap().interface.clone().unwrap();
            assert!(desired.tunnels.contains_key(&link), "{name}: tunnel {link}");
            let other = interface.live.other();
            assert_eq!(record.layout.other.is_some(), !interface.routes[other.index()].is_empty());
            assert_eq!(record.layout.other.is_some(), segment.candidate.is_some(), "{name}: what is beside");
            for range in interface.addresses.keys() {
                let host = IpNet::from(range.addr());
                assert_eq!(desired.prefixes.get(&host), Some(&carrier.segment), "{name}: {host}");
            }
            if let Some(temporary) = &record.temporary {
                let phase = record.switch.as_ref().map(|switch| switch.phase);
                let flipped = phase.is_some_and(|phase| !phase.is_before_flip() && phase.goes_on());
                let decides = !flipped && record.layout.live == record.current;
                if decides && record.layout.live != temporary.back {
                    let until = segment.lease.as_ref().map(|lease| lease.until);
                    assert_eq!(until, Some(temporary.until), "{name}: what is lent ends in the data path");
                }
            }
            if let Some(lease) = &segment.lease {
                let back = record.temporary.as_ref().map(|temporary| &temporary.back);
                match back.filter(|back| !record.layout.holds(back)) {
                    None => {
                        let kept = segment.candidate.as_ref().unwrap();
                        assert!(lease.policy == kept.policy, "{name}: the lease");
                    }
                    Some(back) => {
                        let number: u16 = back.name.rsplit('-').next().unwrap().parse().unwrap();
                        assert_eq!(
                            allows(&lease.policy),
                            [format!("{}", 8_000 + number)],
                            "{name}: the lease"
                        );
                    }
                }
            }
        }
        assert!(self.script.hub.clone().deadline().is_none_or(|deadline| deadline > self.script.now));
    }
}
