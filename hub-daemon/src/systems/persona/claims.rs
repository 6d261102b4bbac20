//! What personas that are alive hold, and what a newcomer must not take from them.

use std::collections::{BTreeMap, BTreeSet};

use hub_common::limits::{BASELINE_RULES, RATE_LIMITS, RULES_PER_PERSONA, V4_BLOCKS};
use ipnet::IpNet;

use super::{Life, Record};
use crate::command::{Inventory, Problem, Rejection, RejectionKind};
use crate::desired::{Namespace, Role};
use crate::model::PersonaId;
use crate::model::config::Config;
use crate::model::persona::Persona;
use crate::model::policy::Policy;
use crate::model::prefix;
use crate::model::problems::Problems;
use crate::model::rule::Direction;
use crate::model::translation::Virtual;

/// Prefixes with their owners; no two overlap.
#[derive(Clone, Debug, Default)]
pub struct Prefixes(BTreeMap<IpNet, PersonaId>);

impl Prefixes {
    /// Owners of prefixes that overlap this one.
    pub fn overlapping(&self, prefix: &IpNet) -> Vec<(IpNet, PersonaId)> {
        // Without overlaps among them, what contains the prefix is the nearest before it.
        let before = self.0.range(..prefix).next_back().filter(|(other, _)| other.contains(prefix));
        let inside = self.0.range(prefix..).take_while(|(other, _)| prefix.contains(*other));
        before.into_iter().chain(inside).map(|(other, owner)| (*other, owner.clone())).collect()
    }

    /// Adds the ranges of a persona, those that it has beyond uplinks too.
    pub fn insert(&mut self, record: &Record) {
        self.0.extend(Self::of(record).map(|range| (range, record.id.clone())));
    }

    /// Removes the ranges of a persona, as far as they are its own.
    pub fn remove(&mut self, record: &Record) {
        for range in Self::of(record) {
            if self.0.get(&range) == Some(&record.id) {
                self.0.remove(&range);
            }
        }
    }

    fn of(record: &Record) -> impl Iterator<Item = IpNet> {
        let aliases = record.aliases.iter().map(|(_, alias)| *alias);
        record.main_ranges().into_iter().chain(record.persona.nat().external().copied()).chain(aliases)
    }
}

/// Everything that only one persona can have, and sums that have a limit.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    names: BTreeMap<String, PersonaId>,
    prefixes: Prefixes,
    /// Ranges that go back to these when whoever took them ends.
    lent: BTreeSet<(IpNet, PersonaId)>,
    interfaces: BTreeMap<String, PersonaId>,
    places: BTreeMap<(Namespace, String), PersonaId>,
    blocks: BTreeMap<(u8, u32), usize>,
    /// Those with ranges that others know under other addresses.
    translated: BTreeSet<PersonaId>,
    totals: Totals,
}

#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    personas: usize,
    rules: usize,
    v6_prefixes: usize,
    peers: usize,
    limits: usize,
    promised_bps: [u64; 2],
}

impl Totals {
    fn of(persona: &Persona, policy: &Policy) -> Self {
        Self {
            personas: 1,
            rules: policy.ingress.len() + policy.egress.len(),
            v6_prefixes: persona.ranges().iter().filter(|range| range.addr().is_ipv6()).count(),
            peers: persona.peers().len(),
            limits: limits_of(policy),
            promised_bps: [Direction::Ingress, Direction::Egress].map(|direction| {
                let limit = persona.qos().and_then(|qos| qos.limit(direction));
                limit.map_or(0, |limit| limit.rate.bps())
            }),
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            personas: self.personas + other.personas,
            rules: self.rules + other.rules,
            v6_prefixes: self.v6_prefixes + other.v6_prefixes,
            peers: self.peers + other.peers,
            limits: self.limits + other.limits,
            promised_bps: both(self.promised_bps, other.promised_bps, u64::saturating_add),
        }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            personas: self.personas - other.personas,
            rules: self.rules - other.rules,
            v6_prefixes: self.v6_prefixes - other.v6_prefixes,
            peers: self.peers - other.peers,
            limits: self.limits - other.limits,
            promised_bps: both(self.promised_bps, other.promised_bps, u64::saturating_sub),
        }
    }
}

/// Rules with limits, over all personas. An update builds those of one persona beside; slot 0 is never used.
const LIMITS: usize = RATE_LIMITS as usize - 1 - RULES_PER_PERSONA as usize - BASELINE_RULES;

fn limits_of(policy: &Policy) -> usize {
    policy.terms.values().filter(|terms| terms.limit().is_some()).count()
}

impl Claims {
    /// The persona of this name.
    pub fn named(&self, name: &str) -> Option<&PersonaId> {
        self.names.get(name)
    }

    /// A prefix that overlaps this one and has an owner, or one that it goes back to.
    pub fn holder(&self, prefix: &IpNet) -> Option<IpNet> {
        let held = self.prefixes.overlapping(prefix).first().map(|(other, _)| *other);
        held.or_else(|| self.lent(prefix).next().map(|(other, _)| *other))
    }

    /// Ranges that overlap this one and were taken from their owners for a while, with those.
    pub fn lent(&self, prefix: &IpNet) -> impl Iterator<Item = &(IpNet, PersonaId)> {
        self.lent.iter().filter(move |(other, _)| prefix::overlaps(other, prefix))
    }

    /// Prefixes that overlap this one, with their owners.
    pub fn holders(&self, prefix: &IpNet) -> Vec<(IpNet, PersonaId)> {
        self.prefixes.overlapping(prefix)
    }

    /// Personas with ranges that others know under other addresses.
    pub fn translated(&self) -> impl Iterator<Item = &PersonaId> {
        self.translated.iter()
    }

    /// Whether a persona owns the interface.
    pub fn owns_interface(&self, name: &str) -> bool {
        self.interfaces.contains_key(name)
    }

    /// Adds what a persona claims.
    pub fn insert(&mut self, record: &Record) {
        let (persona, id) = (&record.persona, &record.id);
        self.names.insert(persona.name().to_owned(), id.clone());
        if record.life == Life::Elsewhere {
            return;
        }
        self.prefixes.insert(record);
        self.lent.extend(record.overridden.keys().map(|range| (*range, id.clone())));
        if record.virtuals.iter().next().is_some() {
            self.translated.insert(id.clone());
        }
        for attachment in persona.attachments() {
            self.interfaces.insert(attachment.name.clone(), id.clone());
        }
        for endpoint in persona.endpoints() {
            self.places.insert((endpoint.namespace.clone(), endpoint.interface.clone()), id.clone());
        }
        for block in record.main_ranges().iter().flat_map(blocks) {
            *self.blocks.entry(block).or_default() += 1;
        }
        self.totals = self.totals.plus(Totals::of(persona, &record.policy));
    }

    /// Removes what a persona claims; nothing if it let go already.
    pub fn remove(&mut self, record: &Record) {
        let (persona, id) = (&record.persona, &record.id);
        if self.names.get(persona.name()) != Some(id) {
            return;
        }
        self.names.remove(persona.name());
        if record.life == Life::Elsewhere {
            return;
        }
        self.prefixes.remove(record);
        for range in record.overridden.keys() {
            self.lent.remove(&(*range, id.clone()));
        }
        self.translated.remove(id);
        for attachment in persona.attachments() {
            self.interfaces.remove(&attachment.name);
        }
        for endpoint in persona.endpoints() {
            self.places.remove(&(endpoint.namespace.clone(), endpoint.interface.clone()));
        }
        for block in record.main_ranges().iter().flat_map(blocks) {
            if let Some(count) = self.blocks.get_mut(&block) {
                *count -= 1;
                if *count == 0 {
                    self.blocks.remove(&block);
                }
            }
        }
        self.totals = self.totals.minus(Totals::of(persona, &record.policy));
    }

    /// How many personas live here, and the bits a second that are promised to them each way.
    pub fn promised(&self) -> (usize, [u64; 2]) {
        (self.totals.personas, self.totals.promised_bps)
    }

    /// Refuses a persona that would exceed a limit of the data path.
    pub fn room(
        &self,
        persona: &Persona,
        virtuals: &Virtual,
        policy: &Policy,
        config: &Config,
    ) -> Result<(), Rejection> {
        let limits = &config.limits;
        let after = self.totals.plus(Totals::of(persona, policy));
        let ranges = persona.ranges().iter().map(|range| virtuals.main(range));
        let fresh = ranges.flat_map(|range| blocks(&range));
        let blocks = self.blocks.len() + fresh.filter(|block| !self.blocks.contains_key(block)).count();
        let mut problems = Problems::default();
        for (pointer, what, count, limit) in [
            ("", "personas", after.personas, limits.personas as usize),
            ("/security_policies", "compiled rules", after.rules, limits.rules as usize),
            ("/ip_range", "IPv6 prefixes", after.v6_prefixes, limits.ipv6_prefixes as usize),
            ("/ip_range", "blocks of the IPv4 table", blocks, V4_BLOCKS as usize),
            ("/peers", "peers", after.peers, limits.peers as usize),
        ] {
            if count > limit {
                problems.add(pointer, format!("the hub is full: {count} {what}, limit {limit}"));
            }
        }
        problems.settle(()).map_err(|problems| Rejection { kind: RejectionKind::Full, problems })?;
        if limits_of(policy) > 0 && after.limits > LIMITS {
            let detail = format!(
                "{} rules with `rate` or `max_connections_per_source` in all personas: use at most {LIMITS}; rules \
                 with ports and prefixes in lists share one",
                after.limits
            );
            let problems = vec![Problem::new("/security_policies", detail)];
            return Err(Rejection { kind: RejectionKind::Invalid, problems });
        }
        let overload = config.node.overload(after.personas, after.promised_bps);
        overload.map_or(Ok(()), |problem| {
            Err(Rejection { kind: RejectionKind::Invalid, problems: vec![problem] })
        })
    }

    /// What stands against a persona, its own claims not being among these. Ranges in `held` are not
    /// compared with foreign routes: the persona has them already. Of ranges that others know under other
    /// addresses those count.
    pub fn conflicts(
        &self,
        persona: &Persona,
        virtuals: &Virtual,
        held: &[IpNet],
        world: &World<'_>,
    ) -> Vec<Problem> {
        let mut problems = Problems::default();
        if let Some(id) = self.names.get(persona.name()) {
            problems.add("/name", format!("name `{}` belongs to {}", persona.name(), (world.describe)(id)));
        }
        for (index, range) in persona.ranges().iter().enumerate() {
            let pointer = range_pointer(world.single_range, index);
            let range = &virtuals.main(range);
            for (other, owner) in self.prefixes.overlapping(range) {
                problems.add(&pointer, format!("{range} overlaps {other} of {}", (world.describe)(&owner)));
            }
            if let Some((other, owner)) = self.lent(range).find(|_| !persona.overrides()) {
                let owner = (world.describe)(owner);
                problems.add(&pointer, format!("{range} overlaps {other}, which goes back to {owner}"));
            }
            let given = !persona.allotted().values().any(|allotted| allotted == range);
            for (name, pool) in world.config.pools.iter().filter(|_| given) {
                if let Some(other) = pool.prefixes.iter().find(|other| prefix::overlaps(other, range)) {
                    problems.add(&pointer, format!("{range} overlaps {other} of pool `{name}`: use `auto`"));
                }
            }
            if held.contains(range) {
                continue;
            }
            let foreign = world.inventory.foreign_routes.iter().filter(|other| !is_default(other));
            if let Some(other) = foreign.clone().find(|other| prefix::overlaps(other, range)) {
                problems.add(&pointer, format!("{range} overlaps {other}, which the kernel routes already: use another range, or remove that route"));
            }
        }
        for external in persona.nat().external() {
            let lent = self.lent(external).cloned();
            for (other, owner) in self.prefixes.overlapping(external).into_iter().chain(lent) {
                let detail = format!("{external} overlaps {other} of {}", (world.describe)(&owner));
                problems.add("/egress/nat/static", detail);
            }
        }
        self.place_conflicts(&mut problems, persona, world);
        problems.into_vec()
    }

    fn place_conflicts(&self, problems: &mut Problems, persona: &Persona, world: &World<'_>) {
        for (index, attachment) in persona.attachments().iter().enumerate() {
            let name = &attachment.name;
            let pointer = format!("/interfaces/{index}");
            if let Some(owner) = self.interfaces.get(name) {
                problems.add(&pointer, format!("interface `{name}` belongs to {}", (world.describe)(owner)));
            }
            let role = world.config.interfaces.iter().find(|interface| interface.fits(name));
            if role.is_some_and(|interface| interface.role == Role::Uplink) {
                problems.add(&pointer, format!("interface `{name}` is an uplink of the hub"));
            }
        }
        for (index, endpoint) in persona.endpoints().iter().enumerate() {
            let place = (endpoint.namespace.clone(), endpoint.interface.clone());
            if let Some(owner) = self.places.get(&place) {
                let detail = format!(
                    "`{}` in that namespace is made by {}: use another `interface`",
                    endpoint.interface,
                    (world.describe)(owner)
                );
                problems.add(format!("/endpoints/{index}/interface"), detail);
            }
        }
    }
}

/// What is around personas when one is admitted.
pub struct World<'a> {
    /// Configuration.
    pub config: &'a Config,
    /// State of the kernel.
    pub inventory: &'a Inventory,
    /// Names a persona in messages.
    pub describe: &'a dyn Fn(&PersonaId) -> String,
    /// Whether `ip_range` was written without a list.
    pub single_range: bool,
}

/// Both directions at once.
fn both([a, b]: [u64; 2], [c, d]: [u64; 2], with: fn(u64, u64) -> u64) -> [u64; 2] {
    [with(a, c), with(b, d)]
}

/// Where `ip_range` says a range.
pub fn range_pointer(single: bool, index: usize) -> String {
    if single { "/ip_range".to_owned() } else { format!("/ip_range/{index}") }
}

/// Routes so wide that they are default routes in pieces, as VPN clients make them.
fn is_default(route: &IpNet) -> bool {
    route.prefix_len() < 8
}

/// Blocks of the data path's IPv4 table that a range needs: one for each /16 that it divides, and one
/// for each /24.
fn blocks(range: &IpNet) -> impl Iterator<Item = (u8, u32)> + use<> {
    let (start, length) = match range {
        IpNet::V4(range) => (u32::from(range.network()), range.prefix_len()),
        IpNet::V6(_) => (0, 0),
    };
    [16, 24].into_iter().filter(move |level| length > *level).map(move |level| (level, start >> (32 - level)))
}
