//! The event ring: dropped and logged packets on their way to whoever listens.
//!
//! The programs never wake the reader, because that costs more than the packet; so the ring is looked at
//! every `PERIOD`. It is emptied also when nobody listens, so that listeners get what is current.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aya::maps::{MapData, RingBuf};
use hub_common::detect::{Detector, RESPONSE_DROP, RESPONSE_QUARANTINE};
use hub_common::event::{EVENT_DETECT, EVENT_LOG, EVENT_TRACE, EVENT_WOULD_DROP, Event, Hook, Reason};
use hub_common::rule::RULE_NONE;
use tokio::sync::{broadcast, watch};
use tokio::time::MissedTickBehavior;

use super::clock::wall_time;
use super::counts::SYNTHETIC;
use super::maps::{self, RuleSlots};
use super::names::{interface, ip, personas};
use super::reader::ReadError;
use super::rule_counts::is_baseline;
use super::traced;
use crate::datapath_view::{EventView, PacketEvent};
use crate::desired::interfaces::tunnel_index;
use crate::inputs::trace::Delivery;
use crate::model::protocol;
use crate::view::Snapshot;

/// How often the ring is looked at; it holds what 60,000 events a second leave in that time.
const PERIOD: Duration = Duration::from_millis(50);

/// The ring, and what gives its records names.
pub struct Events {
    ring: RingBuf<MapData>,
    slots: RuleSlots,
    snapshot: watch::Receiver<Arc<Snapshot>>,
    traces: broadcast::Sender<Delivery>,
    named: Arc<Snapshot>,
    personas: BTreeMap<u32, String>,
}

impl Events {
    /// Opens the ring pinned in `pins`. There may be one reader only. Traced packets go to `traces`.
    pub fn open(
        pins: &Path,
        snapshot: watch::Receiver<Arc<Snapshot>>,
        traces: broadcast::Sender<Delivery>,
    ) -> Result<Self, ReadError> {
        Ok(Self {
            ring: maps::open(pins, "EVENTS")?,
            slots: RuleSlots::open(pins)?,
            snapshot,
            traces,
            named: Arc::default(),
            personas: BTreeMap::new(),
        })
    }

    /// Sends events until dropped.
    pub async fn run(mut self, listeners: broadcast::Sender<EventView>) {
        let mut period = tokio::time::interval(PERIOD);
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            period.tick().await;
            self.drain(&listeners);
        }
    }

    /// Sends what is in the ring. Returns how many records there were.
    pub fn drain(&mut self, listeners: &broadcast::Sender<EventView>) -> usize {
        self.rename();
        // Interfaces come and go: names hold for one round.
        let tunnels = self.named.interfaces.values().filter_map(|interface| interface.tunnel.as_ref());
        let mut interfaces: BTreeMap<u32, String> =
            tunnels.map(|tunnel| (tunnel_index(&tunnel.link), tunnel.link.clone())).collect();
        let mut records = 0;
        while let Some(record) = self.ring.next() {
            records += 1;
            let Some(event) = read(&record) else { continue };
            drop(record);
            if event.kind != EVENT_TRACE && listeners.receiver_count() == 0 {
                continue;
            }
            let port = interfaces.entry(event.ifindex).or_insert_with(|| interface(event.ifindex)).clone();
            let view = view(&event, port, position(&self.slots, &event), &self.personas);
            if event.kind == EVENT_TRACE {
                let traced = traced::view(view, &event, &self.named);
                // The trace may have ended.
                drop(self.traces.send((event.traced & 0xff, Arc::new(traced))));
                continue;
            }
            // The last listener may have gone.
            drop(listeners.send(EventView::Packet(view)));
        }
        records
    }

    /// Names personas anew if they changed.
    fn rename(&mut self) {
        let current = Arc::clone(&self.snapshot.borrow());
        if !Arc::ptr_eq(&current, &self.named) {
            self.personas = personas(&current);
            self.named = current;
        }
    }
}

/// Position of the rule in its document; none if the policy is gone by now.
fn position(slots: &RuleSlots, event: &Event) -> Option<u16> {
    if event.rule == RULE_NONE || event.policy == 0 {
        return None;
    }
    let policy = slots.policy(event.policy).ok()??;
    let rule = slots.rule(&policy, event.rule).ok()??;
    (rule.index != SYNTHETIC && !is_baseline(&rule)).then_some(rule.index)
}

fn view(event: &Event, port: String, rule: Option<u16>, personas: &BTreeMap<u32, String>) -> PacketEvent {
    let hook = Hook::ALL.into_iter().find(|hook| *hook as u32 == u32::from(event.hook));
    let is_fired = |detector: &Detector| *detector as u32 == u32::from(event.detector);
    let detector = Detector::ALL.into_iter().filter(|_| event.kind == EVENT_DETECT).find(is_fired);
    PacketEvent {
        time: wall_time(event.time_ns),
        action: match event.kind {
            EVENT_LOG => "log",
            EVENT_DETECT => "detect",
            EVENT_TRACE => "trace",
            EVENT_WOULD_DROP => "would_drop",
            _ => "drop",
        }
        .to_owned(),
        reason: Reason::from_number(event.reason).map(|reason| reason.name().to_owned()),
        hook: hook.map_or_else(|| event.hook.to_string(), |hook| hook.name().to_owned()),
        port,
        protocol: protocol::name(event.protocol),
        source: ip(&event.source),
        source_port: event.source_port,
        target: ip(&event.target),
        target_port: event.target_port,
        length_bytes: event.length_bytes,
        source_persona: personas.get(&event.source_segment).cloned(),
        target_persona: personas.get(&event.target_segment).cloned(),
        rule,
        detector: detector.map(|detector| detector.name().to_owned()),
        response: detector.map(|_| response(event.response).to_owned()),
        headers: headers(event),
    }
}

/// The header bytes as pairs of hexadecimal digits, if there are any.
fn headers(event: &Event) -> Option<String> {
    let bytes = event.headers.get(..usize::from(event.header_bytes)).filter(|bytes| !bytes.is_empty())?;
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        text.extend([byte >> 4, byte & 15].into_iter().filter_map(|half| char::from_digit(half.into(), 16)));
    }
    Some(text)
}

/// Name of a `RESPONSE_*`, as documents spell it.
const fn response(number: u8) -> &'static str {
    match number as u32 {
        RESPONSE_DROP => "drop",
        RESPONSE_QUARANTINE => "quarantine",
        _ => "alert",
    }
}

/// Reads a record; `None` if it is of another version's length.
fn read(record: &[u8]) -> Option<Event> {
    let mut at = Fields(record);
    let event = Event {
        time_ns: at.u64()?,
        source: at.bytes()?,
        target: at.bytes()?,
        source_port: u16::from_ne_bytes(at.bytes()?),
        target_port: u16::from_ne_bytes(at.bytes()?),
        ifindex: at.u32()?,
        length_bytes: at.u32()?,
        reason: at.u32()?,
        rule: at.u32()?,
        source_segment: at.u32()?,
        target_segment: at.u32()?,
        policy: at.u32()?,
        hook: u8::from_ne_bytes(at.bytes()?),
        protocol: u8::from_ne_bytes(at.bytes()?),
        kind: u8::from_ne_bytes(at.bytes()?),
        detail: u8::from_ne_bytes(at.bytes()?),
        detector: u8::from_ne_bytes(at.bytes()?),
        response: u8::from_ne_bytes(at.bytes()?),
        header_bytes: u16::from_ne_bytes(at.bytes()?),
        pad: [u16::from_ne_bytes(at.bytes()?), u16::from_ne_bytes(at.bytes()?)],
        traced: at.u32()?,
        headers: at.bytes()?,
    };
    at.0.is_empty().then_some(event)
}

/// What is left of a record.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn u32(&mut self) -> Option<u32> {
        self.bytes().map(u32::from_ne_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.bytes().map(u64::from_ne_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hub_common::address::mapped;

    #[test]
    fn records_are_read_field_by_field() {
        let mut record = 7u64.to_ne_bytes().to_vec();
        record.extend(mapped([10, 0, 0, 1]));
        record.extend(mapped([10, 0, 0, 2]));
        record.extend([4000u16, 80].into_iter().flat_map(u16::to_ne_bytes));
        record.extend([3u32, 60, 18, 5, 1, 2, 9].into_iter().flat_map(u32::to_ne_bytes));
        record.extend([1, 6, 1, 2]);
        record.extend([0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        record.extend([0x45, 0, 0xfe]);
        record.extend([0; 61]);
        assert_eq!(record.len(), size_of::<Event>());
        let event = read(&record).unwrap();
        assert_eq!((event.time_ns, event.target_port, event.reason, event.policy), (7, 80, 18, 9));
        assert_eq!((event.hook, event.protocol, event.kind, event.detail), (1, 6, 1, 2));
        assert_eq!(headers(&event).as_deref(), Some("4500fe"));
        assert_eq!(headers(&Event { header_bytes: 0, ..event }), None);
        assert!(read(&record[1..]).is_none());
    }
}
