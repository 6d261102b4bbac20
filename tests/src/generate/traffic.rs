//! Random packets for a world: first ones, answers, errors about them, pieces of them, and broken ones.

use std::net::{IpAddr, Ipv4Addr};

use super::damage::{damage, oddity};
use super::policy::PROTOCOLS;
use super::{Random, World};
use crate::model::{Entry, Role};
use crate::packet::flags::{ACK, FIN, PSH, RST, SYN};
use crate::packet::{Datagram, SOURCE_MAC, TARGET_MAC, Transport, arp};

/// Neighbour solicitation (RFC 4861).
const SOLICITATION: u8 = 135;

/// A frame with the place where it meets the hub.
#[derive(Clone, Debug)]
pub struct Packet {
    /// Where.
    pub entry: Entry,
    /// The frame.
    pub frame: Vec<u8>,
}

/// Remembers what was sent, so that later packets have something to do with earlier ones.
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    sent: Vec<Datagram>,
    pieces: Vec<Datagram>,
    remembered_last: bool,
}

/// Packets that answers and errors may refer to.
const SENT: usize = 24;

impl Traffic {
    /// The next packet.
    pub fn packet(&mut self, random: &mut Random, world: &World) -> Packet {
        self.remembered_last = false;
        let datagram = self.datagram(random, world);
        let entry = entry(random, world, &datagram);
        let mut frame = datagram.frame();
        if random.chance(1) {
            return question(random, world);
        }
        if random.chance(6) {
            frame = damage(random, frame);
        }
        Packet { entry, frame }
    }

    /// Takes note that the last packet did not pass: most senders give up.
    pub fn refused(&mut self, random: &mut Random) {
        if self.remembered_last && random.chance(60) {
            self.sent.pop();
        }
        self.remembered_last = false;
    }

    fn datagram(&mut self, random: &mut Random, world: &World) -> Datagram {
        if !self.pieces.is_empty() && random.chance(30) {
            let next = if random.chance(80) { 0 } else { random.below(self.pieces.len()) };
            return self.pieces.remove(next);
        }
        let earlier = random.pick(&self.sent);
        let datagram = match (random.below(100), earlier) {
            (0..40, Some(earlier)) => earlier.answer(tcp_flags(random, true)),
            (40..50, Some(earlier)) => again(random, earlier),
            (50..60, Some(earlier)) => error_about(random, world, &earlier),
            _ => first(random, world),
        };
        if random.chance(5) && datagram.extensions.is_empty() {
            return self.in_pieces(random, datagram);
        }
        if random.chance(6) {
            return oddity(random, datagram);
        }
        if self.sent.len() == SENT {
            self.sent.remove(0);
        }
        self.sent.push(datagram.clone());
        self.remembered_last = true;
        datagram
    }

    /// Cuts a packet up and returns the first piece, or now and then another one.
    fn in_pieces(&mut self, random: &mut Random, datagram: Datagram) -> Datagram {
        let size = random.pick(&[8, 16, 24, 40, 64]).unwrap();
        let mut datagram = datagram.with_id(random.byte().into());
        datagram.transport.payload().resize(80, 7);
        let mut pieces = datagram.fragments(size);
        if random.chance(10) {
            pieces.swap(0, 1);
        }
        let now = pieces.remove(0);
        self.pieces = pieces;
        now
    }
}

/// ARP that asks for an address of the hub, or for another.
fn question(random: &mut Random, world: &World) -> Packet {
    let v4 = |address: &IpAddr| match address {
        IpAddr::V4(v4) => Some(*v4),
        IpAddr::V6(_) => None,
    };
    let members: Vec<Ipv4Addr> = world.members.iter().filter_map(v4).collect();
    let locals: Vec<Ipv4Addr> = world.model.locals.iter().filter_map(v4).collect();
    let sender = if random.chance(10) { None } else { random.pick(&members) };
    let known = if random.chance(80) { locals } else { members };
    let asked = random.pick(&known);
    let operation = random.one_of(&[(9, 1), (1, 2)]);
    let port = match sender {
        Some(sender) => interface(random, world, sender.into()),
        // A probe for duplicates.
        None => random.pick(&[world.interfaces.shared, world.interfaces.bound[0]]).unwrap(),
    };
    let sender = sender.unwrap_or(Ipv4Addr::UNSPECIFIED);
    let message = arp(operation, sender, asked.unwrap_or(sender));
    Packet { entry: Entry::In(port), frame: [&TARGET_MAC[..], &SOURCE_MAC, &[8, 6], &message].concat() }
}

/// Where a packet meets the hub: behind its source, as a rule, or on its way out to a member.
fn entry(random: &mut Random, world: &World, datagram: &Datagram) -> Entry {
    let from_host = world.model.locals.contains(&datagram.source);
    if from_host && random.chance(70) || random.chance(2) {
        let port = interface(random, world, datagram.target);
        let foreign = random.one_of(&[(4, world.interfaces.unknown), (1, world.interfaces.uplink)]);
        // The host sends from its own addresses only.
        return Entry::Out { port, came_by: if from_host { 0 } else { foreign } };
    }
    Entry::In(interface(random, world, datagram.source))
}

/// The interface behind which an address is, as a rule.
fn interface(random: &mut Random, world: &World, source: IpAddr) -> u32 {
    let all = &world.interfaces;
    match random.below(1000) {
        0..2 => return all.unknown,
        2..40 => {
            let mut any = all.bound.clone();
            any.extend([all.uplink, all.shared]);
            return random.pick(&any).unwrap();
        }
        _ => {}
    }
    let Some(segment) = world.model.segment_of(source) else { return all.uplink };
    let bound = all.bound.iter().find(|port| world.model.ports.get(port) == Some(&Role::Segment(segment)));
    match bound {
        Some(port) if random.chance(70) => *port,
        _ => all.shared,
    }
}

fn first(random: &mut Random, world: &World) -> Datagram {
    let v4 = random.chance(50);
    let of_family = |addresses: &[IpAddr]| -> Vec<IpAddr> {
        addresses.iter().filter(|address| address.is_ipv4() == v4).copied().collect()
    };
    let members = of_family(&world.members);
    let remotes = of_family(&world.remotes);
    let locals = of_family(&world.model.locals.iter().copied().collect::<Vec<_>>());
    let (from, to) = match random.below(100) {
        0..45 => (&remotes, &members),
        45..75 => (&members, &remotes),
        75..90 => (&members, &members),
        90..93 => (&members, &locals),
        93..95 => (&remotes, &locals),
        95..98 => (&locals, &members),
        _ => (&remotes, &remotes),
    };
    let mut source = random.pick(from).unwrap_or(remotes[0]);
    let mut target = random.pick(to).unwrap_or(remotes[0]);
    if random.chance(2) {
        target = special(random, v4);
    } else if random.chance(1) {
        source = special(random, v4);
    }
    Datagram::new(source, target, transport(random, world, v4)).with_ttl(random.one_of(&[
        (90, 64),
        (5, 1),
        (3, 2),
        (2, 0),
    ]))
}

/// An address that is more than one host's, or nobody's.
fn special(random: &mut Random, v4: bool) -> IpAddr {
    let all = if v4 {
        ["224.0.0.5", "255.255.255.255", "169.254.1.1", "127.0.0.1", "0.0.0.0", "240.0.0.1"]
    } else {
        ["ff02::1", "fe80::1", "::1", "::", "::ffff:10.1.2.3", "ff0e::5"]
    };
    random.pick(&all).unwrap().parse().unwrap()
}

fn transport(random: &mut Random, world: &World, v4: bool) -> Transport {
    let source = random.pick(&world.ports).unwrap();
    let target = random.pick(&world.ports).unwrap();
    match random.below(100) {
        0..45 => Transport::tcp(source, target, tcp_flags(random, false)),
        45..70 => Transport::udp(source, target),
        70..74 => Transport::sctp(source, target),
        74..94 => icmp(random, world, v4),
        94..96 => Transport::gre(),
        _ => {
            let protocol = if random.chance(70) { random.pick(&PROTOCOLS).unwrap() } else { random.byte() };
            let mut payload = vec![0; random.below(40)];
            payload.fill_with(|| random.byte());
            Transport::Raw { protocol, payload }
        }
    }
}

fn icmp(random: &mut Random, world: &World, v4: bool) -> Transport {
    let usual: &[(usize, u8)] = if v4 {
        &[(60, 8), (10, 0), (8, 13), (4, 14), (4, 9), (4, 10), (4, 3), (2, 5), (4, 42)]
    } else {
        &[
            (55, 128),
            (10, 129),
            (6, 135),
            (5, 136),
            (4, 134),
            (3, 137),
            (4, 143),
            (4, 1),
            (4, 139),
            (3, 140),
            (2, 151),
        ]
    };
    let kind = random.one_of(usual);
    let code = random.one_of(&[(85, 0), (10, 1), (5, 7)]);
    let id = random.pick(&[1, 80, 443, 4_000]).unwrap();
    let [high, low] = u16::to_be_bytes(id);
    let mut payload = vec![5; random.below(30)];
    if !v4 && kind == SOLICITATION && random.chance(70) {
        let locals = world.model.locals.iter().filter_map(|address| match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => Some(address.octets()),
        });
        let asked = random.pick(&locals.collect::<Vec<_>>());
        payload.splice(0..0, asked.into_iter().flatten());
    }
    Transport::Icmp { kind, code, rest: [high, low, 0, 1], payload }
}

fn tcp_flags(random: &mut Random, answer: bool) -> u8 {
    let opening = if answer { SYN | ACK } else { SYN };
    random.one_of(&[
        (60, opening),
        (18, ACK),
        (6, ACK | PSH),
        (6, FIN | ACK),
        (4, RST),
        (2, RST | ACK),
        (2, SYN),
        (1, 0),
        (1, SYN | FIN),
        (1, SYN | RST),
        (1, 0xff),
    ])
}

/// The same ends once more.
fn again(random: &mut Random, mut datagram: Datagram) -> Datagram {
    if let Transport::Tcp { flags, .. } = &mut datagram.transport {
        *flags = tcp_flags(random, false);
    }
    datagram
}

fn error_about(random: &mut Random, world: &World, earlier: &Datagram) -> Datagram {
    let v4 = earlier.source.is_ipv4();
    let routers: Vec<IpAddr> = world.remotes.iter().filter(|a| a.is_ipv4() == v4).copied().collect();
    let router = if random.chance(50) { earlier.target } else { random.pick(&routers).unwrap() };
    let kinds: &[u8] = if v4 { &[3, 3, 3, 11, 12, 4, 5] } else { &[1, 2, 3, 4, 100] };
    let mut error = Datagram::error_about(router, earlier, random.pick(kinds).unwrap(), 1);
    if random.chance(10) {
        error.target = random.pick(&world.members).filter(|a| a.is_ipv4() == v4).unwrap_or(error.target);
    }
    error
}
