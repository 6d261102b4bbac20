//! The steps from a frame to a verdict, in their order.

use std::net::IpAddr;

use hub_common::event::Reason;

use super::changes::{Change, Decision};
use super::flows::is_pure_syn;
use super::headers::Piece;
use super::kinds::{asks_for_address, is_group, is_link_local, stays_on_link};
use super::rules::{Question, Side, Terms, ask};
use super::{Entry, Flow, Headers, Life, Model, Parsed, Role, Stamp, Tuple, Verdict, icmp, parse};
use crate::packet::flags::{ACK, FIN, RST, SYN};

/// A packet with the segments of its ends.
pub(super) struct Judged {
    pub(super) packet: Headers,
    pub(super) segments: [Option<u32>; 2],
    from_member: bool,
    pub(super) from_host: bool,
    pub(super) now: u64,
}

pub(super) type Step = Result<(), Verdict>;

pub(super) fn refuse<T>(reason: Reason) -> Result<T, Verdict> {
    Err(Verdict::Drop(reason))
}

impl Model {
    /// Judges a packet without remembering anything.
    pub fn decide(&self, entry: Entry, frame: &[u8], now_tick: u64) -> Decision {
        let mut changes = Vec::new();
        let verdict = match self.steps(entry, frame, now_tick, &mut changes) {
            Ok(()) => Verdict::Pass,
            Err(verdict) => verdict,
        };
        Decision { verdict, changes }
    }

    fn steps(&self, entry: Entry, frame: &[u8], now: u64, changes: &mut Vec<Change>) -> Step {
        let role = self.role(entry)?;
        let packet = self.ip(role, frame)?;
        // A later fragment has the ports of the first from where it is joined with it.
        let mut joined = packet.clone();
        match self.policed(entry, role, packet, now, changes, &mut joined) {
            // Whatever the policies say, the host stays reachable.
            // A cap is of bandwidth, not of reach.
            Err(Verdict::Drop(Reason::Policed)) => refuse(Reason::Policed),
            Err(Verdict::Drop(_) | Verdict::Reject(_))
                if role == Role::Uplink && self.is_failsafe(entry, &joined) =>
            {
                changes.retain(|change| !matches!(change, Change::Isolate(..)));
                Err(Verdict::Skip)
            }
            other => other,
        }
    }

    fn policed(
        &self,
        entry: Entry,
        role: Role,
        packet: Headers,
        now: u64,
        changes: &mut Vec<Change>,
        joined: &mut Headers,
    ) -> Step {
        if packet.protocol == 58 && packet.source.is_ipv6() && icmp::is_neighbour(packet.icmp_type) {
            let sent_by_member = matches!(entry, Entry::In(_)) && role != Role::Uplink;
            if sent_by_member && icmp::is_routers(packet.icmp_type) {
                return refuse(Reason::RouterAdvertisement);
            }
            if let Some(asked) = packet.asked.filter(|_| sent_by_member) {
                self.own_gateway(role, packet.source, asked)?;
            }
            // Nobody forwards it: what does not stay on its link is a packet like any other.
            let from_host = matches!(entry, Entry::Out { came_by: 0, .. });
            if from_host && packet.icmp_type == icmp::REDIRECT {
                return refuse(Reason::RouterAdvertisement);
            }
            let to_link = is_group(packet.target) || is_link_local(packet.target);
            if from_host || to_link || self.locals.contains(&packet.target) {
                return Err(Verdict::Skip);
            }
        }
        if packet.source == packet.target && self.segment_of(packet.source).is_some() {
            return refuse(Reason::Land);
        }
        let mut judged = self.classify(entry, role, packet, now)?;
        for segment in judged.segments.into_iter().flatten() {
            match self.alive(segment, now) {
                // Who still sends on a connection of TCP that the deadline cut is told.
                Err(Verdict::Drop(Reason::Expired)) if self.is_cut(&judged) => {
                    return Err(Verdict::Reject(Reason::Expired));
                }
                other => other?,
            }
        }
        for segment in judged.segments.into_iter().flatten() {
            self.isolated(segment, &judged.packet, now)?;
        }
        self.join_fragments(&mut judged)?;
        joined.clone_from(&judged.packet);
        let flags = judged.packet.tcp_flags;
        let shape = flags & (SYN | ACK | RST | FIN);
        if judged.packet.protocol == 6 && (shape == 0 || (flags & SYN != 0 && flags & (FIN | RST) != 0)) {
            return refuse(Reason::TcpFlags);
        }
        let untracked = judged.packet.quoted.is_none()
            && !judged.from_host
            && self.is_untracked(Tuple::of(&judged.packet), judged.segments, judged.now);
        match self.find(&judged) {
            _ if untracked => {}
            Some(flow) => self.established(flow, &judged, changes)?,
            None => self.first_packet(&judged, changes)?,
        }
        let capped = |segment: &u32| self.segments.get(segment).is_some_and(|segment| segment.capped);
        if judged.segments.iter().flatten().any(capped) {
            // As if it had never come.
            changes.clear();
            return refuse(Reason::Policed);
        }
        // An ICMP error is too short to be cut up (RFC 1812 section 4.3.2.3, RFC 4443 section 2.4).
        if matches!(judged.packet.piece, Piece::First(_)) && judged.packet.quoted.is_none() {
            let until = now + self.timeouts.fragment;
            changes.push(Change::Remember(Box::new(judged.packet), until));
        }
        Ok(())
    }

    fn role(&self, entry: Entry) -> Result<Role, Verdict> {
        let (port, outward) = match entry {
            // The port it came in by has judged it.
            Entry::Out { came_by, .. } if self.ports.contains_key(&came_by) => return Err(Verdict::Skip),
            Entry::Out { port, .. } => (port, true),
            Entry::In(port) => (port, false),
        };
        let Some(role) = self.ports.get(&port) else { return refuse(Reason::NoPort) };
        // What leaves the hub is judged like what comes from the rest of the network.
        Ok(if outward { Role::Uplink } else { *role })
    }

    fn ip(&self, role: Role, frame: &[u8]) -> Result<Headers, Verdict> {
        let uplink = role == Role::Uplink;
        match parse(frame) {
            Ok(Parsed::Ip(headers)) => Ok(headers),
            Ok(Parsed::Arp(message)) => Err(self.arp(role, message)),
            Ok(Parsed::Other | Parsed::Tagged) if uplink => Err(Verdict::Skip),
            Ok(Parsed::Other) => refuse(Reason::Ethertype),
            Ok(Parsed::Tagged) => refuse(Reason::Vlan),
            Err(Reason::Martian) if uplink && asks_for_address(frame) => Err(Verdict::Skip),
            Err(reason) => refuse(reason),
        }
    }

    /// Traffic of the host itself that no policy may cut.
    fn is_failsafe(&self, entry: Entry, packet: &Headers) -> bool {
        match entry {
            Entry::In(_) => {
                self.locals.contains(&packet.target)
                    && self.failsafe.contains(&(packet.protocol, packet.target_port))
            }
            Entry::Out { .. } => {
                self.locals.contains(&packet.source)
                    && self.failsafe.contains(&(packet.protocol, packet.source_port))
            }
        }
    }

    fn classify(&self, entry: Entry, role: Role, packet: Headers, now: u64) -> Result<Judged, Verdict> {
        let source = self.segment_of(packet.source);
        // The hub's own addresses are nobody's, also within the range of a segment.
        let local = self.locals.contains(&packet.target);
        let target = self.segment_of(packet.target).filter(|_| !local);
        let from_member = matches!(entry, Entry::In(_)) && role != Role::Uplink;
        let own = self.locals.contains(&packet.source);
        let source = match (entry, role) {
            (Entry::In(_), _) if own => return refuse(Reason::Spoof),
            (Entry::In(_), Role::Uplink) if source.is_some() => return refuse(Reason::Spoof),
            (Entry::Out { came_by, .. }, _) if came_by != 0 && source.is_some() => {
                return refuse(Reason::Spoof);
            }
            (Entry::Out { .. }, _) | (Entry::In(_), Role::Uplink) => None,
            (Entry::In(_), Role::Segment(bound)) if source != Some(bound) => return refuse(Reason::Spoof),
            (Entry::In(_), Role::Shared) if source.is_none() => return refuse(Reason::Spoof),
            (Entry::In(_), Role::Segment(_) | Role::Shared) => source,
        };
        if from_member && (is_group(packet.target) || is_link_local(packet.target)) {
            return refuse(Reason::Multicast);
        }
        if source.is_none() && target.is_none() {
            return Err(Verdict::Skip);
        }
        let from_host = matches!(entry, Entry::Out { came_by: 0, .. });
        if stays_on_link(packet.source) && !from_member && !from_host && target.is_some() {
            return refuse(Reason::Martian);
        }
        Ok(Judged { packet, segments: [source, target], from_member, from_host, now })
    }

    fn alive(&self, segment: u32, now: u64) -> Step {
        let Some(segment) = self.segments.get(&segment) else { return refuse(Reason::NoPolicy) };
        if segment.policy.is_none() {
            refuse(Reason::NoPolicy)
        } else if now >= segment.expires_tick {
            refuse(Reason::Expired)
        } else if segment.life == Life::Block {
            refuse(Reason::Blocked)
        } else {
            Ok(())
        }
    }

    fn is_cut(&self, judged: &Judged) -> bool {
        let packet = &judged.packet;
        let is_later = matches!(packet.piece, Piece::Later(_));
        packet.protocol == 6 && !is_later && self.live(Tuple::of(packet), judged.now).is_some()
    }

    fn join_fragments(&self, judged: &mut Judged) -> Step {
        let Piece::Later(id) = judged.packet.piece else { return Ok(()) };
        let packet = &judged.packet;
        let first = self.fragments.iter().rev().find(|first| {
            (first.headers.source, first.headers.target) == (packet.source, packet.target)
                && first.id == id
                && first.protocol.is_none_or(|protocol| protocol == packet.protocol)
        });
        let Some(first) = first.filter(|first| judged.now <= first.until_tick) else {
            return refuse(Reason::FragmentUnknown);
        };
        judged.packet = Headers { piece: judged.packet.piece, ..first.headers.clone() };
        Ok(())
    }

    /// The live flow of a packet.
    fn find(&self, judged: &Judged) -> Option<&Flow> {
        self.live(Tuple::of(&judged.packet), judged.now).filter(|flow| !flow.is_reopened_by(&judged.packet))
    }

    pub(super) fn live(&self, tuple: Tuple, now: u64) -> Option<&Flow> {
        self.flows
            .iter()
            .find(|flow| flow.tuple() == tuple || flow.tuple() == tuple.reversed())
            .filter(|flow| !flow.is_stale(&self.timeouts, now))
    }

    fn established(&self, flow: &Flow, judged: &Judged, changes: &mut Vec<Change>) -> Step {
        let tuple = flow.tuple();
        let direction = usize::from(Tuple::of(&judged.packet) != tuple);
        let [source, target] = judged.segments;
        let segments = if direction == 0 { [source, target] } else { [target, source] };
        let (versions, generations) = (self.versions(segments), self.generations(segments));
        let unlimited = flow.limits == [None; 2];
        let must_ask = |end: usize| {
            let differs = versions[end] != flow.versions[end] || generations[end] != flow.generations[end];
            segments[end] != flow.segments[end] || (differs && !(unlimited && self.preserves(segments[end])))
        };
        let go = Change::Go(tuple, direction, judged.packet.tcp_flags, judged.now);
        // A gateway may have become another persona's, without a change of the policies.
        let parted = self.are_parted(segments, flow.opener.target);
        if must_ask(0) || must_ask(1) || flow.is_due || parted {
            let first = flow.first_packet(&judged.packet);
            let forward = direction == 0;
            let asked = self.policies(&first, segments, false, forward, judged.now, changes);
            match asked {
                Ok((limits, counted)) => {
                    let stamp = Stamp { segments, versions, generations, limits, counted };
                    changes.push(go);
                    changes.push(Change::Stamp(tuple, stamp));
                    return Ok(());
                }
                Err(refused) => {
                    if refused != Verdict::Drop(Reason::RateLimit) {
                        changes.push(Change::Cut(tuple));
                    }
                    return Err(refused);
                }
            }
        } else if direction == 0 {
            self.held(flow, segments, judged.packet.source, changes)?;
        }
        changes.push(go);
        Ok(())
    }

    /// Holds a packet to the limits that its flow was admitted with.
    fn held(
        &self,
        flow: &Flow,
        segments: [Option<u32>; 2],
        source: IpAddr,
        changes: &mut Vec<Change>,
    ) -> Step {
        let mut takes = Vec::new();
        for (slot, segment) in flow.limits.into_iter().zip(segments) {
            let Some(slot) = slot else { continue };
            if self.has_room(slot, source) {
                takes.push(Change::Take(self.bucket(slot, source)));
            } else if !self.audits(segment) {
                return refuse(Reason::RateLimit);
            }
        }
        changes.extend(takes);
        Ok(())
    }

    fn first_packet(&self, judged: &Judged, changes: &mut Vec<Change>) -> Step {
        let packet = &judged.packet;
        if let Some(quoted) = packet.quoted {
            return self.related(judged, quoted);
        }
        let drains = |number: &u32| {
            let segment = &self.segments[number];
            segment.life == Life::Drain || judged.now >= segment.drains_tick
        };
        if judged.segments.iter().flatten().any(drains) {
            return refuse(Reason::Draining);
        }
        let loose = judged.now < self.loose_tcp_until_tick;
        if packet.protocol == 6 && !is_pure_syn(packet.tcp_flags) && !loose {
            return refuse(Reason::NoFlow);
        }
        if packet.is_icmp() && icmp::is_reply(packet.source.is_ipv4(), packet.icmp_type) {
            return refuse(Reason::NoFlow);
        }
        if judged.from_member && self.locals.contains(&packet.target) && !packet.is_icmp() {
            return refuse(Reason::HubLocal);
        }
        let segments = judged.segments;
        let (limits, counted) = self.policies(packet, segments, true, true, judged.now, changes)?;
        let (versions, generations) = (self.versions(segments), self.generations(segments));
        let stamp = Stamp { segments, versions, generations, limits, counted };
        let flow = Flow::opened(packet.clone(), stamp, judged.now);
        changes.push(Change::Open(Box::new(flow)));
        Ok(())
    }

    /// Both policies and the pair, for a first packet. Answers limits: of later packets, and of connections.
    fn policies(
        &self,
        packet: &Headers,
        segments: [Option<u32>; 2],
        is_new: bool,
        forward: bool,
        now: u64,
        changes: &mut Vec<Change>,
    ) -> Result<(Slots, Slots), Verdict> {
        let mut takes = Vec::new();
        let (mut limits, mut counted) = ([None; 2], [None; 2]);
        let mut put = |side: Side, segment: u32| {
            let policy = self.segments[&segment].policy.as_ref().expect("checked by `alive`");
            let mut terms = Terms::default();
            let question = Question { model: self, segment, packet, is_new, forward, now };
            let answer = ask(policy, side, &question, &mut terms);
            if terms.isolates {
                changes.push(Change::Isolate(segment, packet.source));
            }
            limits[usize::from(side == Side::Ingress)] = terms.limit;
            counted[usize::from(side == Side::Ingress)] = terms.counted;
            takes.extend(terms.take.map(|slot| Change::Take(self.bucket(slot, packet.source))));
            answer
        };
        if let Some(source) = segments[0] {
            put(Side::Egress, source)?;
        }
        if self.are_parted(segments, packet.target) {
            return refuse(Reason::InterPersona);
        }
        if let Some(target) = segments[1] {
            put(Side::Ingress, target)?;
        }
        changes.extend(takes);
        Ok((limits, counted))
    }

    /// Whether the ends of a flow to this target are of two personas that may not talk.
    fn are_parted(&self, segments: [Option<u32>; 2], target: IpAddr) -> bool {
        // A gateway is the hub's own, and for the persona whose range it is in.
        let gateway = || self.segment_of(target).filter(|_| self.locals.contains(&target));
        let ends = segments[0].zip(segments[1].or_else(gateway));
        ends.is_some_and(|(a, b)| a != b && !self.peers.contains(&(a.min(b), a.max(b))))
    }
}

/// A limit of each side's policy.
type Slots = [Option<u16>; 2];
