//! What the model remembers.

use std::net::IpAddr;

use super::flows::FirstFragment;
use super::headers::Piece;
use super::{Flow, Headers, Model, Stamp, State, Tuple, Verdict};

/// What the hub remembers differently after a packet.
#[derive(Clone, Debug)]
pub enum Change {
    /// A flow begins; one with the same ends is replaced.
    Open(Box<Flow>),
    /// A flow goes on: its tuple, the direction and TCP flags of the packet, and when.
    Go(Tuple, usize, u8, u64),
    /// The flow with this tuple was allowed again by these versions of its segments' policies.
    Stamp(Tuple, Stamp),
    /// A packet takes its part of a limit.
    Take((u16, Option<IpAddr>)),
    /// An address is kept out of a segment from now on.
    Isolate(u32, IpAddr),
    /// The flow with this tuple is over.
    Cut(Tuple),
    /// Later fragments of this packet may follow until a tick.
    Remember(Box<Headers>, u64),
}

/// A verdict with its consequences.
#[derive(Clone, Debug)]
pub struct Decision {
    /// What becomes of the packet.
    pub verdict: Verdict,
    /// What to remember if the verdict is carried out.
    pub changes: Vec<Change>,
}

impl Model {
    /// Remembers what follows from a verdict.
    pub fn apply(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Open(flow) => {
                    self.forget(flow.tuple());
                    self.count(&flow);
                    self.flows.push(*flow);
                }
                Change::Go(tuple, direction, tcp_flags, now) => {
                    let before = self.flow_mut(tuple).clone();
                    self.flow_mut(tuple).take(direction, tcp_flags, now);
                    if before.state != State::Closed && self.flow_mut(tuple).state == State::Closed {
                        self.count_no_more(&before);
                    }
                }
                Change::Stamp(tuple, stamp) => {
                    let flow = self.flow_mut(tuple);
                    (flow.segments, flow.versions) = (stamp.segments, stamp.versions);
                    (flow.generations, flow.limits) = (stamp.generations, stamp.limits);
                    flow.counted = stamp.counted;
                    flow.is_due = false;
                }
                Change::Take(bucket) => self.take(bucket),
                Change::Isolate(segment, address) => {
                    self.quarantine.insert((segment, address), u64::MAX);
                }
                Change::Cut(tuple) => {
                    let flow = self.flow_mut(tuple).clone();
                    if flow.state != State::Closed {
                        self.count_no_more(&flow);
                    }
                    self.forget(tuple);
                }
                Change::Remember(headers, until_tick) => {
                    let Piece::First(id) = headers.piece else { unreachable!("only first fragments are") };
                    let protocol = headers.source.is_ipv4().then_some(headers.protocol);
                    self.fragments.push(FirstFragment { headers: *headers, id, protocol, until_tick });
                }
            }
        }
    }

    fn forget(&mut self, tuple: Tuple) {
        self.flows.retain(|flow| flow.tuple() != tuple && flow.tuple() != tuple.reversed());
    }

    fn flow_mut(&mut self, tuple: Tuple) -> &mut Flow {
        self.flows.iter_mut().find(|flow| flow.tuple() == tuple).expect("the change was made for this flow")
    }

    /// Lets a rule behind every flow end, so that the rules are asked again.
    pub fn fall_due(&mut self) {
        for flow in &mut self.flows {
            flow.is_due = true;
        }
    }

    /// Lets everything that is remembered become too old to count.
    pub fn age(&mut self) {
        for flow in &mut self.flows {
            flow.last_tick = 0;
        }
        self.fragments.clear();
        self.forget_connections();
    }
}
