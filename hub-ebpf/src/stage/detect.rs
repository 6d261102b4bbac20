//! Detectors: counts signs of attacks, and refuses new flows of those for whom a detector fired.
//!
//! `admit` reads, before anything is written; `hub_detect` writes, once a packet's fate is sealed. Packets of
//! established flows meet neither, pings excepted.

use hub_common::address::Address;
use hub_common::detect::{
    Bar, BarKey, DETECTOR_SLOTS, DetectionKey, Detector, RESPONSE_ALERT, RESPONSE_QUARANTINE, Setting, Watch,
    WatchKey, signs, thing,
};
use hub_common::event::Reason;
use hub_common::flow::is_opening;
use hub_common::outcome::{OUTCOME_NEW, Scratch, VERDICT_REDIRECT, VERDICT_STACK};
use hub_common::packet::{PACKET_ICMP_REQUEST, Packet, protocol};
use hub_common::segment::SEGMENT_WATCHED;

use crate::addresses::segment_of;
use crate::atomic;
use crate::maps::{BARS, DETECTIONS, DETECTOR_SETS, SEGMENTS, WATCHED, WATCHES, own};
use crate::report::{self, refuse};
use crate::stage::quarantine;

/// Bars flows from the address.
const FROM: u32 = 0;
/// Bars TCP connections to the address.
const TO: u32 = 1;

/// Refuses a first packet, or a ping, of a source for which a detector fired in this window, and a SYN to a
/// target of too many.
#[inline(always)]
pub(crate) fn admit(scratch: &mut Scratch) -> Result<(), Reason> {
    let mut side = 0;
    while side < 2 {
        let id = scratch.outcome.segment[side];
        if watches(id)
            && let Some(reason) = Reason::from_number(hub_barred(scratch, id))
        {
            refuse(&mut scratch.outcome, reason, id, side == 0);
            return Err(reason);
        }
        side += 1;
    }
    Ok(())
}

#[inline(always)]
fn watches(segment: u32) -> bool {
    segment != 0 && SEGMENTS.get(segment).is_some_and(|segment| segment.flags & SEGMENT_WATCHED != 0)
}

/// Why a segment's detectors refuse a packet: a reason number, 0 for not at all.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_barred(scratch: *mut Scratch, segment: u32) -> u32 {
    // SAFETY: the verifier holds callers to a valid pointer or null.
    let Some(scratch) = (unsafe { scratch.as_mut() }) else { return Reason::Internal as u32 };
    let packet = &scratch.packet;
    let from = reason_at(segment, FROM, &packet.source, scratch.tick);
    if from != 0 || packet.protocol != protocol::TCP || !is_opening(packet.tcp_flags) {
        return from;
    }
    reason_at(segment, TO, &packet.target, scratch.tick)
}

#[inline(always)]
fn reason_at(segment: u32, side: u32, address: &Address, tick: u64) -> u32 {
    let key = BarKey { segment, side, address: *address };
    // SAFETY: a live map value; entries are replaced whole, and a reused one is another bar at worst.
    match unsafe { BARS.get(key) } {
        Some(bar) if tick < bar.until_tick && bar.detector == Detector::FlowRate as u32 => {
            Reason::FlowRate as u32
        }
        Some(bar) if tick < bar.until_tick => Reason::Detected as u32,
        Some(_) | None => 0,
    }
}

/// Counts what a packet that was committed is a sign of.
///
/// VERIFIER(6.18): not part of the commit, whose stack is half of what a chain of calls may have.
#[inline(always)]
pub(crate) fn passed(scratch: &mut Scratch, verdict: u32) {
    if verdict == VERDICT_STACK || verdict == VERDICT_REDIRECT {
        hub_detect(scratch);
    }
}

/// Counts what a packet is a sign of, for each segment it concerns. Its outcome is final.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_detect(scratch: *mut Scratch) -> u32 {
    // SAFETY: the verifier holds callers to a valid pointer or null.
    let Some(scratch) = (unsafe { scratch.as_mut() }) else { return 0 };
    let outcome = &scratch.outcome;
    let first = outcome.flags & OUTCOME_NEW != 0;
    let opening = scratch.packet.protocol == protocol::TCP && is_opening(scratch.packet.tcp_flags);
    if outcome.reason == 0 && !first && !opening && !scratch.packet.has(PACKET_ICMP_REQUEST) {
        return 0;
    }
    let [mut one, mut other] = outcome.segment;
    if one == 0 && other == 0 {
        one = outcome.blame;
        if outcome.reason == Reason::FragmentTiny as u32 {
            // Refused before it was known whom it concerns.
            one = segment_of(&scratch.packet.source);
            other = segment_of(&scratch.packet.target);
        }
    }
    if outcome.reason == Reason::Spoof as u32 {
        (one, other) = (outcome.blame, 0);
    }
    let signs = signs(&scratch.packet, outcome.reason, first);
    if signs == 0 {
        return 0;
    }
    if watches(one) {
        hub_signs(scratch, one, signs);
    }
    if other != one && watches(other) {
        hub_signs(scratch, other, signs);
    }
    0
}

/// Adds signs to what a segment's detectors have seen.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_signs(scratch: *mut Scratch, segment: u32, signs: u32) -> u32 {
    // SAFETY: the verifier holds callers to a valid pointer or null.
    let Some(scratch) = (unsafe { scratch.as_mut() }) else { return 0 };
    let mut detector = 0;
    while detector < Detector::ALL.len() as u32 {
        if signs >> detector & 1 != 0 {
            let fired = hub_sign(scratch, segment, detector);
            if fired != 0 {
                report::detected(scratch, detector, fired - 1);
            }
        }
        detector += 1;
    }
    0
}

/// Adds a sign for one detector of a segment, and bars its source if it fires. Returns 0, or one more than the
/// response of a detector that fired: its caller reports it.
///
/// VERIFIER(6.1): frames of nested calls, rounded up to 32 bytes, add up; the report's lies beside this one.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_sign(scratch: *mut Scratch, segment: u32, detector: u32) -> u32 {
    let Some(scratch) = own(scratch) else { return 0 };
    let Some(set) = WATCHED.get(segment).and_then(|slot| DETECTOR_SETS.get(*slot)) else { return 0 };
    let setting = &set.settings[detector as usize % DETECTOR_SLOTS];
    if setting.threshold == 0 {
        return 0;
    }
    let packet = &scratch.packet;
    let key = WatchKey { segment, detector, subject: subject(detector, packet, scratch.ingress_ifindex) };
    let thing = thing(detector, packet);
    let watch = if let Some(watch) = WATCHES.get_ptr_mut(key) {
        watch
    } else {
        // A table that is full forgets the oldest; a lost entry is another window at worst.
        scratch.watch = Watch::ZERO;
        scratch.watch.since_tick = scratch.tick;
        WATCHES.insert(key, scratch.watch, 0).ok();
        let Some(watch) = WATCHES.get_ptr_mut(key) else { return 0 };
        watch
    };
    // SAFETY: a live map value. CPUs that add at once may lose a sign, or begin a window twice.
    let watch = unsafe { &mut *watch };
    if watch.add(setting, thing, scratch.tick) {
        let until_tick = watch.since_tick + u64::from(setting.window_ticks);
        respond(scratch, &key, setting, until_tick);
        return setting.response.wrapping_add(1);
    }
    0
}

/// Whose signs a detector counts.
#[inline(always)]
fn subject(detector: u32, packet: &Packet, ifindex: u32) -> Address {
    if detector == Detector::SynFlood as u32 {
        return packet.target;
    }
    if detector == Detector::Spoof as u32 || detector == Detector::Land as u32 {
        // The source is somebody else's.
        let mut port = [0; 16];
        let [a, b, c, d] = ifindex.to_be_bytes();
        (port[12], port[13], port[14], port[15]) = (a, b, c, d);
        return port;
    }
    packet.source
}

#[inline(always)]
fn respond(scratch: &Scratch, key: &WatchKey, setting: &Setting, until_tick: u64) {
    let counter = DetectionKey { segment: key.segment, detector: key.detector };
    if let Some(fired) = DETECTIONS.get_ptr_mut(counter) {
        // SAFETY: a live map value.
        atomic::add(unsafe { &mut *fired }, 1);
    } else {
        // Two CPUs that make it at once count one.
        DETECTIONS.insert(counter, 1u64, 0).ok();
    }
    if setting.response == RESPONSE_QUARANTINE {
        quarantine::put(key.segment, &key.subject, scratch.tick + u64::from(setting.quarantine_ticks));
    } else if setting.response != RESPONSE_ALERT {
        let side = if key.detector == Detector::SynFlood as u32 { TO } else { FROM };
        let bar = Bar { until_tick, detector: key.detector, pad: 0 };
        BARS.insert(BarKey { segment: key.segment, side, address: key.subject }, bar, 0).ok();
    }
}
