//! `fq` as the hub uses it: it holds packets until the time of departure that they carry.
//!
//! Ours has our number and a room of its own odd size, by which it is told from others.

use netlink_packet_core::NLM_F_CREATE;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::TcHandle;
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};

use super::{Bytes, FoundQueue, message, option, own, with, word};
use crate::kernel::netlink::{Netlink, NetlinkError};

const KIND: &str = "fq";
const TCA_FQ_PLIMIT: u16 = 1;
const TCA_FQ_FLOW_PLIMIT: u16 = 2;
const TCA_FQ_HORIZON: u16 = 14;
/// Packets that wait on an interface: what one persona may have waiting is limited by its latency.
const LIMIT_PACKETS: u32 = 100_177;
/// The same for one of the queues that `fq` shares out among connections.
const FLOW_LIMIT_PACKETS: u32 = 20_000;
/// Packets are due no later than this, or dropped: longer than any latency.
const HORIZON_US: u32 = 65_000_000;
/// `lo` is the first interface of every namespace.
const LOOPBACK: u32 = 1;

/// Why packets cannot be made to wait in `fq`.
#[derive(Debug, thiserror::Error)]
pub enum PacerError {
    /// The kernel has no such queue.
    #[error(
        "qos.engine `edt`: this kernel has no queue `fq`: load the module `sch_fq`, or use `qos.engine: htb`"
    )]
    Missing,
    /// It could not be tried.
    #[error("qos.engine `edt`: try the queue `fq` in a namespace of its own: {0}")]
    Namespace(#[source] std::io::Error),
    /// The kernel refused it.
    #[error("qos.engine `edt`: {0}")]
    Refused(#[from] NetlinkError),
}

/// Finds out whether the kernel has `fq`, in a namespace that is gone afterwards.
pub fn probe() -> Result<(), PacerError> {
    let inside = || {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| PacerError::Namespace(errno.into()))?;
        match Netlink::open()?.add_pacer(LOOPBACK, "try the queue `fq`") {
            Err(error) if error.is(Errno::ENOENT) => Err(PacerError::Missing),
            other => Ok(other?),
        }
    };
    crate::thread::run("probe", inside).unwrap_or_else(|error| Err(PacerError::Namespace(error)))
}

impl FoundQueue {
    /// Whether it is our `fq`.
    pub fn is_pacer(&self) -> bool {
        let limit = option(&self.options, TCA_FQ_PLIMIT).and_then(|limit| word(limit, 0));
        self.kind == KIND && self.handle == own(0) && limit == Some(LIMIT_PACKETS)
    }
}

impl Netlink {
    /// Puts our `fq` at the root of an interface. Never replaces a queue that somebody made.
    pub fn add_pacer(&mut self, index: u32, intent: impl std::fmt::Display) -> Result<(), NetlinkError> {
        let options = Bytes::default()
            .option(TCA_FQ_PLIMIT, &LIMIT_PACKETS.to_ne_bytes())
            .option(TCA_FQ_FLOW_PLIMIT, &FLOW_LIMIT_PACKETS.to_ne_bytes())
            .option(TCA_FQ_HORIZON, &HORIZON_US.to_ne_bytes());
        let message = with(message(index, own(0), TcHandle::ROOT), KIND, options.0);
        self.change(RouteNetlinkMessage::NewQueueDiscipline(message), NLM_F_CREATE, intent)
    }
}
