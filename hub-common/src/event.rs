//! Why packets are dropped, and the records that the ring buffer carries.

use crate::address::Address;

macro_rules! reasons {
    ($( $(#[$doc:meta])* $name:ident = $number:literal, $text:literal; )+) => {
        /// Why a packet was dropped. Every drop has exactly one.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Reason { $( $(#[$doc])* $name = $number, )+ }

        impl Reason {
            /// Every reason, by number.
            pub const ALL: &[Self] = &[ $( Self::$name ),+ ];

            /// The name used in metrics, the API and `hubctl`.
            pub const fn name(self) -> &'static str {
                match self { $( Self::$name => $text ),+ }
            }

            /// The reason with this number.
            pub const fn from_number(number: u32) -> Option<Self> {
                match number { $( $number => Some(Self::$name), )+ _ => None }
            }
        }
    };
}

reasons! {
    /// Shorter than its own headers say.
    Truncated = 1, "truncated";
    /// A header contradicts itself: version, header length, total length.
    BadHeader = 2, "bad_header";
    /// The headers are not in the linear part and cannot be pulled there.
    Nonlinear = 3, "nonlinear";
    /// A VLAN tag on a port that has none.
    Vlan = 4, "vlan";
    /// Neither IP nor ARP, on a segment port.
    Ethertype = 5, "ethertype";
    /// An IPv4 source route (RFC 7126 section 4.3) or an IPv6 routing header type 0 (RFC 5095).
    SourceRoute = 6, "source_route";
    /// IPv6 extension headers: too many, out of order, or cut off.
    ExtensionHeaders = 7, "extension_headers";
    /// An address that must never be forwarded.
    Martian = 8, "martian";
    /// A first fragment without its transport header (RFC 1858).
    FragmentTiny = 9, "fragment_tiny";
    /// A later fragment whose first fragment was not seen or not allowed.
    FragmentUnknown = 10, "fragment_unknown";
    /// The ingress interface is in no port table: it is being set up or torn down.
    NoPort = 11, "no_port";
    /// The source address does not belong behind the ingress port.
    Spoof = 12, "spoof";
    /// The persona's deadline has passed.
    Expired = 13, "expired";
    /// The persona is blocked.
    Blocked = 14, "blocked";
    /// The persona takes no new flows.
    Draining = 15, "draining";
    /// The persona has no policy yet, or a map entry it refers to is missing.
    NoPolicy = 16, "no_policy";
    /// The protocol is not among the persona's `protocols`.
    Protocol = 17, "protocol";
    /// A rule with action deny.
    RuleDeny = 18, "rule_deny";
    /// A rule with action reject; the sender was told.
    RuleReject = 19, "rule_reject";
    /// No rule matched and the default action is deny or reject.
    DefaultDeny = 20, "default_deny";
    /// Two personas that are not peers.
    InterPersona = 21, "inter_persona";
    /// A reply, or TCP without SYN, that belongs to no flow.
    NoFlow = 22, "no_flow";
    /// An ICMP error about no live flow, or an ICMP redirect.
    IcmpError = 23, "icmp_error";
    /// The flow table of established connections is full.
    FlowTableFull = 24, "flow_table_full";
    /// From a persona to a service of the hub itself.
    HubLocal = 25, "hub_local";
    /// Multicast or broadcast from or into a persona, other than neighbour discovery.
    Multicast = 26, "multicast";
    /// A router advertisement or ICMPv6 redirect sent by a member of a persona, or an ICMPv6 redirect by the host.
    RouterAdvertisement = 27, "router_advertisement";
    /// TCP flags that no stack sends (none at all, or SYN with FIN or RST).
    TcpFlags = 28, "tcp_flags";
    /// The programs disagree with the maps; always a defect.
    Internal = 29, "internal";
    /// More than a rule with action `rate_limit` lets pass.
    RateLimit = 30, "rate_limit";
    /// One of its ends is in quarantine, or a rule with action `quarantine` puts its source there.
    Quarantine = 31, "quarantine";
    /// The source has as many connections as a persona, or one of its rules, lets it have at once.
    ConnectionLimit = 32, "connection_limit";
    /// More than the hard cap of a persona's bandwidth.
    Policed = 33, "policed";
    /// No address or port is left to translate to, or an address that only the other side may use.
    NoTranslation = 34, "no_translation";
    /// A detector fired for the sender, or for the target of its connection, and drops.
    Detected = 35, "detected";
    /// The source is the target.
    Land = 36, "land";
    /// The sender began too many flows.
    FlowRate = 37, "flow_rate";
    /// A member asks for the link address of a hub's address that is not its persona's.
    ForeignGateway = 38, "foreign_gateway";
}

/// Slots of the per-reason counters: one hook's share of the array.
pub const REASON_SLOTS: u32 = 64;

/// Most bytes of a packet in an event.
pub const HEADER_BYTES: usize = 64;

/// An event is due: the packet was dropped.
pub const DUE_DROP: u32 = 1;
/// An event is due: a rule asked for it, and the packet passed.
pub const DUE_LOG: u32 = 1 << 1;
/// An event is due: the rules of the sender's persona only watch. The receiver's have the next bit.
pub const DUE_WOULD_DROP: u32 = 1 << 2;
/// An event is due: a detector fired. The first of as many bits as there are detectors.
pub const DUE_DETECTED: u32 = 1 << 8;

/// Where a packet met the hub.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// `hub_xdp_in`.
    XdpIn = 0,
    /// `hub_tc_in`.
    TcIn = 1,
    /// `hub_tc_out`.
    TcOut = 2,
}

/// Number of hooks.
pub const HOOKS: u32 = 3;

impl Hook {
    /// Every hook, by number.
    pub const ALL: [Self; 3] = [Self::XdpIn, Self::TcIn, Self::TcOut];

    /// The name used in metrics and events.
    pub const fn name(self) -> &'static str {
        match self {
            Self::XdpIn => "xdp_in",
            Self::TcIn => "tc_in",
            Self::TcOut => "tc_out",
        }
    }
}

/// What an event reports: a drop.
pub const EVENT_DROP: u8 = 1;
/// What an event reports: a packet that a rule with `log` matched and that passed.
pub const EVENT_LOG: u8 = 2;
/// What an event reports: the packet at which a detector fired.
pub const EVENT_DETECT: u8 = 3;
/// What an event reports: a packet that a trace asked for.
pub const EVENT_TRACE: u8 = 4;
/// What an event reports: a packet that passed because its persona's rules only watch.
pub const EVENT_WOULD_DROP: u8 = 5;

crate::shared! {
    /// One record of the event ring, 152 bytes.
    pub struct Event {
        /// `CLOCK_BOOTTIME` in nanoseconds.
        pub time_ns: u64,
        /// Sender.
        pub source: Address,
        /// Receiver.
        pub target: Address,
        /// Transport port, or ICMP identifier.
        pub source_port: u16,
        /// Transport port, or ICMP identifier.
        pub target_port: u16,
        /// Interface the packet came in on.
        pub ifindex: u32,
        /// Bytes from the IP header on.
        pub length_bytes: u32,
        /// A [`Reason`] number, 0 for none.
        pub reason: u32,
        /// Slot of the rule that decided, or [`crate::rule::RULE_NONE`].
        pub rule: u32,
        /// Segment of the sender, 0 for none.
        pub source_segment: u32,
        /// Segment of the receiver, 0 for none.
        pub target_segment: u32,
        /// Policy word that the rule slot belongs to.
        pub policy: u32,
        /// A [`Hook`] number.
        pub hook: u8,
        /// IP protocol.
        pub protocol: u8,
        /// One of `EVENT_*`.
        pub kind: u8,
        /// TCP flags, or ICMP type.
        pub detail: u8,
        /// With [`EVENT_DETECT`]: a [`crate::detect::Detector`] number.
        pub detector: u8,
        /// With [`EVENT_DETECT`]: a `RESPONSE_*` of [`crate::detect`].
        pub response: u8,
        /// Bytes of `headers` that are the packet's.
        pub header_bytes: u16,
        /// Zero.
        pub pad: [u16; 2],
        /// Of a traced packet: slots, verdict and `TRACED_*` bits (see [`crate::trace`]); 0 otherwise.
        pub traced: u32,
        /// The packet from its IP header to the end of its transport header, as the hub saw it; of a packet that
        /// could not be parsed what is there. Traced packets have none.
        pub headers: [u8; HEADER_BYTES],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_unique_and_fit_their_slots() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_number(*reason as u32), Some(*reason));
            assert!((*reason as u32) < REASON_SLOTS);
            assert_eq!(Reason::ALL.iter().filter(|r| r.name() == reason.name()).count(), 1);
        }
    }
}
