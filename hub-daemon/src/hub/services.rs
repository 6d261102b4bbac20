//! Who uses whose services.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{Hub, refused};
use crate::command::{Rejection, RejectionKind};
use crate::compile::services::{Contacts, Guest, check_with};
use crate::model::persona::Persona;
use crate::model::service::Service;
use crate::systems::persona::Record;

/// The users of services, by name of the host: found once for all personas.
pub(super) struct Uses<'a>(BTreeMap<&'a str, Vec<&'a Record>>);

impl<'a> Uses<'a> {
    pub(super) fn new(records: impl Iterator<Item = &'a Record>) -> Self {
        let mut users: BTreeMap<&str, Vec<&Record>> = BTreeMap::new();
        for record in records.filter(|record| record.has_not_ended()) {
            let mut hosts: Vec<&str> = record.persona.uses().iter().map(|used| used.host.as_str()).collect();
            hosts.dedup();
            for host in hosts {
                users.entry(host).or_default().push(record);
            }
        }
        Self(users)
    }

    /// Whom a persona meets over services only: its users with what they may reach, and its hosts with
    /// nothing. Who is both, or a peer, is there once.
    pub(super) fn of<'b>(
        &self,
        hub: &'b Hub,
        record: &'b Record,
        now: Timestamp,
    ) -> Vec<(&'b Record, Vec<&'b Service>)>
    where
        'a: 'b,
    {
        let users = self.0.get(record.persona.name()).into_iter().flatten();
        let mut met: BTreeMap<&str, (&Record, Vec<&Service>)> = BTreeMap::new();
        for user in users.filter(|user| works(user, now) && !are_peers(record, user)) {
            let reached = reached(user, &record.persona);
            if !reached.is_empty() {
                met.insert(user.persona.name(), (user, reached));
            }
        }
        for used in record.persona.uses() {
            let Some(host) = hub.named(&used.host).filter(|host| works(host, now)) else { continue };
            let exposes = host.persona.services().iter().any(|service| service.name == used.service);
            if exposes && !are_peers(record, host) {
                met.entry(host.persona.name()).or_insert((host, Vec::new()));
            }
        }
        met.into_values().collect()
    }
}

fn works(record: &Record, now: Timestamp) -> bool {
    record.works(now)
}

fn are_peers(one: &Record, other: &Record) -> bool {
    one.persona.peers().contains(other.persona.name()) && other.persona.peers().contains(one.persona.name())
}

/// Services of `host` that `user` names.
fn reached<'a>(user: &Record, host: &'a Persona) -> Vec<&'a Service> {
    let named = |service: &&Service| {
        user.persona.uses().iter().any(|used| used.host == host.name() && used.service == service.name)
    };
    host.services().iter().filter(named).collect()
}

/// Contacts in the form that policies are compiled from, by the ranges that the persona knows them by.
pub(super) fn contacts<'a>(
    record: &Record,
    peers: &[&Record],
    guests: &[(&'a Record, Vec<&'a Service>)],
) -> Contacts<'a> {
    Contacts {
        peers: peers.iter().flat_map(|peer| record.sees(peer)).collect(),
        guests: guests
            .iter()
            .map(|(guest, services)| Guest { ranges: record.sees(guest), services: services.clone() })
            .collect(),
    }
}

impl Hub {
    /// Refuses what would make the rules of a host too many: the host itself, or one more user.
    pub(super) fn check_services(&self, persona: &Persona) -> Result<(), Rejection> {
        let full = |pointer: &str, detail: String| refused(RejectionKind::Full, pointer, detail);
        let users = |host: &Persona| -> Vec<(&Record, Vec<String>)> {
            let others = self
                .records
                .values()
                .filter(|record| record.has_not_ended() && record.persona.name() != persona.name());
            let with = others.map(|record| {
                (record, reached(record, host).into_iter().map(|service| service.name.clone()).collect())
            });
            with.filter(|(_, services): &(_, Vec<String>)| !services.is_empty()).collect()
        };
        let fits = |host: &Persona, newcomer: Option<&Persona>| {
            let users = users(host);
            let services = |names: &[String]| -> Vec<&Service> {
                host.services().iter().filter(|service| names.contains(&service.name)).collect()
            };
            let mut guests: Vec<Guest<'_>> = users
                .iter()
                .map(|(user, names)| Guest {
                    ranges: user.persona.ranges().to_vec(),
                    services: services(names),
                })
                .collect();
            guests.extend(newcomer.map(|newcomer| {
                let used = newcomer.uses().iter().filter(|used| used.host == host.name());
                let names: Vec<String> = used.map(|used| used.service.clone()).collect();
                Guest { ranges: newcomer.ranges().to_vec(), services: services(&names) }
            }));
            check_with(host, &Contacts { peers: Vec::new(), guests })
        };
        if !persona.services().is_empty() {
            fits(persona, None).map_err(|error| full("/expose", error.to_string()))?;
        }
        for used in persona.uses() {
            let Some(host) = self.named(&used.host) else { continue };
            fits(&host.persona, Some(persona)).map_err(|error| {
                full("/use", format!("persona `{}` has too many users: {error}", used.host))
            })?;
        }
        Ok(())
    }
}
