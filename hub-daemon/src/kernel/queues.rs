//! Queues of interfaces as netlink carries them (`linux/pkt_sched.h`).

pub mod pacer;

use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_REPLACE, Nla as _, NlasIterator};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage, TcOption, TcStats2};
use nix::errno::Errno;

use super::netlink::{Netlink, NetlinkError};
use crate::desired::queues::{Class, Fifo};

/// Major number of our root, `177:` in `tc`.
pub const MAJOR: u16 = (hub_common::shape::QUEUE_MAJOR >> 16) as u16;
/// Default class of our HTB. No class has this number, so that what has no class is not limited; together
/// with the major number it tells our HTB from others.
const NO_CLASS: u32 = 0x177;

const TCA_OPTIONS: u16 = 2;
const TCA_HTB_PARMS: u16 = 1;
const TCA_HTB_INIT: u16 = 2;
const TCA_HTB_RATE64: u16 = 6;
const TCA_HTB_CEIL64: u16 = 7;
const TCA_TBF_PARMS: u16 = 1;
const TCA_TBF_RATE64: u16 = 4;
const TCA_TBF_BURST: u16 = 6;
/// `TC_LINKLAYER_ETHERNET`: the kernel computes times itself and wants no rate tables.
const ETHERNET: u8 = 1;
/// Version of the interface that `sch_htb.c` asks for.
const HTB_VERSION: u32 = 3;
/// Nanoseconds of the kernel's unit of time in these messages.
const TICK_NS: u128 = 64;
/// Bytes that may leave at once are those of 10 ms, and a packet at least.
const BURSTS_PER_SECOND: u128 = 100;
const BURST_MIN_BYTES: u128 = 1_600;
/// Bytes of one turn when several classes borrow.
const QUANTUM_BYTES: u32 = 10_000;
/// Bytes per second of the bucket in front of a FIFO that only cuts: it never holds a packet back.
const CUTTER_BYTES_PER_SECOND: u64 = 1_250_000_000_000;

/// A queue of an interface.
#[derive(Clone, Debug)]
pub struct FoundQueue {
    /// Index of the interface.
    pub index: u32,
    /// Number.
    pub handle: TcHandle,
    /// Class or interface it belongs to.
    pub parent: TcHandle,
    /// Kind, like `htb`.
    pub kind: String,
    /// Options as the kernel sent them.
    options: Vec<u8>,
    /// Bytes waiting.
    pub backlog_bytes: u64,
    /// Packets dropped because there was no room.
    pub drops: u64,
    /// Packets that left.
    pub packets: u64,
    /// Bytes that left.
    pub bytes: u64,
}

impl FoundQueue {
    fn new(message: &TcMessage) -> Self {
        let mut found = Self {
            index: message.header.index.cast_unsigned(),
            handle: message.header.handle,
            parent: message.header.parent,
            kind: String::new(),
            options: Vec::new(),
            backlog_bytes: 0,
            drops: 0,
            packets: 0,
            bytes: 0,
        };
        for attribute in &message.attributes {
            if let TcAttribute::Kind(kind) = attribute {
                kind.clone_into(&mut found.kind);
            } else if let TcAttribute::Options(options) = attribute
                && let [TcOption::Other(raw)] = options.as_slice()
            {
                found.options = vec![0; raw.value_len()];
                raw.emit_value(&mut found.options);
            } else if let TcAttribute::Stats2(stats) = attribute {
                for stat in stats {
                    if let TcStats2::Queue(queue) = stat {
                        found.backlog_bytes = u64::from(queue.backlog);
                        found.drops = u64::from(queue.drops);
                    } else if let TcStats2::Basic(basic) = stat {
                        found.packets = u64::from(basic.packets);
                        found.bytes = basic.bytes;
                    }
                }
            }
        }
        found
    }

    /// Whether it is at the root of its interface.
    pub fn is_root(&self) -> bool {
        self.parent == TcHandle::ROOT
    }

    /// Whether it is our HTB or our `fq`.
    pub fn is_ours(&self) -> bool {
        self.is_htb() || self.is_pacer()
    }

    fn is_htb(&self) -> bool {
        let own = TcHandle { major: MAJOR, minor: 0 };
        let init = option(&self.options, TCA_HTB_INIT);
        self.kind == "htb" && self.handle == own && init.and_then(|init| word(init, 8)) == Some(NO_CLASS)
    }

    /// Whether somebody put it there: what the kernel makes by itself has no number.
    pub fn is_foreign_root(&self) -> bool {
        self.is_root() && self.handle.major != 0 && !self.is_ours()
    }

    /// What it is if it is a FIFO of ours.
    pub fn fifo(&self) -> Option<Fifo> {
        match self.kind.as_str() {
            "bfifo" => Some(Fifo { limit_bytes: word(&self.options, 0)?, cut_bytes: None }),
            "tbf" => {
                let parameters = option(&self.options, TCA_TBF_PARMS)?;
                Some(Fifo { limit_bytes: word(parameters, 24)?, cut_bytes: Some(word(parameters, 32)?) })
            }
            _ => None,
        }
    }

    /// What it is if it is a class of ours.
    pub fn class(&self) -> Option<Class> {
        let parameters = option(&self.options, TCA_HTB_PARMS)?;
        let rate = |at: usize, wide: u16| {
            let wide = option(&self.options, wide).and_then(|bytes| bytes.first_chunk());
            let bytes_ps = wide.map(|bytes| u64::from_ne_bytes(*bytes));
            Some(bytes_ps.unwrap_or(u64::from(word(parameters, at + 8)?)).saturating_mul(8))
        };
        let above = if self.parent == TcHandle::ROOT { 0 } else { self.parent.minor };
        Some(Class {
            parent: above,
            rate_bps: rate(0, TCA_HTB_RATE64)?,
            ceil_bps: rate(12, TCA_HTB_CEIL64)?,
            priority: word(parameters, 40)? as u8,
        })
    }
}

/// The value of a nested option.
fn option(options: &[u8], wanted: u16) -> Option<&[u8]> {
    let found = NlasIterator::new(options).flatten().find(|option| option.kind() == wanted)?;
    let (start, length) = (found.value().as_ptr() as usize - options.as_ptr() as usize, found.value().len());
    options.get(start..start + length)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Parts of a message, one behind the other.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn word(mut self, value: u32) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    /// `struct tc_ratespec`.
    fn rate(mut self, bytes_per_second: u64) -> Self {
        self.0.extend([0, ETHERNET, 0, 0, 0, 0, 0, 0]);
        self.word(u32::try_from(bytes_per_second).unwrap_or(u32::MAX))
    }

    /// An attribute; all of ours are multiples of four bytes.
    fn option(mut self, kind: u16, value: &[u8]) -> Self {
        self.0.extend((value.len() as u16 + 4).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self
    }
}

/// Time that a burst takes at a rate, in the kernel's unit.
fn burst_ticks(bps: u64) -> u32 {
    let bytes = (u128::from(bps) / 8 / BURSTS_PER_SECOND).max(BURST_MIN_BYTES);
    let ticks = bytes * 8_000_000_000 / u128::from(bps.max(1)) / TICK_NS;
    u32::try_from(ticks).unwrap_or(u32::MAX).max(1)
}

fn class_options(class: &Class) -> Vec<u8> {
    let (rate, ceil) = (class.rate_bps / 8, class.ceil_bps / 8);
    let parameters = Bytes::default().rate(rate).rate(ceil);
    let parameters = parameters.word(burst_ticks(class.rate_bps)).word(burst_ticks(class.ceil_bps));
    let parameters = parameters.word(QUANTUM_BYTES).word(0).word(u32::from(class.priority));
    let mut options = Bytes::default().option(TCA_HTB_PARMS, &parameters.0);
    for (kind, rate) in [(TCA_HTB_RATE64, rate), (TCA_HTB_CEIL64, ceil)] {
        if rate > u64::from(u32::MAX) {
            options = options.option(kind, &rate.to_ne_bytes());
        }
    }
    options.0
}

/// Kind and options of a FIFO: with cutting it is behind a token bucket, which cuts what is too long.
fn fifo_options(fifo: &Fifo) -> (&'static str, Vec<u8>) {
    let Some(cut_bytes) = fifo.cut_bytes else {
        return ("bfifo", Bytes::default().word(fifo.limit_bytes).0);
    };
    let parameters = Bytes::default().rate(CUTTER_BYTES_PER_SECOND).rate(0).word(fifo.limit_bytes).word(0);
    // The last word means nothing without a peak rate, and comes back as it was: it tells the length.
    let options = Bytes::default().option(TCA_TBF_PARMS, &parameters.word(cut_bytes).0);
    let options = options.option(TCA_TBF_RATE64, &CUTTER_BYTES_PER_SECOND.to_ne_bytes());
    ("tbf", options.option(TCA_TBF_BURST, &cut_bytes.to_ne_bytes()).0)
}

fn message(index: u32, handle: TcHandle, parent: TcHandle) -> TcMessage {
    let mut message = TcMessage::with_index(index.cast_signed());
    message.header.handle = handle;
    message.header.parent = parent;
    message
}

fn with(mut message: TcMessage, kind: &str, options: Vec<u8>) -> TcMessage {
    message.attributes.push(TcAttribute::Kind(kind.to_owned()));
    message.attributes.push(TcAttribute::Other(DefaultNla::new(TCA_OPTIONS, options)));
    message
}

fn own(minor: u16) -> TcHandle {
    TcHandle { major: MAJOR, minor }
}

impl Netlink {
    /// Every queue of the namespace that somebody made, and the roots that the kernel made.
    pub fn queues(&mut self) -> Result<Vec<FoundQueue>, NetlinkError> {
        let question = RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default());
        let found = self.dump(&question, "list queues")?;
        let queue = |message: RouteNetlinkMessage| {
            if let RouteNetlinkMessage::NewQueueDiscipline(message) = message {
                Some(FoundQueue::new(&message))
            } else {
                None
            }
        };
        Ok(found.into_iter().filter_map(queue).collect())
    }

    /// Classes of our HTB on an interface.
    pub fn queue_classes(&mut self, index: u32) -> Result<Vec<FoundQueue>, NetlinkError> {
        let question = message(index, TcHandle::UNSPEC, TcHandle::UNSPEC);
        let question = RouteNetlinkMessage::GetTrafficClass(question);
        let found = match self.dump(&question, format_args!("list classes of interface {index}")) {
            Err(error) if error.is(Errno::ENODEV) => Vec::new(),
            other => other?,
        };
        let class = |message: RouteNetlinkMessage| {
            if let RouteNetlinkMessage::NewTrafficClass(message) = message {
                Some(FoundQueue::new(&message)).filter(|class| class.handle.major == MAJOR)
            } else {
                None
            }
        };
        Ok(found.into_iter().filter_map(class).collect())
    }

    /// Puts our HTB at the root of an interface. Never replaces a queue that somebody made.
    pub fn add_root(&mut self, index: u32, intent: impl std::fmt::Display) -> Result<(), NetlinkError> {
        let init = Bytes::default().word(HTB_VERSION).word(10).word(NO_CLASS).word(0).word(0);
        let options = Bytes::default().option(TCA_HTB_INIT, &init.0).0;
        let message = with(message(index, own(0), TcHandle::ROOT), "htb", options);
        self.change(RouteNetlinkMessage::NewQueueDiscipline(message), NLM_F_CREATE, intent)
    }

    /// Makes or changes a class of our HTB.
    pub fn put_class(
        &mut self,
        index: u32,
        minor: u16,
        class: &Class,
        intent: impl std::fmt::Display,
    ) -> Result<(), NetlinkError> {
        let message = with(message(index, own(minor), own(class.parent)), "htb", class_options(class));
        self.change(RouteNetlinkMessage::NewTrafficClass(message), NLM_F_CREATE, intent)
    }

    /// Makes or changes the FIFO of a class of our HTB.
    pub fn put_fifo(
        &mut self,
        index: u32,
        minor: u16,
        fifo: &Fifo,
        intent: impl std::fmt::Display,
    ) -> Result<(), NetlinkError> {
        let (kind, options) = fifo_options(fifo);
        let message = with(message(index, TcHandle::UNSPEC, own(minor)), kind, options);
        self.change(RouteNetlinkMessage::NewQueueDiscipline(message), NLM_F_CREATE | NLM_F_REPLACE, intent)
    }

    /// Removes our HTB or `fq` with all that is below it.
    pub fn delete_root(&mut self, index: u32, intent: impl std::fmt::Display) -> Result<(), NetlinkError> {
        let message = message(index, own(0), TcHandle::ROOT);
        gone(self.change(RouteNetlinkMessage::DelQueueDiscipline(message), 0, intent))
    }

    /// Removes a class and its FIFO.
    pub fn delete_class(
        &mut self,
        index: u32,
        minor: u16,
        intent: impl std::fmt::Display,
    ) -> Result<(), NetlinkError> {
        let message = message(index, own(minor), TcHandle::UNSPEC);
        gone(self.change(RouteNetlinkMessage::DelTrafficClass(message), 0, intent))
    }
}

/// What is not there need not be removed.
fn gone(result: Result<(), NetlinkError>) -> Result<(), NetlinkError> {
    match result {
        Err(error) if error.is(Errno::ENOENT) || error.is(Errno::ENODEV) || error.is(Errno::EINVAL) => Ok(()),
        other => other,
    }
}
