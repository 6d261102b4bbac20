//! Random worlds: hubs with policies, and packets that have something to do with them.
//!
//! Everything follows from one seed. Addresses, ports and types are drawn from those that the policies
//! speak of, or next to them, so that matches and near misses are both common.

mod damage;
mod lists;
mod policy;
mod random;
mod range;
mod traffic;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::model::{Life, Model, Prefix, Role, Segment};
pub use random::Random;
pub use traffic::{Packet, Traffic};

use range::{around, inside, masked};

/// Interfaces that the packets of a world come in by.
#[derive(Clone, Debug)]
pub struct Interfaces {
    /// Towards the rest of the network.
    pub uplink: u32,
    /// Each bound to one segment: the first to segment 1, and so on.
    pub bound: Vec<u32>,
    /// Shared by all segments.
    pub shared: u32,
    /// In no port table.
    pub unknown: u32,
}

/// A hub with everything that its packets are drawn from.
#[derive(Clone, Debug)]
pub struct World {
    /// The hub.
    pub model: Model,
    /// Where its packets come in.
    pub interfaces: Interfaces,
    /// Addresses that packets are drawn from, of members and next to them.
    pub(crate) members: Vec<IpAddr>,
    /// Addresses outside of every segment.
    pub(crate) remotes: Vec<IpAddr>,
    /// Ports that rules speak of, and their neighbours.
    pub(crate) ports: Vec<u16>,
}

/// Segments that a world has at most.
pub const SEGMENTS: u32 = 5;

impl World {
    /// A world from a source of randomness.
    pub fn new(random: &mut Random, interfaces: Interfaces) -> Self {
        let mut world = Self {
            model: Model::default(),
            interfaces,
            members: Vec::new(),
            remotes: remotes(),
            ports: vec![22, 53, 80, 443, 4_000, 40_000],
        };
        world.add_prefixes(random);
        world.add_locals(random);
        world.add_lists(random);
        for number in 1..=SEGMENTS {
            let segment = world.segment(random);
            world.model.segments.insert(number, segment);
            for other in 1..number {
                if random.chance(60) {
                    world.model.peers.insert((other, number));
                }
            }
        }
        if random.chance(5) {
            world.model.segments.remove(&SEGMENTS);
        }
        world.model.ports.insert(world.interfaces.uplink, Role::Uplink);
        world.model.ports.insert(world.interfaces.shared, Role::Shared);
        for (segment, interface) in (1..).zip(&world.interfaces.bound) {
            world.model.ports.insert(*interface, Role::Segment(segment));
        }
        world.model.failsafe.extend([(6, 22), (17, 53)]);
        if random.chance(20) {
            world.model.loose_tcp_until_tick = u64::MAX;
        }
        world
    }

    /// Gives a segment another policy, as an operator would who edits a persona.
    pub fn edit(&mut self, random: &mut Random, number: u32) {
        let mut segment = self.segment(random);
        if let Some(old) = self.model.segments.get(&number) {
            segment.version = old.version + 1;
            segment.set_generation = old.set_generation;
        }
        self.model.segments.insert(number, segment);
    }

    /// Takes a range from its segment and gives it to another, or to none.
    pub fn move_prefix(&mut self, random: &mut Random) {
        let prefixes = &mut self.model.prefixes;
        if prefixes.len() > 4 {
            let mut prefix = prefixes.swap_remove(random.below(prefixes.len()));
            if random.chance(60) {
                prefix.segment = 1 + random.below(SEGMENTS as usize) as u32;
                prefixes.push(prefix);
            }
        }
    }

    fn segment(&mut self, random: &mut Random) -> Segment {
        let life = random.one_of(&[(93, Life::Active), (4, Life::Drain), (3, Life::Block)]);
        let policy = self.policy(random);
        let timed = policy.ingress.len().is_multiple_of(2);
        let rules = policy.ingress.len() * 5 + policy.egress.len();
        Segment {
            policy: random.chance(98).then_some(policy),
            version: 1,
            // Those that drain do so by their state, or from a moment on.
            drains_tick: if life == Life::Drain && timed { 1 } else { u64::MAX },
            life: if life == Life::Drain && timed { Life::Active } else { life },
            expires_tick: if random.chance(97) { u64::MAX } else { 1 },
            // Any value that differs between segments: the sequence of random numbers stays as it is.
            capped: rules % 16 == 13,
            set_generation: 1,
            connections: (rules % 16 == 6).then_some(2),
        }
    }

    fn add_prefixes(&mut self, random: &mut Random) {
        for segment in 1..=SEGMENTS {
            for v4 in [true, false] {
                for _ in 0..=random.below(2) {
                    let prefix = self.prefix(random, segment, v4);
                    let taken = self
                        .model
                        .prefixes
                        .iter()
                        .any(|other| (other.address, other.bits) == (prefix.address, prefix.bits));
                    if !taken {
                        self.members.extend(around(random, prefix));
                        self.model.prefixes.push(prefix);
                    }
                }
            }
        }
    }

    /// A range of a segment: its own, or a part of one that there is already.
    fn prefix(&self, random: &mut Random, segment: u32, v4: bool) -> Prefix {
        let within: Vec<Prefix> =
            self.model.prefixes.iter().filter(|prefix| prefix.address.is_ipv4() == v4).copied().collect();
        let (address, least) = match random.pick(&within) {
            Some(outer) if random.chance(50) => (inside(random, outer), outer.bits),
            _ if v4 => (IpAddr::V4(Ipv4Addr::new(10, segment as u8, random.byte(), random.byte())), 12),
            _ => {
                let low = random.next();
                let high = 0x2001_0db8_0000_0000 | u64::from(segment) << 16 | low & 0xffff;
                (IpAddr::V6(Ipv6Addr::from(u128::from(high) << 64 | u128::from(low))), 24)
            }
        };
        let usual: &[u8] =
            if v4 { &[16, 20, 23, 24, 25, 28, 30, 32] } else { &[40, 48, 56, 60, 64, 80, 127, 128] };
        let bits = random.pick(usual).unwrap().max(least);
        Prefix { address: masked(address, bits), bits, segment }
    }

    fn add_locals(&mut self, random: &mut Random) {
        self.model
            .locals
            .extend(["203.0.113.1", "2001:db8:beef::1"].map(|text| text.parse::<IpAddr>().unwrap()));
        for _ in 0..3 {
            let gateway = random.pick(&self.members).unwrap();
            self.model.locals.insert(gateway);
            if random.chance(50) {
                self.model.gateways.insert((1 + random.below(SEGMENTS as usize) as u32, gateway));
            }
        }
    }
}

fn remotes() -> Vec<IpAddr> {
    ["192.0.2.1", "192.0.2.80", "198.51.100.7", "8.8.8.8", "2001:db8:ffff::1", "2001:db8:ffff::80", "2600::9"]
        .map(|text| text.parse().unwrap())
        .to_vec()
}
