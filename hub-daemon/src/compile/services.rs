//! What a persona lets in from those that only use services of it, and from those whose services it uses.
//!
//! Rules before its own ones refuse all but the services; what is left is for its own rules to judge.

use hub_common::rule::{RULE_PROTOCOL, RULE_TARGET_PORT, Rule as Compiled};
use ipnet::IpNet;

use super::{SYNTHETIC_RULE, TooMany, between, compile, denied};
use crate::model::persona::Persona;
use crate::model::policy::Policy;
use crate::model::port::PortRange;
use crate::model::service::{Service, gaps};
use hub_common::limits::RULES_PER_DIRECTION;

/// A persona that may reach only services of another.
#[derive(Clone, Debug)]
pub struct Guest<'a> {
    /// Its ranges.
    pub ranges: Vec<IpNet>,
    /// What it may reach; nothing for one that is itself the host.
    pub services: Vec<&'a Service>,
}

/// Whom a persona may talk to.
#[derive(Clone, Debug, Default)]
pub struct Contacts<'a> {
    /// Ranges of peers, of which nothing is refused for who they are.
    pub peers: Vec<IpNet>,
    /// Those who use its services, and those whose services it uses.
    pub guests: Vec<Guest<'a>>,
}

/// Compiles a persona with these contacts.
pub fn compile_with(persona: &Persona, contacts: &Contacts<'_>) -> Policy {
    let guests = contacts.guests.iter().flat_map(|guest| &guest.ranges);
    let known: Vec<IpNet> = contacts.peers.iter().chain(guests).copied().collect();
    let mut policy = compile(persona, &known);
    let refused: Vec<Compiled> = contacts.guests.iter().flat_map(|guest| refusals(persona, guest)).collect();
    policy.ingress.splice(0..0, refused);
    policy
}

/// Refuses contacts that would not fit the data path.
pub fn check_with(persona: &Persona, contacts: &Contacts<'_>) -> Result<(), TooMany> {
    let policy = compile_with(persona, contacts);
    for (direction, rules) in [("ingress", &policy.ingress), ("egress", &policy.egress)] {
        if rules.len() > RULES_PER_DIRECTION as usize {
            return Err(TooMany::Rules { direction, count: rules.len() });
        }
    }
    Ok(())
}

fn refusals(persona: &Persona, guest: &Guest<'_>) -> Vec<Compiled> {
    let base = Compiled { action: denied(persona), index: SYNTHETIC_RULE, ..Compiled::ZERO };
    let mut rules = Vec::new();
    for protocol in persona.rules.permitted.iter() {
        let of_protocol = || guest.services.iter().filter(|service| service.protocol == protocol);
        if guest.services.is_empty() {
            break;
        }
        let named = Compiled { protocol, flags: RULE_PROTOCOL, ..base };
        if of_protocol().next().is_none() {
            rules.push(named);
            continue;
        }
        let open: Vec<PortRange> = of_protocol().flat_map(|service| &service.ports).copied().collect();
        rules.extend(gaps(&open).into_iter().map(|ports| Compiled {
            target_port: ports,
            flags: named.flags | RULE_TARGET_PORT,
            ..named
        }));
    }
    if guest.services.is_empty() {
        rules.push(base);
    }
    guest
        .ranges
        .iter()
        .flat_map(|range| rules.iter().filter_map(|rule| between(*rule, Some(range), None)))
        .collect()
}
