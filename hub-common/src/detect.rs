//! Detectors: what a packet is a sign of, and how signs of one source add up to an attack.
//!
//! Only first packets of flows, pings and refused packets are looked at. Signs are counted per segment,
//! detector and subject (the source; for a flood of SYNs the target; for forged sources the port) in
//! windows that begin with the first sign. A detector fires once a window.

#![expect(clippy::indexing_slicing, reason = "indices are masked; a panic that can be reached does not load")]

use crate::address::Address;
use crate::event::Reason;
use crate::flow::is_opening;
use crate::packet::{
    PACKET_FRAGMENT_LATER, PACKET_ICMP_ERROR, PACKET_ICMP_REQUEST, Packet, TCP_ACK, TCP_RST, protocol,
};

/// What is looked for. The number is the place in a [`DetectorSet`].
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Detector {
    /// Distinct target ports of one source.
    PortScan = 0,
    /// Distinct targets of one source.
    HostSweep = 1,
    /// TCP SYNs to one target.
    SynFlood = 2,
    /// Pings of one source.
    IcmpFlood = 3,
    /// Packets of one source with TCP flags that no stack sends.
    TcpFlags = 4,
    /// Packets whose source is their target, by port of the hub.
    Land = 5,
    /// Packets with an address of the persona as source that came from the wrong side, by port of the hub.
    Spoof = 6,
    /// Fragments of one source that fit no packet, or hide its ports.
    Fragments = 7,
    /// Flows that one source began, or tried to.
    FlowRate = 8,
}

impl Detector {
    /// Every detector, by number.
    pub const ALL: [Self; 9] = [
        Self::PortScan,
        Self::HostSweep,
        Self::SynFlood,
        Self::IcmpFlood,
        Self::TcpFlags,
        Self::Land,
        Self::Spoof,
        Self::Fragments,
        Self::FlowRate,
    ];

    /// The name used in documents, metrics and events.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PortScan => "port_scan",
            Self::HostSweep => "host_sweep",
            Self::SynFlood => "syn_flood",
            Self::IcmpFlood => "icmp_flood",
            Self::TcpFlags => "tcp_flags",
            Self::Land => "land",
            Self::Spoof => "spoof",
            Self::Fragments => "fragments",
            Self::FlowRate => "flow_rate",
        }
    }

    /// Its bit in what [`signs`] answers.
    pub const fn bit(self) -> u32 {
        1 << self as u32
    }

    /// Whether it counts how many different things were tried, not how often.
    pub const fn is_distinct(self) -> bool {
        matches!(self, Self::PortScan | Self::HostSweep)
    }
}

crate::shared! {
    /// One detector of a persona.
    pub struct Setting {
        /// Signs in a window at which it fires; 0 never looks.
        pub threshold: u32,
        /// Length of a window.
        pub window_ticks: u32,
        /// One of `RESPONSE_*`.
        pub response: u32,
        /// How long a quarantine lasts.
        pub quarantine_ticks: u32,
    }

    /// All detectors of a persona, by number. Never changed once a segment points at it.
    pub struct DetectorSet {
        /// One for each [`Detector`]; the others are zero.
        pub settings: [Setting; DETECTOR_SLOTS],
    }

    /// Whose signs are counted.
    pub struct WatchKey {
        /// Segment that watches.
        pub segment: u32,
        /// A [`Detector`] number.
        pub detector: u32,
        /// Source, target, or number of the port in the last four bytes.
        pub subject: Address,
    }

    /// Signs of one subject in one window.
    pub struct Watch {
        /// Tick of the first sign.
        pub since_tick: u64,
        /// Signs, or distinct things tried.
        pub count: u32,
        /// 1 once the detector fired in this window.
        pub fired: u32,
        /// What was tried: a bit each.
        pub seen: [u64; SEEN_WORDS],
    }

    /// Who may begin no flows for a while.
    pub struct BarKey {
        /// Segment whose detector fired.
        pub segment: u32,
        /// 0: flows from the address; 1: TCP connections to it.
        pub side: u32,
        /// The address.
        pub address: Address,
    }

    /// Until when.
    pub struct Bar {
        /// Tick from which on flows are taken again.
        pub until_tick: u64,
        /// The [`Detector`] that fired.
        pub detector: u32,
        /// Zero.
        pub pad: u32,
    }

    /// Key of the counters of detections.
    pub struct DetectionKey {
        /// Segment.
        pub segment: u32,
        /// A [`Detector`] number.
        pub detector: u32,
    }
}

/// Room for detectors in a set; a power of two, so that an index can be masked.
pub const DETECTOR_SLOTS: usize = 16;
/// Words of the bitmap of things tried.
pub const SEEN_WORDS: usize = 16;
/// Largest threshold of detectors that count distinct things: half of the bits, so that at the threshold
/// two things in five at most share a bit with another.
pub const DISTINCT_MAX: u32 = SEEN_WORDS as u32 * 32;

/// Report only.
pub const RESPONSE_ALERT: u32 = 0;
/// Take no flows from the source, or to the target, until the window ends.
pub const RESPONSE_DROP: u32 = 1;
/// Take no flows from the source for a while.
pub const RESPONSE_QUARANTINE: u32 = 2;

/// First port of the range from which stacks choose ports of their own.
const OWN_PORTS: u16 = 32_768;
/// Ports below are those of services.
const SERVICE_PORTS: u16 = 1_024;

/// Which detectors a packet is a sign for, as a set of [`Detector::bit`]. `reason` is why it was refused,
/// 0 if it passed; `first` says whether it would begin a flow.
#[inline(always)]
pub const fn signs(packet: &Packet, reason: u32, first: bool) -> u32 {
    if reason == Reason::Spoof as u32 {
        return Detector::Spoof.bit();
    }
    if reason == Reason::Land as u32 {
        return Detector::Land.bit();
    }
    if reason == Reason::FragmentTiny as u32 || reason == Reason::FragmentUnknown as u32 {
        return Detector::Fragments.bit();
    }
    if packet.has_any(PACKET_FRAGMENT_LATER | PACKET_ICMP_ERROR) {
        return 0;
    }
    let late = packet.protocol == protocol::TCP && packet.tcp_flags & (TCP_ACK | TCP_RST) != 0;
    let mut signs = if first && !late { Detector::FlowRate.bit() } else { 0 };
    if reason == Reason::TcpFlags as u32 {
        signs |= Detector::TcpFlags.bit();
    }
    let ping = packet.has(PACKET_ICMP_REQUEST);
    if ping {
        signs |= Detector::IcmpFlood.bit();
    }
    if packet.protocol == protocol::TCP && is_opening(packet.tcp_flags) {
        signs |= Detector::SynFlood.bit();
    }
    // A packet over its rate belongs to a connection that was admitted.
    let over = reason == Reason::Policed as u32 || reason == Reason::RateLimit as u32;
    let asks = first || (reason != 0 && !over);
    if asks && is_probe(packet) {
        signs |= Detector::PortScan.bit();
    }
    if asks && (ping || is_probe(packet)) {
        signs |= Detector::HostSweep.bit();
    }
    signs
}

/// Whether the packet asks a port. Late packets of connections that are forgotten do not: TCP's have ACK or
/// RST, and answers of UDP services go to a port that a stack chose.
const fn is_probe(packet: &Packet) -> bool {
    match packet.protocol {
        protocol::TCP => packet.tcp_flags & (TCP_ACK | TCP_RST) == 0,
        protocol::UDP => !(packet.source_port < SERVICE_PORTS && packet.target_port >= OWN_PORTS),
        protocol::SCTP => true,
        _ => false,
    }
}

/// Instead of a thing tried: every sign counts.
pub const EACH: u32 = u32::MAX;

/// The bit of the thing that a packet tries, or [`EACH`]. Neighbouring ports and addresses have different ones.
///
/// VERIFIER(6.18): a number and not an `Option`, whose unset half was stored.
/// VERIFIER(6.1): not cut to the bits that there are. The compiler would take the mask in [`Watch::add`] for
/// useless, and the verifier forgets what it knew of a number on the stack.
#[inline(always)]
pub fn thing(detector: u32, packet: &Packet) -> u32 {
    if detector == Detector::PortScan as u32 {
        let port = packet.target_port as u32;
        return port ^ port >> 10;
    }
    if detector != Detector::HostSweep as u32 {
        return EACH;
    }
    let a = &packet.target;
    let low = u32::from_be_bytes([a[12], a[13], a[14], a[15]]);
    let high = u32::from_be_bytes([a[8], a[9], a[10], a[11]]) ^ u32::from_be_bytes([a[4], a[5], a[6], a[7]]);
    (low ^ low >> 10 ^ low >> 20 ^ high ^ high >> 10 ^ high >> 20) & (EACH >> 1)
}

impl Watch {
    /// Adds a sign; true when the detector fires.
    #[inline(always)]
    pub fn add(&mut self, setting: &Setting, thing: u32, tick: u64) -> bool {
        if tick.wrapping_sub(self.since_tick) >= setting.window_ticks as u64 {
            *self = Self { since_tick: tick, ..Self::ZERO };
        }
        if thing == EACH {
            self.count = self.count.saturating_add(1);
        } else {
            let word = &mut self.seen[(thing >> 6) as usize % SEEN_WORDS];
            let bit = 1 << (thing & 63);
            self.count += (*word & bit == 0) as u32;
            *word |= bit;
        }
        if self.count < setting.threshold || self.fired != 0 {
            return false;
        }
        self.fired = 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{TCP_FIN, TCP_SYN};

    const SETTING: Setting = Setting { threshold: 20, window_ticks: 100, response: 0, quarantine_ticks: 0 };

    fn tcp(flags: u8) -> Packet {
        Packet { protocol: protocol::TCP, tcp_flags: flags, ..Packet::ZERO }
    }

    #[test]
    fn detectors_are_numbered_in_order_and_fit_a_set() {
        for (number, detector) in (0..).zip(Detector::ALL) {
            assert_eq!(detector as u32, number);
            assert!((number as usize) < DETECTOR_SLOTS);
        }
    }

    #[test]
    fn repeated_things_count_once_and_a_window_fires_once() {
        let mut watch = Watch::ZERO;
        let mut fired = Vec::new();
        for tick in 1_000..1_090 {
            let port = (tick - 1_000) as u16 / 2;
            let packet = Packet { target_port: port, ..tcp(TCP_SYN) };
            let thing = thing(Detector::PortScan as u32, &packet);
            if watch.add(&SETTING, thing, tick) {
                fired.push(port);
            }
        }
        assert_eq!(fired, [19], "the twentieth port, and no other");
        assert!((0..19).all(|_| !watch.add(&SETTING, EACH, 1_100)), "another window begins at zero");
        assert!(watch.add(&SETTING, EACH, 1_199) && !watch.add(&SETTING, EACH, 1_199));
    }

    #[test]
    fn every_port_has_a_bit_of_its_own_among_its_neighbours() {
        for first in [0u16, 1_024, 30_000 / 1_024 * 1_024, 64_512] {
            let bits: std::collections::BTreeSet<u32> = (first..=first + 1_023)
                .map(|port| thing(0, &Packet { target_port: port, ..Packet::ZERO }))
                .collect();
            assert_eq!(bits.len(), 1_024);
        }
    }

    #[test]
    fn late_packets_are_no_probes() {
        let scans = |packet: &Packet, reason| signs(packet, reason, false) & Detector::PortScan.bit() != 0;
        let no_flow = Reason::NoFlow as u32;
        assert!(!scans(&tcp(TCP_ACK | TCP_FIN), no_flow) && !scans(&tcp(TCP_RST), no_flow));
        assert!(scans(&tcp(TCP_FIN), no_flow) && scans(&tcp(0), Reason::TcpFlags as u32));
        let udp = |source_port, target_port| Packet {
            protocol: protocol::UDP,
            source_port,
            target_port,
            ..Packet::ZERO
        };
        assert!(!scans(&udp(53, 40_000), Reason::DefaultDeny as u32));
        assert!(scans(&udp(53, 161), Reason::DefaultDeny as u32));
    }

    #[test]
    fn packets_of_flows_are_signs_of_nothing() {
        assert_eq!(signs(&tcp(TCP_ACK), 0, false), 0);
        let syn = signs(&tcp(TCP_SYN), 0, true);
        let all = [Detector::PortScan, Detector::HostSweep, Detector::SynFlood, Detector::FlowRate];
        assert_eq!(syn, all.iter().map(|detector| detector.bit()).sum::<u32>());
        // A server answers many over its rate; who begins too many connections asks all the same.
        let answer =
            Packet { protocol: protocol::UDP, source_port: 40_000, target_port: 50_000, ..Packet::ZERO };
        for reason in [Reason::Policed, Reason::RateLimit] {
            assert_eq!(signs(&answer, reason as u32, false), 0);
            assert_ne!(signs(&answer, reason as u32, true) & Detector::PortScan.bit(), 0);
        }
    }
}
