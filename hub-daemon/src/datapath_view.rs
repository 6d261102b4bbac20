//! What the outside may read from the data path: counters, flows, and why a packet would be dropped.

mod impacts;
pub(crate) mod sweep;

use std::borrow::Cow;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use self::impacts::{DecidedBy, ImpactedFlow, Impacts};
pub use self::sweep::{FlowCounts, Sweep};
use crate::model::{SegmentId, is_default};
use crate::outputs::alerts::AlertEvent;
use crate::qos_view::{HandshakeTimes, QueueCounts};

/// Packets and bytes from the IP header on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Counters of one persona. Ingress is towards its members.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SegmentCounts {
    /// Passed towards members.
    pub ingress: Count,
    /// Passed from members.
    pub egress: Count,
    /// Dropped on the way to members.
    pub ingress_dropped: Count,
    /// Dropped on the way from members.
    pub egress_dropped: Count,
    /// Drops by reason and direction.
    pub drops: Vec<DropCount>,
    /// Packets that passed only because rules are audited, by the reason that they would be dropped for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub would_drop: Vec<DropCount>,
    /// First packets judged by each rule, by position in `security_policies`.
    pub rules: Vec<RuleCount>,
    /// Connections that began.
    #[serde(default)]
    pub flows: FlowsBegun,
    /// How often each detector of the persona fired; those that did.
    #[serde(default)]
    pub detections: Vec<DetectionCount>,
    /// Times of TCP handshakes, after the first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handshakes: Option<HandshakeTimes>,
    /// Queues that packets wait in, for personas with `qos.bandwidth`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub queues: Vec<QueueCounts>,
}

/// Connections of one persona that began, by the side that spoke first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FlowsBegun {
    /// Towards members.
    pub ingress: u64,
    /// From members.
    pub egress: u64,
}

/// How often one detector fired: once a source and window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DetectionCount {
    /// Name of the detector.
    pub detector: String,
    /// How often.
    pub times: u64,
}

/// What one persona does at a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Usage {
    /// Its counters; those of rules are left out.
    #[serde(flatten)]
    pub counts: SegmentCounts,
    /// Its entries in the flow table.
    pub flows: u64,
}

/// What a candidate answered beside the live policy, since its trial began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CandidateCounts {
    /// Judgements: of every packet that asked rules, and of one packet of each connection that did not need
    /// to; a packet between members counts once for each direction.
    pub judged: u64,
    /// Of those, the ones with the same verdict.
    pub agreed: u64,
    /// Judgements of all candidates that there was no room to count.
    pub lost: u64,
    /// The others.
    pub differences: Vec<Difference>,
}

/// Packets that the candidate judges differently.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Difference {
    /// `ingress` or `egress`.
    pub direction: String,
    /// What became of them.
    pub live: Opinion,
    /// What would become of them.
    pub candidate: Opinion,
    /// How many.
    #[serde(flatten)]
    pub count: Count,
    /// The last of them on some CPUs.
    pub samples: Vec<Sample>,
}

/// What one policy says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Opinion {
    /// `pass`, `drop` or `reject`.
    pub verdict: String,
    /// Why, if it does not pass.
    pub reason: Option<String>,
    /// Position in its `security_policies`, from 0; absent for a default or the protocols.
    pub rule: Option<u16>,
}

/// First packet of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Sample {
    /// Protocol name or number.
    pub protocol: String,
    /// Sender.
    #[schema(value_type = String)]
    pub source: IpAddr,
    /// Its port or ICMP identifier.
    pub source_port: u16,
    /// Receiver.
    #[schema(value_type = String)]
    pub target: IpAddr,
    /// Its port or ICMP identifier.
    pub target_port: u16,
}

/// Drops of one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DropCount {
    /// Name of the reason.
    pub reason: Cow<'static, str>,
    /// `ingress` or `egress`.
    pub direction: Cow<'static, str>,
    /// How many.
    #[serde(flatten)]
    pub count: Count,
}

/// What one rule decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RuleCount {
    /// Position in `security_policies`, from 0.
    pub rule: u16,
    /// Names the rule, whatever its position.
    #[serde(skip)]
    pub identity: u64,
    /// Whether it is a position in the hub's `baseline` instead.
    #[serde(default, skip_serializing_if = "is_default")]
    pub baseline: bool,
    /// `ingress` or `egress`.
    pub direction: Cow<'static, str>,
    /// Packets that the rule judged: the first of each flow it admitted, every one it refused.
    #[serde(flatten)]
    pub count: Count,
    /// Packets among them that passed only because the rules are audited.
    #[serde(default, skip_serializing_if = "is_default")]
    pub would_drop: u64,
}

/// Totals of one hook; `received` is the sum of the others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HookCounts {
    /// `xdp_in`, `tc_in` or `tc_out`.
    pub hook: String,
    /// Packets that entered the program.
    pub received: u64,
    /// Sent out through another port by the program.
    pub redirected: u64,
    /// Judged, allowed, and left to the kernel.
    pub passed: u64,
    /// Not the hub's to judge.
    pub skipped: u64,
    /// Answered by the program.
    pub replied: u64,
    /// Dropped.
    pub dropped: u64,
    /// Events that the ring had no room for.
    pub events_lost: u64,
    /// Drops that the per-persona table had no room for.
    pub drops_unattributed: u64,
    /// Drops and rejects by reason name; non-zero ones.
    pub reasons: Vec<(String, u64)>,
}

/// One connection in the flow table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FlowView {
    /// Protocol name or number.
    pub protocol: String,
    /// The end that spoke first.
    #[schema(value_type = String)]
    pub source: IpAddr,
    /// Its port or ICMP identifier.
    pub source_port: u16,
    /// The other end.
    #[schema(value_type = String)]
    pub target: IpAddr,
    /// Its port or ICMP identifier.
    pub target_port: u16,
    /// State of the connection (`hub_common::flow::FLOW_STATES`).
    pub state: String,
    /// Persona of the first end, 0 for none.
    pub source_segment: SegmentId,
    /// Persona of the other end, 0 for none.
    pub target_segment: SegmentId,
    /// From the first end.
    pub sent: Count,
    /// Back to it.
    pub received: Count,
    /// Seconds since the last packet.
    pub idle_seconds: f64,
    /// Seconds since the first packet.
    pub age_seconds: f64,
}

/// An address that a persona does not talk to for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct QuarantinedView {
    /// The address.
    #[schema(value_type = String)]
    pub address: IpAddr,
    /// When it comes free.
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: jiff::Timestamp,
}

/// Number of connections in each tier, with the room there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FlowTable {
    /// Connections that are more than an attempt: TCP after its handshake, others that saw a reply.
    pub established: u64,
    /// Room for them.
    pub established_max: u64,
    /// Half-open connections.
    pub opening: u64,
    /// Room for them; the least recently used goes first.
    pub opening_max: u64,
}

/// A packet to ask about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// IP protocol: a name (`tcp`, `udp`, `icmp`, …) or a number.
    pub protocol: String,
    /// Sender.
    #[schema(value_type = String)]
    pub source: IpAddr,
    /// Its port; default 40000 where the protocol has ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_port: Option<u16>,
    /// Receiver.
    #[schema(value_type = String)]
    pub target: IpAddr,
    /// Its port; default 80 where the protocol has ports. For ICMP: the type, default echo request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_port: Option<u16>,
    /// Interface the packet comes in on; default: the one that the kernel routes the source by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
}

/// What the loaded program says to a [`Question`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Answer {
    /// `pass`, `drop`, `reject`, or `skip` for packets that are not the hub's to judge.
    pub verdict: String,
    /// Why it is dropped.
    pub reason: Option<String>,
    /// What the reason means, a sentence.
    pub explanation: String,
    /// Persona on the sender's side.
    pub source_persona: Option<String>,
    /// Persona on the receiver's side.
    pub target_persona: Option<String>,
    /// Rules that decided: of the sender's persona, of the receiver's.
    pub rules: Vec<AnswerRule>,
    /// Whether an established flow let it pass without asking rules.
    pub established: bool,
    /// Interface the packet was taken to come in on.
    pub port: String,
    /// Interface the kernel would route it to, if any.
    pub leaves_by: Option<String>,
}

/// A rule that took part in a verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AnswerRule {
    /// Persona whose rule it is.
    pub persona: String,
    /// `ingress` or `egress`.
    pub direction: String,
    /// Position in `security_policies`, from 0; absent when the default decided.
    pub rule: Option<u16>,
    /// Where it was written: `FILE:LINE` or `api`.
    pub written: String,
    /// The rule in words.
    pub text: String,
    /// The reason for which it would drop the packet if the persona's rules were enforced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub would_drop: Option<String>,
}

/// One record of the event stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum EventView {
    /// A packet was dropped, or logged by a rule.
    Packet(PacketEvent),
    /// A persona or the hub changed.
    Change(ChangeEvent),
    /// An alert fired, or ended.
    Alert(AlertEvent),
}

/// A packet that was dropped or logged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PacketEvent {
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub time: jiff::Timestamp,
    /// `drop`, `log`, `detect`, or `would_drop` for what passes because rules are audited.
    pub action: String,
    /// Why it was dropped.
    pub reason: Option<String>,
    /// `xdp_in`, `tc_in` or `tc_out`.
    pub hook: String,
    /// Interface it came in on.
    pub port: String,
    /// Protocol name or number.
    pub protocol: String,
    /// Sender.
    #[schema(value_type = String)]
    pub source: IpAddr,
    /// Its port or ICMP identifier.
    pub source_port: u16,
    /// Receiver.
    #[schema(value_type = String)]
    pub target: IpAddr,
    /// Its port or ICMP identifier.
    pub target_port: u16,
    /// Bytes from the IP header on.
    pub length_bytes: u32,
    /// Persona on the sender's side.
    pub source_persona: Option<String>,
    /// Persona on the receiver's side.
    pub target_persona: Option<String>,
    /// Position of the rule that decided.
    pub rule: Option<u16>,
    /// With `detect`: the detector that fired at this packet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detector: Option<String>,
    /// With `detect`: `alert`, `drop` or `quarantine`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<String>,
    /// The packet from its IP header to the end of its transport header, at most 64 bytes, as hexadecimal digits; of
    /// a packet that could not be parsed what there is. Traces have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<String>,
}

/// Something that changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ChangeEvent {
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub time: jiff::Timestamp,
    /// What: `created`, `updated`, `deleted`, `active`, `failed`, `expired`, `drift`, `reload`, `condition`,
    /// `switch`.
    pub what: String,
    /// Name of the persona, if it is about one; of a `switch` the name of the interface's record.
    pub persona: Option<String>,
    /// A sentence.
    pub message: String,
}
