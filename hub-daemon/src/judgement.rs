//! What the loaded programs say of a packet, for whoever compares it with rules.

use hub_common::event::Reason;

use crate::datapath_view::Question;
use crate::model::SegmentId;

/// A packet for the programs to judge.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// The packet, with the port that it comes in by.
    pub question: Question,
    /// Where the port is the device of a tunnel, in whatever namespace: whether the packet goes into it.
    pub tunnel: Option<bool>,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It passes.
    Passes,
    /// It passes as one of a connection that there is: rules were not asked.
    Established,
    /// It is dropped.
    Refused(Reason),
    /// It concerns no persona.
    NotOurs,
}

/// A verdict with whose packet it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// Of the sender and of the receiver; 0 for nobody's.
    pub segments: [SegmentId; 2],
    /// What became of it.
    pub verdict: Verdict,
}
