//! What a kernel could say, bent: every table that is read over netlink, and the notifications.
//!
//! A socket has the bytes as the answer to each question that a table asks, whole as the kernel sends them.
//! Whatever the bytes are, the table is read or refused. What is listed as ours, or as somebody else's, has a
//! message that says so: this file reads marks by itself, byte by byte.

use std::os::fd::{AsRawFd as _, FromRawFd as _, IntoRawFd as _, OwnedFd};

use hub_daemon::desired::{GATE_PRIORITY, LINK_PREFIX, PROTOCOL};
use hub_daemon::kernel::monitor::changes_in;
use hub_daemon::kernel::neighbours::Neighbours;
use hub_daemon::kernel::netlink::Netlink;
use hub_daemon::reconcile::Table;
use hub_daemon::tables::addresses::Addresses;
use hub_daemon::tables::endpoints::{Endpoints, GROUP};
use hub_daemon::tables::gates::Gates;
use hub_daemon::tables::queues::Queues;
use hub_daemon::tables::routes::Routes;
use hub_daemon::tables::rules::Rules;
use ipnet::IpNet;
use nix::sys::socket::{
    AddressFamily, MsgFlags, Shutdown, SockFlag, SockType, send, setsockopt, shutdown, socketpair, sockopt,
};

/// Questions of the table that asks most.
const QUESTIONS: u32 = 7;
/// Room for answers that nobody has read yet.
const ROOM_BYTES: usize = 1 << 20;
/// Group of links of ours that are about to go.
const DOOMED: u32 = 177_177;
/// Handle of our root queue, `177:`.
const ROOT: u32 = 0x0177_0000;

/// A kernel that gives the same answer to every question.
pub(crate) struct Answers {
    netlink: Option<Netlink>,
    _kernel: OwnedFd,
}

impl Answers {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (asking, kernel) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
        // The system's default does not hold all answers; what anybody may ask for does.
        setsockopt(&kernel, sockopt::SndBuf, &ROOM_BYTES).unwrap();
        for question in 1..=QUESTIONS {
            for datagram in [answer(bytes, question), done(question)] {
                if !datagram.is_empty() {
                    send(kernel.as_raw_fd(), &datagram, MsgFlags::MSG_DONTWAIT).unwrap();
                }
            }
        }
        // A question too many is an end, and not a wait.
        shutdown(kernel.as_raw_fd(), Shutdown::Write).unwrap();
        // SAFETY: the descriptor is open, a socket, and owned by nobody else from here on.
        let socket = unsafe { netlink_sys::Socket::from_raw_fd(asking.into_raw_fd()) };
        Self { netlink: Some(Netlink::over(socket)), _kernel: kernel }
    }

    /// The side that asks.
    pub(crate) fn netlink(&mut self) -> Netlink {
        self.netlink.take().unwrap()
    }
}

/// The bytes with the number of the question in each message.
fn answer(bytes: &[u8], question: u32) -> Vec<u8> {
    let mut answer = bytes.to_vec();
    let mut at = 0;
    while let Some(length) = length(&answer[at..]) {
        answer[at + 8..at + 12].copy_from_slice(&question.to_ne_bytes());
        at = (at + length.next_multiple_of(4)).min(answer.len());
    }
    answer
}

/// `NLMSG_DONE`
fn done(question: u32) -> Vec<u8> {
    let parts = [20_u32.to_ne_bytes(), [3, 0, 2, 0], question.to_ne_bytes(), [0; 4], [0; 4]];
    parts.concat()
}

/// Length of the first message, if it is whole.
fn length(bytes: &[u8]) -> Option<usize> {
    let length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
    (16..=bytes.len()).contains(&length).then_some(length)
}

/// A message as it stands there.
pub(crate) struct Raw<'a> {
    pub(crate) kind: u16,
    /// What follows the netlink header.
    body: &'a [u8],
    /// Length of what comes before the attributes.
    head: usize,
}

impl<'a> Raw<'a> {
    pub(crate) fn all(mut bytes: &'a [u8]) -> Vec<Self> {
        let mut all = Vec::new();
        while let Some(length) = length(bytes) {
            let kind = u16::from_ne_bytes([bytes[4], bytes[5]]);
            // Bodies of links, addresses, routes and rules, neighbours, queues.
            let head = match kind {
                16..20 => 16,
                20..24 => 8,
                24..36 => 12,
                _ => 20,
            };
            all.push(Self { kind, body: &bytes[16..length], head });
            bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        all
    }

    fn byte(&self, at: usize) -> Option<u8> {
        self.body.get(at).copied()
    }

    fn word(&self, at: usize) -> Option<u32> {
        Some(u32::from_ne_bytes(*self.body.get(at..)?.first_chunk()?))
    }

    /// Whether it has an attribute of this kind that begins with these bytes.
    fn has(&self, kind: u16, value: &[u8]) -> bool {
        let mut rest = self.body.get(self.head..).unwrap_or_default();
        while let [a, b, c, d, ..] = rest {
            let length = usize::from(u16::from_ne_bytes([*a, *b]));
            let Some(found) = rest.get(4..length) else { return false };
            if u16::from_ne_bytes([*c, *d]) & 0x3fff == kind && found.starts_with(value) {
                return true;
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        false
    }

    fn is_route_of_ours(&self) -> bool {
        self.byte(5) == Some(PROTOCOL)
    }

    /// Prefix length of a route, and `AF_INET` or `AF_INET6`.
    fn is_to(&self, net: IpNet) -> bool {
        let family = if net.addr().is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        self.byte(1) == Some(net.prefix_len()) && self.byte(0).map(i32::from) == Some(family)
    }
}

/// Reads everything; whether nothing was refused.
pub(crate) fn read(bytes: &[u8]) -> bool {
    let messages = Raw::all(bytes);
    let says = |kind: u16, which: &dyn Fn(&Raw<'_>) -> bool| {
        messages.iter().any(|message| message.kind == kind && which(message))
    };
    let mut good = true;
    for key in keys(Routes::new, bytes, &mut good) {
        let which = |route: &Raw<'_>| route.is_route_of_ours() && route.is_to(key.target);
        assert!(says(libc::RTM_NEWROUTE, &which), "{key:?} is not ours");
    }
    for rule in keys(Rules::new, bytes, &mut good) {
        let which = |found: &Raw<'_>| {
            found.has(21, &[PROTOCOL])
                && found.byte(2) == Some(rule.source.prefix_len())
                && found.byte(7) == Some(1)
        };
        assert!(says(libc::RTM_NEWRULE, &which), "{rule:?} is not ours");
    }
    for (name, _) in keys(Gates::new, bytes, &mut good) {
        let which = |found: &Raw<'_>| {
            found.has(21, &[PROTOCOL])
                && found.has(3, name.as_bytes())
                && found.has(6, &GATE_PRIORITY.to_ne_bytes())
                && found.byte(7) == Some(6)
        };
        assert!(says(libc::RTM_NEWRULE, &which), "the gate of {name} is not ours");
    }
    for (name, net) in keys(Addresses::new, bytes, &mut good) {
        let which = |found: &Raw<'_>| found.has(11, &[PROTOCOL]) && found.byte(1) == Some(net.prefix_len());
        assert!(says(libc::RTM_NEWADDR, &which), "{net} on {name} is not ours");
    }
    for name in keys(Endpoints::new, bytes, &mut good) {
        let which = |link: &Raw<'_>| {
            link.has(3, name.as_bytes())
                && [GROUP, DOOMED].iter().any(|group| link.has(27, &group.to_ne_bytes()))
        };
        assert!(name.starts_with(LINK_PREFIX) && says(libc::RTM_NEWLINK, &which), "{name} is not ours");
    }
    for key in keys(Queues::new, bytes, &mut good) {
        let which = |queue: &Raw<'_>| queue.word(8) == Some(ROOT) && queue.has(1, b"htb");
        assert!(says(libc::RTM_NEWQDISC, &which), "{key:?} is not ours");
    }
    match Answers::new(bytes).netlink().inventory() {
        Ok(inventory) => {
            for net in inventory.foreign_routes {
                let which =
                    |route: &Raw<'_>| !route.is_route_of_ours() && route.byte(1) == Some(net.prefix_len());
                assert!(says(libc::RTM_NEWROUTE, &which), "{net} is ours");
            }
        }
        Err(_refused) => good = false,
    }
    let mut neighbours = Neighbours::read(&mut Answers::new(bytes).netlink()).unwrap_or_default();
    let changes = changes_in(bytes, &mut neighbours, &std::collections::BTreeSet::new());
    assert!(changes.len() <= messages.len(), "{changes:?} out of {} messages", messages.len());
    good
}

/// What a table lists when these are the answers.
pub(crate) fn keys<T: Table>(open: fn(Netlink) -> T, bytes: &[u8], good: &mut bool) -> Vec<T::Key> {
    let mut answers = Answers::new(bytes);
    match open(answers.netlink()).list() {
        Ok(found) => found.into_keys().collect(),
        Err(_refused) => {
            *good = false;
            Vec::new()
        }
    }
}
