//! What the stages decided about one packet, and the scratch space they work in.

use crate::application::Heard;
use crate::detect::Watch;
use crate::event::Event;
use crate::flow::{Flow, FlowKey, Hop};
use crate::packet::Packet;
use crate::parse::ETHERNET_BYTES;
use crate::reply::REPLY_BYTES;
use crate::segment::Port;
use crate::set::SetKey;
use crate::translation::{Ends, Masquerade};

/// Rules with action log that are counted of one packet, the last ones; a power of two.
pub const LOGGED: usize = 4;

crate::shared! {
    /// The decision on one packet. Index 0 is the sender's side, 1 the receiver's, of the flow's first
    /// packet.
    pub struct Outcome {
        /// One of `VERDICT_*`.
        pub verdict: u32,
        /// A reason number where the verdict is a drop.
        pub reason: u32,
        /// Segments; 0 for none.
        pub segment: [u32; 2],
        /// Policy words read.
        pub policy: [u32; 2],
        /// Rule slots that decided, or [`crate::rule::RULE_NONE`].
        pub rule: [u32; 2],
        /// Hit counters of the last rules with action log that matched, or [`crate::rule::RULE_NONE`]: a ring.
        pub logged: [u32; LOGGED],
        /// How many of them matched; the next one goes there.
        pub logs: u32,
        /// Zero.
        pub pad: u32,
        /// Low bits of `Segment::set_generation` read.
        pub set_generation: [u16; 2],
        /// Limits that later packets of the flow are held to, 0 for none.
        pub limit: [u16; 2],
        /// Limits that this packet takes from, 0 for none.
        pub take: [u16; 2],
        /// Reasons for which the packet would be dropped if its personas' rules were enforced, 0 for none.
        pub would: [u32; 2],
        /// Limits that count the flow among its source's connections, 0 for none.
        pub counted: [u16; 2],
        /// IPv4 address of the neighbour that `hop` leads to, 0 where it is none; bytes as in a packet.
        pub neighbour: u32,
        /// Ticks that a dropped packet's source is kept out of `blame`, 0 for none.
        pub quarantine_ticks: u32,
        /// When the first of the rules that decided ends.
        pub deadline_tick: u64,
        /// 0 when the packet goes the way of the flow's first packet, 1 for replies.
        pub direction: u32,
        /// `OUTCOME_*` bits.
        pub flags: u32,
        /// Segment that the drop is counted for, 0 for none.
        pub blame: u32,
        /// 0 when dropped on the way to members of `blame`, 1 when on the way from them.
        pub blame_direction: u32,
        /// Next hop, when found.
        pub hop: Hop,
    }

    /// Working space of one packet, one per CPU and hook.
    pub struct Scratch {
        /// The packet, parsed.
        pub packet: Packet,
        /// The flow's first packet as the rules see it.
        pub view: Packet,
        /// Key of the packet's flow.
        pub key: FlowKey,
        /// The port it came in on.
        pub port: Port,
        /// The decision.
        pub outcome: Outcome,
        /// The decision, while a candidate makes its own.
        pub live: Outcome,
        /// What the packet's addresses and ports are to become.
        pub wanted: Ends,
        /// Key of a masqueraded connection's way back.
        pub outside: FlowKey,
        /// An entry of a masqueraded connection being made.
        pub masquerade: Masquerade,
        /// A flow being made.
        pub flow: Flow,
        /// A watch being made.
        pub watch: Watch,
        /// An event being made.
        pub event: Event,
        /// `DUE_*` bits: events to make of the packet before its program ends.
        pub due: u32,
        /// Responses of detectors that fired, two bits each.
        pub responses: u32,
        /// Ethernet header of a packet that is answered; zeros on ports without one.
        pub ethernet: [u8; ETHERNET_BYTES + 2],
        /// A reject's answer.
        pub reply: [u8; REPLY_BYTES],
        /// Tick at which the packet is judged.
        pub tick: u64,
        /// Reason the parser gave, 0 for none.
        pub parse_reason: u32,
        /// A hook number.
        pub hook: u32,
        /// Interface the packet came in on; [`FROM_HOST`] for packets that the host itself sends.
        pub ingress_ifindex: u32,
        /// Longest packet from the IP header on that this frame puts on a wire (a segment, if it is many).
        pub wire_bytes: u32,
        /// `SCRATCH_*` bits.
        pub flags: u32,
        /// Packets that this frame is on a wire: one, or the segments of a super-packet.
        pub packets: u32,
        /// Their bytes from the IP header on, each with headers of its own.
        pub bytes: u32,
        /// Slots of traces in use.
        pub traces: u32,
        /// Minor number of the packet's HTB leaf, 0 for none.
        pub class: u32,
        /// Code point that the packet gets plus 1, 0 to leave it.
        pub dscp: u32,
        /// Rate of `class` in bits per second.
        pub class_bps: u64,
        /// When the packet may leave (`bpf_ktime_get_ns`), 0 for at once.
        pub departure_ns: u64,
        /// Signatures that the packet's connection bears.
        pub heard: Heard,
        /// Segment whose rules are being asked.
        pub asked: u32,
        /// Sequence number of a packet that is answered with a reset, and 1 if its checksum is left to hardware.
        pub reset: [u32; 2],
        /// Bits of `set_key` that are looked up.
        pub set_bits: u32,
        /// What is looked up in a set.
        pub set_key: SetKey,
    }
}

/// Instead of an ingress interface: the host itself sent the packet.
pub const FROM_HOST: u32 = u32::MAX;

/// Not the hub's to judge.
pub const VERDICT_SKIP: u32 = 0;
/// Drop, for `reason`.
pub const VERDICT_DROP: u32 = 1;
/// Allowed and counted; the kernel forwards or delivers it.
pub const VERDICT_STACK: u32 = 2;
/// Allowed and counted; leaves by `hop`.
pub const VERDICT_REDIRECT: u32 = 3;
/// Allowed, nothing counted yet: the next hop must be looked up first.
pub const VERDICT_ROUTE: u32 = 4;
/// Allowed, nothing counted: XDP leaves it to TC, which judges it again.
pub const VERDICT_DEFER: u32 = 5;

/// The first bytes of the connection decide: they are to be read, and the packet judged again.
pub const VERDICT_HEAR: u32 = 6;

/// No flow yet: make one.
pub const OUTCOME_NEW: u32 = 1;
/// The flow was judged by rules again: restamp it.
pub const OUTCOME_RESTAMP: u32 = 1 << 1;
/// The flow is in the table of half-open connections.
pub const OUTCOME_HALF_OPEN: u32 = 1 << 2;
/// Belongs to a flow but is none of its packets: an ICMP error.
pub const OUTCOME_RELATED: u32 = 1 << 3;
/// A rule asked to report the packet.
pub const OUTCOME_LOG: u32 = 1 << 4;
/// An established flow let it pass without asking rules.
pub const OUTCOME_ESTABLISHED: u32 = 1 << 5;
/// The drop is answered: TCP reset or ICMP error.
pub const OUTCOME_REJECT: u32 = 1 << 7;
/// A closed flow opens anew: the old entry goes.
pub const OUTCOME_REOPEN: u32 = 1 << 8;
/// The target is the hub itself.
pub const OUTCOME_LOCAL: u32 = 1 << 9;
/// Rules allow the connection both ways by its ports: it has no flow, whatever packet of it this is.
pub const OUTCOME_UNTRACKED: u32 = 1 << 10;
/// The segments involved are active and have nothing that must be looked up for each packet.
pub const OUTCOME_PLAIN: u32 = 1 << 11;
/// A segment of the packet is shaped, marked or capped.
pub const OUTCOME_SHAPED: u32 = 1 << 12;
/// The next hop is known but was not confirmed for long: the kernel forwards this packet.
pub const OUTCOME_AGED: u32 = 1 << 6;

/// One of its segments is translated: XDP leaves it to TC, and rules see native addresses.
pub const OUTCOME_TRANSLATED: u32 = 1 << 14;

/// One of its segments limits the size of TCP segments.
pub const OUTCOME_CLAMPED: u32 = 1 << 15;
/// Rules depend on first bytes that are still to come; only who asks why is told.
pub const OUTCOME_UNHEARD: u32 = 1 << 18;

/// One of its segments is about to change over: what begins must pass the policy to come.
pub const OUTCOME_GATED: u32 = 1 << 17;

/// The drop of a TCP packet is told to the other end of its connection as well.
pub const OUTCOME_RESET_ON: u32 = 1 << 16;

/// May leave by a redirect: addressed to this port, TTL above 1, no options, an Ethernet header.
pub const SCRATCH_REDIRECTABLE: u32 = 1;
/// The packet's flow was looked for and there is none.
pub const SCRATCH_NO_FLOW: u32 = 1 << 2;
/// Decide only: change no map.
pub const SCRATCH_READ_ONLY: u32 = 1 << 1;
/// A candidate policy waits to judge the packet as well.
pub const SCRATCH_CANDIDATE: u32 = 1 << 3;
/// One of the hub's rules left the rest to the persona's.
pub const SCRATCH_PASSED_ON: u32 = 1 << 4;
/// A segment of the packet has rules for connections that bear a signature.
pub const SCRATCH_HEARS: u32 = 1 << 8;
/// The packet has the first bytes of its connection, and they are to be read.
pub const SCRATCH_HEAR: u32 = 1 << 9;
/// It is known what the first bytes of the connection said.
pub const SCRATCH_HEARD: u32 = 1 << 10;
/// A rule was met that depends on first bytes which are still to come.
pub const SCRATCH_UNDECIDED: u32 = 1 << 11;
