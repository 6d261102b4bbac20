//! What quality of service a persona contributes: a shape in the data path, queues on interfaces.
//! With `qos.engine: edt` packets wait in `fq` until a time that the data path gives them: no classes.
//!
//! Towards members the queues are on the persona's own ports, from members on uplinks and on the ports of
//! peers. Where that are several interfaces the data path caps them together, a little above what one has, so that
//! on one alone its queue decides. Where an interface has a queue of somebody else, or the segment's number has no
//! class, the direction is capped by the data path instead.

use std::collections::{BTreeMap, BTreeSet};

use hub_common::segment::SEGMENT_SHAPED;
use hub_common::shape::{self, EGRESS, INGRESS, SHAPED_SEGMENTS};

use super::Record;
use super::place::Ground;
use crate::desired::queues::{
    Class, LINK_BPS, LINK_CLASS, Plan, Queue, QueueKey, QueuePlace, Shape, with_ip_headers,
};
use crate::desired::{Desired, Role};
use crate::model::SegmentId;
use crate::model::dscp::Dscp;
use crate::model::persona::Persona;
use crate::model::qos::{LATENCY, Qos};
use crate::model::rule::{Direction, Rule};

/// Packets of full length that a queue should have room for.
const PACKETS: u64 = 10;
const PACKET_BITS: u64 = 12_000;
/// Largest packet on interfaces that do not say: endpoints that are not there yet.
const MTU: u32 = 1_500;

/// `SEGMENT_*` bits of a persona.
pub fn flags(persona: &Persona) -> u32 {
    let marks = has_rules(persona);
    let shaped = persona.qos().is_some_and(|qos| qos.is_limited() || qos.dscp().is_some()) || marks;
    if shaped { SEGMENT_SHAPED } else { 0 }
}

fn has_rules(persona: &Persona) -> bool {
    persona.rules.rules.iter().any(|rule| rule.dscp().is_some() || rule.priority().is_some())
}

/// Adds shapes and queues of personas whose ports are in `desired`. Where one has a queue, or queues `stand`
/// without, all uplinks and ports of personas have roots.
pub fn contribute(desired: &mut Desired, records: &[&Record], ground: &Ground<'_>, stands: bool) {
    let shaped = |persona: &Persona| flags(persona) & SEGMENT_SHAPED != 0;
    let any = records.iter().any(|record| shaped(&record.persona) || trial(record).is_some_and(shaped));
    if records.is_empty() || !(any || stands) {
        return;
    }
    let uplinks: BTreeSet<String> = desired
        .ports
        .iter()
        .filter(|(_, port)| port.role == Role::Uplink)
        .map(|(name, _)| name.clone())
        .collect();
    let ports: BTreeMap<SegmentId, BTreeSet<String>> =
        records.iter().map(|record| (record.segment, members(desired, record, ground))).collect();
    let mut waiting = Vec::new();
    for record in records {
        // What is on trial has a shape that may become the live one, and no queues yet.
        if let Some(persona) = trial(record).filter(|persona| shaped(persona)) {
            let mut beside =
                Desired { ports: desired.ports.clone(), peers: desired.peers.clone(), ..Desired::default() };
            let shape = shape(&mut beside, (record, persona), &uplinks, &ports, ground);
            desired.trial_shapes.insert(record.segment, shape);
            // What an interface may have next has them before it decides: no packet looks for a queue in vain.
            if persona.carried().is_some() {
                waiting.push(beside.queues);
            }
        }
        if shaped(&record.persona) {
            let shape = shape(desired, (record, &record.persona), &uplinks, &ports, ground);
            desired.shapes.insert(record.segment, shape);
        }
    }
    for (key, queue) in waiting.iter().flatten() {
        if !desired.queues.contains_key(key) {
            desired.queues.insert(key.clone(), *queue);
        }
    }
    if stands || !desired.queues.is_empty() {
        stand(desired, &uplinks.iter().chain(ports.values().flatten()).collect(), ground);
    }
}

/// The persona as it would be by what is on trial.
fn trial(record: &Record) -> Option<&Persona> {
    let candidate = record.candidate.as_ref().filter(|candidate| !candidate.over)?;
    Some(candidate.persona.as_ref())
}

/// Adds roots of queues to interfaces, for bandwidths that come and go there while packets flow: the kernel drops
/// what meets an interface in the moment that it gets a root or loses it.
fn stand(desired: &mut Desired, names: &BTreeSet<&String>, ground: &Ground<'_>) {
    for name in names.iter().filter(|name| !foreign(name, ground)) {
        let key = |place| QueueKey { interface: (*name).clone(), place };
        let root = if ground.config.qos.paces() { Queue::Pacer } else { Queue::Root };
        desired.queues.insert(key(QueuePlace::Root), root);
        if root == Queue::Root {
            let class = Queue::Class(link_class(name, ground));
            desired.queues.insert(key(QueuePlace::Class(LINK_CLASS)), class);
        }
    }
}

/// The class of all of an interface.
fn link_class(name: &str, ground: &Ground<'_>) -> Class {
    let rate_bps = ground.bandwidth(name).unwrap_or(LINK_BPS);
    Class { parent: 0, rate_bps, ceil_bps: rate_bps, priority: 0 }
}

/// Whether somebody else has a queue on an interface.
fn foreign(name: &str, ground: &Ground<'_>) -> bool {
    ground.inventory.links.get(name).is_some_and(|link| link.queue.is_some())
}

/// The shape of a persona as it is defined, or as it would be; adds its queues.
fn shape(
    desired: &mut Desired,
    whose: (&Record, &Persona),
    uplinks: &BTreeSet<String>,
    ports: &BTreeMap<SegmentId, BTreeSet<String>>,
    ground: &Ground<'_>,
) -> Shape {
    let (record, persona) = whose;
    let mut shape = Shape {
        dscp: persona.qos().and_then(|qos| qos.dscp()).map(Dscp::number),
        priority: persona.qos().map(|qos| qos.priority()).unwrap_or_default().number(),
        has_rules: has_rules(persona),
        ..Shape::default()
    };
    for (index, direction) in [(INGRESS, Direction::Ingress), (EGRESS, Direction::Egress)] {
        let own = ports.get(&record.segment).cloned().unwrap_or_default();
        let interfaces = match direction {
            Direction::Ingress => own,
            Direction::Egress => {
                let peers = peers(desired, record.segment);
                let theirs = peers.iter().filter_map(|peer| ports.get(peer)).flatten();
                uplinks.iter().chain(theirs).filter(|name| !own.contains(*name)).cloned().collect()
            }
        };
        direct(desired, &mut shape, whose, (index, direction), &interfaces, ground);
    }
    shape
}

/// Adds what one direction of a persona needs.
fn direct(
    desired: &mut Desired,
    shape: &mut Shape,
    (record, persona): (&Record, &Persona),
    (index, direction): (usize, Direction),
    interfaces: &BTreeSet<String>,
    ground: &Ground<'_>,
) {
    let Some((qos, limit)) = persona.qos().and_then(|qos| Some((qos, qos.limit(direction)?))) else {
        return;
    };
    let foreign = |name: &String| foreign(name, ground);
    if ground.config.qos.paces() && !qos.police() {
        pace(shape, index, limit.rate.bps(), latency_us(&qos));
        for name in interfaces.iter().filter(|name| !foreign(name)) {
            let key = QueueKey { interface: name.clone(), place: QueuePlace::Root };
            desired.queues.insert(key, Queue::Pacer);
        }
        return;
    }
    let has_class = record.segment.0 < SHAPED_SEGMENTS;
    let is_hard = qos.police() || !has_class || interfaces.iter().any(foreign);
    if is_hard {
        set(&mut shape.cap_bps, index, limit.rate.bps());
    }
    if qos.police() || !has_class {
        return;
    }
    set(&mut shape.rate_bps, index, limit.rate.bps());
    let plan = Plan {
        class: shape::class(record.segment.0, index),
        rate_bps: limit.rate.bps(),
        ceil_bps: limit.ceil.bps(),
        latency_us: latency_us(&qos),
        priorities: priorities(persona),
    };
    if !is_hard && interfaces.len() > 1 {
        let (bps, burst_us) =
            plan.together(interfaces.iter().map(|name| mtu(name, ground)).min().unwrap_or(MTU));
        set(&mut shape.cap_bps, index, bps);
        set(&mut shape.burst_us, index, burst_us);
    }
    for name in interfaces.iter().filter(|name| !foreign(name)) {
        let key = |place: QueuePlace| QueueKey { interface: name.clone(), place };
        desired.queues.insert(key(QueuePlace::Root), Queue::Root);
        desired.queues.insert(key(QueuePlace::Class(LINK_CLASS)), Queue::Class(link_class(name, ground)));
        desired
            .queues
            .extend(plan.queues(mtu(name, ground)).into_iter().map(|(place, queue)| (key(place), queue)));
    }
}

/// Largest packet on an interface.
fn mtu(name: &str, ground: &Ground<'_>) -> u32 {
    ground.inventory.links.get(name).map(|link| link.mtu).filter(|mtu| *mtu != 0).unwrap_or(MTU)
}

/// Has the data path say when packets leave. Where nothing holds them until then, it is a cap.
fn pace(shape: &mut Shape, index: usize, bps: u64, latency_us: u64) {
    let bps = with_ip_headers(bps, MTU);
    set(&mut shape.cap_bps, index, bps);
    // As HTB's queues, there is room for two packets at least: one waits while the other leaves.
    let packet_us = (u64::from(MTU) * 8_000_000).div_ceil(bps);
    set(&mut shape.wait_us, index, latency_us.max(packet_us));
}

fn set(values: &mut [Option<u64>; 2], index: usize, value: u64) {
    if let Some(slot) = values.get_mut(index) {
        *slot = Some(value);
    }
}

fn latency_us(qos: &Qos) -> u64 {
    u64::try_from(qos.latency().unwrap_or(LATENCY).as_micros()).unwrap_or(u64::MAX).min(60_000_000)
}

/// Classes of traffic that packets of a persona can have, one bit each.
fn priorities(persona: &Persona) -> u8 {
    let own = persona.qos().map(|qos| qos.priority()).unwrap_or_default().number();
    let rules = persona.rules.rules.iter().filter_map(Rule::priority);
    rules.fold(1 << own, |set, priority| set | 1 << priority.number())
}

/// Ports that the members of a persona are behind.
fn members(desired: &Desired, record: &Record, ground: &Ground<'_>) -> BTreeSet<String> {
    let own = desired.ports.iter().filter(|(_, port)| port.segment == Some(record.segment));
    let mut names: BTreeSet<String> = own.map(|(name, _)| name.clone()).collect();
    let shares = record.persona.attachments().is_empty() && record.persona.endpoints().is_empty();
    if let Some(shared) = ground.shared.as_ref().filter(|name| shares && desired.ports.contains_key(*name)) {
        names.insert(shared.clone());
    }
    names
}

fn peers(desired: &Desired, segment: SegmentId) -> BTreeSet<SegmentId> {
    let pairs = desired.peers.iter().filter(|(low, high)| *low == segment || *high == segment);
    pairs.map(|(low, high)| if *low == segment { *high } else { *low }).collect()
}

/// Things to know about the quality of service of a persona, by what its interfaces hold.
pub fn conditions(record: &Record, ground: &Ground<'_>, names: &[String]) -> Vec<(String, String)> {
    let Some(qos) = record.persona.qos().filter(|qos| qos.is_limited() && !qos.police()) else {
        return Vec::new();
    };
    let mut conditions = Vec::new();
    let paces = ground.config.qos.paces();
    let borrows = Direction::ALL.iter().any(|way| qos.limit(*way).is_some_and(|one| one.ceil > one.rate));
    if paces && (borrows || priorities(&record.persona).count_ones() > 1) {
        let message = "with `qos.engine: edt` its packets leave in the order they come, at its bandwidth: `ceil` \
                       and classes of traffic need `qos.engine: htb` in hub.yaml";
        conditions.push(("QosSimplified".to_owned(), message.to_owned()));
    }
    if record.segment.0 >= SHAPED_SEGMENTS && !paces {
        let message = format!(
            "its segment {} is beyond the {SHAPED_SEGMENTS} that have queues: packets above \
             its bandwidth are dropped instead of queued",
            record.segment
        );
        conditions.push(("QosPoliced".to_owned(), message));
    }
    let uplinks = ground.inventory.links.keys().filter(|name| ground.is_uplink(name));
    let limited = |direction| qos.limit(direction).is_some();
    let own = names.iter().filter(|_| limited(Direction::Ingress));
    for name in own.chain(uplinks.filter(|_| limited(Direction::Egress))) {
        let Some(queue) = ground.inventory.links.get(name).and_then(|link| link.queue.as_ref()) else {
            continue;
        };
        let message = format!(
            "interface `{name}` has the queue `{queue}` of somebody else, which stays: packets above the \
             bandwidth are dropped instead of queued; remove it with `tc qdisc delete dev {name} root`"
        );
        conditions.push(("ForeignQueue".to_owned(), message));
    }
    conditions
}

/// Lint: what is legal, but probably not meant.
pub fn warnings(persona: &Persona) -> Vec<String> {
    let mut warnings = Vec::new();
    let qos = persona.qos();
    let limited = qos.is_some_and(|qos| qos.is_limited() && !qos.police());
    if let Some(rule) = persona.rules.rules.iter().find(|rule| rule.priority().is_some() && !limited) {
        warnings.push(format!(
            "rule {} has a priority, but nothing waits: give the persona `qos.bandwidth`",
            rule.index()
        ));
    }
    let Some(qos) = qos.filter(|_| limited) else { return warnings };
    for direction in Direction::ALL {
        let Some(limit) = qos.limit(direction) else { continue };
        let needed_us = PACKETS * PACKET_BITS * 1_000_000 / limit.rate.bps();
        if latency_us(&qos) < needed_us {
            warnings.push(format!(
                "{} bandwidth and latency leave room for fewer than {PACKETS} packets: TCP gets less than the \
                 bandwidth below a latency of {}ms",
                direction.name(),
                needed_us.div_ceil(1_000)
            ));
        }
    }
    warnings
}
